/* What the tests look at: it prints addresses, one "name hex" a line, then
 * "ready", and waits for the end of its input. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

__attribute__((noinline)) void exported_function(void)
{
	__asm__ volatile("nop; nop; nop; nop; nop; nop; nop; nop");
}

static __attribute__((noinline)) void local_function(void)
{
	__asm__ volatile("nop; nop; nop; nop; nop; nop; nop; nop");
}

static void show(const char *name, void *addr)
{
	printf("%s %lx\n", name, (unsigned long)addr);
}

/* Two names of one function, as libc has them. */
extern __typeof__(exported_function) __aliased_function __attribute__((alias("aliased_function")));
__attribute__((noinline)) void aliased_function(void)
{
	__asm__ volatile("nop; nop; nop; nop");
}

static __attribute__((noinline, noreturn)) void wait_for_end(void)
{
	char buf[64];

	show("return_address", __builtin_return_address(0));
	puts("ready");
	fflush(stdout);
	while (read(0, buf, sizeof(buf)) > 0)
		;
	_exit(0);
}

/* Ends with a call that does not return, so its return address belongs to
 * what follows. */
__attribute__((noinline)) void caller_of_noreturn(void)
{
	wait_for_end();
}

__attribute__((noinline)) void function_after(void)
{
	__asm__ volatile("nop; nop; nop; nop");
}

int main(void)
{
	void *jit = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	void *data = malloc(64);

	memset(jit, 0xc3, 4096);
	show("pid", (void *)(long)getpid());
	show("exported_function", exported_function);
	show("local_function", local_function);
	show("aliased_function", aliased_function);
	show("caller_of_noreturn", caller_of_noreturn);
	show("function_after", function_after);
	show("puts", puts);
	show("jit", jit);
	show("data", data);
	exported_function();
	local_function();
	caller_of_noreturn();
	return 0;
}
