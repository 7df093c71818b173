// Package app wires the agent: the one place where concrete things meet.
//
// An Engine is what observes: kernel, identity, symbols, pipe, probes. An App
// is an Engine with a store and a console. `huatuo watch` and `huatuo doctor`
// use an Engine alone.
package app

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"huatuo/internal/config"
	"huatuo/internal/diagnose/chain"
	"huatuo/internal/diagnose/known"
	"huatuo/internal/enrich"
	"huatuo/internal/enrich/naming"
	"huatuo/internal/kern/cgroup"
	"huatuo/internal/kern/clock"
	"huatuo/internal/kern/ksym"
	"huatuo/internal/kern/load"
	"huatuo/internal/kern/ring"
	"huatuo/internal/pipe"
	"huatuo/internal/probe"
	"huatuo/internal/signal"
	"huatuo/internal/symbol"
)

// drainTime is how long the pipe may take to deliver what is queued when the
// agent stops; the whole stop has 5 s.
const drainTime = 3 * time.Second

// symbolCache bounds the symbols of user-space files: a node runs some dozen
// large binaries, and the agent as a whole has to stay below 80 MB.
const symbolCache = 16 << 20

// Engine observes.
type Engine struct {
	cfg    *config.Config
	specs  []probe.Spec
	log    *slog.Logger
	kernel *load.Kernel
	cgroup *cgroup.Layout
	index  *cgroup.Index
	names  *naming.Registry
	enrich *enrich.Enricher
	ksyms  *ksym.Symbols
	symbol *symbol.Resolver
	fetch  *symbol.Fetcher  // nil: off
	counts *symbol.Counters // of what names the stacks of events and of profiles
	rings  *ring.Drainer
	chains *chain.Chains
	drops  dropCount
	known  atomic.Pointer[known.List]
	pipe   *pipe.Pipe
	gather *pipe.Gatherer
	super  *supervisor
	hostID string
	begun  chan struct{}   // closed once Run has told every probe to start
	probes context.Context // ends every probe; set before begun is closed
}

// NewEngine makes the parts that need no privilege; nothing runs yet.
func NewEngine(cfg *config.Config, specs []probe.Spec, log *slog.Logger) (*Engine, error) {
	e := &Engine{cfg: cfg, specs: specs, log: log, rings: ring.NewDrainer(), begun: make(chan struct{})}
	e.hostID = cfg.Host.Name
	if e.hostID == "" {
		name, err := os.Hostname()
		if err != nil {
			return nil, fmt.Errorf("find the host's name: %w (set host.name)", err)
		}
		e.hostID = name
	}
	clk, err := clock.New()
	if err != nil {
		return nil, err
	}
	if err := e.openKernel(); err != nil {
		return nil, err
	}
	e.ksyms = ksym.New(procOf(cfg.Host.Root))
	e.fetch, e.counts = newFetcher(cfg), new(symbol.Counters)
	e.symbol = symbol.New(symbol.Options{
		Kernel: e.ksyms, Proc: procOf(cfg.Host.Root), CacheBytes: symbolCache, DebugBytes: profileDebug, Fetch: e.fetch, Count: e.counts,
	})
	redact := enrich.NoRedaction()
	if cfg.Enrich.Redact {
		if redact, err = enrich.NewRedactor(cfg.Enrich.RedactPatterns); err != nil {
			return nil, err
		}
	}
	e.names = newNames(cfg, e.index, log)
	e.enrich = enrich.New(enrich.Options{Root: cfg.Host.Root, Clock: clk, Layout: e.cgroup, Index: e.index, Names: e.names, Redact: redact, Log: log})
	if err := e.setKnown(cfg); err != nil {
		return nil, err
	}
	e.chains = chain.New(chain.Options{Unseen: e.unseenDrops})
	e.pipe = pipe.New(pipe.Options{Log: log, Host: e.hostID, Region: cfg.Host.Region, Queue: cfg.Pipe.Queue, Enrich: e.complete,
		Known: e.lookKnown, Relate: e.chains.Relate, Grace: e.chains.Grace})
	e.gather = pipe.NewGatherer(pipe.GatherOptions{Log: log, Labels: e.enrich.Labels, Pipe: e.pipe})
	env := probe.Env{Root: cfg.Host.Root, Kernel: e.kernel, Rings: e.rings, Layout: e.cgroup, Cgroups: e.index, Now: time.Now, Clock: clk.Mono,
		Symbol: e.symbol.Function}
	e.super = newSupervisor(log, env, e.pipe, e.gather, specs)
	return e, nil
}

// openKernel finds how cgroups are mounted and what BPF the kernel offers.
func (e *Engine) openKernel() error {
	var err error
	e.cgroup, err = cgroup.Detect(e.cfg.Host.Root)
	if err != nil { // no cgroups: everything belongs to the host
		e.log.Warn("workloads cannot be told apart", "err", err)
		e.cgroup = nil
	}
	o := load.Options{BTF: e.cfg.Kernel.BTF, Kinds: e.cfg.Kernel.Hooks, Ring: e.cfg.Kernel.Ring, Flavour: e.cfg.Kernel.Flavour}
	if e.cgroup != nil {
		if e.index, err = cgroup.NewIndex(e.cgroup, cgroup.IndexOptions{Log: e.log}); err != nil {
			return err
		}
		if !e.cgroup.Unified {
			o.CgroupController = "cpu"
		}
	}
	e.kernel, err = load.Open(o)
	return err
}

