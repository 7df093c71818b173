package main

// cores is the divisor of a container's use: its limit, or the host's CPUs.
const cores = "(huatuo_container_cpu_limit_cores{C} or 0 * huatuo_container_cpu_usage_seconds_total{C} + on (job, instance) group_left () huatuo_cpus)"

const (
	window  = "over 5 minutes; 2.x took the time between two scrapes"
	patched = "2.x reads it from a file that only its authors' kernel has"
)

// table lists what HUATUO 2.x exposes.
func table() []group {
	return []group{
		{"cpu", cpuRows()},
		{"memory", memoryRows()},
		{"host-memory", hostMemoryRows()},
		{"network", networkRows()},
		{"sockets", socketRows()},
		{"netstat", netstatRows()},
		{"io", ioRows()},
		{"system", systemRows()},
	}
}

func cpuRows() []row {
	const (
		runq   = "classic histograms: the bounds are 15.6 and 62.5 ms, and zone 1 is empty; native ones: 10, 20 and 50 ms, interpolated"
		softnt = "of the host, without cpuid. Classic histograms: the bounds are 15, 61 and 977 µs; native ones: 10, 100 and 1000 µs, interpolated"
	)
	runqZones := []zone{{"0", "0.01", "", "0.015625"}, {"0.01", "0.02", "", ""}, {"0.02", "0.05", "0.015625", "0.0625"}, {"0.05", highest, "0.0625", highest}}
	softZones := []zone{
		{"0", "0.00001", "", "1.52587890625e-05"}, {"0.00001", "0.0001", "1.52587890625e-05", "6.103515625e-05"},
		{"0.0001", "0.001", "6.103515625e-05", "0.0009765625"}, {"0.001", highest, "0.0009765625", highest},
	}
	return concat(
		[]row{
			{old: "cpu_util_usr", expr: `100 * sum without (mode) (rate(huatuo_cpu_seconds_total{mode=~"user|nice"}[5m])) / huatuo_cpus`, note: window},
			{old: "cpu_util_sys", expr: `100 * sum without (mode) (rate(huatuo_cpu_seconds_total{mode=~"system|irq|softirq"}[5m])) / huatuo_cpus`, note: window},
			{old: "cpu_util_total", expr: `100 * sum without (mode) (rate(huatuo_cpu_seconds_total{mode=~"user|nice|system|irq|softirq"}[5m])) / huatuo_cpus`, note: window},
			{old: "cpu_util_container_usr", expr: `100 * sum without (mode) (rate(huatuo_container_cpu_seconds_total{mode="user", C}[5m])) / ` + cores, note: window},
			{old: "cpu_util_container_sys", expr: `100 * sum without (mode) (rate(huatuo_container_cpu_seconds_total{mode="system", C}[5m])) / ` + cores, note: window},
			{old: "cpu_util_container_total", expr: `100 * rate(huatuo_container_cpu_usage_seconds_total{C}[5m]) / ` + cores, note: window},
			{old: "cpu_util_container_cores", expr: cores},
			{old: "cpu_stat_container_nr_throttled", expr: "huatuo_container_cpu_throttled_periods_total{C}"},
			{old: "cpu_stat_container_throttled_time", expr: "1e9 * huatuo_container_cpu_throttled_seconds_total{C}"},
			{old: "cpu_stat_container_burst_time", expr: "1e9 * huatuo_container_cpu_burst_seconds_total{C}"},
		},
		absent("only the time is kept", "cpu_stat_container_nr_bursts"),
		absent("see huatuo_container_runqueue_wait_seconds, which needs no sched_schedstats", "cpu_stat_container_wait_sum_percent"),
		absent(patched, "cpu_stat_container_wait_rate", "cpu_stat_container_inner_wait_rate", "cpu_stat_container_exter_wait_rate", "cpu_stat_container_throttle_wait_rate"),
		same("loadavg_load1", `huatuo_load_average{window="1m"}`, "loadavg_load5", `huatuo_load_average{window="5m"}`, "loadavg_load15", `huatuo_load_average{window="15m"}`),
		[]row{{old: "loadavg_container_nr_uninterruptible", expr: "sum without (wait) (huatuo_container_tasks_uninterruptible{C})", note: "on cgroup v2 also"}},
		absent("huatuo_container_runqueue_wait_seconds tells whether tasks wait", "loadavg_container_nr_running"),
		zones("runqlat_latency", "huatuo_runqueue_wait_seconds", "", "kind", runq, nil, runqZones...),
		zones("runqlat_container_latency", "huatuo_container_runqueue_wait_seconds", "C", "", runq, nil, runqZones...),
		zones("softirq_latency", "huatuo_softirq_wait_seconds", `vector="net_rx"`, "", softnt, map[string]string{"type": "NET_RX"}, softZones...),
		zones("softirq_latency", "huatuo_softirq_wait_seconds", `vector="net_tx"`, "", softnt, map[string]string{"type": "NET_TX"}, softZones...),
	)
}

