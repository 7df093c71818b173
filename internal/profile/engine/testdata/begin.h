/* What the programs here have in common: they wait until the profiler knows them, and measure time. */
#include <poll.h>
#include <time.h>

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e9 + t.tv_nsec;
}

static void rest(long ms)
{
	struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};

	nanosleep(&t, NULL);
}

/* Takes some time on a CPU until standard input ends. */
static void begin(void)
{
	struct pollfd in = {.fd = 0, .events = POLLIN};

	while (poll(&in, 1, 1) == 0)
		for (double end = now() + 5e6; now() < end;)
			;
}
