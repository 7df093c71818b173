package signal

import (
	"bytes"
	"fmt"
	"math"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestKernelHistogram compiles bpf/include/hist.h for this machine and holds
// its buckets to the definition of a native histogram: bucket i of resolution
// r is (2^((i-1)/2^r), 2^(i/2^r)] seconds. The legacy flavour counts without
// branches, and the same.
func TestKernelHistogram(t *testing.T) {
	for _, flavour := range []string{"MODERN", "LEGACY"} {
		t.Run(flavour, func(t *testing.T) { testHistogram(t, "-DHT_"+flavour) })
	}
}

func testHistogram(t *testing.T, flavour string) {
	cc, err := exec.LookPath("cc")
	if err != nil {
		t.Skip("needs a C compiler: apt-get install gcc")
	}
	bin := filepath.Join(t.TempDir(), "hist")
	if out, err := exec.Command(cc, "-O2", "-Wall", "-Werror", flavour, "-I../../bpf/include", "-o", bin, "testdata/hist_main.c").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var in bytes.Buffer
	var values []uint64
	for p := 0; p <= 40; p++ {
		for _, d := range []int64{-1, 0, 1} {
			for q := range 4 {
				v := int64(math.Round(math.Exp2(float64(p)+float64(q)/4))) + d
				if v >= 0 {
					values = append(values, uint64(v))
					fmt.Fprintln(&in, v)
				}
			}
		}
	}
	c := exec.Command(bin)
	c.Stdin = &in
	out, err := c.Output()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if len(lines) != len(values) {
		t.Fatalf("%d answers to %d questions", len(lines), len(values))
	}
	for i, line := range lines {
		var u, sum, zero, fineSum uint64
		var coarse, fine, observed int
		if _, err := fmt.Sscan(line, &u, &coarse, &fine, &sum, &zero, &observed, &fineSum); err != nil {
			t.Fatal(err)
		}
		checkSlot(t, u, coarse, 0)
		checkSlot(t, u, fine, 2)
		// u taken as nanoseconds: the unit conversion is exact to 4e-6.
		ns := values[i]
		if secs := float64(sum) / (1 << 30); math.Abs(secs-float64(ns)*1e-9) > 5e-6*float64(ns)*1e-9+2e-9 {
			t.Errorf("%d ns sum up to %g s", ns, secs)
		}
		if fineSum != sum {
			t.Errorf("%d ns: sums differ, %d and %d", ns, sum, fineSum)
		}
	}
}

// checkSlot: u units of 2^-30 s belong into that slot. A value within 2^-15 of
// an inner bound may be on either side, because bounds that are no powers of
// two are rounded.
func checkSlot(t *testing.T, u uint64, slot, resolution int) {
	t.Helper()
	secs := float64(u) / (1 << 30)
	if secs <= math.Exp2(LatencyMin) {
		if slot != -1 {
			t.Errorf("%d: slot %d, want none: not above the lower bound", u, slot)
		}
		return
	}
	h := LatencyHist(resolution, 0, 0, make([]uint64, LatencySlots(resolution)))
	if slot < 0 || slot >= len(h.Counts) {
		t.Fatalf("%d: slot %d of %d", u, slot, len(h.Counts))
	}
	if secs > math.Exp2(LatencyMax) {
		if slot != len(h.Counts)-1 {
			t.Errorf("%d: slot %d, want the last", u, slot)
		}
		return
	}
	per := math.Exp2(float64(resolution))
	lo, hi := math.Exp2(float64(h.First+slot-1)/per), math.Exp2(float64(h.First+slot)/per)
	tol := secs / (1 << 15)
	if resolution == 0 {
		tol = 0
	}
	if secs <= lo-tol || secs > hi+tol {
		t.Errorf("%d units (%g s) at resolution %d: slot %d is (%g, %g]", u, secs, resolution, slot, lo, hi)
	}
}

func TestHistAdd(t *testing.T) {
	a := LatencyHist(0, 1, 1<<30, []uint64{1, 2})
	b := a.Clone()
	if !a.Add(b) || a.Count != 8 || a.Counts[1] != 4 || a.Sum != 2 || a.Zero != 2 {
		t.Errorf("sum %+v", a)
	}
	if b.Count != 4 {
		t.Errorf("Add changed its argument: %+v", b)
	}
	if a.Add(LatencyHist(2, 0, 0, nil)) {
		t.Error("histograms of different resolution are added")
	}
}

func TestLatencyHist(t *testing.T) {
	if LatencySlots(0) != 27 || LatencySlots(2) != 108 {
		t.Errorf("slots %d, %d", LatencySlots(0), LatencySlots(2))
	}
	h := LatencyHist(2, 3, 1<<29, []uint64{5})
	if h.Count != 8 || h.Sum != 0.5 || h.First != -79 {
		t.Errorf("%+v: want 8 observations, 0.5 s, first index -79", h)
	}
}
