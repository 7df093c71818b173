package kernlog

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"huatuo/internal/kern/clock"
	"huatuo/internal/probes/probetest"
	"huatuo/internal/signal"
	"huatuo/test/faults/stuckcpu"
)

// TestKernel keeps a CPU in the kernel until the watchdog reports it. That
// taints the kernel (bit 14) until it is booted.
func TestKernel(t *testing.T) {
	needHarmless(t)
	const comm = "huatuo-stuck"
	set(t, "/proc/sys/kernel/watchdog_thresh", "1") // twice that is the limit
	e := probetest.New(t)
	c, err := clock.New()
	if err != nil {
		t.Fatal(err)
	}
	e.Clock = c.Mono
	e.Start(Spec(), nil)
	hold(t, comm, 500*time.Millisecond) // no report

	start := time.Now()
	// The kernel counts in units of 2^30 ns, of which it wants three to have
	// begun, and looks each 0.4 s.
	tid := hold(t, comm, 4*time.Second)
	r := e.WaitRecord(func(r *signal.Record) bool { return r.Schema == softLockup && r.Process.Comm == comm })
	b := r.Body.(*SoftLockup)
	if want := fmt.Sprintf("CPU %d was stuck in the kernel for %.0f s: %s (%d) in ", b.CPU, b.Stuck, comm, tid); !strings.HasPrefix(r.Title, want) {
		t.Errorf("title %q, want %q", r.Title, want)
	}
	if b.Stuck < 2 || b.Stuck > 30 || b.CPU < 0 || b.CPU >= runtime.NumCPU() || b.Release == "" || b.Function == "" || len(b.Text) < 5 {
		t.Errorf("body %+v", b)
	}
	if r.Process.TID != uint32(tid) || r.Process.PID != uint32(os.Getpid()) || r.Severity != "" || r.Schema.Severity != signal.Critical {
		t.Errorf("process %+v, severity %q", r.Process, r.Severity)
	}
	if r.Time.Before(start.Add(-time.Second)) || r.Time.After(time.Now().Add(time.Second)) {
		t.Errorf("time %v, the CPU was stuck from %v on", r.Time, start)
	}
	if len(r.Registers) < 10 {
		t.Errorf("registers %v", r.Registers)
	}
	// From within a retpoline the kernel's unwinder does not find the way out.
	lost := len(r.KernelStack) > 0 && strings.HasPrefix(r.KernelStack[0].Function, "__x86_indirect_thunk")
	for _, f := range []string{"bpf_prog_", "bpf_prog_test_run_syscall"} {
		if !lost && !slices.ContainsFunc(r.KernelStack, func(x signal.Frame) bool { return strings.HasPrefix(x.Function, f) }) {
			t.Errorf("%s is not in the stack %s", f, short(r.KernelStack))
		}
	}
	for _, l := range append(b.Text, r.Title) {
		if mask(l) != l {
			t.Errorf("kernel address in %q", l)
		}
	}
	after := e.Gather()
	if n, _ := probetest.Value(after, reports.Name, softLockup.Name); n < 1 {
		t.Errorf("%v soft lockups are counted", n)
	}
	if v, _ := probetest.Value(after, tainted.Name, "soft_lockup"); v != 1 {
		t.Error("the kernel is not tainted by it")
	}
	n := 0
	for _, r := range e.Records() {
		if r.Schema == softLockup && r.Process.Comm == comm {
			n++
		}
	}
	if n != 1 {
		t.Errorf("%d soft lockups of the test: the near miss is one too", n)
	}
}

// hold keeps a thread of that name in the kernel and returns its id.
func hold(t *testing.T, comm string, d time.Duration) int {
	t.Helper()
	tid := 0
	done, end := make(chan error), make(chan struct{})
	t.Cleanup(func() { close(end) })
	go func() {
		runtime.LockOSThread() // and never back: the thread ends with the goroutine
		tid = unix.Gettid()
		if err := os.WriteFile(fmt.Sprintf("/proc/self/task/%d/comm", tid), []byte(comm), 0); err != nil {
			done <- err
			return
		}
		done <- stuckcpu.Hold(d)
		<-end // the probe looks for its process
	}()
	err := <-done
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	return tid
}

// needHarmless skips where a report would end the kernel, or where there is none.
func needHarmless(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to load BPF: run `make ktest` as root")
	}
	for _, f := range []string{"softlockup_panic", "panic_on_warn", "panic_on_oops", "panic_on_rcu_stall"} {
		if b, err := os.ReadFile("/proc/sys/kernel/" + f); err == nil && strings.TrimSpace(string(b)) != "0" {
			t.Skipf("needs kernel.%s=0: a report would end this kernel", f)
		}
	}
	b, err := os.ReadFile("/proc/sys/kernel/soft_watchdog")
	if err != nil || strings.TrimSpace(string(b)) != "1" {
		t.Skip("needs a kernel that looks for soft lockups: CONFIG_SOFTLOCKUP_DETECTOR and kernel.soft_watchdog=1")
	}
}

// set writes a file until the test's end.
func set(t *testing.T, path, value string) {
	t.Helper()
	old, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.WriteFile(path, old, 0); err != nil {
			t.Error(err)
		}
	})
	if err := os.WriteFile(path, []byte(value), 0); err != nil {
		t.Fatal(err)
	}
}
