package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"huatuo/internal/app"
	"huatuo/internal/diagnose/window"
	"huatuo/internal/probe"
	"huatuo/internal/probes"
	sig "huatuo/internal/signal"
)

// settleWait is how long the probes may take to start, on a busy machine.
const settleWait = 15 * time.Second

// live is an engine that runs for a command, without an agent.
type live struct {
	*app.Engine
	events *collected
	done   chan struct{}
	stop   context.CancelFunc

	samples []sig.Sample // of the last round
	at      time.Time
}

// collected keeps the events of a command's run, and counts those that are more
// than markers. When there are more than it may keep, the oldest go.
type collected struct {
	mu     sync.Mutex
	docs   []*sig.Document
	counts map[window.Workload]int
}

// maxCollected bounds the memory of events, at some 4 KB each.
const maxCollected = 5000

// Deliver keeps docs.
func (c *collected) Deliver(_ context.Context, docs []*sig.Document) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.counts == nil {
		c.counts = map[window.Workload]int{}
	}
	for _, d := range docs {
		if d.Severity != sig.Info {
			c.counts[window.Of(d.Container)]++
		}
	}
	c.docs = append(c.docs, docs...)
	if more := len(c.docs) - maxCollected; more > 0 {
		c.docs = append(c.docs[:0:0], c.docs[more:]...)
	}
	return nil
}

// all returns what was collected, oldest first, and how many there were of each
// workload.
func (c *collected) all() ([]*sig.Document, map[window.Workload]int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.docs), maps.Clone(c.counts)
}

// startLive runs the probes that want says yes to, until stop or ctx is done, and
// waits until they run. Close it.
func (c *cli) startLive(ctx context.Context, cmd *cobra.Command, want func(probe.Spec) bool) (*live, error) {
	cfg, err := c.load(cmd.Flags())
	if err != nil {
		return nil, err
	}
	if cfg.Origin("log.level") == "default" {
		cfg.Log.Level = "error" // what does not run is told at the end
	}
	e, err := app.NewEngine(cfg, probes.All(), c.logger(cfg))
	if err != nil {
		return nil, err
	}
	if err := e.Kernel().Usable(); err != nil {
		return nil, fmt.Errorf("%w; try `sudo %s`", err, cmd.CommandPath())
	}
	l := &live{Engine: e, events: &collected{}, done: make(chan struct{})}
	e.AddSink("command", l.events)
	wanted := map[string]bool{}
	for _, s := range probes.All() {
		wanted[s.Name] = want(s)
	}
	ctx, l.stop = context.WithCancel(ctx)
	go func() {
		defer close(l.done)
		e.Run(ctx, func(name string) bool { return wanted[name] })
	}()
	settle, stop := context.WithTimeout(ctx, settleWait)
	defer stop()
	e.Settle(settle)
	return l, nil
}

// close ends the probes and returns once all events have come.
func (l *live) close() {
	l.stop()
	<-l.done
}

// round gathers, and returns the samples of the round before and the seconds that
// have gone by since it.
func (l *live) round(ctx context.Context) (before []sig.Sample, seconds float64, err error) {
	samples, err := l.Gather(ctx)
	if err != nil {
		return nil, 0, err
	}
	now := time.Now()
	before, seconds = l.samples, now.Sub(l.at).Seconds()
	l.samples, l.at = samples, now
	return before, seconds, nil
}

// idle lists the probes that were wanted and do not run.
func (l *live) idle() []probe.Status {
	var out []probe.Status
	for _, st := range l.Statuses() {
		if st.State == probe.Failed || st.State == probe.Unsupported {
			out = append(out, st)
		}
	}
	return out
}
