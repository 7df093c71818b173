// Package ring reads what BPF programs write, from a ring buffer or, on
// kernels without one, from a perf event array, behind one reader.
//
// Programs submit without waking the reader, because a wake-up costs fifty
// times the submit (bpf/include/huatuo.h). A Drainer looks at all rings on one
// timer and wakes the readers that have something to read; a program wakes
// its reader itself only when the ring is half full.
package ring

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/perf"
	"github.com/cilium/ebpf/ringbuf"
)

// DrainEvery is the period of a Drainer: the longest that an event waits in
// its ring. A wake-up of an idle process costs some 100 µs, most of it the Go
// runtime's: at 4 Hz that is 0.04 % of a core. What the rate limits let through
// in that time fits into half a ring, and past that mark the program wakes the
// reader itself.
const DrainEvery = 250 * time.Millisecond

// perCPUBytes of a perf buffer: what the rate limits let through on one CPU, twice.
const perCPUBytes = 64 * 1024

// Drainer wakes readers. The zero value is not ready; make one with NewDrainer.
type Drainer struct {
	mu    sync.Mutex
	rings map[*Reader]struct{}
	stop  chan struct{}
	once  sync.Once
}

// NewDrainer starts the timer; Close ends it.
func NewDrainer() *Drainer {
	d := &Drainer{rings: map[*Reader]struct{}{}, stop: make(chan struct{})}
	go d.loop()
	return d
}

func (d *Drainer) loop() {
	for {
		// At multiples of the period, as clock.Until has it: the rest of the
		// agent wakes up at these moments too.
		t := time.NewTimer(DrainEvery - time.Duration(time.Now().UnixNano())%DrainEvery)
		select {
		case <-d.stop:
			t.Stop()
			return
		case <-t.C:
		}
		d.mu.Lock()
		for r := range d.rings {
			r.nudge()
		}
		d.mu.Unlock()
	}
}

// Close stops the timer. Readers must be closed by their owners.
func (d *Drainer) Close() { d.once.Do(func() { close(d.stop) }) }

// Reader reads one ring.
type Reader struct {
	d    *Drainer
	ring *ringbuf.Reader
	perf *perf.Reader

	ringRec ringbuf.Record // reused: reading allocates nothing
	perfRec perf.Record
}

// Open starts to read m, a ring buffer or a perf event array.
func (d *Drainer) Open(m *ebpf.Map) (*Reader, error) {
	if m == nil {
		return nil, errors.New("BUG: the object has no ring")
	}
	r := &Reader{d: d}
	var err error
	if m.Type() == ebpf.PerfEventArray {
		r.perf, err = perf.NewReaderWithOptions(m, perCPUBytes, perf.ReaderOptions{Watermark: perCPUBytes / 2})
	} else {
		r.ring, err = ringbuf.NewReader(m)
	}
	if err != nil {
		return nil, fmt.Errorf("open ring: %w", err)
	}
	d.mu.Lock()
	d.rings[r] = struct{}{}
	d.mu.Unlock()
	return r, nil
}

// nudge makes a blocked read look at the ring.
func (r *Reader) nudge() {
	if r.perf != nil {
		r.perf.Flush()
		return
	}
	if r.ring.AvailableBytes() > 0 {
		r.ring.Flush()
	}
}

// Close ends reading.
func (r *Reader) Close() error {
	r.d.mu.Lock()
	delete(r.d.rings, r)
	r.d.mu.Unlock()
	if r.perf != nil {
		return r.perf.Close()
	}
	return r.ring.Close()
}

// Read calls f with each sample until ctx is done and what was in the ring by
// then is read; it then returns nil. A sample is valid only while f runs.
// stop, if not nil, is called once ctx is done and before the last samples are
// read: the place to detach the programs, so that nothing is left behind.
func (r *Reader) Read(ctx context.Context, stop func(), f func(raw []byte)) error {
	unhook := context.AfterFunc(ctx, r.flush)
	defer unhook()
	last := false
	for {
		raw, err := r.next()
		switch {
		case err == nil:
			if len(raw) > 0 {
				f(raw)
			}
			continue
		case errors.Is(err, ringbuf.ErrFlushed), errors.Is(err, perf.ErrFlushed):
		case errors.Is(err, ringbuf.ErrClosed), errors.Is(err, perf.ErrClosed):
			return nil
		default:
			return fmt.Errorf("read ring: %w", err)
		}
		if last {
			return nil
		}
		if ctx.Err() != nil {
			if stop != nil {
				stop()
			}
			last = true
			r.flush()
		}
	}
}

func (r *Reader) flush() {
	if r.perf != nil {
		r.perf.Flush()
	} else {
		r.ring.Flush()
	}
}

// next returns the next sample, an empty one for a perf record that only tells
// of losses: the program counted them.
func (r *Reader) next() ([]byte, error) {
	if r.perf != nil {
		err := r.perf.ReadInto(&r.perfRec)
		return r.perfRec.RawSample, err
	}
	err := r.ring.ReadInto(&r.ringRec)
	return r.ringRec.RawSample, err
}

// View returns raw as a *T without copying; the result lives as long as raw.
// T must be a type that bpf2go generated: fixed size, no pointers. View fails
// when raw is too short, so that a stale object cannot make us read past it.
func View[T any](raw []byte) (*T, error) {
	var zero T
	if want := int(unsafe.Sizeof(zero)); len(raw) < want {
		return nil, fmt.Errorf("%d bytes, want %d", len(raw), want)
	}
	if uintptr(unsafe.Pointer(unsafe.SliceData(raw)))%unsafe.Alignof(zero) != 0 {
		raw = append(make([]byte, 0, len(raw)), raw...)
	}
	return (*T)(unsafe.Pointer(unsafe.SliceData(raw))), nil
}
