// Package runqueue measures how long tasks wait for a CPU, and who had it.
package runqueue

import (
	"context"
	_ "embed"
	"fmt"
	"time"

	"github.com/cilium/ebpf"

	"huatuo/internal/kern/load"
	"huatuo/internal/probe"
	"huatuo/internal/signal"
)

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -no-global-types -type sched_stall_wire -type run -type ht_hist -type cpu_state -type pair -type blame -type group bpf runqueue.bpf.c -- -I../../../bpf/include -Wall -Werror -mcpu=v2
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -no-global-types bpfLegacy runqueue.bpf.c -- -I../../../bpf/include -Wall -Werror -mcpu=v2 -DHT_LEGACY

//go:embed README.md
var readme string

// Config of the probe.
type Config struct {
	Stall            time.Duration `yaml:"stall" help:"a wait for a CPU from this length on is a sched_stall event; 50ms is what users notice and far beyond the scheduler's own slices"`
	probe.EventKnobs `yaml:",inline"`
	Pairs            int           `yaml:"culprit_pairs" help:"pairs of a workload that waited for a CPU and who had it that have series of their own; those that grow most, and the rest is culprit=\"other\". Each is a series of huatuo_container_runqueue_culprit_seconds_total; 0 leaves the rest only"`
	Least            time.Duration `yaml:"culprit_wait" help:"a wait for a CPU from this length on is charged to who had that CPU; nearly all are shorter, and to charge each would cost more than it tells"`
}

// Spec describes the probe.
func Spec() probe.Spec {
	return probe.New(probe.Meta{
		Name:   "runqueue",
		Help:   "Measures how long tasks wait for a CPU, and who had it.",
		Readme: readme,
		Source: "sched:sched_wakeup, sched_wakeup_new, sched_switch, sched_migrate_task",
		Since:  "4.18",
		Emits:  []*signal.Schema{wait, containerWait, culprit, switches, migrations, collisions, stalled},
	}, Config{
		Stall:      50 * time.Millisecond,
		EventKnobs: probe.EventKnobs{Rate: 10, Burst: 10},
		Pairs:      100,
		Least:      20 * time.Microsecond,
	}, run, probe.Without(probe.Detail, "who ran while a workload waited", func(c *Config) { c.Pairs, c.Least = 0, time.Hour }))
}

var (
	wait = &signal.Schema{
		Name: "huatuo_runqueue_wait_seconds", Kind: signal.Metric, Type: signal.Histogram, Unit: "seconds",
		Area: signal.AreaSched, Scope: signal.Host,
		Help: "Time that a task waited on a run queue before it got a CPU.",
		Read: "A p99 above a few milliseconds means that CPUs are short; kind=preempt alone means that tasks are long-running.",
		Fields: []signal.Field{{Name: "kind", Help: "why it was waiting: woken up, or taken off the CPU while it could run",
			Values: []string{"wakeup", "preempt"}}},
	}
	containerWait = &signal.Schema{
		Name: "huatuo_container_runqueue_wait_seconds", Kind: signal.Metric, Type: signal.Histogram, Unit: "seconds",
		Area: signal.AreaSched, Scope: signal.Workload,
		Help: "Time that a task of the workload waited on a run queue before it got a CPU.",
		Read: "Compare with the host's: a workload alone with long waits is throttled by its own limit or pinned to busy CPUs.",
	}
	switches = &signal.Schema{
		Name: "huatuo_sched_switches_total", Kind: signal.Metric, Type: signal.Counter, Unit: "1",
		Area: signal.AreaSched, Scope: signal.Host,
		Help: "Context switches away from a task.",
		Read: "Many involuntary ones beside few voluntary ones: more runnable tasks than CPUs.",
		Fields: []signal.Field{{Name: "kind", Help: "voluntary: the task blocked; involuntary: it was preempted",
			Values: []string{"voluntary", "involuntary"}}},
	}
	migrations = &signal.Schema{
		Name: "huatuo_sched_migrations_total", Kind: signal.Metric, Type: signal.Counter, Unit: "1",
		Area: signal.AreaSched, Scope: signal.Host,
		Help: "Moves of a task from one CPU to another.",
		Read: "A surge costs cache misses; look for many short-lived wakeups.",
	}
	collisions = &signal.Schema{
		Name: "huatuo_runqueue_unmeasured_total", Kind: signal.Metric, Type: signal.Counter, Unit: "1",
		Area: signal.AreaAgent, Scope: signal.Host,
		Help: "Waits that were not measured because two runnable tasks shared a slot.",
		Read: "More than a thousandth of huatuo_runqueue_wait_seconds_count: the histogram misses samples.",
	}
	stalled = signal.EventOf[SchedStall]("sched_stall", signal.AreaSched, signal.Warning,
		"A task that could run waited for a CPU longer than the threshold.")
)

func run(ctx context.Context, env *probe.Env, cfg Config) error {
	l, err := env.Kernel.Load(loadBpf, loadBpfLegacy)
	if err != nil {
		return err
	}
	if err := configure(l, cfg); err != nil {
		return err
	}
	o, err := l.Attach(load.TP("sched_wakeup"), load.TP("sched_wakeup_new"), load.TP("sched_switch"), load.TP("sched_migrate_task").Maybe())
	if err != nil {
		return err
	}
	defer o.Close()

	c := &collector{o: o, blames: newBlames(cfg.Pairs)}
	env.Collect(load.Guard(o, c.collect))
	return probe.Stream(ctx, env, o, func(raw []byte) (*signal.Record, error) { return decode(raw, env.Clock) })
}

