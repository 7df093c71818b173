//go:build ignore
// SPDX-License-Identifier: GPL-2.0
/*
 * irq - how long the handlers of hardware interrupts run, by line, and how long
 * work waits in work queues and runs, by queue.
 *
 * A handler is not interrupted by another on its CPU, so that its stamp is one
 * value of the CPU. A work item has its stamp in an array indexed by its address, one
 * that runs in an array indexed by its worker's pid: a hash with update and
 * delete costs several times as much.
 */
#include "huatuo.h"
#include "hist.h"
#include "cgroup.h"

#define LINES 1024   /* the last one counts what is beyond */
#define QUEUED 16384 /* 384 KiB */
#define RUNNING 4096
#define NAME 32
#define FRAMES 32
#define STALE_NS (60ULL * 1000000000) /* the CPU was offline */

HT_CONST(u64, gap_ns, 20000000);
HT_CONST(u64, tick_gap_period_ns, 1000000000);
HT_CONST(u64, tick_gap_burst, 5);

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct workqueue_struct___irq {
	char name[NAME]; /* 24 before v6.9 */
};

struct pool_workqueue___irq {
	struct workqueue_struct___irq *wq;
};

#pragma clang attribute pop

struct irq_cpu {
	u64 since;
	u64 tick; /* last timer interrupt, or end of idleness */
	u64 idle;
	struct ht_hist service;
	struct ht_hist gap;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct irq_cpu);
} cpus SEC(".maps");

struct irq_line {
	u64 handled;
	u64 ns;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, LINES);
	__type(key, u32);
	__type(value, struct irq_line);
} lines SEC(".maps");

struct queued {
	u64 work;
	u64 ts;
	u64 wq;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, QUEUED);
	__type(key, u32);
	__type(value, struct queued);
} queued SEC(".maps");

struct wq_name {
	u8 name[NAME];
};

struct running {
	u64 work;
	u64 ts;
	u32 pid;
	u32 pad;
	struct wq_name queue;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, RUNNING);
	__type(key, u32);
	__type(value, struct running);
} running SEC(".maps");

struct wq_hists {
	struct ht_hist wait;
	struct ht_hist service;
};

/* By name: queues come and go with devices, names are few. User space puts the one without a name in, for those beyond. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65);
	__type(key, struct wq_name);
	__type(value, struct wq_hists);
} queues SEC(".maps");

/* Where a new entry is copied from: too large for the stack. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct wq_hists);
} empty SEC(".maps");

/* Work that was not measured because two items shared a slot. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, u64);
} collisions SEC(".maps");

static __always_inline int on_entry(void *ctx, bool btf, u32 irq)
{
	u32 zero = 0;
	struct irq_cpu *c = bpf_map_lookup_elem(&cpus, &zero);

	if (c)
		c->since = bpf_ktime_get_ns();
	return 0;
}

static __always_inline int on_exit(void *ctx, bool btf, u32 irq)
{
	u32 zero = 0, line = irq < LINES ? irq : LINES - 1;
	struct irq_cpu *c = bpf_map_lookup_elem(&cpus, &zero);
	struct irq_line *l = bpf_map_lookup_elem(&lines, &line);
	u64 ns;

	if (!c || !l || !c->since)
		return 0;
	ns = bpf_ktime_get_ns() - c->since;
	c->since = 0;
	ht_observe(&c->service, ns);
	l->handled++;
	l->ns += ns;
	return 0;
}

HT_TP1(irq_handler_entry, on_entry, u32)
HT_TP1(irq_handler_exit, on_exit, u32)

struct tick_gap_wire {
	u64 ts; /* end of the gap */
	u64 gap;
	u64 suppressed;
	u64 cgroup; /* of current */
	u32 cpu;
	u32 pid; /* current */
	u32 tgid;
	s32 frames; /* bytes, negative: errno */
	u8 comm[16];
	u64 stack[FRAMES];
};
HT_WIRE(tick_gap_wire);

static __always_inline void report_gap(void *ctx, u64 now, u64 gap)
{
	s64 suppressed = ht_admit(0, now, HT_GET(tick_gap_period_ns), HT_GET(tick_gap_burst));
	u64 id = bpf_get_current_pid_tgid();
	struct tick_gap_wire *e;

	if (suppressed < 0)
		return;
	e = ht_reserve(sizeof(*e));
	if (!e)
		return;
	e->ts = now;
	e->gap = gap;
	e->suppressed = suppressed;
	e->cgroup = ht_cgroup_id(false, (void *)bpf_get_current_task());
	e->cpu = bpf_get_smp_processor_id();
	e->pid = id;
	e->tgid = id >> 32;
	bpf_get_current_comm(e->comm, sizeof(e->comm));
	e->frames = bpf_get_stack(ctx, e->stack, sizeof(e->stack), 0);
	ht_submit(ctx, e, sizeof(*e));
}

