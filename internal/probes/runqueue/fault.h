/* SPDX-License-Identifier: GPL-2.0 */
/*
 * fault.h - page faults in which a thread sleeps for too long.
 *
 * How long it slept sched_switch knows, as of all sleeps; the kernel's stack of
 * the thread, and the address that it touched, are there when it gets its CPU
 * back. The program's stack nobody can tell but in the thread itself: a software
 * event of perf at the end of a major fault, which no fault without a sleep pays
 * for. So the event is sent from there, and where there was none (the fault was
 * no major one, a signal made the thread try again, or perf is closed) when the
 * thread gives up its CPU for the next time.
 *
 * A fault is known by how many its thread has had before: the kernel counts it
 * when it is over. A fault may sleep several times.
 */
#pragma once
#include "crash.h"

HT_CONST(u64, fault_ns, 100000000);
HT_CONST(u64, page_fault_stall_period_ns, 100000000);
HT_CONST(u64, page_fault_stall_burst, 10);

#define FAULTS 256 /* threads in a slow fault at once; two that share a slot lose one event */

struct fault {
	u64 slept; /* ns; 0: no fault, or told already */
	u64 longest;
	u64 had;   /* faults that the thread has had before */
	u64 major; /* of these */
	u32 pid;
	u32 sleeps;
	u32 io;	    /* whether one was for I/O */
	s32 frames; /* bytes, negative: errno */
	u64 known;  /* whether address is */
	u64 address;
	struct ht_place place;
	struct ht_regs regs;
	u64 stack[FRAMES]; /* of the longest sleep */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, FAULTS);
	__type(key, u32);
	__type(value, struct fault);
} faults SEC(".maps");

struct page_fault_stall_wire {
	u64 what; /* PAGE_FAULT_STALL */
	u64 ts;
	u64 slept; /* ns */
	u64 longest;
	u64 suppressed;
	u64 cgroup;
	u64 address;
	u32 known; /* whether address is */
	u32 pid;
	u32 tgid;
	u32 sleeps;
	u32 io;
	u32 major;
	s32 frames;	 /* bytes, negative: errno */
	s32 user_frames; /* bytes, negative: errno */
	u8 comm[16];
	struct ht_place place;
	struct ht_regs regs;
	u64 stack[FRAMES];
	u64 user[FRAMES];
};
HT_WIRE(page_fault_stall_wire);

static __always_inline u64 major_faults(bool btf, struct task_struct *t) { return HT_READ(btf, t, maj_flt); }

static __always_inline u64 all_faults(bool btf, struct task_struct *t)
{
	return HT_READ(btf, t, min_flt) + major_faults(btf, t);
}

static __always_inline struct fault *fault_of(u32 pid)
{
	u32 slot = pid & (FAULTS - 1);

	return bpf_map_lookup_elem(&faults, &slot);
}

#ifndef HT_LEGACY
HT_CONST(u32, page_shift, 12);

#define SCAN 192 /* words below a thread's registers: what handles a fault needs 70 of them */

#define TRIES 8 /* what only looks like it is rare */

struct scan {
	u64 words[SCAN];
	/* The last words that may be it, and where they are. */
	u64 at;
	u64 vma;
	u64 pgoff;
	u64 address;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct scan);
} scans SEC(".maps");

static __always_inline struct scan *scan_here(void)
{
	u32 zero = 0;

	return bpf_map_lookup_elem(&scans, &zero);
}

/*
 * The two below are global functions, which the verifier walks once and not at
 * each call. Numbers are all that those of Linux before 5.13 can be given.
 */

/* Whether the words found are in a mapping of @mm and belong together; then they are of the fault of @pid. */
__noinline int fits(u32 pid, u64 mm)
{
	struct scan *s = scan_here();
	struct fault *f = fault_of(pid);
	struct vm_area_struct *v;
	u64 start, first, address;
	struct file *file;

	if (!s || !f)
		return 0;
	v = (void *)s->vma;
	address = s->address;
	start = BPF_CORE_READ(v, vm_start);
	first = BPF_CORE_READ(v, vm_pgoff);
	file = BPF_CORE_READ(v, vm_file);
	if ((u64)BPF_CORE_READ(v, vm_mm) != mm || address < start || address >= BPF_CORE_READ(v, vm_end) ||
	    s->pgoff != first + ((address - start) >> HT_GET(page_shift)))
		return 0;
	f->known = 1;
	f->address = address;
	if (!file)
		return 1;
	f->place.offset = address - start + (first << HT_GET(page_shift));
	ht_name_place(&f->place, file);
	return 1;
}

/*
 * next_words - find the next words below s->at that may be what find_address
 * looks for. No function is called in the loop: Linux 6.1 takes that for a loop
 * without an end.
 */
__noinline int next_words(void)
{
	u64 page, in = (1ULL << HT_GET(page_shift)) - 1;
	struct scan *s = scan_here();
	u64 at, good;
	int i;

	if (!s)
		return 0;
	at = s->at;
	for (i = SCAN - 5; i >= 0; i--) {
		page = s->words[i + 3];
		/* One branch a word: with more the verifier does not come to an end. */
		good = ht_less(i, at) & (s->words[i] >> 63) & (1 - ht_equal(page, 0)) &
		       ht_equal(page & (in | 0xffULL << 56), 0);
		barrier_var(good);
		if (!good)
			continue;
		s->at = i;
		s->vma = s->words[i];
		s->pgoff = s->words[i + 2];
		s->address = s->words[i + 4];
		if ((s->address & ~in) != page)
			s->address = page;
		return 1;
	}
	return 0;
}

