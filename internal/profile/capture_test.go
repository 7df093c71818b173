package profile

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"huatuo/internal/signal"
)

// fakeSource has what was flushed.
type fakeSource struct {
	mu      sync.Mutex
	flushed time.Time
	queries []signal.ProfileQuery
	fail    error
}

func (s *fakeSource) Flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flushed = time.Now()
}

func (s *fakeSource) Flame(_ context.Context, q signal.ProfileQuery, _ float64) (*signal.FlameGraph, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queries = append(s.queries, q)
	if s.fail != nil {
		return nil, s.fail
	}
	g := graphOf(10, true, map[string]int64{"main;work": 3})
	g.Type, g.Unit = q.Type, ""
	if q.Type == "quiet" {
		g = &signal.FlameGraph{Type: q.Type}
	}
	return g, nil
}

type fakeKeeper struct {
	mu   sync.Mutex
	kept []*signal.Capture
	fail error
}

func (k *fakeKeeper) KeepCapture(c *signal.Capture) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.kept = append(k.kept, c)
	return k.fail
}

type fakeBooster struct {
	mu           sync.Mutex
	began, ended time.Time
	hertz        int
	d            time.Duration
}

func (b *fakeBooster) Boost(hertz int, d time.Duration) (func(), error) {
	if hertz > 199 {
		return nil, errors.New("must be at most 199")
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.began, b.hertz, b.d = time.Now(), hertz, d
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.ended = time.Now()
	}, nil
}

func typesOf(names ...string) func() []*signal.ProfileType {
	return func() (out []*signal.ProfileType) {
		for _, n := range names {
			out = append(out, &signal.ProfileType{Name: n, Unit: "nanoseconds"})
		}
		return out
	}
}

// TestCapture: a window from before the call to after it is read once it and the
// delay of samples are over, with the rate raised until its end.
func TestCapture(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, keep, boost := &fakeSource{}, &fakeKeeper{}, &fakeBooster{}
		c := NewCapturer(CapturerOptions{Source: src, Keeper: keep, Booster: boost, Types: typesOf("offcpu", "cpu", "quiet")})
		now := time.Now()
		r := signal.CaptureRequest{
			From: now.Add(-5 * time.Second), To: now.Add(10 * time.Second), Hertz: 97, Why: "a test",
			Target: signal.CaptureTarget{PID: 7, TID: 8, Labels: map[string][]string{"process": {"p"}}},
		}
		got, err := c.Capture(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		if src.flushed.Sub(now) != 10*time.Second+settle || boost.hertz != 97 || boost.d != 10*time.Second || boost.ended.Sub(now) != 10*time.Second {
			t.Errorf("flushed after %v, boost %+v", src.flushed.Sub(now), boost)
		}
		if q := src.queries[0]; len(src.queries) != 3 || q.Type != "cpu" || q.PID != 7 || q.TID != 8 || q.Labels["process"][0] != "p" || !q.From.Equal(r.From) || !q.To.Equal(r.To) {
			t.Errorf("queries %+v", src.queries)
		}
		if got.State != signal.CaptureDone || got.Samples != 6 || len(got.Graphs) != 2 || got.Graphs[0].Unit != "nanoseconds" || got.Why != "a test" {
			t.Errorf("capture %+v", got)
		}
		if len(keep.kept) != 1 || keep.kept[0] != got || len(c.Running()) != 0 {
			t.Errorf("kept %+v, running %v", keep.kept, c.Running())
		}
		// A window that is long over needs no waiting, and no higher rate.
		began := time.Now()
		r.From, r.To = began.Add(-time.Minute), began.Add(-30*time.Second)
		boost.hertz = 0
		if _, err := c.Capture(t.Context(), r); err != nil || time.Since(began) != 0 || boost.hertz != 0 {
			t.Errorf("past window: %v after %v, boost %+v", err, time.Since(began), boost)
		}
	})
}

