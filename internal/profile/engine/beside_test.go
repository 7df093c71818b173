//go:build !noprofiler

package engine

import (
	"fmt"
	"math"
	"os/exec"
	"strings"
	"testing"
)

// TestWeights runs what the hooks decide by chance, in a program of its own: what
// is kept stands for all that there was, in time, in number and in bytes.
func TestWeights(t *testing.T) {
	const times, bytes = 4_000_000, 123_457
	out, err := exec.Command(compile(t, source(t, "weigh.c"), "-Ibpf")).Output()
	if err != nil {
		t.Fatal(err)
	}
	classes := 0
	for line := range strings.Lines(string(out)) {
		var ns, delay, kept, locks, files int64
		if name, _, _ := strings.Cut(line, " "); name == "rush" {
			rushed(t, line)
			continue
		}
		if _, err := fmt.Sscanf(line, "wait %d %d %d %d %d", &ns, &delay, &kept, &locks, &files); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		classes++
		long, n := halves(locks)
		_, b := halves(files)
		off := 5 / math.Sqrt(float64(kept)) // standard errors
		if ns >= 20_000_000 && delay == 0 {
			off = 1e-6 // all are kept
		}
		for _, x := range []struct {
			what string
			one  float64 // of those that are kept
			want float64
		}{
			{"nanoseconds", float64(long), times * float64(ns-delay)},
			{"waits", float64(n) / one, times},
			{"bytes", float64(inUnit(blockedFile, b)), times * bytes},
		} {
			if got := x.one * float64(kept); math.Abs(got/x.want-1) > off {
				t.Errorf("waits of %d ns, %d of them for a CPU: %.6g %s, want %.6g within %.2g %%", ns, delay, got, x.what, x.want, 100*off)
			}
		}
	}
	if classes != 18 {
		t.Errorf("%d classes of waits, want 18", classes)
	}
}

// rushed: those that are kept of too many stand for all but what is counted as lost.
func rushed(t *testing.T, line string) {
	t.Helper()
	var all, kept, lost float64
	if _, err := fmt.Sscanf(line, "rush %g %g %g", &all, &kept, &lost); err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	if kept < all/2 || lost == 0 || math.Abs(kept+lost-all) > all/20 {
		t.Errorf("of a rush of %.0f waits %.0f are kept, %.0f counted as lost", all, kept, lost)
	}
}

// TestInUnit: parts of contentions are right on average, and what is not
// counted in parts stays.
func TestInUnit(t *testing.T) {
	var sum int64
	const times = 100_000
	for range times {
		sum += inUnit(kernelLock, one+one/4)
	}
	if got := float64(sum) / times; math.Abs(got-1.25) > 0.01 {
		t.Errorf("one contention and a quarter count %.3f", got)
	}
	if got := inUnit(diskFile, 4097); got != 4097 {
		t.Errorf("4097 bytes count %d", got)
	}
}

// TestHalves: numbers of any size have place in half of a value.
func TestHalves(t *testing.T) {
	for _, tt := range []struct {
		value      uint64
		one, other int64
	}{
		{0, 0, 0},
		{1<<32 | 2, 1, 2},
		{(1<<26 - 1) << 32, 1<<26 - 1, 0},
		{(31<<26|1<<25)<<32 | 1<<26 | 5, 1 << 56, 10},
	} {
		if one, other := halves(int64(tt.value)); one != tt.one || other != tt.other {
			t.Errorf("%x: %d and %d, want %d and %d", tt.value, one, other, tt.one, tt.other)
		}
	}
}
