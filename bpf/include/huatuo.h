/* SPDX-License-Identifier: GPL-2.0 */
/*
 * huatuo.h - what every probe needs: the ring, the loss counters, the rate
 * limit. Each object that includes it has maps of its own, so that one probe
 * cannot starve another and losses can be attributed.
 */
#pragma once
#include "kernel.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>
#include "flavour.h"
#include "core_fixes.h"
#include "hook.h"

/*
 * HT_WIRE() keeps a struct that goes to user space in the object's BTF, for
 * bpf2go. The section is one that no loader makes a map of.
 */
#define HT_WIRE(name) const struct name *_##name SEC(".wire") = NULL

/* Whether events go through a ring buffer; else ht_events is a perf event array. */
#ifdef HT_LEGACY
static __always_inline bool ht_ring(void) { return false; }
#else
HT_CONST(bool, ht_use_ring, true); /* the loader knows */
static __always_inline bool ht_ring(void) { return HT_GET(ht_use_ring); }
#endif

/* Number of kinds of event that one object may rate-limit on its own. */
#define HT_KINDS 4

enum ht_stat {
	HT_OBSERVED, /* met the condition */
	HT_RING_FULL,
	HT_RATE_LIMITED,
	HT_STATS,
	HT_WOKEN = HT_STATS, /* not a count: when this CPU last woke user space */
	HT_SLOTS,
};

/* What was seen, and what was lost before user space could see it. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, HT_SLOTS);
	__type(key, u32);
	__type(value, u64);
} ht_stats SEC(".maps");

/*
 * 128 KiB: 75 events of 1.7 KB (the largest, with three stacks) between two
 * drains. The loader makes it larger where there are many CPUs.
 */
#define HT_RING_BYTES (128 * 1024)

struct {
#ifdef HT_LEGACY
	__uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);
	__uint(key_size, sizeof(u32));
	__uint(value_size, sizeof(u32));
#else
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, HT_RING_BYTES);
#endif
} ht_events SEC(".maps");

/* Where an event is built when there is no ring buffer to reserve in. */
struct ht_scratch_value {
	u8 bytes[4096];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct ht_scratch_value);
} ht_scratch SEC(".maps");

struct ht_rate {
	u64 next;	/* when the bucket would be empty again (GCRA) */
	u64 suppressed; /* since the last event that passed */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, HT_KINDS);
	__type(key, u32);
	__type(value, struct ht_rate);
} ht_rates SEC(".maps");

static __always_inline void ht_count(u32 what)
{
	u64 *n = bpf_map_lookup_elem(&ht_stats, &what);

	if (n)
		*n += 1; /* per CPU: no atomic needed */
}

/*
 * ht_admit - count an event of @kind and say whether it may be sent.
 * @now: bpf_ktime_get_ns()
 * @period: ns between two events in the long run, per CPU; 0 never limits
 * @burst: how many may come at once
 *
 * A per-CPU token bucket (as a GCRA). Returns the number of events that were
 * suppressed since the last one that passed, or -1 when this one may not pass.
 */
static __always_inline s64 ht_admit(u32 kind, u64 now, u64 period, u64 burst)
{
	struct ht_rate *r;
	s64 suppressed;
	u64 next;

	ht_count(HT_OBSERVED);
	if (!period)
		return 0;
	r = bpf_map_lookup_elem(&ht_rates, &kind);
	if (!r)
		return -1;
	next = r->next;
	if (next < now)
		next = now;
	if (next - now > period * burst) {
		r->suppressed++;
		ht_count(HT_RATE_LIMITED);
		return -1;
	}
	r->next = next + period;
	suppressed = r->suppressed;
	r->suppressed = 0;
	return suppressed;
}

/* ht_reserve - room for an event of @size bytes, a constant; NULL when there is none. */
static __always_inline void *ht_reserve(u64 size)
{
	u32 zero = 0;
	void *e;

	if (!ht_ring())
		return bpf_map_lookup_elem(&ht_scratch, &zero);
	e = bpf_ringbuf_reserve(&ht_events, size, 0);
	if (!e)
		ht_count(HT_RING_FULL);
	return e;
}

/*
 * A CPU wakes user space at most once in this time. It is shorter than the
 * period in which user space, once woken, looks again by itself
 * (ring.DrainEvery), so that nothing stays behind.
 */
#define HT_WAKE_NS 200000000ULL

/*
 * Whether the submit is to wake user space, which costs fifty times as much as
 * the submit: for the first event in a while, and when the ring is half full.
 */
static __always_inline u64 ht_wake(void)
{
	u64 now = bpf_ktime_get_ns(), *last;
	u32 slot = HT_WOKEN;

	last = bpf_map_lookup_elem(&ht_stats, &slot);
	if (last && now - *last >= HT_WAKE_NS) {
		*last = now;
		return BPF_RB_FORCE_WAKEUP;
	}
	if (bpf_ringbuf_query(&ht_events, BPF_RB_AVAIL_DATA) > HT_RING_BYTES / 2)
		return BPF_RB_FORCE_WAKEUP;
	return BPF_RB_NO_WAKEUP;
}

/* ht_submit - send what ht_reserve() gave. */
static __always_inline void ht_submit(void *ctx, void *e, u64 size)
{
	if (ht_ring())
		bpf_ringbuf_submit(e, ht_wake());
	else if (bpf_perf_event_output(ctx, &ht_events, BPF_F_CURRENT_CPU, e, size))
		ht_count(HT_RING_FULL);
}

/* ht_submit_now - ht_submit() of what is rare and must be looked into at once: it wakes user space. */
static __always_inline void ht_submit_now(void *ctx, void *e, u64 size)
{
	if (ht_ring())
		bpf_ringbuf_submit(e, BPF_RB_FORCE_WAKEUP);
	else
		ht_submit(ctx, e, size);
}

char LICENSE[] SEC("license") = "GPL";
