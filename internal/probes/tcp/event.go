package tcp

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"

	"huatuo/internal/kern/cgroup"
	"huatuo/internal/kern/ring"
	"huatuo/internal/probe"
	"huatuo/internal/signal"
)

// Flow is both ends of a connection.
type Flow struct {
	Local      string `json:"local" help:"address of this end"`
	LocalPort  uint16 `json:"local_port" help:"port of this end"`
	Remote     string `json:"remote" help:"address of the peer"`
	RemotePort uint16 `json:"remote_port" help:"port of the peer"`
	Netns      uint32 `json:"netns" help:"number of the network namespace, as /proc/PID/ns/net shows it"`
}

// ConnectFailure is the body of a connect_failure event. Its process is the one
// that called connect.
type ConnectFailure struct {
	Flow
	Reason      string  `json:"reason" help:"refused, timed_out, unreachable, aborted (the program gave up after a second or more) or other"`
	Error       string  `json:"error" help:"what connect returned or the socket's error is, ECONNREFUSED for one; empty when aborted"`
	Elapsed     float64 `json:"elapsed" unit:"seconds" help:"since the first SYN"`
	Retransmits uint32  `json:"retransmits" help:"SYNs that were sent again"`
}

// TCPReset is the body of a tcp_reset event. It has a process only when one
// closed the connection by it; the container is that of the socket.
type TCPReset struct {
	Flow
	Direction   string  `json:"direction" help:"sent by this host or received"`
	State       string  `json:"state" help:"of the socket when it happened; close: a process ended it with data unread or unsent"`
	Reason      string  `json:"reason" help:"of a reset sent: the kernel's word without SK_RST_REASON_; UNKNOWN for one received and before Linux 6.10"`
	RTT         float64 `json:"rtt" unit:"seconds" help:"smoothed round-trip time of the connection; 0: never measured"`
	Retransmits uint32  `json:"retransmits" help:"segments that the connection had to send again in its life"`
}

var (
	connectFailed = signal.EventOf[ConnectFailure]("connect_failure", signal.AreaNetwork, signal.Warning,
		"A TCP connection could not be established.").When(
		"A connect that the other side refused or did not answer, that found no way, or that the program gave up after a second or more: what a client sees as an error.",
		"A connect that a program gives up within a second makes none: clients that race IPv4 against IPv6 drop the loser.")
	reset = signal.EventOf[TCPReset]("tcp_reset", signal.AreaNetwork, signal.Warning,
		"A reset ended a TCP connection that was in use.").When(
		"A reset that is received or sent on a connection over which data could flow: one side lost what was under way.",
		"An answer to a closed port and a refused connect are no reset of a connection. A reset that this host sends because its program closed, or that comes after one side has closed, is of severity info. Load balancers and health checks that end connections by a reset (SO_LINGER 0) are usual.")
)

// Events by the number the program gives them.
const (
	eventConnectFailure = iota
	eventResetSent
	eventResetReceived
)

type decoder struct {
	clock   func(uint64) time.Time
	reasons reasons
	groups  *cgroup.Translator
}

func (d *decoder) decode(raw []byte) (*signal.Record, error) {
	w, err := ring.View[bpfTcpWire](raw)
	if err != nil {
		return nil, fmt.Errorf("decode tcp event: %w", err)
	}
	r := &signal.Record{Time: d.clock(w.Ts), Suppressed: w.Suppressed}
	if d.groups != nil {
		r.CgroupID = d.groups.ID(w.Cgroup)
	}
	if w.Tgid != 0 {
		r.Process = signal.Process{PID: w.Tgid, TID: w.Pid, Comm: probe.CString(w.Comm[:])}
	}
	flow := flowOf(&w.Flow)
	switch w.Event {
	case eventConnectFailure:
		b := &ConnectFailure{Flow: flow, Elapsed: float64(w.Elapsed) / 1e9, Retransmits: w.Retransmits}
		b.Reason, b.Error = failureOf(w.Error)
		r.Schema, r.Body, r.Title = connectFailed, b, b.title(r.Process.Comm)
		r.Lasted, r.Verdict = time.Duration(w.Elapsed), b.verdict()
	case eventResetSent, eventResetReceived:
		b := &TCPReset{
			Flow: flow, Direction: directions[w.Event-eventResetSent], State: stateName(w.Flow.State), Reason: d.reasons.name(w.Reason),
			RTT: float64(w.SrttUs>>3) / 1e6, Retransmits: w.TotalRetransmits,
		}
		r.Schema, r.Body, r.Title, r.Severity = reset, b, b.title(), b.severity()
	default:
		return nil, fmt.Errorf("decode tcp event: unknown kind %d", w.Event)
	}
	r.Flow = flow.identity()
	return r, nil
}

