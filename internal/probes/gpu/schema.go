package gpu

import (
	"slices"
	"strconv"
	"strings"

	"huatuo/internal/signal"
)

// busField is the one field that must be there.
const busField = "pci.bus_id"

// value is a metric that is one field of nvidia-smi.
type value struct {
	field  string
	scale  float64
	schema *signal.Schema
	labels []string // after gpu
}

const (
	mib     = 1 << 20
	mhz     = 1e6
	percent = 0.01
)

var (
	eccErrors = metric(signal.Counter, "ecc_errors_total", "1", "Errors of the GPU's memories that ECC found, over the GPU's life.",
		"corrected ones cost nothing until there are many; each uncorrected one ends the programs on the GPU.",
		signal.Field{Name: "severity", Help: "corrected or uncorrected", Values: []string{"corrected", "uncorrected"}})
	retired = metric(signal.Gauge, "retired_pages", "1", "Pages of memory that the GPU no longer uses, by why.",
		"A GPU has room for 64; near that, replace it. Ampere and later remap rows instead, which is not told here.",
		signal.Field{Name: "reason", Help: "single_bit: many corrected errors; double_bit: an error that could not be corrected", Values: []string{"single_bit", "double_bit"}})

	values = []value{
		{"temperature.gpu", 1, gauge("temperature_celsius", "celsius", "Temperature of the GPU's core.", "Most slow down from 83 to 95 °C on: see huatuo_gpu_throttled."), nil},
		{"temperature.memory", 1, gauge("memory_temperature_celsius", "celsius", "Temperature of the GPU's memory.", "HBM slows down from 95 °C on. Absent for GPUs without the sensor."), nil},
		{"power.draw", 1, gauge("power_watts", "watts", "Power that the GPU takes.", "Near huatuo_gpu_power_limit_watts the GPU lowers its clock."), nil},
		{"enforced.power.limit", 1, gauge("power_limit_watts", "watts", "Power that the GPU keeps to.", "Lower than of others of its model: somebody, or the board, limits it."), nil},
		{"utilization.gpu", percent, gauge("busy_ratio", "ratio", "Share of time in which something ran on the GPU, in its last sampling period.", "Says nothing about how much of the GPU it used: 1 is possible with one core busy."), nil},
		{"utilization.memory", percent, gauge("memory_busy_ratio", "ratio", "Share of time in which the GPU's memory was read or written, in its last sampling period.", "Near 1: the program is bound by memory."), nil},
		{"memory.total", mib, gauge("memory_total_bytes", "bytes", "Memory of the GPU.", "Without what ECC takes, on some."), nil},
		{"memory.used", mib, gauge("memory_used_bytes", "bytes", "Memory of the GPU that is in use.", "Frameworks take all of it at once: full is normal for them."), nil},
		{"clocks.sm", mhz, gauge("clock_hertz", "hertz", "Clock of the GPU's processors.", "Under load far below huatuo_gpu_clock_maximum_hertz: see huatuo_gpu_throttled."), nil},
		{"clocks.max.sm", mhz, gauge("clock_maximum_hertz", "hertz", "Highest clock of the GPU's processors.", "Reached by few loads."), nil},
		{"pcie.link.width.current", 1, gauge("pcie_lanes", "1", "PCIe lanes that the GPU is connected by.", "Fewer than huatuo_gpu_pcie_lanes_maximum: a bad contact, or a slot with fewer lanes."), nil},
		{"pcie.link.width.max", 1, gauge("pcie_lanes_maximum", "1", "PCIe lanes that the GPU and its slot can use.", "16 as a rule."), nil},
		{"ecc.errors.corrected.aggregate.total", 1, eccErrors, []string{"corrected"}},
		{"ecc.errors.uncorrected.aggregate.total", 1, eccErrors, []string{"uncorrected"}},
		{"retired_pages.single_bit_ecc.count", 1, retired, []string{"single_bit"}},
		{"retired_pages.double_bit.count", 1, retired, []string{"double_bit"}},
	}

	info = metric(signal.Gauge, "info", "1", "What the GPU is; always 1.", "Join by gpu to find all of a model or driver; index is what CUDA programs see.",
		signal.Field{Name: "index", Help: "nvidia-smi's number of the GPU"}, signal.Field{Name: "uuid", Help: "NVIDIA's id of the GPU"},
		signal.Field{Name: "model", Help: "model name"}, signal.Field{Name: "driver", Help: "version of the driver"})
	responds = metric(signal.Gauge, "responds", "1", "Whether the GPU told about itself when asked last: 1 or 0.",
		"0: it has fallen off the bus, or nvidia-smi hangs in the driver. All its other metrics are absent then; see gpu_error events.")
	throttled = metric(signal.Gauge, "throttled", "1", "Whether the GPU's clock was held down for this reason when asked last: 1 or 0.",
		"power_cap is normal under full load. hw_slowdown, hw_thermal, hw_power_brake: cooling or power supply is short.",
		signal.Field{Name: "reason", Help: "why", Values: reasonNames()})
	xidErrors = metric(signal.Counter, "xid_errors_total", "1", "Xid errors that the driver has reported since the agent started, by number.",
		"13, 31, 43 and 45 are mostly a program's mistake; 48, 63, 64, 74, 79, 94, 95 and 119 are hardware or firmware.",
		signal.Field{Name: "xid", Help: "number of the error, as in NVIDIA's catalogue"})
	failed = signal.EventOf[XidError]("gpu_error", signal.AreaSystem, signal.Critical, "The NVIDIA driver reported an error of a GPU (Xid).").When(
		"Any Xid error in the kernel's log: the driver reports what it could not hide.",
		"Xid 13, 31, 43 and 45 are mistakes of programs as a rule, not of the GPU.")
)

