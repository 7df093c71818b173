package stress

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"golang.org/x/sys/unix"

	"huatuo/internal/pipe"
	"huatuo/internal/signal"
	"huatuo/internal/store"
)

// wall is a clock that can be set.
type wall struct {
	mu  sync.Mutex
	now time.Time
}

func (w *wall) read() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

func (w *wall) step(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

var counted = &signal.Schema{Name: "huatuo_stress_total", Kind: signal.Metric, Type: signal.Counter, Scope: signal.Workload, Fields: []signal.Field{}}

// node is what of the agent reads the wall clock, with a clock that can be set.
type node struct {
	t      *testing.T
	clock  *wall
	store  *store.Store
	pipe   *pipe.Pipe
	gather *pipe.Gatherer
	rounds float64
	want   []time.Time // of every event, in the order in which they happened
	span   [][2]time.Time
	emit   func(*signal.Record)
}

func newNode(t *testing.T) *node {
	n := &node{t: t, clock: &wall{now: time.Now().Add(-3 * time.Hour)}}
	quiet := slog.New(slog.DiscardHandler)
	var err error
	if n.store, err = store.Open(t.TempDir(), store.Options{}, quiet); err != nil {
		t.Fatal(err)
	}
	n.pipe = pipe.New(pipe.Options{Log: quiet, Now: n.clock.read})
	n.pipe.Add("store", storeSink{n.store})
	n.gather = pipe.NewGatherer(pipe.GatherOptions{Log: quiet, Pipe: n.pipe, Now: n.clock.read,
		Labels: func(uint64) (string, string, string, string, bool) { return "", "", "", "/x", true }})
	n.gather.Add(t.Context(), "x", func(b *signal.Batch) error {
		n.rounds++
		b.Samples = append(b.Samples, signal.Sample{Schema: counted, CgroupID: 1, Value: n.rounds})
		return nil
	})
	n.emit, _ = n.pipe.Probe("x")
	return n
}

// live lets d pass, with an event each second and a round of samples each five.
func (n *node) live(d time.Duration) {
	n.t.Helper()
	from := n.clock.read()
	for i := range int(d / time.Second) {
		at := n.clock.read()
		n.want = append(n.want, at)
		n.emit(&signal.Record{Schema: happened, Time: at, Title: "tick", Body: &happening{N: len(n.want)}})
		if i%5 == 0 {
			before := n.rounds
			samples, err := n.gather.Gather(n.t.Context())
			if err != nil || len(samples) != 1 || samples[0].Value != before+1 {
				n.t.Fatalf("a round at %v gave %+v, %v", at, samples, err)
			}
			if err := n.store.AppendSamples(n.t.Context(), at, samples); err != nil {
				n.t.Fatal(err)
			}
		}
		n.clock.step(time.Second)
	}
	n.span = append(n.span, [2]time.Time{from, n.clock.read()})
}

// TestClockSteps sets the clock by an hour in both directions, in every order.
// No event may be lost or bear another time than its own, ids must tell the
// order in which things happened, and metric history must go on at once.
func TestClockSteps(t *testing.T) {
	n := newNode(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); n.pipe.Run(ctx, 10*time.Second) }()
	for _, step := range []time.Duration{0, time.Hour, -time.Hour, -time.Hour, time.Hour, 90 * time.Minute, -time.Hour} {
		n.clock.step(step)
		n.live(3 * time.Minute)
	}
	cancel()
	<-ended
	if a := n.pipe.Accounts()[0]; !a.Balanced() || a.Sinks[0].Delivered != uint64(len(n.want)) {
		t.Errorf("%d events: %+v", len(n.want), a)
	}
	page, err := n.store.Events(context.Background(), signal.EventFilter{Limit: len(n.want) + 1})
	if err != nil || len(page.Events) != len(n.want) {
		t.Fatalf("%d events of %d, %v", len(page.Events), len(n.want), err)
	}
	for i, want := range n.want {
		if d := page.Events[len(n.want)-1-i]; !d.Time.Equal(want) {
			t.Fatalf("event %d has the time %v, want %v", i, d.Time, want)
		}
	}
	st := n.store.Stats()
	if st.TooOld+st.Duplicates+st.Refused > 0 || st.SetAside > 0 {
		t.Errorf("samples were refused: %+v", st)
	}
	for _, s := range n.span {
		if got := n.samples(s[0], s[1]); got < int(s[1].Sub(s[0])/(5*time.Second)) {
			t.Errorf("%d samples between %v and %v", got, s[0], s[1])
		}
	}
	if err := n.store.Close(); err != nil {
		t.Error(err)
	}
	t.Logf("%d events, %+v", len(n.want), st)
}

