/* Prints the slot that bpf/include/hist.h gives to each value on standard input, in units of 2^-30 s. */
#include <stdio.h>
#include <string.h>

typedef unsigned long long u64;
typedef unsigned int u32;
#define barrier_var(x) /* for the verifier alone */

#include "hist.h"

int main(void)
{
	u64 u;

	while (scanf("%llu", &u) == 1) {
		struct ht_hist h = { 0 }, shared = { 0 };
		struct ht_hist_fine f = { 0 }, flat = { 0 };
		int coarse = -1, fine = -1, i;

		if (u > 1ULL << HT_HIST_MIN) {
			coarse = ht_slot(u);
			fine = ht_slot_fine(u);
		}
		/* The way without branches must not differ: both forms of one histogram. */
		ht_add_flat((u64 *)&flat, sizeof(flat) / 8, u, ht_slot_flat(u));
		for (i = 0; i < HT_SLOTS_FINE && !flat.slots[i]; i++)
			;
		if (flat.sum != u || (fine < 0 ? !flat.zero : i != fine)) {
			fprintf(stderr, "ht_slot_flat(%llu) is %d, ht_slot_fine %d\n", u, i, fine);
			return 1;
		}
		/* the whole way, from nanoseconds */
		ht_observe(&h, u);
		ht_observe_fine(&f, u);
		ht_observe_shared(&shared, u);
		if (memcmp(&h, &shared, sizeof(h))) {
			fprintf(stderr, "ht_observe_shared(%llu) differs\n", u);
			return 1;
		}
		for (i = 0; i < HT_SLOTS_COARSE && !h.slots[i]; i++)
			;
		printf("%llu %d %d %llu %llu %d %llu\n", u, coarse, fine, h.sum, h.zero, i, f.sum);
	}
	return 0;
}
