package packetfilter

// protocol is a word that names one.
type protocol struct {
	name   string
	number uint32 // on IP; 0: it is none
	v4, v6 bool   // on which of the two
	ether  uint32 // type of the frame; 0: none of its own
}

// protocols by name, in the order of the error that lists them.
var protocols = [...]protocol{
	{name: "ether"}, {name: "link"},
	{name: "ip", ether: typeIPv4}, {name: "ip6", ether: typeIPv6}, {name: "arp", ether: typeARP}, {name: "rarp", ether: typeRARP},
	{name: "tcp", number: 6, v4: true, v6: true}, {name: "udp", number: 17, v4: true, v6: true}, {name: "sctp", number: 132, v4: true, v6: true},
	{name: "icmp", number: 1, v4: true}, {name: "icmp6", number: 58, v6: true}, {name: "igmp", number: 2, v4: true}, {name: "igrp", number: 9, v4: true},
	{name: "pim", number: 103, v4: true, v6: true}, {name: "vrrp", number: 112, v4: true}, {name: "carp", number: 112, v4: true},
	{name: "ah", number: 51, v4: true, v6: true}, {name: "esp", number: 50, v4: true, v6: true},
}

func protocolOf(name string) (protocol, bool) {
	for _, p := range protocols {
		if p.name == name {
			return p, true
		}
	}
	return protocol{}, false
}

// test is the condition that a word like tcp is by itself; ether and link are none.
func (p protocol) test() node {
	switch {
	case p.ether != 0:
		return etherType(p.ether)
	case p.v4 && p.v6:
		return or{ipv4Proto(p.number), ipv6Proto(p.number)}
	case p.v4:
		return ipv4Proto(p.number)
	default:
		return ipv6Proto(p.number)
	}
}

// unsupported are words of pcap-filter(7) that we know and do not have, each with why.
var unsupported = map[string]string{
	"vlan": "the kernel keeps VLAN tags beside the packet, where the filter does not look", "mpls": "MPLS labels are not looked into",
	"pppoed": "PPPoE is not looked into", "pppoes": "PPPoE is not looked into", "geneve": "Geneve is not looked into", "vxlan": "VXLAN is not looked into",
	"protochain": "it needs a loop", "gateway": "it needs the names of hosts",
	"inbound": "the direction of a packet is not known where it is lost", "outbound": "the direction of a packet is not known where it is lost",
	"ifname": "the event has the device", "on": "the event has the device", "ifindex": "the event has the device",
	"wlan": "802.11 headers are gone when a packet is lost", "type": "802.11 headers are gone when a packet is lost",
	"subtype": "802.11 headers are gone when a packet is lost", "dir": "802.11 headers are gone when a packet is lost",
	"tr": "the frame is taken for Ethernet", "fddi": "the frame is taken for Ethernet", "ppp": "the frame is taken for Ethernet", "slip": "the frame is taken for Ethernet",
	"llc": "802.2 is not looked into", "stp": "802.2 is not looked into", "iso": "802.2 is not looked into", "clnp": "802.2 is not looked into",
	"esis": "802.2 is not looked into", "isis": "802.2 is not looked into", "ipx": "802.2 is not looked into", "netbeui": "802.2 is not looked into",
	"atalk": "AppleTalk is not looked into", "aarp": "AppleTalk is not looked into", "decnet": "DECnet is not looked into", "lat": "DECnet is not looked into",
	"moprc": "DECnet is not looked into", "mopdl": "DECnet is not looked into", "sca": "DECnet is not looked into", "radio": "there is no radio header",
}

// keywords that are no names, besides protocols and unsupported.
var keywords = map[string]bool{
	"and": true, "or": true, "not": true, "src": true, "dst": true, "host": true, "net": true, "port": true, "portrange": true, "proto": true,
	"broadcast": true, "multicast": true, "less": true, "greater": true, "len": true, "mask": true,
}

