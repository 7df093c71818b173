package console

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"huatuo/internal/signal"
)

// message is one server-sent event.
type message struct{ id, event, data string }

// listen opens a stream and returns its messages; the channel closes with it.
func listenTo(t *testing.T, url string, header ...string) <-chan message {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("%d %v", resp.StatusCode, resp.Header)
	}
	out := make(chan message)
	go func() {
		defer close(out)
		defer resp.Body.Close()
		var m message
		lines := bufio.NewScanner(resp.Body)
		for lines.Scan() {
			name, value, _ := strings.Cut(lines.Text(), ": ")
			switch name {
			case "id":
				m.id = value
			case "event":
				m.event = value
			case "data":
				m.data = value
			case "":
				if m != (message{}) { // the greeting is a comment
					select {
					case out <- m:
					case <-ctx.Done():
						return
					}
				}
				m = message{}
			}
		}
	}()
	return out
}

func next(t *testing.T, ch <-chan message) message {
	t.Helper()
	select {
	case m, ok := <-ch:
		if !ok {
			t.Fatal("the stream ended")
		}
		return m
	case <-time.After(5 * time.Second):
		t.Fatal("nothing came")
	}
	panic("unreachable")
}

func silent(t *testing.T, ch <-chan message) {
	t.Helper()
	select {
	case m := <-ch:
		t.Errorf("unexpected: %+v", m)
	case <-time.After(50 * time.Millisecond):
	}
}

// titles reads n events and returns their titles, and gaps as "gap N".
func titles(t *testing.T, ch <-chan message, n int) []string {
	t.Helper()
	var out []string
	for range n {
		m := next(t, ch)
		if m.event == "gap" {
			var g struct{ Lost int }
			if err := json.Unmarshal([]byte(m.data), &g); err != nil {
				t.Fatal(err)
			}
			out = append(out, fmt.Sprintf("gap %d", g.Lost))
			continue
		}
		var d signal.Document
		if err := json.Unmarshal([]byte(m.data), &d); err != nil {
			t.Fatal(err)
		}
		if m.event != "event" || m.id != d.ID {
			t.Errorf("event %q, id %q of document %s", m.event, m.id, d.ID)
		}
		out = append(out, strings.TrimPrefix(d.Title, "event "))
	}
	return out
}

func deliver(t *testing.T, h *Hub, list ...*signal.Document) {
	t.Helper()
	if err := h.Deliver(t.Context(), list); err != nil {
		t.Fatal(err)
	}
}

// streaming starts a server with a stream that is polled for quickly.
func streaming(t *testing.T, change ...func(*Options)) (*world, string) {
	t.Helper()
	w := newWorld(t, change...)
	srv := httptest.NewServer(w)
	t.Cleanup(srv.Close)
	return w, srv.URL + "/api/v1/events/stream"
}

// opened waits until n readers are subscribed.
func opened(t *testing.T, h *Hub, n int) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		if got, _ := h.stats(); got == n {
			return
		}
		if time.Now().After(deadline) {
			got, _ := h.stats()
			t.Fatalf("%d readers, want %d", got, n)
		}
	}
}

func TestStreamLive(t *testing.T) {
	w, url := streaming(t)
	deliver(t, w.hub, doc(0))
	all, other := listenTo(t, url), listenTo(t, url+"?kind=oom_kill,io_stall&severity=critical&pid=3&container=abcd")
	opened(t, w.hub, 2)
	deliver(t, w.hub, doc(1), doc(2))
	deliver(t, w.hub, doc(3))
	if got := titles(t, all, 3); !cmp.Equal(got, []string{"1", "2", "3"}) {
		t.Errorf("unfiltered: %v", got)
	}
	if got := titles(t, other, 1); !cmp.Equal(got, []string{"2"}) { // pid 3
		t.Errorf("filtered: %v", got)
	}
	silent(t, all)
	silent(t, other)
}

