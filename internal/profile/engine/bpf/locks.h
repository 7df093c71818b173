/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * locks.h - waits for the kernel's locks that are slept for: mutexes, read-write
 * semaphores and the like. Those that spin take time on a CPU, which the CPUs'
 * clocks see; a stack taken at their end would be taken with any lock held,
 * those that taking a stack needs among them.
 */
#pragma once

#define LOCK_SLOTS 16384

struct lock_wait {
	u64 lock;
	u64 since;
	u32 tid;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, u32);
	__type(value, struct lock_wait);
	__uint(max_entries, LOCK_SLOTS);
} lock_waits SEC(".maps");

BPF_RODATA_VAR(u64, kernel_lock_ns, 10000)
BPF_RODATA_VAR(u64, kernel_lock_unit_ns, 1000000)

/* include/trace/events/lock.h */
#define LCB_F_SPIN 1
#define LCB_F_MUTEX 32

SEC("raw_tp/contention_begin")
int contended(struct bpf_raw_tracepoint_args *ctx)
{
	u32 flags = ctx->args[1];
	struct lock_wait *w;
	u32 tid, slot;

	/* A mutex is first spun for, and the owner told so: that belongs to the wait. */
	if (!flags || ((flags & LCB_F_SPIN) && !(flags & LCB_F_MUTEX)))
		return 0;
	tid = bpf_get_current_pid_tgid();
	slot = tid & (LOCK_SLOTS - 1);
	w = bpf_map_lookup_elem(&lock_waits, &slot);
	if (!w || (w->tid == tid && w->lock == ctx->args[0]))
		return 0;
	w->tid = tid;
	w->lock = ctx->args[0];
	w->since = bpf_ktime_get_ns();
	return 0;
}

SEC("raw_tp/contention_end")
int acquired(struct bpf_raw_tracepoint_args *ctx)
{
	u32 tid = bpf_get_current_pid_tgid();
	u32 slot = tid & (LOCK_SLOTS - 1);
	struct lock_wait *w = bpf_map_lookup_elem(&lock_waits, &slot);
	u64 ns, chance;

	if (!w || w->tid != tid || w->lock != ctx->args[0])
		return 0;
	ns = bpf_ktime_get_ns() - w->since;
	w->lock = 0;
	if (ns < kernel_lock_ns)
		return 0;
	chance = chance_of(ns, kernel_lock_unit_ns);
	if (!happens(chance))
		return 0;
	take_both(ctx, KERNEL_LOCK, ns > kernel_lock_unit_ns ? ns : kernel_lock_unit_ns, stands_for(chance, SURE));
	return 0;
}
