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

	var all []signal.Sample
	for _, c := range todo {
		all = append(all, g.call(c, now)...)
	}
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

// call runs one collector, for at most the timeout.
func (g *Gatherer) call(c *collector, now time.Time) []signal.Sample {
	g.mu.Lock()
	if c.busy || c.gone {
		g.mu.Unlock()
		return nil
	}
	c.busy = true
	g.mu.Unlock()

	b := &signal.Batch{Time: now}
	done := make(chan error, 1)
	go func() {
		err := g.guard(c, b)
		g.mu.Lock()
		c.busy = false
		g.mu.Unlock()
		done <- err
	}()
	timer := time.NewTimer(g.timeout)
	defer timer.Stop()
	var err error
	late := false
	select {
	case err = <-done:
	case <-timer.C:
		late = true // the batch still belongs to the call
		err = fmt.Errorf("no answer within %v: left out until it returns", g.timeout)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if (err != nil) != c.failed {
		c.failed = err != nil
		if err != nil {
			g.log.Warn("a collector fails", "probe", c.probe, "err", err)
		} else {
			g.log.Info("a collector works again", "probe", c.probe)
		}
	}
	if late {
		return nil
	}
	return b.Samples
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
