package app

import (
	"context"
	"errors"
	"log/slog"
	"path"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"huatuo/internal/config"
	"huatuo/internal/console"
	"huatuo/internal/probe"
	"huatuo/internal/profile/engine"
	"huatuo/internal/signal"
)

const (
	// labelsFor is how long it is believed whose process a pid is. A new process
	// of the same pid has samples under the old name for at most so long.
	labelsFor = 20 * time.Second
	// maxLabeled bounds the processes whose labels are remembered.
	maxLabeled = 8192
)

// profiler takes stacks of everything that runs, and hands them on with whose
// they are. It keeps within profiles.max_memory and what the budget leaves.
type profiler struct {
	log     *slog.Logger
	engine  *Engine
	keep    func(signal.LabeledSample)
	takers  [profileOff]taker // by mode
	memory  func() (memoryUse, error)
	rate    *engine.Rate
	usage   *engine.Usage
	account *engine.Account
	match   atomic.Pointer[config.ProfileMatch]

	freed time.Time          // when memory was given back for the limit's sake; belongs to watch
	procs map[uint32]labeled // belongs to the goroutine that hands samples over

	count, excluded, lost atomic.Uint64
	walker                atomic.Uint32 // the BPF program that walks by frame pointers; 0: none

	mu     sync.Mutex
	cfg    config.Profiles
	status console.ProfilerStatus
	used   uint64 // memory, as it was measured last
	size   sizing
	lean   profileLean
	again  context.CancelCauseFunc // ends what runs now, for run to look again what should
}

// labeled is whose a process is.
type labeled struct {
	labels signal.ProfileLabels
	exe    string // by which the process was called: another means that it is another program
	until  time.Time
}

// errAgain ends an engine because another, or none, is to run.
var errAgain = errors.New("another engine is to run")

func newProfiler(cfg config.Profiles, e *Engine, log *slog.Logger, keep func(signal.LabeledSample)) *profiler {
	p := &profiler{
		cfg: cfg, log: log, engine: e, keep: keep, procs: map[uint32]labeled{},
		rate: engine.NewRate(cpuHertz(cfg, 0)), usage: new(engine.Usage), account: new(engine.Account),
		again: func(error) {}, size: newSizing(cfg.Engine),
	}
	p.takers = [profileOff]taker{profileFull: p.unwind, profileSmall: p.unwind, profileFrames: p.walk}
	p.setMatch(cfg)
	p.set(probe.Starting, "")
	return p
}

// setMatch brings include and exclude into force, which were checked when the
// configuration was read.
func (p *profiler) setMatch(cfg config.Profiles) {
	m, err := config.NewProfileMatch(cfg.Include, cfg.Exclude)
	if err != nil {
		panic("BUG: unchecked configuration: " + err.Error())
	}
	p.match.Store(&m)
}

func (p *profiler) set(state probe.State, why string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.status.State, p.status.Reason = string(state), why
}

// Status tells whether stacks are being taken.
func (p *profiler) Status() console.ProfilerStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.status
	s.Samples = p.count.Load()
	s.Hertz = p.rate.Base()
	s.Mode = p.size.mode.String()
	s.Memory, s.MaxMemory = p.used, uint64(p.cfg.MaxMemory)
	for _, t := range p.account.Types() {
		s.Types = append(s.Types, console.ProfileTypeState{Name: t.Type.Name, On: t.On, By: t.By, Reason: t.Reason})
	}
	return s
}

// Boost raises the rate at which the CPUs are sampled for a while, within the
// bounds of engine.Rate.
func (p *profiler) Boost(hertz int, d time.Duration) (end func(), err error) {
	return p.rate.Boost(hertz, d)
}

// Reload brings what can change of cfg into force. The engine is built anew
// only for what it cannot change while it runs.
func (p *profiler) Reload(cfg config.Profiles) error {
	p.setMatch(cfg)
	p.mu.Lock()
	defer p.mu.Unlock()
	was := p.cfg
	p.cfg = cfg
	if !sameEngine(was, cfg) {
		p.again(errAgain)
	}
	return p.rate.Set(cpuHertz(cfg, p.lean.level()))
}

