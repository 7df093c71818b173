//go:build ignore
// SPDX-License-Identifier: GPL-2.0
/*
 * reclaim - how long tasks reclaim memory or compact it before they get some.
 *
 * Begin and end are in one task, so the begin is kept in an array indexed by
 * the low bits of the pid: few tasks reclaim at a time, and one that finds its
 * slot taken is counted as not measured.
 */
#include "huatuo.h"
#include "hist.h"
#include "cgroup.h"
#include "task.h"

#define STAMPS 4096 /* 192 KiB */
#define FRAMES 32
#define PF_KTHREAD 0x00200000
#define WINDOW_NS (10ULL * 1000000000)
#define REASONS 4 /* VMSCAN_THROTTLE_* */

HT_CONST(u64, reclaim_ns, 100000000);
HT_CONST(u64, reclaim_sum_ns, 900000000);
HT_CONST(u64, compaction_ns, 50000000);
HT_CONST(u64, direct_reclaim_stall_period_ns, 200000000);
HT_CONST(u64, direct_reclaim_stall_burst, 10);
HT_CONST(u64, compaction_stall_period_ns, 200000000);
HT_CONST(u64, compaction_stall_burst, 10);

enum kind { DIRECT, MEMCG, NODE, COMPACTION, BACKGROUND, KINDS };

struct stamp {
	u64 ts;	    /* begin, 0: not in it */
	u64 window; /* begin of the interval that sum is about */
	u64 sum;    /* ns of reclaim in it */
	u32 calls;
	u32 pid; /* thread */
	u32 kind;
	s32 order;
	u32 gfp;
	u32 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, STAMPS);
	__type(key, u32);
	__type(value, struct stamp);
} stamps SEC(".maps");

struct host_stats {
	struct ht_hist_fine seconds[KINDS];
	struct ht_hist throttled[REASONS];
	u64 pages[KINDS];
	u64 unmeasured;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct host_stats);
} host SEC(".maps");

/* By cgroup of the task that reclaims, shared by all CPUs: reclaim takes 100 us and more. */
enum { GROUP_DIRECT, GROUP_MEMCG, GROUP_COMPACTION, GROUP_KINDS };

struct cgroup_stats {
	struct ht_hist seconds[GROUP_KINDS];
	u64 pages;
};

/* 1024 cgroups that reclaim; the least recently used go first. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, u64);
	__type(value, struct cgroup_stats);
} cgroups SEC(".maps");

/* Where a new cgroup's value is copied from: too large for the stack. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct cgroup_stats);
} empty SEC(".maps");

struct stall_wire {
	u64 ts; /* end */
	u64 ns;
	u64 suppressed;
	u64 cgroup;
	u64 pages;
	u64 sum;    /* ns in window, 0: not the reason for the event */
	u64 window; /* ns */
	u32 calls;  /* in window */
	u32 kind;
	s32 order;
	u32 gfp;
	s32 status; /* enum compact_result */
	u32 pid;
	u32 tgid;
	s32 frames; /* bytes, negative: errno */
	s32 user_frames;
	u32 pad;
	u8 comm[16];
	u64 stack[FRAMES];
	u64 user[FRAMES];
};
HT_WIRE(stall_wire);

static __always_inline struct host_stats *this_cpu(void)
{
	u32 zero = 0;

	return bpf_map_lookup_elem(&host, &zero);
}

static __always_inline struct stamp *slot_of(u32 pid)
{
	u32 slot = pid & (STAMPS - 1);

	return bpf_map_lookup_elem(&stamps, &slot);
}

/* The slot for the current task; what another task left of its window is gone then. */
static __always_inline struct stamp *take(u32 pid)
{
	struct stamp *s = slot_of(pid);

	if (!s)
		return NULL;
	if (s->pid != pid) {
		s->ts = 0;
		s->window = 0;
		s->sum = 0;
		s->calls = 0;
		s->pid = pid;
	}
	return s;
}

static __always_inline int begin(u32 kind, s32 order, u32 gfp)
{
	struct stamp *s = take(bpf_get_current_pid_tgid());

	if (!s)
		return 0;
	s->kind = kind;
	s->order = order;
	s->gfp = gfp;
	s->ts = bpf_ktime_get_ns();
	return 0;
}

