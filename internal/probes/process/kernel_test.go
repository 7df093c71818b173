package process

import (
	"bufio"
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"

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

// crasher writes a program of a few instructions that reads address 0x18, and
// returns its path.
func crasher(t *testing.T) string {
	t.Helper()
	var machine uint16
	var code []byte
	switch runtime.GOARCH {
	case "amd64":
		machine, code = 62, []byte{0x8b, 0x04, 0x25, 0x18, 0, 0, 0} // mov 0x18, %eax
	case "arm64":
		machine, code = 183, []byte{0x00, 0x03, 0x80, 0xd2, 0x00, 0x00, 0x40, 0xb9} // mov x0, #0x18; ldr w0, [x0]
	default:
		t.Skip("needs a program that crashes: write its instructions for " + runtime.GOARCH)
	}
	const at, headers = 0x400000, 64 + 56
	var b bytes.Buffer
	for _, v := range []any{
		elf.Header64{
			Ident: [elf.EI_NIDENT]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
			Type:  uint16(elf.ET_EXEC), Machine: machine, Version: uint32(elf.EV_CURRENT), Entry: at + headers, Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 1,
		},
		elf.Prog64{
			Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_X), Vaddr: at, Paddr: at,
			Filesz: uint64(headers + len(code)), Memsz: uint64(headers + len(code)), Align: 0x10000,
		},
		code,
	} {
		if err := binary.Write(&b, binary.LittleEndian, v); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(t.TempDir(), "segfaulter")
	if err := os.WriteFile(path, b.Bytes(), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestKernel starts, ends and crashes processes in a cgroup of their own, by
// each kind of hook and of ring.
func TestKernel(t *testing.T) {
	bin := crasher(t)
	probetest.Rungs(t, func(t *testing.T, o load.Options) { testLife(t, bin, o) })
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
	in(t, cg, "ulimit -c 0; trap : QUIT; kill -QUIT $$; /bin/true; /bin/false; "+bin+"; sh -c 'kill -ABRT $$'; sleep 60 & kill -XCPU $!; wait; exit 0")

	fault := env.WaitRecord(func(r *signal.Record) bool { return r.CgroupID == cg.ID && isCrash(r, "SIGSEGV") })
	b := fault.Body.(*ProcessCrash)
	if b.Signal != "SIGSEGV" || b.Code != "SEGV_MAPERR" || b.Cause != byFault || b.Address != "0x18" || len(fault.UserIPs) == 0 {
		t.Errorf("fault %+v with %d frames", b, len(fault.UserIPs))
	}
	probetest.Event{Title: `segfaulter \(pid \d+\) crashed: SIGSEGV, null pointer.*`, Severity: signal.Critical, User: true, Cgroup: cg.ID}.Check(t, fault)
	if o.Kinds[0] == load.TPBTF {
		place(t, env, fault)
	}
	self := env.WaitRecord(func(r *signal.Record) bool { return r.CgroupID == cg.ID && isCrash(r, "SIGABRT") })
	if b := self.Body.(*ProcessCrash); b.Cause != bySelf || self.Process.Comm != "sh" || b.Address != "" {
		t.Errorf("abort %+v of %+v", b, self.Process)
	}
	probetest.Event{Title: `sh \(pid \d+\) crashed: SIGABRT that it sent to itself.*`, Severity: signal.Critical, User: true, Cgroup: cg.ID}.Check(t, self)
	sent := env.WaitRecord(func(r *signal.Record) bool { return r.CgroupID == cg.ID && isCrash(r, "SIGXCPU") })
	if b := sent.Body.(*ProcessCrash); b.Cause != bySent || sent.Process.PID == b.Sender.Process.PID ||
		b.Sender.Process.Comm != "sh" || b.Sender.CgroupID != cg.ID || len(sent.Parties) != 1 {
		t.Errorf("sent %+v of %+v", b, sent.Process)
	}
	probetest.Event{Title: `\S+ \(pid \d+\) crashed: SIGXCPU from sh \(pid \d+\).*`, Severity: signal.Critical, User: true, Cgroup: cg.ID}.Check(t, sent)
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

// helper tells whether the kernel has a BPF helper.
func helper(env *probetest.Env, name string) bool {
	var e *btf.Enum
	if env.Kernel.Types() == nil || env.Kernel.Types().TypeByName("bpf_func_id", &e) != nil {
		return false
	}
	return slices.ContainsFunc(e.Values, func(v btf.EnumValue) bool { return v.Name == name })
}

// place checks what only newer kernels give.
func place(t *testing.T, env *probetest.Env, r *signal.Record) {
	b := r.Body.(*ProcessCrash)
	if helper(env, "BPF_FUNC_task_pt_regs") {
		if r.Registers["pc"] == "" || r.Registers["sp"] == "" {
			t.Errorf("registers %v", r.Registers)
		}
		if fmt.Sprintf("%#016x", r.UserIPs[0]) != r.Registers["pc"] {
			t.Errorf("pc %s, and the stack begins at %#x", r.Registers["pc"], r.UserIPs[0])
		}
	}
	if !helper(env, "BPF_FUNC_find_vma") {
		return
	}
	if others(t) && b.Module == "" {
		t.Log("another agent is at work: only the first of them learns the module")
	} else if b.Module != "segfaulter" || b.Offset < 64+56 || b.Offset > 64+56+4 {
		t.Errorf("crashed in %s+%#x", b.Module, b.Offset)
	}
}

// others tells whether another agent hears of signals as well.
func others(t *testing.T) bool {
	n := 0
	for id := ebpf.ProgramID(0); ; {
		next, err := ebpf.ProgramGetNextID(id)
		if err != nil {
			break
		}
		id = next
		p, err := ebpf.NewProgramFromID(id)
		if err != nil {
			continue // gone
		}
		if info, err := p.Info(); err == nil && strings.HasPrefix("signal_deliver_btf", info.Name) && info.Name != "" {
			n++
		}
		p.Close()
	}
	return n > 1
}

func executions(t *testing.T, env *probetest.Env, cg *probetest.Cgroup, bin string) {
	r := env.WaitRecord(func(r *signal.Record) bool {
		return r.CgroupID == cg.ID && r.Schema == executed && r.Process.Comm == "segfaulter"
	})
	probetest.Event{Title: `sh \(pid \d+\) runs \S+/segfaulter`, Severity: signal.Info, Cgroup: cg.ID}.Check(t, r)
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
		if got < want.n || got > want.n+3 {
			t.Errorf("%s%v is %v, want %v", want.name, want.labels, got, want.n)
		}
	}
	if n, ok := probetest.Value(samples, execs.Name); !ok || n < 5 {
		t.Errorf("%s is %v, want those of the workload, five, at least", execs.Name, n)
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

// TestKernelArrive: events come out of the ring without others behind them,
// whether or not they were the first in a while, with both kinds of ring.
func TestKernelArrive(t *testing.T) {
	for _, ring := range []string{"ringbuf", "perf"} {
		t.Run(ring, func(t *testing.T) {
			env := probetest.NewKernel(t, load.Options{Ring: ring})
			cfg := Spec().Config.(Config)
			cfg.Exec, cfg.ExecRate = true, 0
			env.Start(Spec(), cfg)
			want := map[uint32]bool{}
			for range 3 { // an event after a pause, and some soon after it
				time.Sleep(400 * time.Millisecond)
				for range 4 {
					c := exec.Command("true")
					if err := c.Run(); err != nil {
						t.Fatal(err)
					}
					want[uint32(c.Process.Pid)] = true
					time.Sleep(60 * time.Millisecond)
				}
				for end := time.Now().Add(10 * time.Second); len(want) > 0; time.Sleep(20 * time.Millisecond) {
					for _, r := range env.Records() {
						delete(want, uint32(r.Process.PID))
					}
					if time.Now().After(end) {
						t.Fatalf("%d events stay in the ring", len(want))
					}
				}
			}
		})
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
