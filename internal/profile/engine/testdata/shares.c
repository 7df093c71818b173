// Three quarters of its time in heavy, a quarter in light. Threads have names.
#define _GNU_SOURCE
#include <pthread.h>
static volatile unsigned long sink;
static __attribute__((noinline)) void spin(long n) { for (long i = 0; i < n; i++) sink += i * 3; }
static __attribute__((noinline)) void heavy(void) { spin(30000); sink++; }
static __attribute__((noinline)) void light(void) { spin(10000); sink++; }
static void *work(void *arg)
{
	pthread_setname_np(pthread_self(), "worker");
	for (;;) {
		heavy();
		light();
	}
	return arg;
}
int main(void)
{
	pthread_t t;
	pthread_create(&t, 0, work, 0);
	pthread_join(t, 0);
}
