package store

import (
	"context"
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"

	"huatuo/internal/signal"
)

var (
	gauge   = &signal.Schema{Name: "huatuo_test_value", Kind: signal.Metric, Type: signal.Gauge, Fields: []signal.Field{{Name: "device"}, {Name: "op"}}}
	counter = &signal.Schema{Name: "huatuo_test_total", Kind: signal.Metric, Type: signal.Counter}
	hist    = &signal.Schema{Name: "huatuo_test_seconds", Kind: signal.Metric, Type: signal.Histogram}
	perWork = &signal.Schema{Name: "huatuo_container_test", Kind: signal.Metric, Type: signal.Gauge, Scope: signal.Workload, Fields: []signal.Field{{Name: "kind"}}}
)

// query evaluates expr at t and returns value by label set.
func query(tb testing.TB, s *Store, expr string, at time.Time) map[string]string {
	tb.Helper()
	ng := promql.NewEngine(promql.EngineOpts{MaxSamples: 1e6, Timeout: 10 * time.Second, EnableAtModifier: true})
	q, err := ng.NewInstantQuery(context.Background(), s, nil, expr, at)
	if err != nil {
		tb.Fatal(err)
	}
	defer q.Close()
	r := q.Exec(context.Background())
	v, err := r.Vector()
	if err != nil {
		tb.Fatalf("%s: %v", expr, err)
	}
	m := map[string]string{}
	for _, p := range v {
		if p.H != nil {
			m[p.Metric.String()] = p.H.String()
			continue
		}
		m[p.Metric.String()] = fmt.Sprint(p.F)
	}
	return m
}

func expect(tb testing.TB, s *Store, expr string, at time.Time, want map[string]string) {
	tb.Helper()
	if d := cmp.Diff(want, query(tb, s, expr, at)); d != "" {
		tb.Errorf("%s at %v (-want +got):\n%s", expr, at, d)
	}
}

func round(tb testing.TB, s *Store, t time.Time, samples ...signal.Sample) {
	tb.Helper()
	if err := s.AppendSamples(context.Background(), t, samples); err != nil {
		tb.Fatal(err)
	}
}

func gaugeOf(v float64, ls ...string) signal.Sample {
	return signal.Sample{Schema: gauge, Labels: ls, Value: v}
}

func TestFloats(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	t0 := time.Now().Add(-time.Minute).Truncate(time.Second)
	for i := range 7 {
		round(t, s, t0.Add(time.Duration(i)*10*time.Second),
			gaugeOf(float64(i), "sda", "read"), gaugeOf(10, "", "write"), gaugeOf(11),
			signal.Sample{Schema: counter, Value: float64(100 * i)},
			signal.Sample{Schema: perWork, Labels: []string{"x", "ns", "pod", "web", ""}, Value: 3},
			signal.Sample{Schema: perWork, Labels: []string{"x", "", "", "", "ssh.service"}, Value: 4},
			signal.Sample{Schema: perWork, Labels: []string{"bad\xff"}, Value: 5},
		)
	}
	end := t0.Add(time.Minute)
	expect(t, s, "huatuo_test_value", end, map[string]string{
		`{__name__="huatuo_test_value", device="sda", op="read"}`: "6",
		`{__name__="huatuo_test_value", op="write"}`:              "10",
		`{__name__="huatuo_test_value"}`:                          "11",
	})
	expect(t, s, "huatuo_container_test", end, map[string]string{
		`{__name__="huatuo_container_test", container="web", kind="x", namespace="ns", pod="pod"}`: "3",
		`{__name__="huatuo_container_test", kind="x", unit="ssh.service"}`:                         "4",
		`{__name__="huatuo_container_test", kind="bad` + "\uFFFD" + `"}`:                           "5",
	})
	expect(t, s, "rate(huatuo_test_total[1m])", end, map[string]string{"{}": "10"})
	if got := s.Stats(); got.Samples != 49 || got.Refused != 0 || got.Late != 0 {
		t.Errorf("stats %+v", got)
	}
}

func TestRefusedSamples(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	now := time.Now()
	round(t, s, now,
		gaugeOf(1, "a"), gaugeOf(2, "a"), // twice
		signal.Sample{Schema: counter, Labels: []string{"no such label"}},                                                                  // more values than fields
		signal.Sample{Schema: &signal.Schema{Name: "twice", Fields: []signal.Field{{Name: "a"}, {Name: "a"}}}, Labels: []string{"1", "2"}}, // not a label set
	)
	expect(t, s, `{__name__!=""}`, now, map[string]string{`{__name__="huatuo_test_value", device="a"}`: "1"})
	if got := s.Stats(); got.Duplicates != 1 || got.Refused != 2 || got.Samples != 1 {
		t.Errorf("stats %+v", got)
	}
}

