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

static __always_inline void describe(struct task_row *r, bool btf, struct task_struct *t, u64 state)
{
	r->cgroup = ht_cgroup_id(btf, t);
	r->switches = HT_READ(btf, t, nvcsw) + HT_READ(btf, t, nivcsw);
	r->start = ht_task_start(btf, t);
	r->pid = HT_READ(btf, t, pid);
	r->tgid = HT_READ(btf, t, tgid);
	r->killable = !!(state & TASK_WAKEKILL);
	bpf_probe_read_kernel(r->comm, sizeof(r->comm), t->comm);
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
