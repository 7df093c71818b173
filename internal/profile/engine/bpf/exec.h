/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * exec.h - processes that become other programs.
 *
 * The unwinder looks at a process again when it finds code that it knows
 * nothing of. A program that lies where the one before it lay, as those do that
 * are linked to a fixed address, would for ever be unwound by the tables of that
 * one: what starts containers is such a program, and so are interpreters.
 */
#pragma once

SEC("raw_tp/sched_process_exec")
int executed(struct bpf_raw_tracepoint_args *ctx)
{
	u64 id = bpf_get_current_pid_tgid();
	struct cpu *c = this_cpu();

	if (!c || !pid_information(id >> 32))
		return 0;
	c->busy = 1; /* see counts.h */
	report_pid(ctx, id, RATELIMIT_ACTION_RESET);
	c->busy = 0;
	return 0;
}
