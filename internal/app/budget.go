package app

import (
	"context"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"huatuo/internal/budget"
	"huatuo/internal/config"
	"huatuo/internal/console"
	"huatuo/internal/kern/load"
	"huatuo/internal/probe"
	"huatuo/internal/signal"
)

// bpfCostFor is how long BPF programs are timed: counting adds some 50 ns to
// each run, so it is on for a thirtieth of the time.
const bpfCostFor = time.Second

// What the agent costs, and what it gave up for it.
var (
	budgetLimit = selfMetric("huatuo_budget_limit_ratio", signal.Gauge, "ratio", "Share of all CPUs of the node that the agent may take.",
		"Compare with huatuo_budget_used_ratio.")
	budgetUsed = selfMetric("huatuo_budget_used_ratio", signal.Gauge, "ratio", "Share of all CPUs of the node that the agent's process and its BPF programs took when it was last measured.",
		"Twice in a row above the limit, the agent gives something up.")
	budgetShed = selfMetric("huatuo_budget_shed", signal.Gauge, "1", "Things that the agent does without at the moment because it cost too much, by class.",
		"Above 0, some signals are missing or are coarser: the System page and the log say which.",
		signal.Field{Name: "class", Help: "what was given up: a detail, a sampling rate or a whole probe", Values: []string{"detail", "sampling", "probe"}})
	budgetSteps = selfMetric("huatuo_budget_steps_total", signal.Counter, "1", "Times that the agent gave something up because it cost too much, by class.",
		"Steadily rising: the load swings around what the limit allows; raise budget.share or disable the costliest probe.",
		signal.Field{Name: "class", Help: "what was given up: a detail, a sampling rate or a whole probe", Values: []string{"detail", "sampling", "probe"}})
	probeBPF = selfMetric("huatuo_probe_bpf_run_ratio", signal.Gauge, "ratio", "Share of one CPU that the BPF programs of a probe took when it was last measured.",
		"What the probe costs at this moment's load.", probeLabel)
)

func budgetSchemas() []*signal.Schema {
	return []*signal.Schema{budgetLimit, budgetUsed, budgetShed, budgetSteps, probeBPF}
}

func limitOf(c config.Budget) budget.Limit {
	return budget.Limit{Share: c.Share, Memory: uint64(c.Memory), Keep: c.Keep, Calm: c.Calm, Off: !c.Enforce}
}

func (a *App) collectBudget(b *signal.Batch) {
	st := a.budget.State()
	if !st.Limit.Off {
		b.Value(budgetLimit, st.Limit.Share)
	}
	count := map[probe.Class]float64{}
	for _, s := range st.Shed {
		count[s.Class]++
	}
	for class, n := range st.Taken {
		b.Value(budgetShed, count[class], string(class))
		b.Value(budgetSteps, float64(n), string(class))
	}
	if !st.Known {
		return
	}
	b.Value(budgetUsed, st.Share)
	for name, v := range st.Usage.Programs {
		b.Value(probeBPF, v, name)
	}
}

// budgetCost is what the console shows of it.
func (a *App) budgetCost(c *console.Cost) {
	st := a.budget.State()
	c.Shed = []console.Shed{}
	for _, s := range st.Shed {
		c.Shed = append(c.Shed, console.Shed{Probe: s.Probe, Class: string(s.Class), What: s.What, Since: s.Since, Why: s.Why})
	}
	if !st.Limit.Off {
		c.LimitRatio = &st.Limit.Share
	}
	if st.Known {
		c.UsedRatio = &st.Share
	}
}

// bpfMeter times BPF programs.
type bpfMeter struct {
	mu  sync.Mutex
	off bool // it cannot be done here, and is not tried again

	skipped skips
}

// skips counts the calls of BPF programs that the kernel left out: a program does
// not run on a CPU on which it is running already, as when an interrupt comes
// between (bpf_prog_get_recursion_context; counted since Linux 5.12).
type skips struct {
	mu   sync.Mutex
	of   map[uint32]uint64 // by program, of those that were read last
	sums map[string]uint64 // by probe
}

// note takes the counters of all programs that run now.
func (s *skips) note(now map[uint32]ranFor) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sums == nil {
		s.sums = map[string]uint64{}
	}
	of := make(map[uint32]uint64, len(now))
	for id, p := range now {
		if more := p.skipped - s.of[id]; p.skipped >= s.of[id] {
			s.sums[p.probe] += more
		}
		of[id] = p.skipped
	}
	s.of = of
}

