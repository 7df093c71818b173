package nvme

import "huatuo/internal/signal"

// warnings are the bits of the log's critical warning, by their labels.
var warnings = []struct{ label, help string }{
	{"spare", "spare blocks are below the limit"},
	{"temperature", "too hot or too cold"},
	{"degraded", "errors of the media or inside the device: it is no longer reliable"},
	{"read_only", "the media takes no more writes"},
	{"backup", "the backup of volatile memory has failed"},
	{"persistent_memory", "the persistent memory region is read-only or unreliable"},
}

func warningNames() []string {
	var out []string
	for _, w := range warnings {
		out = append(out, w.label)
	}
	return out
}

// value is a metric that comes from the health log.
type value struct {
	schema *signal.Schema
	of     func(*health) float64
}

var values = []value{
	{gauge("temperature_celsius", "celsius", "Temperature of the device as a whole.", "The device slows itself down near its own limit, often 70 to 85 °C: see huatuo_nvme_warm_seconds_total."),
		func(h *health) float64 { return h.celsius }},
	{gauge("spare_ratio", "ratio", "Spare blocks that are left, of those that the device had.", "1 when new. Below huatuo_nvme_spare_limit_ratio the device warns: replace it."),
		func(h *health) float64 { return h.spare }},
	{gauge("spare_limit_ratio", "ratio", "Share of spare blocks below which the device warns.", "Set by the vendor."),
		func(h *health) float64 { return h.spareLimit }},
	{gauge("used_ratio", "ratio", "Share of the device's life that is used up, as the vendor estimates it.", "At 1 what the vendor warrants is written; devices go on, up to 2.55 can be told."),
		func(h *health) float64 { return h.used }},
	{counter("read_bytes_total", "bytes", "Data that hosts have read, over the device's life.", "Counted by the device, in steps of 512,000 bytes."),
		func(h *health) float64 { return h.readBytes }},
	{counter("written_bytes_total", "bytes", "Data that hosts have written, over the device's life.", "Its rate against used_ratio tells when the device will be worn out."),
		func(h *health) float64 { return h.writtenBytes }},
	{counter("busy_seconds_total", "seconds", "Time in which the device had commands to work on, in whole minutes.", "Coarse: see huatuo_disk_… for the device as the host sees it."),
		func(h *health) float64 { return h.busySeconds }},
	{counter("power_cycles_total", "1", "Times that the device was switched on.", "More than the host's starts: the power of the slot."),
		func(h *health) float64 { return h.powerCycles }},
	{counter("power_on_seconds_total", "seconds", "Time that the device was switched on, in whole hours.", "The age of the device."),
		func(h *health) float64 { return h.onSeconds }},
	{counter("unsafe_shutdowns_total", "1", "Times that power went without the device having been told.", "Grows with crashes and power cuts; of a host that was shut down it should not."),
		func(h *health) float64 { return h.unsafe }},
	{counter("media_errors_total", "1", "Times that the device found data that it could not correct.", "Any growth is lost data, on a device to be replaced."),
		func(h *health) float64 { return h.mediaErrors }},
	{counter("error_log_entries_total", "1", "Entries that the device has written into its error log.", "Many are harmless: commands that the device does not know count too."),
		func(h *health) float64 { return h.logEntries }},
	{counter("warm_seconds_total", "seconds", "Time above the device's warning temperature, in whole minutes.", "Growth means that the device slows itself down: see the air flow."),
		func(h *health) float64 { return h.warmSeconds }},
	{counter("hot_seconds_total", "seconds", "Time above the device's critical temperature, in whole minutes.", "Growth means that it may switch itself off."),
		func(h *health) float64 { return h.hotSeconds }},
}

var (
	deviceField = signal.Field{Name: "device", Help: "controller, as nvme0"}

	critical = &signal.Schema{
		Name: "huatuo_nvme_critical_warning", Kind: signal.Metric, Type: signal.Gauge, Unit: "1", Area: signal.AreaBlock, Scope: signal.Host,
		Help:   "Whether the device warns of itself: 1 or 0, by reason.",
		Read:   "Anything but 0 is worth an alert; temperature apart, the device is to be replaced.",
		Fields: []signal.Field{deviceField, {Name: "warning", Help: "reason: spare, temperature, degraded, read_only, backup or persistent_memory", Values: warningNames()}},
	}
	hung = &signal.Schema{
		Name: "huatuo_nvme_hung", Kind: signal.Metric, Type: signal.Gauge, Unit: "1", Area: signal.AreaBlock, Scope: signal.Host,
		Help: "Whether the device has not answered when asked for its health: 1 or 0.",
		Read: "1 for a device whose firmware hangs; its other metrics are absent then. The driver resets it after its own limit (60 s).", Fields: []signal.Field{deviceField},
	}
	info = &signal.Schema{
		Name: "huatuo_nvme_info", Kind: signal.Metric, Type: signal.Gauge, Unit: "1", Area: signal.AreaBlock, Scope: signal.Host,
		Help: "What the device is; always 1.",
		Read: "Join by device to find all of a model or firmware.",
		Fields: []signal.Field{deviceField, {Name: "model", Help: "model number"}, {Name: "serial", Help: "serial number"},
			{Name: "firmware", Help: "firmware revision"}, {Name: "transport", Help: "pcie, tcp, rdma, fc or loop"}},
	}
	warned = signal.EventOf[Warning]("nvme_warning", signal.AreaBlock, signal.Critical,
		"An NVMe device warns of itself, or lost data, and did not before.").When(
		"A critical warning of the device's health log, read each `interval` (1m), that was not set before, or a count of media errors that grew: the device itself says that it can no longer be trusted.",
		"The warning `temperature` comes and goes with load. Virtual devices of cloud providers fill the log with what they please.")
)

// Warning is the body of an nvme_warning event.
type Warning struct {
	Device      string   `json:"device" help:"controller, as nvme0"`
	Model       string   `json:"model" help:"model number"`
	Serial      string   `json:"serial" help:"serial number"`
	Warnings    []string `json:"warnings" help:"critical warnings that are set: spare, temperature, degraded, read_only, backup, persistent_memory"`
	New         []string `json:"new" help:"those that were not set before"`
	MediaErrors float64  `json:"media_errors" help:"times that data could not be corrected since the device was asked before"`
	Celsius     float64  `json:"celsius" unit:"celsius" help:"temperature of the device"`
	Spare       float64  `json:"spare" unit:"ratio" help:"spare blocks that are left"`
	Used        float64  `json:"used" unit:"ratio" help:"share of its life that is used up"`
}

func schemas() []*signal.Schema {
	out := []*signal.Schema{critical, hung, info, warned}
	for _, v := range values {
		out = append(out, v.schema)
	}
	return out
}

func gauge(what, unit, help, read string) *signal.Schema {
	return metric(signal.Gauge, what, unit, help, read)
}

func counter(what, unit, help, read string) *signal.Schema {
	return metric(signal.Counter, what, unit, help, read)
}

func metric(typ signal.MetricType, what, unit, help, read string) *signal.Schema {
	return &signal.Schema{
		Name: "huatuo_nvme_" + what, Kind: signal.Metric, Type: typ, Unit: unit,
		Area: signal.AreaBlock, Scope: signal.Host, Help: help, Read: read, Fields: []signal.Field{{Name: "device", Help: "controller, as nvme0"}},
	}
}
