/* SPDX-License-Identifier: GPL-2.0-only */
/* take.h - what all hooks share: how a stack is taken, how many may be, and what was dropped. */
#pragma once

/* What a stack is of; user space makes one type or two of each. */
enum kind {
	BLOCKED,
	RUNQUEUE,
	IO,
	IDLE,
	FUTEX_LOCK,  /* the futex's word says that it is a lock with waiters */
	FUTEX_OTHER, /* a lock of another make, or a condition variable: the names on the stack tell */
	BLOCKED_FILE,
	IO_FILE,
	KERNEL_LOCK,
	BLOCK,
	VIRTUAL,
	IN_USE,
	KINDS = 16,
};

/* Why one was not taken. */
enum reason {
	NESTED, /* another was being taken on this CPU */
	RATE,	/* there were too many of its kind */
	FULL,	/* the buffer on the way to user space, or a table, is full */
	UNSEEN, /* nothing is known of the process yet */
	CLASH,	/* two threads share a slot */
	REASONS = 8,
};

struct loss {
	u64 samples;
	u64 value;
};

/* How many there were of a kind, and how many may be taken. */
struct demand {
	u64 second; /* when it began */
	u32 seen;   /* in it */
	u32 every;  /* one in so many is taken, by the second before; 0: not known yet */
	u64 next;   /* when the bucket is full again, less the burst */
};

struct cpu {
	u64 busy;
	u64 id;
	struct demand demand[KINDS];
	struct loss lost[KINDS][REASONS];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, u32);
	__type(value, struct cpu);
	__uint(max_entries, 1);
} cpus SEC(".maps");

/* By kind: what the unwinder calls it, 0 for those that nobody wants. */
u16 origins[KINDS] __attribute__((section(".rodata.var"), used)) = {};

/* Nanoseconds between two stacks of a kind on a CPU, in the long run, and how far ahead of that a burst may be. */
BPF_RODATA_VAR(u64, interval_ns, 20000000)
BPF_RODATA_VAR(u64, burst_ns, 1000000000)

/* How much of the buffer may be used: the rest is for the CPUs' clocks. */
BPF_RODATA_VAR(u64, ring_most, 1 << 20)

#define BPF_RB_AVAIL_DATA 0
static u64 (*bpf_ringbuf_query)(void *ringbuf, u64 flags) = (void *)BPF_FUNC_ringbuf_query;
static void *(*bpf_ringbuf_reserve)(void *ringbuf, u64 size, u64 flags) = (void *)BPF_FUNC_ringbuf_reserve;
static void (*bpf_ringbuf_submit)(void *data, u64 flags) = (void *)BPF_FUNC_ringbuf_submit;

static EBPF_INLINE struct cpu *this_cpu(void)
{
	u32 zero = 0;

	return bpf_map_lookup_elem(&cpus, &zero);
}

static EBPF_INLINE bool is_wanted(u32 kind) { return origins[kind & (KINDS - 1)] != 0; }

static EBPF_INLINE void lose(struct cpu *c, u32 kind, u32 reason, u64 value)
{
	struct loss *l = &c->lost[kind & (KINDS - 1)][reason];

	l->samples++;
	l->value += value;
}

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

#define SECOND 1000000000ULL

/* Most of the doubtful waits for futexes turn out to be parked threads, which are many and nobody's concern. */
static EBPF_INLINE u64 interval_of(u32 kind) { return kind == FUTEX_OTHER ? 4 * interval_ns : interval_ns; }

/* How far a rush may be thinned before its first second is over: what is left weighs the more. */
#define MOST_AT_ONCE 16

/*
 * How many of its kind a stack would stand for if it were taken now: 0, it is
 * not. More than the rate are thinned by chance, so that the sums stay right; the
 * bucket is for the first second of a rush.
 */
static EBPF_INLINE u32 admit(struct cpu *c, u32 kind, u64 now, u64 weight)
{
	struct demand *d = &c->demand[kind & (KINDS - 1)];
	u32 every;

	if (c->busy) {
		lose(c, kind, NESTED, weight);
		return 0;
	}
	if (now - d->second > SECOND) {
		u64 most = (now - d->second) / interval_of(kind);

		d->every = d->second ? d->seen / (most + 1) + 1 : 1;
		d->second = now;
		d->seen = 0;
	}
	d->seen++;
	every = d->every;
	if (every > 1 && (u32)bpf_get_prandom_u32() % every)
		return 0;
	weight *= every;
	if (d->next + burst_ns < now)
		d->next = now - burst_ns;
	if (d->next > now) {
		if (every < MOST_AT_ONCE)
			d->every = every * 2;
		lose(c, kind, RATE, weight);
		return 0;
	}
	if (bpf_ringbuf_query(&trace_events, BPF_RB_AVAIL_DATA) > ring_most) {
		lose(c, kind, FULL, weight);
		return 0;
	}
	return every;
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

/* A number in half of a stack's value: 26 bits, and in 6 more by how much they were shifted. */
static EBPF_INLINE u64 half(u64 v)
{
	u64 shift = 0;

#pragma unroll
	for (u32 by = 32; by; by >>= 1) {
		if (v >> (25 + by)) {
			v >>= by;
			shift += by;
		}
	}
	return shift << 26 | v;
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

/* Chances are in parts of this. */
#define SURE (1ULL << 32)

/*
 * The chance that something of a size is kept: what is worth the greater of size
 * and unit is then right on average.
 */
static EBPF_INLINE u64 chance_of(u64 size, u64 unit) { return size >= unit ? SURE : (size << 32) / unit; }

static EBPF_INLINE bool happens(u64 chance) { return (u32)bpf_get_prandom_u32() < chance; }

/* How many things one stands for that both chances let pass, in parts of ONE. */
#define ONE 1024
#define MOST_THINGS (1ULL << 36) /* so that they can be multiplied with bytes */
static EBPF_INLINE u64 stands_for(u64 chance, u64 other)
{
	u64 n;

	if (!chance || !other)
		return 0; /* it has not happened */
	n = ONE * SURE / chance;
	if (n >= SURE)
		n = SURE - 1; /* a wait of a microsecond where four seconds are always kept */
	n = (n << 32) / other;
	return n < MOST_THINGS ? n : MOST_THINGS;
}