// identity is what other events know the conversation by; nil when an address is unknown.
func (f *Flow) identity() *signal.Flow {
	local, err1 := netip.ParseAddr(f.Local)
	remote, err2 := netip.ParseAddr(f.Remote)
	if err1 != nil || err2 != nil {
		return nil
	}
	return signal.FlowOf("tcp", netip.AddrPortFrom(local, f.LocalPort).String(), netip.AddrPortFrom(remote, f.RemotePort).String(), f.Netns)
}

func flowOf(f *bpfHtFlow) Flow {
	l := Flow{LocalPort: f.Sport, RemotePort: f.Dport, Netns: f.Netns}
	switch f.Family {
	case unix.AF_INET:
		l.Local, l.Remote = netip.AddrFrom4([4]byte(f.Saddr[:4])).String(), netip.AddrFrom4([4]byte(f.Daddr[:4])).String()
	case unix.AF_INET6: // a socket of IPv6 may speak IPv4
		l.Local, l.Remote = netip.AddrFrom16(f.Saddr).Unmap().String(), netip.AddrFrom16(f.Daddr).Unmap().String()
	}
	return l
}

// failureOf is failure_of() of the program, and the name of the error.
func failureOf(errno int32) (reason, name string) {
	e := unix.Errno(max(errno, 0))
	name = unix.ErrnoName(e)
	switch e {
	case 0:
		return "aborted", ""
	case unix.ECONNREFUSED:
		return "refused", name
	case unix.ETIMEDOUT:
		return "timed_out", name
	case unix.EHOSTUNREACH, unix.ENETUNREACH:
		return "unreachable", name
	}
	if name == "" {
		name = strconv.Itoa(int(errno))
	}
	return "other", name
}

func (b *ConnectFailure) title(comm string) string {
	if comm == "" {
		comm = "A process"
	}
	how := map[string]string{
		"refused": "it was refused", "timed_out": "no answer", "unreachable": "the way there is closed", "aborted": "it gave up",
	}[b.Reason]
	if how == "" {
		how = b.Error
	}
	return fmt.Sprintf("%s could not connect to %s: %s after %s", comm, endpoint(b.Remote, b.RemotePort), how,
		time.Duration(b.Elapsed*1e9).Round(time.Microsecond))
}

// verdict tells what the error says of the cause; empty where it takes other
// events to know whether packets were lost, and where.
func (b *ConnectFailure) verdict() string {
	switch b.Reason {
	case "refused":
		return "an answer came: nobody listens there, or a firewall on the way rejects it"
	case "unreachable":
		return "an answer came, or this host knew: there is no way to that address"
	case "other":
		return "the kernel ended it: " + b.Error
	}
	return ""
}

// severity is less for a reset that nobody here suffers: this host sent it when
// its own program closed, or one side had closed already.
func (b *TCPReset) severity() signal.Severity {
	switch {
	case b.State == "close" && b.Direction == directions[0],
		b.State == "close_wait", b.State == "fin_wait1", b.State == "fin_wait2", b.State == "closing", b.State == "last_ack":
		return signal.Info
	}
	return signal.Warning
}

func (b *TCPReset) title() string {
	s := "Connection of " + endpoint(b.Local, b.LocalPort) + " with " + endpoint(b.Remote, b.RemotePort)
	if b.Direction == directions[1] {
		return s + " was reset by the peer in " + b.State
	}
	s += " was reset by this host in " + b.State
	if b.Reason != unknown {
		s += ": " + b.Reason
	}
	return s
}

func endpoint(addr string, port uint16) string {
	if strings.Contains(addr, ":") {
		addr = "[" + addr + "]"
	}
	return addr + ":" + strconv.Itoa(int(port))
}

func stateName[T uint16 | uint32](s T) string {
	if int(s) < len(states) {
		return states[s]
	}
	return states[0]
}

// reasons are the names of enum sk_rst_reason of the running kernel: numbers
// differ between kernels.
type reasons map[uint32]string

// unknown is the reason that the kernel does not tell.
const unknown = "UNKNOWN"

// noReason is what the program says then.
const noReason = 0xffffffff

func reasonNames(types *btf.Spec) reasons {
	rs := reasons{noReason: unknown}
	var e *btf.Enum
	if types == nil || types.TypeByName("sk_rst_reason", &e) != nil {
		return rs
	}
	for _, v := range e.Values {
		if name := strings.TrimPrefix(v.Name, "SK_RST_REASON_"); name != "MAX" {
			rs[uint32(v.Value)] = name
		}
	}
	return rs
}

func (rs reasons) name(n uint32) string {
	if s := rs[n]; s != "" {
		return s
	}
	return "REASON_" + strconv.Itoa(int(n))
}
