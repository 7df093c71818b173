//go:build !noprofiler

package engine

import (
	"bufio"
	"context"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"huatuo/internal/profile"
	"huatuo/internal/signal"
	"huatuo/internal/symbol"
	"huatuo/test/faults/slowdisk"
)

// recording is what the engine took of some types while a program ran.
type recording struct {
	samples []*signal.StackSample
	account Account
}

// emitted is what an engine has given out so far.
type emitted struct {
	mu      sync.Mutex
	samples []*signal.StackSample
	known   map[uint32]bool // processes of which the unwinder knows where their code is
}

func (e *emitted) add(s *signal.StackSample) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.samples = append(e.samples, s)
	e.known[s.PID] = e.known[s.PID] || has(s, "begin")
}

// await returns when a process is known.
func (e *emitted) await(t *testing.T, pid int) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		e.mu.Lock()
		ok := e.known[uint32(pid)]
		e.mu.Unlock()
		if ok {
			return
		}
	}
	t.Fatal("the unwinder does not know the program after two minutes")
}

// record runs the engine while a program does its work, and a while longer.
func record(t *testing.T, e Entries, settle time.Duration, p *program) *recording {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	r := &recording{}
	e.Account = &r.account
	out := &emitted{known: map[uint32]bool{}}
	ctx, cancel := context.WithTimeout(t.Context(), 6*time.Minute)
	defer cancel()
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() {
		done <- Run(ctx, Options{
			Hertz: 97, Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
			Symbols: symbol.New(symbol.Options{}), Entries: e, Ready: func() { close(ready) }, Emit: out.add,
		})
	}()
	select {
	case <-ready:
	case err := <-done:
		t.Fatal(err)
	}
	for _, s := range r.account.Types() {
		t.Logf("%s on %v by %q %s", s.Type.Name, s.On, s.By, s.Reason)
	}
	p.start(t)
	out.await(t, p.pid)
	p.begin()
	select {
	case <-p.ended:
	case <-ctx.Done():
		t.Fatal("the program does not end")
	}
	time.Sleep(settle)
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	for _, l := range r.account.Losses() {
		t.Logf("lost of %s: %s %d samples, %d", l.Type.Name, l.Reason, l.Samples, l.Value)
	}
	out.mu.Lock()
	defer out.mu.Unlock()
	for _, s := range out.samples {
		if s.PID == uint32(p.pid) {
			r.samples = append(r.samples, s)
		}
	}
	t.Logf("%d samples, %d of process %d", len(out.samples), len(r.samples), p.pid)
	return r
}

// has tells whether a function is on a sample's stack, of whatever package.
func has(s *signal.StackSample, function string) bool {
	return slices.ContainsFunc(s.Stack.Frames, func(f signal.Frame) bool {
		return f.Function == function || strings.HasSuffix(f.Function, "."+function)
	})
}

// needs skips a test when the kernel lacks the tracepoint that a type needs. Off
// for another reason is a failure.
func (r *recording) needs(t *testing.T, typ *signal.ProfileType) {
	t.Helper()
	for _, s := range r.account.Types() {
		if s.Type != typ {
			continue
		}
		switch {
		case s.On:
		case strings.HasPrefix(s.Reason, "the kernel has no tracepoint"):
			t.Skipf("needs a newer kernel: %s", s.Reason)
		default:
			t.Fatalf("%s is off: %s", typ.Name, s.Reason)
		}
		return
	}
	t.Fatalf("nothing is said of %s", typ.Name)
}

// in sums what of some types has a function on its stack.
func (r *recording) in(function string, types ...*signal.ProfileType) (sum int64, example *signal.StackSample) {
	for _, s := range r.samples {
		if slices.Contains(types, s.Type) && has(s, function) {
			sum += s.Value
			example = s
		}
	}
	return sum, example
}

// within checks that a function has so much of a type, give or take a part.
// others are added: what a program measures of a wait has the wait for a CPU in it.
func (r *recording) within(t *testing.T, want, part float64, function string, typ *signal.ProfileType, others ...*signal.ProfileType) {
	t.Helper()
	alone, s := r.in(function, typ)
	got, _ := r.in(function, append(others, typ)...)
	t.Logf("%s of %s: %.4g, with others %.4g, want %.4g", typ.Name, function, float64(alone), float64(got), want)
	var lost uint64 // on a busy machine; of processes that are not known yet this is none
	for _, l := range r.account.Losses() {
		if l.Reason != "unseen" && slices.Contains(append(others, typ), l.Type) {
			lost += l.Value
		}
	}
	if alone == 0 || float64(got)+float64(lost) < want*(1-part) || float64(got) > want*(1+part) {
		t.Errorf("%s of %s: %.4g, want %.4g within %.0f %%", typ.Name, function, float64(got), want, part*100)
		n := 0
		for _, s := range r.samples {
			if n++; s.Type == typ && n < 4 {
				t.Log(describe(s))
			}
		}
	} else {
		t.Log(describe(s))
	}
}

// program is one that works on nothing until it is told to begin, tells lines of
// a name and a number, and at last "end".
type program struct {
	args []string
	env  []string
	told map[string]float64

	pid   int
	begin func()
	ended chan struct{}
}

func (p *program) start(t *testing.T) {
	t.Helper()
	c := exec.Command(p.args[0], p.args[1:]...)
	c.Env = append(os.Environ(), p.env...)
	c.Stderr = os.Stderr
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Process.Kill(); c.Wait() })
	p.pid, p.begin, p.ended, p.told = c.Process.Pid, func() { in.Close() }, make(chan struct{}), map[string]float64{}
	go func() {
		defer close(p.ended)
		for s := bufio.NewScanner(out); s.Scan() && s.Text() != "end"; {
			name, value, _ := strings.Cut(s.Text(), " ")
			if n, err := strconv.ParseFloat(value, 64); err == nil {
				p.told[name] = n
			}
		}
	}()
}

