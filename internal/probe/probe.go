// Package probe says what a probe is. It knows no concrete probe.
//
// A probe is one folder under internal/probes and one line in its list: a Spec
// made with New, whose run function works until its context ends. Everything a
// probe may touch of the world comes in an Env, so that a test can fill it
// with fakes.
package probe

import (
	"context"
	"log/slog"
	"time"

	"huatuo/internal/kern/cgroup"
	"huatuo/internal/kern/clock"
	"huatuo/internal/kern/load"
	"huatuo/internal/kern/ring"
	"huatuo/internal/signal"
)

// Meta is what the agent, the docs and the console show of a probe.
type Meta struct {
	Name   string           // one lower-case word: the folder, the package and the probe
	Help   string           // one sentence
	Readme string           // README.md, embedded: the page an operator reads
	Emits  []*signal.Schema // everything Run may emit
	Since  string           // oldest mainline kernel that it is meant for, for the docs
	Source string           // where the data come from: "sched:sched_switch", "/proc/meminfo", …
}

// Spec is a probe before it runs.
type Spec struct {
	Meta
	Config any    // the defaults: a struct value with yaml and help tags
	Leans  []Lean // what the probe can do without, in the order in which it is given up
	run    func(ctx context.Context, env *Env, cfg any) error
}

// New makes a Spec. C is the probe's own configuration; its yaml and help tags
// are the reference. run works until ctx is done and then returns nil; it
// calls env.Ready once its hooks are in place (Stream does it). It returns an error wrapping
// errors.ErrUnsupported when this kernel lacks what the probe needs (it is not
// tried again), ErrAbsent when there is nothing to watch, and any other error when it cannot go on (the supervisor
// restarts it with back-off). leans are cheaper ways to run it, for when the
// agent costs more than it may: they add up, in their order.
func New[C any](m Meta, defaults C, run func(ctx context.Context, env *Env, cfg C) error, leans ...Lean) Spec {
	return Spec{m, defaults, leans, func(ctx context.Context, env *Env, cfg any) error {
		return run(ctx, env, cfg.(C))
	}}
}

// Run runs the probe with cfg, which has the type of s.Config.
func (s Spec) Run(ctx context.Context, env *Env, cfg any) error { return s.run(ctx, env, cfg) }

// Env is all of the world a probe may touch.
type Env struct {
	Log    *slog.Logger
	Root   string       // where the host's proc and sys are found: "/" in production, testdata in tests
	Kernel *load.Kernel // loads and attaches BPF objects; nil for a probe that needs none
	Rings  *ring.Drainer

	// Layout and Cgroups are how control groups are mounted and which there
	// are; the agent keeps Cgroups up to date. Nil where none are mounted.
	Layout  *cgroup.Layout
	Cgroups *cgroup.Index

	Now   func() time.Time
	Clock func(mono uint64) time.Time // wall time of a bpf_ktime_get_ns() stamp

	// Symbol names the function at a kernel address, "" when none is known;
	// nil when there are no kernel symbols. The name may leave the agent, the
	// address may not.
	Symbol func(ip uint64) string

	// Emit hands an event to the pipe. It never blocks and may be called from
	// any goroutine. The record belongs to the pipe afterwards.
	Emit func(*signal.Record)

	// Collect registers f to be called in each gathering round until the
	// probe's context ends. Rounds never overlap. f must not block: no I/O
	// that a dead device or mount could hang.
	Collect func(f func(b *signal.Batch) error)

	// Ready tells that the probe works, and by which hooks. More than one
	// call replaces what was told before.
	Ready func(hooks ...load.HookState)

	// Lost reports where events were lost before Emit; the pipe reads it for
	// the conservation law observed = delivered + Σ dropped(reason).
	Lost func(f func() Loss)
}

// Loss counts what a probe saw and what it could not pass on, since it started.
type Loss struct {
	Observed uint64            // events that met the probe's condition
	Dropped  map[string]uint64 // by reason: ring_full, rate_limited, undecoded, …
	// LeftOut are those that the condition leaves out although somebody may
	// ask for them: by a filter, a list of what to ignore. Not in Observed.
	LeftOut uint64
}

// Every runs collect at once and then each d, at the moments of clock.Until,
// until ctx is done: the run of a probe that polls for events.
func Every(ctx context.Context, d time.Duration, collect func() error) error {
	t := time.NewTimer(0)
	defer t.Stop()
	<-t.C
	for {
		if err := collect(); err != nil {
			return err
		}
		t.Reset(clock.Until(d))
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
	}
}
