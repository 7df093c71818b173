package pipe

import (
	"context"
	"sync"
	"time"

	"huatuo/internal/signal"
)

const (
	// maxBatch documents go to a sink in one call: a transaction of 256 events
	// of 2 KB is written in a few milliseconds.
	maxBatch = 256
	// maxTries of one batch before it counts as failed. With back-off doubling
	// from 100 ms that is 3 s: a hiccup is outlived, and a dead sink drops its
	// own oldest events rather than hold them for ever.
	maxTries = 6
)

// SinkState is how one sink is doing.
type SinkState struct {
	Name     string `json:"name"`
	State    string `json:"state" enum:"ok,retrying"`
	Queued   int    `json:"queued"`
	Capacity int    `json:"capacity"`
	Error    string `json:"error,omitempty" doc:"of the last delivery that failed; empty once one succeeded"`
}

// sinkRunner feeds one sink from its own queue: a slow or dead sink loses its
// own events and no other's.
type sinkRunner struct {
	name  string
	sink  Sink
	pipe  *Pipe
	index int
	queue *queue[item]

	linger time.Duration // how long a batch that is not full waits for more

	mu  sync.Mutex
	err error
}

func (s *sinkRunner) run(ctx context.Context) {
	var items []item
	var docs []*signal.Document
	for {
		var ok bool
		items, ok = s.queue.popAll(ctx, items[:0], maxBatch)
		if !ok {
			return
		}
		if s.linger > 0 && len(items) < maxBatch {
			s.queue.pause(ctx, s.linger)
			items, _ = s.queue.take(items, maxBatch)
		}
		docs = docs[:0]
		for _, it := range items {
			docs = append(docs, it.doc)
		}
		s.account(items, s.deliver(ctx, docs))
		clear(items)
		clear(docs)
	}
}

// deliver tries until the sink takes the batch or maxTries are spent.
func (s *sinkRunner) deliver(ctx context.Context, docs []*signal.Document) error {
	wait := s.pipe.o.Backoff
	for try := 1; ; try++ {
		err := s.sink.Deliver(ctx, docs)
		s.note(err)
		if err == nil || try == maxTries {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(wait):
		}
		wait *= 2
	}
}

// note logs when a sink starts to fail and when it works again.
func (s *sinkRunner) note(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil && err != nil {
		s.pipe.o.Log.Warn("sink fails; its events wait, then the oldest are dropped", "sink", s.name, "err", err)
	}
	if s.err != nil && err == nil {
		s.pipe.o.Log.Info("sink works again", "sink", s.name)
	}
	s.err = err
}

func (s *sinkRunner) account(items []item, err error) {
	s.pipe.mu.Lock()
	defer s.pipe.mu.Unlock()
	for _, it := range items {
		c := &it.acc.sinks[s.index]
		if err != nil {
			c.failed++
		} else {
			c.delivered++
		}
	}
}

// Sinks tells how each sink is doing.
func (p *Pipe) Sinks() []SinkState {
	out := make([]SinkState, 0, len(p.sinks))
	for _, s := range p.sinks {
		s.mu.Lock()
		st := SinkState{Name: s.name, State: "ok", Queued: s.queue.len(), Capacity: p.o.Queue}
		if s.err != nil {
			st.State, st.Error = "retrying", s.err.Error()
		}
		s.mu.Unlock()
		out = append(out, st)
	}
	return out
}
