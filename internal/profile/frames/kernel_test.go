package frames

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"huatuo/internal/kern/ksym"
	"huatuo/internal/kern/load"
	"huatuo/internal/kern/ring"
	"huatuo/internal/profile"
	"huatuo/internal/signal"
	"huatuo/internal/symbol"
)

// ways are the forms in which the object is loaded.
var ways = []struct {
	name string
	o    load.Options
}{
	{"ringbuf", load.Options{Ring: "ringbuf"}},
	{"perf", load.Options{Ring: "perf"}},
	{"legacy", load.Options{Flavour: load.Legacy}},
}

// names are those of all tests: an emulated guest reads the kernel's symbols for
// half a minute.
var names = sync.OnceValue(func() *symbol.Resolver {
	k := ksym.New("")
	if err := k.Load(); err != nil {
		panic(err)
	}
	return symbol.New(symbol.Options{Kernel: k, CacheBytes: 256 << 20, Wait: time.Millisecond})
})

// each runs a test with all of them.
func each(t *testing.T, f func(*testing.T, Options)) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	for _, w := range ways {
		t.Run(w.name, func(t *testing.T) {
			k, err := load.Open(w.o)
			if err != nil {
				t.Fatal(err)
			}
			f(t, Options{Kernel: k, Log: slog.New(slog.DiscardHandler), Symbols: names(), Hertz: 199})
		})
	}
}

// take runs the engine until it has n samples of a process (0: of any) that
// match, for two minutes at most: other work may leave them little time.
func take(t *testing.T, o Options, n, pid int, match func(*signal.StackSample) bool) []*signal.StackSample {
	t.Helper()
	o.Want = func(s *signal.StackSample) bool { return pid == 0 || s.PID == uint32(pid) }
	var all []*signal.StackSample
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	o.Emit = func(s *signal.StackSample) {
		if match == nil || match(s) {
			if all = append(all, s); len(all) >= n {
				cancel()
			}
		}
	}
	if err := Run(ctx, o); err != nil {
		t.Fatal(err)
	}
	if len(all) < n {
		t.Fatalf("%d samples in two minutes, want %d", len(all), n)
	}
	return all
}

// share is how much of the value of samples is in stacks with a function.
func share(samples []*signal.StackSample, function string) float64 {
	var in, total int64
	for _, s := range samples {
		total += s.Value
		if has(s, function) {
			in += s.Value
		}
	}
	return float64(in) / float64(total)
}

func has(s *signal.StackSample, function string) bool {
	for _, f := range s.Stack.Frames {
		if strings.HasSuffix(f.Function, function) {
			return true
		}
	}
	return false
}

// report shows some of the samples that lack a function.
func report(t *testing.T, got []*signal.StackSample, function string) {
	t.Helper()
	shown := map[*signal.Stack]bool{}
	for _, s := range got {
		if !has(s, function) && !shown[s.Stack] && len(shown) < 5 {
			shown[s.Stack] = true
			t.Log(describe(s))
		}
	}
}

func describe(s *signal.StackSample) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %d/%d %s %s value %d, %d of the kernel, truncated: %t\n", s.Type.Name, s.PID, s.TID, s.Thread, s.Exe, s.Value, s.Stack.Kernel, s.Stack.Truncated)
	for _, f := range s.Stack.Frames {
		fmt.Fprintf(&b, "   %s  %s %s:%d %s\n", f.Function, f.Module, f.File, f.Line, f.Missing)
	}
	return b.String()
}

// TestKernelC: functions of a program with frame pointers have the share of time
// that they take.
func TestKernelC(t *testing.T) {
	program := compile(t, cSource, "-fno-omit-frame-pointer")
	each(t, func(t *testing.T, o Options) {
		pid := start(t, program)
		got := take(t, o, 600, pid, nil)
		if h, l, m := share(got, "heavy"), share(got, "light"), share(got, "main"); h < 0.7 || h > 0.8 || l < 0.2 || l > 0.3 || m < 0.95 {
			t.Errorf("heavy %.3f, light %.3f, main %.3f; want 0.75, 0.25 and 1", h, l, m)
			report(t, got, "main")
		}
		s := got[len(got)-1]
		if s.Type != profile.CPU || s.Thread != "p" || !strings.HasSuffix(s.Exe, "/p") || s.TID != s.PID || s.Value != int64(time.Second)/199 || time.Since(s.Time) > time.Minute {
			t.Errorf("sample %s", describe(s))
		}
		whole := 0
		for _, s := range got {
			if !s.Stack.Truncated {
				whole++
			}
		}
		if whole < len(got)*9/10 {
			t.Errorf("%d of %d stacks begin where the thread does", whole, len(got))
			report(t, got, "main")
		}
	})
}

