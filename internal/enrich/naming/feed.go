package naming

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"
)

const (
	// firstPause and lastPause are how long a source is left alone after a
	// failure, the first time and at last.
	firstPause = time.Second
	lastPause  = time.Minute
	// nudgeGap is the least time between two tries that new containers cause.
	nudgeGap = time.Second
)

// Feed says how a source is reached.
type Feed struct {
	Name string // in the log and in metrics: docker, containerd, …
	// Open connects. It returns an error wrapping ErrAbsent when the source
	// is not on this machine.
	Open func(context.Context) (Source, error)
	// Knows tells whether a container may be the source's, by the runtime
	// that the cgroup path tells ("" when it tells none), and by whether the
	// container is in a pod of Kubernetes.
	Knows func(runtime string, inPod bool) bool
	// Lazy sources are asked about single containers only, because asking
	// starts a program.
	Lazy bool
}

// State is how a source is doing.
type State string

// The states of a source.
const (
	Starting State = "starting" // it was not tried yet
	Absent   State = "absent"   // not on this machine
	Down     State = "down"     // it should be there, and cannot be reached
	Up       State = "up"
)

// Status is what the operator is told about a source.
type Status struct {
	Name   string
	State  State
	Reason string // why it is not up
}

// feed keeps one source connected.
type feed struct {
	Feed
	r    *Registry
	rank int // who is believed first
	wake chan struct{}
	sick chan error

	mu    sync.Mutex
	src   Source // nil when it cannot be asked
	state Status
}

func newFeed(r *Registry, f Feed, rank int) *feed {
	return &feed{Feed: f, r: r, rank: rank, wake: make(chan struct{}, 1), sick: make(chan error, 1),
		state: Status{Name: f.Name, State: Starting}}
}

// Sources tells how each source is doing.
func (r *Registry) Sources() []Status {
	var out []Status
	for _, f := range r.feeds {
		f.mu.Lock()
		out = append(out, f.state)
		f.mu.Unlock()
	}
	return out
}

func (f *feed) get() (Source, State) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.src, f.state.State
}

// set notes how the source is doing, and logs when that has changed.
func (f *feed) set(src Source, s State, reason error) {
	st := Status{Name: f.Name, State: s}
	if reason != nil {
		st.Reason = reason.Error()
	}
	f.mu.Lock()
	old := f.state.State
	f.src, f.state = src, st
	f.mu.Unlock()
	if old == s {
		return
	}
	l := f.r.opts.Log.With("source", f.Name)
	switch s {
	case Up:
		l.Info("containers get their names", slog.Bool("on_demand", f.Lazy))
	case Down:
		l.Warn("container names cannot be asked for; it is tried again", "err", reason)
	case Absent:
		l.Debug("no such source of container names", "err", reason)
	}
}

// nudge has an unreachable source tried again soon: a container has started.
func (f *feed) nudge() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// fail tells that a question was not answered.
func (f *feed) fail(err error) {
	select {
	case f.sick <- err:
	default:
	}
}

// run keeps the source connected until ctx is done. first is called when it has
// told what runs, or failed to.
func (f *feed) run(ctx context.Context, first func()) {
	defer first()
	pause := firstPause
	for ctx.Err() == nil {
		began := time.Now()
		err := f.session(ctx, first)
		if ctx.Err() != nil {
			return
		}
		if errors.Is(err, ErrAbsent) {
			f.set(nil, Absent, err)
			first()
			f.rest(ctx, f.r.opts.Interval)
			pause = firstPause
			continue
		}
		if time.Since(began) > lastPause {
			pause = firstPause // it has worked
		}
		f.set(nil, Down, err)
		first()
		f.rest(ctx, pause)
		pause = min(2*pause, lastPause)
	}
}

// rest waits, for less when a container starts that may be the source's.
func (f *feed) rest(ctx context.Context, pause time.Duration) {
	// Agents of a thousand nodes must not come back at the same moment.
	t := time.NewTimer(pause + rand.N(pause/4))
	defer t.Stop()
	soon := time.NewTimer(nudgeGap)
	defer soon.Stop()
	select {
	case <-ctx.Done():
		return
	case <-soon.C:
	case <-t.C:
		return
	}
	select {
	case <-ctx.Done():
	case <-f.wake:
	case <-t.C:
	}
}

// session is one connection, from its beginning to its failure.
func (f *feed) session(ctx context.Context, first func()) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	open, done := context.WithTimeout(ctx, listTime)
	src, err := f.Open(open)
	done()
	if err != nil {
		return err
	}
	defer src.Close()
	select { // of the session before
	case <-f.sick:
	default:
	}
	if err := f.list(ctx, src); err != nil {
		return err
	}
	f.set(src, Up, nil)
	first()
	if f.Lazy {
		<-ctx.Done()
		return ctx.Err()
	}
	return f.follow(ctx, src)
}

// follow reads the source's events, and lists each interval.
func (f *feed) follow(ctx context.Context, src Source) error {
	ready, broken := make(chan struct{}, 1), make(chan error, 1)
	var reading sync.WaitGroup
	defer reading.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	reading.Go(func() {
		once := sync.OnceFunc(func() { ready <- struct{}{} })
		broken <- src.Watch(ctx, once, func(id string) { f.r.jobs.ask(&job{id: id, feed: f}) })
	})
	tick := time.NewTicker(f.r.opts.Interval)
	defer tick.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err = <-f.sick:
		case err = <-broken:
			if errors.Is(err, errors.ErrUnsupported) {
				err = nil
			} else if err == nil {
				err = errors.New("the stream of events ended")
			}
		case <-ready: // what came between the list and the stream
			err = f.list(ctx, src)
		case <-tick.C:
			err = f.list(ctx, src)
		}
		if err != nil {
			return err
		}
	}
}

// list asks for all that runs, and then for what the list leaves out of those
// that are new.
func (f *feed) list(ctx context.Context, src Source) error {
	if f.Lazy {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, listTime)
	defer cancel()
	cs, err := src.List(ctx)
	if err != nil {
		return fmt.Errorf("list containers: %w", err)
	}
	f.r.replace(f.rank, cs)
	for _, c := range cs {
		if c.Partial && f.r.partial(f.rank, c.ID) {
			f.r.jobs.ask(&job{id: c.ID, feed: f})
		}
	}
	return nil
}

// partial tells whether a source has told of a container by lists alone.
func (r *Registry) partial(rank int, id string) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	k := r.byID[id]
	return k != nil && k.parts[rank] != nil && k.parts[rank].c.Partial
}
