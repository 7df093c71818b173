// Package oomkill reports whom the OOM killer chose, with a snapshot of memory
// at that moment.
package oomkill

import (
	"context"
	_ "embed"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"huatuo/internal/kern/cgroup"
	"huatuo/internal/kern/load"
	"huatuo/internal/probe"
	"huatuo/internal/signal"
)

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -no-global-types -type oom_wire -type oom_level bpf oomkill.bpf.c -- -I../../../bpf/include -Wall -Werror -mcpu=v2
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -no-global-types bpfLegacy oomkill.bpf.c -- -I../../../bpf/include -Wall -Werror -mcpu=v2 -DHT_LEGACY

//go:embed README.md
var readme string

// Config of the probe.
type Config struct {
	Processes        int           `yaml:"processes" help:"how many of the largest processes a snapshot lists"`
	LogLines         int           `yaml:"log_lines" help:"most lines of the kernel's report that a snapshot keeps; 0 keeps none"`
	HistoryInterval  time.Duration `yaml:"history_interval" help:"how often the memory in use of control groups, large processes and the host is noted, so that an event can tell how it grew; thirty notes are kept; 0 keeps none"`
	probe.EventKnobs `yaml:",inline"`
}

// Spec describes the probe.
func Spec() probe.Spec {
	return probe.New(probe.Meta{
		Name:   "oomkill",
		Help:   "Reports whom the OOM killer chose, with a snapshot of memory at that moment.",
		Readme: readme,
		Source: "oom:mark_victim, /dev/kmsg, cgroup files, /proc",
		Since:  "4.18",
		Emits:  []*signal.Schema{kills, containerKills, killed},
	}, Config{
		Processes:       10,
		LogLines:        40,
		HistoryInterval: 10 * time.Second,
		EventKnobs:      probe.EventKnobs{Rate: 5, Burst: 20},
	}, run, probe.Without(probe.Detail, "how memory grew before a kill", func(c *Config) { c.HistoryInterval = 0 }))
}

// Constraints: what was out of memory.
var constraints = [...]string{"host", "memcg", "cpuset", "memory_policy", "unknown"}

var (
	kills = &signal.Schema{
		Name: "huatuo_oom_kills_total", Kind: signal.Metric, Type: signal.Counter, Unit: "1",
		Area: signal.AreaMemory, Scope: signal.Host,
		Help: "Processes that the OOM killer chose.",
		Read: "constraint=memcg: a workload went over its own limit; host: the machine had no memory left, which is worse.",
		Fields: []signal.Field{{Name: "constraint", Help: "what was out of memory; unknown: the kernel's report could not be read, or the event was held back",
			Values: constraints[:]}},
	}
	containerKills = &signal.Schema{
		Name: "huatuo_container_oom_kills_total", Kind: signal.Metric, Type: signal.Counter, Unit: "1",
		Area: signal.AreaMemory, Scope: signal.Workload,
		Help: "Processes of the workload that the OOM killer chose.",
		Read: "Any increase is a process that died; see the oom_kill event for why.",
	}
)

