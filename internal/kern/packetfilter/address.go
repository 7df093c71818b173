package packetfilter

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strings"
)

// portNode is the condition that a port, or one of a range, is in the packet.
func portNode(q qualifier, text string) (node, string) {
	var protos []uint32
	switch q.proto.name {
	case "":
		protos = anyPort
	case "tcp", "udp", "sctp":
		protos = []uint32{q.proto.number}
	default:
		return nil, q.proto.name + " has no ports: want tcp, udp, sctp or nothing before " + q.kind
	}
	lo, hi, ranged := strings.Cut(text, "-")
	if q.kind == "port" {
		lo, ranged = text, false // a name may hold a hyphen
	}
	first, of, msg := portOf(lo)
	if msg != "" {
		return nil, msg
	}
	if of != nil {
		if protos, msg = shared(protos, of, q); msg != "" {
			return nil, fmt.Sprintf("%s is no port of %s", lo, q.proto.name)
		}
	}
	last := first
	if ranged {
		if last, _, msg = portOf(hi); msg != "" {
			return nil, msg
		}
	}
	first, last = min(first, last), max(first, last)
	return portTest{protos, q.dir, [][2]uint32{{first, last}}}, ""
}

// portOf reads a port; of lists the protocols that a name belongs to.
func portOf(text string) (port uint32, of []uint32, msg string) {
	if n, ok := parseNumber(text); ok {
		if n > 65535 {
			return 0, nil, fmt.Sprintf("%s is no port: the highest is 65535", text)
		}
		return n, nil, ""
	}
	if s, ok := services[strings.ToLower(text)]; ok {
		return s.port, s.protos, ""
	}
	return 0, nil, fmt.Sprintf("%q is neither a port nor a service that has a name here: use its number", text)
}

// shared returns those of protos that a service has.
func shared(protos, of []uint32, q qualifier) (both []uint32, msg string) {
	if q.proto.name == "" {
		return of, ""
	}
	for _, p := range of {
		if p == protos[0] {
			return protos, ""
		}
	}
	return nil, "none"
}

// protoNode is the condition of a protocol on IP, or of a type of frame.
func protoNode(q qualifier, text string) (node, string) {
	if q.dir != "" {
		return nil, "a protocol has no direction"
	}
	p, known := protocolOf(strings.ToLower(text))
	n, isNumber := parseNumber(text)
	switch q.proto.name {
	case "ether", "link":
		switch {
		case isNumber && n > 65535:
			return nil, fmt.Sprintf("%s is no type of a frame: the highest is 65535", text)
		case isNumber && n <= 1500:
			return nil, "a number up to 1500 is an 802.2 protocol, which is not looked into"
		case isNumber:
			return etherType(n), ""
		case known && p.ether != 0:
			return etherType(p.ether), ""
		}
		return nil, fmt.Sprintf("%q is no type of a frame: want ip, ip6, arp, rarp or a number", text)
	case "", "ip", "ip6":
	default:
		return nil, fmt.Sprintf("%s carries no protocol that one could ask for: want ip, ip6, ether or nothing before proto", q.proto.name)
	}
	if !isNumber {
		if !known || p.number == 0 {
			return nil, fmt.Sprintf("%q is no protocol on IP that has a name here: use its number", text)
		}
		n = p.number
	}
	if n > 255 {
		return nil, fmt.Sprintf("%s is no protocol on IP: the highest is 255", text)
	}
	switch q.proto.name {
	case "ip":
		return ipv4Proto(n), ""
	case "ip6":
		return ipv6Proto(n), ""
	}
	return or{ipv4Proto(n), ipv6Proto(n)}, ""
}

// addressNode is the condition that an address, or one of a network, is in the
// packet. mask is what follows a slash, when slash is set, or the word mask.
func addressNode(q qualifier, text, mask string, slash bool) (node, string) {
	if mac, err := net.ParseMAC(text); err == nil && len(mac) == 6 {
		return macNode(q, mac, mask)
	}
	switch q.proto.name {
	case "ether", "link":
		return nil, fmt.Sprintf("%q is no Ethernet address", text)
	case "", "ip", "ip6", "arp", "rarp":
	default:
		return nil, fmt.Sprintf("%s has no addresses: write \"%s and host …\"", q.proto.name, q.proto.name)
	}
	if mask != "" && q.kind != "net" {
		return nil, "a netmask is for networks: write net …"
	}
	if a, err := netip.ParseAddr(text); err == nil && a.Is6() && a.Zone() == "" {
		return ipv6Node(q, a, mask, slash)
	}
	addr, bits, ok := parseIPv4(text)
	if !ok || q.kind != "net" && bits != 32 {
		return nil, fmt.Sprintf("%q is no address: names are not looked up", text)
	}
	if q.proto.name == "ip6" {
		return nil, text + " is no IPv6 address"
	}
	m := uint32(0xffffffff) << (32 - bits)
	if mask != "" {
		var msg string
		if m, msg = maskIPv4(mask, slash); msg != "" {
			return nil, msg
		}
	}
	if addr&^m != 0 {
		return nil, fmt.Sprintf("%s has bits set that the netmask leaves out", text)
	}
	return ipv4Node(q, addr, m), ""
}

