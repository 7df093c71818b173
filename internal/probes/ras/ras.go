// Package ras reports errors of the hardware: memory, PCIe, processors, as the kernel and the firmware find them.
package ras

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"time"

	"huatuo/internal/kern/load"
	"huatuo/internal/probe"
	"huatuo/internal/signal"
)

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -no-global-types -type hw_head -type memory_wire -type pcie_wire -type mce_wire -type section_wire -type page_wire -type count_key bpf ras.bpf.c -- -I../../../bpf/include -Wall -Werror -mcpu=v2
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -no-global-types bpfLegacy ras.bpf.c -- -I../../../bpf/include -Wall -Werror -mcpu=v2 -DHT_LEGACY

//go:embed README.md
var readme string

// Config of the probe.
type Config struct {
	CorrectedEvery   time.Duration `yaml:"corrected_every" help:"events of corrected errors that may pass in the long run, on each CPU: one in this time; all are counted; 0 does not limit"`
	probe.EventKnobs `yaml:",inline"`
}

// Spec describes the probe.
func Spec() probe.Spec {
	return probe.New(probe.Meta{
		Name:   "ras",
		Help:   "Reports errors of the hardware: memory, PCIe, processors, as the kernel and the firmware find them.",
		Readme: readme,
		Source: "ras:mc_event, aer_event, arm_event, non_standard_event, extlog_mem_event, memory_failure_event, mce:mce_record, /sys/devices/system/edac",
		Since:  "4.18",
		Emits:  []*signal.Schema{errorsTotal, edacErrors, edacHung, hardwareError},
	}, Config{
		CorrectedEvery: time.Minute, // a DIMM that fails gives thousands a second
		EventKnobs:     probe.EventKnobs{Rate: 1, Burst: 10},
	}, run)
}

var (
	errorsTotal = &signal.Schema{
		Name: "huatuo_hardware_errors_total", Kind: signal.Metric, Type: signal.Counter, Unit: "1", Area: signal.AreaSystem, Scope: signal.Host,
		Help: "Errors of the hardware that the kernel has told since the agent started.",
		Read: "Corrected ones cost nothing until there are many: a DIMM, slot or cable that has thousands a day will have uncorrected ones. One error may come from two sources; do not add them up.",
		Fields: []signal.Field{
			{Name: "source", Help: "memory (EDAC), memory_log (firmware), memory_page (a page that was taken out of use), pcie (AER), machine_check (x86), arm_processor, firmware (other)", Values: sources[:]},
			{Name: "severity", Help: "corrected; uncorrected: data is lost; deferred: uncorrected, and not yet used; fatal; info", Values: severities[:]},
			{Name: "where", Help: "label of the DIMM, PCI address or bank; empty when the error does not tell, and there from the start, at 0; other beyond 512 places"},
		},
	}
	edacErrors = &signal.Schema{
		Name: "huatuo_edac_errors_total", Kind: signal.Metric, Type: signal.Counter, Unit: "1", Area: signal.AreaMemory, Scope: signal.Host,
		Help: "Memory errors that the kernel's driver of the memory controller has counted since it was loaded, by DIMM.",
		Read: "A DIMM that stands out is to be replaced. Where the firmware keeps errors to itself (firmware first), this stays at 0.",
		Fields: []signal.Field{
			{Name: "controller", Help: "memory controller, as mc0"},
			{Name: "dimm", Help: "DIMM as the driver numbers it, as dimm0; empty: errors that it could not place"},
			{Name: "label", Help: "what is printed beside the slot, when firmware or administrator have told"},
			{Name: "severity", Help: "corrected or uncorrected", Values: []string{"corrected", "uncorrected"}},
		},
	}
	edacHung = &signal.Schema{
		Name: "huatuo_edac_hung", Kind: signal.Metric, Type: signal.Gauge, Unit: "1", Area: signal.AreaMemory, Scope: signal.Host,
		Help:   "Whether the counts of a memory controller could not be read in time: 1 or 0.",
		Read:   "Always 0 with the kernel's own drivers, which answer from memory.",
		Fields: []signal.Field{{Name: "controller", Help: "memory controller, as mc0"}},
	}
	hardwareError = signal.EventOf[HardwareError]("hardware_error", signal.AreaSystem, signal.Critical, "The hardware, or its firmware, reported an error.").When(
		"Any report of the hardware; of corrected errors one in `corrected_every` (1m) on each CPU in the long run, for a storm of them must not hide what is worse.",
		"A few corrected errors of memory or a link in a month. All are counted.")
)

