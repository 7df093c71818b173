/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * memory.h - address space and pages. First touches of pages need no hook here:
 * they are an event of perf's.
 */
#pragma once

#include "ends.h"

#define PAGE_SHIFT 12
#define BRKS 16384

BPF_RODATA_VAR(u64, virtual_unit, 1 << 20)
BPF_RODATA_VAR(u32, page_shift, PAGE_SHIFT)
BPF_RODATA_VAR(s32, mmap_number, -1)
BPF_RODATA_VAR(s32, mremap_number, -1)
BPF_RODATA_VAR(s32, brk_number, -1)

struct brk {
	u64 was;
	u64 tid;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, u32);
	__type(value, struct brk);
	__uint(max_entries, BRKS);
} brks SEC(".maps");

/* Only for brk: where the heap ends before. */
SEC("raw_tp/sys_enter")
int call_begins(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *t;
	struct mm_struct *mm;
	struct brk *b;
	u32 tid, slot;

	if ((s32)ctx->args[1] != brk_number)
		return 0;
	tid = bpf_get_current_pid_tgid();
	slot = tid & (BRKS - 1);
	b = bpf_map_lookup_elem(&brks, &slot);
	if (!b)
		return 0;
	t = (struct task_struct *)bpf_get_current_task();
	mm = READ(t, mm);
	b->was = READ(mm, brk);
	b->tid = tid;
	return 0;
}

static EBPF_INLINE u64 grown(long at, s32 number, u64 result)
{
	struct brk *b;
	u32 tid, slot;
	u64 old, size;

	if (number == mmap_number)
		return SECOND_ARGUMENT(at);
	if (number == mremap_number) {
		old = SECOND_ARGUMENT(at);
		size = THIRD_ARGUMENT(at);
		return size > old ? size - old : 0;
	}
	tid = bpf_get_current_pid_tgid();
	slot = tid & (BRKS - 1);
	b = bpf_map_lookup_elem(&brks, &slot);
	if (!b || b->tid != tid || result <= b->was)
		return 0;
	return result - b->was;
}

SEC("raw_tp/sys_exit")
int call_ends(struct bpf_raw_tracepoint_args *ctx)
{
	long at = ctx->args[0];
	s64 result = ctx->args[1];
	s32 number = CALL_NUMBER(at);
	u64 bytes, page = 1UL << page_shift;

	if ((number != mmap_number && number != brk_number && number != mremap_number) || number < 0)
		return 0;
	if (result < 0 && result >= -4095)
		return 0;
	bytes = (grown(at, number, result) + page - 1) & ~(page - 1);
	if (!bytes || !happens(chance_of(bytes, virtual_unit)))
		return 0;
	take(ctx, VIRTUAL, bytes > virtual_unit ? bytes : virtual_unit);
	return 0;
}

/*
 * Pages in use. Every so many frames of physical memory one is looked at,
 * which tells when its block is given out and when it is given back, whatever
 * became of the block in between.
 */
#define PAGES 65536
#define GFP_DIRECT_RECLAIM 0x400 /* the caller may sleep, so that it is no interrupt */

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, u64);
	__type(value, u64);
	__uint(max_entries, PAGES);
} pages SEC(".maps");

BPF_RODATA_VAR(u32, page_every, 512) /* a power of two */
BPF_RODATA_VAR(u32, page_first, 0)   /* below that */

/* The number of the frame of a block that is looked at, 0 if none is. sizeof(struct page) is 64 where this is loaded. */
static EBPF_INLINE u64 frame_in(u64 page, u32 order)
{
	u64 frame = page >> 6;
	u64 ahead = (page_first - frame) & (page_every - 1);

	return ahead >> (order & 31) ? 0 : frame + ahead;
}

SEC("raw_tp/mm_page_alloc")
int page_given(struct bpf_raw_tracepoint_args *ctx)
{
	u64 page = ctx->args[0];
	u32 order = ctx->args[1];
	struct cpu *c = this_cpu();
	u64 frame, id, bytes, now;
	u32 every;

	if (!c || !page || !(ctx->args[2] & GFP_DIRECT_RECLAIM))
		return 0;
	frame = frame_in(page, order);
	if (!frame)
		return 0;
	bytes = page_every;
	if (1ULL << (order & 31) > bytes)
		bytes = 1ULL << (order & 31);
	bytes <<= page_shift;
	now = bpf_ktime_get_ns();
	every = admit(c, IN_USE, now, bytes);
	if (!every)
		return 0;
	bytes *= every;
	id = new_id(c);
	if (!send(ctx, c, IN_USE, now, id, bytes))
		return 0;
	if (bpf_map_update_elem(&pages, &frame, &id, BPF_ANY) < 0) {
		lose(c, IN_USE, FULL, bytes);
		return 0;
	}
	tell_end(IN_USE, id, bytes, 0, 0);
	return 0;
}

SEC("raw_tp/mm_page_free")
int page_back(struct bpf_raw_tracepoint_args *ctx)
{
	u64 frame = frame_in(ctx->args[0], ctx->args[1]);
	u64 *id, was;

	if (!frame)
		return 0;
	id = bpf_map_lookup_elem(&pages, &frame);
	if (!id)
		return 0;
	was = *id;
	bpf_map_delete_elem(&pages, &frame);
	tell_end(IN_USE, was, 0, 0, 0);
	return 0;
}
