//go:build ignore
// SPDX-License-Identifier: GPL-2.0
/*
 * runqueue - how long tasks wait for a CPU, who had it, and what they sleep for.
 *
 * sched_wakeup and sched_switch stamp a task when it becomes runnable, and
 * sched_switch when it falls asleep in something that is counted; sched_switch
 * takes both times when it gets the CPU. The stamps live in an array indexed by
 * the low bits of the pid: a hash with update and delete costs four times as
 * much on this path (docs/reference/cost.md). Two tasks that share a slot
 * overwrite each other; the pid in the slot tells, and the sample is dropped and
 * counted. culprit.h has who ran meanwhile, sleep.h what is slept for, fault.h
 * the page faults that take too long.
 */
#include "huatuo.h"
#include "hist.h"
#include "cgroup.h"
#include "task.h"

#define STAMPS                                                                                                         \
	65536  /* 2 MiB; 300 runnable tasks collide with a chance of 0.5 %, 1000 that sleep lose 1 % of the samples */
#define RUNS 8 /* tasks remembered per CPU: enough to see who took most of a 50 ms wait */
#define FRAMES 32

HT_CONST(u64, stall_ns, 50000000);
HT_CONST(u64, sched_stall_period_ns, 100000000);
HT_CONST(u64, sched_stall_burst, 10);

/* The two kinds of event, as user space tells them apart: the first member of each. */
enum { SCHED_STALL, PAGE_FAULT_STALL };

#include "culprit.h"
#include "group.h"
#include "sleep.h"
#include "fault.h"

enum wait_kind { WAKEUP, PREEMPT, WAIT_KINDS };

#define THROTTLED 2  /* flag beside the kind: its group had no quota left */
#define DONE_SHIFT 2 /* above it: how much of the wait is charged, */
#define DONE_UNIT 10 /* in units of 1024 ns: 30 bits are 18 minutes */

/* One cache line has both stamps of a task. */
struct stamp {
	u64 ready; /* since when it can run; 0: it cannot, or runs */
	u32 pid;   /* thread */
	u32 kind;
	u64 asleep;  /* since when it sleeps in something that is counted; 0: it does not */
	u32 sleeper; /* thread: another one may have become runnable since */
	u32 what;    /* enum sleep_kind */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, HT_MMAPABLE);
	__uint(max_entries, STAMPS);
	__type(key, u32);
	__type(value, struct stamp);
} stamps SEC(".maps");

/* One task's stay on the CPU. */
struct run {
	u64 end;
	u64 ns;
	u64 cgroup;
	u32 pid; /* thread */
	u32 tgid;
	u8 comm[16];
};

/* Those with a histogram in struct cpu_state. */
#define PLAIN (READ - LOCK)

/* Everything that is written in each switch, in one value; what always is comes first. */
struct cpu_state {
	u64 since; /* when the running task got the CPU */
	u64 voluntary;
	u64 involuntary;
	u32 next;    /* slot of runs to fill */
	u32 fault;   /* the running task has slept in a page fault that takes too long */
	u32 regs_at; /* 0, or where registers are in a thread's stack */
	struct turns turns;
	struct ht_hist_fine wait[WAIT_KINDS];
	u64 collisions;
	u64 sleep_collisions;
	struct ht_hist slept[PLAIN]; /* LOCK, OTHER, FAULT_IO, FAULT_OTHER */
	struct run runs[RUNS];
	u64 apart[8]; /* a cache line that keeps the next CPU's value out of this one's last */
};

/*
 * By CPU number. Not a per-CPU map: when a waiting task moves, any CPU may read
 * the turns of the one that it leaves.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1); /* user space knows how many CPUs there are */
	__type(key, u32);
	__type(value, struct cpu_state);
} cpus SEC(".maps");

struct sched_stall_wire {
	u64 what;   /* SCHED_STALL */
	u64 ts;	    /* bpf_ktime_get_ns() when the victim got the CPU */
	u64 waited; /* ns */
	u64 suppressed;
	u64 cgroup;
	u32 pid;
	u32 tgid;
	u32 cpu;
	u32 kind;
	s32 victim_frames;  /* bytes, negative: errno */
	s32 culprit_frames; /* bytes, negative: errno */
	s32 culprit_user_frames;
	u32 nruns;
	u8 comm[16];
	struct run prev;       /* gave the CPU up to the victim: culprit stacks are its */
	struct run runs[RUNS]; /* stays of some length, latest first */
	u64 victim[FRAMES];
	u64 culprit[FRAMES];
	u64 culprit_user[FRAMES];
};
HT_WIRE(sched_stall_wire);

static __always_inline void enqueue(u32 pid, u64 now, u32 kind)
{
	u32 slot = pid & (STAMPS - 1);
	struct stamp *s = bpf_map_lookup_elem(&stamps, &slot);

	if (!s)
		return;
	s->ready = now;
	s->pid = pid;
	s->kind = kind;
}

