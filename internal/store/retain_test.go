package store

import (
	"context"
	"testing"
	"time"

	"huatuo/internal/signal"
)

func TestEventAge(t *testing.T) {
	s := open(t, t.TempDir(), Options{EventAge: time.Hour})
	now := time.Now()
	var docs []*signal.Document
	for i := range 1200 {
		at := now.Add(-2 * time.Hour)
		if i >= 1100 {
			at = now
		}
		docs = append(docs, noisy(i, at))
	}
	appendDocs(t, s, docs...)
	s.events.retain(context.Background())
	p, err := s.Events(context.Background(), signal.EventFilter{Limit: 1000})
	if err != nil || len(p.Events) != 100 {
		t.Fatalf("%d events left, %v", len(p.Events), err)
	}
	if p, err := s.Events(context.Background(), signal.EventFilter{Text: "thing", Limit: 1000}); err != nil || len(p.Events) != 100 {
		t.Errorf("%d events found by text, %v", len(p.Events), err)
	}
	st := s.Status()
	if st.Events != 100 || st.OldestEvent == nil || st.OldestEvent.Before(now.Add(-time.Hour)) {
		t.Errorf("status %+v", st)
	}
	var bodies, words int
	if err := s.events.r.QueryRow("SELECT (SELECT count(*) FROM doc), (SELECT count(*) FROM text WHERE text MATCH 'thing')").Scan(&bodies, &words); err != nil || bodies != 100 || words != 100 {
		t.Errorf("%d bodies and %d index entries are left, %v", bodies, words, err)
	}
}

// Retention by size must hold the files at the limit and yet not erase more
// than is needed, whatever the index does with the space of erased entries.
func TestEventBytes(t *testing.T) {
	const limit = 2 << 20
	s := open(t, t.TempDir(), Options{EventBytes: limit})
	t0 := time.Now()
	least := int64(1 << 62)
	for i := range 20 {
		docs := make([]*signal.Document, 250)
		for j := range docs {
			docs[j] = noisy(i*250+j, t0)
		}
		appendDocs(t, s, docs...)
		s.events.retain(context.Background())
		if i >= 10 {
			least = min(least, s.Status().Events)
		}
		// Room for a batch and for the log, which is checkpointed at 4 MiB.
		if n := fileSize(s.events.path); n > limit+2<<20 {
			t.Errorf("round %d: the database has %d KiB, limit %d", i, n>>10, limit>>10)
		}
	}
	st := s.Status()
	t.Logf("%d events in %d KiB, never fewer than %d", st.Events, st.EventBytes>>10, least)
	// 2.1 kB each (BenchmarkAppendEvents): the limit holds 1000.
	if least < 600 {
		t.Errorf("erased down to %d events", least)
	}
	if p, err := s.Events(context.Background(), signal.EventFilter{Limit: 1}); err != nil || p.Events[0].ID != noisy(20*250-1, t0).ID {
		t.Errorf("the newest event is gone: %v", err)
	}
}

func TestMetricRetention(t *testing.T) {
	const hours = 12
	t0 := time.Now().Add(-hours * time.Hour).Truncate(time.Hour)
	fill := func(t *testing.T, o Options) *Store {
		s := open(t, t.TempDir(), o)
		for i := range hours * 6 {
			round(t, s, t0.Add(time.Duration(i)*10*time.Minute), gaugeOf(float64(i*i%977), "a"), gaugeOf(float64(i), "b"))
		}
		for range 2 { // the second looks at the blocks that the first made
			if err := s.metrics.state.db.Compact(context.Background()); err != nil {
				t.Fatal(err)
			}
		}
		return s
	}
	oldest := func(s *Store) time.Duration { return s.Status().OldestMetric.Sub(t0) }
	all := fill(t, Options{})
	if d := oldest(all); d != 0 {
		t.Errorf("without need the oldest sample is %v off", d)
	}
	var blocks int64
	for _, b := range all.metrics.state.db.Blocks() {
		blocks += b.Size()
	}
	if st := all.Status(); st.MetricSeries != 2 || st.MetricBytes < blocks || st.Retention.MetricAge != "168h0m0s" {
		t.Errorf("status %+v", st)
	}
	// Whole blocks go, up to 9 h each.
	if d := oldest(fill(t, Options{MetricAge: 3 * time.Hour})); d < 2*time.Hour || d > 10*time.Hour {
		t.Errorf("by age the oldest sample is %v after the first", d)
	}
	limit := all.metrics.state.db.Head().Size() + blocks - 100
	s := fill(t, Options{MetricBytes: limit})
	if d := oldest(s); d < time.Hour || d > (hours-1)*time.Hour {
		t.Errorf("by size the oldest sample is %v after the first", d)
	}
	if n := s.Status().MetricBytes; n > limit {
		t.Errorf("%d bytes, limit %d", n, limit)
	}
}
