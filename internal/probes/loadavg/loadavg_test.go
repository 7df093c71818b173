package loadavg

import (
	"errors"
	"flag"
	"io/fs"
	"os"
	"testing"

	"huatuo/internal/probes/probetest"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestParse(t *testing.T) {
	f := func(in string, want float64, tasks uint64, ok bool) {
		t.Helper()
		l, err := parse([]byte(in))
		if (err == nil) != ok || l.average[2] != want || l.tasks != tasks {
			t.Errorf("parse(%q) = %+v, %v", in, l, err)
		}
	}
	f("0.50 0.40 0.30 1/200 4242\n", 0.3, 200, true)
	f("1024.00 998.13 700.51 130/65536 999999\n", 700.51, 65536, true)
	f("", 0, 0, false)
	f("0.50 0.40 0.30", 0, 0, false)
	f("0.50 0.40 0.30 200 4242\n", 0, 0, false)
	f("a b c 1/2 3", 0, 0, false)
}

func TestRun(t *testing.T) {
	e := probetest.New(t)
	e.Root = "testdata"
	e.Start(Spec(), nil)
	probetest.Golden(t, "testdata/loadavg.golden", e.Gather(), nil, *update)
}

func TestAbsent(t *testing.T) {
	e := probetest.New(t)
	e.Root = t.TempDir()
	if err := e.TryStart(Spec(), nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("run without /proc/loadavg = %v; want not exist", err)
	}
}

// TestKernel takes the number of tasks for truth: threads that the test starts must be counted.
func TestKernel(t *testing.T) {
	if _, err := os.Stat("/proc/loadavg"); err != nil {
		t.Skip("needs /proc: ", err)
	}
	e := probetest.New(t)
	e.Start(Spec(), nil)
	before, _ := probetest.Value(e.Gather(), "huatuo_tasks")
	const n = 200
	stop := lockThreads(n)
	defer stop()
	after, _ := probetest.Value(e.Gather(), "huatuo_tasks")
	if d := after - before; d < n*0.7 || d > n*1.3 {
		t.Errorf("%d new threads moved huatuo_tasks by %g", n, d)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("0.50 0.40 0.30 1/200 4242\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if l, err := parse(b); err != nil && l != (loads{}) {
			t.Errorf("parse gives %+v with %v", l, err)
		}
	})
}

func BenchmarkCollect(b *testing.B) {
	buf := []byte("0.50 0.40 0.30 1/200 4242\n")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := parse(buf); err != nil {
			b.Fatal(err)
		}
	}
}