/*
 * find_address - find what @t touched in the kernel's own note of it, struct
 * vm_fault, which lies in the stack of @t above all that the fault waits for.
 * In all kernels its words are: mapping, flags, page in the file, address, and
 * since 5.17 the address within the page. Words that only look like that do not
 * fit each other and the mapping.
 */
static __always_inline void find_address(u32 pid, struct task_struct *t, void *regs)
{
	struct scan *s = scan_here();
	u64 mm = (u64)HT_READ(false, t, mm); /* read by a helper it is a number */
	int i;

	if (!s || bpf_probe_read_kernel(s->words, sizeof(s->words), regs - sizeof(s->words)))
		return;
	s->at = SCAN;
#pragma unroll
	for (i = 0; i < TRIES; i++)
		if (!next_words() || fits(pid, mm))
			return;
}
#endif

/* Stack, registers and address of @t, which is about to run. */
static __always_inline void picture(struct fault *f, bool btf, struct task_struct *t)
{
	f->frames = -95; /* EOPNOTSUPP: bpf_get_task_stack wants a trusted task */
#ifndef HT_LEGACY
	if (!btf)
		return;
	f->frames = bpf_get_task_stack(t, f->stack, sizeof(f->stack), 0);
	if (bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_task_pt_regs)) {
		void *regs = (void *)bpf_task_pt_regs(t);

		ht_copy_regs(&f->regs, regs);
		if (!f->known)
			find_address(f->pid, t, regs);
	}
#endif
}

/* slept_in_fault - @t gets its CPU back. Returns whether the fault has taken too long by now. */
static __always_inline bool slept_in_fault(bool btf, struct task_struct *t, u32 pid, u32 kind, u64 ns)
{
	struct fault *f = fault_of(pid);
	u64 had = all_faults(btf, t);

	if (!f)
		return false;
	if (f->pid != pid || f->had != had || !f->slept) {
		f->slept = f->longest = 0;
		f->pid = pid;
		f->had = had;
		f->major = major_faults(btf, t);
		f->sleeps = f->io = 0;
		f->known = f->address = 0;
		__builtin_memset(&f->place, 0, sizeof(f->place));
	}
	f->slept += ns;
	f->sleeps++;
	f->io |= kind == FAULT_IO;
	if (ns > f->longest)
		f->longest = ns;
	if (f->slept < HT_GET(fault_ns))
		return false;
	if (f->longest == ns)
		picture(f, btf, t);
	return true;
}

/* An event of @f, of which the caller fills in what it knows besides; NULL when it may not be sent. */
static __always_inline struct page_fault_stall_wire *fault_event(struct fault *f, struct task_struct *t)
{
	struct page_fault_stall_wire *e;
	u64 now = bpf_ktime_get_ns();
	s64 suppressed;

	suppressed = ht_admit(1, now, HT_GET(page_fault_stall_period_ns), HT_GET(page_fault_stall_burst));
	if (suppressed < 0)
		return NULL;
	e = ht_reserve(sizeof(*e));
	if (!e)
		return NULL;
	e->what = PAGE_FAULT_STALL;
	e->ts = now;
	e->suppressed = suppressed;
	e->slept = f->slept;
	e->longest = f->longest;
	e->sleeps = f->sleeps;
	e->io = f->io;
	e->frames = f->frames;
	e->user_frames = -2; /* ENOENT: it is past */
	e->known = f->known;
	e->address = f->address;
	e->pid = f->pid;
	e->tgid = HT_READ(false, t, tgid);
	e->major = major_faults(false, t) != f->major;
	e->cgroup = ht_cgroup_id(false, t);
	bpf_probe_read_kernel(e->comm, sizeof(e->comm), t->comm);
	bpf_probe_read_kernel(&e->place, sizeof(e->place), &f->place);
	bpf_probe_read_kernel(&e->regs, sizeof(e->regs), &f->regs);
	bpf_probe_read_kernel(e->stack, sizeof(e->stack), f->stack);
	return e;
}

/* fault_past - @prev gives the CPU up that it had after a sleep in a slow fault: what nobody told of so far is told now. */
static __always_inline void fault_past(void *ctx, bool btf, struct task_struct *prev, u32 pid, u32 sleeps_for)
{
	bool again = sleeps_for == FAULT_IO || sleeps_for == FAULT_OTHER;
	struct page_fault_stall_wire *e;
	struct fault *f = fault_of(pid);

	if (!f || f->pid != pid || f->slept < HT_GET(fault_ns))
		return;
	if (again && f->had == all_faults(btf, prev)) /* it is not over */
		return;
	e = fault_event(f, prev);
	f->slept = 0;
	if (e)
		ht_submit(ctx, e, sizeof(*e));
}

/* A major fault of current is over. */
SEC("perf_event/page_faults_maj") int page_faults_maj(struct bpf_perf_event_data *ctx)
{
	struct task_struct *t = (void *)bpf_get_current_task();
	u32 pid = bpf_get_current_pid_tgid();
	struct page_fault_stall_wire *e;
	struct fault *f = fault_of(pid);

	if (!f || f->pid != pid || f->slept < HT_GET(fault_ns) || f->had + 1 != all_faults(false, t))
		return 0;
	e = fault_event(f, t);
	f->slept = 0;
	if (!e)
		return 0;
	e->address = ctx->addr;
	e->known = 1;
	e->user_frames = bpf_get_stack(ctx, e->user, sizeof(e->user), BPF_F_USER_STACK);
	ht_submit(ctx, e, sizeof(*e));
	return 0;
}