func TestNative(t *testing.T) {
	tests := []struct {
		name string
		in   signal.Hist
		want string // span layout, deltas
	}{
		{"empty", signal.Hist{First: -20}, "[] []"},
		{"zero only", signal.Hist{First: -20, Zero: 3, Counts: []uint64{0, 0}}, "[] []"},
		{"one", signal.Hist{First: -20, Counts: []uint64{0, 0, 5}}, "[{-18 1}] [5]"},
		{"run", signal.Hist{First: 1, Counts: []uint64{3, 1, 2}}, "[{1 3}] [3 -2 1]"},
		{"small gap", signal.Hist{First: 0, Counts: []uint64{4, 0, 0, 6}}, "[{0 4}] [4 -4 0 6]"},
		{"wide gap", signal.Hist{First: 0, Counts: []uint64{4, 0, 0, 0, 6, 0}}, "[{0 1} {3 1}] [4 2]"},
		{"quarter powers", signal.Hist{Resolution: 2, First: -8, Counts: []uint64{1}}, "[{-8 1}] [1]"},
	}
	var h histogram.Histogram // used again on purpose
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			native(&h, &tt.in)
			if got := fmt.Sprint(h.PositiveSpans, h.PositiveBuckets); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
			if err := h.Validate(); err != nil {
				t.Error(err)
			}
			want := math.Pow(2, float64(tt.in.First-1)/math.Pow(2, float64(tt.in.Resolution)))
			if h.ZeroThreshold != want {
				t.Errorf("zero threshold %v, want %v", h.ZeroThreshold, want)
			}
		})
	}
}

func TestHistograms(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	t0 := time.Now().Add(-time.Minute).Truncate(time.Second)
	h := &signal.Hist{First: -20, Counts: make([]uint64, 30)} // bucket i: (2^(i-21), 2^(i-20)]
	for i := range 7 {
		if i > 0 {
			h.Counts[10] += 99 // up to 2^-10 s
			h.Counts[15]++     // up to 2^-5 s
			h.Zero++
			h.Sum += 1
		}
		round(t, s, t0.Add(time.Duration(i)*10*time.Second), signal.Sample{Schema: hist, Hist: h.Clone()})
	}
	end := t0.Add(time.Minute)
	expect(t, s, "histogram_count(rate(huatuo_test_seconds[1m]))", end, map[string]string{"{}": "10.1"})
	expect(t, s, "histogram_sum(increase(huatuo_test_seconds[1m]))", end, map[string]string{"{}": "6"})
	for _, q := range []struct {
		q      string
		lo, hi float64
	}{{"0.5", math.Exp2(-11), math.Exp2(-10)}, {"0.999", math.Exp2(-6), math.Exp2(-5)}} {
		got := query(t, s, "histogram_quantile("+q.q+", rate(huatuo_test_seconds[1m]))", end)["{}"]
		var v float64
		if _, err := fmt.Sscan(got, &v); err != nil || v <= q.lo || v > q.hi {
			t.Errorf("quantile %s = %s, want in (%g, %g]", q.q, got, q.lo, q.hi)
		}
	}
	// What comes back is what went in.
	want := "{count:606, sum:6, [-4.76837158203125e-07,4.76837158203125e-07]:6, (0.00048828125,0.0009765625]:594, (0.015625,0.03125]:6}"
	expect(t, s, "huatuo_test_seconds", end, map[string]string{`{__name__="huatuo_test_seconds"}`: want})

	// A restart of the agent begins at zero: no negative rates, nothing lost.
	for i := 1; i <= 3; i++ {
		r := &signal.Hist{First: -20, Counts: make([]uint64, 30)}
		r.Counts[10] = uint64(i * 60)
		round(t, s, end.Add(time.Duration(i)*10*time.Second), signal.Sample{Schema: hist, Hist: r})
	}
	expect(t, s, "histogram_count(increase(huatuo_test_seconds[30s]))", end.Add(30*time.Second), map[string]string{"{}": "180"})
}

func TestStale(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	t0 := time.Now().Add(-time.Minute)
	h := &signal.Hist{First: 0, Counts: []uint64{1}}
	round(t, s, t0, gaugeOf(1, "a"), gaugeOf(2, "b"), signal.Sample{Schema: hist, Hist: h})
	round(t, s, t0.Add(5*time.Second), gaugeOf(1, "a"))
	alive := map[string]string{`{__name__="huatuo_test_value", device="a"}`: "1"}
	if got := query(t, s, `{__name__!=""}`, t0.Add(4*time.Second)); len(got) != 3 {
		t.Errorf("before the end: %v", got)
	}
	expect(t, s, `{__name__!=""}`, t0.Add(5*time.Second), alive)
	if got := s.Stats().Stale; got != 2 {
		t.Errorf("%d series marked, want 2", got)
	}
	// It may come back.
	round(t, s, t0.Add(10*time.Second), gaugeOf(1, "a"), gaugeOf(3, "b"))
	expect(t, s, `huatuo_test_value{device="b"}`, t0.Add(10*time.Second), map[string]string{`{__name__="huatuo_test_value", device="b"}`: "3"})
}

