package ras

import (
	"fmt"
	"strings"
	"time"

	"huatuo/internal/kern/ring"
	"huatuo/internal/probe"
	"huatuo/internal/signal"
)

// Kinds and severities of ras.bpf.c, and their names.
const (
	kindMemory = iota
	kindPCIe
	kindMCE
	kindARM
	kindFirmware
	kindMemoryLog
	kindPage
)

var (
	sources    = [...]string{"memory", "pcie", "machine_check", "arm_processor", "firmware", "memory_log", "memory_page"}
	severities = [...]string{"corrected", "uncorrected", "deferred", "fatal", "info"}
)

const (
	corrected   = 0
	uncorrected = 1
	info        = 4
)

// HardwareError is the body of a hardware_error event. One of the objects in
// it has the details, the one that the source names. The record's container is
// the one that the memory belongs to, when the kernel knows.
type HardwareError struct {
	Source        string        `json:"source" help:"who told: memory (EDAC), pcie (AER), machine_check (x86), arm_processor, firmware, memory_log (firmware), memory_page (a page was taken out of use)"`
	ErrorSeverity string        `json:"error_severity" help:"corrected, deferred (uncorrected, and not yet used), uncorrected, fatal or info"`
	Count         uint32        `json:"count" help:"errors that this report stands for"`
	Where         string        `json:"where" help:"place: label of the DIMM, PCI address, bank of a CPU, page"`
	Message       string        `json:"message" help:"what went wrong"`
	Address       string        `json:"address,omitempty" help:"physical address, in hexadecimal"`
	NUMANode      string        `json:"numa_node,omitempty" help:"NUMA node of the memory, device or CPU"`
	Flags         []string      `json:"flags,omitempty" help:"what the status registers say, by name"`
	Memory        *Memory       `json:"memory,omitempty" help:"what the driver of the memory controller tells"`
	PCIe          *PCIe         `json:"pcie,omitempty" help:"the PCIe device"`
	MachineCheck  *MachineCheck `json:"machine_check,omitempty" help:"registers of the machine-check bank"`
	Section       *Section      `json:"section,omitempty" help:"what the firmware wrote"`
	Page          *Page         `json:"page,omitempty" help:"the page that was taken out of use"`
}

// Memory is what EDAC tells.
type Memory struct {
	Controller uint32   `json:"controller"`
	Label      string   `json:"label"`
	Layers     [3]int32 `json:"layers"` // of the controller's topology, from the top: channel, slot, …; -1: not known
	GrainBytes uint64   `json:"grain_bytes"`
	Syndrome   string   `json:"syndrome"`
	Detail     string   `json:"detail,omitempty"`
}

// PCIe is what AER tells, and what sysfs knows of the device.
type PCIe struct {
	Device string `json:"device"`
	Driver string `json:"driver,omitempty"`
	Vendor string `json:"vendor,omitempty"`
	ID     string `json:"id,omitempty"`
	Class  string `json:"class,omitempty"`
	Status string `json:"status"`
	Header string `json:"tlp_header,omitempty"`
}

// Page is the outcome of the kernel's memory_failure().
type Page struct {
	Frame  uint64 `json:"frame"`
	Type   string `json:"type"`   // what it was used for
	Result string `json:"result"` // ignored, failed, delayed, recovered
}

// decoder turns samples into records.
type decoder struct {
	clock     func(uint64) time.Time
	pageTypes map[uint32]string
}

func (d *decoder) decode(raw []byte) (*signal.Record, error) {
	if len(raw) < headBytes {
		return nil, fmt.Errorf("decode hardware_error: %d bytes", len(raw))
	}
	h, err := ring.View[bpfHwHead](raw[:headBytes])
	if err != nil {
		return nil, fmt.Errorf("decode hardware_error: %w", err)
	}
	if h.Kind >= uint32(len(sources)) || h.Severity >= uint32(len(severities)) {
		return nil, fmt.Errorf("decode hardware_error: kind %d, severity %d", h.Kind, h.Severity)
	}
	b := &HardwareError{Source: sources[h.Kind], ErrorSeverity: severities[h.Severity], Count: h.Count}
	r := &signal.Record{Schema: hardwareError, Time: d.clock(h.Ts), Suppressed: h.Suppressed, Body: b}
	if h.Severity == corrected || h.Severity == info {
		r.Severity = signal.Info
	}
	switch h.Kind {
	case kindMemory:
		err = with(raw, b, decodeMemory)
	case kindPCIe:
		err = with(raw, b, decodePCIe)
	case kindMCE:
		err = with(raw, b, decodeMCE)
	case kindPage:
		err = with(raw, b, d.decodePage)
	default:
		err = with(raw, b, decodeSection)
	}
	if err != nil {
		return nil, fmt.Errorf("decode hardware_error of %s: %w", b.Source, err)
	}
	r.Title = title(b)
	return r, nil
}

