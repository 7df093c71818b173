package store

import (
	"context"
	"fmt"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"time"

	"huatuo/internal/signal"
)

// nodeSamples are the samples of a node: 800 values and 200 histograms.
func nodeSamples() []signal.Sample {
	var ss []signal.Sample
	for i := range 800 {
		ss = append(ss, gaugeOf(float64(i), "device"+strconv.Itoa(i), "read"))
	}
	for i := range 200 {
		h := &signal.Hist{First: -24, Counts: make([]uint64, 30)}
		for b := 5; b < 17; b++ {
			h.Counts[b] = uint64(i + b)
		}
		sc := &signal.Schema{Name: hist.Name, Fields: gauge.Fields}
		ss = append(ss, signal.Sample{Schema: sc, Labels: []string{"device" + strconv.Itoa(i), "read"}, Hist: h})
	}
	return ss
}

// step moves the values on as 5 s of work would.
func step(ss []signal.Sample, i int) {
	for j := range ss {
		if h := ss[j].Hist; h != nil {
			for b := 5; b < 17; b++ {
				h.Counts[b] += uint64(j+b+i) % 7
			}
			h.Sum += 0.1
			continue
		}
		ss[j].Value += float64((i*j)%13) / 4
	}
}

func BenchmarkAppend1000Series(b *testing.B) {
	s := open(b, b.TempDir(), Options{})
	ss := nodeSamples()
	t := time.Now()
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		i++
		step(ss, i)
		if err := s.AppendSamples(context.Background(), t.Add(time.Duration(i)*5*time.Second), ss); err != nil {
			b.Fatal(err)
		}
	}
}

func rss(tb testing.TB) float64 {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		tb.Fatal(err)
	}
	for l := range strings.Lines(string(b)) {
		var kb float64
		if n, _ := fmt.Sscanf(l, "VmRSS: %f", &kb); n == 1 {
			return kb / 1024
		}
	}
	tb.Fatal("no VmRSS")
	return 0
}

// BenchmarkRSS reports what an open store costs: before, open, after three
// hours of 1000 series at 5 s with 2000 events, after a wide query, after opening it again.
func BenchmarkRSS(b *testing.B) {
	dir := b.TempDir()
	for range b.N {
		before := rss(b)
		s := open(b, dir, Options{})
		b.ReportMetric(before, "MB-before")
		b.ReportMetric(rss(b), "MB-open")
		ss := nodeSamples()
		t := time.Now().Add(-3 * time.Hour)
		for i := range 3 * 720 {
			step(ss, i)
			round(b, s, t.Add(time.Duration(i)*5*time.Second), ss...)
			if i == 0 {
				b.ReportMetric(rss(b), "MB-first-round")
			}
			if i%12 == 0 {
				if err := s.metrics.state.db.Compact(context.Background()); err != nil {
					b.Fatal(err)
				}
				s.metrics.state.db.ForceHeadMMap()
			}
		}
		b.ReportMetric(rss(b), "MB-3h")
		debug.FreeOSMemory()
		b.ReportMetric(rss(b), "MB-3h-settled")
		for i := range 20 {
			docs := make([]*signal.Document, 100)
			for j := range docs {
				docs[j] = noisy(i*100+j, t)
			}
			appendDocs(b, s, docs...)
		}
		b.ReportMetric(rss(b), "MB-2000-events")
		query(b, s, "sum(rate(huatuo_test_seconds[5m]))", time.Now())
		b.ReportMetric(rss(b), "MB-query")
		b.ReportMetric(float64(dirSize(s.metrics.dir))/1e6, "MB-disk")
		start := time.Now()
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(time.Since(start).Seconds()*1e3, "ms-close")
		start = time.Now()
		open(b, dir, Options{})
		b.ReportMetric(time.Since(start).Seconds()*1e3, "ms-open")
	}
}

// noisy returns an event of the usual size: some fields and a stack.
func noisy(i int, t time.Time) *signal.Document {
	kinds := []string{"sched_stall", "packet_drop", "io_stall", "oom_kill"}
	return doc(kinds[i%len(kinds)], t.Add(time.Duration(i)*time.Millisecond), i, func(d *signal.Document) {
		d.Process = &signal.Process{PID: uint32(1000 + i%50), Comm: "worker-" + strconv.Itoa(i%50)}
		d.Container = &signal.Container{ID: fmt.Sprintf("%064x", i%20), Name: "web-" + strconv.Itoa(i%20), Pod: "shop-" + strconv.Itoa(i%20), Namespace: "prod"}
		for j := range 12 {
			d.KernelStack = append(d.KernelStack, signal.Frame{Function: fmt.Sprintf("do_some_thing_%d", (i*j)%300), Offset: uint64(j)})
		}
	})
}

func BenchmarkAppendEvents(b *testing.B) {
	s := open(b, b.TempDir(), Options{})
	t := time.Now()
	n := 0
	for b.Loop() {
		docs := make([]*signal.Document, 100)
		for j := range docs {
			docs[j] = noisy(n, t)
			n++
		}
		appendDocs(b, s, docs...)
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "events/s")
	b.ReportMetric(float64(s.events.bytes())/float64(n), "disk-B/event")
}

// BenchmarkEvents reads pages of 100 out of 100 000 events.
func BenchmarkEvents(b *testing.B) {
	s := open(b, b.TempDir(), Options{})
	t := time.Now().Add(-time.Hour)
	for i := 0; i < 100_000; i += 1000 {
		docs := make([]*signal.Document, 1000)
		for j := range docs {
			docs[j] = noisy(i+j, t)
		}
		appendDocs(b, s, docs...)
	}
	for _, bb := range []struct {
		name string
		f    signal.EventFilter
	}{
		{"newest", signal.EventFilter{}},
		{"two kinds", signal.EventFilter{Kinds: []string{"oom_kill", "io_stall"}}},
		{"old range", signal.EventFilter{From: t, To: t.Add(time.Second)}},
		{"container", signal.EventFilter{Container: "web-7"}},
		{"pid", signal.EventFilter{PID: 1007}},
		{"comm", signal.EventFilter{Comm: "worker-7"}},
		{"no such comm", signal.EventFilter{Comm: "nobody"}},
		{"rare word", signal.EventFilter{Text: "99999"}},
		{"common words", signal.EventFilter{Text: "event kind"}},
		{"field", signal.EventFilter{Where: []signal.Condition{{Path: "field.seq", Op: signal.Equal, Text: "77"}}}},
		{"stack", signal.EventFilter{Where: []signal.Condition{{Path: "kernel_stack.function", Op: signal.Contains, Text: "nowhere"}}}},
	} {
		b.Run(bb.name, func(b *testing.B) {
			for b.Loop() {
				if _, err := s.Events(context.Background(), bb.f); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("count", func(b *testing.B) {
		for b.Loop() {
			if _, err := s.CountEvents(context.Background(), signal.EventFilter{}, signal.EventGrouping{Kind: true, Workload: true}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("values", func(b *testing.B) {
		for b.Loop() {
			if _, err := s.EventValues(context.Background(), signal.EventFilter{}, "field.seq", "", 20); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("timeline", func(b *testing.B) {
		for b.Loop() {
			if _, err := s.Timeline(context.Background(), signal.EventFilter{}, 60); err != nil {
				b.Fatal(err)
			}
		}
	})
}
