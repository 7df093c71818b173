package pipe

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"huatuo/internal/signal"
)

// Gatherer runs the collectors of all probes. It is safe for concurrent use.
type Gatherer struct {
	log     *slog.Logger
	timeout time.Duration
	fresh   time.Duration
	now     func() time.Time
	fold    *folder
	mark    func(*signal.Sample) *signal.Exemplar

	mu         sync.Mutex
	collectors []*collector
	last       []signal.Sample
	lastAt     time.Time
	// gather is held for a whole round; mu only for moments.
	gather sync.Mutex
}

// collector is one probe's function. Its batch is its own until a call has
// ended in time, so that a call that hangs disturbs nobody.
type collector struct {
	probe  string
	f      func(*signal.Batch) error
	gone   bool
	busy   bool
	failed bool // the last call: logged once per change
}

// GatherOptions of NewGatherer.
type GatherOptions struct {
	Log *slog.Logger
	// Labels turns a cgroup id into workload labels; known is false for ids
	// that nobody can name.
	Labels func(cgroup uint64) (namespace, pod, container, unit string, known bool)
	// Pipe gives the exemplars; nil for none.
	Pipe *Pipe
	// Timeout of one collector; what takes longer is left out of the round.
	Timeout time.Duration
	// Fresh is how old a round may be and still answer: two scrapers at the
	// same moment cost one round.
	Fresh time.Duration
	Now   func() time.Time
}

// NewGatherer returns a Gatherer without collectors.
func NewGatherer(o GatherOptions) *Gatherer {
	if o.Timeout <= 0 {
		o.Timeout = 2 * time.Second
	}
	if o.Fresh <= 0 {
		o.Fresh = 250 * time.Millisecond
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	g := &Gatherer{log: o.Log, timeout: o.Timeout, fresh: o.Fresh, now: o.Now, fold: newFolder(o.Labels)}
	if o.Pipe != nil {
		g.mark = o.Pipe.exemplar
	}
	return g
}

// Add registers a collector until ctx is done.
func (g *Gatherer) Add(ctx context.Context, probe string, f func(*signal.Batch) error) {
	c := &collector{probe: probe, f: f}
	g.mu.Lock()
	g.collectors = append(g.collectors, c)
	g.mu.Unlock()
	context.AfterFunc(ctx, func() { g.remove(c) })
}

// remove waits for the round that may be using c, so that the probe can free
// what c reads once its context is done and remove has returned.
func (g *Gatherer) remove(c *collector) {
	g.gather.Lock()
	defer g.gather.Unlock()
	g.mu.Lock()
	defer g.mu.Unlock()
	c.gone = true
	for i, x := range g.collectors {
		if x == c {
			g.collectors = append(g.collectors[:i:i], g.collectors[i+1:]...)
			return
		}
	}
}

// Gather runs one round and returns its samples, which the caller must not change.
func (g *Gatherer) Gather(ctx context.Context) ([]signal.Sample, error) {
	g.gather.Lock()
	defer g.gather.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	g.mu.Lock()
	now := g.now()
	if g.last != nil && now.Sub(g.lastAt) < g.fresh && !now.Before(g.lastAt) {
		defer g.mu.Unlock()
		return g.last, nil
	}
	todo := append([]*collector(nil), g.collectors...)
	g.mu.Unlock()

	all := g.run(todo, now)
	if g.mark != nil {
		for i := range all {
			all[i].Exemplar = g.mark(&all[i])
		}
	}
	all = g.fold.fold(all, now)
	g.mu.Lock()
	g.last, g.lastAt = all, g.now()
	g.mu.Unlock()
	return all, nil
}

// Last returns the samples of the last round, nil before the first. It costs
// nothing; the caller must not change them.
func (g *Gatherer) Last() []signal.Sample {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.last
}

// run calls collectors one after the other and returns their samples.
//
// They share one goroutine: to wake one for each, and to be woken by it, costs
// more than most of them do. When one does not return in time, those behind it
// go on in another goroutine.
func (g *Gatherer) run(todo []*collector, now time.Time) []signal.Sample {
	var all []signal.Sample
	for len(todo) > 0 {
		w := &worker{todo: todo, done: make(chan struct{})}
		go w.work(g, now)
		results := w.wait(g.timeout)
		for i, r := range results {
			if r.batch != nil { // else it is still busy with an earlier round
				g.note(todo[i], r.err)
				all = append(all, r.batch.Samples...)
			}
		}
		todo = todo[len(results):]
		if len(todo) > 0 {
			g.note(todo[0], fmt.Errorf("no answer within %v: left out until it returns", g.timeout))
			todo = todo[1:]
		}
	}
	return all
}

// note logs when a collector begins to fail, and when it ends.
func (g *Gatherer) note(c *collector, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if (err != nil) == c.failed {
		return
	}
	c.failed = err != nil
	if err != nil {
		g.log.Warn("a collector fails", "probe", c.probe, "err", err)
	} else {
		g.log.Info("a collector works again", "probe", c.probe)
	}
}

// claim takes c for a call, unless it is in one or gone.
func (g *Gatherer) claim(c *collector) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if c.busy || c.gone {
		return false
	}
	c.busy = true
	return true
}

func (g *Gatherer) release(c *collector) {
	g.mu.Lock()
	defer g.mu.Unlock()
	c.busy = false
}

// worker calls collectors until one takes too long and wait gives the worker up.
type worker struct {
	todo []*collector
	done chan struct{}

	mu      sync.Mutex
	results []result  // of the first collectors; the next is running
	since   time.Time // when it began
	given   bool      // up: the results belong to wait
}

// result is what a collector returned; batch is nil when it was not called.
type result struct {
	batch *signal.Batch
	err   error
}

func (w *worker) work(g *Gatherer, now time.Time) {
	defer close(w.done)
	for _, c := range w.todo {
		w.mu.Lock()
		w.since = time.Now()
		w.mu.Unlock()
		var r result
		if g.claim(c) {
			b := &signal.Batch{Time: now}
			r.err = g.guard(c, b)
			r.batch = b
			g.release(c)
		}
		w.mu.Lock()
		given := w.given
		if !given {
			w.results = append(w.results, r)
		}
		w.mu.Unlock()
		if given {
			return
		}
	}
}

// wait returns the results once all collectors have returned, or of those before
// one that has been running for the timeout.
func (w *worker) wait(timeout time.Duration) []result {
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	for {
		select {
		case <-w.done:
			return w.results
		case <-timer.C:
		}
		w.mu.Lock()
		left := timeout - time.Since(w.since)
		if w.since.IsZero() { // it has not begun
			left = timeout
		}
		if left <= 0 && len(w.results) < len(w.todo) {
			w.given = true
			w.mu.Unlock()
			return w.results
		}
		w.mu.Unlock()
		timer.Reset(max(left, time.Millisecond))
	}
}

// guard turns a panic of one collector into its error.
func (g *Gatherer) guard(c *collector, b *signal.Batch) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("BUG: collector panicked: %v", r)
		}
	}()
	return c.f(b)
}

// Failing lists the probes whose collectors failed in the last round.
func (g *Gatherer) Failing() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	var out []string
	for _, c := range g.collectors {
		if c.failed {
			out = append(out, c.probe)
		}
	}
	return out
}