func macNode(q qualifier, mac net.HardwareAddr, mask string) (node, string) {
	if q.proto.name != "ether" && q.proto.name != "link" {
		return nil, "an Ethernet address: write ether host, ether src or ether dst before it"
	}
	if mask != "" || q.kind == "net" {
		return nil, "there are no networks of Ethernet addresses"
	}
	at := func(off uint32) node {
		return and{equals(4, off+2, binary.BigEndian.Uint32(mac[2:])), equals(2, off, uint32(binary.BigEndian.Uint16(mac)))}
	}
	return both(q.dir, at(6), at(0)), ""
}

// parseIPv4 reads an address, or the first bytes of one: 10.1 is 10.1.0.0 of 16 bits.
func parseIPv4(text string) (addr uint32, bits int, ok bool) {
	parts := strings.Split(text, ".")
	if len(parts) > 4 {
		return 0, 0, false
	}
	for _, p := range parts {
		n, ok := parseNumber(p)
		if !ok || n > 255 || len(p) > 1 && p[0] == '0' { // 010 is eight to some and ten to others
			return 0, 0, false
		}
		addr, bits = addr<<8|n, bits+8
	}
	return addr << (32 - bits), bits, true
}

func maskIPv4(text string, slash bool) (uint32, string) {
	if slash {
		n, ok := parseNumber(text)
		if !ok || n > 32 {
			return 0, fmt.Sprintf("%q is no length of a netmask: want 0 to 32", text)
		}
		return uint32(uint64(0xffffffff) << (32 - n)), ""
	}
	m, bits, ok := parseIPv4(text)
	if !ok || bits != 32 {
		return 0, fmt.Sprintf("%q is no netmask", text)
	}
	return m, ""
}

// ipv4Node looks at the addresses of IPv4 and, unless q names one protocol, of
// ARP and RARP.
func ipv4Node(q qualifier, addr, mask uint32) node {
	at := func(off uint32) node {
		if mask == 0 {
			return constant(true)
		}
		return compare{load: load{size: 4, off: linkBytes + off}, mask: mask, op: "==", k: addr}
	}
	var ns []node
	for _, l := range []struct {
		name          string
		ether         uint32
		source, other uint32
	}{{"ip", typeIPv4, 12, 16}, {"arp", typeARP, 14, 24}, {"rarp", typeRARP, 14, 24}} {
		if q.proto.name == "" || q.proto.name == l.name {
			ns = append(ns, and{etherType(l.ether), both(q.dir, at(l.source), at(l.other))})
		}
	}
	return either(ns...)
}

func ipv6Node(q qualifier, a netip.Addr, mask string, slash bool) (node, string) {
	if q.proto.name != "" && q.proto.name != "ip6" {
		return nil, fmt.Sprintf("%s is an IPv6 address", a)
	}
	bits := 128
	if mask != "" {
		n, ok := parseNumber(mask)
		if !slash || !ok || n > 128 {
			return nil, fmt.Sprintf("%q is no length of a netmask: want /0 to /128", mask)
		}
		bits = int(n)
	}
	prefix, err := a.Prefix(bits)
	if err != nil || prefix.Addr() != a {
		return nil, fmt.Sprintf("%s has bits set that the netmask leaves out", a)
	}
	b := a.As16()
	at := func(off uint32) node {
		var ns []node
		for i := range 4 {
			if left := bits - 32*i; left > 0 {
				m := uint32(uint64(0xffffffff) << (32 - min(left, 32)))
				ns = append(ns, compare{load: load{size: 4, off: off + uint32(4*i)}, mask: m, op: "==", k: binary.BigEndian.Uint32(b[4*i:])})
			}
		}
		return all(ns...)
	}
	return and{ipv6(), both(q.dir, at(inIPv6+8), at(inIPv6+24))}, ""
}