func configure(l *load.Loader, cfg Config) error {
	switch {
	case cfg.Stall <= 0:
		return fmt.Errorf("probes.runqueue.stall is %v: want a positive duration", cfg.Stall)
	case cfg.Least <= 0:
		return fmt.Errorf("probes.runqueue.culprit_wait is %v: want a positive duration", cfg.Least)
	case cfg.Pairs < 0 || cfg.Pairs > maxPairs:
		return fmt.Errorf("probes.runqueue.culprit_pairs is %d: want 0 to %d", cfg.Pairs, maxPairs)
	}
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return fmt.Errorf("count CPUs: %w", err)
	}
	l.Spec.Maps["cpus"].MaxEntries = uint32(cpus)
	for name, d := range map[string]time.Duration{"stall_ns": cfg.Stall, "culprit_ns": cfg.Least} {
		if err := l.Set(name, uint64(d)); err != nil {
			return err
		}
	}
	return cfg.Set(l, "sched_stall")
}

// collector reads the maps in each gathering round.
type collector struct {
	o      *load.Object
	blames *blames
}

func (c *collector) collect(b *signal.Batch) error {
	if err := c.host(b); err != nil {
		return err
	}
	if err := c.groups(b); err != nil {
		return err
	}
	table, err := readPairs(c.o.Map("pairs"))
	if err != nil {
		return err
	}
	c.blames.update(b.Time, table)
	c.blames.collect(b)
	return nil
}

func (c *collector) host(b *signal.Batch) error {
	cpus := c.o.Map("cpus")
	var sum, one bpfCpuState
	for i := range cpus.MaxEntries() {
		if err := cpus.Lookup(i, &one); err != nil {
			return fmt.Errorf("read host histograms: %w", err)
		}
		sum.Voluntary += one.Voluntary
		sum.Involuntary += one.Involuntary
		sum.Collisions += one.Collisions
		for k := range one.Wait {
			sum.Wait[k].Zero += one.Wait[k].Zero
			sum.Wait[k].Sum += one.Wait[k].Sum
			for j, n := range one.Wait[k].Slots {
				sum.Wait[k].Slots[j] += n
			}
		}
	}
	for k, name := range kinds {
		h := &sum.Wait[k]
		b.Hist(wait, signal.LatencyHist(2, h.Zero, h.Sum, h.Slots[:]), name)
	}
	b.Value(switches, float64(sum.Voluntary), "voluntary")
	b.Value(switches, float64(sum.Involuntary), "involuntary")
	b.Value(collisions, float64(sum.Collisions))

	if c.o.Attached("sched_migrate_task") {
		n, err := perCPU(c.o.Map("migrations"))
		if err != nil {
			return err
		}
		b.Value(migrations, float64(n))
	}
	return nil
}

// perCPU sums a counter of which each CPU has one.
func perCPU(m *ebpf.Map) (n uint64, err error) {
	var per []uint64
	if err := m.Lookup(uint32(0), &per); err != nil {
		return 0, fmt.Errorf("read %v: %w", m, err)
	}
	for _, x := range per {
		n += x
	}
	return n, nil
}

// attempts to read slots and hash while none changes hands: that happens to a
// slot at most once a minute.
const attempts = 4

// groups adds the histograms of cgroups, which are in group.h's two maps.
func (c *collector) groups(b *signal.Batch) error {
	var all map[uint64]*bpfHtHist
	for range attempts {
		before, err := perCPU(c.o.Map("takeovers"))
		if err != nil {
			return err
		}
		if all, err = c.readGroups(); err != nil {
			return err
		}
		after, err := perCPU(c.o.Map("takeovers"))
		if err != nil {
			return err
		}
		if before == after && before%2 == 0 {
			break
		}
	}
	for id, h := range all {
		b.WorkloadHist(containerWait, id, signal.LatencyHist(0, h.Zero, h.Sum, h.Slots[:]))
	}
	return nil
}

func (c *collector) readGroups() (map[uint64]*bpfHtHist, error) {
	all := map[uint64]*bpfHtHist{}
	add := func(id uint64, h *bpfHtHist) {
		sum := all[id]
		if sum == nil {
			sum = &bpfHtHist{}
			all[id] = sum
		}
		sum.Zero += h.Zero
		sum.Sum += h.Sum
		for i, n := range h.Slots {
			sum.Slots[i] += n
		}
	}
	var groups []bpfGroup
	slots := c.o.Map("slots")
	for i := range slots.MaxEntries() {
		if err := slots.Lookup(i, &groups); err != nil {
			return nil, fmt.Errorf("read histograms of cgroups: %w", err)
		}
		for j := range groups {
			if g := &groups[j]; g.Cgroup != 0 {
				add(g.Cgroup, &g.Hist)
			}
		}
	}
	var id uint64
	var per []bpfHtHist
	it := c.o.Map("cgroups").Iterate()
	for it.Next(&id, &per) {
		for i := range per {
			add(id, &per[i])
		}
	}
	if err := it.Err(); err != nil {
		return nil, fmt.Errorf("read histograms of cgroups: %w", err)
	}
	return all, nil
}
