package pipe

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"huatuo/internal/probe"
	"huatuo/internal/signal"
)

// order is in which order Relate sees events.
type order struct {
	mu  sync.Mutex
	all []int
}

func (o *order) note(n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.all = append(o.all, n)
}

func (o *order) seen() []int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.all)
}

// holding is a pipe that holds back odd events for 300 ms, and notes what Relate sees.
func holding(o *order) *Pipe {
	return New(Options{
		Log:    quiet(),
		Relate: func(r *signal.Record) { o.note(r.Body.(*body).N) },
		Grace: func(r *signal.Record) time.Duration {
			return time.Duration(r.Body.(*body).N%2) * 300 * time.Millisecond
		},
	})
}

// TestGrace: a record that is held back is related after those that came within its
// time, and goes on when that is over, without another to push it.
func TestGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var o order
		p := holding(&o)
		m := &memory{}
		p.Add("m", m)
		emit, _ := p.Probe("x")
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { p.Run(ctx, time.Second); close(done) }()
		for i := 1; i <= 4; i++ {
			emit(event(i))
			time.Sleep(100 * time.Millisecond)
		}
		synctest.Wait()
		seen := o.seen()
		if fmt.Sprint(seen) != "[2 1 4]" && fmt.Sprint(seen) != "[2 4 1]" {
			t.Errorf("after 400 ms %v", seen)
		}
		time.Sleep(250 * time.Millisecond)
		synctest.Wait()
		seen = o.seen()
		if len(seen) != 4 || seen[3] != 3 || m.len() != 4 {
			t.Errorf("after 650 ms %v, %d delivered", seen, m.len())
		}
		last := ""
		for _, d := range m.docs {
			if d.ID <= last {
				t.Errorf("ids are not in the order of delivery")
			}
			last = d.ID
		}
		emit(event(5)) // and what is held back at the end goes at once
		synctest.Wait()
		began := time.Now()
		cancel()
		<-done
		if d := time.Since(began); m.len() != 5 || d > 10*time.Millisecond {
			t.Errorf("%d delivered at the end, after %v", m.len(), d)
		}
		if a := p.Accounts()[0]; !a.Balanced() || a.Routed != 5 {
			t.Errorf("account %+v", a)
		}
	})
}

// TestHeld: the next is the first whose time is over, and there is an end to it.
func TestHeld(t *testing.T) {
	var h held
	at := time.Unix(1000, 0)
	if !h.due().IsZero() || h.ripe(at) {
		t.Error("nothing is held, and something is due")
	}
	for i, d := range []time.Duration{3, 1, 2, 1} {
		if !h.push(item{rec: event(i)}, at.Add(d)) {
			t.Fatal("no room")
		}
	}
	if h.due() != at.Add(1) || h.ripe(at) || !h.ripe(at.Add(1)) {
		t.Errorf("due %v", h.due())
	}
	for _, want := range []int{1, 3, 2, 0} {
		if it, ok := h.pop(); !ok || it.rec.Body.(*body).N != want {
			t.Errorf("next is %+v, want %d", it.rec, want)
		}
	}
	if _, ok := h.pop(); ok {
		t.Error("more than was held")
	}
	for range maxHeld {
		h.push(item{}, at)
	}
	if h.push(item{}, at) || len(h) != maxHeld {
		t.Errorf("%d are held", len(h))
	}
}

// TestGraceFlood: what finds no room is not held back, and nothing is lost.
func TestGraceFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var o order
		p := holding(&o)
		m := &memory{}
		p.Add("m", m)
		emit, _ := p.Probe("x")
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { p.Run(ctx, time.Second); close(done) }()
		const n = 2*maxHeld + 10
		for i := range n {
			emit(event(2*i + 1))
			if i%100 == 0 {
				synctest.Wait()
			}
		}
		synctest.Wait()
		if got := len(o.seen()); got != n-maxHeld {
			t.Errorf("%d are related, want all but %d", got, maxHeld)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		cancel()
		<-done
		if m.len() != n {
			t.Errorf("%d of %d delivered", m.len(), n)
		}
	})
}

// TestLoss sums over the runs of a probe.
func TestLoss(t *testing.T) {
	p := New(Options{Log: quiet()})
	if _, ok := p.Loss("x"); ok {
		t.Error("a probe that never ran has losses")
	}
	_, lost := p.Probe("x")
	lost(func() probe.Loss {
		return probe.Loss{Observed: 5, LeftOut: 2, Dropped: map[string]uint64{"ring_full": 5}}
	})
	_, lost = p.Probe("x")
	lost(func() probe.Loss {
		return probe.Loss{Observed: 2, LeftOut: 1, Dropped: map[string]uint64{"ring_full": 1, "rate_limited": 1}}
	})
	l, ok := p.Loss("x")
	if !ok || l.Observed != 7 || l.LeftOut != 3 || l.Dropped["ring_full"] != 6 || l.Dropped["rate_limited"] != 1 {
		t.Errorf("loss %+v", l)
	}
}
