/* SPDX-License-Identifier: GPL-2.0 */
/*
 * hist.h - latency histograms whose buckets are those of Prometheus' native
 * histograms.
 *
 * The unit is 2^-30 s, not 1 ns: then a power of two of the unit is a power of
 * two of a second, and bucket bounds are exact in every form of export. The
 * range is internal/signal LatencyMin .. LatencyMax: what is not longer than
 * 2^-20 s (954 ns) goes to `zero`, what is longer than 2^7 s to the last slot.
 */
#pragma once
#include "flat.h"

#define HT_HIST_MIN (30 - 20) /* log2 of the lower bound, in units */
#define HT_HIST_MAX (30 + 7)
#define HT_SLOTS_COARSE (HT_HIST_MAX - HT_HIST_MIN)	/* powers of two */
#define HT_SLOTS_FINE (4 * (HT_HIST_MAX - HT_HIST_MIN)) /* four per power of two */

struct ht_hist {
	u64 zero;
	u64 sum; /* in units */
	u64 slots[HT_SLOTS_COARSE];
};

struct ht_hist_fine {
	u64 zero;
	u64 sum;
	u64 slots[HT_SLOTS_FINE];
};

/* 2^30 / 10^9 = 1.073741824 = 1 + 19330.9 / 2^18, to 4e-6; no overflow below 11 days */
static __always_inline u64 ht_units(u64 ns) { return ns + ((ns * 19331) >> 18); }

static __always_inline u32 ht_log2(u64 v)
{
	u32 r = 0, w;

	if (v >> 32) {
		r = 32;
		w = v >> 32;
	} else {
		w = v;
	}
	if (w >> 16) {
		r += 16;
		w >>= 16;
	}
	if (w >> 8) {
		r += 8;
		w >>= 8;
	}
	if (w >> 4) {
		r += 4;
		w >>= 4;
	}
	if (w >> 2) {
		r += 2;
		w >>= 2;
	}
	return r + (w >> 1);
}

/* The slot of (2^i, 2^(i+1)] is i: upper bounds are inclusive. u > 2^HT_HIST_MIN. */
static __always_inline u32 ht_slot(u64 u)
{
	u32 i = ht_log2(u - 1) - HT_HIST_MIN;

	return i < HT_SLOTS_COARSE ? i : HT_SLOTS_COARSE - 1;
}

/* Bounds within a power of two: 2^(1/4), 2^(1/2), 2^(3/4) in 1/65536. */
static __always_inline u32 ht_slot_fine(u64 u)
{
	u32 l = ht_log2(u - 1), m, i;

	m = l >= 16 ? u >> (l - 16) : u << (16 - l);
	i = 4 * (l - HT_HIST_MIN) + (m >= 77936) + (m >= 92682) + (m >= 110218);
	return i < HT_SLOTS_FINE ? i : HT_SLOTS_FINE - 1;
}

/*
 * ht_slot_flat() is ht_slot_fine() without a branch. The verifier follows each
 * branch: where a program observes several times their number multiplies.
 */
static __always_inline u64 ht_slot_flat(u64 u)
{
	u64 v = u - 1, l, m;

	/* log2: fill with ones below the highest, and count them */
	v |= v >> 1;
	v |= v >> 2;
	v |= v >> 4;
	v |= v >> 8;
	v |= v >> 16;
	v |= v >> 32;
	v -= (v >> 1) & 0x5555555555555555ULL;
	v = (v & 0x3333333333333333ULL) + ((v >> 2) & 0x3333333333333333ULL);
	v = (v + (v >> 4)) & 0x0f0f0f0f0f0f0f0fULL;
	l = ((v * 0x0101010101010101ULL) >> 56) - 1;
	/* as in ht_slot_fine(), and right below 2^48, beyond all slots */
	m = (u << 16) >> l;
	return 4 * (l - HT_HIST_MIN) + ht_less(77935, m) + ht_less(92681, m) + ht_less(110217, m);
}

/* Where an observation of @u units in slot @slot counts in a histogram of @words u64: zero, sum, and the slots. */
static __always_inline u64 ht_index_flat(u64 words, u64 u, u64 slot)
{
	u64 i = (2 + slot) * ht_less(1ULL << HT_HIST_MIN, u); /* 0: zero */

	i -= ht_less(words - 1, i) * (i - (words - 1)); /* what is too long counts in the last slot */
	asm volatile("" : "+r"(i)); /* what is compared is what is used, or the verifier does not see the bound */
	return i;
}

