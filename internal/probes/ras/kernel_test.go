package ras

import (
	"context"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"huatuo/internal/kern/load"
	"huatuo/internal/probe"
	"huatuo/internal/probes/probetest"
	"huatuo/internal/signal"
)

// TestKernel attaches to what this kernel has, by each kind of hook and of ring.
func TestKernel(t *testing.T) {
	probetest.Rungs(t, func(t *testing.T, o load.Options) {
		e := probetest.NewKernel(t, o)
		e.Start(Spec(), nil)
		attached := map[string]string{}
		for _, h := range e.Hooks() {
			attached[h.Hook] = h.By
			if strings.Contains(h.Reason, "load program:") {
				t.Errorf("%s: %s", h.Hook, h.Reason)
			}
		}
		for _, tp := range tracepoints { // EDAC's and CPER's are in each kernel that has CONFIG_RAS
			_, err := os.Stat("/sys/kernel/tracing/events/ras/" + tp)
			if err == nil && attached[tp] != o.Kinds[0] {
				t.Errorf("%s runs by %q, want %s", tp, attached[tp], o.Kinds[0])
			}
		}
		samples := e.Gather()
		for i, tp := range tracepoints {
			if _, ok := probetest.Value(samples, errorsTotal.Name, sources[i], "corrected", ""); ok != (attached[tp] != "") {
				t.Errorf("%s is counted: %v; its tracepoint runs by %q", sources[i], ok, attached[tp])
			}
		}
	})
}

// memory is a page of the kernel's memory that the test can write and programs
// can be given the address of.
type memory struct {
	m    *ebpf.Map
	base uint64
	buf  []byte
	used int
}

// newMemory asks a program where the value of a map lies.
func newMemory(t *testing.T) *memory {
	t.Helper()
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4096, MaxEntries: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.RawTracepoint, License: "GPL", Instructions: asm.Instructions{
		asm.StoreImm(asm.RFP, -4, 0, asm.Word),
		asm.LoadMapPtr(asm.R1, m.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -4),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "out"),
		asm.StoreMem(asm.R0, 0, asm.R0, asm.DWord),
		asm.Mov.Imm(asm.R0, 0).WithSymbol("out"),
		asm.Return(),
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	fire(t, p)
	k := &memory{m: m, buf: make([]byte, 4096)}
	if err := m.Lookup(uint32(0), k.buf); err != nil {
		t.Fatal(err)
	}
	k.base = binary.NativeEndian.Uint64(k.buf)
	if k.base == 0 {
		t.Fatal("no address")
	}
	clear(k.buf)
	return k
}

// put writes b and returns its address in the kernel.
func (k *memory) put(t *testing.T, b []byte) uint64 {
	t.Helper()
	at := k.used
	k.used += (len(b) + 15) &^ 7 // a zero behind
	copy(k.buf[at:k.used], b)
	if err := k.m.Put(uint32(0), k.buf); err != nil {
		t.Fatal(err)
	}
	return k.base + uint64(at)
}

func (k *memory) text(t *testing.T, s string) uint64 { return k.put(t, []byte(s)) }

// fire runs a program with the arguments that a tracepoint would have.
func fire(t *testing.T, p *ebpf.Program, args ...uint64) {
	t.Helper()
	c := make([]uint64, 12) // as many as a tracepoint can have
	copy(c, args)
	if _, err := p.Run(&ebpf.RunOptions{Context: c}); err != nil {
		t.Fatalf("run a program: %v", err)
	}
}

// replay starts the probe with its maps and ring, and its programs loaded but attached
// to nothing: the test calls them with the arguments of the kernel's tracepoints. So
// it tries also those that this kernel, or this machine, has not.
func replay(t *testing.T, o load.Options) (*probetest.Env, map[string]*ebpf.Program) {
	t.Helper()
	e := probetest.NewKernel(t, o)
	progs := map[string]*ebpf.Program{}
	attached := make(chan *load.Object, 1)
	spec := probe.New(Spec().Meta, Config{CorrectedEvery: time.Hour}, func(ctx context.Context, env *probe.Env, cfg Config) error {
		l, err := newLoader(env.Kernel, cfg)
		if err != nil {
			return err
		}
		for _, c := range []string{"arm_tells_severity", "aer_tells_header"} {
			if err := l.Set(c, true); err != nil {
				return err
			}
		}
		obj, err := l.Attach(load.TP("sched_no_such_event").Maybe())
		if err != nil {
			return err
		}
		defer obj.Close()
		if err := loadRaw(l, obj, env.Kernel, progs); err != nil {
			return err
		}
		attached <- obj
		return serve(ctx, env, obj)
	})
	e.Start(spec, nil)
	<-attached
	t.Cleanup(func() {
		for _, p := range progs {
			p.Close()
		}
	})
	return e, progs
}

