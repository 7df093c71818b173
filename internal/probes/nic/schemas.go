package nic

import "huatuo/internal/signal"

var (
	deviceField = signal.Field{Name: "device", Help: "Network device."}
	slaveField  = signal.Field{Name: "slave", Help: "Network device that is part of the bond."}
	kindField   = signal.Field{Name: "kind", Help: "Kind of the queueing discipline: fq_codel, mq, htb, …"}
)

func metric(t signal.MetricType, name, unit, help, read string, fields ...signal.Field) *signal.Schema {
	return &signal.Schema{Name: "huatuo_" + name, Kind: signal.Metric, Type: t, Unit: unit, Area: signal.AreaNetwork, Scope: signal.Host,
		Help: help, Read: read, Fields: append([]signal.Field{deviceField}, fields...)}
}

func gauge(name, unit, help, read string, fields ...signal.Field) *signal.Schema {
	return metric(signal.Gauge, name, unit, help, read, fields...)
}

func counter(name, unit, help, read string, fields ...signal.Field) *signal.Schema {
	return metric(signal.Counter, name, unit, help, read, fields...)
}

// Of every link.
var (
	up      = gauge("netdev_up", "1", "1 when the device was set up, 0 when it is down by somebody's will.", "Up without carrier: the cable, the peer, or the host's end of a veth pair whose other end is down.")
	carrier = gauge("netdev_carrier", "1", "1 when the device has a link.", "0 while huatuo_netdev_up is 1: nothing can be sent.")
	state   = gauge("netdev_operational_state", "1", "1 for the state that the device is in (RFC 2863).", "unknown is normal for devices without a notion of it (lo, tun); dormant waits for a protocol such as 802.1X or LACP.",
		signal.Field{Name: "state", Help: "Operational state.", Values: operstates[:]})
	changes = counter("netdev_carrier_changes_total", "1", "How often the link came and went.", "Moves while nobody works at the cables: a flapping link; look at transceiver and cable.",
		signal.Field{Name: "to", Help: "up or down", Values: []string{"up", "down"}})
	mtu    = gauge("netdev_mtu_bytes", "bytes", "Largest packet that the device takes.", "Differs between the ends of a path: large packets vanish while small ones pass.")
	length = gauge("netdev_transmit_queue_length", "1", "Packets that the queueing discipline of the device may hold by default.", "What most disciplines take as their limit; compare with huatuo_qdisc_length.")
)

// Of bonding devices.
var (
	bondSlaves   = gauge("bond_slaves", "1", "Devices that are part of the bond.", "Compare with huatuo_bond_slaves_up.")
	bondUp       = gauge("bond_slaves_up", "1", "Devices of the bond whose link is up; with LACP, that both ends use.", "Lower than huatuo_bond_slaves: less bandwidth, and no spare when 1.")
	bondPartner  = gauge("bond_lacp_partner", "1", "1 when the bond knows the other end of its aggregate.", "0: the switch does not speak LACP on these ports, and each port stands alone.")
	bondActive   = gauge("bond_slave_active", "1", "1 for a slave that the bond sends by.", "In an active-backup bond it tells which; a change is a nic event.", slaveField)
	bondSlaveUp  = gauge("bond_slave_up", "1", "1 when the bond takes the slave's link to be up.", "0 while huatuo_netdev_carrier of it is 1: the bond's own probe (ARP) fails, or updelay has not passed.", slaveField)
	bondFailures = counter("bond_slave_link_failures_total", "1", "How often the bond lost the slave's link.", "One slave moves and others do not: its cable, transceiver or port.", slaveField)
	bondJoined   = gauge("bond_slave_lacp_joined", "1", "1 when both ends use the slave's link for the aggregate.", "0 with a link: the ports of the switch are not in one group, or it runs without LACP.", slaveField)
	bondMismatch = gauge("bond_slave_lacp_mismatch", "1", "1 when the slave is in another aggregate than the one that the bond uses.", "1: its cable ends in another switch or another group of ports than the others'.", slaveField)
)

// Of queueing disciplines.
var (
	qdiscBytes      = counter("qdisc_bytes_total", "bytes", "Bytes that went through queueing disciplines.", "A discipline inside another counts what the outer one counts.", kindField)
	qdiscPackets    = counter("qdisc_packets_total", "1", "Packets that went through queueing disciplines.", "With segmentation offload one packet here is many on the wire.", kindField)
	qdiscDrops      = counter("qdisc_drops_total", "1", "Packets that queueing disciplines dropped.", "A limit was reached: of the rate (tbf, htb), of the queue's length, or of the time in it (codel). Each is in huatuo_network_drops_total as well.", kindField)
	qdiscOverlimits = counter("qdisc_overlimits_total", "1", "How often a rate limit made a packet wait or go.", "Moves on a shaped device whenever it is busy; harm is in the drops.", kindField)
	qdiscRequeues   = counter("qdisc_requeues_total", "1", "Packets that the driver did not take and that were queued again.", "Moves with a device whose ring is full: more is sent than it can.", kindField)
	qdiscBacklog    = gauge("qdisc_backlog_bytes", "bytes", "Bytes that wait in queueing disciplines.", "By the rate of bytes: how long a new packet waits.", kindField)
	qdiscLength     = gauge("qdisc_length", "1", "Packets that wait in queueing disciplines.", "Steadily above 0: the link or a limit is full.", kindField)
)