// tracepoints, in the order of the sources. None is on all machines: PCIe, x86 and ARM have theirs.
var tracepoints = []string{"mc_event", "aer_event", "mce_record", "arm_event", "non_standard_event", "extlog_mem_event", "memory_failure_event"}

func run(ctx context.Context, env *probe.Env, cfg Config) error {
	l, err := newLoader(env.Kernel, cfg)
	if err != nil {
		return err
	}
	o, err := l.Attach(hooks(env.Kernel)...)
	if err != nil {
		return err
	}
	defer o.Close()
	if err := anyAttached(o); err != nil {
		return err
	}
	return serve(ctx, env, o)
}

// hooks are those that this kernel has, as far as its types tell: one that it
// was built without, because of the architecture or the configuration, is not missing.
func hooks(k *load.Kernel) []load.Hook {
	told := k.TracepointArgs("sched_switch") > 0
	var out []load.Hook
	for _, tp := range tracepoints {
		if !told || k.TracepointArgs(tp) > 0 {
			out = append(out, load.TP(tp).Maybe())
		}
	}
	return out
}

// newLoader prepares the object for this kernel.
func newLoader(k *load.Kernel, cfg Config) (*load.Loader, error) {
	if cfg.CorrectedEvery < 0 {
		return nil, fmt.Errorf("probes.ras.corrected_every is %v: must not be negative", cfg.CorrectedEvery)
	}
	l, err := k.Load(loadBpf, loadBpfLegacy)
	if err != nil {
		return nil, err
	}
	if err := cfg.Set(l, "hardware_error"); err != nil {
		return nil, err
	}
	for name, v := range map[string]any{
		"corrected_period_ns": uint64(cfg.CorrectedEvery),
		"corrected_burst":     uint64(5),
		"arm_tells_severity":  k.TracepointArgs("arm_event") >= 9,
		"aer_tells_header":    k.TracepointArgs("aer_event") >= 5,
	} {
		if err := l.Set(name, v); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// anyAttached returns an error when no hook works.
func anyAttached(o *load.Object) error {
	var why error
	for _, h := range o.Hooks() {
		if h.By != "" {
			return nil
		}
		why = errors.Join(why, fmt.Errorf("attach %s: %s", h.Hook, h.Reason))
	}
	if why == nil {
		why = errors.New("this kernel has no tracepoint for errors of the hardware (CONFIG_RAS)")
	}
	return fmt.Errorf("%w: %w", why, errors.ErrUnsupported)
}

// serve reads an object that is attached until ctx is done.
func serve(ctx context.Context, env *probe.Env, o *load.Object) error {
	env.Collect(load.Guard(o, func(b *signal.Batch) error { return collect(b, o) }))
	stop := watchEDAC(ctx, env)
	defer stop()
	d := &decoder{clock: env.Clock, pageTypes: pageTypes(env.Kernel)}
	p := newPlacer(env)
	inner := *env
	inner.Emit = func(r *signal.Record) {
		p.place(r)
		env.Emit(r)
	}
	return probe.Stream(ctx, &inner, o, d.decode)
}

// collect reads what the programs count.
func collect(b *signal.Batch, o *load.Object) error {
	type series struct{ source, severity, where string }
	sums := map[series]float64{}
	for i, tp := range tracepoints {
		if o.Attached(tp) { // that there was none is known
			sums[series{sources[i], severities[corrected], ""}] = 0
			sums[series{sources[i], severities[uncorrected], ""}] = 0
		}
	}
	var k bpfCountKey
	var n uint64
	it := o.Map("counts").Iterate()
	for it.Next(&k, &n) {
		if k.Kind < uint32(len(sources)) && k.Severity < uint32(len(severities)) {
			sums[series{sources[k.Kind], severities[k.Severity], where(&k)}] += float64(n)
		}
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("read counts: %w", err)
	}
	for i := range uint32(len(sources) * len(severities)) {
		if err := o.Map("others").Lookup(i, &n); err != nil {
			return fmt.Errorf("read counts of other places: %w", err)
		}
		if n > 0 {
			sums[series{sources[int(i)/len(severities)], severities[int(i)%len(severities)], "other"}] += float64(n)
		}
	}
	for s, v := range sums {
		b.Value(errorsTotal, v, s.source, s.severity, s.where)
	}
	return nil
}

// where names a place, as the label has it.
func where(k *bpfCountKey) string {
	s := probe.CString(k.Where[:])
	switch {
	case k.Kind == kindMCE:
		return fmt.Sprintf("bank %d", k.Unit)
	case k.Kind == kindMemory && s == "":
		return fmt.Sprintf("mc%d", k.Unit)
	}
	return s
}
