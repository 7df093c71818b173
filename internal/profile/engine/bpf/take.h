/* SPDX-License-Identifier: GPL-2.0-only */
/* take.h - what all hooks share: how a stack is taken. */
#pragma once

#include "admit.h"
#include "weigh.h"

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, u32);
	__type(value, struct cpu);
	__uint(max_entries, 1);
} cpus SEC(".maps");

/* By kind: what the unwinder calls it, 0 for those that nobody wants. */
u16 origins[KINDS] __attribute__((section(".rodata.var"), used)) = {};

/* How much of the buffer may be used: the rest is for the CPUs' clocks. */
BPF_RODATA_VAR(u64, ring_most, 1 << 20)

#define BPF_RB_AVAIL_DATA 0
static u64 (*bpf_ringbuf_query)(void *ringbuf, u64 flags) = (void *)BPF_FUNC_ringbuf_query;
static void *(*bpf_ringbuf_reserve)(void *ringbuf, u64 size, u64 flags) = (void *)BPF_FUNC_ringbuf_reserve;
static void (*bpf_ringbuf_submit)(void *data, u64 flags) = (void *)BPF_FUNC_ringbuf_submit;

static EBPF_INLINE bool is_full(void) { return bpf_ringbuf_query(&trace_events, BPF_RB_AVAIL_DATA) > ring_most; }

static EBPF_INLINE struct cpu *this_cpu(void)
{
	u32 zero = 0;

	return bpf_map_lookup_elem(&cpus, &zero);
}

static EBPF_INLINE bool is_wanted(u32 kind) { return origins[kind & (KINDS - 1)] != 0; }

/* Takes the stack of the current thread which is in the kernel; the hook's own registers do not matter. Returns 0 or UNSEEN. */
static __attribute__((noinline)) int unwind(void *ctx, u32 origin, u64 now, u64 value)
{
	u64 id = bpf_get_current_pid_tgid();
	u32 pid = id >> 32;
	PerCPURecord *record;
	int unwinder = PROG_UNWIND_STOP;
	ErrorCode error = ERR_OK;
	PIDPageMappingInfo *info;
	GoRuntimeOffsets *go;
	struct pt_regs regs;
	bool is_user = false;
	long at;

	at = get_task_pt_regs((struct task_struct *)bpf_get_current_task());
	if (!at || bpf_probe_read_kernel(&regs, sizeof(regs), (void *)at))
		error = ERR_NATIVE_READ_KERNELMODE_REGS;
	else
		is_user = ptregs_is_usermode(&regs); /* else a kernel thread */
	info = pid_information(pid);
	if (is_user && !info) {
		if (report_pid(ctx, id, RATELIMIT_ACTION_DEFAULT))
			increment_metric(metricID_NumProcNew);
		return UNSEEN;
	}
	record = get_pristine_per_cpu_record();
	if (!record)
		return 0;
	record->trace.origin = origin;
	record->trace.pid = pid;
	record->trace.tid = id;
	record->trace.ktime = now;
	record->trace.value = value;
	bpf_get_current_comm(&record->trace.comm, sizeof(record->trace.comm));
	push_kernel_frames(ctx, &record->trace);
	if (is_user && info) {
		go = bpf_map_lookup_elem(&go_procs, &pid);
		if (go)
			record->goOffsets = *go;
		record->usesAnonymousMappings = pid_uses_anonymous_mappings(info);
		error = copy_state_regs(&record->state, &regs, true);
		if (!error)
			error = get_next_unwinder_after_native_frame(record, &unwinder);
	}
	record->state.unwind_error = error;
	tail_call(ctx, unwinder);
	return 0;
}

/* Takes the stack of what was admitted; returns whether it did. */
static EBPF_INLINE bool send(void *ctx, struct cpu *c, u32 kind, u64 now, u64 value, u64 weight)
{
	int not;

	kind &= KINDS - 1;
	c->busy = 1;
	not = unwind(ctx, origins[kind], now, value);
	c->busy = 0;
	if (not== UNSEEN) {
		lose(c, kind, UNSEEN, weight);
		return false;
	}
	c->demand[kind].next += interval_of(kind);
	return true;
}

static EBPF_INLINE void take(void *ctx, u32 kind, u64 value)
{
	struct cpu *c = this_cpu();
	u64 now = bpf_ktime_get_ns();
	u32 every;

	if (!c)
		return;
	every = admit(c, kind, now, value);
	if (every)
		send(ctx, c, kind, now, value * every, value * every);
}

/* The same for what has a value of two types. */
static EBPF_INLINE void take_both(void *ctx, u32 kind, u64 value, u64 other)
{
	struct cpu *c = this_cpu();
	u64 now = bpf_ktime_get_ns();
	u32 every;

	if (!c)
		return;
	every = admit(c, kind, now, value);
	if (every)
		send(ctx, c, kind, now, half(value * every) << 32 | half(other * every), value * every);
}
