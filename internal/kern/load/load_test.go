package load

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// What any thread can make happen, on every kernel: a thread that gets a new
// name fires the tracepoint and calls the function.
const (
	renameTP   = "task_rename"
	renameFunc = "__set_task_comm"
)

// rename makes this thread do it n times.
func rename(t *testing.T, n int) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	name := append([]byte("load.test"), 0)
	for range n {
		if err := unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(&name[0])), 0, 0, 0); err != nil {
			t.Fatal(err)
		}
	}
}

// object is a BPF object made by hand: one program of each kind that counts in
// ht_stats when a thread is renamed, and one that no verifier takes.
func object() *ebpf.CollectionSpec {
	count := asm.Instructions{
		asm.StoreImm(asm.R10, -4, 0, asm.Word),
		asm.Mov.Reg(asm.R2, asm.R10),
		asm.Add.Imm(asm.R2, -4),
		asm.LoadMapPtr(asm.R1, 0).WithReference("ht_stats"),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "out"),
		asm.Mov.Imm(asm.R1, 1),
		asm.StoreXAdd(asm.R0, asm.R1, asm.DWord),
		asm.Mov.Imm(asm.R0, 0).WithSymbol("out"),
		asm.Return(),
	}
	prog := func(name, section string, t ebpf.ProgramType, a ebpf.AttachType, to string, ins asm.Instructions) *ebpf.ProgramSpec {
		ins = append(asm.Instructions(nil), ins...)
		ins[0] = ins[0].WithSymbol(name)
		return &ebpf.ProgramSpec{Name: name, SectionName: section, Type: t, AttachType: a, AttachTo: to, License: "GPL", Instructions: ins}
	}
	const tp, fn = renameTP, renameFunc
	spec := &ebpf.CollectionSpec{
		Maps: map[string]*ebpf.MapSpec{"ht_stats": {Name: "ht_stats", Type: ebpf.PerCPUArray, KeySize: 4, ValueSize: 8, MaxEntries: 3}},
		Programs: map[string]*ebpf.ProgramSpec{
			"p_btf":    prog("p_btf", "tp_btf/"+tp, ebpf.Tracing, ebpf.AttachTraceRawTp, tp, count),
			"p_raw":    prog("p_raw", "raw_tp/"+tp, ebpf.RawTracepoint, 0, tp, count),
			"p_tp":     prog("p_tp", "tracepoint/task/"+tp, ebpf.TracePoint, 0, "task/"+tp, count),
			"p_fentry": prog("p_fentry", "fentry/"+fn, ebpf.Tracing, ebpf.AttachTraceFEntry, fn, count),
			"p_fexit":  prog("p_fexit", "fexit/"+fn, ebpf.Tracing, ebpf.AttachTraceFExit, fn, count),
			"p_kprobe": prog("p_kprobe", "kprobe/"+fn, ebpf.Kprobe, 0, fn, count),
			"p_kret":   prog("p_kret", "kretprobe/"+fn, ebpf.Kprobe, 0, fn, count),
			"p_nofunc": prog("p_nofunc", "kprobe/no_such_function", ebpf.Kprobe, 0, "no_such_function", count),
			"p_none":   prog("p_none", "raw_tp/no_such_tracepoint", ebpf.RawTracepoint, 0, "no_such_tracepoint", count),
			"p_bad":    prog("p_bad", "raw_tp/"+tp, ebpf.RawTracepoint, 0, tp, asm.Instructions{asm.Mov.Reg(asm.R0, asm.R9), asm.Return()}),
		},
	}
	return spec
}

func open(t *testing.T, o Options) *Kernel {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to load BPF: run `make ktest` as root")
	}
	k, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func attachAll(t *testing.T, k *Kernel, hooks ...Hook) (*Object, error) {
	t.Helper()
	l, err := k.New(object())
	if err != nil {
		t.Fatal(err)
	}
	return l.Attach(hooks...)
}

