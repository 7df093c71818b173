package vmstat

import "huatuo/internal/signal"

// field is one metric and the lines of /proc/vmstat that add up to it: one for
// most, one per memory zone for a few.
type field struct {
	keys   []string
	scale  float64
	schema *signal.Schema
}

// count makes the field of a line that counts events or pages.
func count(key, help, read string) field {
	return field{keys: []string{key}, scale: 1, schema: &signal.Schema{
		Name: "huatuo_vmstat_" + key + "_total", Kind: signal.Metric, Type: signal.Counter, Unit: "1",
		Area: signal.AreaMemory, Scope: signal.Host, Help: help, Read: read,
	}}
}

// zones makes the field of a counter that the kernel keeps per memory zone.
func zones(prefix, help, read string) field {
	f := count(prefix, help, read)
	f.keys = nil
	for _, zone := range []string{"dma", "dma32", "normal", "high", "movable", "device"} {
		f.keys = append(f.keys, prefix+"_"+zone)
	}
	return f
}

// kibibytes makes the field of a line that counts KiB.
func kibibytes(key, help, read string) field {
	f := count(key, help, read)
	f.schema.Name, f.schema.Unit, f.scale = "huatuo_vmstat_"+key+"_bytes_total", "bytes", 1024
	return f
}

// fields are the counters worth a series, in the order of the docs. Left out
// are the gauges (nr_*: /proc/meminfo has those that matter, in bytes) and
// counters of inner workings that no reader acts on.
var fields = []field{
	count("pgfault", "Page faults, minor and major.",
		"High at little work: memory is mapped and unmapped in a loop, or a program forks much."),
	count("pgmajfault", "Page faults that had to read from a device.",
		"Each costs a disk access; more than some hundred a second slows everything: see refaults and swap."),
	count("oom_kill", "Processes that the OOM killer killed, on the host and in cgroups.",
		"Any step is an incident; the oom_kill events name the victims."),
	zones("allocstall", "Allocations that had to reclaim memory themselves, of all zones.",
		"Above 0: programs wait for memory. kswapd does not keep up, or memory is exhausted."),

	count("pgscan_kswapd", "Pages that background reclaim looked at.",
		"Background reclaim is normal on a host whose cache is full; steal/scan below 0.3 means that it works in vain."),
	count("pgsteal_kswapd", "Pages that background reclaim freed.", "Divide by pgscan_kswapd for its efficiency."),
	count("pgscan_direct", "Pages that allocating tasks had to look at themselves.",
		"Should be near 0: programs stall while they do it."),
	count("pgsteal_direct", "Pages that allocating tasks freed themselves.", "Divide by pgscan_direct for the efficiency."),
	count("pgscan_khugepaged", "Pages that the huge page daemon looked at in reclaim.", "Only with huge pages under pressure."),
	count("pgsteal_khugepaged", "Pages that the huge page daemon freed.", "Only with huge pages under pressure."),
	count("pgscan_proactive", "Pages looked at because somebody wrote memory.reclaim.", "Work of a user-space reclaimer."),
	count("pgsteal_proactive", "Pages freed because somebody wrote memory.reclaim.", "Work of a user-space reclaimer."),
	count("pgscan_direct_throttle", "Times that a task was put to sleep because reclaim could not keep up.",
		"Any step is a stall of up to seconds."),
	count("pgscan_anon", "Anonymous pages looked at by reclaim.", "Against pgscan_file: what reclaim goes for."),
	count("pgscan_file", "Page cache pages looked at by reclaim.", "Against pgscan_anon: what reclaim goes for."),
	count("pgsteal_anon", "Anonymous pages freed by reclaim, that is swapped out.", "Needs swap."),
	count("pgsteal_file", "Page cache pages freed by reclaim.", "Cheap while they do not come back as refaults."),
	count("pgactivate", "Pages moved to the active list.", "Pages that are used again."),
	count("pgdeactivate", "Pages moved to the inactive list.", "Reclaim prepares its next victims."),
	count("pgrefill", "Active pages looked at by reclaim.", "Rises when the inactive lists run dry: real pressure."),
	count("slabs_scanned", "Kernel objects looked at by reclaim.", "Directory and inode caches under pressure."),
	count("kswapd_low_wmark_hit_quickly", "Times that memory ran low again right after background reclaim had finished.",
		"Bursts of allocation: a larger vm.watermark_scale_factor helps."),
	count("kswapd_high_wmark_hit_quickly", "Times that memory fell below the high mark right after background reclaim had finished.",
		"As before, earlier."),
	count("pageoutrun", "Rounds of background reclaim.", "How often kswapd had to work."),
	count("zone_reclaim_success", "Reclaims within a NUMA node that freed enough.", "Only with vm.zone_reclaim_mode."),
	count("zone_reclaim_failed", "Reclaims within a NUMA node that did not free enough.",
		"Stalls although other nodes have memory: turn vm.zone_reclaim_mode off."),

	count("workingset_refault", "Pages read again soon after reclaim had dropped them (kernels before 5.9).",
		"Thrashing when it stays high: the working set does not fit."),
	count("workingset_refault_anon", "Anonymous pages swapped in again soon after reclaim had taken them.",
		"Thrashing on swap."),
	count("workingset_refault_file", "Page cache pages read again soon after reclaim had dropped them.",
		"Thrashing on files: programs' text and data are read from disk over and over."),
	count("workingset_activate_anon", "Refaulted anonymous pages that went straight to the active list.", "The part of refaults that hurts."),
	count("workingset_activate_file", "Refaulted page cache pages that went straight to the active list.", "The part of refaults that hurts."),
	count("workingset_restore_anon", "Refaulted anonymous pages that had been active before.", "Reclaim took what was in use."),
	count("workingset_restore_file", "Refaulted page cache pages that had been active before.", "Reclaim took what was in use."),
	count("workingset_nodereclaim", "Shadow entries of dropped pages that were reclaimed.", "The kernel forgets what it dropped: refaults are undercounted."),

	kibibytes("pgpgin", "Bytes read from block devices.", "Includes swap-in; direct I/O too."),
	kibibytes("pgpgout", "Bytes written to block devices.", "Includes swap-out; direct I/O too."),
	count("pswpin", "Pages read from swap.", "Each is a stall of a program; steady swap-in is worse than swap-out."),
	count("pswpout", "Pages written to swap.", "A burst is fine, a steady stream is a shortage."),
	count("swap_ra", "Pages of swap read ahead.", "Compare with swap_ra_hit."),
	count("swap_ra_hit", "Pages of swap read ahead that were then used.", "Low against swap_ra: lower vm.page-cluster."),
	count("zswpin", "Pages read from the compressed swap cache.", "Cheap swap-in."),
	count("zswpout", "Pages put into the compressed swap cache.", "Cheap swap-out."),
	count("zswpwb", "Pages written from the compressed swap cache to disk.", "The cache is full."),
	count("nr_dirtied", "Page cache pages that became dirty.", "The rate at which programs write."),
	count("nr_written", "Page cache pages that were written.", "Against nr_dirtied: whether the devices keep up."),
	count("nr_vmscan_write", "Pages that reclaim itself had to write.", "Reclaim waits for devices: swap, or too much dirty memory."),
	count("nr_vmscan_immediate_reclaim", "Pages under writeback that reclaim met again.", "Reclaim is faster than the disks."),
	count("nr_throttled_written", "Pages written while reclaim was throttled for it.", "Reclaim waits for writeback."),
	count("drop_pagecache", "Times that somebody dropped the page cache by hand.", "Any step: a script writes vm.drop_caches, and reads get slow after it."),
	count("drop_slab", "Times that somebody dropped directory and inode caches by hand.", "Any step: a script writes vm.drop_caches."),

	count("compact_stall", "Allocations that had to compact memory themselves.", "Stalls for the sake of huge pages or large buffers."),
	count("compact_success", "Of them, those that succeeded.", "compact_success/compact_stall is the benefit."),
	count("compact_fail", "Of them, those that failed.", "High: memory is too fragmented; consider less eager huge pages."),
	count("compact_daemon_wake", "Wake-ups of the compaction daemon.", "Background compaction."),
	count("compact_migrate_scanned", "Pages that compaction looked at to move.", "The work of compaction."),
	count("compact_free_scanned", "Pages that compaction looked at as targets.", "Far above migrate_scanned: free memory is hard to find."),
	count("compact_isolated", "Pages that compaction took for moving.", "The yield of the two above."),
	count("pgmigrate_success", "Pages moved to another place in memory.", "By compaction, NUMA balancing or hot-plug."),
	count("pgmigrate_fail", "Pages that could not be moved.", "Pinned or busy pages."),

	count("thp_fault_alloc", "Huge pages given out at a page fault.", "The benefit of transparent huge pages."),
	count("thp_fault_fallback", "Page faults that wanted a huge page and got small ones.", "High: fragmentation."),
	count("thp_collapse_alloc", "Huge pages that the daemon made of small ones.", "khugepaged at work."),
	count("thp_collapse_alloc_failed", "Huge pages that the daemon could not get.", "Fragmentation."),
	count("thp_file_alloc", "Huge pages given out for files and shared memory.", "Only with tmpfs huge= or large folios."),
	count("thp_split_page", "Huge pages split into small ones.", "Often by reclaim or by partial unmapping."),
	count("thp_split_pmd", "Mappings of huge pages split.", "Often by mprotect or partial unmapping."),
	count("thp_deferred_split_page", "Huge pages queued for splitting.", "Memory that programs freed in part only: it is held until pressure."),
	count("thp_swpout", "Huge pages swapped out whole.", "Needs swap."),
	count("thp_swpout_fallback", "Huge pages split for swapping out.", "Swap is fragmented."),

	count("numa_hit", "Pages given out on the node that was wanted.", "The normal case."),
	count("numa_miss", "Pages given out on another node because the wanted one was full.", "Above 0: remote memory, slower access."),
	count("numa_foreign", "Pages wanted on this node and given out on another.", "The same as numa_miss over all nodes."),
	count("numa_local", "Pages given out on the node of the CPU that asked.", "numa_local/(numa_local+numa_other) is the locality."),
	count("numa_other", "Pages given out on another node than that of the CPU that asked.", "High: threads run away from their memory."),
	count("numa_pte_updates", "Page table entries that NUMA balancing unmapped to see who uses them.", "Its cost."),
	count("numa_hint_faults", "Faults that NUMA balancing caused.", "Its cost; each is a small delay of a program."),
	count("numa_hint_faults_local", "Of them, those on the local node.", "Near numa_hint_faults: balancing has nothing to gain, switch it off."),
	count("numa_pages_migrated", "Pages that NUMA balancing moved.", "Its work."),
	count("pgpromote_success", "Pages moved from slow to fast memory.", "Only with memory tiers (CXL, PMEM)."),
	count("pgdemote_kswapd", "Pages moved to slow memory by background reclaim.", "Only with memory tiers."),
	count("pgdemote_direct", "Pages moved to slow memory by allocating tasks.", "Only with memory tiers; tasks wait for it."),
	count("balloon_inflate", "Pages handed back to the hypervisor.", "The host below is short of memory."),
	count("balloon_deflate", "Pages got back from the hypervisor.", "The shortage below is over."),
}