// each calls f for each probe that has programs.
func (s *skips) each(f func(probe string, n uint64)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, n := range s.sums {
		f(name, n)
	}
}

// measure returns the share of one CPU that each probe's programs take, timed
// for d; nil when that cannot be done. It tells why once.
func (m *bpfMeter) measure(ctx context.Context, statuses func() []probe.Status, d time.Duration) (map[string]float64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.off {
		return nil, nil
	}
	stats, err := ebpf.EnableStats(uint32(unix.BPF_STATS_RUN_TIME))
	if err != nil {
		m.off = true
		return nil, fmt.Errorf("have the kernel time BPF programs (needs CAP_SYS_ADMIN, and Linux 5.8): %w", err)
	}
	defer stats.Close()
	before, began := runTimes(statuses()), time.Now()
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(d):
	}
	after, took := runTimes(statuses()), time.Since(began)
	m.skipped.note(after)
	out := map[string]float64{}
	for id, p := range after {
		if was, ok := before[id]; ok { // one that started meanwhile counts next time
			out[p.probe] += float64(p.ran-was.ran) / float64(took)
		}
	}
	return out, nil
}

type ranFor struct {
	probe   string
	ran     time.Duration
	skipped uint64
}

func runTimes(statuses []probe.Status) map[uint32]ranFor {
	out := map[uint32]ranFor{}
	for _, st := range statuses {
		for _, h := range st.Hooks {
			if h.ID == 0 {
				continue
			}
			p, err := ebpf.NewProgramFromID(ebpf.ProgramID(h.ID))
			if err != nil {
				continue // it ended meanwhile
			}
			if s, err := p.Stats(); err == nil {
				out[h.ID] = ranFor{st.Name, s.Runtime, s.RecursionMisses}
			}
			p.Close()
		}
	}
	return out
}

// programs lists the BPF programs of the agent, by probe; those of profiling as
// those of one.
func (a *App) programs() []probe.Status {
	all := a.engine.Statuses()
	if a.profiler == nil {
		return all
	}
	st := probe.Status{Name: profilesName}
	for _, id := range a.profiler.usage.Programs() {
		st.Hooks = append(st.Hooks, load.HookState{ID: id})
	}
	if id := a.profiler.walker.Load(); id != 0 {
		st.Hooks = append(st.Hooks, load.HookState{ID: id})
	}
	return append(slices.Clone(all), st)
}

// usage measures what the agent takes since the last call.
func (a *App) usage(ctx context.Context) (budget.Usage, error) {
	programs, err := a.meter.measure(ctx, a.programs, bpfCostFor)
	if err != nil && ctx.Err() == nil {
		a.log.Info("what the agent's BPF programs cost is not measured: the budget holds the process alone", "err", err)
	}
	u := budget.Usage{Process: a.cost.since(), Programs: programs, Memory: residentBytes()}
	bpf := math.NaN()
	if programs != nil {
		bpf = u.BPF()
	}
	a.cost.setBPF(bpf)
	return u, nil
}

// Steps, Take and Undo make the supervisor what a budget controls.
func (s *supervisor) Steps() []budget.Step {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []budget.Step
	for _, name := range s.order {
		p := s.probes[name]
		running := p.status.State == probe.Running || p.status.State == probe.Degraded
		switch {
		case !running || p.level > len(p.spec.Leans):
		case p.level < len(p.spec.Leans):
			l := p.spec.Leans[p.level]
			out = append(out, budget.Step{Probe: name, Class: l.Class, What: l.What})
		default:
			out = append(out, budget.Step{Probe: name, Class: probe.Whole, What: "all of it"})
		}
	}
	return out
}

// Take gives up what Steps named.
func (s *supervisor) Take(st budget.Step) { s.turn(st.Probe, +1) }

// Undo brings back what was given up last of that probe.
func (s *supervisor) Undo(st budget.Step) { s.turn(st.Probe, -1) }

// turn changes how lean a probe is, and starts it anew if it is to run.
func (s *supervisor) turn(name string, by int) {
	s.change.Lock()
	defer s.change.Unlock()
	s.mu.Lock()
	p := s.probes[name]
	p.level = min(max(p.level+by, 0), len(p.spec.Leans)+1)
	ctx, cfg := p.ctx, p.cfg
	s.mu.Unlock()
	if ctx == nil || ctx.Err() != nil {
		return // disabled meanwhile: its level waits for it
	}
	s.stop(name, probe.Shed)
	s.start(ctx, name, cfg)
}