// samples counts what the history has between two times.
func (n *node) samples(from, to time.Time) (count int) {
	n.t.Helper()
	q, err := n.store.Querier(from.UnixMilli(), to.UnixMilli()-1)
	if err != nil {
		n.t.Fatal(err)
	}
	defer q.Close()
	set := q.Select(context.Background(), false, nil, labels.MustNewMatcher(labels.MatchEqual, "__name__", counted.Name))
	for set.Next() {
		for it := set.At().Iterator(nil); it.Next() != 0; {
			if _, v := it.At(); !math.IsNaN(v) {
				count++
			}
		}
	}
	if err := set.Err(); err != nil {
		n.t.Fatal(err)
	}
	return count
}

// TestClockStep sets the clock of this machine under the running agent. It does
// so only where it is told to: clockstep.sh runs it in a virtual machine.
func TestClockStep(t *testing.T) {
	if os.Getenv("STRESS_SET_CLOCK") != "1" {
		t.Skip("sets the clock of the machine: run test/stress/clockstep.sh in a virtual machine")
	}
	for _, step := range []time.Duration{time.Hour, -time.Hour} {
		t.Run(step.String(), func(t *testing.T) { stepClock(t, step) })
	}
}

func stepClock(t *testing.T, step time.Duration) {
	a := start(t, t.TempDir(), nil, quick...)
	drops(t, 20)
	a.keeps(30 * time.Second)
	s, err := a.follow(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	order := []string{s.nextEvent(t).id}
	var spans [][2]time.Time
	pass := func() {
		t.Helper()
		from := time.Now().Round(0)
		right := 0 // events that bear the time as it is now
		for end := time.Now().Add(10 * time.Second); time.Now().Before(end) || right < 20; {
			m := s.nextEvent(t)
			order = append(order, m.id)
			d := m.document(t)
			// An emulated machine may be late by much, but not by a step. What
			// was on its way when the clock was set bears the old time.
			if late := time.Now().Round(0).Sub(d.Time); late.Abs() < step.Abs()/2 {
				right++
			} else if right > 0 && d.Kind == "packet_drop" {
				t.Fatalf("an event bears a time that is %v away", late)
			}
		}
		spans = append(spans, [2]time.Time{from, time.Now().Round(0)})
	}
	pass()
	setClock(t, step)
	defer setClock(t, 0)
	pass()
	setClock(t, -step)
	pass()

	var want []string
	eventually(t, 20*time.Second, "the store has what was streamed", func() error {
		if want = a.between(order[0], order[len(order)-1]); len(want) < len(order) {
			return fmt.Errorf("%d events of %d", len(want), len(order))
		}
		return nil
	})
	if fmt.Sprint(want) != fmt.Sprint(order) {
		t.Errorf("the stream gave %d events, %d there were, or in another order", len(order), len(want))
	}
	r, err := a.follow(t.Context(), order[0])
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	for i, id := range order[1:] {
		if m := r.nextEvent(t); m.id != id {
			t.Fatalf("resumed: event %d is %+v, want %s", i, m, id)
		}
	}
	a.checkSpans(spans)
	t.Logf("step %v and back: %d events in order", step, len(order))
}

// checkSpans: there is history of each span of time, no sample was refused, and
// nothing was set aside.
func (a *agent) checkSpans(spans [][2]time.Time) {
	a.t.Helper()
	for _, span := range spans {
		d := int(span[1].Sub(span[0]).Seconds())
		n, ok := a.query(fmt.Sprintf("count_over_time(huatuo_load_average{window=\"1m\"}[%ds] @ %d)", d, span[1].Unix()))
		if !ok || n < 2 {
			a.t.Errorf("%v samples in the %d s before %v", n, d, span[1])
		}
	}
	st := a.system().Store
	old, _ := a.metric(`huatuo_store_refused_samples_total{reason="too_old"}`)
	if st.Error != "" || st.SetAside > 0 || old > 0 {
		a.t.Errorf("store %+v, %v samples too old", st, old)
	}
}

// setClock moves the wall clock by d.
func setClock(t *testing.T, d time.Duration) {
	t.Helper()
	tv := unix.NsecToTimeval(time.Now().Add(d).UnixNano())
	if d == 0 {
		return
	}
	if err := unix.Settimeofday(&tv); err != nil {
		t.Fatalf("set the clock: %v", err)
	}
}
