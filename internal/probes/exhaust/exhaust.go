// Package exhaust reports resources that come to their end: files, tasks, memory
// of workloads, swap, space and inodes of file systems, tracked connections, ports.
package exhaust

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"huatuo/internal/kern/load"
	"huatuo/internal/kern/procfs"
	"huatuo/internal/probe"
	"huatuo/internal/signal"
)

//go:embed README.md
var readme string

// Config of the probe.
type Config struct {
	Interval  time.Duration `yaml:"interval" help:"how often the numbers of the host, of workloads and of file systems are read; those of processes and network namespaces take longer to read, and are every third time"`
	Threshold float64       `yaml:"threshold" help:"share of a limit at which there is an event, 0.75 to 0.98"`
	Horizon   time.Duration `yaml:"horizon" help:"from 70 % of a limit on there is an event too when it will be reached within this time, by the growth of the last readings; 0 does without"`
	MaxGroups int           `yaml:"max_groups" help:"most containers, pods and units that are read; those that sort last by path are left out"`
}

// slow is how many rounds there are to one of the sources that take longer.
const slow = 3

// Spec describes the probe.
func Spec() probe.Spec {
	return probe.New(probe.Meta{
		Name:   "exhaust",
		Help:   "Reports resources with a limit that are near their end, who uses them, and since when.",
		Readme: readme,
		Emits:  []*signal.Schema{exhausted},
		Since:  "4.18",
		Source: "/proc/sys, /proc/loadavg, /proc/meminfo, /proc/PID/fd, /proc/PID/net, cgroup files, statfs(2)",
	}, Config{
		Interval:  10 * time.Second,
		Threshold: 0.9,
		Horizon:   10 * time.Minute,
		MaxGroups: 1000, // 10 ms a round
	}, run)
}

// source reads numbers of one kind.
type source struct {
	name  string
	every int // rounds
	read  func(ctx context.Context) ([]reading, error)

	tracker *tracker
	failing bool
}

// watcher runs the rounds.
type watcher struct {
	env     *probe.Env
	sources []*source
	round   int
	made    atomic.Uint64
	held    atomic.Uint64
}

func run(ctx context.Context, env *probe.Env, cfg Config) error {
	switch {
	case cfg.Interval <= 0 || cfg.Horizon < 0 || cfg.MaxGroups < 0:
		return fmt.Errorf("probes.exhaust: interval is %v, horizon %v, max_groups %d: want a positive one, and none below 0", cfg.Interval, cfg.Horizon, cfg.MaxGroups)
	case cfg.Threshold < 0.75 || cfg.Threshold > criticalRatio: // re-armed at 0.70
		return fmt.Errorf("probes.exhaust.threshold is %g: want 0.75 to %g", cfg.Threshold, criticalRatio)
	}
	w := newWatcher(env, cfg)
	env.Lost(func() probe.Loss {
		held := w.held.Load()
		return probe.Loss{Observed: w.made.Load() + held, Dropped: map[string]uint64{"rate_limited": held}}
	})
	if err := w.look(ctx); err != nil {
		return err
	}
	env.Ready(hooks(env)...)
	first := true
	return probe.Every(ctx, cfg.Interval, func() error {
		if first { // was just done
			first = false
			return nil
		}
		return w.look(ctx)
	})
}

func hooks(env *probe.Env) []load.HookState {
	hs := []load.HookState{{Hook: "/proc", By: "procfs"}, {Hook: "workloads", By: "cgroup"}, {Hook: "file systems", By: "statfs"}}
	if env.Layout == nil || env.Cgroups == nil {
		hs[1] = load.HookState{Hook: "workloads", Reason: "no control groups are mounted"}
	}
	return hs
}

func newWatcher(env *probe.Env, cfg Config) *watcher {
	proc, fs := filepath.Join(env.Root, "proc"), procfs.New(env.Root)
	who := newWho(env.Root, env.Layout, env.Cgroups)
	w := &watcher{env: env}
	add := func(name string, every int, read func() ([]reading, error)) {
		w.sources = append(w.sources, &source{name, every, func(context.Context) ([]reading, error) { return read() }, newTracker(cfg), false})
	}
	h := &host{proc: proc, who: who}
	add("host", 1, h.read)
	if env.Layout != nil && env.Cgroups != nil && cfg.MaxGroups > 0 {
		g := &groups{layout: env.Layout, index: env.Cgroups, max: cfg.MaxGroups, who: who}
		add("workloads", 1, g.read)
	}
	w.sources = append(w.sources, &source{"file systems", 1, newMounts(env.Root, who).read, newTracker(cfg), false})
	p := &processes{proc: proc, fs: fs, who: who}
	add("processes", slow, p.read)
	n := &namespaces{proc: proc, fs: fs, who: who, now: env.Now, spans: map[uint32]portRange{}}
	if link, err := os.Readlink(filepath.Join(proc, "self/ns/net")); err == nil {
		fmt.Sscanf(link, "net:[%d]", &n.own)
	}
	add("network namespaces", slow, n.read)
	return w
}

// look does one round. A source that fails is told once; without any there is
// nothing to watch.
func (w *watcher) look(ctx context.Context) error {
	var last error
	working := 0
	for _, s := range w.sources {
		if w.round%s.every != 0 {
			working++
			continue
		}
		rs, err := s.read(ctx)
		if err != nil {
			if last = err; !s.failing {
				w.env.Log.Warn("cannot read the use of a resource", "of", s.name, "err", err)
			}
		}
		s.failing = err != nil
		if err == nil || len(rs) > 0 {
			working++
		}
		w.emit(s, rs)
	}
	w.round++
	if working == 0 {
		return last
	}
	return nil
}

func (w *watcher) emit(s *source, rs []reading) {
	now := w.env.Now()
	before := s.tracker.held
	for _, p := range s.tracker.look(rs, now) {
		w.made.Add(1)
		w.env.Emit(p.record(now))
	}
	w.held.Add(s.tracker.held - before)
}
