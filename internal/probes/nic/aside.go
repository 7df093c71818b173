package nic

import (
	"context"
	"sync"
	"time"

	"huatuo/internal/kern/clock"
)

// aside is the result of something that may hang in the kernel: one goroutine
// does it, others see the last result and how old it is.
type aside[T any] struct {
	mu   sync.Mutex
	last T
	at   time.Time // of last; at first when it was begun
}

// keep calls read at once, then each period, and a second after kick has
// something, until ctx ends. complain gets the errors.
func (a *aside[T]) keep(ctx context.Context, now func() time.Time, period time.Duration, kick <-chan struct{}, read func() (T, error), complain func(error)) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	soon := true
	for {
		select {
		case <-ctx.Done():
			return
		case <-kick:
			if !soon {
				soon = true
				timer.Reset(min(period, time.Second)) // what comes together is one reading
			}
			continue
		case <-timer.C:
		}
		v, err := read()
		if err != nil {
			complain(err)
		} else {
			a.mu.Lock()
			a.last, a.at = v, now()
			a.mu.Unlock()
		}
		soon = false
		timer.Reset(clock.Until(period))
	}
}

// get returns the last result and when it was had.
func (a *aside[T]) get() (T, time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.last, a.at
}
