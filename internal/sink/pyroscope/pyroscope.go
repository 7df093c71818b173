// Package pyroscope sends profiles to other servers while they are taken: to
// Pyroscope by its push API, as one pprof profile of each series and interval,
// or to anything that takes OTLP profiles.
//
// A Sink gathers the samples of an interval, encodes them, and sends what it
// made from a queue of its own. Nothing blocks who adds samples: when the server
// is slow or away the oldest requests are dropped, and every sample is counted
// as delivered, dropped, failed or still on its way.
package pyroscope

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"huatuo/internal/signal"
)

const (
	// maxFrames in the stacks that are gathered: some 20 MB. An interval with
	// more is sent in parts.
	maxFrames = 200_000
	// maxTries of a request. With the pauses between them that is 30 s: a server
	// that is restarted loses nothing, and a dead one does not hold the queue.
	maxTries = 6
	// firstPause before a request is tried again; each is twice the one before.
	firstPause = time.Second
	// maxPause is how long a server may ask to be left alone.
	maxPause = time.Minute
	// drain is how long the end of the agent waits for what is still on its way.
	drain = 2 * time.Second
	// sendTimeout of one try.
	sendTimeout = 20 * time.Second
)

// wire is how profiles are sent.
type wire interface {
	// encode makes requests of the samples of an interval.
	encode(w *window) ([]request, error)
	// send sends one. An error says whether it is worth another try.
	send(ctx context.Context, r request) *sendError
}

// request is something to send, and what it stands for.
type request struct {
	body    any
	samples uint64
}

// sendError is why a request was not taken.
type sendError struct {
	err   error
	final bool          // it will not be taken later either
	after time.Duration // what the server asked to wait
}

// Options of New.
type Options struct {
	Name     string // in accounts and the log
	Log      *slog.Logger
	Interval time.Duration
	Queue    int      // requests that may wait
	GroupBy  []string // labels that tell series apart
	Labels   []Label  // of every series
	Instance string   // name of this machine
	Client   Client

	pause time.Duration // shorter in tests
}

// Label is a label that all series get.
type Label struct{ Name, Value string }

// Sink is one server that profiles are sent to.
type Sink struct {
	opt  Options
	wire wire
	full chan struct{} // holds a token when the window has to end
	wake chan struct{} // holds a token when there may be a request to send

	mu      sync.Mutex
	now     *window
	waiting []request
	taken   uint64
	done    signal.SinkAccount // Delivered, Dropped, Failed
	err     error
}

// New returns a Sink that sends to Pyroscope's push API.
func New(o Options) (*Sink, error) {
	c, err := o.Client.http()
	if err != nil {
		return nil, err
	}
	return newSink(o, newPush(o, c)), nil
}

// NewOTLP returns a Sink that sends OTLP profiles by HTTP.
func NewOTLP(o Options) (*Sink, error) {
	c, err := o.Client.http()
	if err != nil {
		return nil, err
	}
	return newSink(o, newOTLP(o, c)), nil
}

func newSink(o Options, w wire) *Sink {
	if o.pause == 0 {
		o.pause = firstPause
	}
	return &Sink{opt: o, wire: w, full: make(chan struct{}, 1), wake: make(chan struct{}, 1), now: newWindow(time.Now())}
}

// Add takes a sample. It does not wait: a sample for which there is no room,
// because the last window is still being encoded, is dropped.
func (s *Sink) Add(x signal.LabeledSample) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken++
	if s.now.frames > 2*maxFrames {
		s.done.Dropped++
		return
	}
	s.now.add(&x, s.opt.GroupBy)
	if s.now.frames > maxFrames {
		token(s.full)
	}
}

func token(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Run sends until ctx is done, and then for a moment what is left.
func (s *Sink) Run(ctx context.Context) {
	hard, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(drain, cancel) })
	defer stop()
	encoded := make(chan struct{})
	go func() {
		defer close(encoded)
		s.encode(ctx)
	}()
	for last := false; ; {
		for r, ok := s.take(); ok; r, ok = s.take() {
			s.account(r.samples, s.try(ctx, hard, r))
		}
		if last {
			return
		}
		select {
		case <-s.wake:
		case <-encoded:
			last = true
		}
	}
}

// encode makes requests of each window until ctx is done.
func (s *Sink) encode(ctx context.Context) {
	t := time.NewTicker(s.opt.Interval)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			s.flush()
			return
		case <-t.C:
		case <-s.full:
		}
		s.flush()
	}
}

// flush ends the window and queues what it holds.
func (s *Sink) flush() {
	s.mu.Lock()
	w := s.now
	s.now = newWindow(time.Now())
	s.mu.Unlock()
	if w.samples == 0 {
		return
	}
	w.end = time.Now()
	requests, err := s.wire.encode(w)
	if err != nil {
		s.account(w.samples, &sendError{err: err, final: true})
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range requests {
		s.put(r)
	}
	token(s.wake)
}

// put queues a request; the oldest goes when there is no room. Called with mu held.
func (s *Sink) put(r request) {
	if len(s.waiting) >= s.opt.Queue {
		s.done.Dropped += s.waiting[0].samples
		s.waiting[0] = request{}
		s.waiting = s.waiting[1:]
	}
	s.waiting = append(s.waiting, r)
}

// take returns the oldest request that waits.
func (s *Sink) take() (request, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.waiting) == 0 {
		return request{}, false
	}
	r := s.waiting[0]
	s.waiting[0] = request{}
	s.waiting = s.waiting[1:]
	return r, true
}

// try sends a request until it is taken or there is no use in it. Once ctx is
// done a failure is the last.
func (s *Sink) try(ctx, hard context.Context, r request) *sendError {
	pause := s.opt.pause
	for n := 1; ; n++ {
		one, cancel := context.WithTimeout(hard, sendTimeout)
		failed := s.wire.send(one, r)
		cancel()
		if failed == nil || failed.final || n == maxTries {
			return failed
		}
		s.note(failed.err)
		// Not all agents of a fleet at the same moment.
		wait := max(pause/2+rand.N(pause), min(failed.after, maxPause))
		select {
		case <-ctx.Done():
			return failed
		case <-time.After(wait):
		}
		pause *= 2
	}
}

func (s *Sink) account(samples uint64, failed *sendError) {
	var err error
	if failed != nil {
		err = failed.err
	}
	s.note(err)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.done.Failed += samples
		return
	}
	s.done.Delivered += samples
}

// note logs when the server begins to fail and when it works again.
func (s *Sink) note(err error) {
	s.mu.Lock()
	was := s.err
	s.err = err
	s.mu.Unlock()
	switch {
	case was == nil && err != nil:
		s.opt.Log.Warn("profiles are not taken; they wait, then the oldest are dropped", "sink", s.opt.Name, "err", err)
	case was != nil && err == nil:
		s.opt.Log.Info("profiles are taken again", "sink", s.opt.Name)
	}
}

// Account tells how many samples it was given and what became of them.
func (s *Sink) Account() (taken uint64, a signal.SinkAccount) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a = s.done
	a.Sink = s.opt.Name
	a.Queued = s.taken - a.Delivered - a.Dropped - a.Failed
	return s.taken, a
}

// State is how a sink is doing.
type State struct {
	Name             string
	Queued, Capacity int // requests
	Err              error
}

// State tells how it is doing; Err is why the last request was not taken.
func (s *Sink) State() State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return State{s.opt.Name, len(s.waiting), s.opt.Queue, s.err}
}
