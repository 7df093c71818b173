/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * waits.h - what threads wait for when they are not on a CPU.
 *
 * sched_switch notes when a thread goes, and how long it had waited for a CPU
 * in its life; sched_exit_tp runs when it is back, on its own stack and with no
 * lock held, and takes the stack. Kernels without that tracepoint have a probe
 * at finish_task_switch instead.
 *
 * The registers with which the thread came into the kernel tell the system call
 * and its arguments. Tracepoints of system calls would make every call of every
 * program take the slow way.
 */
#pragma once

#define SLOTS 65536 /* 2 MiB; 1,000 threads that wait lose 1 % of the samples */

struct wait {
	u64 since;
	u64 delay; /* nanoseconds that it had waited for a CPU in its life */
	u32 tid;
	u32 state; /* of the thread when it went: 0 if it wanted to go on */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, u32);
	__type(value, struct wait);
	__uint(max_entries, SLOTS);
} waits SEC(".maps");

/* What a system call waits for, by number; user space knows this machine's. */
enum call { OTHER_CALL, IDLE_CALL, FUTEX_CALL, FILE_CALL, FD_CALL };

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, u32);
	__type(value, u32);
	__uint(max_entries, 512);
} calls SEC(".maps");

/* Waits of that length and more are all kept. */
BPF_RODATA_VAR(u64, wait_unit_ns, 20000000)
BPF_RODATA_VAR(u64, user_lock_ns, 10000)
BPF_RODATA_VAR(u64, file_ns, 500000)
/* Whether sched_switch tells the state: 9c2136be0878 ("sched/tracing: Append prev_state to tp args instead"), v5.18. */
BPF_RODATA_VAR(bool, has_prev_state, false)

/* include/uapi/linux/futex.h */
#define FUTEX_WAIT 0
#define FUTEX_LOCK_PI 6
#define FUTEX_WAIT_BITSET 9
#define FUTEX_WAIT_REQUEUE_PI 11
#define FUTEX_LOCK_PI2 13
#define FUTEX_CMD_MASK 127

/* What glibc, musl, Go and Rust write into the word of a mutex that is taken and has waiters. */
#define MUTEX_CONTENDED 2

#define S_IFMT 0170000
#define S_IFREG 0100000
#define S_IFDIR 0040000
#define S_IFBLK 0060000

static EBPF_INLINE struct wait *slot_of(u32 tid)
{
	u32 slot = tid & (SLOTS - 1);

	return bpf_map_lookup_elem(&waits, &slot);
}

static EBPF_INLINE u32 state_of(struct task_struct *t)
{
	struct task_struct___state *new = (void *)t;
	struct task_struct___old_state *old = (void *)t;

	if (EXISTS(new->__state))
		return READ(new, __state);
	return READ(old, state);
}

static EBPF_INLINE u64 delay_of(struct task_struct *t)
{
	if (!EXISTS(t->sched_info.run_delay))
		return 0;
	return READ(t, sched_info.run_delay);
}

SEC("raw_tp/sched_switch")
int switched(struct bpf_raw_tracepoint_args *ctx)
{
	u32 tid = bpf_get_current_pid_tgid();
	struct task_struct *t;
	struct wait *w;
	u32 state;

	if (!tid)
		return 0; /* the idle thread */
	w = slot_of(tid);
	if (!w)
		return 0;
	if (w->since && w->tid != tid) {
		struct cpu *c = this_cpu();

		if (c)
			lose(c, BLOCKED, CLASH, 0);
	}
	t = (struct task_struct *)bpf_get_current_task();
	state = ctx->args[0] ? 0 : has_prev_state ? ctx->args[3] : state_of(t);
	w->tid = tid;
	w->delay = delay_of(t);
	w->state = state;
	w->since = state & TASK_DEAD ? 0 : bpf_ktime_get_ns();
	return 0;
}

/* A member of the registers with which the thread came into the kernel. */
#define REG(at, member)                                                                                                \
	({                                                                                                             \
		u64 __r = 0;                                                                                           \
		bpf_probe_read_kernel(&__r, sizeof(((struct pt_regs *)0)->member), &((struct pt_regs *)(at))->member); \
		__r;                                                                                                   \
	})

