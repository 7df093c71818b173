package process

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"huatuo/internal/kern/load"
	"huatuo/internal/probes/probetest"
	"huatuo/internal/signal"
)

// TestMain lets the test binary be its own helper: a process that, once it is
// in its cgroup, starts the shell command that it is told.
func TestMain(m *testing.M) {
	if os.Getenv("HUATUO_TEST_RUN") == "" {
		os.Exit(m.Run())
	}
	bufio.NewReader(os.Stdin).ReadString('\n')
	c := exec.Command("sh", "-c", os.Getenv("HUATUO_TEST_RUN"))
	if err := c.Run(); c.ProcessState == nil {
		fmt.Fprintln(os.Stderr, err)
	}
}

// in runs a shell command in the cgroup.
func in(t *testing.T, cg *probetest.Cgroup, command string) {
	t.Helper()
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), "HUATUO_TEST_RUN="+command)
	stdin, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.Stderr = os.Stderr
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	cg.Add(t, c.Process.Pid)
	fmt.Fprintln(stdin)
	stdin.Close()
	if err := c.Wait(); err != nil {
		t.Fatal(err)
	}
}

// crasher writes an ELF program of a few instructions that ends as each of
// them does, and returns its path.
func crasher(t *testing.T, name, code string) string {
	t.Helper()
	if _, err := exec.LookPath("cc"); err != nil {
		t.Skip("needs a C compiler to make a program that crashes: install gcc or clang")
	}
	dir := t.TempDir()
	src, bin := filepath.Join(dir, "crash.c"), filepath.Join(dir, name)
	if err := os.WriteFile(src, []byte(code), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("cc", "-O0", "-fno-omit-frame-pointer", "-o", bin, src).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return bin
}

const segv = `#include <signal.h>
static void handled(int sig) {}
int *nowhere = (int *)0x18;
int deep(void) { return *nowhere; }
int main(void) { signal(SIGQUIT, handled); raise(SIGQUIT); return deep() + 1; }
`

// TestKernel starts, ends and crashes processes in a cgroup of their own, by
// each kind of hook and of ring.
func TestKernel(t *testing.T) {
	bin := crasher(t, "segfaulter", segv)
	for _, kind := range []string{load.TPBTF, load.RawTP} {
		for _, ring := range []string{"ringbuf", "perf"} {
			t.Run(kind+"/"+ring, func(t *testing.T) {
				testLife(t, bin, load.Options{Kinds: []string{kind}, Ring: ring})
			})
		}
	}
}

func testLife(t *testing.T, bin string, o load.Options) {
	env := probetest.NewKernel(t, o)
	cfg := Spec().Config.(Config)
	cfg.Exec, cfg.ExecRate = true, 0
	env.Start(Spec(), cfg)
	for _, h := range env.Hooks() {
		if h.By != o.Kinds[0] {
			t.Fatalf("hook %+v: want it by %s", h, o.Kinds[0])
		}
	}
	cg := probetest.NewCgroup(t, fmt.Sprintf("huatuo-test-process-%d", os.Getpid()))
	in(t, cg, "ulimit -c 0; true; /bin/true; /bin/false; "+bin+"; sh -c 'kill -ABRT $$'; sleep 60 & kill -XCPU $!; wait; exit 0")

	fault := env.WaitRecord(func(r *signal.Record) bool { return r.CgroupID == cg.ID && isCrash(r, "SIGSEGV") })
	b := fault.Body.(*ProcessCrash)
	if b.Signal != "SIGSEGV" || b.Code != "SEGV_MAPERR" || b.Cause != byFault || b.Address != "0x18" || len(fault.UserIPs) == 0 {
		t.Errorf("fault %+v with %d frames", b, len(fault.UserIPs))
	}
	if !strings.Contains(fault.Title, "null pointer") {
		t.Errorf("title %q", fault.Title)
	}
	if o.Kinds[0] == load.TPBTF {
		place(t, env, fault)
	}
	self := env.WaitRecord(func(r *signal.Record) bool { return r.CgroupID == cg.ID && isCrash(r, "SIGABRT") })
	if b := self.Body.(*ProcessCrash); b.Cause != bySelf || self.Process.Comm != "sh" || b.Address != "" {
		t.Errorf("abort %+v of %+v", b, self.Process)
	}
	sent := env.WaitRecord(func(r *signal.Record) bool { return r.CgroupID == cg.ID && isCrash(r, "SIGXCPU") })
	if b := sent.Body.(*ProcessCrash); b.Cause != bySent || sent.Process.Comm != "sleep" && sent.Process.Comm != "sh" ||
		b.Sender.Process.Comm != "sh" || b.Sender.CgroupID != cg.ID || len(sent.Parties) != 1 {
		t.Errorf("sent %+v of %+v", b, sent.Process)
	}
	executions(t, env, cg, bin)
	counters(t, env, cg)

	if err := env.Stop(); err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, r := range env.Records() {
		if r.CgroupID == cg.ID && r.Schema == crashed {
			n++
		}
	}
	if n != 3 {
		t.Errorf("%d crashes, want 3: a signal that is handled is none", n)
	}
	loss := env.Loss()
	var dropped uint64
	for _, n := range loss.Dropped {
		dropped += n
	}
	if got := uint64(len(env.Records())); loss.Observed != got+dropped {
		t.Errorf("observed %d, but %d records and %v lost", loss.Observed, got, loss.Dropped)
	}
}

func isCrash(r *signal.Record, sig string) bool {
	b, ok := r.Body.(*ProcessCrash)
	return ok && b.Signal == sig
}

// place checks what only newer kernels give.
func place(t *testing.T, env *probetest.Env, r *signal.Record) {
	b := r.Body.(*ProcessCrash)
	if r.Registers["pc"] == "" || r.Registers["sp"] == "" {
		t.Errorf("registers %v", r.Registers)
	}
	if fmt.Sprintf("%#016x", r.UserIPs[0]) != r.Registers["pc"] {
		t.Errorf("pc %s, and the stack begins at %#x", r.Registers["pc"], r.UserIPs[0])
	}
	if b.Module != "segfaulter" || b.Offset == 0 || b.Offset > 1<<20 {
		t.Errorf("crashed in %s+%#x", b.Module, b.Offset)
	}
}

func executions(t *testing.T, env *probetest.Env, cg *probetest.Cgroup, bin string) {
	r := env.WaitRecord(func(r *signal.Record) bool { return r.CgroupID == cg.ID && r.Schema == executed && r.Process.Comm == "segfaulter" })
	if b := r.Body.(*ProcessExec); b.File != bin || int(b.UID) != os.Getuid() || r.Process.Parent != "sh" || r.Process.ParentPID == 0 ||
		len(r.Args) != 1 || r.Args[0] != bin {
		t.Errorf("execution %+v of %+v with %q", b, r.Process, r.Args)
	}
}

func counters(t *testing.T, env *probetest.Env, cg *probetest.Cgroup) {
	samples := env.Gather()
	for _, want := range []struct {
		name   string
		labels []string
		n      float64
	}{
		{containerForks.Name, nil, 6}, // sh, true, false, segfaulter, sh, sleep; and one by which Go tries what the kernel can
		{containerExecs.Name, nil, 5}, // at least: the sleep may get its signal before it is one
		{containerExits.Name, []string{"failure"}, 1},
		{containerExits.Name, []string{"signal"}, 3},
		{containerExits.Name, []string{"success"}, 2}, // true and the first sh; and Go's, and the helper itself
	} {
		got, _ := probetest.WorkloadValue(samples, want.name, cg.ID, want.labels...)
		if got < want.n || got > want.n+2 {
			t.Errorf("%s%v is %v, want %v", want.name, want.labels, got, want.n)
		}
	}
	for _, want := range []string{"SIGSEGV", "SIGABRT", "SIGXCPU", "success", "failure"} {
		if n, _ := probetest.Value(samples, exits.Name, want); n < 1 {
			t.Errorf("%s{cause=%q} is %v", exits.Name, want, n)
		}
	}
	if n, _ := probetest.Value(samples, forks.Name, "thread"); n < 1 {
		t.Error("no thread was counted: the helper is a Go program and has some")
	}
}

// TestKernelQuiet holds the defaults: no event of a program that starts, none of a
// process that is killed by a signal that dumps no core.
func TestKernelQuiet(t *testing.T) {
	env := probetest.NewKernel(t, load.Options{})
	env.Start(Spec(), nil)
	c := exec.Command("sleep", "60")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	c.Process.Signal(syscall.SIGTERM)
	c.Wait()
	time.Sleep(300 * time.Millisecond)
	for _, r := range env.Records() {
		if r.Schema == executed || int(r.Process.PID) == c.Process.Pid {
			t.Errorf("event %s", r.Title)
		}
	}
	if n, _ := probetest.Value(env.Gather(), exits.Name, "SIGTERM"); n < 1 {
		t.Errorf("%v processes ended by SIGTERM", n)
	}
}

// TestKernelForms loads the program for kernels whose sched_process_exit has one
// argument, which this kernel takes as well.
func TestKernelForms(t *testing.T) {
	env := probetest.NewKernel(t, load.Options{})
	for _, kind := range []string{"btf", "raw"} {
		spec, err := loadBpf()
		if err != nil {
			t.Fatal(err)
		}
		l, err := env.Kernel.New(spec)
		if err != nil {
			t.Fatal(err)
		}
		o, err := l.Attach(load.Hook{Name: "sched_process_exit", Programs: []string{"sched_process_exit_1_" + kind}})
		if err != nil {
			t.Errorf("%s: %v", kind, err)
			continue
		}
		exec.Command("false").Run()
		b := &signal.Batch{}
		if err := collect(b, o); err != nil {
			t.Error(err)
		}
		if n, _ := probetest.Value(b.Samples, exits.Name, "failure"); n < 1 {
			t.Errorf("%s: %v processes failed", kind, n)
		}
		o.Close()
	}
}
