//go:build ignore
// SPDX-License-Identifier: GPL-2.0
/*
 * oomkill - whom the OOM killer chose, and what it saw at that moment.
 *
 * By the time user space looks the victim may be gone and its memory free, so
 * the program takes what only the moment has: the victim's size, and usage and
 * limit of its memory cgroup and of those above. It runs once in a kill, so it
 * reads by probe reads in any case, also what the verifier would not let a
 * tp_btf program follow (a css that is part of a mem_cgroup).
 */
#include "huatuo.h"
#include "cgroup.h"

#define FRAMES 32
#define LEVELS 8 /* kubepods/burstable/pod/container and some more */

HT_CONST(u64, oom_kill_period_ns, 200000000);
HT_CONST(u64, oom_kill_burst, 20);

/* One memory cgroup on the way from the victim's to the root. */
struct oom_level {
	u64 id;
	u64 usage; /* pages */
	u64 limit; /* pages */
};

struct oom_wire {
	u64 ts;
	u64 suppressed;
	u64 cgroup;
	u64 trigger_cgroup;
	u64 total_vm; /* pages */
	u64 rss[4];   /* pages: file, anon, swap, shmem */
	u32 pid;      /* of the thread */
	u32 tgid;     /* 0: the kernel told the thread only */
	u32 trigger_pid;
	u32 trigger_tgid;
	s32 score_adj;
	u32 uid;
	s32 frames; /* of the trigger: bytes, negative: errno */
	u32 nlevels;
	u8 comm[16];
	u8 trigger_comm[16];
	struct oom_level levels[LEVELS];
	u64 stack[FRAMES];
};
HT_WIRE(oom_wire);

/* Kills by cgroup, also those whose event is held back. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, u64);
	__type(value, u64);
} kills SEC(".maps");

static __always_inline void count_kill(u64 id)
{
	u64 *n = bpf_map_lookup_elem(&kills, &id), one = 1;

	if (n)
		__sync_fetch_and_add(n, 1);
	else
		bpf_map_update_elem(&kills, &id, &one, BPF_ANY); /* kills are one at a time: oom_lock */
}

static __always_inline u64 rss(struct mm_struct *mm, int i)
{
	s64 n = 0;

	if (bpf_core_type_exists(struct mm_rss_stat)) {
		struct mm_struct___6_1_0 *o = (void *)mm;

		bpf_core_read(&n, sizeof(n), &o->rss_stat.count[i].counter);
	} else {
		bpf_core_read(&n, sizeof(n), &mm->rss_stat[i].count);
	}
	return n < 0 ? 0 : n; /* CPUs keep up to some dozen pages to themselves */
}

static __always_inline void describe_levels(struct oom_wire *e, struct task_struct *t)
{
	u32 memory = bpf_core_enum_value(enum cgroup_subsys_id, memory_cgrp_id), i;
	struct css_set *set = HT_READ(false, t, cgroups);
	struct cgroup_subsys_state *css = NULL;
	struct mem_cgroup *memcg;
	struct kernfs_node *kn;
	struct cgroup *cg;

	bpf_core_read(&css, sizeof(css), &set->subsys[memory & 15]);
#pragma unroll
	for (i = 0; i < LEVELS; i++) {
		if (!css)
			break;
		memcg = (void *)css;
		cg = HT_READ(false, css, cgroup);
		kn = HT_READ(false, cg, kn);
		e->levels[i].id = ht_kernfs_id(false, kn);
		e->levels[i].usage = HT_READ(false, memcg, memory.usage.counter);
		e->levels[i].limit = HT_READ(false, memcg, memory.max);
		e->nlevels = i + 1;
		css = HT_READ(false, css, parent);
	}
}

static __always_inline void describe_victim(struct oom_wire *e, struct task_struct *t)
{
	struct signal_struct *sig = HT_READ(false, t, signal);
	struct mm_struct *mm = HT_READ(false, t, mm);

	e->pid = HT_READ(false, t, pid);
	e->tgid = HT_READ(false, t, tgid);
	e->score_adj = HT_READ(false, sig, oom_score_adj);
	bpf_core_read(e->comm, sizeof(e->comm), &t->comm);
	if (mm) {
		e->total_vm = HT_READ(false, mm, total_vm);
		e->rss[0] = rss(mm, 0);
		e->rss[1] = rss(mm, 1);
		e->rss[2] = rss(mm, 2);
		e->rss[3] = rss(mm, 3);
	}
	if (bpf_core_enum_value_exists(enum cgroup_subsys_id, memory_cgrp_id))
		describe_levels(e, t);
}

/* Before 6.9 there is no @t: user space asks /proc about @pid. */
static __always_inline int on_victim(void *ctx, bool btf, struct task_struct *t, u32 pid, u32 uid)
{
	struct task_struct *current = (void *)bpf_get_current_task();
	u64 now = bpf_ktime_get_ns(), id, cgroup = 0;
	struct oom_wire *e;
	s64 suppressed;

	if (!t && HT_READ(false, current, pid) == pid)
		t = current; /* it asked for memory, and was chosen itself */
	if (t) {
		cgroup = ht_cgroup_id(false, t);
		count_kill(cgroup);
	}
	suppressed = ht_admit(0, now, HT_GET(oom_kill_period_ns), HT_GET(oom_kill_burst));
	if (suppressed < 0)
		return 0;
	e = ht_reserve(sizeof(*e));
	if (!e)
		return 0;
	__builtin_memset(e, 0, __builtin_offsetof(struct oom_wire, stack));
	id = bpf_get_current_pid_tgid();
	e->ts = now;
	e->suppressed = suppressed;
	e->cgroup = cgroup;
	e->pid = pid;
	e->uid = uid;
	if (t)
		describe_victim(e, t);
	e->trigger_pid = id;
	e->trigger_tgid = id >> 32;
	e->trigger_cgroup = ht_cgroup_id(false, current);
	bpf_get_current_comm(e->trigger_comm, sizeof(e->trigger_comm));
	e->frames = bpf_get_stack(ctx, e->stack, sizeof(e->stack), 0);
	ht_submit_now(ctx, e, sizeof(*e));
	return 0;
}

HT_TP_FORM(mark_victim, mark_victim, on_victim, (struct task_struct *)c[0], 0, c[1])
HT_TP_FORM(mark_victim_pid, mark_victim, on_victim, NULL, c[0], 0)