// Of drivers, by ethtool.
var (
	speed = gauge("netdev_speed_bytes", "bytes", "Speed of the link in bytes per second.", "rate(huatuo_netdev_transmit_bytes_total[1m]) by it is how full the link is. Lower than the port can: autonegotiation or a cable.")
	info  = gauge("netdev_info", "1", "1, with what is known of the device and its driver.", "Join it by device to see which driver or firmware a fault has in common.",
		signal.Field{Name: "kind", Help: "Kind of a software device (bond, veth, …); empty for hardware."},
		signal.Field{Name: "driver", Help: "Driver."}, signal.Field{Name: "firmware", Help: "Version of the firmware."},
		signal.Field{Name: "bus", Help: "Address on the bus."})
	driverErrors = counter("netdev_driver_errors_total", "1", "What the driver counts as errors, drops and misses, by its own names.", "rx_missed, no_buffer and the like: the host fetches too slowly; crc, symbol, length: the cable; timeouts, resets: the device.",
		signal.Field{Name: "counter", Help: "The driver's name of it as ethtool -S shows it, without the number of a queue; at most 100 a device."})
	pauses = counter("netdev_pause_frames_total", "1", "Flow control frames.", "transmit moves: this host tells the switch to wait; receive moves: the network tells this host to wait.",
		signal.Field{Name: "direction", Help: "receive or transmit", Values: []string{"receive", "transmit"}},
		signal.Field{Name: "priority", Help: "Priority of priority flow control, all for frames that stop the whole link.", Values: []string{"0", "1", "2", "3", "4", "5", "6", "7", "all"}})
	timeouts = counter("netdev_transmit_timeouts_total", "1", "How often a queue of the device did not send for so long that the kernel told the driver to reset it.", "Any is a fault of the device, its driver or firmware, or of the hypervisor; each is a nic event.")
)

// Of devices, by devlink.
var (
	handleField   = signal.Field{Name: "device", Help: "The device as the devlink command names it: bus/address, and /port for what is of a port."}
	trapFields    = []signal.Field{{Name: "trap", Help: "Why the device does not forward the packet, by the driver's name."}, {Name: "group", Help: "Group of traps."}, {Name: "type", Help: "drop: an error of the packet or a rule; exception: the host is to handle it; control: protocols of the network, which is normal.", Values: []string{"drop", "exception", "control", "other"}}}
	reporterField = []signal.Field{{Name: "reporter", Help: "Part of the device that the driver watches, by the driver's name."}}

	trapPackets = devlinkMetric(signal.Counter, "trap_packets_total", "1", "Packets that the device gave to the host instead of forwarding them.", "Of type drop: what the hardware would have dropped, and why.", trapFields)
	trapBytes   = devlinkMetric(signal.Counter, "trap_bytes_total", "bytes", "Bytes of packets that the device gave to the host instead of forwarding them.", "By the count of packets: their size.", trapFields)
	trapDrops   = devlinkMetric(signal.Counter, "trap_drops_total", "1", "Packets that the device dropped, where its driver counts them.", "Packets that no other counter of this host has seen.", trapFields)
	reported    = devlinkMetric(signal.Counter, "health_errors_total", "1", "Errors that the driver's reporter found.", "Any is a fault of hardware, firmware or driver; each is a nic event.", reporterField)
	recovered   = devlinkMetric(signal.Counter, "health_recoveries_total", "1", "Recoveries from such errors.", "Fewer than huatuo_devlink_health_errors_total: some were not recovered from.", reporterField)
	unhealthy   = devlinkMetric(signal.Gauge, "health_error", "1", "1 while the reporter is in the state of error.", "1: the driver could not recover; devlink health diagnose and dump show show more.", reporterField)
)

func devlinkMetric(t signal.MetricType, name, unit, help, read string, fields []signal.Field) *signal.Schema {
	s := metric(t, "devlink_"+name, unit, help, read, fields...)
	s.Fields[0] = handleField
	return s
}

// Of the readings.
var age = &signal.Schema{
	Name: "huatuo_netdev_reading_age_seconds", Kind: signal.Metric, Type: signal.Gauge, Unit: "seconds", Area: signal.AreaAgent, Scope: signal.Host,
	Help:   "Time since the kernel last answered what this probe asks about devices.",
	Read:   "Above a minute: a driver hangs and holds the kernel's lock of network configuration; ip and ethtool hang as well. Values that would be old are left out.",
	Fields: []signal.Field{{Name: "source", Help: "link and qdisc: rtnetlink; ethtool and devlink: the drivers", Values: sources[:]}},
}

// sources in the order of the constants.
var sources = [...]string{"link", "qdisc", "ethtool", "devlink"}

const (
	ofLink = iota
	ofQdisc
	ofEthtool
	ofDevlink
)

func emits() []*signal.Schema {
	return []*signal.Schema{
		up, carrier, state, changes, mtu, length, speed, info, driverErrors, pauses, timeouts,
		linkDown, linkDowns, pfcEnabled, pfcFrames, stallsTotal, stallThreshold,
		bondSlaves, bondUp, bondPartner, bondActive, bondSlaveUp, bondFailures, bondJoined, bondMismatch,
		qdiscBytes, qdiscPackets, qdiscDrops, qdiscOverlimits, qdiscRequeues, qdiscBacklog, qdiscLength,
		trapPackets, trapBytes, trapDrops, reported, recovered, unhealthy,
		age, happened,
	}
}
