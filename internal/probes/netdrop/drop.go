package netdrop

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"huatuo/internal/kern/cgroup"
	"huatuo/internal/kern/ring"
	"huatuo/internal/probe"
	"huatuo/internal/signal"
)

// protocols by the number the program gives them: enum ht_proto of bpf/include/packet.h.
var protocols = [...]string{"other", "tcp", "udp", "icmp", "ip", "arp"}

// PacketDrop is the body of a packet_drop event. The record's kernel stack
// begins at the place of the drop. Its process is only set when the packet was
// dropped in a process' own system call, its container also by the packet's
// socket.
type PacketDrop struct {
	Reason          string `json:"reason" help:"the kernel's word for why, without SKB_DROP_REASON_; UNKNOWN before Linux 5.17"`
	Location        string `json:"location" help:"kernel function that dropped it"`
	Protocol        string `json:"protocol" help:"tcp, udp, icmp, ip-N for another protocol on IP, arp, or the frame's type"`
	Source          string `json:"source" help:"address; empty when the packet's headers could not be read"`
	SourcePort      uint16 `json:"source_port" help:"TCP or UDP port"`
	Destination     string `json:"destination" help:"address"`
	DestinationPort uint16 `json:"destination_port" help:"TCP or UDP port"`
	TCPFlags        string `json:"tcp_flags" help:"SYN, ACK, FIN, RST, PSH, URG, ECE, CWR joined by |"`
	TCPSeq          uint32 `json:"tcp_seq" help:"sequence number"`
	TCPAck          uint32 `json:"tcp_ack" help:"acknowledgement number"`
	SocketState     string `json:"socket_state" help:"state of the packet's socket when one is known"`
	ICMP            string `json:"icmp" help:"ICMP type/code"`
	Length          uint32 `json:"length" unit:"bytes" help:"bytes of the packet from where the kernel was in it"`
	Device          string `json:"device" help:"network interface, in its namespace"`
	Netns           uint32 `json:"netns" help:"number of the network namespace, as /proc/PID/ns/net shows it"`
	Queue           uint32 `json:"queue" help:"queue mapping of the packet"`
	Context         string `json:"context" help:"process: in a system call of the event's process; softirq or kthread: in the network stack's own time, whoever was running"`
	Interrupted     string `json:"interrupted" help:"who was running when context is not process; it need not have to do with the packet"`
}

var dropped = signal.EventOf[PacketDrop]("packet_drop", signal.AreaNetwork, signal.Warning,
	"The kernel dropped a packet for a reason that is not normal.").When(
	"A dropped packet, unless the reason or the place says that nothing was lost: any other was meant to arrive.",
	"The reasons in docs/guide/noise.md are counted with normal=\"true\" and make no event. Firewalls that drop (NETFILTER_DROP), connects to closed ports (NO_SOCKET) and broadcasts that nobody wants are events and usual on open networks: `ignore` silences them.")

// Contexts of a drop.
const (
	inProcess = "process"
	inSoftirq = "softirq"
	inKthread = "kthread"
)

// decoder turns samples into records.
type decoder struct {
	clock   func(uint64) time.Time
	reasons *reasons
	groups  *cgroup.Translator
	symbol  func(uint64) string
}

func (d *decoder) decode(raw []byte) (*signal.Record, error) {
	w, err := ring.View[bpfDropWire](raw)
	if err != nil {
		return nil, fmt.Errorf("decode packet_drop: %w", err)
	}
	p := &w.Packet
	b := &PacketDrop{
		Reason: d.reasons.of(w.Reason).name, Protocol: protocol(p), Length: w.Len,
		Device: probe.CString(w.Dev[:]), Netns: w.Netns, Queue: w.Queue, Context: inProcess,
	}
	b.addresses(p)
	if p.Ports == 2 {
		b.TCPFlags, b.TCPSeq, b.TCPAck = flagNames(p.Flags), p.Seq, p.Ack
	}
	if p.Proto == 6 {
		b.SocketState = stateName(w.State)
	}
	if b.Protocol == "icmp" && p.Ports == 0 {
		b.ICMP = fmt.Sprintf("%d/%d", p.Icmp[0], p.Icmp[1])
	}
	ips := fromLocation(probe.Stack(w.Frames, w.Stack[:]), w.Location)
	if d.symbol != nil {
		b.Location = d.symbol(w.Location)
	}
	r := &signal.Record{
		Schema: dropped, Time: d.clock(w.Ts), Suppressed: w.Suppressed, KernelIPs: ips, Body: b,
		CgroupID: d.identity(w.Cgroup),
	}
	comm := probe.CString(w.Comm[:])
	switch b.Context = d.context(w, ips); b.Context {
	case inProcess:
		r.Process = signal.Process{PID: w.Tgid, TID: w.Pid, Comm: comm}
	default:
		b.Interrupted = fmt.Sprintf("%s (pid %d)", comm, w.Tgid)
	}
	r.Title = b.title()
	b.identify(r)
	return r, nil
}