static __always_inline int on_wakeup(void *ctx, bool btf, struct task_struct *p)
{
	u32 pid = HT_READ(btf, p, pid);

	if (pid)
		enqueue(pid, bpf_ktime_get_ns(), throttled(btf, p) ? WAKEUP | THROTTLED : WAKEUP);
	return 0;
}

HT_TP1(sched_wakeup, on_wakeup, struct task_struct *)
HT_TP1(sched_wakeup_new, on_wakeup, struct task_struct *)

static __always_inline void describe_run(struct run *r, bool btf, struct task_struct *prev, u64 now, u64 since)
{
	r->end = now;
	r->ns = now - since;
	r->pid = HT_READ(btf, prev, pid);
	r->tgid = HT_READ(btf, prev, tgid);
	r->cgroup = ht_cgroup_id(btf, prev);
	bpf_probe_read_kernel(r->comm, sizeof(r->comm), prev->comm);
}

static __always_inline int stall(void *ctx, bool btf, struct task_struct *prev, struct task_struct *next,
				 struct cpu_state *c, u64 since, u64 now, u64 waited, u32 kind)
{
	struct sched_stall_wire *e;
	s64 suppressed;
	u32 i;

	suppressed = ht_admit(0, now, HT_GET(sched_stall_period_ns), HT_GET(sched_stall_burst));
	if (suppressed < 0)
		return 0;
	e = ht_reserve(sizeof(*e));
	if (!e)
		return 0;
	e->what = SCHED_STALL;
	e->ts = now;
	e->waited = waited;
	e->suppressed = suppressed;
	e->cgroup = ht_cgroup_id(btf, next);
	e->pid = HT_READ(btf, next, pid);
	e->tgid = HT_READ(btf, next, tgid);
	e->cpu = bpf_get_smp_processor_id();
	e->kind = kind;
	bpf_probe_read_kernel(e->comm, sizeof(e->comm), next->comm);
	describe_run(&e->prev, btf, prev, now, since);
	/* current is still prev: the one that gives the CPU up. */
	e->culprit_frames = bpf_get_stack(ctx, e->culprit, sizeof(e->culprit), 0);
	e->culprit_user_frames = bpf_get_stack(ctx, e->culprit_user, sizeof(e->culprit_user), BPF_F_USER_STACK);
	e->victim_frames = -95; /* EOPNOTSUPP: bpf_get_task_stack wants a trusted task */
	if (btf)
		e->victim_frames = bpf_get_task_stack(next, e->victim, sizeof(e->victim), 0);
	e->nruns = RUNS;
#pragma unroll
	for (i = 0; i < RUNS; i++)
		e->runs[i] = c->runs[(c->next - 1 - i) & (RUNS - 1)];
	ht_submit(ctx, e, sizeof(*e));
	return 0;
}

/* How much of a wait is charged already, ns. */
static __always_inline u64 charged(u32 kind) { return (u64)(kind >> DONE_SHIFT) << DONE_UNIT; }

static __always_inline void falls_asleep(struct cpu_state *c, u32 pid, u32 what, u64 now)
{
	u32 slot = pid & (STAMPS - 1);
	struct stamp *s = bpf_map_lookup_elem(&stamps, &slot);

	if (!s)
		return;
	if (s->asleep && s->sleeper != pid)
		c->sleep_collisions++;
	s->asleep = now;
	s->sleeper = pid;
	s->what = what;
}

/* What happens to the one that gives the CPU up. */
static __always_inline void leave(void *ctx, struct cpu_state *c, bool btf, bool preempt, struct task_struct *prev,
				  u64 now)
{
	u64 state = preempt ? TASK_RUNNING : ht_task_state(btf, prev);
	u64 ran = c->since ? now - c->since : 0; /* the first switch that is seen */
	u32 pid = HT_READ(btf, prev, pid), what = NONE;

	if (pid) {
		if (state == TASK_RUNNING) {
			enqueue(pid, now, throttled(btf, prev) ? PREEMPT | THROTTLED : PREEMPT);
			c->involuntary++;
		} else {
			c->voluntary++;
			if (HT_GET(sleeps))
				what = sleeps_for(btf, prev, pid, state, &c->regs_at);
			if (what != NONE)
				falls_asleep(c, pid, what, now);
		}
		name_turn(&c->turns, prev, ran);
		if (HT_GET(sleeps) && c->fault) {
			c->fault = 0;
			fault_past(ctx, btf, prev, pid, what);
		}
	}
	/* A shorter stay cannot be the culprit of a stall; idle ones tell that the victim was throttled. */
	if (ran >= HT_GET(stall_ns) >> 5) {
		describe_run(&c->runs[c->next & (RUNS - 1)], btf, prev, now, c->since);
		c->next++;
	}
}

