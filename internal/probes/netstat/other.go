package netstat

import (
	"os"

	"huatuo/internal/signal"
)

// udpFields: the kernel's UDP-Lite is left out, nobody uses it.
func udpFields() []field {
	family := label("family", "of addresses", families...)
	datagrams := counter("udp_datagrams", "UDP datagrams delivered to programs and sent by them.", "", family, label("direction", "which way", directions...))
	closed := counter("udp_no_ports", "UDP datagrams for ports that nobody listens on.", "A service that is down, or a scan.", family)
	errs := counter("udp_drops", "UDP datagrams dropped at a socket.",
		"receive_buffer: the reader is too slow; memory: net.ipv4.udp_mem is used up; send_buffer: the host sends faster than its link.",
		family, label("cause", "why", "receive_buffer", "send_buffer", "checksum", "memory"))
	fields := []field{}
	for _, f := range []struct{ family, prefix string }{{"ipv4", "Udp:"}, {"ipv6", "snmp6:Udp6"}} {
		l := func(v ...string) []string { return append([]string{f.family}, v...) }
		fields = append(fields,
			of(datagrams, l("receive"), f.prefix+"InDatagrams"),
			of(datagrams, l("transmit"), f.prefix+"OutDatagrams"),
			of(closed, l(), f.prefix+"NoPorts"),
			of(errs, l("receive_buffer"), f.prefix+"RcvbufErrors"),
			of(errs, l("send_buffer"), f.prefix+"SndbufErrors"),
			of(errs, l("checksum"), f.prefix+"InCsumErrors"),
			of(errs, l("memory"), f.prefix+"MemErrors"),
		)
	}
	for i := range fields {
		fields[i].per = true
	}
	return fields
}

func ipFields() []field {
	family := label("family", "of addresses", families...)
	packets := counter("ip_packets", "IP packets received, delivered to a protocol, forwarded and sent.",
		"receive far above deliver and forward: packets are dropped between.", family,
		label("direction", "receive: came in, deliver: given to a protocol, forward: passed on, transmit: sent by this host", "receive", "deliver", "forward", "transmit"))
	bytes := metric("ip_bytes_total", signal.Counter, "bytes", "Bytes of IP packets received and sent.", "", family, label("direction", "which way", directions...))
	drops := counter("ip_drops", "IP packets dropped, by the cause as the protocol's counters have it.",
		"no_route in or out: routing; out_discard: a full queue; reassembly: fragments that do not all come. huatuo_network_drops_total tells more.",
		family, label("cause", "why", "in_header", "in_address", "in_protocol", "in_discard", "in_no_route", "in_truncated", "in_too_big",
			"out_discard", "out_no_route", "reassembly", "fragmentation"))
	icmp := counter("icmp_messages", "ICMP messages received and sent.", "Each unreachable sent is a packet that somebody sent in vain.", family,
		label("direction", "which way", directions...), label("type", "unreachable: no route, closed port; all: of whatever type", "all", "unreachable"))
	fields := []field{}
	for _, f := range []struct{ family, ip, bytes, icmp, forward string }{
		{"ipv4", "Ip:", "IpExt:", "Icmp:", "ForwDatagrams"}, {"ipv6", "snmp6:Ip6", "snmp6:Ip6", "snmp6:Icmp6", "OutForwDatagrams"},
	} {
		l := func(v ...string) []string { return append([]string{f.family}, v...) }
		fields = append(fields,
			of(packets, l("receive"), f.ip+"InReceives"), of(packets, l("deliver"), f.ip+"InDelivers"),
			of(packets, l("forward"), f.ip+f.forward), of(packets, l("transmit"), f.ip+"OutRequests"),
			of(bytes, l("receive"), f.bytes+"InOctets"), of(bytes, l("transmit"), f.bytes+"OutOctets"),
			of(drops, l("in_header"), f.ip+"InHdrErrors"), of(drops, l("in_address"), f.ip+"InAddrErrors"),
			of(drops, l("in_protocol"), f.ip+"InUnknownProtos"), of(drops, l("in_discard"), f.ip+"InDiscards"),
			of(drops, l("in_no_route"), f.bytes+"InNoRoutes"), of(drops, l("in_truncated"), f.bytes+"InTruncatedPkts"),
			of(drops, l("in_too_big"), f.ip+"InTooBigErrors"),
			of(drops, l("out_discard"), f.ip+"OutDiscards"), of(drops, l("out_no_route"), f.ip+"OutNoRoutes"),
			of(drops, l("reassembly"), f.ip+"ReasmFails"), of(drops, l("fragmentation"), f.ip+"FragFails"),
			of(icmp, l("receive", "all"), f.icmp+"InMsgs"), of(icmp, l("transmit", "all"), f.icmp+"OutMsgs"),
			of(icmp, l("receive", "unreachable"), f.icmp+"InDestUnreachs"), of(icmp, l("transmit", "unreachable"), f.icmp+"OutDestUnreachs"),
		)
	}
	return fields
}

// socketFields are of /proc/net/sockstat and sockstat6.
func socketFields() []field {
	page := float64(os.Getpagesize())
	inUse := gauge("sockets_in_use", "Sockets of a protocol that are in use.", "", label("family", "of addresses", families...),
		label("protocol", "of the socket", "tcp", "udp", "raw"))
	l := func(v ...string) []string { return v }
	fragments := func(family, section string) field {
		return of(fragmentMemory, l(family), section+":memory")
	}
	return []field{
		one(gauge("sockets", "Sockets of all kinds that processes of the namespace have open.", "A steady climb is a leak."), "sockets:used").within(),
		of(inUse, l("ipv4", "tcp"), "TCP:inuse"), of(inUse, l("ipv6", "tcp"), "TCP6:inuse"),
		of(inUse, l("ipv4", "udp"), "UDP:inuse"), of(inUse, l("ipv6", "udp"), "UDP6:inuse"),
		of(inUse, l("ipv4", "raw"), "RAW:inuse"), of(inUse, l("ipv6", "raw"), "RAW6:inuse"),
		one(gauge("tcp_orphans", "TCP connections that no process has open any more and that still have data to send.",
			"Near net.ipv4.tcp_max_orphans the kernel aborts them."), "TCP:orphan"),
		one(gauge("tcp_time_wait", "Connections in TIME_WAIT.", "Tens of thousands to one peer exhaust its ports: keep connections alive."), "TCP:tw").within(),
		one(gauge("tcp_sockets_allocated", "TCP sockets that have memory, in all namespaces.", ""), "TCP:alloc"),
		one(metric("tcp_memory_bytes", signal.Gauge, "bytes", "Memory of all TCP sockets' buffers, in all namespaces.",
			"Against huatuo_tcp_memory_limit_bytes."), "TCP:mem").times(page),
		one(metric("udp_memory_bytes", signal.Gauge, "bytes", "Memory of all UDP sockets' buffers, in all namespaces.", "Limit: net.ipv4.udp_mem."), "UDP:mem").times(page),
		fragments("ipv4", "FRAG"), fragments("ipv6", "FRAG6"),
	}
}

var fragmentMemory = metric("ip_fragments_memory_bytes", signal.Gauge, "bytes", "Memory of fragments that wait for the rest of their packet.",
	"Limit: net.ipv4.ipfrag_high_thresh, 4 MiB.", label("family", "of addresses", families...))
