// Three quarters of its time in Work::heavy, a quarter in Work::light; all of it
// in mix, which is inlined.
volatile unsigned long sink;
static inline __attribute__((always_inline)) void mix(long i) { sink += i * 3; }
__attribute__((noinline)) void spin(long n) { for (long i = 0; i < n; i++) mix(i); }
struct Work {
	__attribute__((noinline)) void heavy() { spin(30000); sink++; }
	__attribute__((noinline)) void light() { spin(10000); sink++; }
};
int main() { Work w; for (;;) { w.heavy(); w.light(); } }
