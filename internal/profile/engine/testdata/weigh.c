/*
 * weigh - what the hooks do with chance, run here many times. It prints what was
 * kept, and the values that are sent with each.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

typedef uint32_t u32;
typedef uint64_t u64;
#define EBPF_INLINE inline
#define BPF_RODATA_VAR(type, name, value) static type name = value;

static u64 state = 88172645463325252ULL;

static u32 bpf_get_prandom_u32(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state >> 32;
}

#include "admit.h"
#include "weigh.h"

static inline bool is_full(void) { return false; }

#define UNIT 20000000ULL
#define TIMES 4000000
#define BYTES 123457

/* Waits of one length, of which a part was for a CPU. */
static void waits(u64 ns, u64 delay)
{
	u64 kept = chance_of(ns, UNIT), asleep = chance_asleep(ns, delay), n = stands_for(kept, asleep);
	u64 worth = half(ns > UNIT ? ns : UNIT) << 32;
	u32 some = 0;

	for (u32 i = 0; i < TIMES; i++)
		some += happens(kept) && happens(asleep);
	printf("wait %llu %llu %u %llu %llu\n", (unsigned long long)ns, (unsigned long long)delay, some,
	       (unsigned long long)(worth | half(n)), (unsigned long long)(worth | half(times(BYTES, n))));
}

/* Two thousand waits a second, as they come to one CPU, for a minute: most of them are not taken. */
static void rush(void)
{
	static struct cpu c;
	u64 kept = 0, all = 120000;

	for (u64 i = 0; i < all; i++) {
		u64 now = 5 * SECOND + i * 500000;
		u32 every = admit(&c, KERNEL_LOCK, now, 1);

		kept += every;
		if (every)
			c.demand[KERNEL_LOCK].next += interval_of(KERNEL_LOCK);
	}
	printf("rush %llu %llu %llu\n", (unsigned long long)all, (unsigned long long)kept,
	       (unsigned long long)c.lost[KERNEL_LOCK][RATE].value);
}

int main(void)
{
	u64 lengths[] = { 50000, 1000000, 9000000, 19999999, 35000001, 9000000001 };

	for (u32 i = 0; i < sizeof(lengths) / sizeof(*lengths); i++) {
		waits(lengths[i], 0);
		waits(lengths[i], lengths[i] / 10 * 3);
		waits(lengths[i], lengths[i] / 10 * 9);
	}
	rush();
	return 0;
}
