/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * maps.h - the unwinder's maps and variables, as the linker wants them.
 *
 * The loader puts the live unwinder's maps in the place of those here, so that
 * only their names matter, and copies the variables' values.
 */
#pragma once

#define THEIRS(map, kind, k, v)                                                                                        \
	struct map##_t {                                                                                               \
		__uint(type, kind);                                                                                    \
		__type(key, k);                                                                                        \
		__type(value, v);                                                                                      \
		__uint(max_entries, 1);                                                                                \
	} map SEC(".maps")

THEIRS(perf_progs, BPF_MAP_TYPE_PROG_ARRAY, u32, u32);
THEIRS(per_cpu_records, BPF_MAP_TYPE_PERCPU_ARRAY, int, PerCPURecord);
THEIRS(metrics, BPF_MAP_TYPE_PERCPU_ARRAY, u32, u64);
THEIRS(report_events, BPF_MAP_TYPE_PERF_EVENT_ARRAY, int, u32);
THEIRS(reported_pids, BPF_MAP_TYPE_LRU_HASH, u32, u64);
THEIRS(pid_events, BPF_MAP_TYPE_HASH, u64, bool);
THEIRS(pid_page_to_mapping_info, BPF_MAP_TYPE_LPM_TRIE, PIDPage, PIDPageMappingInfo);
THEIRS(inhibit_events, BPF_MAP_TYPE_HASH, u32, bool);
THEIRS(interpreter_offsets, BPF_MAP_TYPE_HASH, u64, OffsetRange);
THEIRS(go_procs, BPF_MAP_TYPE_HASH, pid_t, GoRuntimeOffsets);

struct trace_events_t {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} trace_events SEC(".maps");

BPF_RODATA_VAR(u32, with_debug_output, 0)
BPF_RODATA_VAR(u64, inverse_pac_mask, 0)
BPF_RODATA_VAR(u32, task_stack_offset, 0)
BPF_RODATA_VAR(u32, stack_ptregs_offset, 0)
BPF_RODATA_VAR(u64, filter_min_process_age_ns, 0)
BPF_RODATA_VAR(u32, task_group_leader_offset, 0)
BPF_RODATA_VAR(u32, task_start_time_offset, 0)
