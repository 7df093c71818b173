/* SPDX-License-Identifier: GPL-2.0 */
/*
 * group.h - a histogram of waits for each cgroup.
 *
 * To find a value in a hash costs more than all else that a switch does here. So
 * each CPU has an array of slots, taken by the low bits of the cgroup's id, which
 * the kernel gives in sequence. The hash has what finds its slot taken, and what
 * was in a slot that somebody else took over because its cgroup was silent.
 */
#pragma once

#define SLOTS 256 /* 62 KiB per CPU; more than the cgroups that are busy at a time on most nodes */

/* After how many ns a slot may be taken over: that costs as much as ten waits. */
HT_CONST(u64, silent_ns, 60000000000);

struct group {
	u64 cgroup;
	u64 last; /* wait */
	struct ht_hist hist;
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

/* take - make the slot @id's. Its owner's histogram goes to the hash, unless it is in use. */
static __noinline int take(struct group *g, u64 id, u64 now)
{
	u32 zero = 0, i;
	u64 *n = bpf_map_lookup_elem(&takeovers, &zero);
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
		__builtin_memset(&g->hist, 0, sizeof(g->hist));
		*n += 1;
	}
	g->cgroup = id;
	return 1;
}

static __always_inline void observe_cgroup(u64 id, u64 waited, u64 now)
{
	u32 slot = id & (SLOTS - 1);
	struct group *g = bpf_map_lookup_elem(&slots, &slot);
	struct ht_hist *h;

	if (!g)
		return;
	if (g->cgroup == id || take(g, id, now)) {
		g->last = now;
		h = &g->hist;
	} else {
		h = hashed(id);
		if (!h)
			return;
	}
	ht_observe(h, waited);
}
