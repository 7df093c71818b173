package probe

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"huatuo/internal/kern/load"
)

// maxAsking bounds the threads that devices may hold which never answer. A
// storage server has some 24 disks.
const maxAsking = 32

// Asker asks devices that may hang. Each is asked in a goroutine of its own,
// so that neither a scrape nor the end of the probe waits for one, and one that
// has not answered is not asked again until it has. It is safe for concurrent use.
type Asker[T any] struct {
	timeout time.Duration
	ask     func(name string) (T, error)

	mu      sync.Mutex
	asking  int
	changed chan struct{} // closed when a device has answered
	devices map[string]*asked[T]
}

type asked[T any] struct {
	Answer[T]
	busy   bool
	listed bool
}

// Answer is what a device said when it was asked last.
type Answer[T any] struct {
	Name  string
	Value T     // of the last answer; the zero value until there is one
	Known bool  // there is a Value, and nothing has gone wrong since
	Err   error // of the last try
	Hung  bool  // it has not answered within the timeout, and still has not
}

// NewAsker returns an Asker that calls ask to ask a device and waits that long
// for it.
func NewAsker[T any](timeout time.Duration, ask func(name string) (T, error)) *Asker[T] {
	return &Asker[T]{timeout: timeout, ask: ask, changed: make(chan struct{}), devices: map[string]*asked[T]{}}
}

// Ask asks the devices of these names and returns when all have answered, when
// the timeout is over or when ctx is done. Others are forgotten.
func (a *Asker[T]) Ask(ctx context.Context, names []string) {
	a.mu.Lock()
	for _, d := range a.devices {
		d.listed = false
	}
	for _, n := range names {
		d := a.devices[n]
		if d == nil {
			d = &asked[T]{Answer: Answer[T]{Name: n}}
			a.devices[n] = d
		}
		d.listed = true
		if !d.busy && a.asking < maxAsking {
			d.busy = true
			a.asking++
			go a.one(d)
		}
	}
	for n, d := range a.devices {
		if !d.listed && !d.busy {
			delete(a.devices, n)
		}
	}
	a.mu.Unlock()
	a.wait(ctx)
}

func (a *Asker[T]) one(d *asked[T]) {
	v, err := a.ask(d.Name)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asking--
	d.busy, d.Hung, d.Err, d.Known = false, false, err, err == nil
	if err == nil {
		d.Value = v
	}
	close(a.changed)
	a.changed = make(chan struct{})
}

// wait returns once nobody is asked any more who is not known to hang.
func (a *Asker[T]) wait(ctx context.Context) {
	late := time.NewTimer(a.timeout)
	defer late.Stop()
	for {
		a.mu.Lock()
		open, changed := 0, a.changed
		for _, d := range a.devices {
			if d.busy && !d.Hung {
				open++
			}
		}
		a.mu.Unlock()
		if open == 0 {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-late.C:
			a.mu.Lock()
			defer a.mu.Unlock()
			for _, d := range a.devices {
				d.Hung = d.busy
			}
			return
		}
	}
}

// Answers returns what the devices said, in the order of their names.
func (a *Asker[T]) Answers() []Answer[T] {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := make([]Answer[T], 0, len(a.devices))
	for _, d := range a.devices {
		if d.listed {
			out = append(out, d.Answer)
		}
	}
	slices.SortFunc(out, func(x, y Answer[T]) int { return cmp.Compare(x.Name, y.Name) })
	return out
}

// Poll asks the devices that names returns, at once and then each d, until ctx
// is done: the run of a probe that polls devices. It tells env that the probe is ready
// after the first round. done, which may be nil, is called after each.
func (a *Asker[T]) Poll(ctx context.Context, env *Env, d time.Duration, names func() []string, done func(), hooks ...load.HookState) error {
	ready := false
	return Every(ctx, d, func() error {
		a.Ask(ctx, names())
		if done != nil {
			done()
		}
		if !ready {
			ready = true
			env.Ready(hooks...)
		}
		return nil
	})
}
