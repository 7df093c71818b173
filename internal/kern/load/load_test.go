package load

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// object is a BPF object made by hand: one program of each kind that counts in
// ht_stats when `prctl` gets an unknown option, a tracepoint that any test can
// fire, and one that no verifier takes.
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
	const tp = "task_prctl_unknown"
	spec := &ebpf.CollectionSpec{
		Maps: map[string]*ebpf.MapSpec{"ht_stats": {Name: "ht_stats", Type: ebpf.PerCPUArray, KeySize: 4, ValueSize: 8, MaxEntries: 3}},
		Programs: map[string]*ebpf.ProgramSpec{
			"p_btf":    prog("p_btf", "tp_btf/"+tp, ebpf.Tracing, ebpf.AttachTraceRawTp, tp, count),
			"p_raw":    prog("p_raw", "raw_tp/"+tp, ebpf.RawTracepoint, 0, tp, count),
			"p_tp":     prog("p_tp", "tracepoint/task/"+tp, ebpf.TracePoint, 0, "task/"+tp, count),
			"p_fentry": prog("p_fentry", "fentry/do_exit", ebpf.Tracing, ebpf.AttachTraceFEntry, "do_exit", count),
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

// TestKernelLadder walks the rungs: each in turn is the best one left.
func TestKernelLadder(t *testing.T) {
	if os.Geteuid() == 0 {
		mountTracefs(t)
	}
	for _, c := range []struct {
		kinds []string
		by    string
	}{
		{nil, TPBTF}, {[]string{RawTP, Tracepoint}, RawTP}, {[]string{Tracepoint}, Tracepoint},
	} {
		k := open(t, Options{Kinds: c.kinds})
		o, err := attachAll(t, k, Hook{Name: "prctl", Programs: []string{"p_btf", "p_raw", "p_tp"}})
		if err != nil {
			t.Fatal(err)
		}
		h := o.Hooks()[0]
		if h.By != c.by || h.ID == 0 {
			t.Errorf("kinds %v: attached %+v, want by %s", c.kinds, h, c.by)
		}
		if (h.Reason != "") != (len(c.kinds) > 0) {
			t.Errorf("kinds %v: reason %q: want why a better way was not taken", c.kinds, h.Reason)
		}
		const n = 7
		for range n {
			unix.Prctl(0x7ffffff1, 0, 0, 0, 0)
		}
		s, err := o.Stats()
		if err != nil || s.Observed < n {
			t.Errorf("%s: %d events counted, %d fired (%v)", c.by, s.Observed, n, err)
		}
		o.Close()
		o.Close() // twice is harmless
	}
}

// TestKernelTolerance: an optional hook that the verifier or the kernel refuses
// costs that hook alone; one that must be there says why, and whether it can
// ever work.
func TestKernelTolerance(t *testing.T) {
	k := open(t, Options{})
	good := Hook{Name: "prctl", Programs: []string{"p_btf", "p_raw"}}
	o, err := attachAll(t, k, good, Hook{Name: "bad", Programs: []string{"p_bad"}}.Maybe(), Hook{Name: "none", Programs: []string{"p_none"}}.Maybe())
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	if !o.Attached("prctl") || o.Attached("bad") || o.Attached("none") || o.Attached("unheard-of") {
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
	o2, err := attachAll(t, k, Hook{Name: "prctl", Programs: []string{"p_bad", "p_raw"}})
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
	o, err := attachAll(t, k, Hook{Name: "prctl", Programs: []string{"p_raw"}})
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

func TestOpenErrors(t *testing.T) {
	for _, c := range []struct {
		o    Options
		want string
	}{
		{Options{Kinds: []string{"magic"}}, "unknown kind"},
		{Options{Ring: "round"}, "unknown ring"},
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
