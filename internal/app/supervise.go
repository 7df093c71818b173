package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"huatuo/internal/kern/load"
	"huatuo/internal/pipe"
	"huatuo/internal/probe"
	"huatuo/internal/signal"
)

// Back-off of a probe that fails: from a second, in case the cause passes, to
// five minutes, so that one that never will work costs nothing.
const (
	firstRetry = time.Second
	lastRetry  = 5 * time.Minute
	// steady is how long a probe must have run for its next failure to count
	// as the first.
	steady = 10 * time.Minute
)

// supervisor runs the probes, each on its own: what one does never reaches
// another.
type supervisor struct {
	log    *slog.Logger
	env    probe.Env // what all have in common
	pipe   *pipe.Pipe
	gather *pipe.Gatherer

	change sync.Mutex // held while a probe is stopped and started again
	mu     sync.Mutex
	order  []string
	probes map[string]*supervised
	wg     sync.WaitGroup
}

type supervised struct {
	spec   probe.Spec
	status probe.Status
	cancel context.CancelFunc // nil when it does not run
	done   chan struct{}
	ctx    context.Context // that it was started with; nil when it is disabled
	cfg    any             // likewise, before anything was left out
	level  int             // how many of spec.Leans are in force; one more: it does not run
}

func newSupervisor(log *slog.Logger, env probe.Env, p *pipe.Pipe, g *pipe.Gatherer, specs []probe.Spec) *supervisor {
	s := &supervisor{log: log, env: env, pipe: p, gather: g, probes: map[string]*supervised{}}
	for _, spec := range specs {
		st := probe.Status{Name: spec.Name, Help: spec.Help, Source: spec.Source, State: probe.Disabled, Since: time.Now()}
		for _, e := range spec.Emits {
			st.Signals = append(st.Signals, e.Name)
		}
		s.order = append(s.order, spec.Name)
		s.probes[spec.Name] = &supervised{spec: spec, status: st}
	}
	return s
}

// start runs a probe with cfg, less what the budget left out, until ctx is done
// or stop is called.
func (s *supervisor) start(ctx context.Context, name string, cfg any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.probes[name]
	if p == nil || p.cancel != nil {
		return
	}
	p.ctx, p.cfg, p.status.Lean = ctx, cfg, nil
	for _, l := range p.spec.Leans[:min(p.level, len(p.spec.Leans))] {
		p.status.Lean = append(p.status.Lean, l.What)
	}
	if p.level > len(p.spec.Leans) {
		p.status.State, p.status.Reason, p.status.Since = probe.Shed, "the agent cost too much", time.Now()
		return
	}
	cfg = p.spec.Lean(cfg, p.level)
	ctx, p.cancel = context.WithCancel(ctx)
	p.done = make(chan struct{})
	p.status.State, p.status.Reason, p.status.Since = probe.Starting, "", time.Now()
	s.wg.Go(func() {
		defer close(p.done)
		s.keep(ctx, p, cfg)
	})
}

// stop ends a probe and waits until it has.
func (s *supervisor) stop(name string, state probe.State) {
	s.mu.Lock()
	p := s.probes[name]
	if p == nil || p.cancel == nil {
		if p != nil && p.ctx != nil { // the budget had ended it
			p.ctx, p.status.State, p.status.Reason = nil, state, ""
		}
		s.mu.Unlock()
		return
	}
	p.cancel()
	done := p.done
	s.mu.Unlock()
	<-done
	s.mu.Lock()
	p.cancel, p.ctx = nil, nil
	s.mu.Unlock()
	s.set(p, state, "")
}

// keep runs a probe again and again, until ctx is done or it says that this
// kernel cannot run it.
func (s *supervisor) keep(ctx context.Context, p *supervised, cfg any) {
	wait := firstRetry
	for {
		began := time.Now()
		err := s.once(ctx, p, cfg)
		if ctx.Err() != nil {
			if err != nil {
				s.log.Warn("probe ended with an error", "probe", p.spec.Name, "err", err)
			}
			s.set(p, probe.Stopped, "")
			return
		}
		if errors.Is(err, errors.ErrUnsupported) {
			s.log.Warn("probe cannot run here", "probe", p.spec.Name, "err", err)
			s.set(p, probe.Unsupported, err.Error())
			return
		}
		if errors.Is(err, probe.ErrAbsent) {
			s.set(p, probe.Absent, err.Error())
			if !sleep(ctx, lastRetry) {
				s.set(p, probe.Stopped, "")
				return
			}
			continue
		}
		if err == nil {
			err = errors.New("BUG: the probe ended without being told to")
		}
		if time.Since(began) > steady {
			wait = firstRetry
		}
		s.log.Error("probe failed; it is started again", "probe", p.spec.Name, "err", err, "in", wait)
		s.set(p, probe.Failed, err.Error())
		if !sleep(ctx, wait) {
			s.set(p, probe.Stopped, "")
			return
		}
		wait = min(2*wait, lastRetry)
		s.mu.Lock()
		p.status.Restarts++
		s.mu.Unlock()
	}
}

// sleep waits for d; false when ctx was done before.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// once runs a probe one time. A panic is a bug of that probe and stays there.
func (s *supervisor) once(ctx context.Context, p *supervised, cfg any) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("BUG: probe panicked: %v", r)
			s.log.Error("probe panicked", "probe", p.spec.Name, "panic", r, "stack", string(debug.Stack()))
		}
	}()
	// The collectors of this run end with it, whatever becomes of ctx.
	run, cancel := context.WithCancel(ctx)
	defer cancel()
	env := s.env
	env.Log = s.log.With("probe", p.spec.Name)
	env.Emit, env.Lost = s.pipe.Probe(p.spec.Name)
	env.Collect = func(f func(*signal.Batch) error) { s.gather.Add(run, p.spec.Name, f) }
	env.Ready = func(hooks ...load.HookState) { s.ready(p, hooks) }
	return p.spec.Run(ctx, &env, cfg)
}

// ready notes by which hooks a probe works.
func (s *supervisor) ready(p *supervised, hooks []load.HookState) {
	state, reason := probe.Running, ""
	for _, h := range hooks {
		if h.By == "" {
			state, reason = probe.Degraded, h.Hook+": "+h.Reason
		}
	}
	s.mu.Lock()
	p.status.Hooks = hooks
	s.mu.Unlock()
	s.set(p, state, reason)
	if state == probe.Degraded {
		s.log.Warn("probe runs without one of its hooks", "probe", p.spec.Name, "missing", reason)
	}
}

func (s *supervisor) set(p *supervised, state probe.State, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.status.State != state {
		p.status.Since = time.Now()
	}
	p.status.State, p.status.Reason = state, reason
	if state != probe.Running && state != probe.Degraded {
		p.status.Hooks = nil
	}
}

// statuses returns every probe's status, in the order of the list.
func (s *supervisor) statuses() []probe.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]probe.Status, 0, len(s.order))
	for _, name := range s.order {
		st := s.probes[name].status
		st.Hooks = append([]load.HookState(nil), st.Hooks...)
		out = append(out, st)
	}
	return out
}

// runs tells whether a probe has its hooks in place now.
func (s *supervisor) runs(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.probes[name]
	return p != nil && (p.status.State == probe.Running || p.status.State == probe.Degraded)
}

// settled tells whether every probe has left Starting.
func (s *supervisor) settled() bool {
	for _, st := range s.statuses() {
		if st.State == probe.Starting {
			return false
		}
	}
	return true
}

// wait returns once all probes have ended.
func (s *supervisor) wait() { s.wg.Wait() }