// mountTracefs makes tracefs available for the test: attaching to a classic
// tracepoint needs its id.
func mountTracefs(t *testing.T) {
	t.Helper()
	if _, err := os.Stat("/sys/kernel/tracing/events"); err == nil {
		return
	}
	if err := unix.Mount("tracefs", "/sys/kernel/tracing", "tracefs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount("/sys/kernel/tracing", unix.MNT_DETACH) })
}

// TestKernelLadder walks the rungs of a tracepoint: each in turn is the best
// one left. Without BTF the first is not there.
func TestKernelLadder(t *testing.T) {
	if os.Geteuid() == 0 {
		mountTracefs(t)
	}
	best := TPBTF
	if open(t, Options{}).BTF() == "none" {
		best = RawTP
	}
	for _, c := range []struct {
		kinds []string
		by    string
	}{
		{nil, best}, {[]string{RawTP, Tracepoint}, RawTP}, {[]string{Tracepoint}, Tracepoint},
	} {
		k := open(t, Options{Kinds: c.kinds})
		o, err := attachAll(t, k, Hook{Name: "rename", Programs: []string{"p_btf", "p_raw", "p_tp"}})
		if err != nil {
			t.Fatal(err)
		}
		h := o.Hooks()[0]
		if h.By != c.by || h.ID == 0 {
			t.Errorf("kinds %v: attached %+v, want by %s", c.kinds, h, c.by)
		}
		if (h.Reason != "") != (c.by != TPBTF) {
			t.Errorf("kinds %v: reason %q: want why a better way was not taken", c.kinds, h.Reason)
		}
		counts(t, o, c.by)
		o.Close()
		o.Close() // twice is harmless
	}
}

// counts renames the thread and expects the object to have seen it while
// attached, and not after.
func counts(t *testing.T, o *Object, by string) {
	t.Helper()
	const n = 7
	rename(t, n)
	s, err := o.Stats()
	if err != nil || s.Observed < n {
		t.Errorf("%s: %d events counted, %d fired (%v)", by, s.Observed, n, err)
	}
	o.Detach()
	before, err := o.Stats()
	if err != nil {
		t.Fatal(err)
	}
	rename(t, n)
	if after, err := o.Stats(); err != nil || after != before {
		t.Errorf("%s: still counting after Detach: %d, then %d (%v)", by, before.Observed, after.Observed, err)
	}
}

// requireKind ends the test when this kernel has no such hook, and fails it when
// it must have: HUATUO_TEST_HOOKS lists the kinds that a guest of test/vm is
// known for.
func requireKind(t *testing.T, k *Kernel, spec *ebpf.ProgramSpec) {
	t.Helper()
	x := kindOf(spec)
	err := k.supports(x)
	want, listed := os.LookupEnv("HUATUO_TEST_HOOKS")
	must := slices.Contains(strings.Fields(want), x.String())
	switch {
	case err == nil && listed && !must:
		t.Errorf("%s works here, which HUATUO_TEST_HOOKS does not say", x)
	case err != nil && must:
		t.Fatalf("%v: HUATUO_TEST_HOOKS says that this kernel has it", err)
	case err != nil:
		t.Skipf("needs a kernel with %s: `make vmtest` boots some: %v", x, err)
	}
}

// TestKernelFunctions attaches to a function by each kind that can.
func TestKernelFunctions(t *testing.T) {
	for _, prog := range []string{"p_fentry", "p_fexit", "p_kprobe", "p_kret"} {
		t.Run(strings.TrimPrefix(prog, "p_"), func(t *testing.T) {
			k := open(t, Options{})
			spec := object().Programs[prog]
			requireKind(t, k, spec)
			o, err := attachAll(t, k, Hook{Name: renameFunc, Programs: []string{prog}})
			if err != nil {
				t.Fatal(err)
			}
			defer o.Close()
			if h := o.Hooks()[0]; h.By != kindOf(spec).String() || h.ID == 0 || h.Reason != "" {
				t.Errorf("hook %+v", h)
			}
			counts(t, o, prog)
		})
	}
}

// TestKernelFunctionLadder: fentry where the kernel has it, else a kprobe, and
// without either the reasons of both; a function that does not exist is
// unsupported, not an error of ours.
func TestKernelFunctionLadder(t *testing.T) {
	k := open(t, Options{})
	hook := Hook{Name: renameFunc, Programs: []string{"p_fentry", "p_kprobe"}}
	fentry := k.supports(kindOf(object().Programs["p_fentry"])) == nil
	kprobe := k.supports(kindOf(object().Programs["p_kprobe"])) == nil
	o, err := attachAll(t, k, hook)
	switch {
	case !fentry && !kprobe:
		if !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), Fentry) || !strings.Contains(err.Error(), Kprobe) {
			t.Fatalf("neither is there: %v: want `unsupported` and why", err)
		}
		return
	case err != nil:
		t.Fatal(err)
	}
	defer o.Close()
	if h := o.Hooks()[0]; fentry && (h.By != Fentry || h.Reason != "") || !fentry && (h.By != Kprobe || !strings.Contains(h.Reason, Fentry)) {
		t.Errorf("fentry %v, kprobe %v: hook %+v", fentry, kprobe, h)
	}
	counts(t, o, o.Hooks()[0].By)
	if kprobe {
		if _, err := attachAll(t, k, Hook{Name: "nofunc", Programs: []string{"p_nofunc"}}); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("a function that does not exist: %v: want `unsupported`", err)
		}
	}
}

