/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * counts.h - counters of the hardware: the program runs when one overflows, and
 * the stack is worth what was counted on this CPU since it did so last.
 *
 * It enters the chain of the CPUs' clocks, not our copy, as perf lets one program
 * of its run on a CPU at a time. On most machines it runs in an interrupt that
 * cannot be masked, and so in the middle of one of our hooks, too. That may hold
 * a lock of the map of reported processes, for which the unwinder would wait for
 * ever: whatever reports a process says that it is busy. All else that it takes
 * locks of gives up when it cannot have one at once.
 */
#pragma once

/* What a counter of this CPU has counted, and how long it was meant to and did. */
struct counter {
	u64 count;
	u64 enabled;
	u64 running;
	struct loss lost[REASONS];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, u32);
	__type(value, struct counter);
	__uint(max_entries, 1);
} counters SEC(".maps");

BPF_RODATA_VAR(u16, counter_origin, 0)

struct bpf_perf_event_value {
	u64 counter;
	u64 enabled;
	u64 running;
};

static long (*bpf_perf_prog_read_value)(struct bpf_perf_event_data *ctx, struct bpf_perf_event_value *v,
					u32 size) = (void *)BPF_FUNC_perf_prog_read_value;

/* The period that has elapsed: behind the registers, which are those that a debugger sees. */
#if defined(__x86_64__)
#define SAMPLE_PERIOD(ctx) (*(u64 *)((char *)(ctx) + 168))
#elif defined(__aarch64__)
#define SAMPLE_PERIOD(ctx) (*(u64 *)((char *)(ctx) + 272))
#endif

/* What was counted since the last time. */
static EBPF_INLINE u64 counted(struct bpf_perf_event_data *ctx, struct counter *n)
{
	struct bpf_perf_event_value now = {};
	u64 count, enabled, running;

	if (bpf_perf_prog_read_value(ctx, &now, sizeof(now)))
		return SAMPLE_PERIOD(ctx);
	count = now.counter - n->count;
	enabled = (now.enabled - n->enabled) >> 10; /* so that the product below fits */
	running = (now.running - n->running) >> 10;
	n->count = now.counter;
	n->enabled = now.enabled;
	n->running = now.running;
	/* There are more events than counters, which take turns. */
	if (running && enabled > running)
		count = count * enabled / running;
	return count;
}

static EBPF_INLINE void lose_count(struct counter *n, u32 reason, u64 count)
{
	n->lost[reason].samples++;
	n->lost[reason].value += count;
}

SEC("perf_event/counter_overflows")
int counter_overflows(struct bpf_perf_event_data *ctx)
{
	u64 id = bpf_get_current_pid_tgid();
	struct cpu *c = this_cpu();
	struct counter *n;
	u32 zero = 0;
	u64 count;

	n = bpf_map_lookup_elem(&counters, &zero);
	if (!n || !c)
		return 0;
	count = counted(ctx, n);
	if (!id) /* idle */
		return 0;
	if (c->busy) {
		lose_count(n, NESTED, count);
		return 0;
	}
	if (bpf_ringbuf_query(&trace_events, BPF_RB_AVAIL_DATA) > ring_most) {
		lose_count(n, FULL, count);
		return 0;
	}
	collect_trace((struct pt_regs *)&ctx->regs, counter_origin, id >> 32, id, bpf_ktime_get_ns(), count);
	/* It does not come back when there is a stack. */
	lose_count(n, UNSEEN, count);
	return 0;
}
