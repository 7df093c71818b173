package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"huatuo/internal/budget"
	"huatuo/internal/config"
	"huatuo/internal/console"
	"huatuo/internal/kern/clock"
	"huatuo/internal/probe"
	"huatuo/internal/profile"
	"huatuo/internal/profile/runtimes"
	"huatuo/internal/query"
	"huatuo/internal/signal"
	"huatuo/internal/sink/prom"
	"huatuo/internal/store"
	"huatuo/internal/store/profiles"
)

// storeLinger is how long an event waits for others to share its transaction:
// a transaction of one event costs as much as one of twenty. The store promises
// a second.
const storeLinger = 200 * time.Millisecond

// App is the agent.
type App struct {
	cfg     atomic.Pointer[config.Config]
	log     *slog.Logger
	level   *slog.LevelVar
	build   Build
	started time.Time

	engine *Engine
	store  *store.Store // nil with the store off

	profiles *profiles.Store // nil with profiles off
	profiler *profiler
	pushes   *pushes // nil with profiles off

	captures    *profile.Capturer // nil with profiles off
	captureCtx  context.Context   // ends those that the console began
	endCaptures context.CancelFunc

	hub    *console.Hub
	server *console.Server
	cost   *costMeter
	meter  bpfMeter
	budget *budget.Budget
	ready  atomic.Bool
}

// Options of New.
type Options struct {
	Config  *config.Config
	Specs   []probe.Spec
	Log     *slog.Logger
	Level   *slog.LevelVar // of Log, for a reload
	Build   Build
	Started time.Time
}

// New opens the store and prepares everything; nothing runs yet.
func New(o Options) (*App, error) {
	a := &App{log: o.Log, level: o.Level, build: o.Build, started: o.Started, cost: newCostMeter(o.Started), hub: console.NewHub()}
	a.cfg.Store(o.Config)
	var storeErr error
	var wg sync.WaitGroup
	wg.Go(func() { storeErr = a.openStore() })
	e, err := NewEngine(o.Config, o.Specs, o.Log)
	wg.Wait()
	if err == nil {
		err = storeErr
	}
	if err != nil {
		a.closeStore()
		return nil, err
	}
	a.engine = e
	a.budget = budget.New(o.Log, runtime.NumCPU(), limitOf(o.Config.Budget), controls{a})
	if a.store != nil {
		e.pipe.AddBatched("store", sinkFunc(a.store.AppendEvents), storeLinger)
		e.pipe.IDsAfter(a.store.NewestEventID(context.Background()))
	}
	e.AddSink("stream", a.hub)
	if err := a.openProfiles(e); err != nil {
		a.closeStore()
		return nil, err
	}
	a.openCaptures()
	if err := a.newServer(); err != nil {
		a.closeStore()
		return nil, err
	}
	return a, nil
}

// sinkFunc makes a pipe.Sink of a function.
type sinkFunc func(context.Context, []*signal.Document) error

// Deliver calls f.
func (f sinkFunc) Deliver(ctx context.Context, docs []*signal.Document) error { return f(ctx, docs) }

func (a *App) openStore() error {
	c := a.cfg.Load().Store
	if !c.Enabled {
		return nil
	}
	s, err := store.Open(c.Dir, store.Options{
		MinFree: minFree(c.MinFree), MetricAge: c.Metrics.Retention, MetricBytes: c.Metrics.MaxSize,
		EventAge: c.Events.Retention, EventBytes: c.Events.MaxSize,
	}, a.log)
	if err != nil {
		return err
	}
	a.store = s
	return nil
}

// minFree is n in the store's terms, where zero means its default.
func minFree(n int64) int64 {
	if n == 0 {
		return -1
	}
	return n
}

func (a *App) closeStore() {
	if a.store == nil {
		return
	}
	if err := a.store.Close(); err != nil {
		a.log.Error("cannot close the store", "err", err)
	}
}

func (a *App) newServer() error {
	c := a.cfg.Load()
	o := console.Options{
		Agent: agentView{a}, Hub: a.hub, Log: a.log, Listen: c.Listen,
		Scrape:     a.scrape(),
		Latest:     a.engine.gather.Last,
		ConfigFile: c.Web.ConfigFile, TokenFile: c.Web.TokenFile,
		AllowAnonymous: c.Web.AllowAnonymous, AllowedHosts: c.Web.AllowedHosts,
	}
	if a.store != nil {
		q := query.New(a.store, query.Limits{})
		o.Events, o.Metrics = q, metricView{q}
	}
	if a.profiles != nil {
		o.Profiles = profileView{a.profiles, a.profiler}
		o.Captures = captureView{a.captureCtx, a.captures, a.profiles}
	}
	o.Runtimes = runtimeView{a, runtimes.New(procOf(c.Host.Root))}
	var err error
	a.server, err = console.New(o)
	return err
}