/* An idle CPU stops its tick, and gets it back within a period once it is not
 * idle. */
static __always_inline int on_tick(void *ctx, bool btf, u32 vector)
{
	u32 zero = 0;
	struct irq_cpu *c = bpf_map_lookup_elem(&cpus, &zero);
	u64 now = bpf_ktime_get_ns(), gap;

	if (!c)
		return 0;
	gap = now - c->tick;
	if (c->tick && !c->idle && gap >= HT_GET(gap_ns) && gap < STALE_NS) {
		ht_observe(&c->gap, gap);
		report_gap(ctx, now, gap);
	}
	c->tick = now;
	return 0;
}

static __always_inline int on_idle(void *ctx, bool btf, u32 state)
{
	u32 zero = 0;
	struct irq_cpu *c = bpf_map_lookup_elem(&cpus, &zero);

	if (!c)
		return 0;
	c->idle = state != (u32)-1; /* PWR_EVENT_EXIT */
	if (!c->idle)
		c->tick = bpf_ktime_get_ns();
	return 0;
}

HT_TP1(cpu_idle, on_idle, u32)
HT_TP1(local_timer_entry, on_tick, u32)

/* An argument as a number: the verifier does not let us calculate with a pointer. */
static __always_inline u64 number(u64 *arg)
{
	u64 v = 0;

	bpf_probe_read_kernel(&v, sizeof(v), arg);
	return v;
}

/* Multiplicative: work items lie at equal distances in arrays of their owners. */
static __always_inline u32 slot_of(u64 work) { return (work * 0x9e3779b97f4a7c15ULL) >> 50 & (QUEUED - 1); }

static __always_inline int on_queue(void *ctx, bool btf, struct pool_workqueue___irq *pwq, u64 work)
{
	u32 slot = slot_of(work), zero = 0;
	struct queued *q = bpf_map_lookup_elem(&queued, &slot);
	u64 *n;

	if (!q)
		return 0;
	if (q->work && q->work != work) {
		n = bpf_map_lookup_elem(&collisions, &zero);
		if (n)
			*n += 1;
	}
	q->work = work;
	bpf_core_read(&q->wq, sizeof(q->wq), &pwq->wq);
	q->ts = bpf_ktime_get_ns();
	return 0;
}

static __always_inline struct wq_hists *queue_of(struct wq_name *name)
{
	struct wq_hists *h = bpf_map_lookup_elem(&queues, name);
	struct wq_name other = {};
	u32 zero = 0;

	if (h)
		return h;
	h = bpf_map_lookup_elem(&empty, &zero);
	if (!h)
		return NULL;
	bpf_map_update_elem(&queues, name, h, BPF_NOEXIST);
	h = bpf_map_lookup_elem(&queues, name);
	return h ? h : bpf_map_lookup_elem(&queues, &other);
}

static __always_inline int on_start(void *ctx, bool btf, u64 work)
{
	u32 pid = bpf_get_current_pid_tgid(), slot = slot_of(work), at = pid & (RUNNING - 1);
	struct queued *q = bpf_map_lookup_elem(&queued, &slot);
	struct running *r = bpf_map_lookup_elem(&running, &at);
	struct workqueue_struct___irq *wq;
	u64 now = bpf_ktime_get_ns(), waited;
	struct wq_name name = {};
	struct wq_hists *h;

	if (!q || !r || q->work != work)
		return 0;
	waited = now - q->ts;
	wq = (void *)q->wq;
	q->work = 0;
	bpf_probe_read_kernel_str(name.name, sizeof(name.name), __builtin_preserve_access_index(&wq->name));
	r->work = work;
	r->ts = now;
	r->pid = pid;
	__builtin_memcpy(&r->queue, &name, sizeof(name));
	h = queue_of(&name);
	if (h && (s64)waited >= 0)
		ht_observe_shared(&h->wait, waited);
	return 0;
}

static __always_inline int on_end(void *ctx, bool btf, u64 work)
{
	u32 pid = bpf_get_current_pid_tgid(), at = pid & (RUNNING - 1);
	struct running *r = bpf_map_lookup_elem(&running, &at);
	struct wq_name name;
	struct wq_hists *h;

	if (!r || r->work != work || r->pid != pid)
		return 0;
	r->work = 0;
	__builtin_memcpy(&name, &r->queue, sizeof(name));
	h = queue_of(&name);
	if (h)
		ht_observe_shared(&h->service, bpf_ktime_get_ns() - r->ts);
	return 0;
}

HT_TP_FORM(workqueue_queue_work, workqueue_queue_work, on_queue, (struct pool_workqueue___irq *)c[1], number(&c[2]))
HT_TP_FORM(workqueue_execute_start, workqueue_execute_start, on_start, number(&c[0]))
HT_TP_FORM(workqueue_execute_end, workqueue_execute_end, on_end, number(&c[0]))
