package symbol

import (
	"sync"
	"sync/atomic"
	"time"
)

const (
	// stuckAfter is when work no longer counts against the crew: what blocks
	// for so long waits for a network file system, a FUSE server or a process
	// that holds its own mmap_lock, and may do so for ever.
	stuckAfter = 5 * time.Second
	// maxStuck bounds the goroutines, and threads, that such work may hold.
	maxStuck = 16
)

// crew runs work that may block, a few pieces at a time.
type crew struct {
	slots   chan struct{}
	waiting atomic.Int32
	most    int32
	stuck   atomic.Int32
}

func newCrew(size int, waiting int32) *crew {
	return &crew{slots: make(chan struct{}, size), most: waiting}
}

// do runs fn in the background. It reports false, and does nothing, when too
// much is waiting already.
func (c *crew) do(fn func()) bool {
	if c.waiting.Add(1) > c.most {
		c.waiting.Add(-1)
		return false
	}
	go func() {
		c.slots <- struct{}{}
		c.waiting.Add(-1)
		var once sync.Once
		release := func() { once.Do(func() { <-c.slots }) }
		timer := time.AfterFunc(stuckAfter, func() {
			if c.stuck.Add(1) <= maxStuck {
				release()
			}
		})
		fn()
		if !timer.Stop() {
			c.stuck.Add(-1)
		}
		release()
	}()
	return true
}

// patience is how long one call may still wait. The clock starts with the
// first wait, so that a call that needs none makes no timer.
type patience struct {
	limit time.Duration
	timer *time.Timer
	over  bool
}

// await waits for done and reports whether it came in time.
func (p *patience) await(done <-chan struct{}) bool {
	if p.over {
		select {
		case <-done:
			return true
		default:
			return false
		}
	}
	if p.timer == nil {
		p.timer = time.NewTimer(p.limit)
	}
	select {
	case <-done:
		return true
	case <-p.timer.C:
		p.over = true
		return false
	}
}

func (p *patience) stop() {
	if p.timer != nil {
		p.timer.Stop()
	}
}