#if defined(__x86_64__)
#define CALL_NUMBER(at) ((u16)REG(at, cs) == __USER32_CS ? -1 : (s32)REG(at, orig_ax))
#define FIRST_ARGUMENT(at) REG(at, di)
#define SECOND_ARGUMENT(at) REG(at, si)
#define THIRD_ARGUMENT(at) REG(at, dx)
#else
#define CALL_NUMBER(at) ((REG(at, pstate) & PSR_MODE32_BIT) ? -1 : (s32)REG(at, syscallno))
#define FIRST_ARGUMENT(at) REG(at, orig_x0)
#define SECOND_ARGUMENT(at) REG(at, regs[1])
#define THIRD_ARGUMENT(at) REG(at, regs[2])
#endif

/* Whether a descriptor is of a file, a directory or a block device: pipes and sockets can be read, too. */
static EBPF_INLINE bool is_file(struct task_struct *t, u32 fd)
{
	struct files_struct *files = READ(t, files);
	struct fdtable *table = READ(files, fdt);
	struct file *file = NULL;
	struct inode *inode;
	u32 type;

	if (fd >= READ(table, max_fds))
		return false;
	bpf_probe_read_kernel(&file, sizeof(file), READ(table, fd) + fd);
	inode = READ(file, f_inode);
	type = READ(inode, i_mode) & S_IFMT;
	return type == S_IFREG || type == S_IFDIR || type == S_IFBLK;
}

static EBPF_INLINE u32 kind_of_futex(long at)
{
	u32 op = SECOND_ARGUMENT(at) & FUTEX_CMD_MASK;
	u32 value = THIRD_ARGUMENT(at);

	if (op == FUTEX_LOCK_PI || op == FUTEX_LOCK_PI2)
		return FUTEX_LOCK;
	if ((op == FUTEX_WAIT || op == FUTEX_WAIT_BITSET) && value == MUTEX_CONTENDED)
		return FUTEX_LOCK;
	return FUTEX_OTHER;
}

/* What a thread has waited for that wanted nothing but to be woken. */
static EBPF_INLINE u32 kind_of_wait(struct task_struct *t, u32 state, u64 ns)
{
	bool io = is_in_iowait(t);
	u32 *call = NULL;
	u32 number;
	long at;

	if (READ(t, flags) & PF_KTHREAD) {
		if (io)
			return IO;
		return (state & TASK_UNINTERRUPTIBLE) && !(state & TASK_NOLOAD) ? BLOCKED : IDLE;
	}
	if (state & (TASK_STOPPED | TASK_TRACED | TASK_FROZEN))
		return IDLE;
	at = get_task_pt_regs(t);
	if (at) {
		number = CALL_NUMBER(at);
		call = bpf_map_lookup_elem(&calls, &number);
	}
	if (!call)
		return io ? IO : BLOCKED; /* page faults among them */
	switch (*call) {
	case IDLE_CALL:
		return IDLE;
	case FUTEX_CALL:
		return ns < user_lock_ns ? BLOCKED : kind_of_futex(at);
	case FD_CALL:
		if (!is_file(t, FIRST_ARGUMENT(at)))
			break;
		/* fallthrough */
	case FILE_CALL:
		if (ns >= file_ns)
			return io ? IO_FILE : BLOCKED_FILE;
	}
	return io ? IO : BLOCKED;
}

static EBPF_INLINE int is_back(void *ctx)
{
	u32 tid = bpf_get_current_pid_tgid();
	struct task_struct *t;
	struct wait *w;
	u64 ns, delay;
	u32 kind;

	if (!tid)
		return 0;
	w = slot_of(tid);
	if (!w || w->tid != tid || !w->since)
		return 0;
	ns = bpf_ktime_get_ns() - w->since;
	w->since = 0;
	if (!is_drawn(ns, wait_unit_ns))
		return 0;
	t = (struct task_struct *)bpf_get_current_task();
	delay = delay_of(t) - w->delay;
	/*
	 * A thread that was woken waited for a CPU, too. One stack stands for
	 * both, by lot: in the end each gets what it is due.
	 */
	if (!w->state || delay >= ns || (u32)bpf_get_prandom_u32() < (delay << 20) / ((ns >> 12) + 1))
		kind = RUNQUEUE;
	else
		kind = kind_of_wait(t, w->state, ns);
	if (is_wanted(kind))
		take(ctx, kind, ns > wait_unit_ns ? ns : wait_unit_ns);
	return 0;
}

SEC("raw_tp/sched_exit_tp")
int back(struct bpf_raw_tracepoint_args *ctx) { return is_back(ctx); }

SEC("kprobe/finish_task_switch")
int back_by_probe(struct pt_regs *ctx) { return is_back(ctx); }
