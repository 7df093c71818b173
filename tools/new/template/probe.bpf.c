//go:build ignore
// SPDX-License-Identifier: GPL-2.0
/*
 * @NAME@ - reports each program that starts: replace this by what you observe.
 */
#include "huatuo.h"
#include "cgroup.h"
#include "task.h"

/* Set by the loader from the probe's rate and burst. */
HT_CONST(u64, seen_period_ns, 100000000);
HT_CONST(u64, seen_burst, 10);

struct seen_wire {
	u64 ts; /* bpf_ktime_get_ns() */
	u64 suppressed;
	u64 cgroup;
	u32 pid;
	u32 tgid;
	u8 comm[16];
};
HT_WIRE(seen_wire);

/* What is counted stays in the kernel; only rare things become events. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, u64);
} counts SEC(".maps");

static __always_inline int on_exec(void *ctx, bool btf, struct task_struct *p)
{
	u64 now = bpf_ktime_get_ns(), *n;
	struct seen_wire *e;
	s64 suppressed;
	u32 zero = 0;

	n = bpf_map_lookup_elem(&counts, &zero);
	if (n)
		*n += 1; /* per CPU: no atomic needed */

	suppressed = ht_admit(0, now, HT_GET(seen_period_ns), HT_GET(seen_burst));
	if (suppressed < 0)
		return 0;
	e = ht_reserve(sizeof(*e));
	if (!e)
		return 0;
	e->ts = now;
	e->suppressed = suppressed;
	e->cgroup = ht_cgroup_id(btf, p);
	e->pid = HT_READ(btf, p, pid);
	e->tgid = HT_READ(btf, p, tgid);
	bpf_probe_read_kernel(e->comm, sizeof(e->comm), p->comm);
	ht_submit(ctx, e, sizeof(*e));
	return 0;
}

HT_TP1(sched_process_exec, on_exec, struct task_struct *)
