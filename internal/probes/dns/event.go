package dns

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"huatuo/internal/kern/cgroup"
	"huatuo/internal/kern/ring"
	"huatuo/internal/probe"
	"huatuo/internal/signal"
)

// DNSFailure is the body of a dns_failure event. Its process is the one that
// asked; a resolver of its own on the host asks for others.
type DNSFailure struct {
	Reason  string  `json:"reason" help:"timeout, slow, or the server's answer: servfail, refused, formerr, notimp, other"`
	Name    string  `json:"name" help:"that was asked for; ends in … when it is too long to be kept"`
	Type    string  `json:"type" help:"of record that was asked for: A, AAAA, SRV, or TYPEn"`
	Elapsed float64 `json:"elapsed" unit:"seconds" help:"since the first packet of the query"`
	Retries uint32  `json:"retries" help:"packets of the query that were sent after the first"`
	Server  string  `json:"server" help:"address of the name server, as the packet left"`
	Client  string  `json:"client" help:"address that asked"`
	Port    uint16  `json:"port" help:"of the client"`
	ID      uint16  `json:"id" help:"of the query"`
	Netns   uint32  `json:"netns" help:"number of the network namespace, as /proc/PID/ns/net shows it"`
}

var failed = signal.EventOf[DNSFailure]("dns_failure", signal.AreaNetwork, signal.Warning,
	"A DNS query failed, got no answer, or took long.").When(
	"An answer with a failure (SERVFAIL, REFUSED and the like), none for `timeout` (5s), after which the C library asks again, or one after `slow` (1s), which users notice.",
	"NXDOMAIN is an answer and makes none: search domains make many.")

type decoder struct {
	clock  func(uint64) time.Time
	groups *cgroup.Translator
}

func (d *decoder) decode(raw []byte) (*signal.Record, error) {
	w, err := ring.View[bpfDnsWire](raw)
	if err != nil {
		return nil, fmt.Errorf("decode dns_failure: %w", err)
	}
	reason := rcode(w.Rcode)
	if w.Rcode == 0 || w.Rcode == 3 {
		reason = "slow"
	}
	r := d.record(&w.Key, &w.Query, w.Ts, reason)
	r.Suppressed = w.Suppressed
	return r, nil
}

// record makes the event of a query at the time ts of the kernel's clock.
func (d *decoder) record(k *bpfQueryKey, q *bpfQuery, ts uint64, reason string) *signal.Record {
	b := &DNSFailure{Reason: reason, Retries: q.Retries, Port: k.Port, ID: k.Id, Netns: k.Netns}
	if ts > q.Ts {
		b.Elapsed = float64(ts-q.Ts) / 1e9
	}
	b.Name, b.Type = question(q.Question[:min(int(q.Len), len(q.Question))])
	if k.Family == unix.AF_INET6 {
		b.Server, b.Client = netip.AddrFrom16(k.Server).String(), netip.AddrFrom16(k.Client).String()
	} else {
		b.Server, b.Client = netip.AddrFrom4([4]byte(k.Server[:4])).String(), netip.AddrFrom4([4]byte(k.Client[:4])).String()
	}
	r := &signal.Record{Schema: failed, Time: d.clock(ts), Body: b, CgroupID: d.workload(q.Cgroup)}
	if q.Tgid != 0 {
		r.Process = signal.Process{PID: q.Tgid, TID: q.Pid, Comm: probe.CString(q.Comm[:])}
	}
	r.Title = b.title()
	b.identify(r)
	return r
}

// identify names the conversation where packets of it may have been lost.
func (b *DNSFailure) identify(r *signal.Record) {
	client, err1 := netip.ParseAddr(b.Client)
	server, err2 := netip.ParseAddr(b.Server)
	if err1 != nil || err2 != nil || b.Reason != "timeout" && b.Retries == 0 {
		return
	}
	r.Flow = signal.FlowOf("udp", netip.AddrPortFrom(client, b.Port).String(), netip.AddrPortFrom(server, serverPort).String(), b.Netns)
	r.Lasted = time.Duration(b.Elapsed * 1e9)
}

func (d *decoder) workload(group uint64) uint64 {
	if d.groups == nil {
		return 0
	}
	return d.groups.ID(group)
}

// serverPort is DNS_PORT of the program.
const serverPort = 53

func (b *DNSFailure) title() string {
	s := "DNS query for " + b.Name + " " + b.Type + " to " + b.Server
	took := time.Duration(b.Elapsed * 1e9).Round(100 * time.Microsecond).String()
	switch b.Reason {
	case "timeout":
		return s + " has no answer after " + took
	case "slow":
		return s + " took " + took
	}
	return s + " failed: " + b.Reason + " after " + took
}

// question reads the first question: the labels of a name, then its type. What is
// not a letter, a digit or one of -_* is escaped as in RFC 1035. It is length-safe.
func question(b []byte) (name, typ string) {
	var s strings.Builder
	for {
		if len(b) == 0 {
			return s.String() + "…", ""
		}
		n := int(b[0])
		b = b[1:]
		if n == 0 {
			break
		}
		if n > 63 { // a pointer makes no sense in a first name
			return s.String() + "…", ""
		}
		label := b[:min(n, len(b))]
		for _, c := range label {
			if c == '-' || c == '_' || c == '*' || c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z' {
				s.WriteByte(c)
			} else {
				fmt.Fprintf(&s, "\\%03d", c)
			}
		}
		if len(label) < n {
			return s.String() + "…", ""
		}
		s.WriteByte('.')
		b = b[n:]
	}
	if s.Len() == 0 {
		s.WriteByte('.')
	}
	if len(b) < 2 {
		return s.String(), ""
	}
	return s.String(), typeName(int(b[0])<<8 | int(b[1]))
}

func typeName(n int) string {
	names := map[int]string{1: "A", 2: "NS", 5: "CNAME", 6: "SOA", 12: "PTR", 15: "MX", 16: "TXT", 28: "AAAA", 33: "SRV", 64: "SVCB", 65: "HTTPS", 255: "ANY"}
	if s := names[n]; s != "" {
		return s
	}
	return "TYPE" + strconv.Itoa(n)
}