static __always_inline void observe_cgroup(u64 id, u32 kind, u64 ns, u64 pages)
{
	struct cgroup_stats *c = bpf_map_lookup_elem(&cgroups, &id), *none;
	u32 zero = 0, k;

	if (!c) {
		none = bpf_map_lookup_elem(&empty, &zero);
		if (!none)
			return;
		bpf_map_update_elem(&cgroups, &id, none, BPF_NOEXIST);
		c = bpf_map_lookup_elem(&cgroups, &id);
		if (!c)
			return;
	}
	k = kind == COMPACTION ? GROUP_COMPACTION : kind == MEMCG ? GROUP_MEMCG : GROUP_DIRECT;
	ht_observe_shared(&c->seconds[k], ns);
	if (pages) /* clang makes an `or` of adding 0, which kernels before v5.12 do not know */
		__sync_fetch_and_add(&c->pages, pages);
}

static __always_inline int stall(void *ctx, struct stamp *s, u64 now, u64 ns, u64 sum, u64 cgroup, u64 pages,
				 s32 status)
{
	bool compaction = s->kind == COMPACTION;
	struct stall_wire *e;
	s64 suppressed;
	u64 id;

	suppressed = compaction ? ht_admit(1, now, HT_GET(compaction_stall_period_ns), HT_GET(compaction_stall_burst))
				: ht_admit(0, now, HT_GET(direct_reclaim_stall_period_ns),
					   HT_GET(direct_reclaim_stall_burst));
	if (suppressed < 0)
		return 0;
	e = ht_reserve(sizeof(*e));
	if (!e)
		return 0;
	id = bpf_get_current_pid_tgid();
	e->ts = now;
	e->ns = ns;
	e->suppressed = suppressed;
	e->cgroup = cgroup;
	e->pages = pages;
	e->sum = sum;
	e->window = now - s->window;
	e->calls = s->calls;
	e->kind = s->kind;
	e->order = s->order;
	e->gfp = s->gfp;
	e->status = status;
	e->pid = id;
	e->tgid = id >> 32;
	e->pad = 0;
	bpf_get_current_comm(e->comm, sizeof(e->comm));
	e->frames = bpf_get_stack(ctx, e->stack, sizeof(e->stack), 0);
	e->user_frames = bpf_get_stack(ctx, e->user, sizeof(e->user), BPF_F_USER_STACK);
	ht_submit(ctx, e, sizeof(*e));
	return 0;
}

/* Adds to the window; returns the sum when it has passed the threshold, and begins anew then. */
static __always_inline u64 summed(struct stamp *s, u64 now, u64 ns)
{
	if (!s->window || now - s->window > WINDOW_NS) {
		s->window = now - ns;
		s->sum = 0;
		s->calls = 0;
	}
	s->sum += ns;
	s->calls++;
	return s->sum >= HT_GET(reclaim_sum_ns) ? s->sum : 0;
}

static __always_inline int end(void *ctx, u32 kind, u64 pages, s32 status)
{
	u32 pid = bpf_get_current_pid_tgid();
	u64 now = bpf_ktime_get_ns(), ns, sum = 0, cgroup;
	struct host_stats *h = this_cpu();
	struct stamp *s = slot_of(pid);

	if (!h || !s)
		return 0;
	if (s->kind == BACKGROUND && kind == COMPACTION)
		kind = BACKGROUND;
	if (s->pid != pid || !s->ts || s->kind != kind) { /* began before we came, or lost its slot */
		h->unmeasured++;
		return 0;
	}
	barrier_var(kind);
	if (kind >= KINDS)
		return 0;
	ns = now - s->ts;
	s->ts = 0;
	ht_observe_fine(&h->seconds[kind], ns);
	h->pages[kind] += pages;
	if (kind == BACKGROUND)
		return 0;
	cgroup = ht_cgroup_id(false, (void *)bpf_get_current_task());
	observe_cgroup(cgroup, kind, ns, pages);
	if (kind == COMPACTION) {
		if (ns >= HT_GET(compaction_ns))
			stall(ctx, s, now, ns, 0, cgroup, pages, status);
		return 0;
	}
	sum = summed(s, now, ns);
	if (sum || ns >= HT_GET(reclaim_ns))
		stall(ctx, s, now, ns, sum, cgroup, pages, 0);
	if (sum)
		s->window = 0;
	return 0;
}

