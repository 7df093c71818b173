package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"sync"
	"time"

	"huatuo/internal/config"
	"huatuo/internal/console"
	"huatuo/internal/probe"
	"huatuo/internal/profile"
	"huatuo/internal/profile/engine"
	"huatuo/internal/signal"
	"huatuo/internal/store/profiles"
	"huatuo/internal/symbol"
)

const (
	// profileSymbols bounds the symbols of the files that are profiled.
	profileSymbols = 32 << 20
	// labelsFor is how long it is believed whose process a pid is. A new process
	// of the same pid has samples under the old name for at most so long.
	labelsFor = 20 * time.Second
	// maxLabeled bounds the processes whose labels are remembered.
	maxLabeled = 8192
)

// profiler takes stacks of everything that runs, and keeps them.
type profiler struct {
	cfg    config.Profiles
	log    *slog.Logger
	engine *Engine
	keep   func(signal.LabeledSample)

	procs map[uint32]labeled // belongs to the unwinder's goroutine

	mu     sync.Mutex
	status console.ProfilerStatus
	count  uint64
}

// labeled is whose a process is.
type labeled struct {
	labels signal.ProfileLabels
	until  time.Time
}

func newProfiler(cfg config.Profiles, e *Engine, log *slog.Logger, keep func(signal.LabeledSample)) *profiler {
	p := &profiler{cfg: cfg, log: log, engine: e, keep: keep, procs: map[uint32]labeled{}}
	p.set(probe.Starting, "")
	return p
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
	s.Samples = p.count
	s.Hertz = p.cfg.CPUHertz
	return s
}