// TestKernelNoPointers: what has no frame pointers keeps its innermost function,
// and is said to lack the others.
func TestKernelNoPointers(t *testing.T) {
	program := compile(t, cSource, "-fomit-frame-pointer")
	each(t, func(t *testing.T, o Options) {
		pid := start(t, program)
		got := take(t, o, 100, pid, nil)
		if s := share(got, "spin"); s < 0.9 {
			t.Errorf("spin %.3f", s)
			report(t, got, "spin")
		}
		for _, s := range got {
			if !s.Stack.Truncated && !has(s, "main") {
				t.Errorf("not marked: %s", describe(s))
				break
			}
		}
	})
}

// TestKernelDeep: of a stack that is deeper than the kernel walks the innermost
// frames are there, and it is said that the others are missing.
func TestKernelDeep(t *testing.T) {
	program := compile(t, cSource, "-fno-omit-frame-pointer")
	each(t, func(t *testing.T, o Options) {
		got := take(t, o, 50, start(t, program, "very", "deep"), func(s *signal.StackSample) bool { return has(s, "deep") })
		for _, s := range got {
			n := len(s.Stack.Frames)
			if user := n - s.Stack.Kernel; !s.Stack.Truncated || user < maxDepth("/proc") || user > most+2 || s.Stack.Frames[n-1].Function != truncated {
				t.Errorf("%d frames of the user, at the end %+v", user, s.Stack.Frames[n-1])
				break
			}
		}
	})
}

// TestKernelGo needs no other program: the test itself works, and its samples
// name the functions. It is what runs on other kernels.
func TestKernelGo(t *testing.T) {
	each(t, func(t *testing.T, o Options) {
		stop := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() { toil(stop) })
		defer wg.Wait()
		defer close(stop)
		got := take(t, o, 600, os.Getpid(), func(s *signal.StackSample) bool { return has(s, "frames.toil") })
		if h, l := share(got, "frames.heavy"), share(got, "frames.light"); h < 0.7 || h > 0.8 || l < 0.2 || l > 0.3 {
			t.Errorf("heavy %.3f, light %.3f; want 0.75 and 0.25", h, l)
			report(t, got, "frames.heavy")
		}
		if s := got[0]; s.Stack.Truncated || s.Time.IsZero() || s.Exe == "" || s.Stack.Frames[len(s.Stack.Frames)-1].Function == truncated {
			t.Errorf("sample %s", describe(s))
		}
	})
}

//go:noinline
func toil(stop chan struct{}) (n int) {
	for {
		select {
		case <-stop:
			return n
		default:
		}
		n += heavy() + light()
	}
}

//go:noinline
func heavy() int { return spin(3<<18) + 1 }

//go:noinline
func light() int { return spin(1<<18) + 2 }

//go:noinline
func spin(rounds int) (n int) {
	for i := range rounds {
		n += i ^ n
	}
	return n
}

// TestKernelSyscalls: the kernel's part stands above the function that called it.
func TestKernelSyscalls(t *testing.T) {
	program := compile(t, cSource, "-fno-omit-frame-pointer")
	each(t, func(t *testing.T, o Options) {
		c := exec.Command(program, "read")
		zero, err := os.Open("/dev/zero")
		if err != nil {
			t.Fatal(err)
		}
		defer zero.Close()
		c.Stdin = zero
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		defer c.Wait()
		defer c.Process.Kill()
		got := take(t, o, 300, c.Process.Pid, nil)
		if k := share(got, "vfs_read"); k < 0.7 {
			t.Errorf("vfs_read %.3f", k)
			report(t, got, "vfs_read")
		}
		if z, o := share(got, "zeros"), share(got, "once"); z < 0.8 || o < 0.8 {
			t.Errorf("zeros %.3f, once %.3f", z, o)
			report(t, got, "once")
		}
		for _, s := range got {
			if has(s, "vfs_read") && (s.Stack.Kernel < 2 || s.Stack.Kernel >= len(s.Stack.Frames)) {
				t.Errorf("the parts: %s", describe(s))
				break
			}
		}
	})
}

// TestKernelThread: a thread of the kernel has a kernel's stack only, from where
// it begins. The kernel copies what is written to a loop device.
func TestKernelThread(t *testing.T) {
	each(t, func(t *testing.T, o Options) {
		stop := writeLoop(t)
		defer stop()
		got := take(t, o, 10, 0, func(s *signal.StackSample) bool {
			return s.Exe == "" && s.Stack.Kernel == len(s.Stack.Frames) && has(s, "kthread")
		})
		for _, s := range got {
			if s.Stack.Truncated || s.Stack.Kernel < 2 || s.Thread == "" || s.PID == 0 {
				t.Errorf("sample %s", describe(s))
				break
			}
		}
	})
}