func with[T any](raw []byte, b *HardwareError, f func(*T, *HardwareError)) error {
	w, err := ring.View[T](raw)
	if err == nil {
		f(w, b)
	}
	return err
}

// title is the sentence for b.
func title(b *HardwareError) string {
	n := "a " + b.ErrorSeverity
	switch {
	case b.Count > 1:
		n = fmt.Sprintf("%d %s", b.Count, b.ErrorSeverity)
	case strings.HasPrefix(n, "a u"), strings.HasPrefix(n, "a i"):
		n = "an" + n[1:]
	}
	s := map[string]string{
		"memory": "memory error", "pcie": "PCIe error", "machine_check": "machine check", "arm_processor": "error of an ARM processor",
		"firmware": "error that the firmware reports", "memory_log": "memory error that the firmware reports", "memory_page": "memory error",
	}[b.Source]
	if b.Count > 1 {
		s = strings.Replace(strings.Replace(s, "error", "errors", 1), "check", "checks", 1)
	}
	s = n + " " + s
	if b.Where != "" {
		s += " at " + b.Where
	}
	if b.Message != "" {
		s += ": " + b.Message
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

func hex(v uint64) string { return fmt.Sprintf("0x%x", v) }

func decodeMemory(w *bpfMemoryWire, b *HardwareError) {
	m := &Memory{Controller: w.Controller, Label: probe.CString(w.Label[:]), Layers: w.Layers, Syndrome: hex(w.Syndrome),
		Detail: strings.TrimSpace(probe.CString(w.Detail[:]))}
	if w.GrainBits < 64 {
		m.GrainBytes = 1 << w.GrainBits
	}
	b.Memory, b.Message = m, probe.CString(w.Message[:])
	if b.Where = m.Label; b.Where == "" {
		b.Where = fmt.Sprintf("memory controller %d", w.Controller)
	}
	if w.Address != 0 {
		b.Address = hex(w.Address)
	}
}

func decodePCIe(w *bpfPcieWire, b *HardwareError) {
	p := &PCIe{Device: probe.CString(w.Device[:]), Status: fmt.Sprintf("0x%08x", w.Status)}
	names := aerUncorrectable
	if b.ErrorSeverity == severities[corrected] {
		names = aerCorrectable
	}
	b.Flags = bits(uint64(w.Status), names)
	if w.HasHeader != 0 {
		p.Header = fmt.Sprintf("%08x %08x %08x %08x", w.Header[0], w.Header[1], w.Header[2], w.Header[3])
	}
	b.PCIe, b.Where, b.Message = p, p.Device, strings.ReplaceAll(strings.Join(b.Flags, ", "), "_", " ")
}

// bit is one of a status register.
type bit struct {
	n    int
	name string
}

// bits returns the names of those that are set; unknown ones have their number.
func bits(v uint64, names []bit) []string {
	var out []string
	for i := range 64 {
		if v>>i&1 == 0 {
			continue
		}
		name := fmt.Sprintf("bit_%d", i)
		for _, b := range names {
			if b.n == i {
				name = b.name
			}
		}
		out = append(out, name)
	}
	return out
}

// The status registers of PCI Express Base Specification, Advanced Error Reporting.
var (
	aerCorrectable = []bit{{0, "receiver_error"}, {6, "bad_tlp"}, {7, "bad_dllp"}, {8, "replay_rollover"}, {12, "replay_timeout"},
		{13, "advisory_nonfatal"}, {14, "internal"}, {15, "header_log_overflow"}}
	aerUncorrectable = []bit{{4, "data_link_protocol"}, {5, "surprise_down"}, {12, "poisoned_tlp"}, {13, "flow_control_protocol"}, {14, "completion_timeout"},
		{15, "completer_abort"}, {16, "unexpected_completion"}, {17, "receiver_overflow"}, {18, "malformed_tlp"}, {19, "ecrc"}, {20, "unsupported_request"},
		{21, "acs_violation"}, {22, "internal"}, {23, "blocked_tlp"}, {24, "atomicop_blocked"}, {25, "tlp_prefix_blocked"}, {26, "poisoned_tlp_blocked"}}
)

var pageResults = [...]string{"ignored", "failed", "delayed", "recovered"}

func (d *decoder) decodePage(w *bpfPageWire, b *HardwareError) {
	p := &Page{Frame: w.Pfn, Type: d.pageTypes[w.Type], Result: fmt.Sprintf("result %d", w.Result)}
	if p.Type == "" {
		p.Type = fmt.Sprintf("type %d", w.Type)
	}
	if w.Result >= 0 && int(w.Result) < len(pageResults) {
		p.Result = pageResults[w.Result]
	}
	b.Page, b.Where, b.Address = p, fmt.Sprintf("page frame 0x%x", w.Pfn), hex(w.Pfn*pageSize)
	b.Message = fmt.Sprintf("%s, recovery: %s", p.Type, p.Result)
}
