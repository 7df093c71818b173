/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * block.h - requests to block devices, from the thread that makes one until it
 * is done. How long it will take is not known when its stack is taken. A request
 * is known by the bio that it was made for, which stays its first.
 */
#pragma once

#include "ends.h"

#define REQUESTS 8192

struct request_begin {
	u64 id;
	u64 since;
	u64 weight;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, u64);
	__type(value, struct request_begin);
	__uint(max_entries, REQUESTS);
} requests SEC(".maps");

/* Which argument is the bio: e8a676d61c07 ("block: simplify and extended the block_bio_merge tracepoint class"), v5.11. */
BPF_RODATA_VAR(u32, bio_argument, 0)

SEC("raw_tp/block_getrq")
int request_begins(struct bpf_raw_tracepoint_args *ctx)
{
	struct request_begin r = {};
	struct cpu *c = this_cpu();
	u64 bio;

	if (!c)
		return 0;
	/* Each load has to stay where it is: Linux 5.10 refuses a pointer that is chosen first. */
	if (bio_argument) {
		bio = ctx->args[1];
		asm volatile("/* second */" : "+r"(bio));
	} else {
		bio = ctx->args[0];
		asm volatile("/* first */" : "+r"(bio));
	}
	r.since = bpf_ktime_get_ns();
	r.weight = admit(c, BLOCK, r.since, 0);
	if (!r.weight)
		return 0;
	r.id = new_id(c);
	if (!send(ctx, c, BLOCK, r.since, r.id, 0))
		return 0;
	if (bpf_map_update_elem(&requests, &bio, &r, BPF_ANY) < 0)
		lose(c, BLOCK, FULL, 0);
	return 0;
}

/* include/linux/blk_types.h: REQ_OP_READ and REQ_OP_WRITE; others have a length of what they do not move. */
#define REQ_OP_MASK 0xff
#define REQ_OP_WRITE 1

/* Completion of a bio is traced only where there is no request: bio_clear_flag(bio, BIO_TRACE_COMPLETION) in blk_update_request(). */
SEC("raw_tp/block_rq_complete")
int request_ends(struct bpf_raw_tracepoint_args *ctx)
{
	struct request *rq = (void *)ctx->args[0];
	u64 bio = (u64)READ(rq, bio);
	struct request_begin *r = bpf_map_lookup_elem(&requests, &bio);
	u64 id, ns, weight, bytes = 0;

	if (!r)
		return 0;
	id = r->id;
	ns = bpf_ktime_get_ns() - r->since;
	weight = r->weight;
	bpf_map_delete_elem(&requests, &bio);
	if ((READ(rq, cmd_flags) & REQ_OP_MASK) <= REQ_OP_WRITE)
		bytes = READ(rq, __data_len); /* of the whole: this is the first part that is done */
	tell_end(BLOCK, id, ns * weight, ns, bytes * weight);
	return 0;
}
