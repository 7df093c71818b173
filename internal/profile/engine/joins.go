//go:build !noprofiler

package engine

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"

	"huatuo/internal/kern/ring"
	"huatuo/internal/signal"
)

const (
	cpusMap = "cpus"
	endsMap = "ends"

	// endsMost bounds what is remembered of things whose other half is awaited.
	endsMost = 1 << 17
	// endsFor is how long the end of something waits for its stack, which comes
	// in a quarter of a second, and later when it waits for names.
	endsFor = 10 * time.Second
	// requestsFor is how long a request may take.
	requestsFor = 2 * time.Minute
)

// end is what the programs tell of a thing that has a number: struct end of
// bpf/ends.h.
type end struct {
	ID    uint64
	Value uint64 // of the whole; of pages, 0: they are free again
	Ns    uint64 // from begin to end, of requests
	Bytes uint64 // that those moved
}

// joins puts the stacks of things that begin together with how they ended. It
// belongs to the goroutine that handles traces.
type joins struct {
	o      Entries
	reader *ringbuf.Reader
	record ringbuf.Record
	begun  map[uint64]begun
	ended  map[uint64]ended
	lost   [kindSlots]loss // for want of room
}

type begun struct {
	sample signal.StackSample
	kind   kind
	since  time.Time
}

type ended struct {
	value uint64
	ns    uint64
	bytes uint64
	freed bool
	since time.Time
}

func newJoins(o Entries, m *ebpf.Map) (*joins, error) {
	r, err := ringbuf.NewReader(m)
	if err != nil {
		return nil, fmt.Errorf("read the ends: %w", err)
	}
	return &joins{o: o, reader: r, begun: map[uint64]begun{}, ended: map[uint64]ended{}}, nil
}

func (j *joins) close() {
	if j != nil {
		j.reader.Close()
	}
}

// begin notes a stack; its value is the number.
func (j *joins) begin(k kind, s *signal.StackSample, now time.Time) {
	if len(j.begun) >= endsMost {
		j.lost[k].Samples++
		return
	}
	j.begun[uint64(s.Value)] = begun{*s, k, now}
}

// read takes in what the programs have told.
func (j *joins) read(now time.Time) error {
	j.reader.SetDeadline(now)
	for {
		err := j.reader.ReadInto(&j.record)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the ends: %w", err)
		}
		e, err := ring.View[end](j.record.RawSample)
		if err != nil {
			return fmt.Errorf("read the ends: %w", err)
		}
		j.end(*e, now)
	}
}

func (j *joins) end(e end, now time.Time) {
	have, ok := j.ended[e.ID]
	if !ok && len(j.ended) >= endsMost {
		return // the stack is forgotten in time
	}
	have.since = now
	if e.Value == 0 {
		have.freed = true
	} else {
		have.value, have.ns, have.bytes = e.Value, e.Ns, e.Bytes
	}
	j.ended[e.ID] = have
}

// emit hands on what is complete; all of what is in use, if it is the last time.
func (j *joins) emit(now time.Time, last bool, f func(kind, *signal.StackSample, int64)) {
	for id, b := range j.begun {
		e, known := j.ended[id]
		age := now.Sub(b.since)
		done := false
		switch {
		case b.kind == blockRequest && known:
			done = true
			if e.ns >= uint64(j.o.LeastBlock) {
				b.sample.Value = int64(e.value)
				f(b.kind, &b.sample, int64(e.bytes))
			}
		case b.kind == blockRequest:
			done = age > requestsFor
		case known && e.freed:
			done = true
		case known && (last || age >= j.o.Stays):
			done = true
			b.sample.Value, b.sample.Time = int64(e.value), now
			f(b.kind, &b.sample, 0)
		default:
			done = !known && age > endsFor
		}
		if done {
			delete(j.begun, id)
			delete(j.ended, id)
		}
	}
	for id, e := range j.ended {
		if _, ok := j.begun[id]; !ok && now.Sub(e.since) > endsFor {
			delete(j.ended, id)
		}
	}
}
