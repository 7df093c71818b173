//go:build ignore
// SPDX-License-Identifier: GPL-2.0
/*
 * limits - how many files each process has open, and how many it may; which state tasks are in.
 *
 * User space walks the processes every half a minute; nothing runs in between.
 */
#include "kernel.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>
#include "flavour.h"
#include "core_fixes.h"
#include "hook.h"
#include "cgroup.h"
#include "task.h"

#define RLIMIT_NOFILE 7

/* Tables of up to 64 words, 4096 files, are counted here; user space asks /proc about larger ones, of which there are few. */
#define WORDS 64
#define UNKNOWN 0xffffffffU

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct fdtable {
	unsigned int max_fds;
	unsigned long *open_fds;
};

struct files_struct {
	struct fdtable *fdt;
};

struct rlimit {
	unsigned long rlim_cur;
};

struct signal_struct___limits {
	struct rlimit rlim[16];
};

struct task_struct___limits {
	int exit_state;
	struct files_struct *files;
	struct signal_struct___limits *signal;
};

#pragma clang attribute pop

/* include/linux/sched.h: the lower bits of a state, the same since v4.14 */
#define TASK_INTERRUPTIBLE 1
#define TASK_STOPPED_OR_TRACED 0xc
#define EXIT_ZOMBIE 0x20

enum task_is { RUNNING, SLEEPING, WAITING, IDLE, STOPPED, ZOMBIE, TASK_STATES };

/* How many tasks a walk met in each state: user space sets it to 0 before, and walks one at a time. */
struct state_counts {
	u64 tasks[TASK_STATES];
};

const struct state_counts *_state_counts SEC(".wire") = NULL;

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct state_counts);
} states SEC(".maps");

struct process_row {
	u64 cgroup;
	u64 limit;
	u32 files; /* UNKNOWN: the table is too large */
	u32 tgid;
	u32 zombie; /* it has nothing else any more */
	u32 pad;
};

const struct process_row *_process_row SEC(".wire") = NULL;

static __always_inline u32 ones(u64 v)
{
	v -= (v >> 1) & 0x5555555555555555ULL;
	v = (v & 0x3333333333333333ULL) + ((v >> 2) & 0x3333333333333333ULL);
	v = (v + (v >> 4)) & 0x0f0f0f0f0f0f0f0fULL;
	return (v * 0x0101010101010101ULL) >> 56;
}

static __always_inline u32 count(struct files_struct *files)
{
	struct fdtable *fdt = files->fdt;
	u64 words = fdt->max_fds / 64, i;
	unsigned long *open = fdt->open_fds;
	u32 n = 0;

	barrier_var(words); /* what is compared is what bounds the loop */
	if (words > WORDS)
		return UNKNOWN;
	for (i = 0; i < WORDS && i < words; i++) {
		u64 word = 0;

		bpf_probe_read_kernel(&word, sizeof(word), open + i);
		n += ones(word);
	}
	return n;
}

static __always_inline u32 state_of(struct task_struct *t)
{
	u64 state;

	if (((struct task_struct___limits *)t)->exit_state)
		return ZOMBIE;
	state = ht_task_state(true, t);
	if (state & TASK_UNINTERRUPTIBLE)
		return state & TASK_NOLOAD ? IDLE : WAITING;
	if (state & TASK_INTERRUPTIBLE)
		return SLEEPING;
	return state & TASK_STOPPED_OR_TRACED ? STOPPED : RUNNING;
}

SEC("iter/task")
int processes(struct bpf_iter__task *ctx)
{
	struct seq_file *seq = ctx->meta->seq;
	struct task_struct *t = ctx->task;
	struct process_row r = {};
	struct task_struct___limits *l;
	struct files_struct *files;
	struct state_counts *c;
	u32 zero = 0, state;

	if (!t)
		return 0;
	state = state_of(t);
	c = bpf_map_lookup_elem(&states, &zero);
	if (c)
		c->tasks[state]++;
	if (t->pid != t->tgid)
		return 0;
	l = (void *)t;
	files = l->files;
	r.zombie = state == ZOMBIE;
	if (!r.zombie && (!t->mm || !files))
		return 0;
	r.cgroup = ht_cgroup_id(true, t);
	if (!r.zombie) {
		r.limit = l->signal->rlim[RLIMIT_NOFILE].rlim_cur;
		r.files = count(files);
	}
	r.tgid = t->tgid;
	bpf_seq_write(seq, &r, sizeof(r));
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
