package checkup

import (
	"fmt"
	"strings"

	"huatuo/internal/diagnose/window"
	"huatuo/internal/signal"
)

func networkRules() []Rule {
	return append(tcpRules(), queueRules()...)
}

// tcpRules are about packets that did not arrive.
func tcpRules() []Rule {
	return []Rule{
		{
			Name: "packet_drops", Area: signal.AreaNetwork,
			What:      "packets that the kernel dropped for a reason that is not everyday",
			Threshold: "one a second: a healthy host has none for minutes; what rules of the firewall drop does not count",
			Next:      "`huatuo watch packet_drop --stacks` shows the packets, the place in the kernel and the socket.",
			Metrics:   []string{"huatuo_network_drops_total"}, Nothing: "no packet was dropped",
			check: checkDrops,
		},
		{
			Name: "tcp_retransmits", Area: signal.AreaNetwork,
			What:      "TCP segments that had to be sent again",
			Threshold: "1 % of those sent warns: throughput over a distance falls by half; 5 % is critical",
			Next:      "`huatuo watch tcp_retransmit` shows which connections, and whether this host dropped the packet.",
			Metrics:   []string{"huatuo_tcp_segments_total", "huatuo_tcp_segments_retransmitted_total"},
			check: func(f *Facts) verdict {
				sent, again := f.Sum("huatuo_tcp_segments_total", "direction=transmit"), f.Sum("huatuo_tcp_segments_retransmitted_total")
				if sent < 1000 {
					return verdict{fine: fmt.Sprintf("%s, too few to judge", many(sent, "segment"))}
				}
				share := again / sent
				return one(share, 0.01, 0.05, fmt.Sprintf("%s of %s (%s) were sent again.", number(again), many(sent, "segment"), Percent(share)))
			},
		},
		{
			Name: "listen_overflow", Area: signal.AreaNetwork,
			What:      "connections refused because a program does not accept them fast enough",
			Threshold: "any warns: a client waits a second or longer; ten a second are critical",
			Next:      "The program that listens is too slow or stuck: the event listen_overflow names it; raise its backlog and net.core.somaxconn only if it is not.",
			Metrics:   []string{"huatuo_tcp_listen_overflows_total"}, Kinds: []string{"listen_overflow"},
			check: checkListen,
		},
	}
}

// queueRules are about tables and queues that are full, and about devices.
func queueRules() []Rule {
	return []Rule{
		{
			Name: "conntrack", Area: signal.AreaNetwork,
			What:      "entries of the connection tracking table",
			Threshold: "80 % of the limit warns; at 95 % new connections are about to be dropped",
			Next:      "Raise net.netfilter.nf_conntrack_max, or do not track what needs no tracking (NOTRACK).",
			Metrics:   []string{"huatuo_conntrack_entries", "huatuo_conntrack_limit"}, Nothing: "no connections are tracked",
			check: func(f *Facts) verdict {
				n, limit := f.Max("huatuo_conntrack_entries"), f.Max("huatuo_conntrack_limit")
				if limit == 0 {
					return verdict{fine: "no connections are tracked"}
				}
				return one(n/limit, 0.8, 0.95, fmt.Sprintf("%s of %s entries are used (%s).", number(n), number(limit), Percent(n/limit)))
			},
		},
		{
			Name: "nic_errors", Area: signal.AreaNetwork,
			What:      "packets that a network device received or sent with errors",
			Threshold: "any in half a minute: a cable, a transceiver or a driver",
			Next:      "`ethtool -S DEVICE` has more; change cable or transceiver.",
			Metrics:   []string{"huatuo_netdev_receive_errors_total"}, Nothing: "there is no network device",
			check: checkNIC,
		},
		{
			Name: "softnet_drops", Area: signal.AreaNetwork,
			What:      "packets dropped because a CPU had too many in its backlog",
			Threshold: "any",
			Next:      "Raise net.core.netdev_max_backlog, or spread packets over CPUs (RSS, RPS).",
			Metrics:   []string{"huatuo_softnet_drops_total"},
			check: func(f *Facts) verdict {
				n := f.Sum("huatuo_softnet_drops_total")
				return one(n, 1, 0, fmt.Sprintf("%s dropped before the network stack saw them.", many(n, "packet")))
			},
		},
		{
			Name: "udp_drops", Area: signal.AreaNetwork,
			What:      "datagrams dropped because the program that receives is too slow, or memory is short",
			Threshold: "one a second",
			Next:      "Raise the socket's buffer (net.core.rmem_max and SO_RCVBUF), or make the program read faster: `huatuo top` may show that it waits for a CPU.",
			Metrics:   []string{"huatuo_udp_drops_total"},
			check: func(f *Facts) verdict {
				rate := f.Rate("huatuo_udp_drops_total", "cause=receive_buffer") + f.Rate("huatuo_udp_drops_total", "cause=memory")
				return one(rate, 1, 0, fmt.Sprintf("%s a second dropped at sockets.", many(rate, "datagram")))
			},
		},
	}
}

