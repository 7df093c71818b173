package console

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/oklog/ulid/v2"

	"huatuo/internal/signal"
)

// heartbeat keeps proxies from closing a quiet stream and tells a reader that
// it is still connected.
const heartbeat = 15 * time.Second

// streamWrite is how long one write may hang before the reader is cut off.
const streamWrite = 10 * time.Second

// maxResume bounds the events that a stream reads from the store before it
// goes live: about a day on a node with one event a minute. A reader that was
// away for longer gets a gap and can page through /events.
const maxResume = 1000

// resumePage is how many of them are read at a time.
const resumePage = 100

// stream serves /api/v1/events/stream.
func (s *Server) stream(w http.ResponseWriter, r *http.Request) {
	f, after, err := streamParams(r)
	if err != nil {
		problem(w, http.StatusUnprocessableEntity, err.Error())
		return
	}
	reader, older, err := s.opt.Hub.subscribe(f, after)
	if err != nil {
		w.Header().Set("Retry-After", "30")
		problem(w, http.StatusServiceUnavailable, fmt.Sprintf("%d streams are open already: close one", maxReaders))
		return
	}
	defer s.opt.Hub.unsubscribe(reader)
	out := &sse{w: w, rc: http.NewResponseController(w), limit: s.streamWrite}
	// The server's read timeout would end the stream: there is nothing to read.
	if err := out.rc.SetReadDeadline(time.Time{}); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no") // nginx would hold events back
	if out.write("", "", ": connected") != nil {
		return
	}
	for older != "" {
		if s.resume(r.Context(), out, f, after, older) != nil {
			return
		}
		if after = max(after, out.last); older != maxID {
			after = max(after, previous(older))
		}
		older = s.opt.Hub.rejoin(reader, after)
	}
	s.follow(r.Context(), out, reader)
}

// follow copies the queue of reader until somebody has enough.
func (s *Server) follow(ctx context.Context, out *sse, reader *reader) {
	beat := time.NewTicker(s.heartbeat)
	defer beat.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.stopping:
			return
		case <-beat.C:
			if out.write("heartbeat", "", "data: {}") != nil {
				return
			}
		case <-reader.wake:
			docs, lost := reader.take()
			for _, d := range docs {
				if out.document(d) != nil {
					return
				}
			}
			if lost > 0 && out.gap(lost) != nil {
				return
			}
		}
	}
}

// resume sends from the store what lies between the ids after and older. A
// store that fails costs these events, not the stream.
func (s *Server) resume(ctx context.Context, out *sse, f signal.EventFilter, after, older string) error {
	if s.opt.Events == nil {
		return nil
	}
	s.awaitStored(ctx, older)
	// Ids, not times: they tell the order in which events came, also when
	// somebody has set the clock.
	f.After, f.Before, f.Limit = after, older, resumePage
	// The store gives the newest first and the stream wants the oldest first.
	// The pages are found first and read again, so that a stream never holds
	// more than two: many readers may come back at the same time. The newest is
	// kept, for a second look at it would see what has come since.
	newest, err := s.opt.Events.Events(ctx, f)
	page := newest
	begins := []string{older}
	for err == nil && page.Next != "" && len(begins) < maxResume/resumePage {
		begins = append(begins, page.Next)
		f.Before = page.Next
		page, err = s.opt.Events.Events(ctx, f)
	}
	if err == nil && page.Next != "" {
		f.Before = page.Next
		err = out.gap(s.older(ctx, f))
	}
	for i := len(begins) - 1; ; i-- {
		switch {
		case ctx.Err() != nil:
			return ctx.Err() // the client has gone
		case out.err != nil:
			return out.err
		case err != nil:
			s.log.Warn("resume stream", "error", err)
			return out.problem(err)
		}
		for _, d := range slices.Backward(page.Events) {
			if err := out.document(d); err != nil {
				return err
			}
		}
		if i == 0 {
			return nil
		}
		if page = newest; i > 1 {
			f.Before = begins[i-1]
			page, err = s.opt.Events.Events(ctx, f)
		}
	}
}

// awaitStored waits until the store has the event that the ring begins with,
// and so all before it: it gets the same events as the ring does, a little
// later. A store that has stopped taking events is not waited for longer than
// the pipe tries to give it a batch.
func (s *Server) awaitStored(ctx context.Context, id string) {
	if id == maxID {
		return
	}
	for range 30 {
		_, err := s.opt.Events.Event(ctx, id)
		if err == nil || typeOf(err) != notFoundError {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// older counts the events that a resumed stream leaves out: those of f before
// the page that f.Before begins. At least one, since there is a next page.
func (s *Server) older(ctx context.Context, f signal.EventFilter) uint64 {
	f.To = time.Unix(1<<40, 0) // the clock may have stepped back: some may seem to have yet to come
	buckets, err := s.opt.Events.Timeline(ctx, f, 1)
	if err != nil {
		return 1
	}
	n := uint64(0)
	for _, b := range buckets {
		for _, c := range b.Count {
			n += uint64(c)
		}
	}
	return max(n, 1)
}

// streamParams reads the query of a stream and the id to resume after.
func streamParams(r *http.Request) (signal.EventFilter, string, error) {
	q := r.URL.Query()
	after := r.Header.Get("Last-Event-ID")
	if after == "" {
		// An EventSource cannot set the header when it starts.
		after = q.Get("last_event_id")
	}
	q.Del("last_event_id")
	if after != "" {
		if _, err := ulid.ParseStrict(after); err != nil {
			return signal.EventFilter{}, "", fmt.Errorf("last_event_id: %q is not the id of an event", clip(after))
		}
	}
	for _, name := range []string{"from", "to", "q", "limit", "before"} {
		if q.Has(name) {
			return signal.EventFilter{}, "", fmt.Errorf("%s: a stream does not filter on it; use /api/v1/events", name)
		}
	}
	f, err := filterOf(q)
	return f, after, err
}

// sse writes server-sent events.
type sse struct {
	w     http.ResponseWriter
	rc    *http.ResponseController
	limit time.Duration
	last  string // id of the last document
	err   error  // of the first write that failed
}

// document sends d, unless it was sent: what happens while a stream is resumed
// may be in the store and in the queue. Ids tell, because they only grow.
func (o *sse) document(d *signal.Document) error {
	if d.ID <= o.last {
		return nil
	}
	o.last = d.ID
	b, err := json.Marshal(d)
	if err != nil { // fields that are not JSON: the store's copy has the same
		return o.gap(1)
	}
	return o.write("event", d.ID, "data: "+string(b))
}

func (o *sse) gap(lost uint64) error {
	return o.write("gap", "", fmt.Sprintf(`data: {"lost":%d}`, lost))
}

// problem tells the reader that what it missed could not be read.
func (o *sse) problem(err error) error {
	b, merr := json.Marshal(map[string]any{"lost": 1, "reason": err.Error()})
	if merr != nil {
		return merr
	}
	return o.write("gap", "", "data: "+string(b))
}

// write sends one event. JSON has no raw line break, so data is one line.
func (o *sse) write(event, id, data string) error {
	if o.err != nil {
		return o.err
	}
	text := ""
	if id != "" {
		text += "id: " + id + "\n"
	}
	if event != "" {
		text += "event: " + event + "\n"
	}
	o.err = o.send(text + data + "\n\n")
	return o.err
}

func (o *sse) send(text string) error {
	if err := o.rc.SetWriteDeadline(time.Now().Add(o.limit)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	if _, err := o.w.Write([]byte(text)); err != nil {
		return err
	}
	return o.rc.Flush()
}
