// Package budget holds the agent to what it may cost.
//
// It measures what the agent takes of the machine: the CPU time of its process,
// the run time of its BPF programs, which the kernel charges to whom they
// interrupt, and its resident memory. When that is more than the limit twice in
// a row, something is given up: first details (what is known per workload),
// then sampling rates, then whole probes; of each class from the probe whose
// programs cost most. When the agent has long cost less than half of the limit,
// the last thing that was given up comes back.
package budget

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"huatuo/internal/probe"
)

const (
	// patience is how many measurements must be over the limit: one alone may
	// be a start, a reload or a query.
	patience = 2
	// calmFactor is the share of the limit below which the agent is calm: what
	// comes back may cost as much as all else.
	calmFactor = 0.5
	// lastCalm is how long the agent must be calm at most; it doubles each time
	// that what came back had to go again.
	lastCalm = 4 * time.Hour
)

// Limit is what the agent may cost.
type Limit struct {
	Share  float64       // of all CPUs of the machine
	Memory uint64        // resident, bytes; 0: any
	Keep   []string      // probes that are never ended
	Calm   time.Duration // how long it must have cost little before something comes back
	Off    bool          // measure only
}

// Usage is what the agent took between two measurements.
type Usage struct {
	Process  float64            // CPU time of the agent, as a share of one CPU
	Programs map[string]float64 // run time of the BPF programs, likewise, by probe; nil: it could not be measured
	Memory   uint64             // resident, bytes
}

// BPF is the run time of all programs, as a share of one CPU.
func (u Usage) BPF() (sum float64) {
	for _, v := range u.Programs {
		sum += v
	}
	return sum
}

// Step is one thing that can be given up.
type Step struct {
	Probe string
	Class probe.Class
	What  string // what is missing afterwards
}

func (s Step) String() string {
	if s.Class == probe.Whole {
		return s.Probe
	}
	return s.Probe + ": " + s.What
}

// Control does what the budget decides.
type Control interface {
	// Steps lists what could be given up next, at most one step of each probe.
	Steps() []Step
	Take(Step)
	Undo(Step)
}

// Budget keeps the agent within its limit. Make one with New.
type Budget struct {
	log     *slog.Logger
	cpus    float64
	control Control

	mu     sync.Mutex
	limit  Limit
	last   Usage
	known  bool
	over   int       // measurements in a row
	calm   time.Time // since when it has been calm; zero: it is not
	need   time.Duration
	back   time.Time // when something last came back
	shed   []Shed
	counts map[probe.Class]uint64
}

// Shed is a step that was taken.
type Shed struct {
	Step
	Since time.Time
	Why   string
}

// New makes a Budget for a machine with that many CPUs.
func New(log *slog.Logger, cpus int, limit Limit, control Control) *Budget {
	return &Budget{log: log, cpus: float64(cpus), control: control, limit: limit, need: limit.Calm, counts: map[probe.Class]uint64{}}
}

// SetLimit changes the limit. What was given up comes back as the new one allows.
func (b *Budget) SetLimit(l Limit) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.limit, b.need, b.over = l, l.Calm, 0
}

// Share is what part of the machine the usage is.
func (b *Budget) Share(u Usage) float64 { return (u.Process + u.BPF()) / b.cpus }

// Run measures each interval, and acts, until ctx is done. measure takes as
// long as it needs for one measurement.
func (b *Budget) Run(ctx context.Context, every time.Duration, measure func(context.Context) (Usage, error)) {
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		u, err := measure(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			b.log.Warn("what the agent costs is not measured", "err", err)
			continue
		}
		b.Observe(u, time.Now())
	}
}

