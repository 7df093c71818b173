package nic

import (
	"errors"
	"fmt"
	"time"

	"github.com/cilium/ebpf"

	"huatuo/internal/kern/load"
	"huatuo/internal/kern/ring"
	"huatuo/internal/probe"
	"huatuo/internal/signal"
)

// watchdog attaches to what the kernel tells of queues that do not send. A
// kernel or a process that cannot have it has all else of the probe.
func watchdog(env *probe.Env, knobs probe.EventKnobs) (*load.Object, error) {
	if env.Kernel == nil {
		return nil, errors.New("no BPF")
	}
	l, err := env.Kernel.Load(loadBpf, loadBpfLegacy)
	if err != nil {
		return nil, err
	}
	if err := knobs.Set(l, "nic"); err != nil {
		return nil, err
	}
	return l.Attach(load.TP("net_dev_xmit_timeout"))
}

// decoder turns samples into records.
type decoder struct {
	clock func(uint64) time.Time
	port  func(device string) *port
}

func (d *decoder) decode(raw []byte) (*signal.Record, error) {
	w, err := ring.View[bpfNicTimeoutWire](raw)
	if err != nil {
		return nil, fmt.Errorf("decode transmit timeout: %w", err)
	}
	device := probe.CString(w.Device.Name[:])
	r := report{port: d.port(device), severity: signal.Critical, title: fmt.Sprintf("queue %d of %s does not send: the kernel resets it", w.Queue, device),
		body: NIC{Device: device, What: "transmit_timeout", Queue: int(w.Queue), Netns: w.Netns}}
	rec := r.record(d.clock(w.Ts), w.Suppressed)
	if r.body.Driver == "" {
		r.body.Driver = probe.CString(w.Driver[:])
	}
	rec.Measures = []signal.Measure{{Schema: timeouts, Labels: []string{device}, Value: 1}}
	return rec, nil
}

// countTimeouts returns what the program counted, by device.
func countTimeouts(m *ebpf.Map) (map[string]float64, error) {
	out := map[string]float64{}
	var name bpfDeviceName
	var n uint64
	it := m.Iterate()
	for it.Next(&name, &n) {
		out[probe.CString(name.Name[:])] += float64(n)
	}
	if err := it.Err(); err != nil {
		return nil, fmt.Errorf("read transmit timeouts: %w", err)
	}
	return out, nil
}
