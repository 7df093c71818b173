/*
 * Load for the stress tests. Static and tiny, so that a fork is as cheap as it
 * gets.
 *
 * load storm RATE SECONDS   forks RATE children a second, each of which exits
 *                           at once; prints how many it made
 * load tick MS              runs for a moment every MS milliseconds, for ever
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static int storm(double rate, double seconds)
{
	double begin = now();
	long made = 0;

	for (;;) {
		double spent = now() - begin;

		if (spent >= seconds)
			break;
		if (made >= spent * rate) {
			usleep(200);
			continue;
		}
		pid_t pid = fork();

		if (pid == 0)
			_exit(0);
		if (pid < 0) {
			perror("fork");
			return 1;
		}
		made++;
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
	}
	while (wait(NULL) > 0)
		;
	printf("%ld\n", made);
	return 0;
}

static void tick(long ms)
{
	volatile long sum = 0;

	for (;;) {
		for (int i = 0; i < 20000; i++)
			sum += i;
		usleep(ms * 1000);
	}
}

int main(int argc, char **argv)
{
	if (argc == 4 && !strcmp(argv[1], "storm"))
		return storm(atof(argv[2]), atof(argv[3]));
	if (argc == 3 && !strcmp(argv[1], "tick"))
		tick(atol(argv[2]));
	fprintf(stderr, "usage: load storm RATE SECONDS | load tick MS\n");
	return 2;
}