static __always_inline int on_direct(void *ctx, bool btf, s32 order, u32 gfp) { return begin(DIRECT, order, gfp); }
static __always_inline int on_memcg(void *ctx, bool btf, s32 order, u32 gfp) { return begin(MEMCG, order, gfp); }
static __always_inline int on_node(void *ctx, bool btf, s32 order, u32 gfp) { return begin(NODE, order, gfp); }
static __always_inline int on_direct_end(void *ctx, bool btf, u64 pages) { return end(ctx, DIRECT, pages, 0); }
static __always_inline int on_memcg_end(void *ctx, bool btf, u64 pages) { return end(ctx, MEMCG, pages, 0); }
static __always_inline int on_node_end(void *ctx, bool btf, u64 pages) { return end(ctx, NODE, pages, 0); }

/* Of the form whose first argument is the order; before v5.2 another one came between: see core_fixes.h. */
static __always_inline u32 gfp_of(u64 *c)
{
	struct trace_event_raw_mm_vmscan_direct_reclaim_begin_template___5_1_0 *old = NULL;

	if (bpf_core_field_exists(old->may_writepage)) {
		u64 third = c[2];

		barrier_var(third); /* or the compiler makes one load of both, from where the kernel does not let it */
		return third;
	}
	return c[1];
}

/* (order, gfp), and (gfp, order, memcg) since v7.0: see core_fixes.h */
HT_TP_FORM(mm_vmscan_direct_reclaim_begin, mm_vmscan_direct_reclaim_begin, on_direct, c[0], gfp_of(c))
HT_TP_FORM(mm_vmscan_direct_reclaim_begin_3, mm_vmscan_direct_reclaim_begin, on_direct, c[1], c[0])
HT_TP_FORM(mm_vmscan_memcg_reclaim_begin, mm_vmscan_memcg_reclaim_begin, on_memcg, c[0], gfp_of(c))
HT_TP_FORM(mm_vmscan_memcg_reclaim_begin_3, mm_vmscan_memcg_reclaim_begin, on_memcg, c[1], c[0])
HT_TP_FORM(mm_vmscan_node_reclaim_begin, mm_vmscan_node_reclaim_begin, on_node, c[1], c[2])
HT_TP1(mm_vmscan_direct_reclaim_end, on_direct_end, u64)
HT_TP1(mm_vmscan_memcg_reclaim_end, on_memcg_end, u64)
HT_TP1(mm_vmscan_node_reclaim_end, on_node_end, u64)

/* Comes before the zones are compacted one by one, and tells what for. */
static __always_inline int on_try(void *ctx, bool btf, s32 order, u32 gfp)
{
	struct stamp *s = take(bpf_get_current_pid_tgid());

	if (!s)
		return 0;
	s->ts = 0;
	s->kind = COMPACTION;
	s->order = order;
	s->gfp = gfp;
	return 0;
}

HT_TP2(mm_compaction_try_to_compact_pages, on_try, u64, u64)

static __always_inline int on_compaction(void *ctx, bool btf, struct compact_control *cc)
{
	struct task_struct *t = (void *)bpf_get_current_task();
	struct stamp *s = take(bpf_get_current_pid_tgid());

	if (!s)
		return 0;
	if (s->kind != COMPACTION || s->ts) { /* not asked for by an allocation */
		s->order = -1;
		s->gfp = 0;
	}
	if (cc) {
		s->order = HT_READ(btf, cc, order);
		s->gfp = HT_READ(btf, cc, gfp_mask);
	}
	s->kind = BPF_CORE_READ(t, flags) & PF_KTHREAD ? BACKGROUND : COMPACTION;
	s->ts = bpf_ktime_get_ns();
	return 0;
}

static __always_inline int on_compaction_end(void *ctx, bool btf, s32 status)
{
	return end(ctx, COMPACTION, 0, status);
}

/* (cc, zone_start, zone_end, sync[, status]), and with five or six numbers before v5.18: see core_fixes.h */
HT_TP_FORM(mm_compaction_begin, mm_compaction_begin, on_compaction, (struct compact_control *)c[0])
HT_TP_FORM(mm_compaction_begin_5, mm_compaction_begin, on_compaction, NULL)
HT_TP_FORM(mm_compaction_end, mm_compaction_end, on_compaction_end, c[4])
HT_TP_FORM(mm_compaction_end_6, mm_compaction_end, on_compaction_end, c[5])

static __always_inline int on_throttled(void *ctx, bool btf, u64 usec, u64 reason)
{
	struct host_stats *h = this_cpu();

	if (h && reason < REASONS)
		ht_observe(&h->throttled[reason], usec * 1000);
	return 0;
}

HT_TP_FORM(mm_vmscan_throttled, mm_vmscan_throttled, on_throttled, c[2] & 0xffffffff, c[3] & 0xffffffff)
