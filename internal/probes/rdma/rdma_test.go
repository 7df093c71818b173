package rdma

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"huatuo/internal/probe"
	"huatuo/internal/probes/probetest"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// TestRun reads a tree as mlx5 (InfiniBand and RoCE) and efa make it.
func TestRun(t *testing.T) {
	e := probetest.New(t)
	e.Root = probetest.Unpack(t, "testdata/sys.txt")
	e.Start(Spec(), nil)
	probetest.Golden(t, "testdata/sys.golden", e.Gather(), nil, *update)
}

// TestPlug: a device that comes is there in the next round, one that goes is not.
func TestPlug(t *testing.T) {
	e := probetest.New(t)
	e.Root = probetest.Unpack(t, "testdata/sys.txt")
	cfg := Spec().Config.(Config)
	cfg.Interval = 1e6
	e.Start(Spec(), cfg)
	class := filepath.Join(e.Root, "sys/class/infiniband")
	if err := os.Rename(filepath.Join(class, "mlx5_0"), filepath.Join(class, "mlx5_7")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "mlx5_7 is in place of mlx5_0", func() bool {
		samples := e.Gather()
		_, old := probetest.Value(samples, up.Name, "mlx5_0", "1")
		v, ok := probetest.Value(samples, up.Name, "mlx5_7", "1")
		return !old && ok && v == 1
	})
}

func TestNone(t *testing.T) {
	e := probetest.New(t)
	e.Root = t.TempDir()
	if err := e.TryStart(Spec(), nil); !errors.Is(err, probe.ErrAbsent) {
		t.Errorf("without a device: %v", err)
	}
	if err := e.TryStart(Spec(), Config{}); err == nil || !strings.Contains(err.Error(), "probes.rdma.interval") {
		t.Errorf("without an interval: %v", err)
	}
}

func TestRate(t *testing.T) {
	for s, want := range map[string]float64{"100 Gb/sec (4X EDR)": 12.5e9, "2.5 Gb/sec (1X SDR)": 312.5e6, "": -1, "x Gb/sec": -1, "10": -1} {
		v, ok := parseRate(s)
		if ok != (want >= 0) || ok && v != want {
			t.Errorf("%q: %v, %v; want %v", s, v, ok, want)
		}
	}
}

func FuzzRate(f *testing.F) {
	f.Add("100 Gb/sec (4X EDR)")
	f.Fuzz(func(t *testing.T, s string) { parseRate(s) })
}

// TestKernel reads what this machine has.
func TestKernel(t *testing.T) {
	e := probetest.New(t)
	if err := e.TryStart(Spec(), nil); errors.Is(err, probe.ErrAbsent) {
		t.Skip("needs an RDMA device; `rdma link add rxe0 type rxe netdev eth0` makes one where the kernel has rdma_rxe")
	} else if err != nil {
		t.Fatal(err)
	}
	if len(e.Gather()) == 0 {
		t.Error("a device without metrics")
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not after 10 s: %s", what)
		}
	}
}
