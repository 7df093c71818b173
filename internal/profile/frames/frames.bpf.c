//go:build ignore
// SPDX-License-Identifier: GPL-2.0
/*
 * frames - what a CPU runs at each beat of its clock: the kernel's stack and the
 * user's, by frame pointers.
 *
 * It asks helpers only and reads no struct of the kernel, so it needs no BTF.
 */
#include "huatuo.h"

/*
 * The kernel walks no more than kernel.perf_event_max_stack frames, 127 unless
 * somebody has changed it.
 */
#define FRAMES 127
#define STACK_BYTES (FRAMES * 8)

struct stack_wire {
	u64 ts;
	u32 pid;
	u32 tgid;
	u32 cpu;
	u16 kernel; /* frames, the first of ips */
	u16 user;   /* those after them */
	u8 comm[16];
	u64 ips[2 * FRAMES];
};
HT_WIRE(stack_wire);

/* walk - put a stack at @ips; returns its bytes, 0 when there is none. */
static __always_inline u64 walk(void *ctx, void *ips, u64 flags)
{
	s64 n = bpf_get_stack(ctx, ips, STACK_BYTES, flags);

	if (n < 0)
		return 0;
	return n & STACK_BYTES; /* a multiple of 8 below 1024: no bit is lost, and old verifiers see the bound */
}

static __always_inline void send(void *ctx, void *e, u64 size)
{
	s64 err;

	if (ht_ring())
		err = bpf_ringbuf_output(&ht_events, e, size, ht_wake());
	else
		err = bpf_perf_event_output(ctx, &ht_events, BPF_F_CURRENT_CPU, e, size);
	if (err)
		ht_count(HT_RING_FULL);
}

SEC("perf_event")
int on_clock(void *ctx)
{
	u64 id = bpf_get_current_pid_tgid(), kernel, user;
	struct stack_wire *e;
	u32 zero = 0;

	if (!(u32)id) /* idle: the event leaves it out, except where the kernel does not */
		return 0;
	e = bpf_map_lookup_elem(&ht_scratch, &zero);
	if (!e)
		return 0;
	ht_count(HT_OBSERVED);
	kernel = walk(ctx, e->ips, 0);
	user = walk(ctx, (void *)e->ips + kernel, BPF_F_USER_STACK);
	e->ts = bpf_ktime_get_ns();
	e->pid = id;
	e->tgid = id >> 32;
	e->cpu = bpf_get_smp_processor_id();
	e->kernel = kernel / 8;
	e->user = user / 8;
	bpf_get_current_comm(e->comm, sizeof(e->comm));
	send(ctx, e, __builtin_offsetof(struct stack_wire, ips) + kernel + user);
	return 0;
}
