package stress

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// deaf opens a stream on a connection with a small receive buffer and never
// reads from it. It returns false when the agent does not take it.
func (a *agent) deaf(ctx context.Context) (net.Conn, error) {
	d := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		if cerr := c.Control(func(fd uintptr) { err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4096) }); cerr != nil {
			return cerr
		}
		return err
	}}
	host := strings.TrimPrefix(a.url, "http://")
	c, err := d.DialContext(ctx, "tcp", host)
	if err != nil {
		return nil, err
	}
	_, err = fmt.Fprintf(c, "GET /api/v1/events/stream HTTP/1.1\r\nHost: %s\r\n\r\n", host)
	return c, err
}

// hang opens n streams that are never read, and more as long as there is room
// for another.
func (a *agent) hang(n int) {
	a.t.Helper()
	open := func() {
		c, err := a.deaf(a.t.Context())
		if err != nil {
			a.t.Fatal(err)
		}
		a.t.Cleanup(func() { c.Close() })
	}
	for range n {
		open()
	}
	eventually(a.t, 5*time.Second, "all streams are open", func() error {
		s, err := a.follow(a.t.Context(), "")
		if err == nil {
			s.close() // the one that it kept out, if any, has been refused
			open()
			return errors.New("there was room for one more")
		}
		var no *refused
		if !errors.As(err, &no) || no.code != 503 || no.retryAfter == "" {
			return fmt.Errorf("refused with %v", err)
		}
		return nil
	})
}

// hearing follows the stream and notes how old each event is when it arrives.
type hearing struct {
	mu    sync.Mutex
	delay []time.Duration
	gaps  int
}

func (h *hearing) listen(a *agent, s *stream) {
	for {
		m, ok := s.next()
		if !ok {
			return
		}
		h.mu.Lock()
		switch m.event {
		case "event":
			h.delay = append(h.delay, time.Since(m.document(a.t).Time))
		case "gap":
			h.gaps += m.lost(a.t)
		}
		h.mu.Unlock()
	}
}

// quantile of the delays, and their number.
func (h *hearing) quantile(q float64) (time.Duration, int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return quantile(h.delay, q), len(h.delay)
}

func quantile(d []time.Duration, q float64) time.Duration {
	if len(d) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(d))
	return s[min(len(s)-1, int(q*float64(len(s))))]
}

// asks calls the API until ctx is done and returns how long each answer took.
func (a *agent) asks(ctx context.Context) (took []time.Duration) {
	paths := []string{"/api/v1/events?limit=50", "/metrics", "/api/v1/query?query=huatuo_load_average", "/api/v1/probes", "/healthz"}
	for i := 0; ctx.Err() == nil; i++ {
		began := time.Now()
		if code, body := a.get(paths[i%len(paths)]); code != 200 {
			a.t.Errorf("GET %s: %d %.200s", paths[i%len(paths)], code, body)
		}
		took = append(took, time.Since(began))
		time.Sleep(50 * time.Millisecond)
	}
	return took
}

// TestHungClients opens as many streams as there may be and never reads from
// all but one of them: the others must be served as if they were not there,
// and the hung must be cut off.
func TestHungClients(t *testing.T) {
	a := start(t, t.TempDir(), nil, unlimited...)
	stop := drops(t, 500)
	time.Sleep(2 * time.Second)
	before, routines := usageOf(t, a.pid), a.system().Cost.Goroutines
	good, err := a.follow(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer good.close()
	var h hearing
	go h.listen(a, good)
	a.hang(63)
	top := peak(t, a.pid)
	ctx, cancel := context.WithTimeout(t.Context(), pick(12*time.Second, 30*time.Second))
	took := a.asks(ctx)
	cancel()
	slow := slowness()
	p99, n := h.quantile(0.99)
	if limit := time.Duration(2 * slow * float64(time.Second)); n < 1000 || p99 > limit || h.gaps > 0 {
		t.Errorf("the good reader got %d events, p99 after %v (bound %v), and missed %d", n, p99, limit, h.gaps)
	}
	if q, limit := quantile(took, 0.99), time.Duration(slow*float64(time.Second)); q > limit {
		t.Errorf("p99 of an answer is %v, the bound %v", q, limit)
	}
	cut := eventually(t, 30*time.Second, "the hung are cut off", func() error {
		if n, _ := a.metric("huatuo_console_streams"); n > 5 {
			return fmt.Errorf("%v streams are open", n)
		}
		return nil
	})
	rss := top()
	if rss > before.rss+60e6 {
		t.Errorf("resident memory went from %d to %d MB", before.rss/1e6, rss/1e6)
	}
	left := eventually(t, 10*time.Second, "goroutines end", func() error {
		if n := a.system().Cost.Goroutines; n > routines+20 {
			return fmt.Errorf("%d goroutines, %d before", n, routines)
		}
		return nil
	})
	t.Logf("63 hung: good reader p99 %v of %d events; answers p50 %v p99 %v; RSS %d → %d MB at most; all cut off %v after the test, goroutines back after %v",
		p99, n, quantile(took, 0.5), quantile(took, 0.99), before.rss/1e6, rss/1e6, cut.Round(time.Millisecond), left.Round(time.Millisecond))
	stop()
	a.balanced()
}

// TestReconnectStorm opens and closes streams as fast as it can, most of them
// with an id to resume after.
func TestReconnectStorm(t *testing.T) {
	a := start(t, t.TempDir(), nil, unlimited...)
	stop := drops(t, 300)
	time.Sleep(3 * time.Second)
	before, routines := usageOf(t, a.pid), a.system().Cost.Goroutines
	good, err := a.follow(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer good.close()
	var h hearing
	go h.listen(a, good)
	old := a.events("")
	var opened, refusals atomic.Int64
	ctx, cancel := context.WithTimeout(t.Context(), pick(5*time.Second, 20*time.Second))
	defer cancel()
	top := peak(t, a.pid)
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for ctx.Err() == nil {
				after := ""
				if rand.IntN(4) > 0 {
					after = old[rand.IntN(len(old))].ID
				}
				s, err := a.follow(ctx, after)
				if err != nil {
					refusals.Add(1)
					continue
				}
				opened.Add(1)
				for range rand.IntN(20) {
					s.next()
				}
				s.close()
			}
		})
	}
	wg.Wait()
	rss := top()
	p99, n := h.quantile(0.99)
	if limit := time.Duration(2 * slowness() * float64(time.Second)); p99 > limit || h.gaps > 0 || n == 0 {
		t.Errorf("a steady reader got %d events, p99 after %v (bound %v), and missed %d", n, p99, limit, h.gaps)
	}
	var after usage
	eventually(t, 20*time.Second, "the agent is as before", func() error {
		after = usageOf(t, a.pid)
		if r := a.system().Cost.Goroutines; r > routines+20 || after.fds > before.fds+10 {
			return fmt.Errorf("%d goroutines, %d before; %v, %v before", r, routines, after, before)
		}
		return nil
	})
	if rss > before.rss+80e6 {
		t.Errorf("resident memory went from %d to %d MB", before.rss/1e6, rss/1e6)
	}
	t.Logf("%d streams opened, %d refused; steady reader p99 %v of %d events; RSS %d → %d MB at most; %v after",
		opened.Load(), refusals.Load(), p99, n, before.rss/1e6, rss/1e6, after)
	stop()
	a.balanced()
}

