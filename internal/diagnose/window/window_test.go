package window

import (
	"math"
	"reflect"
	"testing"

	"huatuo/internal/signal"
)

var (
	cpu = &signal.Schema{Name: "cpu", Type: signal.Counter, Fields: []signal.Field{{Name: "mode"}, {Name: "cpu"}}}
	use = &signal.Schema{Name: "use", Type: signal.Gauge, Scope: signal.Workload}
	lat = &signal.Schema{Name: "lat", Type: signal.Histogram, Fields: []signal.Field{{Name: "op"}}}
)

func hist(counts ...uint64) *signal.Hist {
	h := &signal.Hist{First: -9, Counts: counts}
	for _, n := range counts {
		h.Count += n
		h.Sum += float64(n)
	}
	return h
}

func sample(s *signal.Schema, v float64, labels ...string) signal.Sample {
	return signal.Sample{Schema: s, Value: v, Labels: labels}
}

func TestWindow(t *testing.T) {
	first := []signal.Sample{
		sample(cpu, 10, "user", "0"), sample(cpu, 20, "user", "1"), sample(cpu, 5, "idle", "0"), sample(use, 7, "", "", "", "a.service"),
		{Schema: lat, Hist: hist(1, 0, 2), Labels: []string{"read"}},
	}
	last := []signal.Sample{
		sample(cpu, 14, "user", "0"), sample(cpu, 26, "user", "1"), sample(cpu, 2, "idle", "0"), sample(cpu, 3, "system", "0"),
		sample(use, 9, "", "", "", "a.service"), sample(use, 1, "ns", "pod", "ctr", ""),
		{Schema: lat, Hist: hist(2, 5, 2), Labels: []string{"read"}}, {Schema: lat, Hist: hist(0, 0, 3), Labels: []string{"write"}, Note: "n"},
	}
	w := New(first, last, 2)
	for _, tt := range []struct {
		name      string
		got, want float64
	}{
		{"growth", w.Sum("cpu", "mode=user"), 10},
		{"growth of one", w.Sum("cpu", "mode=user", "cpu=1"), 6},
		{"per second", w.Rate("cpu", "mode=user"), 5},
		{"began anew", w.Sum("cpu", "mode=idle"), 2},
		{"began in between", w.Sum("cpu", "mode=system"), 3},
		{"none", w.Sum("cpu", "mode=x") + w.Sum("x") + w.Max("x"), 0},
		{"gauge", w.Max("use"), 9},
		{"observations", float64(w.Hist("lat").Count), 9},
		{"observations of one", float64(w.Hist("lat", "op=read").Count), 6},
		{"sum of one", w.Hist("lat", "op=read").Sum, 6},
	} {
		if tt.got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, tt.got, tt.want)
		}
	}
	if got, want := w.Hist("lat", "op=read").Counts, []uint64{1, 5, 0}; !reflect.DeepEqual(got, want) {
		t.Errorf("buckets %v, want %v", got, want)
	}
	if got := last[6].Hist.Counts; !reflect.DeepEqual(got, []uint64{2, 5, 2}) {
		t.Errorf("the samples were changed: %v", got)
	}
	if got, want := w.By("cpu", "mode"), []Amount{{"user", 10}, {"system", 3}, {"idle", 2}}; !reflect.DeepEqual(got, want) {
		t.Errorf("by mode %v, want %v", got, want)
	}
	want := []Workload{{Unit: "a.service"}, {Namespace: "ns", Pod: "pod", Container: "ctr"}}
	if got := w.Workloads("use", "cpu", "x"); !reflect.DeepEqual(got, want) {
		t.Errorf("workloads %v, want %v", got, want)
	}
	if !w.Measured("use") || w.Measured("x") || w.Hist("x") != nil || w.Series("lat", "op=write")[0].Note != "n" {
		t.Error("what is measured")
	}
}

func TestName(t *testing.T) {
	for want, w := range map[string]Workload{
		"shop/web-1/app": {"shop", "web-1", "app", ""}, "redis": {Container: "redis"}, "sshd.service": {Unit: "sshd.service"}, "host": {Unit: "/"}, "": {},
	} {
		if w.String() != want {
			t.Errorf("%+v is called %q, want %q", w, w, want)
		}
	}
	if w := Of(&signal.Container{Namespace: "n", Pod: "p", Name: "c", Unit: "u"}); w != (Workload{"n", "p", "c", ""}) {
		t.Errorf("%+v", w)
	}
	if w := Of(&signal.Container{Unit: "/x"}); w != (Workload{Unit: "/x"}) || Of(nil) != (Workload{}) {
		t.Errorf("%+v", w)
	}
}

func TestQuantile(t *testing.T) {
	h := &signal.Hist{First: -2, Counts: []uint64{10, 80, 0, 9}, Zero: 1, Count: 100}
	for q, want := range map[float64]float64{0.01: 0, 0.11: 0.25, 0.51: 0.35355, 0.91: 0.5, 0.955: 1.41421, 1: 2} {
		if got := Quantile(h, q); math.Abs(got-want) > 1e-5 {
			t.Errorf("quantile %v: %v, want %v", q, got, want)
		}
	}
	if Quantile(nil, 0.5) != 0 || Quantile(&signal.Hist{}, 0.5) != 0 {
		t.Error("of nothing")
	}
	if got := Quantile(&signal.Hist{Resolution: 1, First: 1, Counts: []uint64{0, 1}, Count: 1}, 1); got != 2 {
		t.Errorf("finer buckets: %v, want 2", got)
	}
}
