package pressure

import (
	"errors"
	"flag"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"huatuo/internal/kern/procfs"
	"huatuo/internal/probes/probetest"
	"huatuo/internal/signal"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestRun(t *testing.T) {
	f := func(root, golden string, hooks int) {
		t.Run(golden, func(t *testing.T) {
			e := probetest.New(t)
			e.Root = root
			e.Start(Spec(), nil)
			probetest.Golden(t, "testdata/"+golden+".golden", e.Gather(), nil, *update)
			if got := len(e.Hooks()); got != hooks {
				t.Errorf("%d hooks, want %d", got, hooks)
			}
		})
	}
	f("testdata", "pressure", 3)
	f("testdata/v5.4", "v5.4", 3)
	f("testdata/irq", "irq", 4)
}

func TestOff(t *testing.T) {
	e := probetest.New(t)
	e.Root = t.TempDir()
	err := e.TryStart(Spec(), nil)
	if !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "psi=1") {
		t.Errorf("run on a kernel without PSI = %v; want unsupported, and what to do", err)
	}
}

// TestKernel makes CPU short: one busy process more than the CPUs it may use
// must show as CPU pressure of about the time that they ran.
func TestKernel(t *testing.T) {
	if _, err := os.Stat("/proc/pressure/cpu"); err != nil {
		t.Skip("needs pressure stall information (psi=1): ", err)
	}
	e := probetest.New(t)
	e.Start(Spec(), nil)
	some := func() float64 {
		v, ok := probetest.Value(e.Gather(), "huatuo_pressure_stall_seconds_total", "cpu", "some")
		if !ok {
			t.Fatal("no CPU pressure among the samples")
		}
		return v
	}
	const busy = 2 * time.Second
	before, start := some(), time.Now()
	for range runtime.NumCPU() + 1 {
		hog := exec.CommandContext(t.Context(), "timeout", strconv.FormatFloat(busy.Seconds(), 'f', 1, 64), "sh", "-c", "while :; do :; done")
		if err := hog.Start(); err != nil {
			t.Fatal(err)
		}
		defer hog.Wait() // timeout(1) ends it; its status is an error by design
	}
	time.Sleep(busy)
	moved, passed := some()-before, time.Since(start).Seconds()
	if moved < busy.Seconds()/2 || moved > passed+0.1 {
		t.Errorf("CPU pressure moved by %g s in %g s with more busy processes than CPUs", moved, passed)
	}
}

func BenchmarkCollect(b *testing.B) {
	dir := "/proc/pressure"
	found, err := present(dir)
	if err != nil {
		b.Skip(err)
	}
	batch, buf := new(signal.Batch), []byte(nil)
	b.ReportAllocs()
	for b.Loop() {
		batch.Samples = batch.Samples[:0]
		for _, r := range found {
			if buf, err = procfs.ReadInto(dir+"/"+r.name, buf); err != nil {
				b.Fatal(err)
			}
			add(batch, r, procfs.ParsePressure(buf))
		}
	}
}