// TestKernelWaits: waits of known length, in functions of a program without
// frame pointers.
func TestKernelWaits(t *testing.T) {
	p := &program{args: []string{compile(t, source(t, "waits.c"), "-pthread", "-Itestdata")}}
	r := record(t, Entries{Types: waitTypes(), Rate: 2000}, time.Second, p)
	want := p.told
	r.needs(t, profile.Blocked)
	const part = 0.1
	r.within(t, want["pipe"], part, "wait_pipe", profile.Blocked, profile.RunQueue)
	r.within(t, want["mutex"], part, "wait_mutex", profile.UserLock, profile.RunQueue)
	r.within(t, want["mutex"], part, "wait_mutex", profile.Blocked, profile.RunQueue)
	r.within(t, want["poll"], part, "wait_poll", profile.Idle, profile.RunQueue)
	r.within(t, want["work"], part, "wait_work", profile.Idle, profile.RunQueue)
}

func waitTypes() []*signal.ProfileType {
	return []*signal.ProfileType{profile.Blocked, profile.RunQueue, profile.IO, profile.Idle, profile.UserLock}
}

func source(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// itself is the test's own binary as a program that works.
func itself(env ...string) *program {
	// What Go's scheduler makes threads wait for is no wait of theirs: there are enough of its processors.
	return &program{args: []string{os.Args[0], "-test.run=^TestWorkload$"}, env: append(env, workVariable+"=1", "GOMAXPROCS=16")}
}

// TestKernelSelfHooks is what runs on other kernels, without a compiler: this
// binary as a program that waits, reads, writes and takes memory.
func TestKernelSelfHooks(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	disk, err := slowdisk.Mount(t.TempDir(), 4<<20)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { disk.Close() })
	loop, err := slowdisk.Attach(disk.Path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { loop.Detach() })
	disk.SetDelay(20 * time.Millisecond)
	p := itself("WORK_FILE="+disk.Path, "WORK_DEVICE="+loop.Dev)
	r := record(t, Entries{Types: profile.Types()[1:], Rate: 2000, FaultEvery: 100, PageEvery: 16}, time.Second, p)
	// What a program of Go measures has the time in it that its runtime takes, which
	// is long on a machine that is emulated; TestKernelWaits is the strict one.
	for _, c := range []struct {
		name     string // of a number of the program's
		part     float64
		function string
		types    []*signal.ProfileType // the first one, and those that may have parts of it
	}{
		{"pipe", 0.15, "waitPipe", []*signal.ProfileType{profile.Blocked, profile.RunQueue}},
		{"lock", 0.15, "waitLock", []*signal.ProfileType{profile.UserLock, profile.RunQueue}},
		{"short", 0.2, "waitShort", []*signal.ProfileType{profile.Blocked, profile.RunQueue}}, // some 300 are kept: 5 % is the standard error
		{"file", 0.15, "writeFile", []*signal.ProfileType{profile.FileIO, profile.RunQueue}},
		{"device", 0.15, "readDevice", []*signal.ProfileType{profile.IO, profile.RunQueue}},
		{"device", 0.15, "readDevice", []*signal.ProfileType{profile.FileIO, profile.RunQueue}},
		{"device", 0.15, "readDevice", []*signal.ProfileType{profile.BlockIO}}, // which ends before the thread is on a CPU again
		{"locked", 0.15, "writeLocked", []*signal.ProfileType{profile.KernelLock}},
		{"contended", 0.15, "writeLocked", []*signal.ProfileType{profile.KernelLockCount}},
		{"device_bytes", 0.15, "readDevice", []*signal.ProfileType{profile.BlockBytes}},
		// On a machine where each of 60 waits is for a CPU as well, by a third, the standard error is 9 %.
		{"sleeps", 0.3, "waitLock", []*signal.ProfileType{profile.UserLockCount}},
		{"device_bytes", 0.3, "readDevice", []*signal.ProfileType{profile.FileBytes}},
		{"touched", 0.1, "touch", []*signal.ProfileType{profile.Fault}},
		{"reserved", 0.1, "reserve", []*signal.ProfileType{profile.Virtual}},
		{"kept", 0.1, "keep", []*signal.ProfileType{profile.InUse}},
	} {
		t.Run(c.types[0].Name+" "+c.name, func(t *testing.T) {
			r.needs(t, c.types[0])
			r.within(t, p.told[c.name], c.part, c.function, c.types[0], c.types[1:]...)
		})
	}
	if got, _ := r.in("giveBack", profile.InUse); float64(got) > p.told["kept"]/20 {
		t.Errorf("%d bytes in use of giveBack, which has given all back", got)
	}
}

// TestKernelRate: no more stacks are taken than the rate allows.
func TestKernelRate(t *testing.T) {
	p := &program{args: []string{compile(t, source(t, "waits.c"), "-pthread", "-Itestdata")}}
	began := time.Now()
	r := record(t, Entries{Types: waitTypes(), Rate: 10}, time.Second, p)
	r.needs(t, profile.Blocked)
	got := 0
	for _, s := range r.samples {
		if s.Type == profile.Blocked && has(s, "wait_pipe") {
			got++
		}
	}
	if most := runtime.NumCPU() * 10 * (int(time.Since(began).Seconds()) + 2); got == 0 || got > most {
		t.Errorf("%d stacks of %s, want 1 to %d", got, profile.Blocked.Name, most)
	}
}
