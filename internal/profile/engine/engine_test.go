//go:build !noprofiler

package engine

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"huatuo/internal/profile"
	"huatuo/internal/signal"
	"huatuo/internal/symbol"
)

// take runs the engine until it has n samples of the processes that match, for
// two minutes from when stacks are taken at most: other work may leave them little
// time, and a guest that is emulated takes minutes to load the unwinder.
func take(t *testing.T, o Options, n int, match func(*signal.StackSample) bool) []*signal.StackSample {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	var mu sync.Mutex
	var all []*signal.StackSample
	o.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	o.Symbols = symbol.New(symbol.Options{})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	ready := o.Ready
	o.Ready = func() {
		time.AfterFunc(2*time.Minute, cancel)
		if ready != nil {
			ready()
		}
	}
	o.Emit = func(s *signal.StackSample) {
		mu.Lock()
		defer mu.Unlock()
		if match(s) {
			if all = append(all, s); len(all) >= n {
				cancel()
			}
		}
	}
	if err := Run(ctx, o); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(all) < n {
		t.Fatalf("%d samples, want %d", len(all), n)
	}
	return all
}

// share is how much of the value of samples is in stacks with a function.
func share(samples []*signal.StackSample, function string) float64 {
	var in, total int64
	for _, s := range samples {
		total += s.Value
		for _, f := range s.Stack.Frames {
			if f.Function == function {
				in += s.Value
				break
			}
		}
	}
	if total == 0 {
		return 0
	}
	return float64(in) / float64(total)
}

// of matches the samples of a process.
func of(pid int) func(*signal.StackSample) bool {
	return func(s *signal.StackSample) bool { return s.PID == uint32(pid) }
}

func start(t *testing.T, name string, args ...string) int {
	t.Helper()
	c := exec.Command(name, args...)
	c.Stderr = os.Stderr
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Process.Kill(); c.Wait() })
	return c.Process.Pid
}

const cSource = `
#include <stdlib.h>
volatile unsigned long sink;
__attribute__((noinline)) void spin(long n) { for (long i = 0; i < n; i++) sink += i * 3; }
__attribute__((noinline)) void heavy(void) { spin(3000000); sink++; }
__attribute__((noinline)) void light(void) { spin(1000000); sink++; }
__attribute__((noinline)) void work(void) { for (;;) { heavy(); light(); } }
int main(void) { work(); return 0; }
`

func compile(t *testing.T, source string, args ...string) string {
	t.Helper()
	cc, err := exec.LookPath("cc")
	if err != nil {
		cc, err = exec.LookPath("clang-19")
	}
	if err != nil {
		t.Skip("needs a C compiler")
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "p.c"), []byte(source), 0o600); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "p")
	if b, err := exec.Command(cc, append(args, "-O2", "-fomit-frame-pointer", "-fno-inline", "-o", out, filepath.Join(dir, "p.c"))...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, b)
	}
	return out
}

// TestKernelC: functions of a program without frame pointers have the share of
// time that they take.
func TestKernelC(t *testing.T) {
	pid := start(t, compile(t, cSource))
	got := take(t, Options{Hertz: 97}, 400, of(pid))
	if h, l, m := share(got, "heavy"), share(got, "light"), share(got, "main"); h < 0.7 || h > 0.8 || l < 0.2 || l > 0.3 || m < 0.95 {
		t.Errorf("heavy %.3f, light %.3f, main %.3f; want 0.75, 0.25 and 1", h, l, m)
		for _, s := range got[:3] {
			t.Log(describe(s))
		}
	}
	if got[0].Type != profile.CPU || got[0].Thread != "p" || !strings.HasSuffix(got[0].Exe, "/p") {
		t.Errorf("sample %+v", got[0])
	}
}

// TestKernelAtOnce: what runs when stacks begin to be taken is unwound from then on,
// not from when the unwinder looks for new processes by itself, 5 s later.
func TestKernelAtOnce(t *testing.T) {
	pid := start(t, compile(t, cSource))
	var ready time.Time
	got := take(t, Options{Hertz: 97, Ready: func() { ready = time.Now() }}, 1, of(pid))
	if late := got[0].Time.Sub(ready); late > 4*time.Second {
		t.Errorf("the first stack is taken %v after that", late)
	}
}

const pySource = `
def spin(n):
    s = 0
    for i in range(n):
        s += i
    return s
def heavy(): return spin(30000)
def light(): return spin(10000)
def work():
    while True:
        heavy()
        light()
work()
`

// TestKernelPython: the same for an interpreter.
func TestKernelPython(t *testing.T) {
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("needs python3")
	}
	pid := start(t, "python3", "-c", pySource)
	got := take(t, Options{Hertz: 97}, 400, of(pid))
	if h, l := share(got, "heavy"), share(got, "light"); h < 0.65 || h > 0.85 || l < 0.15 || l > 0.35 {
		t.Errorf("%d samples, heavy %.3f, light %.3f; want 0.75 and 0.25", len(got), h, l)
		t.Log(describe(got[0]), describe(got[len(got)-1]))
	}
}

// TestKernelSelf needs no other program: the test itself works, and its samples
// name the function. It is what runs on other kernels.
func TestKernelSelf(t *testing.T) {
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { toil(stop) })
	defer wg.Wait()
	defer close(stop)
	self := uint32(os.Getpid())
	got := take(t, Options{Hertz: 97}, 40, func(s *signal.StackSample) bool {
		return s.PID == self && shareOf([]*signal.StackSample{s}, "toil") > 0
	})
	if s := got[0]; s.Type != profile.CPU || s.Value <= 0 || s.Time.IsZero() || s.Thread == "" {
		t.Errorf("sample %s", describe(s))
	}
}

//go:noinline
func toil(stop chan struct{}) (n int) {
	for {
		select {
		case <-stop:
			return n
		default:
		}
		for i := range 1 << 20 {
			n += i ^ n
		}
	}
}

func describe(s *signal.StackSample) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %d/%d %s %s value %d\n", s.Type.Name, s.PID, s.TID, s.Thread, s.Exe, s.Value)
	for _, f := range s.Stack.Frames {
		fmt.Fprintf(&b, "   %s  %s %s:%d %s\n", f.Function, f.Module, f.File, f.Line, f.Missing)
	}
	return b.String()
}