// TestKernelTolerance: an optional hook that the verifier or the kernel refuses
// costs that hook alone; one that must be there says why, and whether it can
// ever work.
func TestKernelTolerance(t *testing.T) {
	k := open(t, Options{})
	good := Hook{Name: "rename", Programs: []string{"p_btf", "p_raw"}}
	o, err := attachAll(t, k, good, Hook{Name: "bad", Programs: []string{"p_bad"}}.Maybe(), Hook{Name: "none", Programs: []string{"p_none"}}.Maybe())
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	if !o.Attached("rename") || o.Attached("bad") || o.Attached("none") || o.Attached("unheard-of") {
		t.Errorf("hooks %+v", o.Hooks())
	}
	for _, h := range o.Hooks()[1:] {
		if h.Reason == "" {
			t.Errorf("hook %s is missing without a reason", h.Hook)
		}
	}
	if _, err := attachAll(t, k, good, Hook{Name: "bad", Programs: []string{"p_bad"}}); err == nil || errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("a program that the verifier refuses: %v: want an error that is not `unsupported`", err)
	}
	if _, err := attachAll(t, k, good, Hook{Name: "none", Programs: []string{"p_none"}}); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("a tracepoint that does not exist: %v: want `unsupported`", err)
	}
	// By the next program of the list where the first fails.
	o2, err := attachAll(t, k, Hook{Name: "rename", Programs: []string{"p_bad", "p_raw"}})
	if err != nil {
		t.Fatal(err)
	}
	defer o2.Close()
	if h := o2.Hooks()[0]; h.Program != "p_raw" || !strings.Contains(h.Reason, "load") {
		t.Errorf("hook %+v: want p_raw, and why not p_bad", h)
	}
}

// TestKernelGuard: what reads maps from other goroutines is harmless after Close.
func TestKernelGuard(t *testing.T) {
	k := open(t, Options{})
	o, err := attachAll(t, k, Hook{Name: "rename", Programs: []string{"p_raw"}})
	if err != nil {
		t.Fatal(err)
	}
	calls := 0
	f := Guard(o, func(n int) error { calls += n; _, err := o.Stats(); return err })
	if err := f(1); err != nil || calls != 1 {
		t.Errorf("open: %v, %d calls", err, calls)
	}
	o.Close()
	if err := f(1); err != nil || calls != 1 {
		t.Errorf("closed: %v, %d calls", err, calls)
	}
}

