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

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -no-global-types -type sched_stall_wire -type run -type ht_hist -type cpu_state bpf runqueue.bpf.c -- -I../../../bpf/include -Wall -Werror -mcpu=v2
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -no-global-types bpfLegacy runqueue.bpf.c -- -I../../../bpf/include -Wall -Werror -mcpu=v2 -DHT_LEGACY

//go:embed README.md
var readme string

// Config of the probe.
type Config struct {
	Stall            time.Duration `yaml:"stall" help:"a wait for a CPU from this length on is a sched_stall event; 50ms is what users notice and far beyond the scheduler's own slices"`
	probe.EventKnobs `yaml:",inline"`
}

// Spec describes the probe.
func Spec() probe.Spec {
	return probe.New(probe.Meta{
		Name:   "runqueue",
		Help:   "Measures how long tasks wait for a CPU, and who had it.",
		Readme: readme,
		Source: "sched:sched_wakeup, sched_wakeup_new, sched_switch, sched_migrate_task",
		Since:  "4.18",
		Emits:  []*signal.Schema{wait, containerWait, switches, migrations, collisions, stalled},
	}, Config{
		Stall:      50 * time.Millisecond,
		EventKnobs: probe.EventKnobs{Rate: 10, Burst: 10},
	}, run)
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
	if cfg.Stall <= 0 {
		return fmt.Errorf("probes.runqueue.stall is %v: want a positive duration", cfg.Stall)
	}
	if err := l.Set("stall_ns", uint64(cfg.Stall)); err != nil {
		return err
	}
	if err := cfg.Set(l, "sched_stall"); err != nil {
		return err
	}
	o, err := l.Attach(load.TP("sched_wakeup"), load.TP("sched_wakeup_new"), load.TP("sched_switch"), load.TP("sched_migrate_task").Maybe())
	if err != nil {
		return err
	}
	defer o.Close()

	env.Collect(load.Guard(o, func(b *signal.Batch) error { return collect(b, o) }))
	return probe.Stream(ctx, env, o, func(raw []byte) (*signal.Record, error) { return decode(raw, env.Clock) })
}

func collect(b *signal.Batch, o *load.Object) error {
	var cpus []bpfCpuState
	if err := o.Map("cpus").Lookup(uint32(0), &cpus); err != nil {
		return fmt.Errorf("read host histograms: %w", err)
	}
	var sum bpfCpuState
	for i := range cpus {
		c := &cpus[i]
		sum.Voluntary += c.Voluntary
		sum.Involuntary += c.Involuntary
		sum.Collisions += c.Collisions
		for k := range c.Wait {
			sum.Wait[k].Zero += c.Wait[k].Zero
			sum.Wait[k].Sum += c.Wait[k].Sum
			for j, n := range c.Wait[k].Slots {
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

	if o.Attached("sched_migrate_task") {
		var per []uint64
		if err := o.Map("migrations").Lookup(uint32(0), &per); err != nil {
			return fmt.Errorf("read migrations: %w", err)
		}
		var n uint64
		for _, x := range per {
			n += x
		}
		b.Value(migrations, float64(n))
	}
	return collectCgroups(b, o.Map("cgroups"))
}

func collectCgroups(b *signal.Batch, m *ebpf.Map) error {
	var id uint64
	var per []bpfHtHist
	it := m.Iterate()
	for it.Next(&id, &per) {
		var h bpfHtHist
		for i := range per {
			h.Zero += per[i].Zero
			h.Sum += per[i].Sum
			for j, n := range per[i].Slots {
				h.Slots[j] += n
			}
		}
		b.WorkloadHist(containerWait, id, signal.LatencyHist(0, h.Zero, h.Sum, h.Slots[:]))
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("read histograms of cgroups: %w", err)
	}
	return nil
}
