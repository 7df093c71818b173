// Package runqueue measures how long tasks wait for a CPU, who had it, and what
// threads sleep for: all that sched_switch tells, by one program.
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

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -no-global-types -type sched_stall_wire -type page_fault_stall_wire -type ht_regs -type ht_place -type run -type ht_hist -type cpu_state -type pair -type blame -type group -type group_sleeps -type fs_key bpf runqueue.bpf.c -- -I../../../bpf/include -Wall -Werror -mcpu=v2
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -no-global-types bpfLegacy runqueue.bpf.c -- -I../../../bpf/include -Wall -Werror -mcpu=v2 -DHT_LEGACY

//go:embed README.md
var readme string

// Config of the probe.
type Config struct {
	Stall            time.Duration `yaml:"stall" help:"a wait for a CPU from this length on is a sched_stall event; 50ms is what users notice and far beyond the scheduler's own slices"`
	Fault            time.Duration `yaml:"page_fault" help:"a page fault in which a thread slept this long is a page_fault_stall event; 100ms is ten times what a busy disk takes to read a page"`
	probe.EventKnobs `yaml:",inline"`
	Sleeps           bool          `yaml:"sleeps" help:"measure what threads sleep for: futexes, files and page faults. Without it there are no page_fault_stall events either"`
	Pairs            int           `yaml:"culprit_pairs" help:"pairs of a workload that waited for a CPU and who had it that have series of their own; those that grow most, and the rest is culprit=\"other\". Each is a series of huatuo_container_runqueue_culprit_seconds_total; 0 leaves the rest only"`
	Least            time.Duration `yaml:"culprit_wait" help:"a wait for a CPU from this length on is charged to who had that CPU; nearly all are shorter, and to charge each would cost more than it tells"`
}

// Spec describes the probe.
func Spec() probe.Spec {
	return probe.New(probe.Meta{
		Name:   "runqueue",
		Help:   "Measures how long tasks wait for a CPU, who had it, and what threads sleep for: futexes (locks and condition variables of programs), files and page faults.",
		Readme: readme,
		Source: "sched:sched_wakeup, sched_wakeup_new, sched_switch, sched_migrate_task, registers of the system call, perf's event of major page faults",
		Since:  "4.18",
		Emits: []*signal.Schema{wait, containerWait, culprit, switches, migrations, collisions, futexWait, fileWait, faultWait, containerFutexes, containerFutexSeconds,
			containerFiles, containerFileSeconds, containerFaults, containerFaultSeconds, unmeasured, stalled, faultStall},
	}, Config{
		Stall:      50 * time.Millisecond,
		Fault:      100 * time.Millisecond,
		Sleeps:     true,
		EventKnobs: probe.EventKnobs{Rate: 10, Burst: 10},
		Pairs:      100,
		Least:      20 * time.Microsecond,
	}, run, probe.Without(probe.Detail, "who ran while a workload waited", func(c *Config) { c.Pairs, c.Least = 0, time.Hour }),
		probe.Without(probe.Detail, "what threads sleep for", func(c *Config) { c.Sleeps = false }))
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
		"A task that could run waited for a CPU longer than the threshold.").When(
		"A wait for a CPU of `stall` (50ms): users notice it, and it is far beyond the scheduler's own slices.",
		"Tasks at nice 19 or in SCHED_IDLE wait by design beside busy ones. A workload at its CPU quota waits up to a period (100 ms) each time: `idle_seconds` shows it.")
)

func run(ctx context.Context, env *probe.Env, cfg Config) error {
	l, err := env.Kernel.Load(loadBpf, loadBpfLegacy)
	if err != nil {
		return err
	}
	if err := configure(l, cfg); err != nil {
		return err
	}
	if err := watchSleeps(l, env); err != nil {
		return err
	}
	o, err := l.Attach(hooks(cfg)...)
	if err != nil {
		return err
	}
	defer o.Close()
	if err := tellCalls(o); err != nil {
		return err
	}

	c := &collector{o: o, blames: newBlames(cfg.Pairs), sleeps: cfg.Sleeps}
	env.Collect(load.Guard(o, c.collect))
	p, done := newPlacer(env), make(chan struct{})
	go func() { defer close(done); p.run() }()
	err = probe.Stream(ctx, p.wrap(env), o, func(raw []byte) (*signal.Record, error) { return decode(raw, env.Clock) })
	close(p.queue)
	<-done
	return err
}

func hooks(cfg Config) []load.Hook {
	hs := []load.Hook{load.TP("sched_wakeup"), load.TP("sched_wakeup_new"), load.TP("sched_switch"), load.TP("sched_migrate_task").Maybe()}
	if cfg.Sleeps { // page_fault_stall has the program's stack by it
		hs = append(hs, load.Hook{Name: "page_faults_maj", Programs: []string{"page_faults_maj"}, Optional: true})
	}
	return hs
}

