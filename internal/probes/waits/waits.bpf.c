//go:build ignore
// SPDX-License-Identifier: GPL-2.0
/*
 * waits - what threads sleep for: futexes, files and page faults.
 *
 * Tracepoints of system calls would make every call of every program on the
 * machine take the slow way in and out. A thread that sleeps passes
 * sched_switch, and its registers on entry to the kernel tell the system call
 * and its arguments: so the sleep is stamped there, and its end when the thread
 * is back on a CPU. The stamp lives in an array indexed by the low bits of the
 * pid, as in probe runqueue.
 */
#include "kernel.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>
#include "flavour.h"
#include "core_fixes.h"
#include "hook.h"
#include "hist.h"
#include "cgroup.h"
#include "task.h"

#define STAMPS 65536 /* 1 MiB; a host with 1000 threads asleep in futexes loses 1 % of the samples */
#define FILES 4096   /* threads that wait for a file at once are hundreds at worst */

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

/* What a thread sleeps for; from READ on in a file. */
enum { NONE, LOCK, OTHER, FAULT_IO, FAULT_OTHER, READ, WRITE, FSYNC, LIST, OPEN, KINDS };

/* Those with a histogram in struct cpu_state. */
#define PLAIN (READ - LOCK)

/* What stands for the number of a system call when the thread came into the kernel by an exception: a page fault, of those that sleep. */
#define NO_CALL 0xffffffffU

/* Where a thread's registers lie from the start of its kernel stack, for kernels that do not tell; 0: not known. */
HT_CONST(u32, regs_at, 0);

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct pt_regs___waits_x86 {
	unsigned long cs;
	unsigned long orig_ax;
	unsigned long di;
	unsigned long si;
	unsigned long dx;
};

struct pt_regs___waits_arm64 {
	u64 pstate;
	u64 orig_x0;
	int syscallno;
	u64 regs[31];
};

struct file_system_type___waits {
	const char *name;
};

struct super_block___waits {
	struct file_system_type___waits *s_type;
};

struct inode___waits {
	u16 i_mode;
	struct super_block___waits *i_sb;
};

struct file___waits {
	struct inode___waits *f_inode;
};

struct fdtable___waits {
	unsigned int max_fds;
	struct file___waits **fd;
};

struct files_struct___waits {
	struct fdtable___waits *fdt;
};

struct task_struct___waits {
	void *stack;
	struct files_struct___waits *files;
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

struct stamp {
	u64 ts; /* 0: does not sleep */
	u32 pid;
	u32 kind;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, HT_MMAPABLE);
	__uint(max_entries, STAMPS);
	__type(key, u32);
	__type(value, struct stamp);
} stamps SEC(".maps");

/* Where it sleeps, besides: for what has a file. */
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

struct cpu_state {
	struct ht_hist wait[PLAIN]; /* LOCK, OTHER, FAULT_IO, FAULT_OTHER */
	u64 collisions;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct cpu_state);
} cpus SEC(".maps");

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

/* Where a new histogram is copied from. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct ht_hist);
} empty SEC(".maps");

struct cgroup_waits {
	u64 waits[KINDS];
	u64 ns[KINDS];
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, u64);
	__type(value, struct cgroup_waits);
} cgroups SEC(".maps");

static __always_inline u32 kind_of_call(u32 nr)
{
	u32 *kind;

	if (nr == NO_CALL)
		return FAULT_IO;
	kind = bpf_map_lookup_elem(&calls, &nr);
	return kind ? *kind : NONE;
}

static __always_inline u32 kind_of(u32 op, u32 value)
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
static __always_inline void read_x86(struct call *c, bool btf, struct pt_regs___waits_x86 *r)
{
	c->kind = kind_of_call(HT_READ(btf, r, orig_ax));
	if (c->kind == NONE)
		return;
	if (!btf && (HT_READ(btf, r, cs) & 3) != 3)
		c->kind = NONE;
	if (c->kind == LOCK)
		c->kind = kind_of(HT_READ(btf, r, si), HT_READ(btf, r, dx));
	else if (c->kind >= READ)
		c->fd = HT_READ(btf, r, di);
}

static __always_inline void read_arm64(struct call *c, bool btf, struct pt_regs___waits_arm64 *r)
{
	c->kind = kind_of_call(HT_READ(btf, r, syscallno));
	if (c->kind == NONE)
		return;
	if (!btf && HT_READ(btf, r, pstate) & 0xf) /* not EL0 */
		c->kind = NONE;
	if (c->kind == LOCK)
		c->kind = kind_of(HT_READ(btf, r, regs[1]), HT_READ(btf, r, regs[2]));
	else if (c->kind >= READ)
		c->fd = HT_READ(btf, r, orig_x0);
}

static __always_inline void read_regs(struct call *c, bool btf, void *regs)
{
	if (bpf_core_field_exists(struct pt_regs___waits_x86, orig_ax))
		read_x86(c, btf, regs);
	else
		read_arm64(c, btf, regs);
}

static __always_inline void read_call(struct call *c, bool btf, struct task_struct *t)
{
	struct task_struct___waits *w = (void *)t;

	c->kind = NONE;
	c->fd = 0;
#ifndef HT_LEGACY
	if (btf && bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_task_pt_regs)) {
		read_regs(c, true, (void *)bpf_task_pt_regs(t));
		return;
	}