// TestResume cuts a reader off at random and lets it resume, after moments and
// after longer than the agent remembers without its store: what it gets
// altogether must be what happened, each event once and in order.
func TestResume(t *testing.T) {
	a := start(t, t.TempDir(), nil, unlimited...)
	stop := drops(t, 400)
	var got []string
	last := ""
	for i := range pick(8, 40) {
		s, err := a.follow(t.Context(), last)
		if err != nil {
			t.Fatal(err)
		}
		// Every other time it reads until it is up to date, else it would fall
		// behind by more than a stream makes up for.
		age := time.Hour
		for n := rand.IntN(150); n >= 0 || i%2 == 1 && age > 300*time.Millisecond; n-- {
			m, ok := s.next()
			if !ok {
				t.Fatal("the stream ended")
			}
			switch m.event {
			case "event":
				got = append(got, m.id)
				last = m.id
				age = time.Since(m.document(t).Time)
			case "gap":
				t.Errorf("a gap of %d", m.lost(t))
			}
		}
		s.close()
		time.Sleep(time.Duration(rand.IntN(600)) * time.Millisecond)
		if i%4 == 3 {
			time.Sleep(3500 * time.Millisecond) // 1400 events: more than the ring holds
		}
	}
	stop()
	a.balanced()
	var want []string
	eventually(t, 20*time.Second, "the store has what was streamed", func() error {
		if want = a.between(got[0], last); len(want) < len(got) {
			return fmt.Errorf("%d events of %d", len(want), len(got))
		}
		return nil
	})
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			t.Fatalf("event %d is %s, want %s: lost or twice or out of order", i, got[i], want[i])
		}
	}
	if len(got) != len(want) {
		t.Errorf("got %d events, want %d", len(got), len(want))
	}
	t.Logf("%d events over %d connections", len(got), pick(8, 40))
}

// between lists the ids of kept events from one to another.
func (a *agent) between(first, last string) (ids []string) {
	for _, d := range a.events("") {
		if d.ID >= first && d.ID <= last {
			ids = append(ids, d.ID)
		}
	}
	return ids
}

// TestSlowReader reads in fits and starts, too slowly on the whole: what it gets
// and what it is told that it has missed must add up, at each gap's place.
func TestSlowReader(t *testing.T) {
	a := start(t, t.TempDir(), nil, unlimited...)
	stop := drops(t, 1500)
	c, err := a.deaf(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	slow := newConnStream(c)
	var order []string // ids, and "" for each event of a gap
	got, lost := 0, 0
	for range pick(3, 10) {
		time.Sleep(3 * time.Second)
		for range 1500 {
			m, ok := slow.next()
			if !ok {
				t.Fatal("the stream ended")
			}
			switch m.event {
			case "event":
				order = append(order, m.id)
				got++
			case "gap":
				n := m.lost(t)
				order = append(order, make([]string, n)...)
				lost += n
			}
		}
	}
	stop()
	a.balanced()
	for len(order) > 0 && order[len(order)-1] == "" {
		order = order[:len(order)-1]
	}
	want := a.between(order[0], order[len(order)-1])
	if lost == 0 {
		t.Errorf("it was not too slow: %d events", got)
	}
	if len(order) != len(want) {
		t.Fatalf("%d events and %d told as missed are not the %d that there were", got, lost, len(want))
	}
	for i, id := range order {
		if id != "" && id != want[i] {
			t.Fatalf("event %d is %s, want %s", i, id, want[i])
		}
	}
	t.Logf("%d events came, %d were told as missed, %d there were", got, lost, len(want))
}
