package meminfo

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
			probetest.Golden(t, "testdata/"+golden+".golden", e.Gather(), nil, *update)
		})
	}
	f("testdata", "meminfo")
	f("testdata/v4.18", "v4.18")
	f("testdata/odd", "odd") // only what can be read gives a value
}

func TestAbsent(t *testing.T) {
	e := probetest.New(t)
	e.Root = t.TempDir()
	if err := e.TryStart(Spec(), nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("run without /proc/meminfo = %v; want not exist", err)
	}
}

func TestNoKnownField(t *testing.T) {
	p := &poller{path: "/dev/null", table: table()}
	if err := p.collect(new(signal.Batch)); err == nil {
		t.Error("collect of an empty file gives no error")
	}
}

// TestKernel touches memory and looks for it in the anonymous part.
func TestKernel(t *testing.T) {
	if _, err := os.Stat("/proc/meminfo"); err != nil {
		t.Skip("needs /proc: ", err)
	}
	e := probetest.New(t)
	e.Start(Spec(), nil)
	read := func() (anon, free float64) {
		s := e.Gather()
		anon, _ = probetest.Value(s, "huatuo_memory_anonymous_bytes")
		free, _ = probetest.Value(s, "huatuo_memory_free_bytes")
		return anon, free
	}
	const size = 256 << 20
	anon0, free0 := read()
	mem, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_POPULATE)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(mem)
	anon1, free1 := read()
	if d := anon1 - anon0; d < size*0.75 || d > size*1.25 {
		t.Errorf("%d bytes touched, huatuo_memory_anonymous_bytes moved by %.0f", size, d)
	}
	if d := free0 - free1; d < size*0.5 {
		t.Errorf("%d bytes touched, huatuo_memory_free_bytes went down by %.0f", size, d)
	}
}

func FuzzParse(f *testing.F) {
	for _, p := range []string{"testdata/proc/meminfo", "testdata/v4.18/proc/meminfo", "testdata/odd/proc/meminfo"} {
		b, err := os.ReadFile(p)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	p := &poller{table: table()}
	f.Fuzz(func(t *testing.T, file []byte) {
		b := new(signal.Batch)
		p.parse(file, b)
		for _, s := range b.Samples {
			if s.Value < 0 || len(s.Labels) != len(s.Schema.Fields) {
				t.Errorf("bad sample %+v", s)
			}
		}
	})
}

func BenchmarkCollect(b *testing.B) {
	p := &poller{path: "/proc/meminfo", table: table()}
	batch := new(signal.Batch)
	b.ReportAllocs()
	for b.Loop() {
		batch.Samples = batch.Samples[:0]
		if err := p.collect(batch); err != nil {
			b.Fatal(err)
		}
	}
}
