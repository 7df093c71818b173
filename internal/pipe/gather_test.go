package pipe

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"huatuo/internal/signal"
)

var (
	hostGauge = &signal.Schema{Name: "g", Kind: signal.Metric, Type: signal.Gauge, Scope: signal.Host}
	wCounter  = &signal.Schema{Name: "c", Kind: signal.Metric, Type: signal.Counter, Scope: signal.Workload}
	wGauge    = &signal.Schema{Name: "w", Kind: signal.Metric, Type: signal.Gauge, Scope: signal.Workload}
	wHist     = &signal.Schema{Name: "h", Kind: signal.Metric, Type: signal.Histogram, Scope: signal.Workload}
)

// names maps cgroups 1 and 2 to one container, 3 to another.
func names(id uint64) (string, string, string, string, bool) {
	switch id {
	case 1, 2:
		return "ns", "pod", "c1", "", true
	case 3:
		return "", "", "c3", "", true
	}
	return "", "", "", "", false
}

func find(samples []signal.Sample, s *signal.Schema, container string) *signal.Sample {
	for i := range samples {
		if samples[i].Schema == s && (s.Scope == signal.Host || samples[i].Labels[len(samples[i].Labels)-2] == container) {
			return &samples[i]
		}
	}
	return nil
}

// TestFold: several cgroups make one series that never falls, though cgroups
// come, go, and begin anew.
func TestFold(t *testing.T) {
	f := newFolder(names)
	now := time.Unix(1000, 0)
	type in map[uint64]float64
	round := func(vals in) []signal.Sample {
		t.Helper()
		now = now.Add(5 * time.Second)
		b := signal.Batch{}
		for id, v := range vals {
			b.WorkloadValue(wCounter, id, v)
			b.WorkloadValue(wGauge, id, v)
			b.WorkloadHist(wHist, id, signal.LatencyHist(0, 0, uint64(v)<<30, []uint64{uint64(v)}))
		}
		return f.fold(b.Samples, now)
	}
	want := func(got []signal.Sample, container string, c, g float64) {
		t.Helper()
		if s := find(got, wCounter, container); s == nil || s.Value != c {
			t.Errorf("%s: counter %+v, want %v", container, s, c)
		}
		if s := find(got, wGauge, container); s == nil || s.Value != g {
			t.Errorf("%s: gauge %+v, want %v", container, s, g)
		}
		if s := find(got, wHist, container); s == nil || s.Hist.Count != uint64(c) || s.Hist.Sum != c || s.Hist.Counts[0] != uint64(c) {
			t.Errorf("%s: histogram %+v, want count %v", container, s, c)
		}
	}
	got := round(in{1: 10, 2: 5, 3: 1, 99: 7})
	want(got, "c1", 15, 15)
	want(got, "c3", 1, 1)
	want(got, Other, 7, 7)
	got = round(in{1: 12, 3: 1}) // 2 is gone
	want(got, "c1", 17, 12)      // its 5 stay counted
	got = round(in{1: 3, 2: 6})  // 1 began anew, 2 is back where it was, plus 1
	want(got, "c1", 17+3+1, 3+6) //
	if find(got, wCounter, "c3") != nil {
		t.Error("a workload that nobody reports still has a series")
	}
	now = now.Add(forget + time.Minute)
	round(in{1: 3})
	if len(f.parts) != 2 || len(f.totals) != 3 {
		t.Errorf("%d parts and %d totals are remembered, want 2 and 3", len(f.parts), len(f.totals))
	}
}

// TestFoldKeepsRounds: a round that was handed out must not change later.
func TestFoldKeepsRounds(t *testing.T) {
	f := newFolder(names)
	b := signal.Batch{}
	b.WorkloadHist(wHist, 1, signal.LatencyHist(0, 0, 1<<30, []uint64{1}))
	first := f.fold(b.Samples, time.Unix(1, 0))
	b = signal.Batch{}
	b.WorkloadHist(wHist, 1, signal.LatencyHist(0, 0, 2<<30, []uint64{2}))
	f.fold(b.Samples, time.Unix(2, 0))
	if first[0].Hist.Count != 1 {
		t.Error("an older round changed")
	}
}

// TestGatherIsolation: a collector that fails, panics or hangs costs its own
// samples only, and a hung one is not called again while it hangs.
func TestGatherIsolation(t *testing.T) {
	g := NewGatherer(GatherOptions{Log: quiet(), Timeout: 50 * time.Millisecond, Fresh: time.Nanosecond})
	ctx := t.Context()
	hang := make(chan struct{})
	var calls atomic.Int32
	g.Add(ctx, "good", func(b *signal.Batch) error { b.Value(hostGauge, 1); return nil })
	g.Add(ctx, "bad", func(*signal.Batch) error { return errors.New("no") })
	g.Add(ctx, "panic", func(*signal.Batch) error { panic("x") })
	g.Add(ctx, "hung", func(b *signal.Batch) error { calls.Add(1); <-hang; b.Value(hostGauge, 2); return nil })
	g.Add(ctx, "behind", func(b *signal.Batch) error { b.Value(hostGauge, 3); return nil })
	for range 3 {
		got, err := g.Gather(ctx)
		if err != nil || len(got) != 2 || got[0].Value != 1 || got[1].Value != 3 {
			t.Fatalf("got %+v, %v: want the good samples alone", got, err)
		}
	}
	if f := g.Failing(); len(f) != 3 {
		t.Errorf("failing: %v, want bad, panic and hung", f)
	}
	close(hang)
	if n := calls.Load(); n != 1 {
		t.Errorf("the hung collector was called %d times", n)
	}
}

// TestGatherEnd: after its context a collector is gone.
func TestGatherEnd(t *testing.T) {
	g := NewGatherer(GatherOptions{Log: quiet(), Fresh: time.Nanosecond})
	ctx, cancel := context.WithCancel(t.Context())
	g.Add(ctx, "x", func(b *signal.Batch) error { b.Value(hostGauge, 1); return nil })
	if got, _ := g.Gather(t.Context()); len(got) != 1 {
		t.Fatal("no sample")
	}
	cancel()
	for range 1000 {
		if got, _ := g.Gather(t.Context()); len(got) == 0 {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Error("the collector is still called")
}

// TestGatherFresh: scrapers at the same moment share one round.
func TestGatherFresh(t *testing.T) {
	now := time.Unix(1, 0)
	g := NewGatherer(GatherOptions{Log: quiet(), Now: func() time.Time { return now }})
	calls := 0
	g.Add(t.Context(), "x", func(b *signal.Batch) error { calls++; b.Value(hostGauge, 1); return nil })
	for _, step := range []struct {
		after time.Duration
		want  int
	}{{0, 1}, {100 * time.Millisecond, 1}, {300 * time.Millisecond, 2}, {-time.Hour, 3}} {
		now = now.Add(step.after)
		if _, err := g.Gather(t.Context()); err != nil || calls != step.want {
			t.Errorf("after %v: %d calls, want %d (%v)", step.after, calls, step.want, err)
		}
	}
}

func BenchmarkGatherFold(b *testing.B) {
	g := NewGatherer(GatherOptions{Log: quiet(), Fresh: time.Nanosecond, Labels: func(id uint64) (string, string, string, string, bool) { return "", "", "c", "", true }})
	g.Add(b.Context(), "x", func(bt *signal.Batch) error {
		for id := range uint64(200) {
			bt.WorkloadValue(wCounter, id, 1)
			bt.WorkloadHist(wHist, id, signal.LatencyHist(0, 0, 1, make([]uint64, 27)))
		}
		return nil
	})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := g.Gather(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
}
