/* SPDX-License-Identifier: GPL-2.0 */
/*
 * flat.h - comparisons without a branch.
 *
 * The verifier walks both ways of a branch to the end of the program, and where
 * a branch leaves another number behind it cannot take the second way for the
 * first. In a long program those numbers multiply.
 */
#pragma once

/* What the compiler knows of a number it makes a branch of again: the asm hides it. */

/* 1 when they are equal, else 0 */
static __always_inline u64 ht_equal(u64 a, u64 b)
{
	u64 d = a ^ b, r = d - 1;

	asm volatile("" : "+r"(r));
	r = (r & ~d) >> 63;
	asm volatile("" : "+r"(r));
	return r;
}

/* 1 when @a is less than @b, else 0; both below 2^63 */
static __always_inline u64 ht_less(u64 a, u64 b)
{
	u64 r = (a - b) >> 63;

	asm volatile("" : "+r"(r));
	return r;
}
