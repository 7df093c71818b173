package exhaust

import (
	"strings"
	"testing"
	"time"

	"huatuo/internal/probes/probetest"
	"huatuo/internal/signal"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// feed gives a tracker one reading each 10 s, of a limit of 1000, and returns the rounds with an event.
func feed(t *tracker, used ...uint64) (rounds []int, reports []*report) {
	for i, u := range used {
		rs := []reading{{resource: "x", name: "X", used: u, limit: 1000}}
		for _, p := range t.look(rs, start.Add(time.Duration(t.round)*10*time.Second)) {
			rounds, reports = append(rounds, i), append(reports, p)
		}
	}
	return rounds, reports
}

func defaults() Config { return Spec().Config.(Config) }

// ramp goes from one number to another in n equal steps.
func ramp(from, to uint64, n int) (out []uint64) {
	for i := range n {
		out = append(out, uint64(int(from)+(int(to)-int(from))*i/max(n-1, 1)))
	}
	return out
}

func steady(v uint64, n int) []uint64 { return ramp(v, v, n) }

func join(parts ...[]uint64) (out []uint64) {
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}

func TestTracker(t *testing.T) {
	saw := []uint64{}
	for range 8 {
		saw = append(saw, 720, 780, 840, 890)
	}
	for _, c := range []struct {
		what string
		used []uint64
		want []int
	}{
		{"just below", steady(899, 100), nil},
		{"at the threshold", steady(900, 100), []int{0}},
		{"from below to above", join(steady(600, 3), steady(910, 3)), []int{3}},
		{"hovers about it", join([]uint64{910, 890, 860, 905, 851, 930}), []int{0}},
		{"critical later", join(steady(910, 5), steady(985, 50)), []int{0, 5}},
		{"critical at once", steady(1000, 50), []int{0}},
		{"over the limit", steady(1200, 50), []int{0}},
		{"lasts an hour", steady(950, 362), []int{0, 360}},
		{"lasts seven", steady(950, 2521), []int{0, 360, 1080, 2520}},
		{"comes back at once", join(steady(910, 2), steady(500, 2), steady(910, 80)), []int{0, 60}},
		{"comes back after the quiet time", join(steady(910, 2), steady(500, 70), steady(910, 2)), []int{0, 72}},
		{"will be full in minutes", ramp(600, 760, 17), []int{10}}, // 1 % a round: at 70 % it is 5 min to go
		{"grows too slowly", ramp(700, 760, 61), nil},
		{"grows below 70 %", ramp(300, 690, 20), nil},
		{"a saw tooth", saw, nil},
		{"shrinks", ramp(890, 700, 20), nil},
		{"too few readings", []uint64{600, 660, 720, 780, 840}, nil},
		{"stopped growing", join(ramp(600, 760, 17), steady(760, 100)), []int{10}},
		{"nothing", steady(0, 5), nil},
	} {
		rounds, _ := feed(newTracker(defaults()), c.used...)
		if len(rounds) != len(c.want) {
			t.Errorf("%s: events in rounds %v, want %v", c.what, rounds, c.want)
			continue
		}
		for i := range rounds {
			if rounds[i] != c.want[i] {
				t.Errorf("%s: events in rounds %v, want %v", c.what, rounds, c.want)
			}
		}
	}
}

func TestReport(t *testing.T) {
	tr := newTracker(defaults())
	_, ps := feed(tr, join(ramp(600, 760, 17), steady(990, 1))...)
	if len(ps) != 2 {
		t.Fatalf("%d reports", len(ps))
	}
	p := ps[0]
	if p.slope < 0.99 || p.slope > 1.01 || p.left.Round(time.Second) != 300*time.Second || !p.predicted || !p.since.Equal(start.Add(100*time.Second)) {
		t.Errorf("slope %g, left %v, predicted %v, since %v", p.slope, p.left, p.predicted, p.since)
	}
	r := p.record(start)
	b := r.Body.(*ResourceExhausted)
	if r.Title != "X: 70 % used (700 of 1000), full in 5m0s at this rate" || r.Severity != "" || b.Reports != 0 || b.Since != "2026-01-02T03:05:45Z" {
		t.Errorf("%q %q %+v", r.Title, r.Severity, b)
	}
	r = ps[1].record(start)
	if b := r.Body.(*ResourceExhausted); r.Severity != signal.Critical || b.Reports != 1 || b.Predicted {
		t.Errorf("%q %+v", r.Severity, b)
	}
}

// TestFlood: of many at once the first are told, the rest are counted, and told later.
func TestFlood(t *testing.T) {
	tr := newTracker(defaults())
	var rs []reading
	for i := range 3 * maxReports {
		rs = append(rs, reading{key: string(rune(i)), used: 95, limit: 100})
	}
	told, now := 0, start
	for range 200 {
		ps := tr.look(rs, now)
		if len(ps) > maxReports {
			t.Fatalf("%d events in one round", len(ps))
		}
		told += len(ps)
		now = now.Add(10 * time.Second)
	}
	if told != len(rs) || tr.held == 0 {
		t.Errorf("%d of %d told, %d held", told, len(rs), tr.held)
	}
}

// TestForget: what is gone is forgotten, and not before some rounds have passed.
func TestForget(t *testing.T) {
	tr := newTracker(defaults())
	feed(tr, 950)
	for range keepRounds {
		tr.look(nil, start)
	}
	if len(tr.states) != 1 {
		t.Error("forgotten too early")
	}
	tr.look(nil, start)
	if len(tr.states) != 0 {
		t.Error("never forgotten")
	}
	feed(tr, 100)
	if len(tr.states) != 0 {
		t.Error("something that is far from its limit is remembered")
	}
}

func TestRefuses(t *testing.T) {
	for _, spoil := range []func(*Config){
		func(c *Config) { c.Interval = 0 }, func(c *Config) { c.Threshold = 0.5 }, func(c *Config) { c.Threshold = 1 },
		func(c *Config) { c.Horizon = -1 }, func(c *Config) { c.MaxGroups = -1 },
	} {
		cfg := defaults()
		spoil(&cfg)
		if err := probetest.New(t).TryStart(Spec(), cfg); err == nil || !strings.Contains(err.Error(), "probes.exhaust") {
			t.Errorf("%+v: %v", cfg, err)
		}
	}
}
