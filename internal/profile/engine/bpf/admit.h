/* SPDX-License-Identifier: GPL-2.0-only */
/* admit.h - how many stacks are taken, and what was dropped. */
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

/* Nanoseconds between two stacks of a kind on a CPU, in the long run, and how far ahead of that a burst may be. */
BPF_RODATA_VAR(u64, interval_ns, 20000000)
BPF_RODATA_VAR(u64, burst_ns, 1000000000)

static EBPF_INLINE void lose(struct cpu *c, u32 kind, u32 reason, u64 value)
{
	struct loss *l = &c->lost[kind & (KINDS - 1)][reason];

	l->samples++;
	l->value += value;
}

/* Whether the buffer has no room for what is not the CPUs' clocks'. */
static EBPF_INLINE bool is_full(void);

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
	if (is_full()) {
		lose(c, kind, FULL, weight);
		return 0;
	}
	return every;
}