// loadRaw loads all raw_tp programs with the maps of an object.
func loadRaw(l *load.Loader, o *load.Object, k *load.Kernel, into map[string]*ebpf.Program) error {
	one := *l.Spec
	one.Programs = map[string]*ebpf.ProgramSpec{}
	for name, p := range l.Spec.Programs {
		if strings.HasSuffix(name, "_raw") {
			one.Programs[name] = p
		}
	}
	opts := ebpf.CollectionOptions{MapReplacements: map[string]*ebpf.Map{}}
	opts.Programs.KernelTypes = k.Types()
	for name := range l.Spec.Maps {
		if m := o.Map(name); m != nil {
			opts.MapReplacements[name] = m
		}
	}
	c, err := ebpf.NewCollectionWithOptions(&one, opts)
	if err != nil {
		return err
	}
	defer c.Close()
	for _, tp := range tracepoints {
		into[tp] = c.DetachProgram(tp + "_raw")
	}
	return nil
}

// TestKernelReplay calls each program with what the kernel would give it.
func TestKernelReplay(t *testing.T) {
	// tp_btf programs cannot be run by hand; they have the same body.
	for _, ring := range []string{"ringbuf", "perf"} {
		t.Run(load.RawTP+"/"+ring, func(t *testing.T) { testReplay(t, load.Options{Kinds: []string{load.RawTP}, Ring: ring}) })
	}
	t.Run(load.Legacy, func(t *testing.T) { testReplay(t, load.Options{Kinds: []string{load.RawTP}, Flavour: load.Legacy}) })
}

func testReplay(t *testing.T, o load.Options) {
	e, progs := replay(t, o)
	k := newMemory(t)
	source := func(s string) *HardwareError {
		t.Helper()
		return e.WaitRecord(func(r *signal.Record) bool { return r.Body.(*HardwareError).Source == s }).Body.(*HardwareError)
	}
	minus1 := ^uint64(0)
	label := k.text(t, "DIMM_B2")
	fire(t, progs["mc_event"], 1, k.text(t, "memory read error"), label, 4, 2, 1, 0, minus1, 0x2000, 3, 0x99, k.text(t, "row:7 "))
	if b := source("memory"); b.ErrorSeverity != "uncorrected" || b.Count != 4 || b.Where != "DIMM_B2" || b.Message != "memory read error" || b.Address != "0x2000" ||
		*b.Memory != (Memory{2, "DIMM_B2", [3]int32{1, 0, -1}, 8, "0x99", "row:7"}) {
		t.Errorf("memory: %+v, %+v", b, b.Memory)
	}

	tlp := k.put(t, []byte{1, 0, 0, 4, 0xf, 0x20, 0, 0, 0, 0, 1, 5, 0, 0, 0, 0})
	fire(t, progs["aer_event"], k.text(t, "0000:5e:00.1"), 1<<18, 1, 1, tlp) // AER_FATAL
	if b := source("pcie"); b.ErrorSeverity != "fatal" || b.Where != "0000:5e:00.1" || b.Message != "malformed tlp" || b.PCIe.Header != "04000001 0000200f 05010000 00000000" {
		t.Errorf("pcie: %+v, %+v", b, b.PCIe)
	}

	m := mceSample().M
	m.Status |= 1<<61 | 1<<55
	fire(t, progs["mce_record"], k.put(t, bytesOf(&m)))
	if b := source("machine_check"); b.ErrorSeverity != "uncorrected" || b.Count != 1 || b.Address != "0x123456000" || b.MachineCheck.CPU != 12 || b.MachineCheck.Bank != 7 ||
		strings.Join(b.Flags, " ") != "uncorrected enabled misc_valid address_valid action_required" {
		t.Errorf("machine check: %+v, %+v", b, b.MachineCheck)
	}

	arm := armSample().Data[:72]
	fire(t, progs["arm_event"], k.put(t, arm), 0, 0, 0, 0, 0, 0, 1) // GHES_SEV of CPER: fatal
	if b := source("arm_processor"); b.ErrorSeverity != "fatal" || b.Count != 4 || b.Where != "MPIDR 0x81010000" || !strings.HasPrefix(b.Message, "cache error, level 2") {
		t.Errorf("arm: %+v", b)
	}

	fw := firmwareSample()
	fire(t, progs["non_standard_event"], k.put(t, fw.Type[:]), k.put(t, fw.Fru[:]), k.text(t, "PCIe slot 3"), 0, k.put(t, fw.Data[:70]), 70)
	if b := source("firmware"); b.ErrorSeverity != "uncorrected" || b.Where != "PCIe slot 3" || b.Section.Type != "d995e954-bbc1-430f-ad91-b44dcb3c6f35" ||
		b.Section.Bytes != 70 || !strings.HasPrefix(b.Section.Raw, "010203ff") || len(b.Section.Raw) != 128 {
		t.Errorf("firmware: %+v, %+v", b, b.Section)
	}

	log := memlogSample().Data[:80]
	fire(t, progs["extlog_mem_event"], k.put(t, log), 1, k.put(t, fw.Fru[:]), k.text(t, "DIMM 7"), 0)
	if b := source("memory_log"); b.ErrorSeverity != "uncorrected" || b.Where != "DIMM 7" || b.Address != "0x7fff0000" || b.Message != "multi-bit ECC error" {
		t.Errorf("memory log: %+v", b)
	}

	fire(t, progs["memory_failure_event"], 0x1234, 1<<20, 2)
	if b := source("memory_page"); b.Page.Frame != 0x1234 || b.Page.Result != "delayed" || b.Page.Type != "type 1048576" {
		t.Errorf("page: %+v", b.Page)
	}
	testStorm(t, e, progs["mc_event"], label)
}

