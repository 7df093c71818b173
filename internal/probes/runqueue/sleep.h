/* SPDX-License-Identifier: GPL-2.0 */
/*
 * sleep.h - what threads sleep for: futexes, files and page faults.
 *
 * Tracepoints of system calls would make every call of every program on the
 * machine take the slow way in and out. A thread that sleeps passes
 * sched_switch, and its registers on entry to the kernel tell the system call
 * and its arguments: so the sleep is stamped there, and its end when the thread
 * is back on a CPU.
 */
#pragma once

/* Whether sleeps are looked at. */
HT_CONST(bool, sleeps, true);

#define FILES 4096 /* threads that wait for a file at once are hundreds at worst */

#define TASK_INTERRUPTIBLE 1

/* include/uapi/linux/futex.h */
#define FUTEX_WAIT 0
#define FUTEX_LOCK_PI 6
#define FUTEX_WAIT_BITSET 9
#define FUTEX_WAIT_REQUEUE_PI 11
#define FUTEX_LOCK_PI2 13
#define FUTEX_CMD_MASK 127

/*
 * What glibc, Go, Rust and others write into the word of a mutex that is taken
 * and has waiters. Condition variables and idle workers wait for other values.
 */
#define MUTEX_CONTENDED 2

#define S_IFMT 0170000
#define S_IFREG 0100000
#define S_IFDIR 0040000

/* What stands for the number of a system call when the thread came into the kernel by an exception: a page fault, of those that sleep. */
#define NO_CALL 0xffffffffU

/*
 * A thread that a signal ended on its way out of an exception dumps core, or waits for who does, with its registers
 * as they were; the freezer of cgroup v1 held it in the same way until v6.1.
 */
#define PF_EXITING 0x4
#define PF_SIGNALED 0x400
#define PF_FROZEN 0x10000

/* Where a thread's registers lie from the start of its kernel stack, for kernels that do not tell; 0: not known. */
HT_CONST(u32, regs_at, 0);

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct pt_regs {
	unsigned long sp; /* its name is all that is used */
};

struct pt_regs___sleep_x86 {
	unsigned long cs;
	unsigned long orig_ax;
	unsigned long di;
	unsigned long si;
	unsigned long dx;
};

struct pt_regs___sleep_arm64 {
	u64 pstate;
	u64 orig_x0;
	int syscallno;
	u64 regs[31];
};

struct file_system_type___sleep {
	const char *name;
};

struct super_block___sleep {
	struct file_system_type___sleep *s_type;
};

struct inode___sleep {
	u16 i_mode;
	struct super_block___sleep *i_sb;
};

struct file___sleep {
	struct inode___sleep *f_inode;
};

struct fdtable___sleep {
	unsigned int max_fds;
	struct file___sleep **fd;
};

struct files_struct___sleep {
	struct fdtable___sleep *fdt;
};

struct task_struct___sleep {
	void *stack;
	struct files_struct___sleep *files;
	unsigned int in_iowait : 1;
};

#pragma clang attribute pop

/* What a system call may sleep for, by number: user space knows this machine's. LOCK: a futex, whose operation and value tell. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 512);
	__type(key, u32);
	__type(value, u32);
} calls SEC(".maps");

/* Where a thread sleeps, besides: for what has a file. */
struct place {
	u32 pid;
	u8 fstype[16];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, FILES);
	__type(key, u32);
	__type(value, struct place);
} places SEC(".maps");

struct fs_key {
	u8 fstype[16];
	u32 kind;
};

