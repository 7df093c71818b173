//go:build ignore
// SPDX-License-Identifier: GPL-2.0-only
/*
 * entries - hooks beside the CPUs' clocks that take stacks.
 *
 * Each decides whether it takes one, and what it is worth, and enters the
 * unwinder, a chain of tail calls that sends the stack. The chain is a copy of
 * the library's, with an array of programs and a record of its own: a clock's
 * interrupt takes its own stack in the middle of ours.
 *
 * All hooks run with preemption off, and none that takes a stack runs in an
 * interrupt: locks that spin are not looked at, and allocations only when they
 * may sleep. So they cannot nest; should they, the inner one is dropped and
 * counted. It is also what keeps them off the locks of BPF itself: a stack
 * taken while one is held would wait for it for ever. Counters of the hardware
 * are another matter, see counts.h.
 */
#if defined(__TARGET_ARCH_x86)
#define __x86_64 1
#define __x86_64__ 1
#elif defined(__TARGET_ARCH_arm64)
#define __aarch64__ 1
#endif

#include "bpfdefs.h"
#include "extmaps.h"
#include "tracemgmt.h"
#include "types.h"

#include "maps.h"
#include "kernel_types.h"
#include "take.h"

#include "waits.h"
#include "locks.h"
#include "block.h"
#include "memory.h"
#include "exec.h"
#include "counts.h"

char _license[] SEC("license") = "GPL";