// byRule is the reason of what a rule of the firewall drops: that is what it is
// there for, and on a host that the Internet reaches it never ends.
const byRule = "NETFILTER_DROP"

func checkDrops(f *Facts) verdict {
	policy := f.Rate("huatuo_network_drops_total", "normal=false", "reason="+byRule)
	rate := f.Rate("huatuo_network_drops_total", "normal=false") - policy
	s := fmt.Sprintf("%s a second dropped for reasons that are not everyday", many(rate, "packet"))
	var reasons []string
	for _, a := range f.By("huatuo_network_drops_total", "reason", "normal=false") {
		if a.Value > 0 && len(reasons) < 3 && a.Name != byRule {
			reasons = append(reasons, fmt.Sprintf("%s %s", a.Name, number(a.Value)))
		}
	}
	if len(reasons) > 0 {
		s += ": " + strings.Join(reasons, ", ")
	}
	s += "."
	if policy > 0 {
		s += fmt.Sprintf(" Rules of the firewall dropped %s a second.", number(policy))
	}
	if unknown := f.Rate("huatuo_network_drops_total", "normal=unknown"); unknown > 0 {
		s += fmt.Sprintf(" Of %s a second this kernel does not tell why.", number(unknown))
	}
	return one(rate, 1, 0, s)
}

func checkListen(f *Facts) verdict {
	n := f.Sum("huatuo_tcp_listen_overflows_total")
	if docs := f.of("listen_overflow"); len(docs) > 0 {
		x := tell(docs, signal.Warning)
		if n/f.Seconds >= 10 {
			x.Severity = signal.Critical
		}
		x.Excess = max(n, x.Excess)
		return verdict{findings: []Finding{x}}
	}
	return one(n, 1, 10*f.Seconds, fmt.Sprintf("%s met a full queue.", many(n, "connection")))
}

func checkNIC(f *Facts) verdict {
	var v verdict
	for _, m := range []struct{ metric, what string }{
		{"huatuo_netdev_receive_errors_total", "received"}, {"huatuo_netdev_transmit_errors_total", "sent"},
	} {
		for _, s := range f.Series(m.metric) {
			if x, bad := judge(s.Value, 1, 0); bad {
				x.Subject = s.Label("device")
				x.Sentence = fmt.Sprintf("%s %s with errors.", many(s.Value, "packet"), m.what)
				v.findings = append(v.findings, x)
			}
		}
	}
	if docs := f.of("nic"); len(docs) > 0 {
		v.findings = append(v.findings, tell(docs, signal.Warning))
	}
	v.fine = fmt.Sprintf("no errors on %s", many(float64(len(f.Series("huatuo_netdev_receive_errors_total"))), "device"))
	return v
}

// workloadsOf is a list of workloads for a sentence.
func workloadsOf(ws []window.Workload) string {
	var names []string
	for _, w := range ws[:min(3, len(ws))] {
		names = append(names, w.String())
	}
	if more := len(ws) - 3; more > 0 {
		names = append(names, fmt.Sprintf("%d more", more))
	}
	return strings.Join(names, ", ")
}
