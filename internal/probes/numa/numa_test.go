package numa

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"huatuo/internal/probes/probetest"
	"huatuo/internal/signal"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// TestRun reads two nodes, one of which little can be read of, and one without files.
func TestRun(t *testing.T) {
	e := probetest.New(t)
	e.Root = "testdata"
	e.Start(Spec(), nil)
	probetest.Golden(t, "testdata/numa.golden", e.Gather(), nil, *update)
}

func TestAbsent(t *testing.T) {
	e := probetest.New(t)
	e.Root = t.TempDir()
	if err := e.TryStart(Spec(), nil); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("run without nodes = %v; want unsupported", err)
	}
	if err := newPoller(t.TempDir()).collect(new(signal.Batch)); err == nil {
		t.Error("collect of no node gives no error")
	}
}

// TestPlugged: a node that comes is seen after some rounds, and one that goes makes no error.
func TestPlugged(t *testing.T) {
	dir := t.TempDir()
	plug := func(node string) {
		if err := os.Mkdir(dir+"/"+node, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(dir+"/"+node+"/numastat", []byte("numa_hit 1\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	plug("node0")
	plug("node1")
	p := newPoller(dir)
	round := func() int {
		b := new(signal.Batch)
		if err := p.collect(b); err != nil {
			t.Fatal(err)
		}
		return len(b.Samples)
	}
	if n := round(); n != 2 {
		t.Errorf("%d samples of two nodes", n)
	}
	plug("node2")
	if err := os.RemoveAll(dir + "/node1"); err != nil {
		t.Fatal(err)
	}
	if n := round(); n != 1 {
		t.Errorf("%d samples right after a node went", n)
	}
	for p.round%lookEvery != 0 {
		round()
	}
	if n := round(); n != 2 {
		t.Errorf("%d samples after nodes were listed again", n)
	}
}

// TestKernel takes memory, which some node must have given.
func TestKernel(t *testing.T) {
	if _, err := os.Stat("/sys/devices/system/node/node0"); err != nil {
		t.Skip("needs a kernel with CONFIG_NUMA: ", err)
	}
	e := probetest.New(t)
	e.Start(Spec(), nil)
	sums := func() map[string]float64 {
		m := map[string]float64{}
		for _, s := range e.Gather() {
			m[s.Schema.Name+s.Labels[len(s.Labels)-1]] += s.Value // sums allocations by result
			m[s.Schema.Name] += s.Value
		}
		return m
	}
	var wrong []string
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if wrong = takeMemory(t, sums); wrong == nil { // others take and give back memory meanwhile
			return
		}
	}
	t.Error(strings.Join(wrong, "\n"))
}

// takeMemory tells what the nodes do not show of it.
func takeMemory(t *testing.T, sums func() map[string]float64) (wrong []string) {
	t.Helper()
	const size = 128 << 20
	before := sums()
	mem, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(mem)
	if err := unix.Madvise(mem, unix.MADV_NOHUGEPAGE); err != nil {
		t.Logf("huge pages stay possible: %v", err)
	}
	for i := 0; i < size; i += os.Getpagesize() {
		mem[i] = 1
	}
	after := sums()
	name := "huatuo_numa_memory_anonymous_bytes"
	if d := after[name] - before[name]; d < size*0.75 || d > size*1.25 {
		wrong = append(wrong, fmt.Sprintf("%d bytes touched, %s moved by %.0f", size, name, d))
	}
	pages := float64(size / os.Getpagesize())
	for _, result := range []string{"hit", "local"} {
		if d := after[allocations.Name+result] - before[allocations.Name+result]; d < 0.9*pages {
			wrong = append(wrong, fmt.Sprintf("%.0f pages touched, %s moved by %.0f", pages, result, d))
		}
	}
	return wrong
}

func FuzzParse(f *testing.F) {
	for _, p := range []string{"node0/meminfo", "node0/numastat", "node2/meminfo", "node2/numastat"} {
		b, err := os.ReadFile("testdata/sys/devices/system/node/" + p)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	p := newPoller("")
	f.Fuzz(func(t *testing.T, file []byte) {
		b := new(signal.Batch)
		p.parseMeminfo(file, "0", b)
		parseNumastat(file, "0", b)
		for _, s := range b.Samples {
			if s.Value < 0 || len(s.Labels) != len(s.Schema.Fields) {
				t.Errorf("bad sample %+v", s)
			}
		}
	})
}

func BenchmarkCollect(b *testing.B) {
	p := newPoller("/sys/devices/system/node")
	batch := new(signal.Batch)
	b.ReportAllocs()
	for b.Loop() {
		batch.Samples = batch.Samples[:0]
		if err := p.collect(batch); err != nil {
			b.Fatal(err)
		}
	}
}