#endif
	if (HT_GET(regs_at))
		read_regs(c, false, HT_READ(btf, w, stack) + HT_GET(regs_at));
}

/* A file's type of file system, for what is a regular file or a directory. */
static __always_inline bool place_of(struct place *p, bool btf, struct task_struct *t, u32 fd)
{
	struct task_struct___waits *w = (void *)t;
	struct files_struct___waits *all = HT_READ(btf, w, files);
	struct file___waits **table;
	struct file_system_type___waits *type = NULL;
	struct super_block___waits *sb = NULL;
	struct inode___waits *inode = NULL;
	struct file___waits *file = NULL;
	struct fdtable___waits *fdt;
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

static __always_inline void stamp(u32 pid, u32 kind)
{
	u32 slot = pid & (STAMPS - 1), zero = 0;
	struct stamp *s = bpf_map_lookup_elem(&stamps, &slot);
	struct cpu_state *c;

	if (!s)
		return;
	if (s->ts && s->pid != pid) {
		c = bpf_map_lookup_elem(&cpus, &zero);
		if (c)
			c->collisions++;
	}
	s->pid = pid;
	s->kind = kind;
	s->ts = bpf_ktime_get_ns();
}

static __always_inline void sleeps_in_futex(bool btf, struct task_struct *t)
{
	struct call c;

	read_call(&c, btf, t);
	if (c.kind == LOCK || c.kind == OTHER)
		stamp(HT_READ(btf, t, pid), c.kind);
}

/* Whether @t told that it waits for I/O. */
static __always_inline bool in_iowait(bool btf, struct task_struct *t)
{
	struct task_struct___waits *w = (void *)t;

#ifndef HT_LEGACY
	if (btf)
		return BPF_CORE_READ_BITFIELD(w, in_iowait);
#endif
	return BPF_CORE_READ_BITFIELD_PROBED(w, in_iowait);
}

static __always_inline void sleeps_uninterruptibly(bool btf, struct task_struct *t)
{
	struct place *p;
	struct call c;
	u32 pid, slot;

	read_call(&c, btf, t);
	if (c.kind < FAULT_IO)
		return;
	pid = HT_READ(btf, t, pid);
	if (c.kind == FAULT_IO) {
		stamp(pid, in_iowait(btf, t) ? FAULT_IO : FAULT_OTHER);
		return;
	}
	slot = pid & (FILES - 1);
	p = bpf_map_lookup_elem(&places, &slot);
	if (!p)
		return;
	p->pid = pid;
	__builtin_memset(p->fstype, 0, sizeof(p->fstype)); /* it is part of a key */
	if (c.kind != OPEN && !place_of(p, btf, t, c.fd))  /* of what is opened the registers tell a name */
		return;
	stamp(pid, c.kind);
}

static __always_inline void count_cgroup(u64 id, u32 kind, u64 ns)
{
	struct cgroup_waits *g = bpf_map_lookup_elem(&cgroups, &id), none = {};

	if (!g) {
		bpf_map_update_elem(&cgroups, &id, &none, BPF_NOEXIST);
		g = bpf_map_lookup_elem(&cgroups, &id);
	}
	if (!g || kind >= KINDS)
		return;
	__sync_fetch_and_add(&g->waits[kind], 1);
	__sync_fetch_and_add(&g->ns[kind], ns);
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

static __always_inline void runs(bool btf, u32 pid, struct task_struct *t)
{
	u32 slot = pid & (STAMPS - 1), zero = 0, kind;
	struct stamp *s = bpf_map_lookup_elem(&stamps, &slot);
	struct cpu_state *c;
	u64 ns;

	if (!s || !s->ts || s->pid != pid)
		return;
	ns = bpf_ktime_get_ns() - s->ts;
	s->ts = 0;
	kind = s->kind;
	if ((s64)ns < 0)
		return;
	if (kind >= READ) {
		count_file(pid, kind, ns);
	} else {
		c = bpf_map_lookup_elem(&cpus, &zero);
		if (c && kind - LOCK < PLAIN)
			ht_observe(&c->wait[kind - LOCK], ns);
	}
	count_cgroup(ht_cgroup_id(btf, t), kind, ns);
}

static __always_inline int on_switch(void *ctx, bool btf, bool preempt, struct task_struct *prev,
				     struct task_struct *next)
{
	u64 state;
	u32 pid;

	if (!preempt && HT_READ(btf, prev, mm)) {
		state = ht_task_state(btf, prev);
		if (state & TASK_INTERRUPTIBLE)
			sleeps_in_futex(btf, prev);
		else if (state & TASK_UNINTERRUPTIBLE)
			sleeps_uninterruptibly(btf, prev);
	}
	pid = HT_READ(btf, next, pid);
	if (pid)
		runs(btf, pid, next);
	return 0;
}

HT_TP3(sched_switch, on_switch, bool, struct task_struct *, struct task_struct *)

/* For bpf2go. */
const struct cpu_state *_cpu_state SEC(".wire") = NULL;
const struct fs_key *_fs_key SEC(".wire") = NULL;

char LICENSE[] SEC("license") = "GPL";
