// Package ring reads what BPF programs write, from a ring buffer or, on
// kernels without one, from a perf event array, behind one reader.
//
// A wake-up costs a program fifty times the submit (bpf/include/huatuo.h). So a
// program wakes its reader for the first event in a while and when the ring is
// half full; after it a Drainer looks at the rings on a timer, until nothing
// more comes. While nothing happens nobody wakes up. A perf event array wakes
// its reader when a buffer is half full only: while there is one, the timer
// goes on.
package ring

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/perf"
	"github.com/cilium/ebpf/ringbuf"
)

// DrainEvery is the period of a Drainer: the longest that an event waits in
// its ring. What the rate limits let through in that time fits into half a ring.
// It is longer than HT_WAKE_NS of bpf/include/huatuo.h: an event that did not
// wake the reader came less than that after one that did.
const DrainEvery = 250 * time.Millisecond

// perCPUBytes of a perf buffer: what the rate limits let through on one CPU, twice.
const perCPUBytes = 64 * 1024

// Drainer wakes readers. The zero value is not ready; make one with NewDrainer.
type Drainer struct {
	mu    sync.Mutex
	rings map[*Reader]struct{}
	perf  int // readers of perf event arrays

	busy atomic.Bool   // something was read since the last look
	kick chan struct{} // holds one token when there may be a reason to look
	stop chan struct{}
	once sync.Once
}

// NewDrainer starts it; Close ends it.
func NewDrainer() *Drainer {
	d := &Drainer{rings: map[*Reader]struct{}{}, kick: make(chan struct{}, 1), stop: make(chan struct{})}
	go d.loop()
	return d
}

// loop looks at the rings from the first event on, until a period has passed in
// which nothing came.
func (d *Drainer) loop() {
	t := time.NewTicker(DrainEvery)
	defer t.Stop()
	for {
		t.Stop()
		select {
		case <-d.stop:
			return
		case <-d.kick:
		}
		t.Reset(DrainEvery)
		for more := true; more; {
			select {
			case <-d.stop:
				return
			case <-t.C:
			}
			more = d.look()
		}
	}
}

// look wakes the readers that have something to read and tells whether to look again.
func (d *Drainer) look() (more bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	more = d.busy.Swap(false) || d.perf > 0
	for r := range d.rings {
		more = r.nudge() || more
	}
	return more
}

// touch tells that something was read.
func (d *Drainer) touch() {
	if d.busy.Load() {
		return
	}
	d.busy.Store(true)
	d.start()
}

func (d *Drainer) start() {
	select {
	case d.kick <- struct{}{}:
	default:
	}
}

// Close ends it. Readers must be closed by their owners.
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
	if r.perf != nil {
		d.perf++
	}
	d.mu.Unlock()
	d.start() // what came before it was open woke nobody
	return r, nil
}

// nudge makes a blocked read look at the ring, if there may be something in it.
func (r *Reader) nudge() bool {
	if r.perf != nil {
		r.perf.Flush()
		return false // the Drainer counts these readers
	}
	if r.ring.AvailableBytes() == 0 {
		return false
	}
	r.ring.Flush()
	return true
}

// Close ends reading.
func (r *Reader) Close() error {
	r.d.mu.Lock()
	if _, open := r.d.rings[r]; open && r.perf != nil {
		r.d.perf--
	}
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
				r.d.touch()
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
