package stress

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"huatuo/internal/signal"
)

// message is one server-sent event.
type message struct{ id, event, data string }

// stream is an open event stream.
type stream struct {
	body   io.ReadCloser
	lines  *bufio.Scanner
	cancel context.CancelFunc
}

// follow opens the stream after an id, or live when that is empty.
func (a *agent) follow(ctx context.Context, after string) (*stream, error) {
	ctx, cancel := context.WithCancel(ctx)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, a.url+"/api/v1/events/stream", nil)
	if err != nil {
		cancel()
		return nil, err
	}
	if after != "" {
		req.Header.Set("Last-Event-ID", after)
	}
	r, err := http.DefaultClient.Do(req)
	if err != nil {
		cancel()
		return nil, err
	}
	if r.StatusCode != http.StatusOK {
		r.Body.Close()
		cancel()
		return nil, &refused{r.StatusCode, r.Header.Get("Retry-After")}
	}
	s := &stream{body: r.Body, lines: bufio.NewScanner(r.Body), cancel: cancel}
	s.lines.Buffer(nil, 1<<20)
	return s, nil
}

// refused is an answer other than 200.
type refused struct {
	code       int
	retryAfter string
}

func (r *refused) Error() string { return fmt.Sprintf("status %d", r.code) }

func (s *stream) close() {
	s.cancel()
	s.body.Close()
}

// next returns the next message that is no comment; false at the end.
func (s *stream) next() (m message, ok bool) {
	for s.lines.Scan() {
		name, value, _ := strings.Cut(s.lines.Text(), ": ")
		switch name {
		case "id":
			m.id = value
		case "event":
			m.event = value
		case "data":
			m.data = value
		case "":
			if m != (message{}) && m.event != "" {
				return m, true
			}
			m = message{}
		}
	}
	return m, false
}

// nextEvent passes over heartbeats.
func (s *stream) nextEvent(t testing.TB) message {
	t.Helper()
	for {
		m, ok := s.next()
		switch {
		case !ok:
			t.Fatal("the stream ended")
		case m.event == "event":
			return m
		case m.event != "heartbeat":
			t.Fatalf("the stream gave %+v", m)
		}
	}
}

// lost reads the data of a gap.
func (m message) lost(t testing.TB) int {
	t.Helper()
	var g struct{ Lost int }
	if err := json.Unmarshal([]byte(m.data), &g); err != nil {
		t.Fatal(err)
	}
	return g.Lost
}

// document reads the data of an event.
func (m message) document(t testing.TB) *signal.Document {
	t.Helper()
	d := new(signal.Document)
	if err := json.Unmarshal([]byte(m.data), d); err != nil {
		t.Fatal(err)
	}
	return d
}

// newConnStream reads a stream whose request was sent by hand.
func newConnStream(c net.Conn) *stream {
	r, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return &stream{lines: bufio.NewScanner(strings.NewReader(""))}
	}
	s := &stream{body: r.Body, lines: bufio.NewScanner(r.Body), cancel: func() {}}
	s.lines.Buffer(nil, 1<<20)
	return s
}
