//go:build !noprofiler

package engine

import (
	"slices"
	"testing"

	"huatuo/internal/signal"
)

const inlinedSource = `
volatile unsigned long sink;
static inline __attribute__((always_inline)) void inner(long n) { for (long i = 0; i < n; i++) sink += i * 3; }
static inline __attribute__((always_inline)) void heavy(void) { inner(3000000); }
static inline __attribute__((always_inline)) void light(void) { inner(1000000); }
__attribute__((noinline)) void work(void) { for (;;) { heavy(); light(); } }
int main(void) { work(); return 0; }
`

// TestKernelInlined: functions that the compiler has inlined, heavy and light into
// work, have the share of time that they take, and the lines that they stand in.
func TestKernelInlined(t *testing.T) {
	pid := start(t, compile(t, inlinedSource, "-g", "-finline"))
	got := take(t, Options{Hertz: 97}, 400, func(s *signal.StackSample) bool { return of(pid)(s) && settled(s) && hasLine(s, "work") })
	lines := map[string]int{"inner": 3, "heavy": 4, "light": 5, "work": 6}
	for _, s := range got {
		for _, x := range s.Stack.Frames {
			if want := lines[x.Function]; want != 0 && x.Line != want {
				t.Fatalf("%+v, want line %d", x, want)
			}
		}
	}
	if h, l, i := share(got, "heavy"), share(got, "light"), share(got, "inner"); h < 0.68 || h > 0.82 || l < 0.18 || l > 0.32 || i < 0.95 {
		t.Errorf("heavy %.3f, light %.3f, inner %.3f; want 0.75, 0.25 and 1", h, l, i)
		for _, s := range got[:3] {
			t.Log(describe(s))
		}
	}
}

// hasLine tells whether the lines of a function's file have been read.
func hasLine(s *signal.StackSample, function string) bool {
	return slices.ContainsFunc(s.Stack.Frames, func(f signal.Frame) bool { return f.Function == function && f.Line > 0 })
}
