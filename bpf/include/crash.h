/* SPDX-License-Identifier: GPL-2.0 */
/* crash.h - what a signal and the registers say about a process that dies. */
#pragma once

/* struct siginfo is ABI: signo, errno and code, then what depends on the signal, aligned to 8. */
#define HT_SI_CODE 8
#define HT_SI_ADDR 16	 /* SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP: address; SIGSYS: of the call */
#define HT_SI_SYSCALL 24 /* SIGSYS */

/* SIGQUIT, SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGSEGV, SIGXCPU, SIGXFSZ, SIGSYS */
#define HT_CORE_SIGNALS                                                                                                \
	(1U << 3 | 1U << 4 | 1U << 5 | 1U << 6 | 1U << 7 | 1U << 8 | 1U << 11 | 1U << 24 | 1U << 25 | 1U << 31)

/* Whether the signal's default action is to dump core. */
static __always_inline bool ht_dumps_core(u64 sig) { return sig < 32 && (HT_CORE_SIGNALS >> sig & 1); }

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct pt_regs___x86 {
	unsigned long r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di;
	unsigned long ip, flags, sp;
};

struct pt_regs___arm64 {
	u64 regs[31];
	u64 sp;
	u64 pc;
	u64 pstate;
};

#pragma clang attribute pop

enum { HT_REGS_NONE, HT_REGS_X86, HT_REGS_ARM64 };

/* x86: ax bx cx dx si di bp r8 … r15; arm64: x0 … x30. */
struct ht_regs {
	u64 pc;
	u64 sp;
	u64 flags;
	u64 general[31];
	u32 kind;
	u32 pad;
};

/* Registers of a program from where the kernel has put them. */
static __always_inline void ht_copy_regs(struct ht_regs *to, void *regs)
{
	if (bpf_core_field_exists(struct pt_regs___x86, ip)) {
		struct pt_regs___x86 *r = regs;

#define HT_REG(i, name) bpf_core_read(&to->general[i], sizeof(u64), &r->name)
		HT_REG(0, ax);
		HT_REG(1, bx);
		HT_REG(2, cx);
		HT_REG(3, dx);
		HT_REG(4, si);
		HT_REG(5, di);
		HT_REG(6, bp);
		HT_REG(7, r8);
		HT_REG(8, r9);
		HT_REG(9, r10);
		HT_REG(10, r11);
		HT_REG(11, r12);
		HT_REG(12, r13);
		HT_REG(13, r14);
		HT_REG(14, r15);
#undef HT_REG
		bpf_core_read(&to->pc, sizeof(u64), &r->ip);
		bpf_core_read(&to->sp, sizeof(u64), &r->sp);
		bpf_core_read(&to->flags, sizeof(u64), &r->flags);
		to->kind = HT_REGS_X86;
	} else if (bpf_core_field_exists(struct pt_regs___arm64, pstate)) {
		struct pt_regs___arm64 *r = regs;

		bpf_core_read(to->general, sizeof(to->general), &r->regs);
		bpf_core_read(&to->pc, sizeof(u64), &r->pc);
		bpf_core_read(&to->sp, sizeof(u64), &r->sp);
		bpf_core_read(&to->flags, sizeof(u64), &r->pstate);
		to->kind = HT_REGS_ARM64;
	}
}

/* User registers of current, where the kernel gives them (5.15). For tp_btf programs. */
static __always_inline void ht_user_regs(struct ht_regs *to)
{
	if (bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_task_pt_regs))
		ht_copy_regs(to, (void *)bpf_task_pt_regs(bpf_get_current_task_btf()));
}

/* In which file a user address is. */
struct ht_place {
	u64 offset;  /* in the file */
	u8 file[64]; /* last component of its path; empty: not in a file */
};

struct ht_vma_args {
	u64 addr;
	u64 offset;
	struct file *file;
};

static long ht_vma_found(struct task_struct *t, struct vm_area_struct *v, struct ht_vma_args *a)
{
	a->file = v->vm_file;
	a->offset = a->addr - v->vm_start + v->vm_pgoff * 4096;
	return 0;
}

/* The name of @file. */
static __always_inline void ht_name_place(struct ht_place *to, struct file *file)
{
	/* In steps: f_path (6.18) and d_name (7.0) became const members of unions, which cilium/ebpf does not look through. */
	struct path *path = &file->f_path;
	struct dentry *d;
	struct qstr *name;

	barrier_var(path);
	d = BPF_CORE_READ(path, dentry);
	name = &d->d_name;
	barrier_var(name);
	bpf_probe_read_kernel_str(to->file, sizeof(to->file), BPF_CORE_READ(name, name));
}

/*
 * ht_find_place - find what current has mapped at @addr, where the kernel can
 * tell (5.17). For tp_btf programs. With interrupts off only the first call in
 * a program gets an answer: the kernel gives the lock back by an interrupt.
 */
static __always_inline void ht_find_place(struct ht_place *to, u64 addr)
{
	struct ht_vma_args a = { .addr = addr };

	if (!bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_find_vma))
		return;
	if (bpf_find_vma(bpf_get_current_task_btf(), addr, ht_vma_found, &a, 0) || !a.file)
		return;
	to->offset = a.offset;
	ht_name_place(to, a.file);
}
