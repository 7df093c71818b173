/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * ends.h - things that begin in one place, where the stack is taken, and end in
 * another. The stack's value is a number, under which the end is told.
 */
#pragma once

struct end {
	u64 id;
	u64 value; /* of the whole */
	u64 ns;	   /* from begin to end */
	u64 bytes; /* that a request moved */
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 18);
} ends SEC(".maps");

static EBPF_INLINE u64 new_id(struct cpu *c)
{
	return (u64)bpf_get_smp_processor_id() << 44 | (++c->id & 0xfffffffffffULL);
}

static EBPF_INLINE void tell_end(u32 kind, u64 id, u64 value, u64 ns, u64 bytes)
{
	struct end *e = bpf_ringbuf_reserve(&ends, sizeof(*e), 0);
	struct cpu *c;

	if (e) {
		e->id = id;
		e->value = value;
		e->ns = ns;
		e->bytes = bytes;
		bpf_ringbuf_submit(e, BPF_RB_NO_WAKEUP);
		return;
	}
	c = this_cpu();
	if (c)
		lose(c, kind, FULL, value);
}
