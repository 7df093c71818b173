/* SPDX-License-Identifier: GPL-2.0 */
/*
 * core_fixes.h - every difference between kernels that our programs meet,
 * each with the commit that made it and the first version that has it.
 */
#pragma once

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

/* cf25e24db61c ("time: Rename tsk->real_start_time to ->start_boottime"), v5.5 */
struct task_struct___5_4_0 {
	u64 real_start_time;
};

/* 2f064a59a11f ("sched: Change task_struct::state"), v5.14: state -> __state */
struct task_struct___5_13_0 {
	long state;
};

/*
 * bcf9033e5449 ("sched: move CPU field back into thread_info if THREAD_INFO_IN_TASK=y"),
 * v5.16: cpu -> thread_info.cpu. Some kernels before have both, and use the first.
 */
struct task_struct___5_15_0 {
	unsigned int cpu;
};

/*
 * "sched/fair: Switch to task based throttle model", v6.18: a group without quota
 * is not taken off the CPU as a whole, but each task of it, when it leaves the kernel
 */
struct task_struct___6_18_0 {
	bool throttled;
};

/*
 * 67c0496e87d1 ("kernfs: convert kernfs_node->id from union kernfs_node_id to u64"),
 * v5.5: before, the inode number is half of the id, the rest counts its uses
 */
union kernfs_node_id {
	struct {
		u32 ino;
		u32 generation;
	};
	u64 id;
};

struct kernfs_node___5_4_0 {
	union kernfs_node_id id;
};

/* f3fa33acca9f ("block: remove the ->rq_disk field in struct request"), v5.17: rq_disk -> q->disk */
struct request___5_16_0 {
	struct gendisk *rq_disk;
};

/* 309dca309fc3 ("block: store a block_device pointer in struct bio"), v5.12: bi_disk -> bi_bdev->bd_disk */
struct bio___5_11_0 {
	struct gendisk *bi_disk;
};

/* f1a7941243c1 ("mm: convert mm's rss stats into percpu_counter"), v6.2: one struct -> four counters */
struct mm_rss_stat {
	atomic_long_t count[4];
};

struct mm_struct___6_1_0 {
	struct mm_rss_stat rss_stat;
};

/*
 * "mm/vmscan: drop may_writepage and classzone_idx from direct reclaim begin
 * template", v5.2: (order, may_writepage, gfp, classzone_idx) -> (order, gfp).
 * BTF of these kernels does not have the arguments, but what the tracepoint
 * records.
 */
struct trace_event_raw_mm_vmscan_direct_reclaim_begin_template___5_1_0 {
	int may_writepage;
};

/* 8520e224f547 ("bpf, cgroups: Fix cgroup v2 fallback on v1/v2 mixed mode"), v5.15: val -> cgroup */
struct sock_cgroup_data___5_14_0 {
	u64 val; /* a struct cgroup * with two flags; bit 0 says that it is something else */
};

#pragma clang attribute pop

/*
 * Tracepoints whose arguments changed. Stable kernels got some of these
 * changes as well, so their BTF is asked, not their version.
 *
 * a54895fa057c ("block: remove the request_queue to argument request based
 * tracepoints"), v5.11: block_rq_insert, _issue, _requeue (q, rq) -> (rq)
 * e8a676d61c07 ("block: simplify and extend the block_bio_merge tracepoint
 * class"), v5.11: block_bio_backmerge, _frontmerge (q, rq, bio) -> (bio)
 *
 * c504e5c2f964 ("net: skb: introduce kfree_skb_reason()"), v5.17: kfree_skb
 * (skb, location) -> (skb, location, reason)
 * c53795d48ee8 ("net: add rx_sk to trace_kfree_skb"), v6.11: (skb, location,
 * reason) -> (skb, location, reason, rx_sk), which may be NULL
 *
 * ad892e912b84 ("tcp: trace retransmit failures in tcp_retransmit_skb"),
 * v6.17: tcp_retransmit_skb (sk, skb) -> (sk, skb, err), and it fires for a
 * segment that could not be sent as well
 *
 * "mm: compaction: cleanup the compaction trace events", v5.18:
 * mm_compaction_begin (zone_start, migrate_pfn, free_pfn, zone_end, sync) ->
 * (cc, zone_start, zone_end, sync); _end likewise, each with a status at its end
 *
 * "mm: vmscan: add cgroup IDs to vmscan tracepoints", v7.0:
 * mm_vmscan_direct_reclaim_begin and _memcg_reclaim_begin (order, gfp) ->
 * (gfp, order, memcg)
 *
 * "exit: move and extend sched_process_exit() tracepoint", v6.16:
 * sched_process_exit (task) -> (task, group_dead). Before, signal->live tells:
 * it is 0 once the last thread is on its way out, but two threads that end at
 * once may both see that
 *
 * 72ba14deb40a ("mm: update mark_victim tracepoints fields"), v6.9: mark_victim
 * (pid) -> (task, uid)
 *
 * 05954511b73e ("RAS: Report all ARM processor CPER information to userspace"),
 * v6.19 and stable kernels: arm_event (proc) -> (proc, pei, pei_len, ctx,
 * ctx_len, oem, oem_len, sev, cpu)
 *
 * "PCI/AER: Add TLP header information to tracepoint", v5.0: aer_event
 * (dev_name, status, severity) -> (dev_name, status, severity,
 * tlp_header_valid, tlp)
 *
 * "rstreason: make it work in trace world", v6.10: tcp_send_reset (sk, skb) ->
 * (sk, skb, reason); with "trace: tcp: fully support trace_tcp_send_reset" of
 * the same version sk may be NULL
 */
