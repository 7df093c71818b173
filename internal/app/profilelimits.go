package app

import (
	"context"
	"fmt"
	"math"
	"runtime/debug"
	"runtime/metrics"
	"time"

	"huatuo/internal/budget"
	"huatuo/internal/probe"
)

const (
	// watchEvery is how often the memory of profiling is measured: twenty times
	// before the tables of a large container image are read.
	watchEvery = 5 * time.Second
	// firstBack is how long profiling with less memory lasts before more is tried.
	firstBack = time.Hour
	lastBack  = 24 * time.Hour
	// spareHeap is how much free memory of Go's heap is worth a collection to
	// give back, and releaseEvery how often at most: it takes 20 ms or so.
	spareHeap    = 12 << 20
	releaseEvery = time.Minute
	// freeEvery is how often memory that nobody uses any more is given back for
	// the limit's sake.
	freeEvery = 20 * time.Second
	// engineSettles is how long after its start an engine has read what runs.
	engineSettles = 15 * time.Second
)

// profileMode is how stacks are taken, by the memory that it takes.
type profileMode int

const (
	profileFull   profileMode = iota
	profileSmall              // the same unwinder with tables and caches a sixteenth as large
	profileFrames             // by frame pointers, without tables
	profileOff
)

// String returns the name of the mode.
func (m profileMode) String() string {
	return [...]string{"full", "small", "frame_pointers", "off"}[m]
}

// memoryUse is how much memory profiling has, and how much of it the unwinder's
// tables of executables take.
type memoryUse struct{ all, tables uint64 }

// sizing decides on the mode.
type sizing struct {
	mode profileMode
	most profileMode // the largest that can run here
	why  string
	back time.Time // when a larger one is tried
	grew time.Time // when one last was
	wait time.Duration
	only bool // the unwinder or nothing
}

// shrink goes to the next smaller mode, if there is one; without tables, to one
// that has none.
func (s *sizing) shrink(now time.Time, why string, tables bool) bool {
	if s.mode == profileOff {
		return false
	}
	if s.wait == 0 {
		s.wait = firstBack
	} else if !s.grew.IsZero() && now.Sub(s.grew) < 2*s.wait { // that was no use
		s.wait = min(2*s.wait, lastBack)
	}
	if s.mode++; s.mode == profileSmall && !tables {
		s.mode++
	}
	if s.mode == profileFrames && s.only {
		s.mode++
	}
	s.why, s.back, s.grew = why, now.Add(s.wait), time.Time{}
	return true
}

// grow goes to the next larger mode when it is time.
func (s *sizing) grow(now time.Time) bool {
	if s.mode <= s.most || now.Before(s.back) {
		return false
	}
	if s.mode--; s.mode == profileFrames && s.only {
		s.mode--
	}
	if s.mode == s.most && s.most == profileFull {
		s.why = ""
	}
	s.grew, s.back = now, now.Add(s.wait)
	return true
}

// downTo has profiling run at mode at most from now on, because a larger one
// cannot run on this machine; it tells whether that changes anything.
func (p *profiler) downTo(m profileMode, err error) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.size.mode >= m || p.size.only {
		return false
	}
	p.size.mode, p.size.most, p.size.why = m, m, err.Error()
	p.log.Warn("stacks are taken by frame pointers only", "because", err)
	return true
}

func (p *profiler) sizeReason() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.size.mode == profileFrames {
		return p.size.why + "; " + hiddenFromFrames
	}
	return p.size.why
}

// watch holds profiling to its memory until ctx is done, and gives back what a
// start leaves.
func (p *profiler) watch(ctx context.Context, ready <-chan struct{}) {
	t := time.NewTicker(watchEvery)
	defer t.Stop()
	var released time.Time
	settle := make(<-chan time.Time)
	for {
		select {
		case <-ctx.Done():
			return
		case <-ready:
			ready = nil
			settle = time.After(engineSettles)
		case <-settle:
			debug.FreeOSMemory()
			released = time.Now()
			if err := forgetPages(); err != nil {
				p.log.Debug("more memory stays resident than is needed", "err", err)
			}
		case now := <-t.C:
			if !released.IsZero() && now.Sub(released) > releaseEvery && freeHeap() > spareHeap {
				debug.FreeOSMemory()
				released = now
			}
			if ready == nil { // a start takes some 20 MB for a moment
				p.fit(now)
			}
		}
	}
}

