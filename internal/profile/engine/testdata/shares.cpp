// Three quarters of its time in Work::heavy, a quarter in Work::light.
volatile unsigned long sink;
__attribute__((noinline)) void spin(long n) { for (long i = 0; i < n; i++) sink += i * 3; }
struct Work {
	__attribute__((noinline)) void heavy() { spin(3000000); sink++; }
	__attribute__((noinline)) void light() { spin(1000000); sink++; }
};
int main() { Work w; for (;;) { w.heavy(); w.light(); } }
