/*
 * contend - threads that hand a lock round: each sleeps once for each turn, as in
 * a mutex that is taken. It prints how often all of them slept, and how long.
 */
#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "begin.h"

#define THREADS 8
#define TURNS 800

static _Atomic unsigned int word[THREADS];
static long slept[THREADS];
static double in[THREADS];

__attribute__((noinline)) void wait_turn(int me)
{
	double since = now();

	while (atomic_load(&word[me]) == 2) {
		if (syscall(SYS_futex, &word[me], FUTEX_WAIT_PRIVATE, 2, NULL, NULL, 0) == 0)
			slept[me]++;
	}
	in[me] += now() - since;
}

static void hold(void)
{
	struct timespec t = {.tv_nsec = 300000};

	nanosleep(&t, NULL);
}

static void *turns(void *arg)
{
	int me = (long)arg, next = (me + 1) % THREADS;

	for (int i = 0; i < TURNS; i++) {
		wait_turn(me);
		atomic_store(&word[me], 2);
		hold();
		atomic_store(&word[next], 0);
		syscall(SYS_futex, &word[next], FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
	}
	return NULL;
}

int main(void)
{
	pthread_t thread[THREADS];
	double time = 0;
	long times = 0;

	begin();
	for (int i = 0; i < THREADS; i++)
		word[i] = 2;
	for (long i = 0; i < THREADS; i++)
		pthread_create(&thread[i], NULL, turns, (void *)i);
	rest(20);
	atomic_store(&word[0], 0);
	syscall(SYS_futex, &word[0], FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(thread[i], NULL);
	for (int i = 0; i < THREADS; i++) {
		times += slept[i];
		time += in[i];
	}
	printf("times %ld\ntime %.0f\nend\n", times, time);
	fflush(stdout);
	pause();
}