func memoryRows() []row {
	events := func(names ...string) []row {
		var rows []row
		for _, n := range names {
			rows = append(rows, row{old: "memory_events_container_" + n, expr: `sum without (event) (huatuo_container_memory_events_total{event="` + n + `", C})`})
		}
		return rows
	}
	stall := func(kind string) string {
		return `1000 * (sum without (kind) (huatuo_reclaim_seconds_sum{kind="` + kind + `"}) or histogram_sum(sum without (kind) (huatuo_reclaim_seconds{kind="` + kind + `"})))`
	}
	const memcg = `sum without (kind) (huatuo_container_reclaim_seconds_count{kind="memcg", C})` +
		` or histogram_count(sum without (kind) (huatuo_container_reclaim_seconds{kind="memcg", C}))`
	return concat(
		[]row{
			{old: "memory_free_allocpages_stall", expr: stall("direct"), note: "milliseconds, as 2.x made it (its pages say nanoseconds)"},
			{old: "memory_free_compaction_stall", expr: stall("compaction"), note: "milliseconds, likewise"},
			{old: "memory_reclaim_container_directstall", expr: memcg},
		},
		absent(patched, "memory_others_container_directstall_time", "memory_others_container_asyncreclaim_time", "memory_others_container_local_direct_reclaim_time"),
		events("low", "high", "max", "oom", "oom_kill", "oom_group_kill"),
		same(
			"memory_vmstat_container_file_dirty", "huatuo_container_memory_dirty_bytes{C}",
			"memory_vmstat_container_file_writeback", "huatuo_container_memory_writeback_bytes{C}",
			"memory_vmstat_container_shmem", "huatuo_container_memory_shmem_bytes{C}",
			"memory_vmstat_container_shmem_thp", `huatuo_container_memory_huge_bytes{type="shmem", C}`,
			"memory_vmstat_container_unevictable", "huatuo_container_memory_unevictable_bytes{C}",
		),
		absent("huatuo_container_memory_anon_bytes and …_file_bytes are their sums, …_working_set_bytes what counts",
			"memory_vmstat_container_active_anon", "memory_vmstat_container_active_file",
			"memory_vmstat_container_inactive_anon", "memory_vmstat_container_inactive_file"),
		absent("huatuo_container_memory_reclaim_scanned_pages_total and …_reclaimed_pages_total are their sums",
			"memory_vmstat_container_pgscan_direct", "memory_vmstat_container_pgscan_kswapd", "memory_vmstat_container_pgsteal_direct", "memory_vmstat_container_pgsteal_kswapd",
			"memory_vmstat_container_pgdeactivate", "memory_vmstat_container_pgrefill"),
	)
}

