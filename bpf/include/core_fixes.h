/* SPDX-License-Identifier: GPL-2.0 */
/*
 * core_fixes.h - every difference between kernels that our programs meet,
 * each with the commit that made it and the first version that has it.
 */
#pragma once

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

/* 2f064a59a11f ("sched: Change task_struct::state"), v5.14: state -> __state */
struct task_struct___5_13_0 {
	long state;
};

#pragma clang attribute pop
