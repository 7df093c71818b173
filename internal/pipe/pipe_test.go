package pipe

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"huatuo/internal/probe"
	"huatuo/internal/signal"
)

type body struct {
	N int `json:"n" help:"number"`
}

var (
	kind   = signal.EventOf[body]("thing", signal.AreaSystem, signal.Info, "A thing happened.")
	metric = &signal.Schema{Name: "m", Kind: signal.Metric, Type: signal.Histogram, Scope: signal.Host, Fields: []signal.Field{{Name: "k"}}}
)

// memory is a sink that keeps what it gets, or fails.
type memory struct {
	mu   sync.Mutex
	docs []*signal.Document
	err  error
	gate chan struct{} // when not nil, each delivery takes one token
}

func (m *memory) Deliver(_ context.Context, docs []*signal.Document) error {
	if m.gate != nil {
		<-m.gate
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil {
		return m.err
	}
	m.docs = append(m.docs, docs...)
	return nil
}

func (m *memory) len() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.docs)
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func event(n int) *signal.Record {
	return &signal.Record{Schema: kind, Time: time.Unix(int64(n), 0), Body: &body{n}}
}

// TestConservation offers more than the queues hold to a good, a dead and a
// slow sink, with losses before the pipe, and checks that it all adds up.
func TestConservation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := New(Options{Log: quiet(), Host: "h", Queue: 64})
		good, dead, slow := &memory{}, &memory{err: errors.New("down")}, &memory{gate: make(chan struct{})}
		p.Add("good", good)
		p.Add("dead", dead)
		p.Add("slow", slow)
		emit, lost := p.Probe("x")
		const n = 1000
		lost(func() probe.Loss {
			return probe.Loss{Observed: n + 30, Dropped: map[string]uint64{"ring_full": 10, "rate_limited": 20}}
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { p.Run(ctx, time.Second); close(done) }()
		for i := range n {
			emit(event(i))
			if i%50 == 0 {
				synctest.Wait()
			}
		}
		slow.gate <- struct{}{} // its first batch; the second waits for another token
		synctest.Wait()
		a := p.Accounts()[0]
		if !a.Balanced() {
			t.Errorf("running: does not balance: %+v", a)
		}
		if a.Sinks[2].Queued == 0 || a.Sinks[2].Dropped == 0 {
			t.Errorf("the slow sink should hold and have dropped events: %+v", a.Sinks[2])
		}
		close(slow.gate)
		cancel()
		<-done
		a = p.Accounts()[0]
		if !a.Balanced() {
			t.Errorf("at rest: does not balance: %+v", a)
		}
		for i, want := range []bool{true, false, true} {
			if s := a.Sinks[i]; s.Queued != 0 || (s.Failed == 0) != want {
				t.Errorf("sink %s at rest: %+v", s.Sink, s)
			}
		}
		if got := uint64(good.len()); got != a.Routed || got == 0 {
			t.Errorf("good sink has %d events, %d were routed", got, a.Routed)
		}
	})
}

// TestUnbalanced: the check itself must be able to fail.
func TestUnbalanced(t *testing.T) {
	a := signal.Account{Observed: 3, Routed: 2, Dropped: map[string]uint64{"x": 1}, Sinks: []signal.SinkAccount{{Delivered: 2}}}
	if !a.Balanced() {
		t.Error("a good account is called unbalanced")
	}
	a.Sinks[0].Delivered = 1
	if a.Balanced() {
		t.Error("an event lost in a sink goes unnoticed")
	}
	a.Sinks[0].Delivered, a.Observed = 2, 4
	if a.Balanced() {
		t.Error("an event lost before the pipe goes unnoticed")
	}
}

// TestRestart: what a probe counted before it was restarted stays counted.
func TestRestart(t *testing.T) {
	p := New(Options{Log: quiet()})
	_, lost := p.Probe("x")
	lost(func() probe.Loss { return probe.Loss{Observed: 5, Dropped: map[string]uint64{"ring_full": 5}} })
	_, lost = p.Probe("x")
	lost(func() probe.Loss { return probe.Loss{Observed: 2, Dropped: map[string]uint64{"ring_full": 2}} })
	if a := p.Accounts()[0]; a.Observed != 7 || a.Dropped["ring_full"] != 7 {
		t.Errorf("account %+v: want 7 observed and dropped", a)
	}
}

// TestRetry: a sink that recovers gets the batch that it refused.
func TestRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := New(Options{Log: quiet()})
		m := &memory{err: errors.New("down")}
		p.Add("m", m)
		emit, _ := p.Probe("x")
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { p.Run(ctx, time.Second); close(done) }()
		emit(event(1))
		time.Sleep(150 * time.Millisecond)
		if s := p.Sinks()[0]; s.State != "retrying" || s.Error != "down" {
			t.Errorf("sink state %+v", s)
		}
		m.mu.Lock()
		m.err = nil
		m.mu.Unlock()
		time.Sleep(time.Second)
		if m.len() != 1 || p.Sinks()[0].State != "ok" {
			t.Errorf("%d delivered, state %+v", m.len(), p.Sinks()[0])
		}
		cancel()
		<-done
	})
}