func hostMemoryRows() []row {
	return concat(
		pages(
			"memory_vmstat_nr_free_pages", "huatuo_memory_free_bytes",
			"memory_vmstat_nr_active_anon", "huatuo_memory_active_anonymous_bytes",
			"memory_vmstat_nr_inactive_anon", "huatuo_memory_inactive_anonymous_bytes",
			"memory_vmstat_nr_active_file", "huatuo_memory_active_file_bytes",
			"memory_vmstat_nr_inactive_file", "huatuo_memory_inactive_file_bytes",
			"memory_vmstat_nr_dirty", "huatuo_memory_dirty_bytes",
			"memory_vmstat_nr_writeback", "huatuo_memory_writeback_bytes",
			"memory_vmstat_nr_mlock", "huatuo_memory_mlocked_bytes",
			"memory_vmstat_nr_shmem", "huatuo_memory_shmem_bytes",
			"memory_vmstat_nr_slab_reclaimable", "huatuo_memory_slab_reclaimable_bytes",
			"memory_vmstat_nr_slab_unreclaimable", "huatuo_memory_slab_unreclaimable_bytes",
			"memory_vmstat_nr_unevictable", "huatuo_memory_unevictable_bytes",
		),
		same(
			"memory_vmstat_numa_pages_migrated", "huatuo_vmstat_numa_pages_migrated_total",
			"memory_vmstat_pgdeactivate", "huatuo_vmstat_pgdeactivate_total",
			"memory_vmstat_pgrefill", "huatuo_vmstat_pgrefill_total",
			"memory_vmstat_pgscan_direct", "huatuo_vmstat_pgscan_direct_total",
			"memory_vmstat_pgscan_direct_throttle", "huatuo_vmstat_pgscan_direct_throttle_total",
			"memory_vmstat_pgscan_kswapd", "huatuo_vmstat_pgscan_kswapd_total",
			"memory_vmstat_pgsteal_direct", "huatuo_vmstat_pgsteal_direct_total",
			"memory_vmstat_pgsteal_kswapd", "huatuo_vmstat_pgsteal_kswapd_total",
		),
		absent("huatuo_vmstat_allocstall_total is their sum",
			"memory_vmstat_allocstall_device", "memory_vmstat_allocstall_dma", "memory_vmstat_allocstall_dma32", "memory_vmstat_allocstall_movable", "memory_vmstat_allocstall_normal"),
		absent("settings of the kernel, not what happens", "memory_vmstat_nr_dirty_threshold", "memory_vmstat_nr_dirty_background_threshold"),
		absent("huatuo_memory_shmem_huge_bytes has the size", "memory_vmstat_nr_shmem_hugepages", "memory_vmstat_nr_shmem_pmdmapped"),
		absent("only FUSE writes there", "memory_vmstat_nr_writeback_temp"),
		same(
			"memory_buddyinfo_blocks", "huatuo_memory_free_blocks",
			"memory_numa_numa_hit_pages_total", `huatuo_numa_allocations_total{result="hit"}`,
			"memory_numa_numa_miss_pages_total", `huatuo_numa_allocations_total{result="miss"}`,
			"memory_numa_numa_foreign_pages_total", `huatuo_numa_allocations_total{result="foreign"}`,
			"memory_numa_interleave_hit_pages_total", `huatuo_numa_allocations_total{result="interleave"}`,
			"memory_numa_local_node_pages_total", `huatuo_numa_allocations_total{result="local"}`,
			"memory_numa_other_node_pages_total", `huatuo_numa_allocations_total{result="other"}`,
		),
	)
}

func networkRows() []row {
	return concat(
		[]row{{old: "arp_total", expr: `huatuo_neighbor_entries{family="ipv4"}`}},
		absent("the kernel's own count is of all network namespaces together", "arp_entries", "arp_container_entries"),
		same(
			"netdev_receive_bytes_total", "huatuo_netdev_receive_bytes_total",
			"netdev_receive_packets_total", "huatuo_netdev_receive_packets_total",
			"netdev_receive_errors_total", "huatuo_netdev_receive_errors_total",
			"netdev_receive_dropped_total", "huatuo_netdev_receive_drops_total",
			"netdev_receive_fifo_total", "huatuo_netdev_receive_fifo_errors_total",
			"netdev_receive_frame_total", "huatuo_netdev_receive_frame_errors_total",
			"netdev_receive_compressed_total", "huatuo_netdev_receive_compressed_total",
			"netdev_receive_multicast_total", "huatuo_netdev_receive_multicast_total",
			"netdev_transmit_bytes_total", "huatuo_netdev_transmit_bytes_total",
			"netdev_transmit_packets_total", "huatuo_netdev_transmit_packets_total",
			"netdev_transmit_errors_total", "huatuo_netdev_transmit_errors_total",
			"netdev_transmit_dropped_total", "huatuo_netdev_transmit_drops_total",
			"netdev_transmit_fifo_total", "huatuo_netdev_transmit_fifo_errors_total",
			"netdev_transmit_colls_total", "huatuo_netdev_transmit_collisions_total",
			"netdev_transmit_carrier_total", "huatuo_netdev_transmit_carrier_errors_total",
			"netdev_transmit_compressed_total", "huatuo_netdev_transmit_compressed_total",
		),
		absent("devices are those of the host", "netdev_container_receive_…", "netdev_container_transmit_…"),
		absent("see huatuo_netdev_driver_errors_total and huatuo_devlink_trap_packets_total, which say why", "netdev_hw_rx_dropped", "netdev_hw_rx_dropped_total"),
		same(
			"netdev_qdisc_backlog", "huatuo_qdisc_backlog_bytes",
			"netdev_qdisc_current_queue_length", "huatuo_qdisc_length",
			"netdev_qdisc_bytes_total", "huatuo_qdisc_bytes_total",
			"netdev_qdisc_packets_total", "huatuo_qdisc_packets_total",
			"netdev_qdisc_drops_total", "huatuo_qdisc_drops_total",
			"netdev_qdisc_overlimits_total", "huatuo_qdisc_overlimits_total",
			"netdev_qdisc_requeues_total", "huatuo_qdisc_requeues_total",
		),
		renamed("prio", "priority",
			"netdev_dcb_pfc_received_total", `huatuo_netdev_pause_frames_total{direction="receive", priority!="all"}`,
			"netdev_dcb_pfc_send_total", `huatuo_netdev_pause_frames_total{direction="transmit", priority!="all"}`,
		),
		renamed("master", "device",
			"bonding_slaves", "huatuo_bond_slaves",
			"bonding_slaves_up", "huatuo_bond_slaves_up",
			"bonding_slave_up", "huatuo_bond_slave_up",
			"bonding_slave_link_failures_total", "huatuo_bond_slave_link_failures_total",
		),
	)
}

