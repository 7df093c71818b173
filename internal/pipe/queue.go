package pipe

import (
	"context"
	"sync"
	"time"
)

// queue is a bounded FIFO that drops its oldest entry rather than block.
type queue[T any] struct {
	mu     sync.Mutex
	buf    []T
	head   int
	n      int
	closed bool
	wake   chan struct{} // holds a token when there may be something to pop
	done   chan struct{} // closed with the queue
}

func newQueue[T any](capacity int) *queue[T] {
	return &queue[T]{buf: make([]T, capacity), wake: make(chan struct{}, 1), done: make(chan struct{})}
}

// push adds v. When the queue is full it removes the oldest entry and returns
// it with true; after close it returns v itself with true.
func (q *queue[T]) push(v T) (old T, dropped bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return v, true
	}
	if q.n == len(q.buf) {
		old, dropped = q.buf[q.head], true
		q.head = (q.head + 1) % len(q.buf)
		q.n--
	}
	q.buf[(q.head+q.n)%len(q.buf)] = v
	q.n++
	q.signal()
	return old, dropped
}

func (q *queue[T]) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// take removes up to max entries without waiting. open is false once the queue
// is closed and empty.
func (q *queue[T]) take(into []T, max int) (out []T, open bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	var zero T
	for len(into) < max && q.n > 0 {
		into = append(into, q.buf[q.head])
		q.buf[q.head] = zero
		q.head = (q.head + 1) % len(q.buf)
		q.n--
	}
	if q.n > 0 || q.closed {
		q.signal()
	}
	return into, !q.closed || q.n > 0 || len(into) > 0
}

// popAll waits for at least one entry and returns up to max; false when the
// queue is closed and empty, or ctx is done.
func (q *queue[T]) popAll(ctx context.Context, into []T, max int) ([]T, bool) {
	for {
		out, open := q.take(into, max)
		if len(out) > len(into) {
			return out, true
		}
		if !open {
			return out, false
		}
		select {
		case <-ctx.Done():
			return out, false
		case <-q.wake:
		}
	}
}

// pop waits for one entry.
func (q *queue[T]) pop(ctx context.Context) (v T, ok bool) {
	out, ok := q.popAll(ctx, nil, 1)
	if !ok {
		return v, false
	}
	return out[0], true
}

// popBy waits for one entry until a time, or without end when that is zero. open
// is false when the queue is closed and empty, or ctx is done.
func (q *queue[T]) popBy(ctx context.Context, by time.Time) (v T, ok, open bool) {
	wait := ctx
	if !by.IsZero() {
		var cancel context.CancelFunc
		wait, cancel = context.WithDeadline(ctx, by)
		defer cancel()
	}
	if v, ok = q.pop(wait); ok {
		return v, true, true
	}
	return v, false, ctx.Err() == nil && wait.Err() != nil
}

// close lets pop drain what is there and then return false.
func (q *queue[T]) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.closed {
		close(q.done)
	}
	q.closed = true
	q.signal()
}

// pause waits for d, or until the queue is closed or ctx is done.
func (q *queue[T]) pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-q.done:
	case <-t.C:
	}
}

func (q *queue[T]) len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.n
}