func isKeyword(s string) bool {
	_, p := protocolOf(s)
	_, no := unsupported[s]
	return p || no || keywords[s]
}

// constants of pcap-filter(7), for use in arithmetic.
var constants = map[string]uint32{
	"icmptype": 0, "icmpcode": 1, "icmp6type": 0, "icmp6code": 1, "tcpflags": 13,
	"icmp-echoreply": 0, "icmp-unreach": 3, "icmp-sourcequench": 4, "icmp-redirect": 5, "icmp-echo": 8, "icmp-routeradvert": 9,
	"icmp-routersolicit": 10, "icmp-timxceed": 11, "icmp-paramprob": 12, "icmp-tstamp": 13, "icmp-tstampreply": 14, "icmp-ireq": 15,
	"icmp-ireqreply": 16, "icmp-maskreq": 17, "icmp-maskreply": 18,
	"icmp6-destinationunreach": 1, "icmp6-packettoobig": 2, "icmp6-timeexceeded": 3, "icmp6-parameterproblem": 4, "icmp6-echo": 128,
	"icmp6-echoreply": 129, "icmp6-multicastlistenerquery": 130, "icmp6-multicastlistenerreportv1": 131, "icmp6-multicastlistenerdone": 132,
	"icmp6-routersolicit": 133, "icmp6-routeradvert": 134, "icmp6-neighborsolicit": 135, "icmp6-neighboradvert": 136, "icmp6-redirect": 137,
	"icmp6-routerrenum": 138, "icmp6-nodeinformationquery": 139, "icmp6-nodeinformationresponse": 140,
	"icmp6-ineighbordiscoverysolicit": 141, "icmp6-ineighbordiscoveryadvert": 142, "icmp6-multicastlistenerreportv2": 143,
	"icmp6-homeagentdiscoveryrequest": 144, "icmp6-homeagentdiscoveryreply": 145, "icmp6-mobileprefixsolicit": 146, "icmp6-mobileprefixadvert": 147,
	"icmp6-certpathsolicit": 148, "icmp6-certpathadvert": 149, "icmp6-multicastrouteradvert": 151, "icmp6-multicastroutersolicit": 152,
	"icmp6-multicastrouterterm": 153,
	"tcp-fin":                   1, "tcp-syn": 2, "tcp-rst": 4, "tcp-push": 8, "tcp-ack": 16, "tcp-urg": 32, "tcp-ece": 64, "tcp-cwr": 128,
}

// services are ports that filters name, with the protocols that /etc/services
// has for them. Other ports go by number: what a filter means does not depend on
// a file of the machine.
var services = map[string]struct {
	port   uint32
	protos []uint32
}{
	"ftp-data": {20, tcpOnly}, "ftp": {21, tcpOnly}, "ssh": {22, tcpOnly}, "telnet": {23, tcpOnly}, "smtp": {25, tcpOnly},
	"domain": {53, anyPort}, "bootps": {67, udpOnly}, "bootpc": {68, udpOnly}, "tftp": {69, udpOnly}, "http": {80, tcpOnly},
	"kerberos": {88, anyPort}, "pop3": {110, tcpOnly}, "sunrpc": {111, anyPort}, "ntp": {123, udpOnly}, "imap2": {143, tcpOnly},
	"snmp": {161, anyPort}, "bgp": {179, tcpOnly}, "ldap": {389, anyPort}, "https": {443, anyPort}, "syslog": {514, udpOnly},
	"ldaps": {636, anyPort}, "imaps": {993, tcpOnly}, "pop3s": {995, tcpOnly}, "nfs": {2049, anyPort}, "mysql": {3306, tcpOnly},
	"postgresql": {5432, tcpOnly}, "redis": {6379, tcpOnly},
}

// Protocols that a port may belong to.
var (
	tcpOnly = []uint32{6}
	udpOnly = []uint32{17}
	anyPort = []uint32{6, 17, 132}
)