/* Shared by the CPUs: a wait for a file takes longer than a cache line does. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 256);
	__type(key, struct fs_key);
	__type(value, struct ht_hist);
} files SEC(".maps");

static __always_inline u32 kind_of_call(u32 nr)
{
	u32 *kind;

	if (nr == NO_CALL)
		return FAULT_IO;
	kind = bpf_map_lookup_elem(&calls, &nr);
	return kind ? *kind : NONE;
}

static __always_inline u32 kind_of_futex(u32 op, u32 value)
{
	switch (op & FUTEX_CMD_MASK) {
	case FUTEX_LOCK_PI:
	case FUTEX_LOCK_PI2:
		return LOCK;
	case FUTEX_WAIT:
	case FUTEX_WAIT_BITSET:
		return value == MUTEX_CONTENDED ? LOCK : OTHER;
	case FUTEX_WAIT_REQUEUE_PI:
		return OTHER;
	}
	return NONE;
}

/* What a thread is in the kernel for, and the file descriptor of a call that has one. */
struct call {
	u32 kind;
	u32 fd;
};

/* Registers that do not look like a program's were looked for in the wrong place. */
static __always_inline void read_x86(struct call *c, bool btf, struct pt_regs___sleep_x86 *r)
{
	c->kind = kind_of_call(HT_READ(btf, r, orig_ax));
	if (c->kind == NONE)
		return;
	if (!btf && (HT_READ(btf, r, cs) & 3) != 3)
		c->kind = NONE;
	if (c->kind == LOCK)
		c->kind = kind_of_futex(HT_READ(btf, r, si), HT_READ(btf, r, dx));
	else if (c->kind >= READ)
		c->fd = HT_READ(btf, r, di);
}

static __always_inline void read_arm64(struct call *c, bool btf, struct pt_regs___sleep_arm64 *r)
{
	c->kind = kind_of_call(HT_READ(btf, r, syscallno));
	if (c->kind == NONE)
		return;
	if (!btf && HT_READ(btf, r, pstate) & 0xf) /* not EL0 */
		c->kind = NONE;
	if (c->kind == LOCK)
		c->kind = kind_of_futex(HT_READ(btf, r, regs[1]), HT_READ(btf, r, regs[2]));
	else if (c->kind >= READ)
		c->fd = HT_READ(btf, r, orig_x0);
}

static __always_inline void read_regs(struct call *c, bool btf, void *regs)
{
	if (bpf_core_field_exists(struct pt_regs___sleep_x86, orig_ax))
		read_x86(c, btf, regs);
	else
		read_arm64(c, btf, regs);
}

#ifndef HT_LEGACY
/* Since Linux 6.2; 0 before. No call in truth: the verifier makes a move of it. */
extern void *bpf_rdonly_cast(const void *obj, u32 btf_id) __ksym __weak;

/*
 * Where a tp_btf program finds @t's registers. The helper that tells takes 17 ns,
 * of a program that takes 70, and for all threads it tells the same place in
 * their stacks: @at remembers it.
 */
static __always_inline void *registers(struct task_struct *t, u32 *at)
{
	struct task_struct___sleep *w = (void *)t;

	if (!bpf_rdonly_cast)
		return (void *)bpf_task_pt_regs(t);
	if (!*at) {
		void *regs = (void *)bpf_task_pt_regs(t);
		u64 there = 0;

		/* By helpers both become numbers: until 6.13 or so the verifier does not take one pointer from another. */
		bpf_probe_read_kernel(&there, sizeof(there), &regs);
		*at = there - (u64)HT_READ(false, w, stack);
	}
	return bpf_rdonly_cast(w->stack + *at, bpf_core_type_id_kernel(struct pt_regs));
}
#endif

static __always_inline void read_call(struct call *c, bool btf, struct task_struct *t, u32 *at)
{
	struct task_struct___sleep *w = (void *)t;

	c->kind = NONE;
	c->fd = 0;
#ifndef HT_LEGACY
	if (btf && bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_task_pt_regs)) {
		read_regs(c, true, registers(t, at));
		return;
	}
#endif
	if (HT_GET(regs_at))
		read_regs(c, false, HT_READ(btf, w, stack) + HT_GET(regs_at));
}

