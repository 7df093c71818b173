// As inlined.c, with namespaces and templates.
#include <cstdio>
#include <unistd.h>

static void *here;

namespace shop {
template <class T> struct Cart {
	T n{};
	__attribute__((always_inline)) inline void add(T t)
	{
		n += t;
		__asm__ volatile("lea 0(%%rip), %0\n\tnop" : "=r"(here));
	}
};
__attribute__((noinline)) void fill(Cart<int> &c)
{
	c.add(1);
}
} // namespace shop

int main()
{
	shop::Cart<int> c;
	char byte;
	shop::fill(c);
	std::printf("here %lx\nready\n", reinterpret_cast<unsigned long>(here));
	std::fflush(stdout);
	while (read(0, &byte, 1) > 0) {
	}
}
