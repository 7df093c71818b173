/* SPDX-License-Identifier: GPL-2.0 */
/* task.h - what we read of a task. */
#pragma once

#define TASK_RUNNING 0

static __always_inline bool ht_task_runnable(bool btf, struct task_struct *t)
{
	if (bpf_core_field_exists(t->__state))
		return HT_READ(btf, t, __state) == TASK_RUNNING;
	struct task_struct___5_13_0 *o = (void *)t;
	long state = 0;

	bpf_core_read(&state, sizeof(state), &o->state);
	return state == TASK_RUNNING;
}