/* A file's type of file system, for what is a regular file or a directory. */
static __always_inline bool place_of(struct place *p, bool btf, struct task_struct *t, u32 fd)
{
	struct task_struct___sleep *w = (void *)t;
	struct files_struct___sleep *all = HT_READ(btf, w, files);
	struct file___sleep **table;
	struct file_system_type___sleep *type = NULL;
	struct super_block___sleep *sb = NULL;
	struct inode___sleep *inode = NULL;
	struct file___sleep *file = NULL;
	struct fdtable___sleep *fdt;
	const char *name = NULL;
	u16 mode = 0;

	if (!all)
		return false;
	fdt = HT_READ(btf, all, fdt);
	if (fd >= HT_READ(btf, fdt, max_fds))
		return false;
	table = HT_READ(btf, fdt, fd);
	bpf_probe_read_kernel(&file, sizeof(file), table + fd);
	if (!file)
		return false;
	bpf_core_read(&inode, sizeof(inode), &file->f_inode);
	bpf_core_read(&mode, sizeof(mode), &inode->i_mode);
	if ((mode & S_IFMT) != S_IFREG && (mode & S_IFMT) != S_IFDIR)
		return false;
	bpf_core_read(&sb, sizeof(sb), &inode->i_sb);
	bpf_core_read(&type, sizeof(type), &sb->s_type);
	bpf_core_read(&name, sizeof(name), &type->name);
	return bpf_probe_read_kernel_str(p->fstype, sizeof(p->fstype), name) > 1;
}

/* Whether @t told that it waits for I/O. */
static __always_inline bool in_iowait(bool btf, struct task_struct *t)
{
	struct task_struct___sleep *w = (void *)t;

#ifndef HT_LEGACY
	if (btf)
		return BPF_CORE_READ_BITFIELD(w, in_iowait);
#endif
	return BPF_CORE_READ_BITFIELD_PROBED(w, in_iowait);
}

/* The kind of a sleep that no signal ends. */
static __always_inline u32 uninterruptible(bool btf, struct task_struct *t, u32 pid, struct call *c)
{
	u32 slot = pid & (FILES - 1);
	struct place *p;

	if (c->kind < FAULT_IO)
		return NONE;
	if (c->kind == FAULT_IO) {
		if (HT_READ(btf, t, flags) & (PF_EXITING | PF_SIGNALED | PF_FROZEN))
			return NONE;
		return in_iowait(btf, t) ? FAULT_IO : FAULT_OTHER;
	}
	p = bpf_map_lookup_elem(&places, &slot);
	if (!p)
		return NONE;
	p->pid = pid;
	__builtin_memset(p->fstype, 0, sizeof(p->fstype));  /* it is part of a key */
	if (c->kind != OPEN && !place_of(p, btf, t, c->fd)) /* of what is opened the registers tell a name */
		return NONE;
	return c->kind;
}

/* What a program's thread that gives the CPU up in @state sleeps for, of what is counted. */
static __always_inline u32 sleeps_for(bool btf, struct task_struct *t, u32 pid, u64 state, u32 *at)
{
	struct call c;

	if (!(state & (TASK_INTERRUPTIBLE | TASK_UNINTERRUPTIBLE)) || !HT_READ(btf, t, mm))
		return NONE;
	read_call(&c, btf, t, at);
	if (state & TASK_INTERRUPTIBLE)
		return c.kind == LOCK || c.kind == OTHER ? c.kind : NONE;
	return uninterruptible(btf, t, pid, &c);
}

static __always_inline void count_file(u32 pid, u32 kind, u64 ns)
{
	u32 slot = pid & (FILES - 1), zero = 0;
	struct place *p = bpf_map_lookup_elem(&places, &slot);
	struct fs_key key = { .kind = kind };
	struct ht_hist *h;

	if (!p || p->pid != pid)
		return;
	__builtin_memcpy(key.fstype, p->fstype, sizeof(key.fstype));
	h = bpf_map_lookup_elem(&files, &key);
	if (!h) {
		h = bpf_map_lookup_elem(&empty, &zero);
		if (!h)
			return;
		bpf_map_update_elem(&files, &key, h, BPF_NOEXIST);
		h = bpf_map_lookup_elem(&files, &key);
		if (!h)
			return;
	}
	ht_observe_shared(h, ns);
}
