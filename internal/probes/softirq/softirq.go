// Package softirq measures how long soft interrupts wait and run, by vector.
package softirq

import (
	"context"
	_ "embed"
	"fmt"
	"time"

	"huatuo/internal/kern/load"
	"huatuo/internal/probe"
	"huatuo/internal/signal"
)

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -no-global-types -type softirq_stall_wire -type cpu_state -type ht_hist_fine bpf softirq.bpf.c -- -I../../../bpf/include -Wall -Werror -mcpu=v2
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -no-global-types bpfLegacy softirq.bpf.c -- -I../../../bpf/include -Wall -Werror -mcpu=v2 -DHT_LEGACY

//go:embed README.md
var readme string

// Config of the probe.
type Config struct {
	Stall            time.Duration `yaml:"stall" help:"a soft interrupt that waits or runs this long is a softirq_stall event; 10ms is five times the kernel's own limit for one round of soft interrupts and what a receive queue of 1,000 packets fills in at 1 Gbit/s"`
	probe.EventKnobs `yaml:",inline"`
}

// Spec describes the probe.
func Spec() probe.Spec {
	return probe.New(probe.Meta{
		Name:   "softirq",
		Help:   "Measures how long soft interrupts wait and run, by vector.",
		Readme: readme,
		Source: "irq:softirq_raise, softirq_entry, softirq_exit",
		Since:  "4.18",
		Emits:  []*signal.Schema{wait, service, stalled},
	}, Config{
		Stall:      10 * time.Millisecond,
		EventKnobs: probe.EventKnobs{Rate: 5, Burst: 10},
	}, run)
}

// vectors by the number the kernel gives them: enum in include/linux/interrupt.h, unchanged since v2.6.39.
var vectors = [...]string{"hi", "timer", "net_tx", "net_rx", "block", "irq_poll", "tasklet", "sched", "hrtimer", "rcu"}

var (
	vectorField = []signal.Field{{Name: "vector", Help: "what the soft interrupt does, as in /proc/softirqs", Values: vectors[:]}}

	wait = &signal.Schema{
		Name: "huatuo_softirq_wait_seconds", Kind: signal.Metric, Type: signal.Histogram, Unit: "seconds",
		Area: signal.AreaCPU, Scope: signal.Host, Fields: vectorField,
		Help: "Time from when a soft interrupt was raised until its handler began.",
		Read: "Microseconds when it runs at the end of a hardware interrupt; milliseconds when ksoftirqd has to compete for the CPU or a task keeps soft interrupts off.",
	}
	service = &signal.Schema{
		Name: "huatuo_softirq_service_seconds", Kind: signal.Metric, Type: signal.Histogram, Unit: "seconds",
		Area: signal.AreaCPU, Scope: signal.Host, Fields: vectorField,
		Help: "Time that the handler of a soft interrupt ran.",
		Read: "The rate of the sum is the share of CPUs that soft interrupts take; the count is how many there are.",
	}
	stalled = signal.EventOf[SoftirqStall]("softirq_stall", signal.AreaCPU, signal.Warning,
		"A soft interrupt waited or ran longer than the threshold.").When(
		"A soft interrupt that waits or runs for `stall` (10ms): five times the kernel's own limit for one round of them.",
		"On a virtual machine, time that the hypervisor gave to others looks the same; compare with steal. Waits behind ksoftirqd under a flood of packets are what the kernel does on purpose.")
)

func run(ctx context.Context, env *probe.Env, cfg Config) error {
	if cfg.Stall <= 0 {
		return fmt.Errorf("probes.softirq.stall is %v: want a positive duration", cfg.Stall)
	}
	l, err := env.Kernel.Load(loadBpf, loadBpfLegacy)
	if err != nil {
		return err
	}
	if err := l.Set("stall_ns", uint64(cfg.Stall)); err != nil {
		return err
	}
	if err := cfg.Set(l, "softirq_stall"); err != nil {
		return err
	}
	o, err := l.Attach(load.TP("softirq_raise"), load.TP("softirq_entry"), load.TP("softirq_exit"))
	if err != nil {
		return err
	}
	defer o.Close()

	env.Collect(load.Guard(o, func(b *signal.Batch) error { return collect(b, o) }))
	d := &decoder{clock: env.Clock, symbol: env.Symbol}
	return probe.Stream(ctx, env, o, d.decode)
}

func collect(b *signal.Batch, o *load.Object) error {
	var cpus []bpfCpuState
	if err := o.Map("cpus").Lookup(uint32(0), &cpus); err != nil {
		return fmt.Errorf("read histograms: %w", err)
	}
	var waits, services [len(vectors)]bpfHtHistFine
	for i := range cpus {
		for v := range vectors {
			add(&waits[v], &cpus[i].Wait[v])
			add(&services[v], &cpus[i].Service[v])
		}
	}
	for v, name := range vectors {
		b.Hist(wait, signal.LatencyHist(2, waits[v].Zero, waits[v].Sum, waits[v].Slots[:]), name)
		b.Hist(service, signal.LatencyHist(2, services[v].Zero, services[v].Sum, services[v].Slots[:]), name)
	}
	return nil
}

func add(to, h *bpfHtHistFine) {
	to.Zero += h.Zero
	to.Sum += h.Sum
	for i, n := range h.Slots {
		to.Slots[i] += n
	}
}