// TestStreamWhere: the stream and what it resumes from the store have the same filters.
func TestStreamWhere(t *testing.T) {
	w, url := streaming(t)
	big := func(i int) *signal.Document {
		d := doc(i)
		d.Fields = json.RawMessage(`{"n":7}`)
		return d
	}
	w.events.keep(big(3), doc(4))
	got := listenTo(t, url+"?where=field.n+%3E%3D+5+and+process.comm+%3D+hog", "Last-Event-ID", doc(0).ID)
	opened(t, w.hub, 1)
	deliver(t, w.hub, doc(5), big(6))
	if got := titles(t, got, 2); !cmp.Equal(got, []string{"3", "6"}) {
		t.Errorf("filtered: %v", got)
	}
	silent(t, got)
	short := listenTo(t, url+"?field.n=7")
	opened(t, w.hub, 2)
	deliver(t, w.hub, doc(7), big(8))
	if got := titles(t, short, 1); !cmp.Equal(got, []string{"8"}) {
		t.Errorf("field.n=7: %v", got)
	}
}

func TestMatches(t *testing.T) {
	d := doc(0)
	for _, c := range []struct {
		f    signal.EventFilter
		want bool
	}{
		{signal.EventFilter{}, true},
		{signal.EventFilter{Kinds: []string{"x", "oom_kill"}}, true}, {signal.EventFilter{Kinds: []string{"x"}}, false},
		{signal.EventFilter{Severities: []signal.Severity{signal.Critical}}, true}, {signal.EventFilter{Severities: []signal.Severity{signal.Info}}, false},
		{signal.EventFilter{PID: 1}, true}, {signal.EventFilter{PID: 2}, false},
		{signal.EventFilter{Comm: "hog"}, true}, {signal.EventFilter{Comm: "ho"}, false},
		{signal.EventFilter{Namespace: "shop"}, true}, {signal.EventFilter{Namespace: "x"}, false},
		{signal.EventFilter{Pod: "web"}, true}, {signal.EventFilter{Pod: "x"}, false},
		{signal.EventFilter{Unit: "x"}, false},
		{signal.EventFilter{Container: "app"}, true}, {signal.EventFilter{Container: "abcd"}, true},
		{signal.EventFilter{Where: []signal.Condition{{Path: "field.n", Op: signal.Less, Text: "2"}}}, true},
		{signal.EventFilter{Where: []signal.Condition{{Path: "field.n", Op: signal.Greater, Text: "2"}}}, false},
		{signal.EventFilter{Container: "a"}, false}, {signal.EventFilter{Container: "bcde"}, false},
	} {
		if got := matches(&c.f, d); got != c.want {
			t.Errorf("%+v: %t", c.f, got)
		}
		if bare := (&signal.Document{Kind: "oom_kill", Severity: signal.Critical}); matches(&c.f, bare) && (c.f.PID != 0 || c.f.Comm != "" || c.f.Container != "") {
			t.Errorf("%+v matches an event of nobody", c.f)
		}
	}
}

// TestStreamResume reconnects at every place relative to ring and store.
func TestStreamResume(t *testing.T) {
	for _, c := range []struct {
		name        string
		kept, live  int // the store has events 0..kept, the ring the last of 0..live
		after       int
		query       string
		want        []string
		askedEvents bool
	}{
		{"nothing missed", 10, 10, 9, "", nil, false},
		{"within the ring", 10, 10, 6, "", []string{"7", "8", "9"}, false},
		{"within the ring, filtered", 10, 10, 6, "&pid=9", []string{"8"}, false},
		{"older than the ring", ringSize + 20, ringSize + 20, 17, "", []string{"18", "19", "20", "21"}, true},
		{"older than the ring, filtered", ringSize + 20, ringSize + 20, 17, "&pid=20", []string{"19"}, true},
		{"after a restart", 10, 0, 7, "", []string{"8", "9"}, true},
		{"far behind", maxResume + 2300, 0, 40, "", []string{"gap 2259", "2300", "2301"}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			w, url := streaming(t)
			w.events.docs = docs(0, c.kept)
			deliver(t, w.hub, docs(0, c.live)...)
			ch := listenTo(t, url+"?last_event_id="+doc(c.after).ID+c.query)
			if got := titles(t, ch, len(c.want)); !cmp.Equal(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
			if asked := w.events.filter().Before != "" || w.events.filter().Limit != 0 || w.events.filter().After != ""; asked != c.askedEvents {
				t.Errorf("store asked: %t", asked)
			}
		})
	}
	// What comes live follows without a seam, and the header does what the parameter does.
	w, url := streaming(t)
	w.events.docs = docs(0, 5)
	deliver(t, w.hub, docs(3, 5)...)
	ch := listenTo(t, url, "Last-Event-ID", doc(0).ID)
	opened(t, w.hub, 1)
	deliver(t, w.hub, doc(5))
	if got := titles(t, ch, 5); !cmp.Equal(got, []string{"1", "2", "3", "4", "5"}) {
		t.Errorf("store, ring, live: %v", got)
	}
}

