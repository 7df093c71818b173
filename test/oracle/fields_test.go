package oracle

// meminfo is the field of /proc/meminfo that a metric is, by what its name has
// between huatuo_memory_ and _bytes.
var meminfo = map[string]string{
	"total": "MemTotal", "available": "MemAvailable", "free": "MemFree", "buffers": "Buffers", "cached": "Cached", "swap_cached": "SwapCached",
	"active": "Active", "inactive": "Inactive", "active_anonymous": "Active(anon)", "inactive_anonymous": "Inactive(anon)",
	"active_file": "Active(file)", "inactive_file": "Inactive(file)", "unevictable": "Unevictable", "mlocked": "Mlocked",
	"swap_total": "SwapTotal", "swap_free": "SwapFree", "zswap": "Zswap", "zswapped": "Zswapped", "dirty": "Dirty", "writeback": "Writeback",
	"anonymous": "AnonPages", "mapped": "Mapped", "shmem": "Shmem", "kernel_reclaimable": "KReclaimable", "slab": "Slab",
	"slab_reclaimable": "SReclaimable", "slab_unreclaimable": "SUnreclaim", "kernel_stack": "KernelStack", "page_tables": "PageTables",
	"secondary_page_tables": "SecPageTables", "commit_limit": "CommitLimit", "committed": "Committed_AS", "vmalloc": "VmallocUsed",
	"percpu": "Percpu", "hardware_corrupted": "HardwareCorrupted", "anonymous_huge": "AnonHugePages", "shmem_huge": "ShmemHugePages",
	"file_huge": "FileHugePages", "cma_total": "CmaTotal", "cma_free": "CmaFree", "hugetlb": "Hugetlb", "huge_page_size": "Hugepagesize",
	"balloon": "Balloon",
}

// devColumns are the columns of /proc/net/dev after the device's name.
var devColumns = map[string]int{
	"receive_bytes": 0, "receive_packets": 1, "receive_errors": 2, "receive_drops": 3, "receive_fifo_errors": 4, "receive_frame_errors": 5,
	"receive_compressed": 6, "receive_multicast": 7, "transmit_bytes": 8, "transmit_packets": 9, "transmit_errors": 10, "transmit_drops": 11,
	"transmit_fifo_errors": 12, "transmit_collisions": 13, "transmit_carrier_errors": 14, "transmit_compressed": 15,
}

// diskColumns are the columns of /proc/diskstats after the device's name
// (Documentation/admin-guide/iostats.rst, from 1 there): sectors are 512 bytes,
// times milliseconds.
var diskColumns = map[string]struct {
	column int
	scale  float64
}{
	"reads_total": {0, 1}, "reads_merged_total": {1, 1}, "read_bytes_total": {2, 512}, "read_seconds_total": {3, 1e-3},
	"writes_total": {4, 1}, "writes_merged_total": {5, 1}, "write_bytes_total": {6, 512}, "write_seconds_total": {7, 1e-3},
	"inflight": {8, 1}, "io_seconds_total": {9, 1e-3}, "io_weighted_seconds_total": {10, 1e-3},
	"discards_total": {11, 1}, "discards_merged_total": {12, 1}, "discard_bytes_total": {13, 512}, "discard_seconds_total": {14, 1e-3},
	"flushes_total": {15, 1}, "flush_seconds_total": {16, 1e-3},
}

// choice is a series of a metric: the value of a label tells which, or those of
// several, with spaces between.
type choice struct {
	label, value, key string
	scale             float64
}

func one(key string) []choice { return []choice{{key: key, scale: 1}} }

// by makes the choices of a label from pairs of value and field.
func by(label string, pairs ...string) []choice {
	var out []choice
	for i := 0; i < len(pairs); i += 2 {
		out = append(out, choice{label, pairs[i], pairs[i+1], 1})
	}
	return out
}

func scaled(scale float64, cs []choice) []choice {
	for i := range cs {
		cs[i].scale = scale
	}
	return cs
}

