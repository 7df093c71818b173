//go:build ignore
// SPDX-License-Identifier: GPL-2.0
/*
 * hungtask - tasks that wait and cannot be interrupted, and for what.
 *
 * User space walks all tasks every few seconds with the iterator, which writes
 * a row for each that waits so; nothing runs in between. The kernel's own
 * detector is heard as well.
 */
#include "huatuo.h"
#include "cgroup.h"
#include "task.h"

#define FRAMES 32

/* Members that no other probe reads. */
#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
/* "hung_task: show the blocker task if the task is hung on mutex", v6.16: which lock a task waits for */
struct task_struct___6_16_0 {
	unsigned long blocker;
};

struct mutex {
	atomic_long_t owner;
};

struct rw_semaphore {
	atomic_long_t owner;
};

struct semaphore {
	unsigned long last_holder;
};
#pragma clang attribute pop

/* The lowest bits of a blocker (include/linux/hung_task.h). */
#define BLOCKER_MUTEX 0
#define BLOCKER_SEM 1
#define BLOCKER_MASK 3

/* The lowest bits of the owner of a mutex or a rw_semaphore are flags. */
#define OWNER_MASK 7
#define RWSEM_READER_OWNED 1

/* What a row says of the lock that a task waits for. */
enum lock { LOCK_UNTOLD, LOCK_NONE, LOCK_MUTEX, LOCK_SEMAPHORE, LOCK_RWSEM };

HT_CONST(u64, hung_task_period_ns, 1000000000);
HT_CONST(u64, hung_task_burst, 10);

/* One task that waits. */
struct task_row {
	u64 cgroup;
	u64 switches; /* context switches so far: the same as before, and it has not run */
	u64 start;    /* ns since boot */
	u32 pid;
	u32 tgid;
	u32 killable; /* a signal that kills would wake it */
	s32 frames;   /* bytes, negative: errno */
	u32 lock;     /* enum lock */
	u32 readers;  /* it is held by readers, and the owner is one that may have let go */
	u32 owner;    /* thread that holds it, 0: not known */
	u32 owner_tgid;
	u8 owner_comm[16];
	u8 comm[16];
	u64 stack[FRAMES];
};

/* Where a row is built: too large for the stack. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct task_row);
} row SEC(".maps");

struct hung_wire {
	u64 ts;
	u64 suppressed;
	struct task_row task;
};
HT_WIRE(hung_wire);

static __always_inline u64 owner_of(struct task_row *r, u64 blocker)
{
	void *lock = (void *)(blocker & ~(u64)BLOCKER_MASK);

	switch (blocker & BLOCKER_MASK) {
	case BLOCKER_MUTEX:
		r->lock = LOCK_MUTEX;
		return BPF_CORE_READ((struct mutex *)lock, owner.counter);
	case BLOCKER_SEM:
		r->lock = LOCK_SEMAPHORE;
		return BPF_CORE_READ((struct semaphore *)lock, last_holder);
	default:
		r->lock = LOCK_RWSEM;
		return BPF_CORE_READ((struct rw_semaphore *)lock, owner.counter);
	}
}

static __always_inline void describe_lock(struct task_row *r, struct task_struct *t)
{
	struct task_struct___6_16_0 *b = (void *)t;
	struct task_struct *owner;
	u64 blocker = 0, held;

	r->lock = LOCK_UNTOLD;
	r->readers = 0;
	r->owner = 0;
	r->owner_tgid = 0;
	r->owner_comm[0] = 0;
	if (!bpf_core_field_exists(b->blocker))
		return;
	r->lock = LOCK_NONE;
	bpf_core_read(&blocker, sizeof(blocker), &b->blocker);
	if (!blocker)
		return;
	held = owner_of(r, blocker);
	owner = (void *)(held & ~(u64)OWNER_MASK);
	if (!owner)
		return;
	r->readers = r->lock == LOCK_RWSEM && held & RWSEM_READER_OWNED;
	r->owner = BPF_CORE_READ(owner, pid);
	r->owner_tgid = BPF_CORE_READ(owner, tgid);
	bpf_probe_read_kernel(r->owner_comm, sizeof(r->owner_comm), owner->comm);
	if (owner_of(r, blocker) != held) /* it has let go meanwhile, and may have ended */
		r->owner = 0;
}

static __always_inline void describe(struct task_row *r, bool btf, struct task_struct *t, u64 state)
{
	r->cgroup = ht_cgroup_id(btf, t);
	r->switches = HT_READ(btf, t, nvcsw) + HT_READ(btf, t, nivcsw);
	r->start = ht_task_start(btf, t);
	r->pid = HT_READ(btf, t, pid);
	r->tgid = HT_READ(btf, t, tgid);
	r->killable = !!(state & TASK_WAKEKILL);
	bpf_probe_read_kernel(r->comm, sizeof(r->comm), t->comm);
	describe_lock(r, t);
	r->frames = -95; /* EOPNOTSUPP: bpf_get_task_stack wants a trusted task */
	if (btf)
		r->frames = bpf_get_task_stack(t, r->stack, sizeof(r->stack), 0);
}

#ifndef HT_LEGACY
SEC("iter/task")
int tasks(struct bpf_iter__task *ctx)
{
	struct task_struct *t = ctx->task;
	struct seq_file *seq = ctx->meta->seq;
	struct task_row *r;
	u32 zero = 0;
	u64 state;

	if (!t)
		return 0;
	state = ht_task_state(true, t);
	if (!(state & TASK_UNINTERRUPTIBLE) || state & TASK_NOLOAD)
		return 0;
	r = bpf_map_lookup_elem(&row, &zero);
	if (!r)
		return 0;
	describe(r, true, t, state);
	bpf_seq_write(seq, r, sizeof(*r));
	return 0;
}
#endif

static __always_inline int on_hang(void *ctx, bool btf, struct task_struct *t)
{
	u64 now = bpf_ktime_get_ns();
	struct hung_wire *e;
	s64 suppressed;

	suppressed = ht_admit(0, now, HT_GET(hung_task_period_ns), HT_GET(hung_task_burst));
	if (suppressed < 0)
		return 0;
	e = ht_reserve(sizeof(*e));
	if (!e)
		return 0;
	e->ts = now;
	e->suppressed = suppressed;
	describe(&e->task, btf, t, ht_task_state(btf, t));
	ht_submit(ctx, e, sizeof(*e));
	return 0;
}

HT_TP1(sched_process_hang, on_hang, struct task_struct *)