// TestStreamResumeOvertakes resumes at a place that only the store knows, before
// the store has what the ring begins with.
func TestStreamResumeOvertakes(t *testing.T) {
	w, url := streaming(t)
	w.events.docs = docs(0, 3)
	deliver(t, w.hub, docs(5, 8)...)
	ch := listenTo(t, url, "Last-Event-ID", doc(1).ID)
	opened(t, w.hub, 1)
	time.Sleep(150 * time.Millisecond)
	w.events.keep(docs(3, 8)...)
	if got, want := titles(t, ch, 6), []string{"2", "3", "4", "5", "6", "7"}; !cmp.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// TestStreamResumeTwice: what comes while a stream is resumed is in the store
// and in the queue, and is sent once.
func TestStreamResumeTwice(t *testing.T) {
	w, url := streaming(t)
	w.events.docs = docs(0, 350) // four pages
	w.events.slow = 20 * time.Millisecond
	ch := listenTo(t, url, "Last-Event-ID", doc(0).ID)
	opened(t, w.hub, 1)
	live := docs(350, 360)
	deliver(t, w.hub, live...)
	w.events.keep(live...)
	got := titles(t, ch, 359)
	for i, s := range got {
		if s != fmt.Sprint(i+1) {
			t.Fatalf("event %d is %s", i+1, s)
		}
	}
	silent(t, ch)
}

// TestStreamResumeUnderLoad: more events come while a stream is resumed than its
// queue holds; it gets all of them, in order.
func TestStreamResumeUnderLoad(t *testing.T) {
	w, url := streaming(t)
	w.events.docs = docs(0, 350)
	w.events.slow = 20 * time.Millisecond
	const n = 350 + ringSize + 300
	ch := listenTo(t, url, "Last-Event-ID", doc(0).ID)
	opened(t, w.hub, 1)
	go func() {
		for i := 350; i < n; i += 16 {
			batch := docs(i, min(i+16, n))
			w.events.keep(batch...)
			w.hub.Deliver(t.Context(), batch)
			time.Sleep(10 * time.Millisecond) // 1,600 a second
		}
	}()
	for i := 1; i < n; i++ {
		if s := titles(t, ch, 1)[0]; s != fmt.Sprint(i) {
			t.Fatalf("event %d is %s", i, s)
		}
	}
}

func TestPrevious(t *testing.T) {
	for id, want := range map[string]string{
		"01ARZ3NDEKTSV4RRFFQ69G5FAV": "01ARZ3NDEKTSV4RRFFQ69G5FAT",
		"01ARZ3NDEK0000000000000000": "01ARZ3NDEJZZZZZZZZZZZZZZZZ",
		"00000000000000000000000001": "00000000000000000000000000",
		"no id":                      "no id",
	} {
		if got := previous(id); got != want {
			t.Errorf("%s: %s, want %s", id, got, want)
		}
	}
}

// TestStreamResumeWithoutStore loses what only a store could give, and lives on.
func TestStreamResumeWithoutStore(t *testing.T) {
	for name, change := range map[string]func(*world){
		"no store":     func(w *world) { w.opt.Events = nil },
		"broken store": func(w *world) { w.events.fail = typedError{"internal", "disk on fire"} },
	} {
		w, url := streaming(t)
		change(w)
		deliver(t, w.hub, doc(8))
		ch := listenTo(t, url, "Last-Event-ID", doc(0).ID)
		want := []string{"8"}
		if name == "broken store" {
			want = []string{"gap 1", "8"}
		}
		if got := titles(t, ch, len(want)); !cmp.Equal(got, want) {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// TestSlowReader overruns a reader that takes nothing, and checks that the gap
// has its place and its size.
func TestSlowReader(t *testing.T) {
	h := NewHub()
	r, _, err := h.subscribe(signal.EventFilter{}, "")
	if err != nil {
		t.Fatal(err)
	}
	deliver(t, h, docs(0, queueSize+7)...)
	q, lost := r.take()
	if len(q) != queueSize || q[0].Title != "event 0" || lost != 7 {
		t.Errorf("%d queued from %s, %d lost", len(q), q[0].Title, lost)
	}
	deliver(t, h, doc(1000))
	if q, lost := r.take(); len(q) != 1 || lost != 0 {
		t.Errorf("after the gap: %d queued, %d lost", len(q), lost)
	}
	if _, total := h.stats(); total != 7 {
		t.Errorf("%d lost in total", total)
	}
}

// TestGapOnTheWire sends a burst in one call, faster than any reader.
func TestGapOnTheWire(t *testing.T) {
	w, url := streaming(t)
	ch := listenTo(t, url)
	opened(t, w.hub, 1)
	// The reader's goroutine may take the queue in between: the sum must hold.
	const n = 20 * queueSize
	deliver(t, w.hub, docs(0, n)...)
	seen, lost := 0, 0
	for seen+lost < n {
		for _, s := range titles(t, ch, 1) {
			var g int
			if _, err := fmt.Sscanf(s, "gap %d", &g); err == nil {
				lost += g
				continue
			}
			if want := fmt.Sprint(seen + lost); s != want {
				t.Fatalf("event %s follows %d events and gaps of %d", s, seen, lost)
			}
			seen++
		}
	}
	if lost == 0 || seen < queueSize {
		t.Errorf("%d seen, %d lost", seen, lost)
	}
}

// TestHungReader never reads from its socket: the write deadline must end it.
func TestHungReader(t *testing.T) {
	w, url := streaming(t)
	w.streamWrite = 50 * time.Millisecond
	addr := strings.TrimSuffix(strings.TrimPrefix(url, "http://"), "/api/v1/events/stream")
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.(*net.TCPConn).SetReadBuffer(4096); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(c, "GET /api/v1/events/stream HTTP/1.1\r\nHost: %s\r\n\r\n", addr)
	opened(t, w.hub, 1)
	start := time.Now()
	for i := range 16 {
		big := doc(i)
		big.Fields = json.RawMessage(`"` + strings.Repeat("x", 1<<20) + `"`)
		deliver(t, w.hub, big)
	}
	if d := time.Since(start); d > time.Second {
		t.Errorf("a hung reader held the pipe for %s", d)
	}
	opened(t, w.hub, 0)
}

func TestHeartbeat(t *testing.T) {
	w, url := streaming(t)
	w.heartbeat = 10 * time.Millisecond
	ch := listenTo(t, url)
	for range 3 {
		if m := next(t, ch); m.event != "heartbeat" || m.data != "{}" || m.id != "" {
			t.Errorf("%+v", m)
		}
	}
}

func TestReaderLimit(t *testing.T) {
	w, url := streaming(t)
	for range maxReaders {
		if _, _, err := w.hub.subscribe(signal.EventFilter{}, ""); err != nil {
			t.Fatal(err)
		}
	}
	rec := w.get("/api/v1/events/stream")
	wantProblem(t, rec, http.StatusServiceUnavailable, "64 streams")
	if rec.Header().Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	for r := range w.hub.readers {
		w.hub.unsubscribe(r)
		break
	}
	deliver(t, w.hub, doc(0))
	ch := listenTo(t, url)
	opened(t, w.hub, maxReaders)
	deliver(t, w.hub, doc(1))
	next(t, ch)
}

// TestStreamLeaves checks that a reader that goes away is forgotten.
func TestStreamLeaves(t *testing.T) {
	w, url := streaming(t)
	ctx, cancel := context.WithCancel(t.Context())
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	opened(t, w.hub, 1)
	cancel()
	opened(t, w.hub, 0)
}

func BenchmarkDeliver(b *testing.B) {
	h := NewHub()
	for range 16 {
		if _, _, err := h.subscribe(signal.EventFilter{Kinds: []string{"oom_kill"}}, ""); err != nil {
			b.Fatal(err)
		}
	}
	list := docs(0, 1)
	for b.Loop() {
		if err := h.Deliver(b.Context(), list); err != nil {
			b.Fatal(err)
		}
	}
}
