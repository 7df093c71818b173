package rdma

import (
	"path/filepath"
	"strconv"
	"strings"

	"huatuo/internal/kern/sysfs"
	"huatuo/internal/signal"
)

// maxCounters of a driver on one port; those that have most have some 70.
const maxCounters = 128

// word is the unit in which ports count data: 4 bytes, whatever the link's width.
const word = 4

// counters of the InfiniBand specification that are no errors.
var counters = []struct {
	file   string
	schema *signal.Schema
	scale  float64
}{
	{"port_rcv_data", received, word},
	{"port_xmit_data", sent, word},
	{"port_rcv_packets", receivedPackets, 1},
	{"port_xmit_packets", sentPackets, 1},
	{"port_xmit_wait", waits, 1},
}

// errorCounters are those that are, and their labels.
var errorCounters = []struct{ file, label string }{
	{"symbol_error", "symbol"},
	{"link_error_recovery", "link_recovery"},
	{"link_downed", "link_downed"},
	{"local_link_integrity_errors", "link_integrity"},
	{"port_rcv_errors", "receive"},
	{"port_rcv_remote_physical_errors", "receive_remote_physical"},
	{"port_rcv_switch_relay_errors", "receive_switch_relay"},
	{"port_rcv_constraint_errors", "receive_constraint"},
	{"excessive_buffer_overrun_errors", "buffer_overrun"},
	{"port_xmit_discards", "transmit_discards"},
	{"port_xmit_constraint_errors", "transmit_constraint"},
	{"VL15_dropped", "management_dropped"},
}

func faultNames() []string {
	var out []string
	for _, c := range errorCounters {
		out = append(out, c.label)
	}
	return out
}

type reader struct{ class string }

// device reads all ports of a device. Drivers lack some counters: those are absent.
func (r *reader) device(name string) ([]signal.Sample, error) {
	b := new(signal.Batch)
	for _, port := range sysfs.List(filepath.Join(r.class, name, "ports"), "") {
		r.port(b, name, port)
	}
	return b.Samples, nil
}

func (r *reader) port(b *signal.Batch, name, port string) {
	dir := filepath.Join(r.class, name, "ports", port)
	if s, ok := sysfs.Text(dir, "state"); ok {
		v := 0.0
		if strings.HasPrefix(s, "4:") { // IB_PORT_ACTIVE
			v = 1
		}
		b.Value(up, v, name, port)
	}
	if s, ok := sysfs.Text(dir, "rate"); ok {
		if v, ok := parseRate(s); ok {
			b.Value(rate, v, name, port)
		}
	}
	for _, c := range counters {
		if v, ok := sysfs.Uint(dir, "counters", c.file); ok {
			b.Value(c.schema, float64(v)*c.scale, name, port)
		}
	}
	for _, c := range errorCounters {
		if v, ok := sysfs.Uint(dir, "counters", c.file); ok {
			b.Value(faults, float64(v), name, port, c.label)
		}
	}
	n := 0
	for _, f := range sysfs.List(filepath.Join(dir, "hw_counters"), "") {
		if f == "lifespan" { // of what the kernel keeps, in ms
			continue
		}
		if v, ok := sysfs.Uint(dir, "hw_counters", f); ok && n < maxCounters {
			n++
			b.Value(driverCounter, float64(v), name, port, f)
		}
	}
}

// parseRate takes "100 Gb/sec (4X EDR)" and "2.5 Gb/sec (1X SDR)".
func parseRate(s string) (bytes float64, ok bool) {
	gb, _, ok := strings.Cut(s, " Gb/sec")
	if !ok {
		return 0, false
	}
	v, err := strconv.ParseFloat(gb, 64)
	return v * 1e9 / 8, err == nil
}
