/* SPDX-License-Identifier: GPL-2.0-only */
/* kernel_types.h - the members of the kernel's structs that the hooks read, wherever they lie. */
#pragma once

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct inode {
	u16 i_mode;
	s64 i_size;
};

struct address_space {
	struct inode *host;
};

struct file {
	struct inode *f_inode;
	struct address_space *f_mapping;
	s64 f_pos;
};

struct fdtable {
	unsigned int max_fds;
	struct file **fd;
};

struct files_struct {
	struct fdtable *fdt;
};

struct sched_info {
	u64 run_delay;
};

struct mm_struct {
	unsigned long brk;
};

/* Only where CONFIG_TASK_XACCT is set. */
struct task_io_accounting {
	u64 syscr;
	u64 syscw;
};

struct task_struct {
	unsigned int flags;
	struct mm_struct *mm;
	struct files_struct *files;
	struct sched_info sched_info;
	struct task_io_accounting ioac;
	unsigned in_iowait : 1;
};

struct request {
	struct bio *bio;
	u32 cmd_flags;
	unsigned int __data_len;
};

/* 2f064a59a11f ("sched: Change task_struct::state"), v5.14: state -> __state */
struct task_struct___state {
	unsigned int __state;
};

struct task_struct___old_state {
	long state;
};

#pragma clang attribute pop

#define READ(p, member)                                                                                                \
	({                                                                                                             \
		typeof((p)->member) __v = 0;                                                                           \
		bpf_probe_read_kernel(&__v, sizeof(__v), __builtin_preserve_access_index(&(p)->member));               \
		__v;                                                                                                   \
	})

#define EXISTS(member) __builtin_preserve_field_info(member, 2)

#define PF_KTHREAD 0x00200000

#define TASK_INTERRUPTIBLE 0x1
#define TASK_UNINTERRUPTIBLE 0x2
#define TASK_STOPPED 0x4
#define TASK_TRACED 0x8
#define TASK_DEAD 0x80
#define TASK_NOLOAD 0x400
#define TASK_FROZEN 0x8000

/* in_iowait is one bit among others: its word is read, and shifted as the kernel's BTF tells. */
static EBPF_INLINE bool is_in_iowait(struct task_struct *t)
{
	u64 word = 0;
	u32 size = __builtin_preserve_field_info(t->in_iowait, 1);
	u32 offset = __builtin_preserve_field_info(t->in_iowait, 0);

	if (size > sizeof(word))
		return false;
	bpf_probe_read_kernel(&word, size, (void *)t + offset);
	word <<= __builtin_preserve_field_info(t->in_iowait, 4);
	return word >> __builtin_preserve_field_info(t->in_iowait, 5);
}
