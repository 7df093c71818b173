//go:build ignore
// SPDX-License-Identifier: GPL-2.0
/*
 * softirq - how long soft interrupts wait from when they are raised, and how
 * long they run, by vector.
 *
 * A busy host passes here 100,000 times a second and more, so all that the
 * three programs touch is in one value of the CPU, and the clock, which costs
 * more than the rest, is read once per program and not at all for a vector
 * that is raised again while it is pending.
 */
#include "huatuo.h"
#include "hist.h"
#include "cgroup.h"

#define VECS 10 /* NR_SOFTIRQS, unchanged since v2.6.39 */
#define FRAMES 32

HT_CONST(u64, stall_ns, 10000000);
HT_CONST(u64, softirq_stall_period_ns, 100000000);
HT_CONST(u64, softirq_stall_burst, 10);

/* Longer than any wait: the stamp is left from when the CPU was taken offline. */
#define STALE_NS (120ULL * 1000000000)

enum phase { WAIT, SERVICE };

struct cpu_state {
	u64 raised[VECS]; /* ns, 0: not pending */
	u64 entered[VECS];
	u64 last_end; /* of the handler that ran last */
	u64 last_ns;
	u64 last_vec;
	struct ht_hist_fine wait[VECS];
	struct ht_hist_fine service[VECS];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct cpu_state);
} cpus SEC(".maps");

struct softirq_stall_wire {
	u64 ts; /* end of what was too long */
	u64 ns;
	u64 suppressed;
	u64 cgroup;   /* of current */
	u64 after_ns; /* how long the handler took that ended just before, 0: none did */
	u32 after_vec;
	u32 vec;
	u32 phase;
	u32 cpu;
	u32 pid; /* current */
	u32 tgid;
	s32 frames; /* bytes, negative: errno */
	u32 pad;
	u8 comm[16];
	u64 stack[FRAMES];
};
HT_WIRE(softirq_stall_wire);

static __always_inline struct cpu_state *this_cpu(void)
{
	u32 zero = 0;

	return bpf_map_lookup_elem(&cpus, &zero);
}

static __always_inline int stall(void *ctx, struct cpu_state *c, u32 vec, u32 phase, u64 now, u64 ns)
{
	struct softirq_stall_wire *e;
	s64 suppressed;
	u64 id;

	/* A bucket for each phase, so that a flood of one does not hide the other. */
	suppressed = ht_admit(phase, now, HT_GET(softirq_stall_period_ns), HT_GET(softirq_stall_burst));
	if (suppressed < 0)
		return 0;
	e = ht_reserve(sizeof(*e));
	if (!e)
		return 0;
	id = bpf_get_current_pid_tgid();
	e->ts = now;
	e->ns = ns;
	e->suppressed = suppressed;
	e->cgroup = ht_cgroup_id(false, (void *)bpf_get_current_task());
	e->after_ns = 0;
	e->after_vec = 0;
	if (phase == WAIT && c->last_end + ns > now) { /* it ran while this one waited */
		e->after_ns = c->last_ns;
		e->after_vec = c->last_vec;
	}
	e->vec = vec;
	e->phase = phase;
	e->cpu = bpf_get_smp_processor_id();
	e->pid = id;
	e->tgid = id >> 32;
	e->pad = 0;
	bpf_get_current_comm(e->comm, sizeof(e->comm));
	e->frames = bpf_get_stack(ctx, e->stack, sizeof(e->stack), 0);
	ht_submit(ctx, e, sizeof(*e));
	return 0;
}

static __always_inline int on_raise(void *ctx, bool btf, u64 vec)
{
	struct cpu_state *c = this_cpu();

	if (!c || vec >= VECS)
		return 0;
	if (!c->raised[vec])
		c->raised[vec] = bpf_ktime_get_ns();
	return 0;
}

static __always_inline int on_entry(void *ctx, bool btf, u64 vec)
{
	struct cpu_state *c = this_cpu();
	u64 now = bpf_ktime_get_ns(), since;

	if (!c || vec >= VECS)
		return 0;
	c->entered[vec] = now;
	since = c->raised[vec];
	if (!since) /* raised before we came */
		return 0;
	c->raised[vec] = 0;
	if (now - since > STALE_NS)
		return 0;
	ht_observe_fine(&c->wait[vec], now - since);
	if (now - since >= HT_GET(stall_ns))
		stall(ctx, c, vec, WAIT, now, now - since);
	return 0;
}

static __always_inline int on_exit(void *ctx, bool btf, u64 vec)
{
	struct cpu_state *c = this_cpu();
	u64 now = bpf_ktime_get_ns(), since;

	if (!c || vec >= VECS)
		return 0;
	since = c->entered[vec];
	if (!since)
		return 0;
	c->entered[vec] = 0;
	ht_observe_fine(&c->service[vec], now - since);
	c->last_end = now;
	c->last_ns = now - since;
	c->last_vec = vec;
	if (now - since >= HT_GET(stall_ns))
		stall(ctx, c, vec, SERVICE, now, now - since);
	return 0;
}

HT_TP1(softirq_raise, on_raise, u64)
HT_TP1(softirq_entry, on_entry, u64)
HT_TP1(softirq_exit, on_exit, u64)
