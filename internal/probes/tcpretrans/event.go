package tcpretrans

import (
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"huatuo/internal/kern/cgroup"
	"huatuo/internal/kern/ring"
	"huatuo/internal/signal"
)

// TCPRetransmit is the body of a tcp_retransmit event. TCP sends again in its
// own time, not in that of a process, so the record has a container, by the
// socket, and no process.
type TCPRetransmit struct {
	RetransmitKind   string  `json:"retransmit_kind" help:"fast: the peer's acknowledgements showed the loss; rto: the retransmission timer ran out, or what was lost then is sent again; tlp: a probe at the end of what was to be sent; syn, synack: of the handshake; other: none of these"`
	Source           string  `json:"source" help:"address of this end"`
	SourcePort       uint16  `json:"source_port" help:"TCP port of this end"`
	Destination      string  `json:"destination" help:"address of the peer"`
	DestinationPort  uint16  `json:"destination_port" help:"TCP port of the peer"`
	SocketState      string  `json:"socket_state" help:"state of the connection"`
	Netns            uint32  `json:"netns" help:"number of the network namespace, as /proc/PID/ns/net shows it"`
	TCPSeq           uint32  `json:"tcp_seq" help:"first sequence number that is sent again; 0 for synack"`
	Length           uint32  `json:"length" unit:"bytes" help:"sequence numbers that are sent again: payload, and one each for SYN and FIN"`
	Error            string  `json:"error" help:"why the segment could not be sent: it never left this host; empty when it was, and before Linux 6.17"`
	RTTSeconds       float64 `json:"rtt_seconds" unit:"seconds" help:"smoothed round-trip time; 0 when none has been measured"`
	JitterSeconds    float64 `json:"jitter_seconds" unit:"seconds" help:"mean deviation of the round-trip time"`
	Cwnd             uint32  `json:"cwnd" help:"congestion window, in segments"`
	Ssthresh         uint32  `json:"ssthresh" help:"slow-start threshold, in segments; 2147483647: none yet"`
	MSS              uint32  `json:"mss" unit:"bytes" help:"size of a segment"`
	PacketsOut       uint32  `json:"packets_out" help:"segments that are not acknowledged"`
	LostOut          uint32  `json:"lost_out" help:"of those, taken for lost"`
	Timeouts         uint32  `json:"timeouts" help:"how often in a row the retransmission timer ran out"`
	Backoff          uint32  `json:"backoff" help:"how often in a row the timer was doubled"`
	TotalRetransmits uint32  `json:"total_retransmits" help:"segments sent again since the connection began"`
}

var retransmitted = signal.EventOf[TCPRetransmit]("tcp_retransmit", signal.AreaNetwork, signal.Info,
	"TCP sent a segment again; one event a second and connection at most.").When(
	"Any retransmission, one event a second and connection: a sample, with the count of the others in `suppressed`.",
	"Below one segment in a thousand nobody notices: the internet loses that much. A connect to a host that is down makes five, each after twice the time.")

// decoder turns samples into records. groups may be nil.
type decoder struct {
	clock  func(uint64) time.Time
	groups *cgroup.Translator
}

