/* SPDX-License-Identifier: GPL-2.0 */
/* task.h - what we read of a task. */
#pragma once

#define TASK_RUNNING 0

#define TASK_UNINTERRUPTIBLE 2
#define TASK_WAKEKILL 0x100 /* woken by a signal that kills */
#define TASK_NOLOAD 0x400   /* with TASK_UNINTERRUPTIBLE: TASK_IDLE, a kernel thread that has nothing to do */

static __always_inline u64 ht_task_state(bool btf, struct task_struct *t)
{
	if (bpf_core_field_exists(t->__state))
		return HT_READ(btf, t, __state);
	struct task_struct___5_13_0 *o = (void *)t;
	long state = 0;

	bpf_core_read(&state, sizeof(state), &o->state);
	return state;
}

/* When it began, in ns since boot. */
static __always_inline u64 ht_task_start(bool btf, struct task_struct *t)
{
	if (bpf_core_field_exists(t->start_boottime))
		return HT_READ(btf, t, start_boottime);
	struct task_struct___5_4_0 *o = (void *)t;
	u64 start = 0;

	bpf_core_read(&start, sizeof(start), &o->real_start_time);
	return start;
}

static __always_inline bool ht_task_runnable(bool btf, struct task_struct *t)
{
	return ht_task_state(btf, t) == TASK_RUNNING;
}
