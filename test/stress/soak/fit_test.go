package main

import (
	"math"
	"testing"
	"time"

	"huatuo/internal/signal"
)

func TestFit(t *testing.T) {
	for _, c := range []struct {
		name        string
		y           func(t float64) float64
		slope, mean float64
		noise       float64
	}{
		{"constant", func(float64) float64 { return 5 }, 0, 5, 0},
		{"line", func(t float64) float64 { return 3 * t }, 3, 148.5, 0},
		{"waves", func(t float64) float64 { return 7 + math.Mod(t, 2) }, 0, 7.5, 0.5},
	} {
		var x, y []float64
		for i := range 100 {
			x, y = append(x, float64(i)), append(y, c.y(float64(i)))
		}
		l := fit(x, y)
		if math.Abs(l.slope-c.slope) > 1e-3 || math.Abs(l.mean-c.mean) > 1e-9 || math.Abs(l.noise-c.noise) > 1e-3 {
			t.Errorf("%s: %+v", c.name, l)
		}
	}
	if l := fit([]float64{1}, []float64{2}); l != (line{}) {
		t.Errorf("one point: %+v", l)
	}
	if l := fit([]float64{1, 1}, []float64{2, 4}); l.slope != 0 || l.mean != 3 {
		t.Errorf("no time passed: %+v", l)
	}
}

// steady makes the points of a run of ten minutes.
func steady(rss func(s float64) float64) (ps []point) {
	for i := range 120 {
		s := float64(5 * i)
		ps = append(ps, point{at: time.Duration(s) * time.Second, rss: rss(s), goroutines: 50, fds: 200, threads: 12, cpu: time.Duration(s*10) * time.Millisecond})
	}
	return ps
}

func TestVerdict(t *testing.T) {
	good := []signal.Account{{Probe: "x", Observed: 5, Routed: 5, Dropped: map[string]uint64{}}}
	for _, c := range []struct {
		name     string
		rss      func(s float64) float64
		accounts []signal.Account
		want     bool
	}{
		{"flat", func(float64) float64 { return 80e6 }, good, true},
		{"noisy", func(s float64) float64 { return 80e6 + 5e6*math.Sin(s) }, good, true},
		{"grows at first", func(s float64) float64 { return 80e6 - 40e6*math.Exp(-s/20) }, good, true},
		{"leaks", func(s float64) float64 { return 80e6 + 50e3*s }, good, false},
		{"loses events", func(float64) float64 { return 80e6 }, []signal.Account{{Probe: "x", Observed: 6, Routed: 5}}, false},
	} {
		r := newReport(10*time.Minute, steady(c.rss), [3]point{{accounts: c.accounts}, {accounts: c.accounts}, {accounts: c.accounts}}, nil)
		if r.ok() != c.want {
			t.Errorf("%s: ok %v\n%s", c.name, r.ok(), r.page())
		}
	}
}

func TestShort(t *testing.T) {
	for d, want := range map[time.Duration]string{30 * time.Minute: "30m", 90 * time.Second: "1m30s", 2 * time.Hour: "2h", 10 * time.Second: "10s"} {
		if got := short(d); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
}

// TestSlack: more series in the store excuse as much memory, and no more.
func TestSlack(t *testing.T) {
	for _, c := range []struct {
		series uint64 // at the end
		rise   float64
		flat   bool
	}{{1000, 5e6, true}, {1000, 20e6, false}, {5000, 15e6, true}, {5000, 40e6, false}} {
		var points []point
		for i := range 21 {
			f := float64(i) / 20
			points = append(points, point{at: time.Duration(i) * time.Minute, rss: 1e8 + c.rise*2*f, series: 1000 + uint64(float64(c.series-1000)*f)})
		}
		r := newReport(20*time.Minute, points, [3]point{}, nil)
		if q := r.quantities[0]; q.flat() != c.flat {
			t.Errorf("%d series, %.0f MB: rise %.0f, slack %.0f", c.series, c.rise/1e6, q.grown, q.slack)
		}
	}
}