func procOf(root string) string {
	if root == "" || root == "/" {
		return "/proc"
	}
	return root + "/proc"
}

// complete fills a record and the others in it.
func (e *Engine) complete(r *signal.Record) {
	e.enrich.Record(r)
	e.enrich.Moment(r)
	e.frames(&r.KernelStack, &r.KernelIPs, &r.UserStack, &r.UserIPs, r.Process)
	for _, p := range r.Parties {
		tmp := signal.Record{Schema: r.Schema, Time: r.Time, Process: p.Process, CgroupID: p.CgroupID}
		if p.Process.PID != 0 || p.CgroupID != 0 {
			e.enrich.Record(&tmp)
		}
		p.Process = tmp.Process
		if c := tmp.Container; c.ID != "" || c.Unit != "" || c.Cgroup != "" {
			p.Container = &c
		}
		e.frames(&p.KernelStack, &p.KernelIPs, &p.UserStack, &p.UserIPs, p.Process)
	}
}

// frames names addresses and forgets them: none leaves the agent.
func (e *Engine) frames(kstack *[]signal.Frame, kips *[]uint64, ustack *[]signal.Frame, uips *[]uint64, p signal.Process) {
	if len(*kips) > 0 {
		*kstack = e.symbol.Kernel(*kips)
	}
	if len(*uips) > 0 {
		*ustack = e.symbol.User(p.PID, 0, *uips)
	}
	*kips, *uips = nil, nil
}

// Run starts the probes that want says yes to and moves their events until ctx
// is done; it then stops the probes, delivers what is queued, and returns.
func (e *Engine) Run(ctx context.Context, want func(name string) bool) {
	defer e.rings.Close()
	base := context.WithoutCancel(ctx)
	pipeCtx, stopPipe := context.WithCancel(base)
	probeCtx, stopProbes := context.WithCancel(base)
	defer stopProbes()
	var wg sync.WaitGroup
	wg.Go(func() { e.pipe.Run(pipeCtx, drainTime) })
	wg.Go(func() { e.chains.Run(pipeCtx) })
	if e.index != nil {
		wg.Go(func() {
			if err := e.index.Run(pipeCtx); err != nil {
				e.log.Error("control groups are no longer followed: workloads made from now on have no name", "err", err)
			}
		})
	}
	wg.Go(func() {
		if err := e.names.Run(pipeCtx); err != nil {
			e.log.Error("containers get no more names", "err", err)
		}
	})
	wg.Go(func() {
		if err := e.enrich.Run(pipeCtx); err != nil {
			e.log.Error("processes are no longer followed", "err", err)
		}
	})
	for _, s := range e.specs {
		if cfg, enabled := e.cfg.Probe(s.Name); enabled && want(s.Name) {
			e.super.start(probeCtx, s.Name, cfg)
		}
	}
	e.probes = probeCtx
	close(e.begun)
	wg.Go(func() { e.warm(ctx) })
	<-ctx.Done()
	stopProbes()
	e.super.wait()
	stopPipe()
	wg.Wait()
	e.enrich.Close()
}

// Restart ends a probe and, when it is enabled, starts it anew with cfg.
func (e *Engine) Restart(name string, cfg any, enabled bool) {
	<-e.begun
	e.super.change.Lock()
	defer e.super.change.Unlock()
	e.super.stop(name, probe.Disabled)
	if enabled {
		e.super.start(e.probes, name, cfg)
	}
}

// Settle waits until every probe runs or has told why it does not, and until
// the names of the containers that are there are known.
func (e *Engine) Settle(ctx context.Context) {
	select {
	case <-e.begun:
	case <-ctx.Done():
		return
	}
	t := time.NewTicker(10 * time.Millisecond)
	defer t.Stop()
	for !e.super.settled() {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
	select {
	case <-ctx.Done():
	case <-e.names.Begun():
	}
}

// warm reads the kernel's symbols once the probes run, so that the first stack
// does not wait for them, and gives back what was needed to start.
func (e *Engine) warm(ctx context.Context) {
	e.Settle(ctx)
	if ctx.Err() != nil {
		return
	}
	if err := e.ksyms.Load(); err != nil {
		e.log.Warn("kernel stacks have no names", "err", err)
	}
	e.kernel.Release()
	debug.FreeOSMemory()
	if err := forgetPages(); err != nil {
		e.log.Debug("more memory stays resident than is needed", "err", err)
	}
}

// Gather runs one round of all collectors. The caller must not change the samples.
func (e *Engine) Gather(ctx context.Context) ([]signal.Sample, error) { return e.gather.Gather(ctx) }

// Statuses returns every probe's status.
func (e *Engine) Statuses() []probe.Status { return e.super.statuses() }

// Kernel returns the kernel as the loader sees it.
func (e *Engine) Kernel() *load.Kernel { return e.kernel }

// NameSources tells who is asked for the names of containers, and how that goes.
func (e *Engine) NameSources() []naming.Status { return e.names.Sources() }

// CgroupMode tells how control groups are mounted: v1, v2, hybrid or none.
func (e *Engine) CgroupMode() string {
	if e.cgroup == nil {
		return "none"
	}
	return string(e.cgroup.Mode)
}

// AddSink adds a sink; call it before Run.
func (e *Engine) AddSink(name string, s pipe.Sink) { e.pipe.Add(name, s) }