/* ht_add_flat - count an observation as ht_index_flat() says. One branch, whatever u is. */
static __always_inline void ht_add_flat(u64 *h, u64 words, u64 u, u64 slot)
{
	u64 i = ht_index_flat(words, u, slot);

	h[1] += u;
	if (i < words)
		h[i]++;
}

#ifdef HT_LEGACY
/*
 * Old verifiers prune little of what they have walked and give up at 131,072
 * instructions, so all histograms of this flavour are counted flat.
 */
static __always_inline void ht_observe(struct ht_hist *h, u64 ns)
{
	u64 u = ht_units(ns);

	ht_add_flat((u64 *)h, sizeof(*h) / 8, u, ht_slot_flat(u) >> 2); /* four fine slots are a coarse one */
}

static __always_inline void ht_observe_fine(struct ht_hist_fine *h, u64 ns)
{
	u64 u = ht_units(ns);

	ht_add_flat((u64 *)h, sizeof(*h) / 8, u, ht_slot_flat(u));
}

static __always_inline void ht_observe_both(struct ht_hist_fine *f, struct ht_hist *h, u64 ns)
{
	u64 u = ht_units(ns), slot = ht_slot_flat(u);

	ht_add_flat((u64 *)f, sizeof(*f) / 8, u, slot);
	ht_add_flat((u64 *)h, sizeof(*h) / 8, u, slot >> 2);
}

static __always_inline void ht_observe_shared(struct ht_hist *h, u64 ns)
{
	u64 u = ht_units(ns), i = ht_index_flat(sizeof(*h) / 8, u, ht_slot_flat(u) >> 2);

	__sync_fetch_and_add(&h->sum, u);
	if (i < sizeof(*h) / 8)
		__sync_fetch_and_add((u64 *)h + i, 1);
}
#else
/* h is per CPU, so plain additions do. */
static __always_inline void ht_observe(struct ht_hist *h, u64 ns)
{
	u64 u = ht_units(ns);
	u32 i;

	h->sum += u;
	if (u <= 1ULL << HT_HIST_MIN) {
		h->zero++;
		return;
	}
	i = ht_slot(u);
	if (i < HT_SLOTS_COARSE)
		h->slots[i]++;
}

/* The same for a histogram that CPUs share: for what is rare, where a copy per CPU would cost too much memory. */
static __always_inline void ht_observe_shared(struct ht_hist *h, u64 ns)
{
	u64 u = ht_units(ns);
	u32 i;

	__sync_fetch_and_add(&h->sum, u);
	if (u <= 1ULL << HT_HIST_MIN) {
		__sync_fetch_and_add(&h->zero, 1);
		return;
	}
	i = ht_slot(u);
	if (i < HT_SLOTS_COARSE)
		__sync_fetch_and_add(&h->slots[i], 1);
}

static __always_inline void ht_observe_fine(struct ht_hist_fine *h, u64 ns)
{
	u64 u = ht_units(ns);
	u32 i;

	h->sum += u;
	if (u <= 1ULL << HT_HIST_MIN) {
		h->zero++;
		return;
	}
	i = ht_slot_fine(u);
	if (i < HT_SLOTS_FINE)
		h->slots[i]++;
}
/* One observation in two histograms: the logarithm is taken once. */
static __always_inline void ht_observe_both(struct ht_hist_fine *f, struct ht_hist *h, u64 ns)
{
	u64 u = ht_units(ns);
	u32 i, four;

	f->sum += u;
	h->sum += u;
	if (u <= 1ULL << HT_HIST_MIN) {
		f->zero++;
		h->zero++;
		return;
	}
	i = ht_slot_fine(u);
	four = i / 4;	   /* fine slots are a coarse one */
	barrier_var(four); /* the verifier does not see the bound of the compiler's arithmetic */
	if (i < HT_SLOTS_FINE)
		f->slots[i]++;
	if (four < HT_SLOTS_COARSE)
		h->slots[four]++;
}
#endif /* HT_LEGACY */
