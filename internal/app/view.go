package app

import (
	"context"
	"errors"
	"math"
	"runtime"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"golang.org/x/sys/unix"

	"huatuo/internal/console"
	"huatuo/internal/kern/clock"
	"huatuo/internal/probe"
	"huatuo/internal/query"
	"huatuo/internal/signal"
)

// agentView is the App as the console sees it.
type agentView struct{ a *App }

// Node describes the machine and the agent on it.
func (v agentView) Node() console.Node {
	a := v.a
	n := console.Node{
		Hostname: a.engine.hostID, Arch: runtime.GOARCH, CPUs: runtime.NumCPU(),
		CgroupMode: a.engine.CgroupMode(), BTF: a.engine.kernel.BTF(),
		Version: a.build.Version, Commit: a.build.Commit, GoVersion: a.build.Go,
		Started: a.started, Now: time.Now(), Listen: a.cfg.Load().Listen,
	}
	if a.store != nil {
		n.StoreInterval = a.cfg.Load().Store.Interval.Seconds()
	}
	n.Kernel = KernelRelease()
	var si unix.Sysinfo_t
	if unix.Sysinfo(&si) == nil {
		n.MemoryBytes = uint64(si.Totalram) * uint64(si.Unit)
	}
	if c, err := clock.New(); err == nil {
		n.BootTime = c.BootTime()
	}
	return n
}

func KernelRelease() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}

// Catalog lists every metric and event.
func (v agentView) Catalog() []console.CatalogEntry { return Catalog(v.a.engine.specs) }

// Catalog lists every metric and event of the probes and of the agent itself.
func Catalog(specs []probe.Spec) []console.CatalogEntry {
	var out []console.CatalogEntry
	for _, s := range specs {
		for _, e := range s.Emits {
			out = append(out, console.CatalogEntry{Schema: *e, Probe: s.Name})
		}
	}
	for _, e := range SelfSchemas() {
		out = append(out, console.CatalogEntry{Schema: *e})
	}
	return out
}

// Probes returns every probe's status.
func (v agentView) Probes() []probe.Status { return v.a.engine.Statuses() }

// Probe returns all that is known about one probe.
func (v agentView) Probe(name string) (console.Manual, bool) {
	for i, st := range v.a.engine.Statuses() {
		if st.Name != name {
			continue
		}
		spec := v.a.engine.specs[i]
		m := console.Manual{Status: st, Readme: spec.Readme, Schemas: spec.Emits, Config: map[string]any{}}
		for k, val := range v.a.cfg.Load().ProbeValues(name) {
			m.Config[k] = val
		}
		return m, true
	}
	return console.Manual{}, false
}

// Accounts returns the conservation law of every probe that emits events.
func (v agentView) Accounts() []signal.Account {
	emits := map[string]bool{}
	for _, s := range v.a.engine.specs {
		for _, e := range s.Emits {
			if e.Kind == signal.Event {
				emits[s.Name] = true
			}
		}
	}
	out := []signal.Account{}
	for _, acc := range v.a.engine.pipe.Accounts() {
		if emits[acc.Probe] {
			out = append(out, acc)
		}
	}
	return append(out, v.a.pushes.accounts()...)
}

// StoreStatus tells how the store is doing; zero without one.
func (v agentView) StoreStatus() signal.StoreStatus {
	if v.a.store == nil {
		return signal.StoreStatus{}
	}
	return v.a.store.Status()
}

// Sinks tells how each sink is doing.
func (v agentView) Sinks() []console.Sink {
	out := []console.Sink{}
	for _, s := range v.a.engine.pipe.Sinks() {
		out = append(out, console.Sink(s))
	}
	return append(out, v.a.pushes.states()...)
}

// Cost tells what the agent takes from the node.
func (v agentView) Cost() console.Cost {
	c := v.a.cost.now()
	out := console.Cost{CPURatio: c.ratio, RSSBytes: c.rss, Goroutines: runtime.NumGoroutine(), StartSeconds: c.start.Seconds()}
	if !math.IsNaN(c.bpf) {
		out.BPFSeconds = &c.bpf
	}
	v.a.budgetCost(&out)
	return out
}

// EffectiveConfig returns the configuration in force, secrets masked.
func (v agentView) EffectiveConfig() (string, error) { return string(v.a.cfg.Load().Print()), nil }

// Ready is nil once the probes have started.
func (v agentView) Ready() error {
	if !v.a.ready.Load() {
		return errors.New("probes are starting")
	}
	return nil
}

// metricView is the query layer as the console wants it: the two declare the
// same questions and answers, and must not know each other.
type metricView struct{ q *query.Reader }

// Instant evaluates expr at one time.
func (v metricView) Instant(ctx context.Context, expr string, at time.Time) (console.Result, error) {
	r, err := v.q.Instant(ctx, expr, at)
	return console.Result(r), err
}

// Range evaluates expr at each step.
func (v metricView) Range(ctx context.Context, expr string, from, to time.Time, step time.Duration) (console.Result, error) {
	r, err := v.q.Range(ctx, expr, from, to, step)
	return console.Result(r), err
}

// Series lists series.
func (v metricView) Series(ctx context.Context, s console.Selection) ([]labels.Labels, bool, error) {
	return v.q.Series(ctx, meta(s))
}

// LabelNames lists the names of labels.
func (v metricView) LabelNames(ctx context.Context, s console.Selection) ([]string, bool, error) {
	return v.q.LabelNames(ctx, meta(s))
}

// LabelValues lists the values of one label.
func (v metricView) LabelValues(ctx context.Context, label string, s console.Selection) ([]string, bool, error) {
	return v.q.LabelValues(ctx, label, meta(s))
}

func meta(s console.Selection) query.MetaQuery {
	return query.MetaQuery{Match: s.Match, From: s.From, To: s.To, Limit: s.Limit}
}
