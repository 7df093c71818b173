/* SPDX-License-Identifier: GPL-2.0 */
/*
 * group.h - a histogram of waits, and sums of sleeps, for each cgroup.
 *
 * To find a value in a hash costs more than all else that a switch does here. So
 * each CPU has an array of slots, taken by the low bits of the cgroup's id, which
 * the kernel gives in sequence. The hash has what finds its slot taken, and what
 * was in a slot that somebody else took over because its cgroup was silent.
 */
#pragma once

#define SLOTS 256 /* 104 KiB per CPU; more than the cgroups that are busy at a time on most nodes */

/* After how many ns a slot may be taken over: that costs as much as ten waits. */
HT_CONST(u64, silent_ns, 60000000000);

/* What a thread sleeps for; from READ on in a file. */
enum sleep_kind { NONE, LOCK, OTHER, FAULT_IO, FAULT_OTHER, READ, WRITE, FSYNC, LIST, OPEN, SLEEP_KINDS };

struct sleep_sum {
	u64 count;
	u64 ns;
};

struct group_sleeps {
	struct sleep_sum by[SLEEP_KINDS];
};

struct group {
	u64 cgroup;
	u64 last; /* wait */
	struct ht_hist hist;
	struct group_sleeps sleeps;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SLOTS);
	__type(key, u32);
	__type(value, struct group);
} slots SEC(".maps");

/* 4096 cgroups; the least recently used go first. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_PERCPU_HASH);
	__uint(max_entries, 4096);
	__type(key, u64);
	__type(value, struct ht_hist);
} cgroups SEC(".maps");

/* The sleeps of those that are not in slots: shared by the CPUs, because far fewer cgroups sleep in what is counted than wait for a CPU. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, u64);
	__type(value, struct group_sleeps);
} sleepers SEC(".maps");

/* Where a new cgroup's histogram is copied from: too large for the stack. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct ht_hist);
} empty SEC(".maps");

/* Takeovers begun and ended: who reads slots and hash together reads them again when it changed meanwhile. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, u64);
} takeovers SEC(".maps");

static __always_inline struct ht_hist *hashed(u64 id)
{
	struct ht_hist *h = bpf_map_lookup_elem(&cgroups, &id);
	u32 zero = 0;

	if (h)
		return h;
	h = bpf_map_lookup_elem(&empty, &zero);
	if (!h)
		return NULL;
	bpf_map_update_elem(&cgroups, &id, h, BPF_NOEXIST);
	return bpf_map_lookup_elem(&cgroups, &id);
}

/* A third of the stack, were it there. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct group_sleeps);
} awake SEC(".maps");

static __always_inline struct group_sleeps *hashed_sleeps(u64 id)
{
	struct group_sleeps *g = bpf_map_lookup_elem(&sleepers, &id);
	u32 zero = 0;

	if (g)
		return g;
	g = bpf_map_lookup_elem(&awake, &zero);
	if (!g)
		return NULL;
	bpf_map_update_elem(&sleepers, &id, g, BPF_NOEXIST);
	return bpf_map_lookup_elem(&sleepers, &id);
}

static __always_inline void add_shared(struct sleep_sum *to, u64 count, u64 ns)
{
	__sync_fetch_and_add(&to->count, count);
	__sync_fetch_and_add(&to->ns, ns);
}

static __always_inline bool has_slept(struct group *g)
{
	u64 n = 0;
	u32 i;

#pragma unroll
	for (i = 1; i < SLEEP_KINDS; i++)
		n |= g->sleeps.by[i].count;
	return n;
}

/* take - make the slot @id's. What its owner has there goes to the hashes, unless the slot is in use. */
static __noinline int take(struct group *g, u64 id, u64 now)
{
	u32 zero = 0, i;
	u64 *n = bpf_map_lookup_elem(&takeovers, &zero);
	struct group_sleeps *s;
	struct ht_hist *h;

	if (!n || !g)
		return 0;
	if (g->cgroup) {
		if (now - g->last < HT_GET(silent_ns))
			return 0;
		h = hashed(g->cgroup);
		if (!h)
			return 0;
		*n += 1;
		h->zero += g->hist.zero;
		h->sum += g->hist.sum;
#pragma unroll
		for (i = 0; i < HT_SLOTS_COARSE; i++)
			h->slots[i] += g->hist.slots[i];
		s = has_slept(g) ? hashed_sleeps(g->cgroup) : NULL;
		if (s) {
#pragma unroll
			for (i = 1; i < SLEEP_KINDS; i++)
				add_shared(&s->by[i], g->sleeps.by[i].count, g->sleeps.by[i].ns);
		}
		__builtin_memset(&g->hist, 0, sizeof(g->hist));
		__builtin_memset(&g->sleeps, 0, sizeof(g->sleeps));
		*n += 1;
	}
	g->cgroup = id;
	return 1;
}

/* The slot of @id, when it is @id's. */
static __always_inline struct group *slot_of(u64 id, u64 now)
{
	u32 slot = id & (SLOTS - 1);
	struct group *g = bpf_map_lookup_elem(&slots, &slot);

	if (!g || (g->cgroup != id && !take(g, id, now)))
		return NULL;
	g->last = now;
	return g;
}

/* Count a wait for a CPU, of the host and of a cgroup, whose slot is @g if it has one. */
static __always_inline void count_wait(struct ht_hist_fine *host, struct group *g, u64 id, u64 ns)
{
	struct ht_hist *h = g ? &g->hist : hashed(id);

	if (h)
		ht_observe_both(host, h, ns);
	else
		ht_observe_fine(host, ns);
}

static __always_inline void count_sleep(struct group *g, u64 id, u32 kind, u64 ns)
{
	struct group_sleeps *s;

	s = g ? &g->sleeps : hashed_sleeps(id);
	if (!s)
		return;
	/* Last, and of a value in a register: until 6.x the verifier forgets the bound of what lies on the stack. */
	barrier_var(kind);
	if (kind >= SLEEP_KINDS)
		return;
	if (g) {
		s->by[kind].count++;
		s->by[kind].ns += ns;
		return;
	}
	add_shared(&s->by[kind], 1, ns);
}
