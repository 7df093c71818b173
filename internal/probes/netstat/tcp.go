package netstat

import (
	"slices"

	"huatuo/internal/signal"
)

// tcpFields are what the kernel counts of TCP, in the order of the docs.
func tcpFields() []field { return slices.Concat(tcpTraffic(), tcpLoss(), tcpShortage()) }

// tcpTraffic is what TCP does all the time.
func tcpTraffic() []field {
	segments := counter("tcp_segments", "TCP segments that came in and went out.",
		"With offloads one of these is up to 64 KiB. Retransmitted ones are not in it.", label("direction", "which way", directions...))
	opens := counter("tcp_opens", "TCP connections that were opened.", "A high rate at few connections: nobody keeps connections alive.",
		label("kind", "active: by connect; passive: accepted", "active", "passive"))
	l := func(v string) []string { return []string{v} }
	return []field{
		of(segments, l("receive"), "Tcp:InSegs").within(),
		of(segments, l("transmit"), "Tcp:OutSegs").within(),
		one(counter("tcp_segments_retransmitted", "TCP segments that were sent again.",
			"Over huatuo_tcp_segments_total{direction=\"transmit\"}: above 1 % hurts; huatuo_tcp_retransmits_total tells why."), "Tcp:RetransSegs").within(),
		one(counter("tcp_segments_bad", "TCP segments received with an error in the header.", "Should not move."), "Tcp:InErrs"),
		one(counter("tcp_checksum_errors", "TCP segments received with a wrong checksum.", "A device or a cable damages data."), "Tcp:InCsumErrors"),
		of(opens, l("active"), "Tcp:ActiveOpens"),
		of(opens, l("passive"), "Tcp:PassiveOpens"),
		one(counter("tcp_opens_failed", "TCP connections that failed before they were established.",
			"Refused or timed out, on either side; huatuo_tcp_connect_failures_total tells why for those that this host began."), "Tcp:AttemptFails"),
		one(counter("tcp_established_resets", "Established TCP connections that ended by a reset.", "Programs that die or close with data unread; a load balancer that forgets."), "Tcp:EstabResets").within(),
		one(counter("tcp_resets_transmitted", "TCP resets that this host sent.", "Beside opens_failed: somebody knocks on closed ports."), "Tcp:OutRsts").within(),
		one(gauge("tcp_connections", "TCP connections that are established or wait for the peer's close.", "A steady climb is a leak."), "Tcp:CurrEstab").within(),
	}
}

// tcpLoss is of connections that do not come about, of losses and of waiting peers.
func tcpLoss() []field {
	cookies := counter("tcp_syncookies", "SYN cookies sent, received back and refused.",
		"sent above 0: a flood of connections, or a backlog that is too small.", label("kind", "what became of it", "sent", "received", "failed"))
	probes := counter("tcp_loss_probes", "Tail loss probes, and losses that one repaired.",
		"repaired near sent: the ends of responses get lost; each costs two round trips.", label("kind", "which", "sent", "repaired"))
	windows := counter("tcp_zero_windows", "Times that a receive window closed, opened again, or should have closed.",
		"closed rising: a reader of this host is too slow for what it is sent.", label("kind", "what happened", "closed", "opened", "wanted"))
	l := func(v string) []string { return []string{v} }
	return []field{
		ext("ListenOverflows", "listen_overflows", "Connections that came while the queue of accepted ones was full.",
			"Any step: the program does not call accept fast enough, or its backlog is too small; see the event listen_overflow.").within(),
		ext("ListenDrops", "listen_drops", "SYNs and connections dropped at a listening socket, for whatever reason.",
			"More than listen_overflows: no memory, or a rate limit.").within(),
		ext("TCPReqQFullDrop", "syn_drops", "SYNs dropped because the queue of half-open connections was full.",
			"A flood without SYN cookies, or net.ipv4.tcp_max_syn_backlog too small.").within(),
		of(cookies, l("sent"), "TcpExt:SyncookiesSent"),
		of(cookies, l("received"), "TcpExt:SyncookiesRecv"),
		of(cookies, l("failed"), "TcpExt:SyncookiesFailed"),
		ext("EmbryonicRsts", "half_open_resets", "Resets received for half-open connections.", "A port scan, or clients that give up."),

		ext("TCPTimeouts", "timeouts", "Retransmission timeouts.", "Each is a stall of 200 ms or more.").within(),
		of(probes, l("sent"), "TcpExt:TCPLossProbes"),
		of(probes, l("repaired"), "TcpExt:TCPLossProbeRecovery"),
		ext("TCPFastRetrans", "fast_retransmits", "Segments sent again because later ones had been acknowledged.", "Loss that costs one round trip."),
		ext("TCPSlowStartRetrans", "slow_start_retransmits", "Segments sent again after a timeout, as the window grows.", "Follows timeouts."),
		ext("TCPSynRetrans", "syn_retransmits", "SYNs and answers to SYNs that were sent again.", "Each delays a connect by 1 s or more."),
		ext("TCPLostRetransmit", "lost_retransmits", "Retransmitted segments that were lost again.", "Heavy loss."),
		ext("TCPSpuriousRTOs", "spurious_timeouts", "Timeouts that turned out to be needless.", "Delay that varies much, not loss."),
		ext("TCPRetransFail", "retransmits_failed", "Segments that could not be sent again.", "The host's own queues are full, or it has no memory."),
		ext("TCPSACKReneging", "sack_renegings", "Times that a peer took back what it had acknowledged.", "A peer without memory, or a broken middlebox."),
		ext("TCPDSACKRecv", "duplicates_reported", "Segments of which the peer says that it had them already.", "Needless retransmits: reordering or delay."),
		ext("TCPOFOQueue", "out_of_order", "Segments that came out of order.", "Loss before this host, or several paths."),
		of(windows, l("closed"), "TcpExt:TCPToZeroWindowAdv"),
		of(windows, l("opened"), "TcpExt:TCPFromZeroWindowAdv"),
		of(windows, l("wanted"), "TcpExt:TCPWantZeroWindowAdv"),
		ext("TCPWinProbe", "window_probes", "Probes sent to peers whose receive window is closed.", "A peer's reader is too slow."),
		ext("TCPKeepAlive", "keepalives", "Keepalive probes sent.", "Idle connections; many with timeouts: peers that vanished."),
	}
}

