/*
 * What the small ELF files here were made from, as seeds of the fuzzer:
 *
 *	gcc-12 -O2 -gdwarf-4 -nostdlib -static -Wl,--build-id,-z,noseparate-code (and -gdwarf-5)
 *	clang-19 -O2 -gdwarf-5 -nostdlib -static -fuse-ld=bfd -Wl,-z,noseparate-code
 *	objcopy -R .comment -R .eh_frame -R .debug_aranges
 */
static int counter;

static inline __attribute__((always_inline)) void in(int n)
{
	counter += n;
}

static inline __attribute__((always_inline)) void mid(int n)
{
	in(n);
	in(n + 1);
}

__attribute__((noinline)) void out(int n)
{
	while (n-- > 0)
		mid(n);
}

void _start(void)
{
	out(3);
	for (;;)
		;
}
