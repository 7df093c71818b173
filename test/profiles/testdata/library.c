#include <time.h>

static volatile unsigned long sink;

void burn_in_library(void)
{
	struct timespec t;
	do {
		for (int i = 0; i < 10000; i++)
			sink += i;
		clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	} while (t.tv_nsec % 1000000000 < 16000000);
}