// tcpShortage is of memory and of what TCP gives up.
func tcpShortage() []field {
	aborts := counter("tcp_aborts", "TCP connections that this host gave up.",
		"data: closed with data unread or more data coming; timeout: the peer did not answer; memory: too many orphans or no memory.",
		label("cause", "why", "data", "close", "memory", "timeout", "linger", "failed"))
	pruned := counter("tcp_receive_pruned", "Times that TCP threw data out of a receive queue for lack of memory.",
		"collapsed costs CPU; called and the queues mean that data is dropped and sent again: net.ipv4.tcp_rmem, or a slow reader.",
		label("kind", "called: had to look for room; receive_queue, out_of_order: dropped from there; collapsed: packed closer",
			"called", "receive_queue", "out_of_order", "collapsed"))
	unacked := counter("tcp_segments_unusable", "Segments that TCP dropped after it had found their connection.",
		"zero_window, receive_queue and backlog: the reader does not keep up; old_timestamp: a NAT that mixes hosts.",
		label("cause", "why", "zero_window", "receive_queue", "backlog", "out_of_order", "old_timestamp", "no_memory", "min_ttl", "deferred_accept"))
	l := func(v string) []string { return []string{v} }
	return []field{
		ext("TCPMemoryPressures", "memory_pressures", "Times that TCP came under memory pressure.",
			"Any step: huatuo_tcp_memory_bytes is near its limit, windows shrink."),
		one(metric("tcp_memory_pressure_seconds_total", signal.Counter, "seconds", "Time that TCP was under memory pressure.",
			"Rate: share of the time."), "TcpExt:TCPMemoryPressuresChrono").times(1e-3),
		of(pruned, l("called"), "TcpExt:PruneCalled"),
		of(pruned, l("receive_queue"), "TcpExt:RcvPruned"),
		of(pruned, l("out_of_order"), "TcpExt:OfoPruned"),
		of(pruned, l("collapsed"), "TcpExt:TCPRcvCollapsed"),
		of(unacked, l("zero_window"), "TcpExt:TCPZeroWindowDrop"),
		of(unacked, l("receive_queue"), "TcpExt:TCPRcvQDrop"),
		of(unacked, l("backlog"), "TcpExt:TCPBacklogDrop"),
		of(unacked, l("out_of_order"), "TcpExt:TCPOFODrop"),
		of(unacked, l("old_timestamp"), "TcpExt:PAWSEstab"),
		of(unacked, l("no_memory"), "TcpExt:PFMemallocDrop"),
		of(unacked, l("min_ttl"), "TcpExt:TCPMinTTLDrop"),
		of(unacked, l("deferred_accept"), "TcpExt:TCPDeferAcceptDrop"),
		of(aborts, l("data"), "TcpExt:TCPAbortOnData"),
		of(aborts, l("close"), "TcpExt:TCPAbortOnClose"),
		of(aborts, l("memory"), "TcpExt:TCPAbortOnMemory"),
		of(aborts, l("timeout"), "TcpExt:TCPAbortOnTimeout"),
		of(aborts, l("linger"), "TcpExt:TCPAbortOnLinger"),
		of(aborts, l("failed"), "TcpExt:TCPAbortFailed"),
		ext("TCPTimeWaitOverflow", "time_wait_overflows", "Connections closed without their TIME_WAIT because there were too many.", "net.ipv4.tcp_max_tw_buckets."),
		ext("TCPChallengeACK", "challenge_acks", "Acknowledgements sent to challenge a suspicious segment.", "Somebody guesses at connections, or a peer lost its state."),
		one(counter("tcp_congestion_marks", "Segments delivered with a mark of congestion.", "Needs ECN; over the segments delivered it is the share."), "TcpExt:TCPDeliveredCE"),
	}
}