func (d *decoder) decode(raw []byte) (*signal.Record, error) {
	w, err := ring.View[bpfRetransmitWire](raw)
	if err != nil {
		return nil, fmt.Errorf("decode tcp_retransmit: %w", err)
	}
	if int(w.Kind) >= len(kinds) {
		return nil, fmt.Errorf("decode tcp_retransmit: unknown kind %d", w.Kind)
	}
	const us = 1e-6
	src, dst := addresses(&w.Flow)
	b := &TCPRetransmit{
		RetransmitKind: kinds[w.Kind], Source: src.String(), SourcePort: w.Flow.Sport, Destination: dst.String(), DestinationPort: w.Flow.Dport,
		SocketState: stateName(w.Flow.State), Netns: w.Flow.Netns, TCPSeq: w.Seq, Length: w.EndSeq - w.Seq,
		RTTSeconds: float64(w.SrttUs) / 8 * us, JitterSeconds: float64(w.MdevUs) / 4 * us,
		Cwnd: w.Cwnd, Ssthresh: w.Ssthresh, MSS: w.Mss, PacketsOut: w.PacketsOut, LostOut: w.LostOut,
		Timeouts: w.Timeouts, Backoff: w.Backoff, TotalRetransmits: w.Total,
	}
	if w.Error != 0 {
		b.Error = errorName(w.Error)
	}
	r := &signal.Record{Schema: retransmitted, Time: d.clock(w.Ts), Suppressed: w.Suppressed, Body: b, Title: b.title()}
	switch b.RetransmitKind {
	case "rto", "syn", "synack": // hundreds of milliseconds that somebody waited
		r.Severity = signal.Warning
	}
	if d.groups != nil {
		r.CgroupID = d.groups.ID(w.Cgroup)
	}
	r.Flow = signal.FlowOf("tcp", netip.AddrPortFrom(src, w.Flow.Sport).String(), netip.AddrPortFrom(dst, w.Flow.Dport).String(), w.Flow.Netns)
	r.Lasted = b.waited()
	if b.TCPSeq != 0 {
		r.Keys = []string{fmt.Sprintf("seq:%d", b.TCPSeq)}
	}
	if b.Error != "" {
		r.Verdict = "the segment did not leave this host when it was sent again: " + b.Error
	}
	return r, nil
}

// Times of a retransmission: TCP_RTO_MIN, TCP_TIMEOUT_INIT and TCP_RTO_MAX of the kernel.
const (
	minRTO     = 200 * time.Millisecond
	initialRTO = time.Second
	maxRTO     = 2 * time.Minute
)

// waited is about how long ago the segment was sent the time before.
func (b *TCPRetransmit) waited() time.Duration {
	rto := initialRTO
	switch b.RetransmitKind {
	case "syn", "synack":
	case "rto":
		rto = max(minRTO, time.Duration((b.RTTSeconds+4*b.JitterSeconds)*float64(time.Second)))
	default:
		return time.Duration(2 * b.RTTSeconds * float64(time.Second))
	}
	for n := b.Timeouts; n > 1 && rto < maxRTO; n-- {
		rto *= 2
	}
	return min(rto, maxRTO)
}

func addresses(f *bpfHtFlow) (src, dst netip.Addr) {
	if f.Family == unix.AF_INET6 { // a socket for both protocols has IPv4 addresses in this form
		return netip.AddrFrom16(f.Saddr).Unmap(), netip.AddrFrom16(f.Daddr).Unmap()
	}
	return netip.AddrFrom4([4]byte(f.Saddr[:4])), netip.AddrFrom4([4]byte(f.Daddr[:4]))
}

// errorName names what kept a segment back: an errno, or the queue's verdict.
func errorName(e int32) string {
	if e > 0 {
		return "dropped by the queue of the device"
	}
	if s := unix.ErrnoName(unix.Errno(-e)); s != "" {
		return s
	}
	return fmt.Sprintf("error %d", -int64(e))
}

// stateName: include/net/tcp_states.h.
func stateName(s uint16) string {
	names := [...]string{"", "ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT1", "FIN_WAIT2", "TIME_WAIT", "CLOSE",
		"CLOSE_WAIT", "LAST_ACK", "LISTEN", "CLOSING", "NEW_SYN_RECV"}
	if int(s) < len(names) {
		return names[s]
	}
	return ""
}

// what is sent again, for the title.
var what = map[string]string{
	"fast": "a lost segment", "rto": "a segment after a timeout", "tlp": "a segment as loss probe", "syn": "SYN", "synack": "SYN-ACK", "other": "a segment",
}

func (b *TCPRetransmit) title() string {
	s := fmt.Sprintf("TCP sends %s again, from %s to %s", what[b.RetransmitKind], endpoint(b.Source, b.SourcePort), endpoint(b.Destination, b.DestinationPort))
	if b.Timeouts > 1 {
		s += fmt.Sprintf(", timeout %d in a row", b.Timeouts)
	}
	if b.Error != "" {
		s += ", and cannot: " + b.Error
	}
	return s
}

func endpoint(addr string, port uint16) string {
	a, err := netip.ParseAddr(addr)
	if err != nil {
		return addr
	}
	return netip.AddrPortFrom(a, port).String()
}
