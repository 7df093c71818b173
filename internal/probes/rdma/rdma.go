// Package rdma reports the ports of RDMA devices: InfiniBand, RoCE, iWARP, EFA.
package rdma

import (
	"context"
	_ "embed"
	"fmt"
	"path/filepath"
	"time"

	"huatuo/internal/kern/load"
	"huatuo/internal/kern/sysfs"
	"huatuo/internal/probe"
	"huatuo/internal/signal"
)

//go:embed README.md
var readme string

// Config of the probe.
type Config struct {
	Interval time.Duration `yaml:"interval" help:"how often counters are read"`
	Timeout  time.Duration `yaml:"timeout" help:"a device that has not answered after this long counts as hung"`
}

// Spec describes the probe.
func Spec() probe.Spec {
	return probe.New(probe.Meta{
		Name:   "rdma",
		Help:   "Reports the ports of RDMA devices: InfiniBand, RoCE, iWARP, EFA.",
		Readme: readme,
		Emits:  []*signal.Schema{up, rate, hung, received, sent, receivedPackets, sentPackets, faults, waits, driverCounter},
		Since:  "4.18",
		Source: "/sys/class/infiniband",
	}, Config{
		Interval: 15 * time.Second, // each counter may be a command to the device
		Timeout:  5 * time.Second,
	}, run)
}

var (
	hungFields = []signal.Field{{Name: "device", Help: "RDMA device, as mlx5_0"}}
	portFields = []signal.Field{{Name: "device", Help: "RDMA device, as mlx5_0"}, {Name: "port", Help: "number of the port, from 1"}}

	up = metric(signal.Gauge, "port_up", "1", "Whether the port is active: 1 or 0.",
		"0 for a port that nobody uses as well; a change from 1 is a link that broke, or a subnet manager that is gone.")
	rate = metric(signal.Gauge, "port_rate_bytes", "bytes", "Bytes per second that the link carries in each direction, as it was negotiated.",
		"Less than its neighbours: a cable or transceiver that made the link fall back.")
	hung = &signal.Schema{
		Name: "huatuo_rdma_hung", Kind: signal.Metric, Type: signal.Gauge, Unit: "1", Area: signal.AreaNetwork, Scope: signal.Host, Fields: hungFields,
		Help: "Whether the device has not answered when asked for its counters: 1 or 0.",
		Read: "1 for a device whose firmware hangs; its other metrics are absent then.",
	}
	received        = metric(signal.Counter, "receive_bytes_total", "bytes", "Data received on the port, all of it.", "Against huatuo_rdma_port_rate_bytes: how full the link is.")
	sent            = metric(signal.Counter, "transmit_bytes_total", "bytes", "Data sent on the port, all of it.", "Against huatuo_rdma_port_rate_bytes: how full the link is.")
	receivedPackets = metric(signal.Counter, "receive_packets_total", "1", "Packets received on the port.", "bytes/packets is the mean size.")
	sentPackets     = metric(signal.Counter, "transmit_packets_total", "1", "Packets sent on the port.", "bytes/packets is the mean size.")
	waits           = metric(signal.Counter, "transmit_wait_ticks_total", "1", "Ticks of the port in which it had data to send and was not allowed to.",
		"Congestion: the other end, or a switch, grants no credit. The length of a tick depends on the device; compare in time, and with peers.")
	faults = metric(signal.Counter, "errors_total", "1", "Errors of the port, by kind.",
		"link_downed, symbol and link_integrity: cable or transceiver. transmit_discards and buffer_overrun: congestion. transmit_constraint, receive_constraint: partition keys that do not match.",
		signal.Field{Name: "error", Help: "kind, of the InfiniBand specification", Values: faultNames()})
	driverCounter = metric(signal.Counter, "driver_counter_total", "1", "Counters that the device's driver has of its own, by name.",
		"RoCE: np_cnp_sent and rp_cnp_handled are congestion; out_of_sequence, packet_seq_err and local_ack_timeout_err are packets lost on the way; see the driver's documentation.",
		signal.Field{Name: "counter", Help: "name of the counter, as the driver has it (hw_counters)"})
)

func metric(typ signal.MetricType, what, unit, help, read string, more ...signal.Field) *signal.Schema {
	return &signal.Schema{Name: "huatuo_rdma_" + what, Kind: signal.Metric, Type: typ, Unit: unit, Area: signal.AreaNetwork, Scope: signal.Host,
		Fields: append(portFields[:2:2], more...), Help: help, Read: read}
}

func run(ctx context.Context, env *probe.Env, cfg Config) error {
	if cfg.Interval <= 0 || cfg.Timeout <= 0 {
		return fmt.Errorf("probes.rdma.interval is %v, timeout is %v: want positive durations", cfg.Interval, cfg.Timeout)
	}
	r := reader{class: filepath.Join(env.Root, "sys/class/infiniband")}
	names := func() []string { return sysfs.List(r.class, "") }
	if len(names()) == 0 {
		return fmt.Errorf("no RDMA device in /sys/class/infiniband: %w", probe.ErrAbsent)
	}
	asker := probe.NewAsker(cfg.Timeout, r.device)
	env.Collect(func(b *signal.Batch) error {
		for _, a := range asker.Answers() {
			v := 0.0
			if a.Hung {
				v = 1
			}
			b.Value(hung, v, a.Name)
			if a.Known && !a.Hung {
				b.Samples = append(b.Samples, a.Value...)
			}
		}
		return nil
	})
	return asker.Poll(ctx, env, cfg.Interval, names, nil, load.HookState{Hook: "/sys/class/infiniband", By: "sysfs"})
}