// fit changes the mode when memory asks for it.
func (p *profiler) fit(now time.Time) {
	used, err := p.memory()
	if err != nil {
		p.log.Debug("the memory of profiling is not measured", "err", err)
		return
	}
	p.mu.Lock()
	limit, last := uint64(p.cfg.MaxMemory), p.size.mode == profileOff
	p.used = used.all
	p.mu.Unlock()
	if used.all > limit && !last {
		if now.Sub(p.freed) < freeEvery {
			return
		}
		debug.FreeOSMemory()
		if used, err = p.memory(); err != nil {
			return
		}
		if used.all <= limit {
			p.freed = now
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.used = used.all
	was := p.size.mode
	if used.all > limit {
		why := fmt.Sprintf("profiling took %d MB of memory, the limit is %d MB", used.all>>20, limit>>20)
		if !p.size.shrink(now, why, used.tables < limit/2) { // a smaller unwinder needs those as well
			return
		}
		p.log.Warn("profiling takes too much memory and goes on with less", "mode", p.size.mode, "was", was, "because", why, "back_in", p.size.wait)
	} else if p.size.grow(now) {
		p.log.Info("profiling takes more memory again", "mode", p.size.mode, "was", was)
	} else {
		return
	}
	p.again(errAgain)
}

// measure returns what tells how much memory profiling has: the engine's BPF
// maps, and what the agent has grown by since now.
func (p *profiler) measure() func() (memoryUse, error) {
	debug.FreeOSMemory() // or what the probes' start left would hide as much of ours
	if err := forgetPages(); err != nil {
		p.log.Debug("more memory stays resident than is needed", "err", err)
	}
	base := ownBytes()
	p.holdHeap(base)
	return func() (use memoryUse, err error) {
		use.all, use.tables, err = p.usage.MapBytes()
		if own := ownBytes(); own > base {
			use.all += own - base
		}
		return use, err
	}
}

// holdHeap has the garbage collector work harder before garbage fills what
// profiling may have. A lower limit would have it work all the time: with half of
// the memory it took 60 % of the agent's CPU time. GOMEMLIMIT overrides it.
func (p *profiler) holdHeap(base uint64) {
	if debug.SetMemoryLimit(-1) != math.MaxInt64 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	debug.SetMemoryLimit(int64(base) + p.cfg.MaxMemory)
}

// freeHeap is how much memory Go's heap has and does not use.
func freeHeap() uint64 {
	s := []metrics.Sample{{Name: "/memory/classes/heap/free:bytes"}}
	metrics.Read(s)
	if s[0].Value.Kind() != metrics.KindUint64 {
		return 0
	}
	return s[0].Value.Uint64()
}

// profilesName is what the budget calls profiling.
const profilesName = "profiles"

// leanLevel is how much of profiling the budget has taken.
type leanLevel int

const (
	leanNothing leanLevel = iota
	leanRate              // the CPUs are sampled at leanHertz
	leanWaits             // and nothing but the CPUs
	leanOff
)

// leanHertz shows where a service spends its time after minutes instead of one.
const leanHertz = 7

// profileLean is what the budget has taken, oldest first.
type profileLean []leanLevel

func (l profileLean) level() leanLevel {
	if len(l) == 0 {
		return leanNothing
	}
	return l[len(l)-1]
}

// Steps, Take and Undo make the profiler what a budget controls.
func (p *profiler) Steps() []budget.Step {
	p.mu.Lock()
	defer p.mu.Unlock()
	running := p.status.State == string(probe.Running) || p.status.State == string(probe.Degraded)
	if !running {
		return nil
	}
	switch p.nextLean() {
	case leanRate:
		what := fmt.Sprintf("the CPUs are sampled %d times a second instead of %d", leanHertz, p.cfg.CPUHertz)
		return []budget.Step{{Probe: profilesName, Class: probe.Sampling, What: what}}
	case leanWaits:
		return []budget.Step{{Probe: profilesName, Class: probe.Sampling, What: "stacks of waits, locks, I/O and memory"}}
	case leanOff:
		return []budget.Step{{Probe: profilesName, Class: probe.Whole, What: "all of it"}}
	}
	return nil
}

// nextLean is the next level that changes anything; leanNothing when there is none.
func (p *profiler) nextLean() leanLevel {
	l := p.lean.level()
	if l < leanRate && cpuHertz(p.cfg, l) > leanHertz {
		return leanRate
	}
	if l < leanWaits && len(p.entriesOf(p.cfg, l).Types) > 0 && cpuHertz(p.cfg, l) > 0 {
		return leanWaits
	}
	if l < leanOff {
		return leanOff
	}
	return leanNothing
}

// Take gives up what Steps named.
func (p *profiler) Take(budget.Step) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if l := p.nextLean(); l != leanNothing {
		p.turn(append(p.lean, l))
	}
}

// Undo brings back what was given up last.
func (p *profiler) Undo(budget.Step) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.lean); n > 0 {
		p.turn(p.lean[:n-1])
	}
}

// turn brings a level into force. Only a rate changes while an engine runs.
func (p *profiler) turn(to profileLean) {
	was := p.lean.level()
	p.lean = to
	now := to.level()
	if err := p.rate.Set(cpuHertz(p.cfg, now)); err != nil {
		p.log.Warn("the CPUs are not sampled", "err", err)
	}
	if max(was, now) > leanRate {
		p.again(errAgain)
	}
}

// controls is all that the budget controls, told apart by the name in a step.
type controls struct{ app *App }

// Steps lists the steps of all.
func (c controls) Steps() []budget.Step {
	steps := c.app.engine.super.Steps()
	if p := c.app.profiler; p != nil {
		steps = append(steps, p.Steps()...)
	}
	return steps
}

// Take gives up a step of one.
func (c controls) Take(s budget.Step) { c.of(s).Take(s) }

// Undo brings it back.
func (c controls) Undo(s budget.Step) { c.of(s).Undo(s) }

func (c controls) of(s budget.Step) budget.Control {
	if s.Probe == profilesName && c.app.profiler != nil {
		return c.app.profiler
	}
	return c.app.engine.super
}