// TestCaptureEnds: a capture ends with its context, is listed while it runs, and
// no more than four run.
func TestCaptureEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, keep, boost := &fakeSource{}, &fakeKeeper{}, &fakeBooster{}
		c := NewCapturer(CapturerOptions{Source: src, Keeper: keep, Booster: boost, Types: typesOf("cpu")})
		ctx, cancel := context.WithCancel(t.Context())
		r := signal.CaptureRequest{From: time.Now(), To: time.Now().Add(time.Minute), Hertz: 49}
		var ids []string
		for range maxCaptures {
			info, err := c.Start(ctx, r)
			if err != nil || info.State != signal.CaptureRunning {
				t.Fatal(info, err)
			}
			ids = append(ids, info.ID)
		}
		if _, err := c.Start(ctx, r); !errors.Is(err, ErrBusy) {
			t.Errorf("a fifth: %v", err)
		}
		time.Sleep(time.Second)
		if got := c.Running(); len(got) != maxCaptures || !slices.Contains(ids, got[0].ID) {
			t.Errorf("running %+v", got)
		}
		if !c.Cancel(ids[1]) || c.Cancel("nonsense") {
			t.Error("one that runs was not cancelled, or one that does not was")
		}
		synctest.Wait()
		if len(c.Running()) != maxCaptures-1 || len(keep.kept) != 1 || keep.kept[0].ID != ids[1] {
			t.Errorf("running %+v, kept %+v", c.Running(), keep.kept)
		}
		cancel()
		synctest.Wait()
		if len(c.Running()) != 0 || len(keep.kept) != maxCaptures || len(src.queries) != 0 || boost.ended.IsZero() {
			t.Errorf("running %v, kept %d, read %d, boost %+v", c.Running(), len(keep.kept), len(src.queries), boost)
		}
		if k := keep.kept[0]; k.State != signal.CaptureFailed || !strings.Contains(k.Error, "canceled") {
			t.Errorf("kept %+v", k)
		}
		src.fail = errors.New("disk on fire")
		r.To, r.From, r.Hertz = time.Now(), time.Now().Add(-time.Second), 0
		if got, err := c.Capture(t.Context(), r); got != nil || err == nil || keep.kept[maxCaptures].State != signal.CaptureFailed {
			t.Errorf("%+v, %v", got, err)
		}
		src.fail, keep.fail = nil, errors.New("no space")
		if got, err := c.Capture(t.Context(), r); got == nil || err == nil || got.State != signal.CaptureDone {
			t.Errorf("not kept: %+v, %v", got, err)
		}
	})
}

// TestCaptureRefused: a request that cannot be is refused with its member.
func TestCaptureRefused(t *testing.T) {
	now := time.Now()
	c := NewCapturer(CapturerOptions{Source: &fakeSource{}, Types: typesOf("cpu", "lock"), Now: func() time.Time { return now }})
	good := signal.CaptureRequest{From: now.Add(-time.Minute), To: now.Add(time.Minute)}
	for want, change := range map[string]func(*signal.CaptureRequest){
		"from must be before to":              func(r *signal.CaptureRequest) { r.From = r.To },
		"from must not be longer ago":         func(r *signal.CaptureRequest) { r.From = now.Add(-2 * time.Hour) },
		"to must not be further away":         func(r *signal.CaptureRequest) { r.To = now.Add(time.Hour) },
		`types has "heap": the types are cpu`: func(r *signal.CaptureRequest) { r.Types = []string{"heap"} },
		`target has a label "color"`:          func(r *signal.CaptureRequest) { r.Target.Labels = map[string][]string{"color": {"red"}} },
		"target cannot be a container here":   func(r *signal.CaptureRequest) { r.Target.Container = "web" },
		"hertz cannot be changed here":        func(r *signal.CaptureRequest) { r.Hertz = 97 },
		"hertz must not be negative":          func(r *signal.CaptureRequest) { r.Hertz = -1 },
	} {
		r := good
		change(&r)
		_, err := c.Start(t.Context(), r)
		var bad *RequestError
		if !errors.As(err, &bad) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	if n := len(c.Running()); n != 0 {
		t.Errorf("%d run", n)
	}
}

// TestPrune: the smallest nodes go, and no node stays without the one that it
// was called from.
func TestPrune(t *testing.T) {
	stacks := map[string]int64{}
	for i := range 100 {
		stacks[fmt.Sprintf("main;f%d;g%d", i/10, i)] = int64(i + 1)
	}
	g := graphOf(1, true, stacks)
	p := Prune(g, 40)
	if len(p.Nodes) > 40 || len(p.Nodes) < 30 || p.Dropped != len(g.Nodes)-len(p.Nodes) || p.Total != g.Total {
		t.Errorf("%d nodes of %d, %d dropped", len(p.Nodes), len(g.Nodes), p.Dropped)
	}
	for i, n := range p.Nodes {
		if n.Parent >= i || n.Frame >= len(p.Frames) {
			t.Fatalf("node %d: %+v", i, n)
		}
	}
	if Prune(g, 1000) != g {
		t.Error("a small graph was changed")
	}
}
