// Package irq measures handlers of hardware interrupts, by line, and work queues.
package irq

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

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -no-global-types -type tick_gap_wire -type irq_cpu -type irq_line -type wq_name -type wq_hists -type ht_hist bpf irq.bpf.c -- -I../../../bpf/include -Wall -Werror -mcpu=v2
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -no-global-types bpfLegacy irq.bpf.c -- -I../../../bpf/include -Wall -Werror -mcpu=v2 -DHT_LEGACY

//go:embed README.md
var readme string

// Config of the probe.
type Config struct {
	Gap              time.Duration `yaml:"gap" help:"a busy CPU without a timer interrupt for this long beyond the tick's period is a tick_gap event; 10ms is what an audio or market feed loses data by"`
	probe.EventKnobs `yaml:",inline"`
}

// Spec describes the probe.
func Spec() probe.Spec {
	return probe.New(probe.Meta{
		Name:   "irq",
		Help:   "Measures handlers of hardware interrupts, by line, and how long work waits in work queues and runs.",
		Readme: readme,
		Source: "irq:irq_handler_entry, irq_handler_exit, workqueue:workqueue_queue_work, workqueue_execute_start, workqueue_execute_end, irq_vectors:local_timer_entry, power:cpu_idle, /proc/interrupts",
		Since:  "4.18",
		Emits:  []*signal.Schema{service, handled, handledSeconds, workWait, workService, unmeasured, gaps, gapped},
	}, Config{
		Gap:        10 * time.Millisecond,
		EventKnobs: probe.EventKnobs{Rate: 1, Burst: 5},
	}, run)
}

var (
	lineField  = []signal.Field{{Name: "line", Help: "who handles the interrupt, as the last column of /proc/interrupts has it; other sums the lines beyond the first 64"}}
	queueField = []signal.Field{{Name: "workqueue", Help: "name of the work queue; other sums those beyond the first 64"}}

	service = &signal.Schema{
		Name: "huatuo_irq_service_seconds", Kind: signal.Metric, Type: signal.Histogram, Unit: "seconds",
		Area: signal.AreaCPU, Scope: signal.Host,
		Help: "Time that the handler of a hardware interrupt ran.",
		Read: "Microseconds. The CPU does nothing else meanwhile, and takes no other interrupt.",
	}
	handled = &signal.Schema{
		Name: "huatuo_irq_handled_total", Kind: signal.Metric, Type: signal.Counter, Unit: "1",
		Area: signal.AreaCPU, Scope: signal.Host, Fields: lineField,
		Help: "Handlers of hardware interrupts that ran, by line.",
		Read: "A device that floods the host, and one that has fallen silent, show here.",
	}
	handledSeconds = &signal.Schema{
		Name: "huatuo_irq_handled_seconds_total", Kind: signal.Metric, Type: signal.Counter, Unit: "seconds",
		Area: signal.AreaCPU, Scope: signal.Host, Fields: lineField,
		Help: "Time that handlers of hardware interrupts ran, by line.",
		Read: "The rate is the number of CPUs that the line takes; what its soft interrupts take is in huatuo_softirq_service_seconds.",
	}
	workWait = &signal.Schema{
		Name: "huatuo_workqueue_wait_seconds", Kind: signal.Metric, Type: signal.Histogram, Unit: "seconds",
		Area: signal.AreaSched, Scope: signal.Host, Fields: queueField,
		Help: "Time that work waited in a work queue of the kernel before it ran.",
		Read: "Some 10 µs. Milliseconds in one queue: its work is limited to so many at once, or the workers' CPU is taken; in all queues: CPUs are short.",
	}
	workService = &signal.Schema{
		Name: "huatuo_workqueue_service_seconds", Kind: signal.Metric, Type: signal.Histogram, Unit: "seconds",
		Area: signal.AreaSched, Scope: signal.Host, Fields: queueField,
		Help: "Time that work of a work queue of the kernel took.",
		Read: "Includes time in which the work slept. Work that takes long holds up what is behind it in an ordered queue.",
	}
	unmeasured = &signal.Schema{
		Name: "huatuo_workqueue_unmeasured_total", Kind: signal.Metric, Type: signal.Counter, Unit: "1",
		Area: signal.AreaAgent, Scope: signal.Host,
		Help: "Work that was not measured because two queued items shared a slot.",
		Read: "More than a thousandth of huatuo_workqueue_wait_seconds_count: the histograms miss samples. Work that was cancelled counts once as well.",
	}
	gaps = &signal.Schema{
		Name: "huatuo_tick_gap_seconds", Kind: signal.Metric, Type: signal.Histogram, Unit: "seconds",
		Area: signal.AreaCPU, Scope: signal.Host,
		Help: "Time that a busy CPU did not take its timer interrupt, of gaps beyond the threshold.",
		Read: "None on a sound host. Something kept interrupts off, or the hypervisor had the CPU: the tick_gap events tell which.",
	}
	gapped = signal.EventOf[TickGap]("tick_gap", signal.AreaCPU, signal.Warning,
		"A busy CPU did not take its timer interrupt for longer than the threshold.").When(
		"A busy CPU without a timer interrupt for `gap` (10ms) beyond the longest period of the tick: an audio or market feed loses data by that.",
		"An idle CPU stops its tick, and none is missed. Where the hypervisor had the CPU meanwhile, the event is an info and says so.")
)

func run(ctx context.Context, env *probe.Env, cfg Config) error {
	if cfg.Gap <= 0 {
		return fmt.Errorf("probes.irq.gap is %v: want a positive duration", cfg.Gap)
	}
	l, err := env.Kernel.Load(loadBpf, loadBpfLegacy)
	if err != nil {
		return err
	}
	if err := l.Set("gap_ns", uint64(cfg.Gap+period)); err != nil {
		return err
	}
	if err := cfg.Set(l, "tick_gap"); err != nil {
		return err
	}
	hooks := []load.Hook{load.TP("irq_handler_exit"), load.TP("irq_handler_entry"),
		load.TP("workqueue_execute_end").Maybe(), load.TP("workqueue_execute_start").Maybe(), load.TP("workqueue_queue_work").Maybe()}
	if watchTicks(env) {
		hooks = append(hooks, load.TP("cpu_idle").Maybe(), load.TP("local_timer_entry").Maybe())
	}
	o, err := l.Attach(hooks...)
	if err != nil {
		return err
	}
	defer o.Close()
	if err := o.Map("queues").Update(bpfWqName{}, bpfWqHists{}, ebpf.UpdateAny); err != nil {
		return fmt.Errorf("make the entry of other queues: %w", err)
	}
	c := &collector{o: o, names: names{root: env.Root, series: map[uint32]string{}}}
	env.Collect(load.Guard(o, c.collect))
	d := &decoder{clock: env.Clock, steal: newSteal(env.Root), gap: cfg.Gap}
	done := make(chan struct{})
	go func() { defer close(done); d.steal.follow(ctx) }()
	err = probe.Stream(ctx, env, o, d.decode)
	<-done
	return err
}
