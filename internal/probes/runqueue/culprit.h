/* SPDX-License-Identifier: GPL-2.0 */
/*
 * culprit.h - who ran while somebody waited.
 *
 * Each CPU remembers its last turns: a turn is the time in which tasks of one
 * cgroup, or none, had the CPU without a break. A task that gets the CPU after
 * a wait charges its wait to the turns that overlap it. Turns follow each other
 * without a gap, so their beginnings are all that is kept.
 */
#pragma once

/*
 * A shorter wait is charged to nobody: it is what a switch and its caches cost,
 * and by far most waits are shorter, which is what makes this affordable.
 */
HT_CONST(u64, culprit_ns, 20000);

#define TURNS 16     /* remembered per CPU, a power of two */
#define PAIRS 8192   /* of victim and culprit; the least recently used go first */
#define NAME_SHIFT 5 /* a name lives on until stays come that are nearly as long */

/* What takes the place of a culprit's cgroup. */
#define IDLE 0ULL
#define QUOTA (~0ULL)	/* the victim's own: its group was throttled */
#define UNKNOWN (~1ULL) /* ran when no turns were remembered yet */

struct turn {
	u64 start;
	u64 cgroup;
	u64 longest; /* stay of one task in it, ns; 0: nobody has a name yet */
	u8 comm[16]; /* of that task */
};

struct turns {
	u32 now; /* slot of the running turn */
	struct turn turn[TURNS];
};

struct pair {
	u64 victim;
	u64 culprit;
};

struct blame {
	u64 ns;
	u64 longest;
	u8 comm[16];
};

/* Shared by the CPUs: at 20 us and more a charge is rare enough, and a copy per CPU would take megabytes. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, PAIRS);
	__type(key, struct pair);
	__type(value, struct blame);
} pairs SEC(".maps");

static __always_inline u32 cpu_of(bool btf, struct task_struct *p)
{
	struct task_struct___5_15_0 *o = (void *)p;
	u32 cpu = 0;

	if (!bpf_core_field_exists(o->cpu))
		return HT_READ(btf, p, thread_info.cpu);
	bpf_core_read(&cpu, sizeof(cpu), &o->cpu);
	return cpu;
}

/* Whether @p cannot run because its group has used up its quota. */
static __always_inline bool throttled(bool btf, struct task_struct *p)
{
	struct task_struct___6_18_0 *n = (void *)p;
	struct cfs_rq *q;

	if (bpf_core_field_exists(n->throttled))
		return HT_READ(btf, n, throttled);
	if (!bpf_core_field_exists(struct cfs_rq, throttle_count))
		return false;
	q = HT_READ(btf, p, se.cfs_rq);
	return HT_READ(btf, q, throttle_count) > 0;
}

static __always_inline struct turn *running(struct turns *ts) { return &ts->turn[ts->now & (TURNS - 1)]; }

/* The task that stays longest gives a turn its name. */
static __always_inline void name_turn(struct turns *ts, struct task_struct *prev, u64 ran)
{
	struct turn *t = running(ts);

	if (ran < HT_GET(culprit_ns) || ran <= t->longest)
		return;
	t->longest = ran;
	bpf_probe_read_kernel(t->comm, sizeof(t->comm), prev->comm);
}

/* Short stays have no name until somebody is charged for them. */
static __always_inline void name_turn_at_least(struct turns *ts, struct task_struct *prev)
{
	struct turn *t = running(ts);

	if (t->longest || t->cgroup == IDLE)
		return;
	t->longest = 1;
	bpf_probe_read_kernel(t->comm, sizeof(t->comm), prev->comm);
}

static __always_inline void take_turn(struct turns *ts, u64 cgroup, u64 now)
{
	struct turn *t = running(ts);

	if (t->cgroup == cgroup && t->start)
		return;
	ts->now++;
	t = running(ts);
	t->start = now;
	t->cgroup = cgroup;
	t->longest = 0;
}

/* Functions of their own, for what is rare and long. */
static __noinline int charge(u64 victim, u64 culprit, u64 ns, struct turn *t)
{
	struct pair key = { victim, culprit };
	struct blame *b = bpf_map_lookup_elem(&pairs, &key);

	if (!b) {
		struct blame none = {};

		bpf_map_update_elem(&pairs, &key, &none, BPF_NOEXIST);
		b = bpf_map_lookup_elem(&pairs, &key);
		if (!b)
			return 0;
	}
	__sync_fetch_and_add(&b->ns, ns);
	if (!t)
		return 0;
	if (t->longest && t->longest >= b->longest) {
		b->longest = t->longest;
		__builtin_memcpy(b->comm, t->comm, sizeof(b->comm));
	} else {
		b->longest -= b->longest >> NAME_SHIFT;
	}
	return 0;
}

/*
 * share_out - by how much, in 1024ths, each turn has to stand for more than
 * itself, because the wait began before all that are remembered: it is shared as
 * they are.
 */
static __always_inline u64 share_out(struct turns *ts, u32 last, u64 from, u64 now)
{
	u64 start = ts->turn[(last + 1) & (TURNS - 1)].start;

	if (start <= from || start >= now)
		return 1024;
	return ((now - from) << 10) / (now - start);
}

/* charge_turns - charge a wait to those who ran in it. @ts may be another CPU's, and change meanwhile. */
static __noinline int charge_turns(struct turns *ts, u64 victim, u64 from, u64 now)
{
	u64 until = now, start, share;
	u32 i, last = ts->now;

	share = share_out(ts, last, from, now);
#pragma unroll
	for (i = 0; i < TURNS; i++) {
		struct turn *t = &ts->turn[(last - i) & (TURNS - 1)];

		start = t->start;
		if (!start || start > until)
			break;
		if (start < from)
			start = from;
		if (start < until)
			charge(victim, t->cgroup, ((until - start) * share) >> 10, t);
		until = start;
		if (until <= from)
			return 0;
	}
	if (i < TURNS && from < until)
		charge(victim, UNKNOWN, until - from, NULL);
	return 0;
}