func TestKernelSupports(t *testing.T) {
	k := open(t, Options{})
	if err := k.Usable(); err != nil {
		t.Error(err)
	}
	fentry := kind{ebpf.Tracing, ebpf.AttachTraceFEntry}
	tpbtf := kind{ebpf.Tracing, ebpf.AttachTraceRawTp}
	if fentry.String() != Fentry || tpbtf.String() != TPBTF {
		t.Errorf("names %s, %s", fentry, tpbtf)
	}
	// Whether fentry works differs from kernel to kernel; that the answers for
	// two attach types of one program type are independent does not.
	if err := k.supports(tpbtf); err != nil && k.BTF() == "kernel" {
		t.Errorf("tp_btf with BTF: %v", err)
	}
	t.Logf("fentry here: %v", k.supports(fentry))
	if k2 := open(t, Options{Kinds: []string{RawTP}}); k2.supports(tpbtf) == nil {
		t.Error("a kind that the configuration excludes is used")
	}
}

// TestKernelRelease: types that were given back are read again when needed.
func TestKernelRelease(t *testing.T) {
	k := open(t, Options{})
	if k.Types() == nil {
		t.Skip("needs a kernel with BTF")
	}
	k.Release()
	k.Release()
	o, err := attachAll(t, k, Hook{Name: "prctl", Programs: []string{"p_btf", "p_raw"}})
	if err != nil {
		t.Fatal(err)
	}
	o.Close()
	if k.Types() == nil || k.TracepointArgs("sched_switch") < 3 {
		t.Error("no types after they were given back")
	}
}

func TestRingBytes(t *testing.T) {
	for cpus, want := range map[int]uint32{1: 32 << 10, 2: 64 << 10, 3: 128 << 10, 16: 512 << 10, 32: 1 << 20, 256: 1 << 20} {
		if got := ringBytes(cpus); got != want {
			t.Errorf("%d CPUs: %d bytes, want %d", cpus, got, want)
		}
	}
}

func TestOpenErrors(t *testing.T) {
	for _, c := range []struct {
		o    Options
		want string
	}{
		{Options{Kinds: []string{"magic"}}, "unknown kind"},
		{Options{Ring: "round"}, "unknown ring"},
		{Options{Flavour: "new"}, "unknown flavour"},
		{Options{Flavour: Legacy, Ring: "ringbuf"}, "which the legacy flavour has not"},
		{Options{BTF: "/nonexistent"}, "find BTF"},
		{Options{BTF: t.TempDir()}, ".btf below"},
		{Options{BTF: "/etc/hostname"}, "load BTF"},
	} {
		if _, err := Open(c.o); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("Open(%+v): %v, want %q", c.o, err, c.want)
		}
	}
}

// TestBTFDirectory: a directory of BTF files for many kernels, as BTFHub lays
// them out, gives the one of this kernel.
func TestBTFDirectory(t *testing.T) {
	if _, err := os.Stat("/sys/kernel/btf/vmlinux"); err != nil {
		t.Skip("needs a kernel with BTF to copy it from")
	}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "debian", "12", "x86_64")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, unix.ByteSliceToString(u.Release[:])+".btf")
	b, err := os.ReadFile("/sys/kernel/btf/vmlinux")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, b, 0o644); err != nil {
		t.Fatal(err)
	}
	k := open(t, Options{BTF: filepath.Dir(filepath.Dir(dir))})
	if k.BTF() != file || k.Types() == nil {
		t.Errorf("BTF from %s, want %s", k.BTF(), file)
	}
	if i := k.controllerIndex("cpu"); i < 0 {
		t.Error("no index of the cpu controller")
	}
	if i := k.controllerIndex("nonsense"); i != -1 {
		t.Errorf("a controller that does not exist has index %d", i)
	}
}
