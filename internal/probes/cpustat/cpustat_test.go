package cpustat

import (
	"errors"
	"flag"
	"io/fs"
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"huatuo/internal/kern/procfs"
	"huatuo/internal/probes/probetest"
	"huatuo/internal/signal"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestRun(t *testing.T) {
	f := func(root, golden string, cfg Config) {
		t.Run(golden, func(t *testing.T) {
			e := probetest.New(t)
			e.Root = root
			e.Start(Spec(), cfg)
			first := e.Gather()
			probetest.Golden(t, "testdata/"+golden+".golden", first, nil, *update)
			if second := e.Gather(); len(second) != len(first) {
				t.Errorf("second round has %d samples, the first %d", len(second), len(first))
			}
		})
	}
	f("testdata", "stat", Config{PerCPUMax: 2})
	f("testdata", "toomany", Config{PerCPUMax: 1}) // 2 CPUs: the sum only
	f("testdata/offline", "offline", Config{PerCPUMax: 64})
	f("testdata/old", "old", Config{PerCPUMax: 64})
}

func TestAbsent(t *testing.T) {
	e := probetest.New(t)
	e.Root = t.TempDir()
	if err := e.TryStart(Spec(), nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("run without /proc/stat = %v; want not exist", err)
	}
}

func TestParseRefuses(t *testing.T) {
	f := func(in string) {
		t.Helper()
		var s stat
		if err := s.parse([]byte(in)); err == nil {
			t.Errorf("parse(%q) = %+v, nil", in, s)
		}
	}
	f("")
	f("ctxt 1\n")
	f("cpu  1 2 3\n")         // no idle
	f("cpu  1 2 x 4\n")       // not a number
	f("cpu  1 2 3 4\ncpu0\n") // a CPU without columns
}

func TestSteady(t *testing.T) {
	var s steady
	take := func(v, want uint64) {
		t.Helper()
		var now [nModes]uint64
		now[iowait] = v
		s.take(now)
		if s.seen[iowait] != want {
			t.Errorf("take(%d) shows %d, want %d", v, s.seen[iowait], want)
		}
	}
	take(1000, 1000)
	take(999, 1000) // noise
	take(1000-jump+1, 1000)
	take(1001, 1001)
	take(10, 10) // a reset
}

// TestKernel burns one CPU for a known time and looks for it in user mode.
func TestKernel(t *testing.T) {
	if _, err := os.Stat("/proc/stat"); err != nil {
		t.Skip("needs /proc: ", err)
	}
	e := probetest.New(t)
	e.Start(Spec(), nil)
	read := func() (user, switches float64) {
		s := e.Gather()
		user, _ = probetest.Value(s, "huatuo_cpu_seconds_total", "user")
		nice, _ := probetest.Value(s, "huatuo_cpu_seconds_total", "nice") // the tests may run at low priority
		switches, _ = probetest.Value(s, "huatuo_context_switches_total")
		return user + nice, switches
	}
	user0, switches0 := read()
	burned := burn(t, time.Second)
	user1, switches1 := read()
	// The tick samples, and a virtual machine loses ticks while its host runs
	// others. There is no upper bound, others run too.
	if d := user1 - user0; d < burned.Seconds()/4 {
		t.Errorf("burned %s of user time, huatuo_cpu_seconds_total moved by %g s", burned, d)
	}
	if switches1 <= switches0 {
		t.Errorf("no context switch in %s", burned)
	}
	if n, _ := probetest.Value(e.Gather(), "huatuo_cpus"); int(n) < runtime.NumCPU() {
		t.Errorf("huatuo_cpus = %g; this process may use %d", n, runtime.NumCPU())
	}
}

// burn uses d of user CPU time on one thread and returns how much it was.
func burn(t *testing.T, d time.Duration) time.Duration {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	used := func() time.Duration {
		var ru unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_THREAD, &ru); err != nil {
			t.Fatal(err)
		}
		return time.Duration(ru.Utime.Nano())
	}
	start, x := used(), uint32(1)
	for used()-start < d {
		for range 1_000_000 {
			x = x*1664525 + 1013904223
		}
	}
	runtime.KeepAlive(x)
	return used() - start
}

func FuzzParse(f *testing.F) {
	for _, p := range []string{"testdata/proc/stat", "testdata/offline/proc/stat", "testdata/old/proc/stat"} {
		b, err := os.ReadFile(p)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var s stat
		if err := s.parse(b); err != nil {
			return
		}
		if len(s.softirq) > len(vectors) {
			t.Errorf("%d softirq vectors", len(s.softirq))
		}
		var again stat
		if err := again.parse(b); err != nil || again.all != s.all || len(again.cores) != len(s.cores) {
			t.Errorf("second parse differs: %v", err)
		}
	})
}

func BenchmarkCollect(b *testing.B) {
	p := &poller{path: "/proc/stat", cfg: Config{PerCPUMax: 64}}
	batch := new(signal.Batch)
	b.ReportAllocs()
	for b.Loop() {
		batch.Samples = batch.Samples[:0]
		if err := p.collect(batch); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParse(b *testing.B) {
	buf, err := procfs.ReadInto("testdata/proc/stat", nil)
	if err != nil {
		b.Fatal(err)
	}
	var s stat
	b.ReportAllocs()
	for b.Loop() {
		if err := s.parse(buf); err != nil {
			b.Fatal(err)
		}
	}
}
