package vmstat

import (
	"errors"
	"flag"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"huatuo/internal/probes/probetest"
	"huatuo/internal/signal"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestRun(t *testing.T) {
	f := func(root, golden string) {
		t.Run(golden, func(t *testing.T) {
			e := probetest.New(t)
			e.Root = root
			e.Start(Spec(), nil)
			first := e.Gather()
			probetest.Golden(t, "testdata/"+golden+".golden", first, nil, *update)
			probetest.Golden(t, "testdata/"+golden+".golden", e.Gather(), nil, false) // sums do not pile up over rounds
		})
	}
	f("testdata", "vmstat")
	f("testdata/v4.18", "v4.18")
}

func TestAbsent(t *testing.T) {
	e := probetest.New(t)
	e.Root = t.TempDir()
	if err := e.TryStart(Spec(), nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("run without /proc/vmstat = %v; want not exist", err)
	}
}

func TestNoKnownField(t *testing.T) {
	p := newPoller("/dev/null")
	if err := p.collect(new(signal.Batch)); err == nil {
		t.Error("collect of an empty file gives no error")
	}
}

// TestFieldsAreThere holds the table against the running kernel: a misspelt
// line would never give a value, and no other test would notice.
func TestFieldsAreThere(t *testing.T) {
	if _, err := os.Stat("/proc/vmstat"); err != nil {
		t.Skip("needs /proc: ", err)
	}
	p := newPoller("/proc/vmstat")
	if err := p.collect(new(signal.Batch)); err != nil {
		t.Fatal(err)
	}
	old := newPoller("testdata/v4.18/proc/vmstat")
	if err := old.collect(new(signal.Batch)); err != nil {
		t.Fatal(err)
	}
	newest := newPoller("testdata/proc/vmstat")
	if err := newest.collect(new(signal.Batch)); err != nil {
		t.Fatal(err)
	}
	for i, f := range fields {
		if !p.sums[i].seen && !old.sums[i].seen && !newest.sums[i].seen {
			t.Errorf("%v: neither this kernel nor a kernel of the test data has it", f.keys)
		}
	}
}

// TestKernel touches pages for the first time: each is one fault.
func TestKernel(t *testing.T) {
	if _, err := os.Stat("/proc/vmstat"); err != nil {
		t.Skip("needs /proc: ", err)
	}
	e := probetest.New(t)
	e.Start(Spec(), nil)
	faults := func() float64 {
		v, _ := probetest.Value(e.Gather(), "huatuo_vmstat_pgfault_total")
		return v
	}
	const pages = 50_000
	size := pages * os.Getpagesize()
	mem, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(mem)
	if err := unix.Madvise(mem, unix.MADV_NOHUGEPAGE); err != nil {
		t.Logf("huge pages stay possible: %v", err)
	}
	before := faults()
	for i := 0; i < size; i += os.Getpagesize() {
		mem[i] = 1
	}
	if d := faults() - before; d < pages {
		t.Errorf("%d pages touched, huatuo_vmstat_pgfault_total moved by %g", pages, d)
	}
}

func FuzzParse(f *testing.F) {
	for _, p := range []string{"testdata/proc/vmstat", "testdata/v4.18/proc/vmstat"} {
		b, err := os.ReadFile(p)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	p := newPoller("")
	f.Fuzz(func(t *testing.T, file []byte) {
		known := p.parse(file)
		for _, s := range p.sums {
			if s.seen && !known || !s.seen && s.value != 0 {
				t.Errorf("%+v, known = %v", s, known)
			}
		}
	})
}

func BenchmarkCollect(b *testing.B) {
	p := newPoller("/proc/vmstat")
	batch := new(signal.Batch)
	b.ReportAllocs()
	for b.Loop() {
		batch.Samples = batch.Samples[:0]
		if err := p.collect(batch); err != nil {
			b.Fatal(err)
		}
	}
}