func socketRows() []row {
	return concat(
		pages("tcp_memory_limit_pages", "huatuo_tcp_memory_limit_bytes", "tcp_memory_usage_pages", "huatuo_tcp_memory_bytes"),
		same("tcp_memory_usage_bytes", "huatuo_tcp_memory_bytes", "tcp_memory_usage_percent", "100 * huatuo_tcp_memory_bytes / huatuo_tcp_memory_limit_bytes"),
		same(
			"sockstat_sockets_used", "huatuo_sockets",
			"sockstat_TCP_inuse", `huatuo_sockets_in_use{family="ipv4", protocol="tcp"}`,
			"sockstat_UDP_inuse", `huatuo_sockets_in_use{family="ipv4", protocol="udp"}`,
			"sockstat_RAW_inuse", `huatuo_sockets_in_use{family="ipv4", protocol="raw"}`,
			"sockstat_TCP6_inuse", `huatuo_sockets_in_use{family="ipv6", protocol="tcp"}`,
			"sockstat_UDP6_inuse", `huatuo_sockets_in_use{family="ipv6", protocol="udp"}`,
			"sockstat_RAW6_inuse", `huatuo_sockets_in_use{family="ipv6", protocol="raw"}`,
			"sockstat_TCP_orphan", "huatuo_tcp_orphans",
			"sockstat_TCP_tw", "huatuo_tcp_time_wait",
			"sockstat_TCP_alloc", "huatuo_tcp_sockets_allocated",
			"sockstat_FRAG_memory", `huatuo_ip_fragments_memory_bytes{family="ipv4"}`,
			"sockstat_FRAG6_memory", `huatuo_ip_fragments_memory_bytes{family="ipv6"}`,
			"sockstat_container_sockets_used", "huatuo_container_sockets{C}",
			"sockstat_container_TCP_tw", "huatuo_container_tcp_time_wait{C}",
		),
		pages("sockstat_TCP_mem", "huatuo_tcp_memory_bytes", "sockstat_UDP_mem", "huatuo_udp_memory_bytes"),
		[]row{{old: "sockstat_container_TCP_inuse", expr: "huatuo_container_tcp_connections{C}", note: "connections that are established or wait to be closed; sockets that listen are not among them"}},
		absent("the kernel counts them for all network namespaces together", "sockstat_container_TCP_alloc", "sockstat_container_TCP_orphan"),
		absent("rare in containers", "sockstat_container_UDP_inuse", "sockstat_container_RAW_inuse", "sockstat_container_FRAG_inuse", "sockstat_container_FRAG_memory"),
		absent("next to nobody uses UDP-Lite", "sockstat_UDPLITE_inuse", "sockstat_container_UDPLITE_inuse"),
		absent("their memory is what runs out", "sockstat_FRAG_inuse", "sockstat_FRAG6_inuse"),
	)
}