func TestCloseEndsSeries(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{})
	t0 := time.Now().Add(-time.Minute)
	round(t, s, t0, gaugeOf(1, "a"))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir, Options{})
	expect(t, s, "huatuo_test_value", t0, map[string]string{`{__name__="huatuo_test_value", device="a"}`: "1"})
	expect(t, s, "huatuo_test_value", t0.Add(time.Second), map[string]string{})
	round(t, s, t0.Add(5*time.Second), gaugeOf(2, "a"))
	expect(t, s, "huatuo_test_value", t0.Add(5*time.Second), map[string]string{`{__name__="huatuo_test_value", device="a"}`: "2"})
}

func TestClockStepsBack(t *testing.T) {
	one := `{__name__="huatuo_test_value", device="a"}`
	h := func(n uint64) signal.Sample {
		return signal.Sample{Schema: hist, Hist: &signal.Hist{First: 0, Counts: []uint64{n, n}}}
	}
	t.Run("within the window", func(t *testing.T) {
		s := open(t, t.TempDir(), Options{})
		t0 := time.Now().Truncate(time.Second)
		for i := range 60 {
			round(t, s, t0.Add(time.Duration(i)*5*time.Second), gaugeOf(1, "a"), h(uint64(i)))
		}
		back := t0.Add(-time.Hour)
		for i := range 60 {
			round(t, s, back.Add(time.Duration(i)*5*time.Second), gaugeOf(2, "a"), h(uint64(100+i)))
		}
		expect(t, s, "huatuo_test_value", back.Add(4*time.Minute), map[string]string{one: "2"})
		expect(t, s, "histogram_count(increase(huatuo_test_seconds[1m]))", back.Add(4*time.Minute), map[string]string{"{}": "24"})
		expect(t, s, "huatuo_test_value", t0.Add(4*time.Minute), map[string]string{one: "1"})
		if got := s.Stats(); got.Late != 120 || got.TooOld != 0 || got.Samples != 240 {
			t.Errorf("stats %+v", got)
		}
	})
	t.Run("one wrong time", func(t *testing.T) {
		s := open(t, t.TempDir(), Options{})
		t0 := time.Now()
		round(t, s, t0, gaugeOf(1, "a"))
		round(t, s, t0.Add(-3*time.Hour), gaugeOf(2, "a"))
		round(t, s, t0.Add(5*time.Second), gaugeOf(3, "a"))
		expect(t, s, "huatuo_test_value", t0, map[string]string{one: "1"})
		expect(t, s, "huatuo_test_value", t0.Add(5*time.Second), map[string]string{one: "3"})
		if got := s.Stats(); got.TooOld != 1 || got.SetAside != 0 {
			t.Errorf("stats %+v", got)
		}
	})
	t.Run("out of a wrong future", func(t *testing.T) {
		s := open(t, t.TempDir(), Options{})
		t0 := time.Now().Truncate(time.Second)
		past := t0.Add(-24 * time.Hour)
		for i := range 200 { // some blocks of true history
			round(t, s, past.Add(time.Duration(i)*time.Minute), gaugeOf(1, "a"))
		}
		if err := s.metrics.state.db.Compact(context.Background()); err != nil {
			t.Fatal(err)
		}
		for i := range 3 {
			round(t, s, t0.AddDate(5, 0, 0).Add(time.Duration(i)*5*time.Second), gaugeOf(2, "a"))
		}
		round(t, s, t0, gaugeOf(3, "a"))
		if got := s.Stats(); got.TooOld != 1 || got.SetAside != 0 {
			t.Errorf("before it was clear: stats %+v", got)
		}
		s.metrics.patience = 0
		for i := range 5 {
			round(t, s, t0.Add(time.Duration(i)*5*time.Second), gaugeOf(3, "a"))
		}
		expect(t, s, "huatuo_test_value", t0.Add(20*time.Second), map[string]string{one: "3"})
		expect(t, s, "huatuo_test_value", past.Add(30*time.Minute), map[string]string{one: "1"})
		if got := s.Stats(); got.TooOld != 2 || got.SetAside != 1 {
			t.Errorf("stats %+v", got)
		}
	})
}

func TestLabelsOfSample(t *testing.T) {
	var l liveSeries
	l.init()
	s := &signal.Sample{Schema: perWork, Labels: []string{"k", "n", "p", "c", "u"}}
	want := labels.FromStrings("__name__", perWork.Name, "kind", "k", "namespace", "n", "pod", "p", "container", "c", "unit", "u")
	if got, ok := l.labels(s); !ok || !labels.Equal(got, want) {
		t.Errorf("got %v %v", got, ok)
	}
	s.Labels = append(s.Labels, "one too many")
	if _, ok := l.labels(s); ok {
		t.Error("took more values than there are labels")
	}
}