// reasonFields are the names of one field in older and newer versions.
var reasonFields = []string{"clocks_event_reasons.active", "clocks_throttle_reasons.active"}

// reasons are bits of that field (nvml.h, nvmlClocksEventReason…).
var reasons = []struct {
	bit  uint64
	name string
}{
	{1 << 1, "application_clocks"}, {1 << 2, "power_cap"}, {1 << 3, "hw_slowdown"}, {1 << 4, "sync_boost"}, {1 << 5, "sw_thermal"},
	{1 << 6, "hw_thermal"}, {1 << 7, "hw_power_brake"}, {1 << 8, "display_clocks"},
}

func reasonNames() []string {
	var out []string
	for _, r := range reasons {
		out = append(out, r.name)
	}
	return out
}

// wanted are all fields to ask for.
func wanted() []string {
	out := []string{busField, "index", "uuid", "name", "driver_version"}
	for _, v := range values {
		out = append(out, v.field)
	}
	return append(out, reasonFields...)
}

func schemas() []*signal.Schema {
	out := []*signal.Schema{info, responds}
	for _, v := range values {
		if !slices.Contains(out, v.schema) {
			out = append(out, v.schema)
		}
	}
	return append(out, throttled, xidErrors, failed)
}

func gauge(what, unit, help, read string) *signal.Schema {
	return metric(signal.Gauge, what, unit, help, read)
}

func metric(typ signal.MetricType, what, unit, help, read string, more ...signal.Field) *signal.Schema {
	return &signal.Schema{Name: "huatuo_gpu_" + what, Kind: signal.Metric, Type: typ, Unit: unit, Area: signal.AreaSystem, Scope: signal.Host,
		Fields: append([]signal.Field{{Name: "gpu", Help: "PCI address of the GPU, as 0000:3b:00.0"}}, more...), Help: help, Read: read}
}

// collect gives the metrics of one GPU.
func (r *row) collect(b *signal.Batch) {
	b.Value(info, 1, r.gpu, r.fields["index"], r.fields["uuid"], r.fields["name"], r.fields["driver_version"])
	for _, v := range values {
		if n, ok := r.number(v.field); ok {
			b.Value(v.schema, n*v.scale, append([]string{r.gpu}, v.labels...)...)
		}
	}
	for _, f := range reasonFields {
		bits, err := strconv.ParseUint(strings.TrimPrefix(r.fields[f], "0x"), 16, 64)
		if err != nil {
			continue
		}
		for _, x := range reasons {
			v := 0.0
			if bits&x.bit != 0 {
				v = 1
			}
			b.Value(throttled, v, r.gpu, x.name)
		}
		return
	}
}