// TestLinger: a sink with expensive deliveries gets a burst as one batch, an
// event waits no longer than the linger, and nothing waits at the end.
func TestLinger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := New(Options{Log: quiet()})
		var batches []int
		p.AddBatched("m", sinkFunc(func(_ context.Context, d []*signal.Document) error {
			batches = append(batches, len(d))
			return nil
		}), 200*time.Millisecond)
		emit, _ := p.Probe("x")
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { p.Run(ctx, time.Second); close(done) }()
		for i := range 20 {
			emit(event(i))
			time.Sleep(5 * time.Millisecond)
		}
		time.Sleep(150 * time.Millisecond)
		synctest.Wait()
		if len(batches) != 1 || batches[0] != 20 {
			t.Errorf("batches %v, want one of 20", batches)
		}
		emit(event(20))
		synctest.Wait()
		began := time.Now()
		cancel()
		<-done
		if len(batches) != 2 || time.Since(began) > 10*time.Millisecond {
			t.Errorf("batches %v after %v: the last event should go at once", batches, time.Since(began))
		}
	})
}

func TestEnrichAndIdentity(t *testing.T) {
	p := New(Options{Log: quiet(), Host: "node1", Region: "r", Enrich: func(r *signal.Record) { r.Process.Comm = "sh" }})
	m := &memory{}
	p.Add("m", m)
	emit, _ := p.Probe("x")
	ctx, cancel := context.WithCancel(t.Context())
	r := event(1)
	r.Measures = []signal.Measure{{Schema: metric, Labels: []string{"a"}, Value: 2}}
	emit(r)
	done := make(chan struct{})
	go func() { p.Run(ctx, time.Second); close(done) }()
	for m.len() == 0 {
		time.Sleep(time.Millisecond)
	}
	cancel()
	<-done
	d := m.docs[0]
	if d.Host != "node1" || d.Region != "r" || d.Process.Comm != "sh" || len(d.ID) != 26 || d.Severity != signal.Info {
		t.Errorf("document %+v", d)
	}
	if e := p.exemplar(&signal.Sample{Schema: metric, Labels: []string{"a"}}); e == nil || e.EventID != d.ID || e.Value != 2 {
		t.Errorf("exemplar %+v", e)
	}
	if e := p.exemplar(&signal.Sample{Schema: metric, Labels: []string{"b"}}); e != nil {
		t.Errorf("exemplar of another series: %+v", e)
	}
}

// TestAccountsWhileProbesRestart: what a run has counted is counted once, also
// by who reads the accounts while the next run begins.
func TestAccountsWhileProbesRestart(t *testing.T) {
	p := New(Options{Log: quiet()})
	_, lost := p.Probe("x")
	const runs, each = 2000, 10
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range runs {
			lost(func() probe.Loss { return probe.Loss{Observed: each, Dropped: map[string]uint64{"full": each}} })
		}
	}()
	last := uint64(0)
	for ended := false; !ended; {
		select {
		case <-done:
			ended = true
		default:
		}
		a := p.Accounts()[0]
		if a.Observed < last || a.Observed > runs*each || a.Observed != a.Dropped["full"] {
			t.Fatalf("observed %d after %d: %+v", a.Observed, last, a)
		}
		last = a.Observed
	}
	if last != runs*each {
		t.Errorf("observed %d, want %d", last, runs*each)
	}
}

func TestQueueDropsOldest(t *testing.T) {
	q := newQueue[int](3)
	for i := range 5 {
		if old, dropped := q.push(i); dropped != (i >= 3) || dropped && old != i-3 {
			t.Errorf("push %d dropped %d, %v", i, old, dropped)
		}
	}
	got, _ := q.popAll(t.Context(), nil, 10)
	if len(got) != 3 || got[0] != 2 || got[2] != 4 {
		t.Errorf("left %v, want 2 3 4", got)
	}
	q.push(9)
	q.close()
	if _, dropped := q.push(1); !dropped {
		t.Error("a closed queue takes entries")
	}
	if v, ok := q.pop(t.Context()); !ok || v != 9 {
		t.Errorf("pop after close: %v %v, want 9", v, ok)
	}
	if _, ok := q.pop(t.Context()); ok {
		t.Error("pop on a closed, empty queue")
	}
}

func BenchmarkRoute(b *testing.B) {
	p := New(Options{Log: quiet(), Queue: 1 << 16})
	var n atomic.Int64
	p.Add("null", sinkFunc(func(_ context.Context, d []*signal.Document) error { n.Add(int64(len(d))); return nil }))
	_, _ = p.Probe("x")
	a := p.accounts["x"]
	b.ReportAllocs()
	for b.Loop() {
		p.route(item{rec: event(1), acc: a})
	}
}

type sinkFunc func(context.Context, []*signal.Document) error

func (f sinkFunc) Deliver(ctx context.Context, d []*signal.Document) error { return f(ctx, d) }