// run takes stacks until ctx is done. The unwinder is built anew when it stops.
func (p *profiler) run(ctx context.Context) {
	wait := firstRetry
	for ctx.Err() == nil {
		began := time.Now()
		err := engine.Run(ctx, engine.Options{
			Log: p.log, Hertz: p.cfg.CPUHertz, Symbols: symbol.New(symbol.Options{CacheBytes: profileSymbols}),
			Emit: p.take, Ready: func() { p.set(probe.Running, ""); p.log.Info("stacks are being taken", "hertz", p.cfg.CPUHertz) },
		})
		if err == nil {
			return
		}
		if errors.Is(err, errors.ErrUnsupported) {
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

// take labels a sample and keeps it.
func (p *profiler) take(s *signal.StackSample) {
	l := p.labels(s)
	l.Thread = s.Thread
	p.mu.Lock()
	p.count++
	p.mu.Unlock()
	p.keep(signal.LabeledSample{StackSample: *s, Labels: l})
}

// labels tells whose a sample is.
func (p *profiler) labels(s *signal.StackSample) signal.ProfileLabels {
	now := time.Now()
	if l, ok := p.procs[s.PID]; ok && now.Before(l.until) {
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
	if s.Exe != "" {
		l.Process = path.Base(s.Exe)
	}
	if l.Process == "" {
		l.Process = s.Thread
	}
	p.procs[s.PID] = labeled{l, now.Add(labelsFor)}
	return l
}

// profiled is the schema of records that only ask whose a process is.
var profiled = &signal.Schema{Name: "profile", Kind: signal.Profile}

// profileView is the kept profiles as the console reads them.
type profileView struct {
	store *profiles.Store
	prof  *profiler
}

// Status tells whether stacks are being taken.
func (v profileView) Status() console.ProfilerStatus { return v.prof.Status() }

// Types lists what can be asked for.
func (v profileView) Types() []*signal.ProfileType { return engine.Types() }

// Flame merges stacks.
func (v profileView) Flame(ctx context.Context, q signal.ProfileQuery, least float64) (*signal.FlameGraph, error) {
	g, err := v.store.Flame(ctx, q, least)
	if err == nil {
		if t := profile.ByName(q.Type); t != nil {
			g.Unit = t.Unit
		}
	}
	return g, err
}

// Heat sums by time.
func (v profileView) Heat(ctx context.Context, q signal.ProfileQuery, column time.Duration) ([]int64, error) {
	return v.store.Heat(ctx, q, column)
}

// Series sums by labels.
func (v profileView) Series(ctx context.Context, q signal.ProfileQuery, by []string) ([]signal.ProfileSeries, error) {
	return v.store.Series(ctx, q, by)
}

// Encode writes a graph for other tools.
func (v profileView) Encode(w io.Writer, g *signal.FlameGraph, format string) error {
	return profile.Encode(w, g, format)
}

// Metrics of profiles; absent when they are off.
var (
	profileSamples = selfMetric("huatuo_profile_samples_total", signal.Counter, "1", "Samples of stacks by what became of them.",
		"lost: the unwinder's buffer was full; dropped: they came faster than they could be written; failed: the disk refused them.",
		signal.Field{Name: "outcome", Help: "what became of the sample", Values: []string{"kept", "lost", "dropped", "failed"}})
	profileBytes = selfMetric("huatuo_profile_bytes", signal.Gauge, "bytes", "Size of the profiles that are kept.",
		"Bounded by profiles.max_size and profiles.retention.")
)

func (a *App) collectProfiles(b *signal.Batch) {
	if a.profiles == nil {
		return
	}
	st := a.profiles.Stats()
	b.Value(profileSamples, float64(st.Kept), "kept")
	b.Value(profileSamples, float64(engine.Lost()), "lost")
	b.Value(profileSamples, float64(st.Dropped), "dropped")
	b.Value(profileSamples, float64(st.Failed), "failed")
	b.Value(profileBytes, float64(st.Bytes))
}

// openProfiles opens the store of profiles beside the other one.
func (a *App) openProfiles(e *Engine) error {
	c := a.cfg.Load()
	if !c.Profiles.Enabled {
		return nil
	}
	if a.store == nil {
		a.log.Warn("profiles need the store: there are none")
		return nil
	}
	s, err := profiles.Open(profiles.Options{
		Dir: filepath.Join(c.Store.Dir, "profiles"), MaxBytes: c.Profiles.MaxSize, MaxAge: c.Profiles.Retention, Log: a.log,
	})
	if err != nil {
		return err
	}
	a.profiles = s
	a.profiler = newProfiler(c.Profiles, e, a.log, s.Add)
	return nil
}

// runProfiles takes and keeps profiles until ctx is done. It begins when the
// probes run: they are what the first second is for.
func (a *App) runProfiles(ctx context.Context) {
	if a.profiler == nil {
		return
	}
	a.engine.Settle(ctx)
	keep, stop := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	wg.Go(func() { a.profiles.Run(keep) })
	a.profiler.run(ctx) // which hands on what it still has when it ends
	stop()
	wg.Wait()
}

// ProfileOptions of Profile.
type ProfileOptions struct {
	Type  string
	Hertz int
	For   time.Duration
	Match func(*signal.ProfileLabels) bool // nil: all
	Ready func()                           // stacks are being taken
	Tick  func(samples int64)              // for each that is kept
}

// Profile takes stacks for a while and returns them merged. The engine's probes
// do not run.
func (e *Engine) Profile(ctx context.Context, o ProfileOptions) (*signal.FlameGraph, error) {
	dir, err := os.MkdirTemp("", "huatuo-profile-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	s, err := profiles.Open(profiles.Options{Dir: dir, Log: e.log})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var n int64
	p := newProfiler(config.Profiles{CPUHertz: o.Hertz}, e, e.log, func(x signal.LabeledSample) {
		if x.Type.Name != o.Type || o.Match != nil && !o.Match(&x.Labels) {
			return
		}
		n++
		s.Add(x)
		if o.Tick != nil {
			o.Tick(n)
		}
	})
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	wg.Go(func() { e.Run(background, func(string) bool { return false }) })
	wg.Go(func() { s.Run(background) })
	begin := time.Now()
	err = engine.Run(ctx, engine.Options{
		Log: e.log, Hertz: o.Hertz, Symbols: symbol.New(symbol.Options{CacheBytes: profileSymbols}), Emit: p.take,
		Ready: func() {
			begin = time.Now()
			time.AfterFunc(o.For, cancel)
			if o.Ready != nil {
				o.Ready()
			}
		},
	})
	end := time.Now()
	stop()
	wg.Wait()
	if err != nil {
		return nil, fmt.Errorf("take stacks: %w", err)
	}
	q := signal.ProfileQuery{Type: o.Type, From: begin.Add(-time.Minute), To: end.Add(time.Minute)}
	g, err := profileView{store: s}.Flame(context.WithoutCancel(ctx), q, 0)
	if err != nil {
		return nil, err
	}
	g.From, g.To = begin, end
	return g, nil
}