// scrape serves /metrics; the first scrape counts as the first sample.
func (a *App) scrape() http.Handler {
	return prom.New(func(ctx context.Context) ([]signal.Sample, error) {
		s, err := a.engine.gather.Gather(ctx)
		if err == nil {
			a.cost.firstSample()
		}
		return s, err
	}, a.log)
}

// Run runs the agent until ctx is done. hup carries requests to reload the
// configuration with what load returns.
func (a *App) Run(ctx context.Context, hup <-chan struct{}, load func() (*config.Config, error)) error {
	listeners, err := a.server.Listen()
	if err != nil {
		a.closeStore()
		return err
	}
	if err := a.engine.kernel.Usable(); err != nil {
		a.log.Error("no BPF probe will run", "err", err)
	}
	a.engine.gather.Add(ctx, "agent", a.collectSelf)
	a.engine.gather.Add(ctx, "console", a.server.Collect)
	a.engine.gather.Add(ctx, "containers", a.engine.collectContainers(infoSchema(a.cfg.Load().Containers)))

	base := context.WithoutCancel(ctx)
	webCtx, stopWeb := context.WithCancel(base)
	defer stopWeb()
	runCtx, stop := context.WithCancel(ctx)
	defer stop()
	var wg sync.WaitGroup
	var webErr error
	wg.Go(func() {
		defer stop() // without a console the agent is blind: end, and be restarted
		webErr = a.server.Serve(webCtx, listeners...)
	})
	wg.Go(func() { a.keepHistory(runCtx) })
	wg.Go(func() { a.runProfiles(runCtx) })
	wg.Go(func() { a.budget.Run(runCtx, a.cfg.Load().Budget.Interval, a.usage) })
	wg.Go(func() { a.reloads(runCtx, hup, load) })
	a.log.Info("huatuo runs", "console", a.server.URL(), "version", a.build.Version)

	a.engine.Run(runCtx, func(string) bool { return true })
	stopWeb()
	wg.Wait()
	a.closeStore()
	a.log.Info("huatuo has stopped")
	return webErr
}

// keepHistory stores a round of samples as soon as the probes run, two more
// in the next seconds so that rates have something to show, and then one each
// interval.
func (a *App) keepHistory(ctx context.Context) {
	settle, cancel := context.WithTimeout(ctx, 700*time.Millisecond)
	a.engine.Settle(settle)
	cancel()
	a.ready.Store(true)
	interval := a.cfg.Load().Store.Interval
	for i := 0; ; i++ {
		a.sample(ctx)
		wait := clock.Until(interval)
		if i < 2 && interval > 2*time.Second {
			wait = clock.Until(time.Second)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

func (a *App) sample(ctx context.Context) {
	if a.store == nil {
		return
	}
	samples, err := a.engine.gather.Gather(ctx)
	if err != nil {
		return // only when ctx is done
	}
	if err := a.store.AppendSamples(ctx, time.Now(), samples); err != nil && !errors.Is(err, context.Canceled) {
		a.log.Debug("cannot store metrics", "err", err) // the store itself logs when it starts to fail
		return
	}
	a.cost.firstSample()
}

func (a *App) reloads(ctx context.Context, hup <-chan struct{}, load func() (*config.Config, error)) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-hup:
		}
		cfg, err := load()
		if err != nil {
			a.log.Error("the configuration was not reloaded; the old one stays in force", "err", err)
			continue
		}
		if err := a.apply(cfg); err != nil {
			a.log.Error("part of the configuration was not reloaded", "err", err)
		}
	}
}

// apply puts into force what can change while the agent runs.
func (a *App) apply(cfg *config.Config) error {
	changes := config.Diff(a.cfg.Load(), cfg)
	restart := map[string]bool{}
	var late []string
	for _, c := range changes {
		switch {
		case c.Probe != "":
			restart[c.Probe] = true
		case c.Reload:
		default:
			late = append(late, c.Key)
		}
		a.log.Info("configuration changed", "key", c.Key, "old", c.Old, "new", c.New)
	}
	if err := a.level.UnmarshalText([]byte(cfg.Log.Level)); err != nil {
		return fmt.Errorf("set log level: %w", err)
	}
	if err := a.engine.setKnown(cfg); err != nil {
		return err
	}
	a.cfg.Store(cfg)
	a.budget.SetLimit(limitOf(cfg.Budget))
	if a.profiler != nil {
		if err := a.profiler.Reload(cfg.Profiles); err != nil {
			return err
		}
	}
	for _, s := range a.engine.specs {
		if !restart[s.Name] {
			continue
		}
		pc, enabled := cfg.Probe(s.Name)
		a.engine.Restart(s.Name, pc, enabled)
	}
	if len(late) > 0 {
		a.log.Warn("these keys take effect at the next start only", "keys", late)
	}
	return nil
}