// testStorm: of corrected errors few become events, all are counted, and others still pass.
func testStorm(t *testing.T, e *probetest.Env, mc *ebpf.Program, label uint64) {
	for range 100 {
		fire(t, mc, 0, 0, label, 2, 0)
	}
	fire(t, mc, 3, 0, label, 1, 0)
	e.WaitRecord(func(r *signal.Record) bool {
		b := r.Body.(*HardwareError)
		return b.Memory != nil && b.ErrorSeverity == "fatal"
	})
	samples := e.Gather()
	for _, want := range []struct {
		source, severity, where string
		n                       float64
	}{
		{"memory", "corrected", "DIMM_B2", 200}, {"memory", "uncorrected", "DIMM_B2", 4}, {"memory", "fatal", "DIMM_B2", 1},
		{"machine_check", "uncorrected", "bank 7", 1}, {"pcie", "fatal", "0000:5e:00.1", 1}, {"memory_page", "uncorrected", "", 1},
	} {
		if n, _ := probetest.Value(samples, errorsTotal.Name, want.source, want.severity, want.where); n != want.n {
			t.Errorf("%s, %s, %q: %v are counted, want %v", want.source, want.severity, want.where, n, want.n)
		}
	}
	if err := e.Stop(); err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, r := range e.Records() {
		if r.Body.(*HardwareError).ErrorSeverity == "corrected" {
			n++
		}
	}
	loss := e.Loss()
	if n == 0 || n > 6*len(cpus(t)) || loss.Observed != uint64(len(e.Records()))+loss.Dropped["rate_limited"]+loss.Dropped["ring_full"] {
		t.Errorf("%d events of corrected errors, %+v", n, loss)
	}
}

func cpus(t *testing.T) []string {
	all, err := filepath.Glob("/sys/devices/system/cpu/cpu[0-9]*")
	if err != nil || len(all) == 0 {
		t.Fatalf("no CPU: %v", err)
	}
	return all
}

// TestKernelPlaces: what finds no place of its own is counted as other.
func TestKernelPlaces(t *testing.T) {
	e, progs := replay(t, load.Options{Kinds: []string{load.RawTP}})
	k := newMemory(t)
	for i := range 600 {
		k.used = 0
		fire(t, progs["mc_event"], 1, 0, k.text(t, "DIMM_"+string([]byte{'a' + byte(i/26), 'a' + byte(i%26)})), 1, 0)
	}
	var other, all float64
	for _, s := range e.Gather() {
		if s.Schema == errorsTotal {
			all += s.Value
			if s.Labels[2] == "other" {
				other += s.Value
			}
		}
	}
	if all != 600 || other != 600-512 {
		t.Errorf("%v are counted, %v of them as other; want 600 and 88", all, other)
	}
}
