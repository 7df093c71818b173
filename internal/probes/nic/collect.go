package nic

import (
	"time"

	"golang.org/x/sys/unix"

	"huatuo/internal/kern/load"
	"huatuo/internal/signal"
)

// collect gives what was read last. It asks nobody, so that it cannot hang.
func (r *reader) collect(b *signal.Batch) error {
	now := r.now()
	links, heard := r.tracker.reported()
	qdiscs, counted := r.qdiscs.get()
	ports, asked := r.ports.get()
	if r.fresh(b, ofLink, now.Sub(heard), r.cfg.Period) {
		collectLinks(b, links)
		collectBonds(b, links, r.tracker.all())
	}
	if r.fresh(b, ofQdisc, now.Sub(counted), r.cfg.Period) {
		collectQdiscs(b, qdiscs, links)
	}
	if r.fresh(b, ofEthtool, now.Sub(asked), r.cfg.Drivers) {
		collectPorts(b, links, ports)
	}
	devices, answered := r.devices.get()
	if r.fresh(b, ofDevlink, now.Sub(answered), r.cfg.Drivers) {
		collectDevices(b, devices)
	}
	return nil
}

// fresh tells whether what a source said is young enough to be shown, and
// reports how old it is.
func (r *reader) fresh(b *signal.Batch, source int, old, period time.Duration) bool {
	b.Value(age, max(0, old.Seconds()), sources[source])
	fresh := old < 3*period+10*time.Second
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.hung[source] == fresh {
		r.hung[source] = !fresh
		switch {
		case fresh:
			r.log.Info("the kernel answers again about devices", "source", sources[source])
		default:
			device := ""
			if d := r.asking.Load(); d != nil {
				device = *d
			}
			r.log.Warn("the kernel does not answer about devices: a driver may hang", "source", sources[source], "since", old.Round(time.Second), "asking", device)
		}
	}
	return fresh
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func collectLinks(b *signal.Batch, links []*link) {
	for _, l := range links {
		b.Value(up, truth(l.flags&unix.IFF_UP != 0), l.name)
		b.Value(carrier, truth(l.carrier), l.name)
		b.Value(state, 1, l.name, operstate(l))
		b.Value(changes, float64(l.ups), l.name, "up")
		b.Value(changes, float64(l.downs), l.name, "down")
		b.Value(mtu, float64(l.mtu), l.name)
		b.Value(length, float64(l.txqlen), l.name)
	}
}

// collectBonds reports the bonds among links, whose slaves are among all.
func collectBonds(b *signal.Batch, links, all []*link) {
	for _, l := range links {
		if !l.bond.is {
			continue
		}
		total, works := 0, 0
		for _, s := range all {
			if s.master != l.index || !s.slave.is {
				continue
			}
			total++
			if s.slave.mii == 0 && (l.bond.mode != modeLACP || s.slave.joined()) {
				works++
			}
			collectSlave(b, l, s)
		}
		b.Value(bondSlaves, float64(total), l.name)
		b.Value(bondUp, float64(works), l.name)
		if l.bond.mode == modeLACP {
			b.Value(bondPartner, truth(l.bond.partner != [6]byte{}), l.name)
		}
	}
}

func collectSlave(b *signal.Batch, l, s *link) {
	b.Value(bondActive, truth(!s.slave.backup), l.name, s.name)
	b.Value(bondSlaveUp, truth(s.slave.mii == 0), l.name, s.name)
	b.Value(bondFailures, float64(s.slave.failures), l.name, s.name)
	if l.bond.mode == modeLACP {
		b.Value(bondJoined, truth(s.slave.joined()), l.name, s.name)
		b.Value(bondMismatch, truth(l.bond.lacp && s.slave.aggregator != l.bond.aggregator), l.name, s.name)
	}
}

func collectQdiscs(b *signal.Batch, qdiscs []*qdisc, links []*link) {
	names := make(map[int]string, len(links))
	for _, l := range links {
		names[l.index] = l.name
	}
	for _, q := range qdiscs {
		device, ok := names[q.index]
		if !ok || q.kind == "noqueue" {
			continue
		}
		b.Value(qdiscBytes, float64(q.bytes), device, q.kind)
		b.Value(qdiscPackets, float64(q.packets), device, q.kind)
		b.Value(qdiscDrops, float64(q.drops), device, q.kind)
		b.Value(qdiscOverlimits, float64(q.overlimits), device, q.kind)
		b.Value(qdiscRequeues, float64(q.requeues), device, q.kind)
		b.Value(qdiscBacklog, float64(q.backlogByte), device, q.kind)
		b.Value(qdiscLength, float64(q.queueLength), device, q.kind)
	}
}

func collectPorts(b *signal.Batch, links []*link, ports map[string]*port) {
	for _, l := range links {
		p := ports[l.name]
		if p == nil {
			continue
		}
		b.Value(info, 1, l.name, l.kind, p.driver, p.firmware, p.bus)
		if p.speed > 0 {
			b.Value(speed, p.speed, l.name)
		}
		for _, n := range p.errors {
			b.Value(driverErrors, n.value, l.name, n.labels[0])
		}
		for _, n := range p.pauses {
			b.Value(pauses, n.value, l.name, n.labels[0], n.labels[1])
		}
		collectLinkState(b, l.name, p)
		collectStalls(b, l.name, &p.stalls)
	}
}

func collectDevices(b *signal.Batch, d devices) {
	for _, t := range d.traps {
		b.Value(trapPackets, float64(t.packets), t.device, t.name, t.group, t.kind)
		b.Value(trapBytes, float64(t.bytes), t.device, t.name, t.group, t.kind)
		if t.counts {
			b.Value(trapDrops, float64(t.drops), t.device, t.name, t.group, t.kind)
		}
	}
	for _, h := range d.health {
		b.Value(reported, float64(h.errors), h.device, h.reporter)
		b.Value(recovered, float64(h.recoveries), h.device, h.reporter)
		b.Value(unhealthy, truth(h.failed), h.device, h.reporter)
	}
}

// collectTimeouts gives what the program counted: 0 for a device that is fine.
func (r *reader) collectTimeouts(b *signal.Batch, o *load.Object) error {
	counts, err := countTimeouts(o.Map("timeouts"))
	if err != nil {
		return err
	}
	links, _ := r.tracker.reported()
	for _, l := range links {
		if _, ok := counts[l.name]; !ok {
			counts[l.name] = 0
		}
	}
	for device, n := range counts {
		b.Value(timeouts, n, device)
	}
	return nil
}