func netstatRows() []row {
	return concat(
		tcpExt(
			"ListenOverflows", "huatuo_tcp_listen_overflows_total",
			"ListenDrops", "huatuo_tcp_listen_drops_total",
			"TCPReqQFullDrop", "huatuo_tcp_syn_drops_total",
			"SyncookiesSent", `huatuo_tcp_syncookies_total{kind="sent"}`,
			"SyncookiesRecv", `huatuo_tcp_syncookies_total{kind="received"}`,
			"SyncookiesFailed", `huatuo_tcp_syncookies_total{kind="failed"}`,
			"EmbryonicRsts", "huatuo_tcp_half_open_resets_total",
			"TCPTimeouts", "huatuo_tcp_timeouts_total",
			"TCPLossProbes", `huatuo_tcp_loss_probes_total{kind="sent"}`,
			"TCPLossProbeRecovery", `huatuo_tcp_loss_probes_total{kind="repaired"}`,
			"TCPFastRetrans", "huatuo_tcp_fast_retransmits_total",
			"TCPSlowStartRetrans", "huatuo_tcp_slow_start_retransmits_total",
			"TCPSynRetrans", "huatuo_tcp_syn_retransmits_total",
			"TCPLostRetransmit", "huatuo_tcp_lost_retransmits_total",
			"TCPSpuriousRTOs", "huatuo_tcp_spurious_timeouts_total",
			"TCPRetransFail", "huatuo_tcp_retransmits_failed_total",
			"TCPSACKReneging", "huatuo_tcp_sack_renegings_total",
			"TCPDSACKRecv", "huatuo_tcp_duplicates_reported_total",
			"TCPOFOQueue", "huatuo_tcp_out_of_order_total",
			"TCPToZeroWindowAdv", `huatuo_tcp_zero_windows_total{kind="closed"}`,
			"TCPFromZeroWindowAdv", `huatuo_tcp_zero_windows_total{kind="opened"}`,
			"TCPWantZeroWindowAdv", `huatuo_tcp_zero_windows_total{kind="wanted"}`,
			"TCPWinProbe", "huatuo_tcp_window_probes_total",
			"TCPKeepAlive", "huatuo_tcp_keepalives_total",
			"TCPMemoryPressures", "huatuo_tcp_memory_pressures_total",
			"TCPMemoryPressuresChrono", "1000 * huatuo_tcp_memory_pressure_seconds_total",
			"PruneCalled", `huatuo_tcp_receive_pruned_total{kind="called"}`,
			"RcvPruned", `huatuo_tcp_receive_pruned_total{kind="receive_queue"}`,
			"OfoPruned", `huatuo_tcp_receive_pruned_total{kind="out_of_order"}`,
			"TCPRcvCollapsed", `huatuo_tcp_receive_pruned_total{kind="collapsed"}`,
			"TCPZeroWindowDrop", `huatuo_tcp_segments_unusable_total{cause="zero_window"}`,
			"TCPRcvQDrop", `huatuo_tcp_segments_unusable_total{cause="receive_queue"}`,
			"TCPBacklogDrop", `huatuo_tcp_segments_unusable_total{cause="backlog"}`,
			"TCPOFODrop", `huatuo_tcp_segments_unusable_total{cause="out_of_order"}`,
			"PAWSEstab", `huatuo_tcp_segments_unusable_total{cause="old_timestamp"}`,
			"PFMemallocDrop", `huatuo_tcp_segments_unusable_total{cause="no_memory"}`,
			"TCPMinTTLDrop", `huatuo_tcp_segments_unusable_total{cause="min_ttl"}`,
			"TCPDeferAcceptDrop", `huatuo_tcp_segments_unusable_total{cause="deferred_accept"}`,
			"TCPAbortOnData", `huatuo_tcp_aborts_total{cause="data"}`,
			"TCPAbortOnClose", `huatuo_tcp_aborts_total{cause="close"}`,
			"TCPAbortOnMemory", `huatuo_tcp_aborts_total{cause="memory"}`,
			"TCPAbortOnTimeout", `huatuo_tcp_aborts_total{cause="timeout"}`,
			"TCPAbortOnLinger", `huatuo_tcp_aborts_total{cause="linger"}`,
			"TCPAbortFailed", `huatuo_tcp_aborts_total{cause="failed"}`,
			"TCPTimeWaitOverflow", "huatuo_tcp_time_wait_overflows_total",
			"TCPChallengeACK", "huatuo_tcp_challenge_acks_total",
		),
		same(
			"netstat_container_TcpExt_ListenOverflows", "huatuo_container_tcp_listen_overflows_total{C}",
			"netstat_container_TcpExt_ListenDrops", "huatuo_container_tcp_listen_drops_total{C}",
			"netstat_container_TcpExt_TCPReqQFullDrop", "huatuo_container_tcp_syn_drops_total{C}",
			"netstat_container_TcpExt_TCPTimeouts", "huatuo_container_tcp_timeouts_total{C}",
		),
		absent("about 70 more fields that say nothing about loss or delay (fast path hits, corking, delivery counts, fast open, PLB …)", "netstat_TcpExt_…"),
		absent("a container has those four; huatuo_container_tcp_retransmits_total and huatuo_container_tcp_resets_total say more than the rest", "netstat_container_TcpExt_…"),
	)
}