// byLabels are the other metrics of /proc.
var byLabels = map[string][]choice{
	"huatuo_context_switches_total": one("stat ctxt 0"),
	"huatuo_forks_total":            one("stat processes 0"),
	"huatuo_interrupts_total":       one("stat intr 0"),
	"huatuo_boot_time_seconds":      one("stat btime 0"),
	"huatuo_cpu_seconds_total":      scaled(0.01, by("mode", "system", "stat cpu 2", "idle", "stat cpu 3", "irq", "stat cpu 5", "softirq", "stat cpu 6", "steal", "stat cpu 7")),
	"huatuo_softirqs_total": by("vector", "hi", "stat softirq 1", "timer", "stat softirq 2", "net_tx", "stat softirq 3", "net_rx", "stat softirq 4",
		"block", "stat softirq 5", "irq_poll", "stat softirq 6", "tasklet", "stat softirq 7", "sched", "stat softirq 8", "hrtimer", "stat softirq 9", "rcu", "stat softirq 10"),
	"huatuo_load_average": by("window", "1m", "load 0", "5m", "load 1", "15m", "load 2"),

	"huatuo_tcp_segments_total":                by("direction", "receive", "Tcp:InSegs", "transmit", "Tcp:OutSegs"),
	"huatuo_tcp_segments_retransmitted_total":  one("Tcp:RetransSegs"),
	"huatuo_tcp_segments_bad_total":            one("Tcp:InErrs"),
	"huatuo_tcp_checksum_errors_total":         one("Tcp:InCsumErrors"),
	"huatuo_tcp_opens_total":                   by("kind", "active", "Tcp:ActiveOpens", "passive", "Tcp:PassiveOpens"),
	"huatuo_tcp_opens_failed_total":            one("Tcp:AttemptFails"),
	"huatuo_tcp_established_resets_total":      one("Tcp:EstabResets"),
	"huatuo_tcp_resets_transmitted_total":      one("Tcp:OutRsts"),
	"huatuo_tcp_listen_overflows_total":        one("TcpExt:ListenOverflows"),
	"huatuo_tcp_listen_drops_total":            one("TcpExt:ListenDrops"),
	"huatuo_tcp_syn_drops_total":               one("TcpExt:TCPReqQFullDrop"),
	"huatuo_tcp_syncookies_total":              by("kind", "sent", "TcpExt:SyncookiesSent", "received", "TcpExt:SyncookiesRecv", "failed", "TcpExt:SyncookiesFailed"),
	"huatuo_tcp_half_open_resets_total":        one("TcpExt:EmbryonicRsts"),
	"huatuo_tcp_timeouts_total":                one("TcpExt:TCPTimeouts"),
	"huatuo_tcp_loss_probes_total":             by("kind", "sent", "TcpExt:TCPLossProbes", "repaired", "TcpExt:TCPLossProbeRecovery"),
	"huatuo_tcp_fast_retransmits_total":        one("TcpExt:TCPFastRetrans"),
	"huatuo_tcp_slow_start_retransmits_total":  one("TcpExt:TCPSlowStartRetrans"),
	"huatuo_tcp_syn_retransmits_total":         one("TcpExt:TCPSynRetrans"),
	"huatuo_tcp_lost_retransmits_total":        one("TcpExt:TCPLostRetransmit"),
	"huatuo_tcp_spurious_timeouts_total":       one("TcpExt:TCPSpuriousRTOs"),
	"huatuo_tcp_retransmits_failed_total":      one("TcpExt:TCPRetransFail"),
	"huatuo_tcp_sack_renegings_total":          one("TcpExt:TCPSACKReneging"),
	"huatuo_tcp_duplicates_reported_total":     one("TcpExt:TCPDSACKRecv"),
	"huatuo_tcp_out_of_order_total":            one("TcpExt:TCPOFOQueue"),
	"huatuo_tcp_zero_windows_total":            by("kind", "closed", "TcpExt:TCPToZeroWindowAdv", "opened", "TcpExt:TCPFromZeroWindowAdv", "wanted", "TcpExt:TCPWantZeroWindowAdv"),
	"huatuo_tcp_window_probes_total":           one("TcpExt:TCPWinProbe"),
	"huatuo_tcp_keepalives_total":              one("TcpExt:TCPKeepAlive"),
	"huatuo_tcp_memory_pressures_total":        one("TcpExt:TCPMemoryPressures"),
	"huatuo_tcp_memory_pressure_seconds_total": scaled(1e-3, one("TcpExt:TCPMemoryPressuresChrono")),
	"huatuo_tcp_receive_pruned_total":          by("kind", "called", "TcpExt:PruneCalled", "receive_queue", "TcpExt:RcvPruned", "out_of_order", "TcpExt:OfoPruned", "collapsed", "TcpExt:TCPRcvCollapsed"),
	"huatuo_tcp_segments_unusable_total": by("cause", "zero_window", "TcpExt:TCPZeroWindowDrop", "receive_queue", "TcpExt:TCPRcvQDrop", "backlog", "TcpExt:TCPBacklogDrop",
		"out_of_order", "TcpExt:TCPOFODrop", "old_timestamp", "TcpExt:PAWSEstab", "no_memory", "TcpExt:PFMemallocDrop", "min_ttl", "TcpExt:TCPMinTTLDrop", "deferred_accept", "TcpExt:TCPDeferAcceptDrop"),
	"huatuo_tcp_aborts_total": by("cause", "data", "TcpExt:TCPAbortOnData", "close", "TcpExt:TCPAbortOnClose", "memory", "TcpExt:TCPAbortOnMemory",
		"timeout", "TcpExt:TCPAbortOnTimeout", "linger", "TcpExt:TCPAbortOnLinger", "failed", "TcpExt:TCPAbortFailed"),
	"huatuo_tcp_time_wait_overflows_total": one("TcpExt:TCPTimeWaitOverflow"),
	"huatuo_tcp_challenge_acks_total":      one("TcpExt:TCPChallengeACK"),

	"huatuo_udp_datagrams_total": by("family direction", "ipv4 receive", "Udp:InDatagrams", "ipv4 transmit", "Udp:OutDatagrams"),
	"huatuo_udp_no_ports_total":  by("family", "ipv4", "Udp:NoPorts"),
	"huatuo_udp_drops_total": by("family cause", "ipv4 receive_buffer", "Udp:RcvbufErrors", "ipv4 send_buffer", "Udp:SndbufErrors",
		"ipv4 checksum", "Udp:InCsumErrors", "ipv4 memory", "Udp:MemErrors"),
	"huatuo_ip_packets_total": by("family direction", "ipv4 receive", "Ip:InReceives", "ipv4 deliver", "Ip:InDelivers", "ipv4 forward", "Ip:ForwDatagrams", "ipv4 transmit", "Ip:OutRequests"),
	"huatuo_ip_bytes_total":   by("family direction", "ipv4 receive", "IpExt:InOctets", "ipv4 transmit", "IpExt:OutOctets"),
	"huatuo_ip_drops_total": by("family cause", "ipv4 in_header", "Ip:InHdrErrors", "ipv4 in_address", "Ip:InAddrErrors", "ipv4 in_protocol", "Ip:InUnknownProtos",
		"ipv4 in_discard", "Ip:InDiscards", "ipv4 in_no_route", "IpExt:InNoRoutes", "ipv4 in_truncated", "IpExt:InTruncatedPkts", "ipv4 out_discard", "Ip:OutDiscards",
		"ipv4 out_no_route", "Ip:OutNoRoutes", "ipv4 reassembly", "Ip:ReasmFails", "ipv4 fragmentation", "Ip:FragFails"),
	"huatuo_icmp_messages_total": by("family direction type", "ipv4 receive all", "Icmp:InMsgs", "ipv4 transmit all", "Icmp:OutMsgs",
		"ipv4 receive unreachable", "Icmp:InDestUnreachs", "ipv4 transmit unreachable", "Icmp:OutDestUnreachs"),
}