/* How long next has waited: -1 when that is not known. */
static __always_inline s64 waited_for(struct cpu_state *c, struct stamp *s, u32 pid, u64 now)
{
	s64 waited;

	if (!s->ready)
		return -1;
	if (s->pid != pid) {
		c->collisions++;
		return -1;
	}
	waited = now - s->ready;
	s->ready = 0;
	return waited < 0 ? 0 : waited; /* stamped on another CPU a moment later */
}

/* next has slept in something that is counted. */
static __always_inline void slept(struct cpu_state *c, bool btf, struct task_struct *next, u32 pid, struct stamp *s,
				  struct group *g, u64 group, u64 now)
{
	u64 ns = now - s->asleep;
	u32 what = s->what;

	s->asleep = 0;
	if ((s64)ns < 0)
		return;
	if (what >= READ)
		count_file(pid, what, ns);
	else if (what - LOCK < PLAIN)
		ht_observe(&c->slept[what - LOCK], ns);
	count_sleep(g, group, what, ns);
	if (what == FAULT_IO || what == FAULT_OTHER)
		c->fault = slept_in_fault(btf, next, pid, what, ns);
}

/* Who waited for so long charges it to those who ran meanwhile. */
static __always_inline void blame(struct cpu_state *c, struct task_struct *prev, u64 group, u32 kind, u64 waited,
				  u64 now)
{
	name_turn_at_least(&c->turns, prev);
	if (kind & THROTTLED)
		charge(group, QUOTA, waited, NULL);
	else
		charge_turns(&c->turns, group, now - waited + charged(kind), now);
}

static __always_inline int on_switch(void *ctx, bool btf, bool preempt, struct task_struct *prev,
				     struct task_struct *next)
{
	u32 cpu = bpf_get_smp_processor_id(), pid, slot;
	struct cpu_state *c = bpf_map_lookup_elem(&cpus, &cpu);
	u64 now = bpf_ktime_get_ns(), since, group = IDLE;
	struct stamp *s;
	struct group *g;
	s64 waited;

	if (!c)
		return 0;
	leave(ctx, c, btf, preempt, prev, now);
	since = c->since;
	c->since = now;
	pid = HT_READ(btf, next, pid);
	if (!pid) {
		take_turn(&c->turns, IDLE, now);
		return 0;
	}
	group = ht_cgroup_id(btf, next);
	slot = pid & (STAMPS - 1);
	s = bpf_map_lookup_elem(&stamps, &slot);
	if (!s)
		return 0;
	g = slot_of(group, now);
	if (HT_GET(sleeps) && s->asleep && s->sleeper == pid)
		slept(c, btf, next, pid, s, g, group, now);
	waited = waited_for(c, s, pid, now);
	if (waited >= 0) {
		count_wait(&c->wait[s->kind & 1], g, group, waited);
		if (waited >= (s64)HT_GET(culprit_ns))
			blame(c, prev, group, s->kind, waited, now);
		if (waited >= (s64)HT_GET(stall_ns))
			stall(ctx, btf, prev, next, c, since, now, waited, s->kind & 1);
	}
	take_turn(&c->turns, group, now);
	return 0;
}

HT_TP3(sched_switch, on_switch, bool, struct task_struct *, struct task_struct *)

/* Migrations are rare next to switches: one counter, no identity. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, u64);
} migrations SEC(".maps");

/* What a task has waited for so far is charged to those of the CPU that it leaves. */
static __always_inline void moves(bool btf, struct task_struct *p)
{
	u32 pid = HT_READ(btf, p, pid), slot = pid & (STAMPS - 1), cpu;
	struct stamp *s = bpf_map_lookup_elem(&stamps, &slot);
	struct cpu_state *c;
	u64 now, from;

	/*
	 * A task that sleeps and is woken on another CPU moves as well: it is not
	 * runnable yet, and its stamp, if any, is of a wakeup that came while it ran.
	 */
	if (!s || !s->ready || s->pid != pid || s->kind & THROTTLED || !ht_task_runnable(btf, p))
		return;
	now = bpf_ktime_get_ns();
	from = s->ready + charged(s->kind);
	if ((s64)(now - from) < (s64)HT_GET(culprit_ns))
		return;
	cpu = cpu_of(btf, p);
	c = bpf_map_lookup_elem(&cpus, &cpu);
	if (!c)
		return;
	charge_turns(&c->turns, ht_cgroup_id(btf, p), from, now);
	s->kind = (s->kind & 1) | (u32)((now - s->ready) >> DONE_UNIT) << DONE_SHIFT;
}

static __always_inline int on_migrate(void *ctx, bool btf, struct task_struct *p)
{
	u32 zero = 0;
	u64 *n = bpf_map_lookup_elem(&migrations, &zero);

	if (n)
		*n += 1;
	moves(btf, p);
	return 0;
}

HT_TP1(sched_migrate_task, on_migrate, struct task_struct *)

/* For bpf2go. */
const struct fs_key *_fs_key SEC(".wire") = NULL;