// TestKernelLoss: of samples that nobody reads, or that come faster than they
// can be named, each is counted.
func TestKernelLoss(t *testing.T) {
	each(t, func(t *testing.T, o Options) {
		stop := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() { toil(stop) })
		defer wg.Wait()
		defer close(stop)
		o.Rings = ring.NewDrainer()
		defer o.Rings.Close()
		o.Rate, o.Proc = fixed(4000), "/proc"
		var lost, emitted atomic.Uint64
		o.Lost = func(n uint64) { lost.Add(n) }
		o.Emit = func(*signal.StackSample) { emitted.Add(1) }
		s, err := open(o)
		if err != nil {
			t.Fatal(err)
		}
		defer s.close()
		s.queue = make(chan sample, 2)
		await(t, "the ring to be full", func() bool {
			st, err := s.maps.Stats()
			return err == nil && st.RingFull > 0
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.run(ctx, newNamer(o, func(uint64) time.Time { return time.Now() })) }()
		await(t, "the queue to be full", func() bool { return s.loss.queue.Load() > 0 && emitted.Load() > 0 })
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		st, err := s.maps.Stats()
		if err != nil {
			t.Fatal(err)
		}
		seen := emitted.Load() + lost.Load() - s.clocks.missed()
		if st.Observed != seen || s.loss.undecoded.Load() > 0 || st.RingFull == 0 {
			t.Errorf("%d taken; %d emitted and %d lost, of which %d before the ring and %d missed", st.Observed, emitted.Load(), lost.Load(), st.RingFull, s.clocks.missed())
		}
	})
}

func await(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// changing is a rate that the test changes.
type changing struct {
	open func(int) (func(), error)
	stop func()
	now  int
	out  int // unbound
}

func (c *changing) Bind(_ func() time.Time, open func(int) (func(), error)) (func(), error) {
	c.open = open
	return func() { c.out++ }, nil
}

func (c *changing) At(time.Time) int { return c.now }

func (c *changing) set(t *testing.T, hertz int) {
	t.Helper()
	if c.stop != nil {
		c.stop()
		c.stop = nil
	}
	if c.now = max(hertz, 1); hertz > 0 {
		var err error
		if c.stop, err = c.open(hertz); err != nil {
			t.Fatal(err)
		}
	}
}

// TestKernelRate: the clocks follow the rate, also to nothing, and the CPUs that
// are online.
func TestKernelRate(t *testing.T) {
	each(t, func(t *testing.T, o Options) {
		rate := &changing{now: 1}
		o.Rate, o.Rings = rate, ring.NewDrainer()
		defer o.Rings.Close()
		s, err := open(o)
		if err != nil {
			t.Fatal(err)
		}
		online := len(s.clocks.events)
		if online != 0 {
			t.Errorf("%d clocks before there is a rate", online)
		}
		for _, hertz := range []int{19, 199, 0, 49} {
			rate.set(t, hertz)
			if err := s.clocks.follow(); err != nil {
				t.Error(err)
			}
			online = len(s.clocks.events)
			if (online == 0) != (hertz == 0) || hertz > 0 && s.clocks.period != uint64(time.Second)/uint64(hertz) {
				t.Errorf("at %d Hz %d clocks of %d ns", hertz, online, s.clocks.period)
			}
		}
		for cpu, fd := range s.clocks.events { // as if one had gone and come back
			unix.Close(fd)
			delete(s.clocks.events, cpu)
			s.clocks.events[1<<15], _ = unix.Dup(0)
			break
		}
		if err := s.clocks.follow(); err != nil || len(s.clocks.events) != online {
			t.Errorf("%d clocks, %d before: %v", len(s.clocks.events), online, err)
		}
		s.close()
		if err := s.clocks.follow(); !errors.Is(err, errClosed) || rate.out != 1 {
			t.Errorf("closed clocks: %v, unbound %d times", err, rate.out)
		}
	})
}

// TestKernelLeftNothing: what is ended leaves no program, map or event behind.
func TestKernelLeftNothing(t *testing.T) {
	each(t, func(t *testing.T, o Options) {
		before := bpfFiles(t)
		ctx, cancel := context.WithCancel(t.Context())
		o.Emit = func(*signal.StackSample) {}
		o.Ready = cancel
		var programs []uint32
		o.Program = func(id uint32) { programs = append(programs, id) }
		if err := Run(ctx, o); err != nil {
			t.Fatal(err)
		}
		if after := bpfFiles(t); after != before {
			t.Errorf("%d files of BPF and perf, %d before", after, before)
		}
		if len(programs) != 2 || programs[0] == 0 || programs[1] != 0 {
			t.Errorf("programs %d", programs)
		}
	})
}

// bpfFiles counts this process' BPF programs, maps, links and perf events.
func bpfFiles(t *testing.T) (n int) {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		to, _ := os.Readlink("/proc/self/fd/" + fd.Name())
		if strings.HasPrefix(to, "anon_inode:bpf") || strings.Contains(to, "[perf_event]") {
			n++
		}
	}
	return n
}
