/* waits - threads that wait for known times in functions of known names, which it prints in nanoseconds. */
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>
#include "begin.h"

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER, work_mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t work = PTHREAD_COND_INITIALIZER;
static volatile int held, stop, jobs;
static int ends[2];

/* Has the mutex for 30 ms at a time. */
static void *holder(void *unused)
{
	while (!stop) {
		pthread_mutex_lock(&mutex);
		held = 1;
		rest(30);
		held = 0;
		pthread_mutex_unlock(&mutex);
		rest(5);
	}
	return unused;
}

/* Writes into the pipe each 25 ms. */
static void *writer(void *unused)
{
	while (!stop) {
		rest(25);
		if (write(ends[1], "x", 1) != 1)
			break;
	}
	return unused;
}

/* Has something to do each 40 ms. */
static void *giver(void *unused)
{
	while (!stop) {
		rest(40);
		pthread_mutex_lock(&work_mutex);
		jobs++;
		pthread_cond_signal(&work);
		pthread_mutex_unlock(&work_mutex);
	}
	return unused;
}

#define ROUNDS 60

/* A thread that waits in a function of its own, round by round, and adds up how long. */
#define WAITER(name, before, body, after)                                                                              \
	static double in_##name;                                                                                       \
	__attribute__((noinline)) void wait_##name(void)                                                               \
	{                                                                                                              \
		double since = now();                                                                                  \
		body;                                                                                                  \
		in_##name += now() - since;                                                                            \
	}                                                                                                              \
	static void *name##_thread(void *unused)                                                                       \
	{                                                                                                              \
		for (int i = 0; i < ROUNDS; i++) {                                                                     \
			before;                                                                                        \
			wait_##name();                                                                                 \
			after;                                                                                         \
		}                                                                                                      \
		return unused;                                                                                         \
	}

static char byte;

WAITER(pipe, , if (read(ends[0], &byte, 1) != 1) stop = 1, )
WAITER(mutex, while (!held) rest(1), pthread_mutex_lock(&mutex), pthread_mutex_unlock(&mutex))
WAITER(poll, , poll(NULL, 0, 35), )
WAITER(work, pthread_mutex_lock(&work_mutex), while (!jobs) pthread_cond_wait(&work, &work_mutex), jobs = 0;
       pthread_mutex_unlock(&work_mutex))

int main(void)
{
	void *(*helpers[])(void *) = { holder, writer, giver };
	void *(*waiters[])(void *) = { pipe_thread, mutex_thread, poll_thread, work_thread };
	pthread_t helping[3], waiting[4];

	begin();
	if (pipe(ends))
		return 1;
	for (int i = 0; i < 3; i++)
		pthread_create(&helping[i], NULL, helpers[i], NULL);
	for (int i = 0; i < 4; i++)
		pthread_create(&waiting[i], NULL, waiters[i], NULL);
	for (int i = 0; i < 4; i++)
		pthread_join(waiting[i], NULL);
	stop = 1;
	for (int i = 0; i < 3; i++)
		pthread_join(helping[i], NULL);
	printf("pipe %.0f\nmutex %.0f\npoll %.0f\nwork %.0f\nend\n", in_pipe, in_mutex, in_poll, in_work);
	fflush(stdout);
	pause();
}