func configure(l *load.Loader, cfg Config) error {
	switch {
	case cfg.Stall <= 0:
		return fmt.Errorf("probes.runqueue.stall is %v: want a positive duration", cfg.Stall)
	case cfg.Fault <= 0:
		return fmt.Errorf("probes.runqueue.page_fault is %v: want a positive duration", cfg.Fault)
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
	for name, d := range map[string]time.Duration{"stall_ns": cfg.Stall, "fault_ns": cfg.Fault, "culprit_ns": cfg.Least} {
		if err := l.Set(name, uint64(d)); err != nil {
			return err
		}
	}
	if err := l.Set("sleeps", cfg.Sleeps); err != nil {
		return err
	}
	for _, kind := range []string{"sched_stall", "page_fault_stall"} {
		if err := cfg.Set(l, kind); err != nil {
			return err
		}
	}
	return nil
}

// collector reads the maps in each gathering round.
type collector struct {
	o      *load.Object
	blames *blames
	sleeps bool
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
	sum, err := sumCPUs(c.o.Map("cpus"))
	if err != nil {
		return err
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
	if !c.sleeps {
		return nil
	}
	return collectSleeps(b, sum, c.o.Map("files"))
}

// sumCPUs adds up what each CPU counted.
func sumCPUs(cpus *ebpf.Map) (*bpfCpuState, error) {
	var sum, one bpfCpuState
	for i := range cpus.MaxEntries() {
		if err := cpus.Lookup(i, &one); err != nil {
			return nil, fmt.Errorf("read host histograms: %w", err)
		}
		sum.Voluntary += one.Voluntary
		sum.Involuntary += one.Involuntary
		sum.Collisions += one.Collisions
		sum.SleepCollisions += one.SleepCollisions
		for k := range one.Wait {
			sum.Wait[k].Zero += one.Wait[k].Zero
			sum.Wait[k].Sum += one.Wait[k].Sum
			for j, n := range one.Wait[k].Slots {
				sum.Wait[k].Slots[j] += n
			}
		}
		for k := range one.Slept {
			addHist(&sum.Slept[k], &one.Slept[k])
		}
	}
	return &sum, nil
}

func addHist(sum, h *bpfHtHist) {
	sum.Zero += h.Zero
	sum.Sum += h.Sum
	for i, n := range h.Slots {
		sum.Slots[i] += n
	}
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

// groupSum is what all CPUs counted for one cgroup.
type groupSum struct {
	wait   bpfHtHist
	sleeps bpfGroupSleeps
}

// groups adds the histograms and sums of cgroups, which are in group.h's maps.
func (c *collector) groups(b *signal.Batch) error {
	var all map[uint64]*groupSum
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
	for id, g := range all {
		b.WorkloadHist(containerWait, id, coarse(&g.wait))
		if c.sleeps {
			collectGroupSleeps(b, id, &g.sleeps)
		}
	}
	return nil
}

func (c *collector) readGroups() (map[uint64]*groupSum, error) {
	all := map[uint64]*groupSum{}
	of := func(id uint64) *groupSum {
		if all[id] == nil {
			all[id] = &groupSum{}
		}
		return all[id]
	}
	var groups []bpfGroup
	slots := c.o.Map("slots")
	for i := range slots.MaxEntries() {
		if err := slots.Lookup(i, &groups); err != nil {
			return nil, fmt.Errorf("read histograms of cgroups: %w", err)
		}
		for j := range groups {
			if g := &groups[j]; g.Cgroup != 0 {
				sum := of(g.Cgroup)
				addHist(&sum.wait, &g.Hist)
				addSleeps(&sum.sleeps, &g.Sleeps)
			}
		}
	}
	var id uint64
	var per []bpfHtHist
	it := c.o.Map("cgroups").Iterate()
	for it.Next(&id, &per) {
		for i := range per {
			addHist(&of(id).wait, &per[i])
		}
	}
	if err := it.Err(); err != nil {
		return nil, fmt.Errorf("read histograms of cgroups: %w", err)
	}
	var sleeps bpfGroupSleeps
	it = c.o.Map("sleepers").Iterate()
	for it.Next(&id, &sleeps) {
		addSleeps(&of(id).sleeps, &sleeps)
	}
	if err := it.Err(); err != nil {
		return nil, fmt.Errorf("read sleeps of cgroups: %w", err)
	}
	return all, nil
}

func addSleeps(sum, s *bpfGroupSleeps) {
	for i, x := range s.By {
		sum.By[i].Count += x.Count
		sum.By[i].Ns += x.Ns
	}
}
