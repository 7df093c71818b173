// Package nettx measures how long packets wait in a queueing discipline, and
// how long drivers take to accept them.
package nettx

import (
	"context"
	_ "embed"
	"fmt"

	"huatuo/internal/kern/load"
	"huatuo/internal/probe"
	"huatuo/internal/signal"
)

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -no-global-types -type cpu_state -type ht_hist_fine bpf nettx.bpf.c -- -I../../../bpf/include -Wall -Werror -mcpu=v2
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -no-global-types bpfLegacy nettx.bpf.c -- -I../../../bpf/include -Wall -Werror -mcpu=v2 -DHT_LEGACY

//go:embed README.md
var readme string

// Config of the probe.
type Config struct {
	Every uint32 `yaml:"every" help:"measure one of so many packets, at each stage on each CPU"`
}

// Spec describes the probe.
func Spec() probe.Spec { return spec(stamps) }

// stamps is how many packets may be stamped in queues at once: STAMPS in the C file.
const stamps = 4096

// spec is Spec with so many stamps, a power of two.
func spec(slots uint32) probe.Spec {
	return probe.New(probe.Meta{
		Name:   "nettx",
		Help:   "Measures how long packets wait in a queueing discipline, and how long drivers take to accept them.",
		Readme: readme,
		Source: "qdisc:qdisc_enqueue, qdisc:qdisc_dequeue, net:net_dev_start_xmit, net:net_dev_xmit",
		Since:  "4.18",
		Emits:  []*signal.Schema{delay, unmeasured},
	}, Config{Every: 16}, func(ctx context.Context, env *probe.Env, cfg Config) error {
		return run(ctx, env, cfg, slots)
	}, probe.Without(probe.Sampling, "seven of eight samples", func(c *Config) { c.Every *= 8 }))
}

// stages and classes by the numbers that the program gives them.
var (
	stages  = [...]string{"qdisc", "driver"}
	classes = [...]string{"virtual", "hardware"}
)

var (
	stageField = signal.Field{Name: "stage", Values: stages[:],
		Help: "qdisc: from when the queueing discipline took the packet until it gave it out; driver: from when the driver was called until it returned"}

	delay = &signal.Schema{
		Name: "huatuo_network_transmit_seconds", Kind: signal.Metric, Type: signal.Histogram, Unit: "seconds",
		Area: signal.AreaNetwork, Scope: signal.Host,
		Help: "Time that a packet took at a stage of its way out, in all network namespaces but not on loopback devices, of a sample of packets.",
		Read: "qdisc high: more is sent than the device or a rate limit lets through; driver high: a slow bus or hypervisor, or work that the driver does itself.",
		Fields: []signal.Field{stageField,
			{Name: "class", Help: "hardware: the device has a bus behind it; virtual: it is software alone (veth, bond, bridge, tunnel)", Values: classes[:]}},
	}
	unmeasured = &signal.Schema{
		Name: "huatuo_network_transmit_unmeasured_total", Kind: signal.Metric, Type: signal.Counter, Unit: "1",
		Area: signal.AreaAgent, Scope: signal.Host,
		Help:   "Packets of the sample whose end at the stage was not seen.",
		Read:   "qdisc: dropped while they waited, taken out in a bundle behind another, or two at one place of the table; driver: a device above another, which alone is measured.",
		Fields: []signal.Field{stageField},
	}
)

func run(ctx context.Context, env *probe.Env, cfg Config, slots uint32) error {
	if cfg.Every == 0 {
		return fmt.Errorf("probes.nettx.every is 0: want a positive number")
	}
	l, err := env.Kernel.Load(loadBpf, loadBpfLegacy)
	if err != nil {
		return err
	}
	if err := l.Set("every", cfg.Every); err != nil {
		return err
	}
	if err := l.Set("stamp_mask", slots-1); err != nil {
		return err
	}
	o, err := l.Attach(
		load.TP("qdisc_dequeue"), // first: a stamp that nobody takes would count as unmeasured
		load.TP("qdisc_enqueue").OrElse("net_dev_queue_btf", "net_dev_queue_raw"),
		load.TP("net_dev_start_xmit"), load.TP("net_dev_xmit"),
	)
	if err != nil {
		return err
	}
	defer o.Close()
	env.Collect(load.Guard(o, func(b *signal.Batch) error { return collect(b, o) }))
	env.Ready(o.Hooks()...)
	<-ctx.Done()
	return nil
}

func collect(b *signal.Batch, o *load.Object) error {
	var cpus []bpfCpuState
	if err := o.Map("cpus").Lookup(uint32(0), &cpus); err != nil {
		return fmt.Errorf("read histograms: %w", err)
	}
	var sum bpfCpuState
	for i := range cpus {
		for j := range sum.Hists {
			add(&sum.Hists[j], &cpus[i].Hists[j])
		}
		for j, n := range cpus[i].Unmeasured {
			sum.Unmeasured[j] += n
		}
	}
	for s, stage := range stages {
		for c, class := range classes {
			h := &sum.Hists[s*len(classes)+c]
			b.Hist(delay, signal.LatencyHist(2, h.Zero, h.Sum, h.Slots[:]), stage, class)
		}
		b.Value(unmeasured, float64(sum.Unmeasured[s]), stage)
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
