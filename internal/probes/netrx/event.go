package netrx

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"huatuo/internal/kern/ring"
	"huatuo/internal/probe"
	"huatuo/internal/signal"
)

// RxLatency is the body of a net_rx_latency event. At the stages user_tcp and
// user_udp the record's process is the reader, and its user stack is where it reads.
type RxLatency struct {
	Stage           string  `json:"stage" help:"stack, tcp, user_tcp or user_udp: where the packet was when it was found to be late"`
	Waited          float64 `json:"waited" unit:"seconds" help:"since the driver handed it to the kernel"`
	Protocol        string  `json:"protocol" help:"tcp, udp, icmp, ip-N for another protocol on IP, or the frame's type"`
	Source          string  `json:"source" help:"address; empty when the packet's headers could not be read"`
	SourcePort      uint16  `json:"source_port" help:"TCP or UDP port"`
	Destination     string  `json:"destination" help:"address"`
	DestinationPort uint16  `json:"destination_port" help:"TCP or UDP port"`
	Length          uint32  `json:"length" unit:"bytes" help:"bytes of the packet from where the kernel was in it"`
	Device          string  `json:"device" help:"network interface, in its namespace; known at the stage stack"`
	Netns           uint32  `json:"netns" help:"number of the network namespace, as /proc/PID/ns/net shows it"`
}

func decode(raw []byte, clock func(uint64) time.Time) (*signal.Record, error) {
	w, err := ring.View[bpfNetrxWire](raw)
	if err != nil {
		return nil, fmt.Errorf("decode net_rx_latency: %w", err)
	}
	if int(w.Stage) >= len(stages) {
		return nil, fmt.Errorf("decode net_rx_latency: unknown stage %d", w.Stage)
	}
	p := &w.Packet
	b := &RxLatency{
		Stage: stages[w.Stage], Waited: float64(w.Waited) / 1e9, Protocol: protocol(p), Length: w.Len,
		Device: probe.CString(w.Dev[:]), Netns: w.Netns,
	}
	switch p.Version {
	case 4:
		b.Source, b.Destination = netip.AddrFrom4([4]byte(p.Saddr[:4])).String(), netip.AddrFrom4([4]byte(p.Daddr[:4])).String()
	case 6:
		b.Source, b.Destination = netip.AddrFrom16(p.Saddr).String(), netip.AddrFrom16(p.Daddr).String()
	}
	if p.Ports > 0 {
		b.SourcePort, b.DestinationPort = p.Sport, p.Dport
	}
	r := &signal.Record{
		Schema: slow, Time: clock(w.Ts), Suppressed: w.Suppressed, Body: b, CgroupID: w.Cgroup, UserIPs: probe.Stack(w.Frames, w.Stack[:]),
	}
	m := signal.Measure{Schema: delay, Labels: []string{b.Stage}, Value: b.Waited}
	r.Measures = append(r.Measures, m)
	if w.Tgid != 0 {
		r.Process = signal.Process{PID: w.Tgid, TID: w.Pid, Comm: probe.CString(w.Comm[:])}
	}
	r.Title = b.title(r.Process.Comm)
	return r, nil
}

func (b *RxLatency) title(comm string) string {
	s := strings.ToUpper(b.Protocol) + " packet"
	if b.Source != "" {
		s += " from " + endpoint(b.Source, b.SourcePort) + " to " + endpoint(b.Destination, b.DestinationPort)
	}
	waited := time.Duration(b.Waited * 1e9).Round(time.Microsecond).String()
	switch b.Stage {
	case "stack":
		return s + " reached the stack " + waited + " after the driver handed it over"
	case "tcp":
		return s + " reached its connection " + waited + " after the driver handed it over"
	}
	if comm == "" {
		comm = "a process"
	}
	return s + " waited " + waited + " until " + comm + " read it"
}

func protocol(p *bpfHtPacket) string {
	if p.Version == 0 {
		return fmt.Sprintf("%#04x", p.Eth)
	}
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

func endpoint(addr string, port uint16) string {
	if port == 0 {
		return addr
	}
	if strings.Contains(addr, ":") {
		addr = "[" + addr + "]"
	}
	return addr + ":" + strconv.Itoa(int(port))
}