// Observe takes in a measurement, and gives something up or back when it is time.
func (b *Budget) Observe(u Usage, now time.Time) {
	b.mu.Lock()
	b.last, b.known = u, true
	why := b.excess(u)
	var take, undo *Step
	switch {
	case b.limit.Off:
		b.over, b.calm = 0, time.Time{}
		undo = b.newest() // the limit was lifted
	case why != "":
		b.calm = time.Time{}
		if b.over++; b.over >= patience {
			take = b.next(u)
		}
	default:
		b.over = 0
		undo = b.rest(u, now)
	}
	b.note(take, undo, why, now)
	b.mu.Unlock()
	// Outside of the lock: a probe that starts takes some 100 ms.
	switch {
	case take != nil:
		b.log.Warn("the agent costs too much and gives something up", "what", take.String(), "class", take.Class, "because", why)
		b.control.Take(*take)
	case undo != nil:
		b.log.Info("the agent has what it gave up again", "what", undo.String(), "class", undo.Class)
		b.control.Undo(*undo)
	}
}

// note keeps the books of a step.
func (b *Budget) note(take, undo *Step, why string, now time.Time) {
	if take != nil {
		if !b.back.IsZero() && now.Sub(b.back) < 2*b.need { // it came back too soon
			b.need = min(2*b.need, lastCalm)
		}
		b.over, b.back = 0, time.Time{}
		b.shed = append(b.shed, Shed{*take, now, why})
		b.counts[take.Class]++
	}
	if undo != nil {
		b.shed = b.shed[:len(b.shed)-1]
		b.back, b.calm = now, now
	}
}

// excess says by what the limit is passed; "" when it is not.
func (b *Budget) excess(u Usage) string {
	if s := b.Share(u); s > b.limit.Share {
		return fmt.Sprintf("%.2f %% of the machine's CPU time, the limit is %.2f %%", 100*s, 100*b.limit.Share)
	}
	if b.limit.Memory > 0 && u.Memory > b.limit.Memory {
		return fmt.Sprintf("%d MB of memory, the limit is %d MB", u.Memory>>20, b.limit.Memory>>20)
	}
	return ""
}

// rest tells what may come back.
func (b *Budget) rest(u Usage, now time.Time) *Step {
	quiet := b.Share(u) < calmFactor*b.limit.Share && (b.limit.Memory == 0 || float64(u.Memory) < 0.9*float64(b.limit.Memory))
	if !quiet {
		b.calm = time.Time{}
		return nil
	}
	if b.calm.IsZero() {
		b.calm = now
	}
	if now.Sub(b.calm) < b.need {
		return nil
	}
	return b.newest()
}

func (b *Budget) newest() *Step {
	if len(b.shed) == 0 {
		return nil
	}
	return &b.shed[len(b.shed)-1].Step
}

var classes = []probe.Class{probe.Detail, probe.Sampling, probe.Whole}

// next chooses what to give up: the first class that has something, in it the
// probe whose programs cost most.
func (b *Budget) next(u Usage) *Step {
	steps := slices.DeleteFunc(b.control.Steps(), func(s Step) bool {
		return s.Class == probe.Whole && slices.Contains(b.limit.Keep, s.Probe)
	})
	if len(steps) == 0 {
		return nil
	}
	slices.SortStableFunc(steps, func(x, y Step) int {
		return cmp.Or(slices.Index(classes, x.Class)-slices.Index(classes, y.Class), cmp.Compare(u.Programs[y.Probe], u.Programs[x.Probe]))
	})
	return &steps[0]
}

// State is what the user is told.
type State struct {
	Limit Limit
	Usage Usage
	Known bool // it was measured
	Share float64
	Shed  []Shed
	Taken map[probe.Class]uint64 // steps since the start
}

// State returns the last measurement and what is given up.
func (b *Budget) State() State {
	b.mu.Lock()
	defer b.mu.Unlock()
	taken := make(map[probe.Class]uint64, len(classes))
	for _, c := range classes {
		taken[c] = b.counts[c]
	}
	return State{b.limit, b.last, b.known, b.Share(b.last), slices.Clone(b.shed), taken}
}
