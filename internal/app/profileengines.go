package app

import (
	"context"
	"slices"

	"huatuo/internal/config"
	"huatuo/internal/profile"
	"huatuo/internal/profile/engine"
	walker "huatuo/internal/profile/frames" // frames is a metric here
	"huatuo/internal/signal"
)

const (
	// profileSymbols bounds the symbols of the files that are profiled.
	profileSymbols = 32 << 20
	// smallSymbols is the same where memory is short: the table of a large
	// program is then not kept, and its functions have no names.
	smallSymbols = 8 << 20
	// profileDebug bounds the DWARF of a file whose inlined calls are shown: all
	// of it is in memory while it is read. libc has 10 MB, a Go program 20.
	profileDebug = 24 << 20
)

// unwind runs the unwinder.
func (p *profiler) unwind(ctx context.Context, r profileRun) error {
	o := engine.Options{
		Log: p.log, Rate: p.rate, Usage: p.usage, Small: r.mode == profileSmall,
		Symbols: p.engine.symbols(profileSymbols, profileDebug),
		Entries: p.entriesOf(r.cfg, r.level),
		Want:    p.wants, Emit: p.take, Ready: r.ready,
	}
	if o.Small {
		o.Symbols = p.engine.symbols(smallSymbols, 1)
	}
	o.Entries.KernelTypes = p.engine.kernel.Types()
	ready := o.Ready
	o.Ready = func() {
		p.engine.kernel.Release()
		ready()
	}
	return engine.Run(ctx, o)
}

// walk takes stacks by frame pointers.
func (p *profiler) walk(ctx context.Context, r profileRun) error {
	return walker.Run(ctx, walker.Options{
		Log: p.log, Rate: p.rate, Symbols: p.engine.walkerNames(r.short),
		Want: p.wants, Emit: p.take, Ready: r.ready,
		Lost: func(n uint64) { p.lost.Add(n) }, Program: p.walker.Store,
		Kernel: p.engine.kernel, Rings: p.engine.rings, Proc: procOf(p.engine.cfg.Host.Root),
	})
}

// cpuHertz is how often the CPUs are sampled; 0: not.
func cpuHertz(cfg config.Profiles, l leanLevel) int {
	if len(cfg.Types) > 0 && !slices.Contains(cfg.Types, profile.CPU.Name) {
		return 0
	}
	if l >= leanRate {
		return min(cfg.CPUHertz, leanHertz)
	}
	return cfg.CPUHertz
}

// entriesOf is what stacks are taken of besides the CPUs' time.
func (p *profiler) entriesOf(cfg config.Profiles, l leanLevel) engine.Entries {
	e := engine.Entries{
		Rate: cfg.Rate, Wait: cfg.Wait, LeastKernelLock: cfg.LeastLock, LeastUserLock: cfg.LeastLock,
		LeastFile: cfg.LeastIO, LeastBlock: cfg.LeastIO, FaultEvery: cfg.FaultEvery,
		CountHertz: cfg.CPUHertz, Account: p.account,
	}
	if l >= leanWaits {
		return e
	}
	for _, name := range cfg.Types {
		if t := profile.ByName(name); t != nil && t != profile.CPU {
			e.Types = append(e.Types, t)
		}
	}
	return e
}

// sameEngine tells whether an engine that runs for a can go on for b.
func sameEngine(a, b config.Profiles) bool {
	return slices.Equal(a.Types, b.Types) && a.Rate == b.Rate && a.Wait == b.Wait && a.LeastLock == b.LeastLock &&
		a.LeastIO == b.LeastIO && a.FaultEvery == b.FaultEvery && (a.CPUHertz == b.CPUHertz || !counts(a))
}

// counts tells whether the CPUs' counters are read.
func counts(cfg config.Profiles) bool {
	return slices.ContainsFunc(profile.Hardware(), func(t *signal.ProfileType) bool { return slices.Contains(cfg.Types, t.Name) })
}
