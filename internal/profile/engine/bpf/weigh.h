/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * weigh.h - chances, and what is worth how much that was kept by chance.
 *
 * A wait is kept with a chance that grows with its length, and stands for those
 * that were not kept: for time it is worth 1/chance of its length, and counts
 * for 1/chance waits.
 */
#pragma once

/* Chances are in parts of this. */
#define SURE (1ULL << 32)

/*
 * The chance that something of a size is kept: what is worth the greater of size
 * and unit is then right on average.
 */
static EBPF_INLINE u64 chance_of(u64 size, u64 unit) { return size >= unit ? SURE : (size << 32) / unit; }

static EBPF_INLINE bool happens(u64 chance) { return (u32)bpf_get_prandom_u32() < chance; }

/* How many things one stands for that both chances let pass, in parts of ONE. */
#define ONE 1024
#define MOST_THINGS (1ULL << 36) /* so that they can be multiplied with bytes */
static EBPF_INLINE u64 stands_for(u64 chance, u64 other)
{
	u64 n;

	if (!chance || !other)
		return 0; /* it has not happened */
	n = ONE * SURE / chance;
	if (n >= SURE)
		n = SURE - 1; /* a wait of a microsecond where four seconds are always kept */
	n = (n << 32) / other;
	return n < MOST_THINGS ? n : MOST_THINGS;
}

/* As many bytes as so many things have. */
static EBPF_INLINE u64 times(u64 bytes, u64 n) { return (bytes / ONE) * n + (bytes % ONE) * n / ONE; }

/*
 * The chance that a wait is not taken for one for a CPU: a thread that was woken
 * waited for that, too. One stack stands for both, by lot: in the end each gets
 * what it is due.
 */
static EBPF_INLINE u64 chance_asleep(u64 ns, u64 delay)
{
	if (delay >= ns)
		return 0;
	if (delay < SURE)
		return SURE - (delay << 32) / ns;
	return SURE - (delay >> 12 << 32) / ((ns >> 12) + 1); /* four seconds and more: the rest does not matter */
}

/* 1 for all but 0. It is no branch: the verifier of Linux 6.2 and before would look at all ways through many of them. */
static EBPF_INLINE u64 is_any(u64 v)
{
	v |= -v;
	asm volatile("/* the sign */" : "+r"(v));
	return v >> 63;
}

/* A number in half of a stack's value: 26 bits, and in 6 more by how much they were shifted. */
static EBPF_INLINE u64 half(u64 v)
{
	u64 shift = 0, by;

#pragma unroll
	for (int log2 = 5; log2 >= 0; log2--) {
		by = is_any(v >> (25 + (1 << log2))) << log2;
		v >>= by;
		shift += by;
	}
	return shift << 26 | v;
}