// context tells in whose time the drop happened. A softirq that runs on the
// way out of a system call has that call below it on the stack.
func (d *decoder) context(w *bpfDropWire, ips []uint64) string {
	if w.Tgid == 0 {
		return inSoftirq // the idle task
	}
	if d.symbol != nil {
		for _, ip := range ips {
			// __do_softirq before 6.10: f9ed1f7c2e26 ("softirq: rename __do_softirq()")
			if s := d.symbol(ip); s == "handle_softirqs" || s == "__do_softirq" {
				return inSoftirq
			}
		}
	}
	if w.Kthread != 0 {
		return inKthread
	}
	return inProcess
}

func (d *decoder) identity(group uint64) uint64 {
	if d.groups == nil {
		return 0
	}
	return d.groups.ID(group)
}

// fromLocation cuts off what is above the place of the drop: the tracepoint and
// the function that frees packets.
func fromLocation(ips []uint64, location uint64) []uint64 {
	if location == 0 {
		return ips
	}
	if i := slices.Index(ips, location); i >= 0 {
		return ips[i:]
	}
	return append([]uint64{location}, ips...)
}

func protocol(p *bpfHtPacket) string {
	if p.Version != 0 {
		switch p.Proto {
		case 6:
			return "tcp"
		case 17:
			return "udp"
		case 1, 58:
			return "icmp"
		}
		return "ip-" + strconv.Itoa(int(p.Proto))
	}
	switch p.Eth {
	case 0x0800, 0x86dd:
		return "ip" // and its header could not be read
	case 0x0806:
		return "arp"
	}
	return fmt.Sprintf("%#04x", p.Eth)
}

func (b *PacketDrop) addresses(p *bpfHtPacket) {
	switch p.Version {
	case 4:
		b.Source = netip.AddrFrom4([4]byte(p.Saddr[:4])).String()
		b.Destination = netip.AddrFrom4([4]byte(p.Daddr[:4])).String()
	case 6:
		b.Source, b.Destination = netip.AddrFrom16(p.Saddr).String(), netip.AddrFrom16(p.Daddr).String()
	}
	if p.Ports > 0 {
		b.SourcePort, b.DestinationPort = p.Sport, p.Dport
	}
}

// flagNames gives the bits of a TCP header, lowest first.
func flagNames(f uint8) string {
	var on []string
	for i, n := range [...]string{"FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"} {
		if f>>i&1 != 0 {
			on = append(on, n)
		}
	}
	return strings.Join(on, "|")
}

// stateName: include/net/tcp_states.h.
func stateName(s uint32) string {
	names := [...]string{"", "ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT1", "FIN_WAIT2", "TIME_WAIT", "CLOSE",
		"CLOSE_WAIT", "LAST_ACK", "LISTEN", "CLOSING", "NEW_SYN_RECV"}
	if int(s) < len(names) {
		return names[s]
	}
	return ""
}

func (b *PacketDrop) title() string {
	s := strings.ToUpper(b.Protocol) + " packet"
	if b.TCPFlags != "" {
		s += " [" + b.TCPFlags + "]"
	}
	if b.Source != "" {
		s += " from " + endpoint(b.Source, b.SourcePort) + " to " + endpoint(b.Destination, b.DestinationPort)
	} else if b.Device != "" {
		s += " on " + b.Device
	}
	s += " dropped: " + b.Reason
	if b.Location != "" {
		s += " in " + b.Location
	}
	return s
}

// listenOverflow is what a full listen queue drops connections for.
const listenOverflow = "TCP_LISTEN_OVERFLOW"

// identify says what other events may be about the same: the conversation, the
// segment, the listening socket.
func (b *PacketDrop) identify(r *signal.Record) {
	r.Brief = b.Reason
	if b.Location != "" {
		r.Brief += " in " + b.Location
	}
	src, err1 := netip.ParseAddr(b.Source)
	dst, err2 := netip.ParseAddr(b.Destination)
	if err1 != nil || err2 != nil || b.SourcePort == 0 && b.DestinationPort == 0 {
		return
	}
	r.Flow = signal.FlowOf(b.Protocol, netip.AddrPortFrom(src, b.SourcePort).String(), netip.AddrPortFrom(dst, b.DestinationPort).String(), b.Netns)
	if b.TCPSeq != 0 {
		r.Keys = append(r.Keys, fmt.Sprintf("seq:%d", b.TCPSeq))
	}
	if b.Reason == listenOverflow {
		r.Keys = append(r.Keys, fmt.Sprintf("listen:%d:%d", b.Netns, b.DestinationPort))
	}
}

func endpoint(addr string, port uint16) string {
	if port == 0 {
		return addr
	}
	if strings.Contains(addr, ":") {
		addr = "[" + addr + "]"
	}
	return addr + ":" + strconv.Itoa(int(port))
}
