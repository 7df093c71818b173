// Package cgroupstat reports what each container and each systemd unit uses of
// CPU, memory and I/O, where its limits are and how long it was held up, from
// the files of control groups v1, v2 and both.
package cgroupstat

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"log/slog"
	"path"
	"sync"

	"golang.org/x/sys/unix"

	"huatuo/internal/kern/cgroup"
	"huatuo/internal/kern/load"
	"huatuo/internal/probe"
	"huatuo/internal/signal"
)

//go:embed README.md
var readme string

// Config of the probe.
type Config struct {
	MaxGroups    int `yaml:"max_groups" help:"most containers and units that are read in one round; those that sort last by path are left out"`
	MaxOpenFiles int `yaml:"max_open_files" help:"most files that are kept open between rounds, which makes a read five times cheaper; at most a quarter of the process' limit is used"`
}

// Spec describes the probe.
func Spec() probe.Spec {
	return probe.New(probe.Meta{
		Name:   "cgroupstat",
		Help:   "Reports what containers and systemd units use of CPU, memory and I/O, and how long they were held up.",
		Readme: readme,
		Emits:  emits(),
		Since:  "4.18",
		Source: "cgroup files",
	}, Config{
		MaxGroups:    1000, // 40,000 series and 30 ms a round
		MaxOpenFiles: 4096, // 350 containers; the kernel keeps a page for each: 16 MB
	}, run)
}

func run(ctx context.Context, env *probe.Env, cfg Config) error {
	layout, index := env.Layout, env.Cgroups
	if layout == nil || index == nil {
		return fmt.Errorf("no control groups are mounted: %w", errors.ErrUnsupported)
	}
	p := newPoller(layout, index, cfg, env)
	env.Collect(p.collect)
	env.Ready(hooks(layout)...)
	<-ctx.Done()
	p.close()
	return nil
}

// hooks tells where the files are, by controller.
func hooks(l *cgroup.Layout) []load.HookState {
	var hs []load.HookState
	for _, c := range []string{"cpu", "memory", "pids", "blkio"} {
		by := "cgroup2"
		if l.IsV1(c) {
			by = "cgroup"
		} else if l.Mount("") == "" {
			hs = append(hs, load.HookState{Hook: c, Reason: "the controller is not mounted"})
			continue
		}
		hs = append(hs, load.HookState{Hook: c, By: by})
	}
	if l.Mount("") == "" {
		return append(hs, load.HookState{Hook: "pressure", Reason: "needs the cgroup2 hierarchy, mounted beside v1 or instead of it"})
	}
	return append(hs, load.HookState{Hook: "pressure", By: "cgroup2"})
}

// poller reads the groups.
type poller struct {
	mu     sync.Mutex // a round may still run when the probe ends
	closed bool

	layout  *cgroup.Layout
	index   *cgroup.Index
	cfg     Config
	log     *slog.Logger
	sources []source
	limits  []source
	devices devices
	buf     []byte

	generation uint64
	chosen     bool // groups is that of generation
	groups     []*group
	round      uint64
	open       int // files kept open
	left       int // groups left out for MaxGroups, as last logged
}

func newPoller(l *cgroup.Layout, x *cgroup.Index, cfg Config, env *probe.Env) *poller {
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err == nil && lim.Cur/4 < uint64(max(cfg.MaxOpenFiles, 0)) {
		cfg.MaxOpenFiles = int(lim.Cur / 4)
	}
	return &poller{
		layout: l, index: x, cfg: cfg, log: env.Log, sources: sourcesOf(l), limits: limitsOf(l),
		devices: devices{root: env.Root}, buf: make([]byte, 16<<10),
	}
}

func (p *poller) collect(b *signal.Batch) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil
	}
	p.choose()
	if p.round%limitEvery == 0 {
		p.devices.forget()
	}
	for _, g := range p.groups {
		p.collectGroup(b, g)
	}
	p.round++
	return nil
}

// close gives back the open files.
func (p *poller) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, g := range p.groups {
		p.open -= g.close()
	}
	p.closed = true
}

// collectGroup reads one group. A file that is not there gives no value: the
// group may be missing in a hierarchy, or have gone since the index was made.
func (p *poller) collectGroup(b *signal.Batch, g *group) {
	if p.round >= g.limitsDue {
		g.limits = limits{held: g.limits.held[:0]}
		for i := range p.limits {
			if file, ok := p.readLimit(g, i); ok {
				p.limits[i].add(&entry{group: g}, file)
			}
		}
		g.retry()
		g.limitsDue = p.round + limitEvery
	}
	e := entry{b: b, group: g, devices: &p.devices}
	for i := range p.sources {
		if file, ok := p.read(g, i); ok {
			p.sources[i].add(&e, file)
		}
	}
	e.finish()
}

// choose brings the list of groups up to date.
func (p *poller) choose() {
	generation := p.index.Generation() // before Live: a change in between is seen next time
	if p.chosen && generation == p.generation {
		return
	}
	live := workloads(p.index.Live())
	if left := max(len(live)-p.cfg.MaxGroups, 0); left != p.left {
		p.left = left
		p.log.Warn("containers and units are left out: raise cgroupstat.max_groups", "left_out", left, "max_groups", p.cfg.MaxGroups)
	}
	live = live[:min(len(live), max(p.cfg.MaxGroups, 0))]
	old := make(map[uint64]*group, len(p.groups))
	for _, g := range p.groups {
		old[g.id] = g
	}
	p.groups = p.groups[:0]
	for _, e := range live {
		g := old[e.ID]
		if g != nil && g.path == e.Path {
			delete(old, e.ID)
		} else {
			g = newGroup(e.ID, e.Path, len(p.sources), p.round)
		}
		p.groups = append(p.groups, g)
	}
	for _, g := range old {
		p.open -= g.close()
	}
	p.generation, p.chosen = generation, true
}

// workloads chooses the groups to report. A group's counters include those of
// the groups below it, and the gatherer sums the groups of a workload, so each
// workload must be there once: containers and units with their top group, and
// other groups only when they are leaves.
func workloads(live []cgroup.Entry) []cgroup.Entry {
	parents := make(map[string]bool, len(live))
	for i := range live {
		parents[path.Dir(live[i].Path)] = true
	}
	var out []cgroup.Entry
	for i := range live {
		e := &live[i]
		if e.Workload() && (e.Kind != cgroup.Plain || !parents[e.Path]) {
			out = append(out, *e)
		}
	}
	return out
}
