/* A function into which two others are inlined, and an address in the innermost. */
#include <stdio.h>
#include <unistd.h>

static void *here;

static inline __attribute__((always_inline)) void innermost(void)
{
#if defined(__aarch64__)
	__asm__ volatile("adr %0, . + 4\n\tnop" : "=r"(here)); /* x */
#else
	__asm__ volatile("lea 0(%%rip), %0\n\tnop" : "=r"(here)); /* x */
#endif
}

static inline __attribute__((always_inline)) void middle(int n)
{
	while (n-- > 0)
		innermost();
}

__attribute__((noinline)) void outer(int n)
{
	middle(n);
}

int main(int argc, char **argv)
{
	char byte;

	(void)argv;
	outer(argc);
	printf("here %lx\n", (unsigned long)here);
	printf("ready\n");
	fflush(stdout);
	while (read(0, &byte, 1) > 0)
		;
	return 0;
}