func ioRows() []row {
	const native = "only where Prometheus keeps native histograms: classic bounds do not cut there. The disk has its name, not its number"
	ranges := []zone{
		{"0.02", "0.03", "", ""}, {"0.03", "0.05", "", ""}, {"0.05", "0.1", "", ""},
		{"0.1", "0.2", "", ""}, {"0.2", "0.4", "", ""}, {"0.4", highest, "", ""},
	}
	return concat(
		relabel("disk", "device", zones("iolatency_blkdisk_q2c", "huatuo_block_io_total_seconds", "", "op", native, nil, ranges...)),
		relabel("disk", "device", zones("iolatency_blkdisk_d2c", "huatuo_block_io_device_seconds", "", "op", native, nil, ranges...)),
		zones("iolatency_container_blkdisk_q2c", "huatuo_container_block_io_total_seconds", "C", "op", "only where Prometheus keeps native histograms; of all disks together", nil, ranges...),
		absent("device time is kept per disk", "iolatency_container_blkdisk_d2c"),
		absent("not observed", "iolatency_blkdisk_freeze"),
		same(
			"diskio_read_requests_total", "huatuo_disk_reads_total",
			"diskio_write_requests_total", "huatuo_disk_writes_total",
			"diskio_read_bytes_total", "huatuo_disk_read_bytes_total",
			"diskio_written_bytes_total", "huatuo_disk_write_bytes_total",
			"diskio_read_time_seconds_total", "huatuo_disk_read_seconds_total",
			"diskio_write_time_seconds_total", "huatuo_disk_write_seconds_total",
			"diskio_io_in_progress", "huatuo_disk_inflight",
		),
		[]row{
			{old: "diskio_disk_iowait_percent", expr: `100 * sum without (mode) (rate(huatuo_cpu_seconds_total{mode="iowait"}[5m])) / huatuo_cpus`, note: window},
			{old: "mountpoint_perm_ro", expr: "huatuo_filesystem_read_only", note: "of mounts with a disk or a server; 2.x has those that its configuration names"},
		},
	)
}

func systemRows() []row {
	ras := func(kind, sources string) row {
		return row{old: "ras_hw_total", expr: `sum without (source, severity, where) (huatuo_hardware_errors_total{source=~"` + sources + `"})`, labels: map[string]string{"type": kind}}
	}
	return concat(
		[]row{ras("edac", "memory"), ras("aer", "pcie"), ras("mce", "machine_check"), ras("acpi", "firmware|memory_log|arm_processor"),
			{old: "ras_hw_total", expr: "sum without (package) (huatuo_thermal_package_throttles_total)", labels: map[string]string{"type": "thr"}}},
		same("softlockup_total", `huatuo_kernel_reports_total{kind="soft_lockup"}`),
		[]row{{old: "hungtask_total", expr: `huatuo_signals_total{name="hung_task"}`, note: "also those that the agent saw before the kernel's own limit"}},
		absent("of other vendors' libraries", "metax_gpu_…", "mthreads_gpu_…", "ascend npu_…"),
		absent("see huatuo_agent_bpf_run_ratio", "bpf_prog_…"),
	)
}