// run takes stacks until ctx is done. The engine is built anew when it stops.
func (p *profiler) run(ctx context.Context) {
	if p.memory == nil {
		p.memory = p.measure()
	}
	wait := firstRetry
	for ctx.Err() == nil {
		began := time.Now()
		err := p.once(ctx)
		if ctx.Err() != nil {
			return
		}
		if errors.Is(err, errAgain) {
			wait = firstRetry
			continue
		}
		if errors.Is(err, errors.ErrUnsupported) {
			if p.downTo(profileFrames, err) {
				continue
			}
			p.set(probe.Unsupported, err.Error())
			p.log.Warn("there are no profiles", "err", err)
			return
		}
		if time.Since(began) > steady {
			wait = firstRetry
		}
		p.set(probe.Failed, err.Error())
		p.log.Error("no stacks are being taken", "err", err, "again_in", wait)
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
		wait = min(2*wait, lastRetry)
	}
}

// once runs the engine that is to run now, until ctx is done or another is to
// run, and then returns errAgain.
func (p *profiler) once(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel(nil)

	p.mu.Lock()
	r := profileRun{cfg: p.cfg, mode: p.size.mode, level: p.lean.level(), short: p.size.mode > p.size.most}
	p.again = cancel
	p.mu.Unlock()
	ready := make(chan struct{})
	wg.Go(func() { p.watch(ctx, ready) })
	switch {
	case r.level == leanOff:
		p.set(probe.Shed, "the agent cost too much")
		close(ready)
	case r.mode == profileOff:
		p.set(probe.Shed, p.sizeReason())
		close(ready)
	default:
		r.ready = func() {
			if ctx.Err() != nil {
				return // it has to end already
			}
			state, why := probe.Running, p.sizeReason()
			if why != "" {
				state = probe.Degraded
			}
			p.set(state, why)
			p.log.Info("stacks are being taken", "hertz", p.rate.Base(), "mode", r.mode)
			close(ready)
		}
		p.set(probe.Starting, p.sizeReason())
		err := p.takers[r.mode](ctx, r)
		runtime.GC()         // the library leaves its maps to the collector: it finds them,
		debug.FreeOSMemory() // and then what only they held
		if err != nil {
			return err
		}
	}
	<-ctx.Done()
	return context.Cause(ctx)
}

// wants tells whether a sample is to be kept; it has no stack yet.
func (p *profiler) wants(s *signal.StackSample) bool {
	l := p.labels(s)
	l.Thread = s.Thread
	if p.match.Load().Has(&l) {
		return true
	}
	p.excluded.Add(1)
	return false
}

// take labels a sample and keeps it.
func (p *profiler) take(s *signal.StackSample) {
	l := p.labels(s)
	l.Thread = s.Thread
	p.count.Add(1)
	p.keep(signal.LabeledSample{StackSample: *s, Labels: l})
}

// labels tells whose a sample is.
func (p *profiler) labels(s *signal.StackSample) signal.ProfileLabels {
	now := time.Now()
	if l, ok := p.procs[s.PID]; ok && l.exe == s.Exe && now.Before(l.until) {
		return l.labels
	}
	if len(p.procs) >= maxLabeled {
		clear(p.procs)
	}
	r := signal.Record{Schema: profiled, Time: s.Time, Process: signal.Process{PID: s.PID, TID: s.TID}}
	p.engine.enrich.Record(&r)
	l := signal.ProfileLabels{
		PID: s.PID, Process: r.Process.Comm,
		Namespace: r.Container.Namespace, Pod: r.Container.Pod, Container: r.Container.Name, Unit: r.Container.Unit,
	}
	if l.Container == "" && r.Container.ID != "" {
		l.Container = r.Container.ID[:min(12, len(r.Container.ID))]
	}
	switch name := programName(s.Exe); {
	case name != "":
		l.Process = name
	case s.Exe != "" && s.Exe != "/": // it will be another program by and by, and has its name already
		l.Process = s.Thread
	}
	if l.Process == "" {
		l.Process = s.Thread
	}
	p.procs[s.PID] = labeled{l, s.Exe, now.Add(labelsFor)}
	return l
}

// programName is what a process is called by the path of its program; "" when
// that says nothing: a container's first process has been seen while its runtime
// was changing the root, or ran a copy of itself in memory.
func programName(exe string) string {
	switch name := path.Base(exe); {
	case exe == "", name == "/", name == ".", strings.HasPrefix(exe, "/memfd:"), strings.HasPrefix(exe, "memfd:"):
		return ""
	default:
		return strings.TrimSuffix(name, " (deleted)")
	}
}

// profiled is the schema of records that only ask whose a process is.
var profiled = &signal.Schema{Name: "profile", Kind: signal.Profile}

// profileRun is one run of an engine.
type profileRun struct {
	cfg   config.Profiles
	mode  profileMode
	level leanLevel
	short bool // of memory: a larger mode could run
	ready func()
}

// taker runs an engine until ctx is done.
type taker func(ctx context.Context, r profileRun) error