func run(ctx context.Context, env *probe.Env, cfg Config) error {
	if cfg.Processes < 0 || cfg.LogLines < 0 {
		return fmt.Errorf("probes.oomkill: processes and log_lines must not be negative")
	}
	if cfg.HistoryInterval != 0 && cfg.HistoryInterval < minHistoryInterval {
		return fmt.Errorf("probes.oomkill.history_interval is %v: want %v or more, or 0", cfg.HistoryInterval, minHistoryInterval)
	}
	o, err := attach(env, cfg)
	if err != nil {
		return err
	}
	defer o.Close()

	layout := env.Layout
	if layout == nil {
		if layout, err = cgroup.Detect(env.Root); err != nil {
			env.Log.Info("OOM kills are told without the cgroup's memory", "reason", err)
		}
	}
	log, err := openLog(env.Root)
	if err != nil {
		env.Log.Warn("OOM kills are told without the kernel's report", "reason", err)
	}
	defer log.close()

	var past *history
	if cfg.HistoryInterval > 0 {
		past = newHistory(env, layout)
		ctx, cancel := context.WithCancel(ctx)
		var wg sync.WaitGroup
		wg.Go(func() { past.run(ctx, env, cfg.HistoryInterval) })
		defer wg.Wait()
		defer cancel()
	}
	w := &worker{env: env, snap: &snapshotter{root: env.Root, layout: layout, log: log, past: past, cfg: cfg}, queue: make(chan *signal.Record, queueLen), late: make(map[uint64]uint64)}
	env.Collect(func(b *signal.Batch) error { return w.collect(b, o) })
	done := make(chan struct{})
	go func() { defer close(done); w.run() }()
	d := &decoder{clock: env.Clock}
	err = probe.Stream(ctx, w.wrap(), o, d.decode)
	close(w.queue)
	<-done
	return err
}

func attach(env *probe.Env, cfg Config) (*load.Object, error) {
	l, err := env.Kernel.Load(loadBpf, loadBpfLegacy)
	if err != nil {
		return nil, err
	}
	if err := cfg.Set(l, "oom_kill"); err != nil {
		return nil, err
	}
	h := load.TP("mark_victim")
	if env.Kernel.TracepointArgs("mark_victim") <= 1 { // see core_fixes.h
		h.Programs = []string{"mark_victim_pid_btf", "mark_victim_pid_raw"}
	}
	return l.Attach(h)
}

// minHistoryInterval keeps what a look costs, 3 ms on a large host, below a hundredth of a core.
const minHistoryInterval = 500 * time.Millisecond

// queueLen is how many kills may wait for their snapshot, of which one takes
// some milliseconds: more than a group kill of a large pod.
const queueLen = 64

// worker takes the snapshots, so that whoever reads the ring never waits.
type worker struct {
	env   *probe.Env
	snap  *snapshotter
	queue chan *signal.Record

	busy atomic.Uint64 // events without a place in the queue

	mu   sync.Mutex
	by   [len(constraints)]uint64
	late map[uint64]uint64 // kills by cgroup that the program could not tell
}

// wrap returns the Env for probe.Stream: events go through the queue.
func (w *worker) wrap() *probe.Env {
	inner := *w.env
	inner.Emit = func(r *signal.Record) {
		select {
		case w.queue <- r:
		default:
			w.busy.Add(1)
		}
	}
	inner.Lost = func(f func() probe.Loss) {
		w.env.Lost(func() probe.Loss {
			l := f()
			l.Dropped["snapshot_busy"] = w.busy.Load()
			return l
		})
	}
	return &inner
}

func (w *worker) run() {
	for r := range w.queue {
		known := r.CgroupID != 0
		w.snap.take(r)
		b := r.Body.(*OOMKill)
		w.mu.Lock()
		w.by[constraintIndex(b.Constraint)]++
		if !known && r.CgroupID != 0 {
			w.late[r.CgroupID]++
		}
		w.mu.Unlock()
		w.env.Emit(r)
	}
}

func constraintIndex(name string) int {
	for i, c := range constraints {
		if c == name {
			return i
		}
	}
	return len(constraints) - 1
}

func (w *worker) collect(b *signal.Batch, o *load.Object) error {
	st, err := o.Stats()
	if err != nil {
		return err
	}
	groups := make(map[uint64]uint64)
	var id, n uint64
	it := o.Map("kills").Iterate()
	for it.Next(&id, &n) {
		groups[id] += n
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("read kills: %w", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, name := range constraints {
		n := w.by[i]
		if name == unknown { // and of those that never came here nothing is known
			n += st.RingFull + st.RateLimited + w.busy.Load()
		}
		b.Value(kills, float64(n), name)
	}
	for id, n := range w.late {
		groups[id] += n
	}
	for id, n := range groups {
		b.WorkloadValue(containerKills, id, float64(n))
	}
	return nil
}
