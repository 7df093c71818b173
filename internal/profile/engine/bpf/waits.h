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
	u64 call;  /* of its calls that move bytes, the last whose bytes were counted; from 1 */
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
enum call { OTHER_CALL, IDLE_CALL, FUTEX_CALL, FILE_CALL, FD_CALL, CALL_CLASS = 0xf };

/* And what is known of the bytes that it moves. */
enum call_moves {
	MOVES = 0x10,	    /* as many as its third argument says */
	MOVES_PARTS = 0x20, /* its third argument says how many parts there are in its second */
	MOVES_READ = 0x40,  /* up to the end of the file */
	MOVES_AT = 0x80,    /* from where its fourth argument says, else where the file stands */
};

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
/* Whether somebody wants to know how many bytes calls move. */
BPF_RODATA_VAR(bool, wants_file_bytes, false)
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
	if (w->tid != tid)
		w->call = 0;
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
#define FOURTH_ARGUMENT(at) REG(at, r10)
#else
#define CALL_NUMBER(at) ((REG(at, pstate) & PSR_MODE32_BIT) ? -1 : (s32)REG(at, syscallno))
#define FIRST_ARGUMENT(at) REG(at, orig_x0)
#define SECOND_ARGUMENT(at) REG(at, regs[1])
#define THIRD_ARGUMENT(at) REG(at, regs[2])
#define FOURTH_ARGUMENT(at) REG(at, regs[3])
#endif

/* The file, directory or block device that a descriptor is of, NULL for another thing: pipes and sockets can be read, too. */
static EBPF_INLINE struct file *file_of(struct task_struct *t, u32 fd)
{
	struct files_struct *files = READ(t, files);
	struct fdtable *table = READ(files, fdt);
	struct file *file = NULL;
	struct inode *inode;
	u32 type;

	if (fd >= READ(table, max_fds))
		return NULL;
	bpf_probe_read_kernel(&file, sizeof(file), READ(table, fd) + fd);
	inode = READ(file, f_inode);
	type = READ(inode, i_mode) & S_IFMT;
	return type == S_IFREG || type == S_IFDIR || type == S_IFBLK ? file : NULL;
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
	switch (*call & CALL_CLASS) {
	case IDLE_CALL:
		return IDLE;
	case FUTEX_CALL:
		return ns < user_lock_ns ? BLOCKED : kind_of_futex(at);
	case FD_CALL:
		if (!file_of(t, FIRST_ARGUMENT(at)))
			break;
		/* fallthrough */
	case FILE_CALL:
		if (ns >= file_ns)
			return io ? IO_FILE : BLOCKED_FILE;
	}
	return io ? IO : BLOCKED;
}

/* Bytes in the first parts of an array of struct iovec. */
#define MOST_PARTS 8

static EBPF_INLINE u64 bytes_in(u64 parts, u64 n)
{
	u64 sum = 0, bytes;

#pragma unroll
	for (u32 i = 0; i < MOST_PARTS; i++) {
		if (i < n) {
			bytes = 0;
			bpf_probe_read_user(&bytes, sizeof(bytes), (void *)(parts + 16 * i + 8));
			sum += bytes;
		}
	}
	return sum;
}

#define MAX_RW_COUNT (2147483647 & ~4095ULL)

/*
 * How many bytes the call moves in the middle of which a thread sleeps, by its
 * arguments: what it returns is known when it is long over. It is told once for
 * each call, however often it sleeps; the kernel counts those that are done.
 */
static EBPF_INLINE u64 moved(struct task_struct *t, struct wait *w)
{
	u64 bytes, number, end, position;
	struct address_space *mapping;
	struct inode *host;
	struct file *file;
	u32 key, *call;
	long at;

	if (!EXISTS(t->ioac.syscr) || READ(t, flags) & PF_KTHREAD)
		return 0;
	at = get_task_pt_regs(t);
	if (!at)
		return 0;
	key = CALL_NUMBER(at);
	call = bpf_map_lookup_elem(&calls, &key);
	if (!call || !(*call & (MOVES | MOVES_PARTS)))
		return 0;
	file = file_of(t, FIRST_ARGUMENT(at));
	number = READ(t, ioac.syscr) + READ(t, ioac.syscw) + 1;
	if (!file || w->call == number)
		return 0;
	w->call = number;
	bytes = THIRD_ARGUMENT(at);
	if (*call & MOVES_PARTS)
		bytes = bytes_in(SECOND_ARGUMENT(at), bytes);
	if (*call & MOVES_READ) {
		mapping = READ(file, f_mapping);
		host = READ(mapping, host);
		end = READ(host, i_size);
		position = *call & MOVES_AT ? FOURTH_ARGUMENT(at) : -1ULL;
		if (position == -1ULL)
			position = READ(file, f_pos);
		end = end > position ? end - position : 0;
		bytes = bytes < end ? bytes : end;
	}
	return bytes < MAX_RW_COUNT ? bytes : MAX_RW_COUNT;
}

/* What a wait of a kind is worth in the other type of that, for all that it stands for. */
static EBPF_INLINE u64 other_of(u32 kind, u64 n, u64 bytes)
{
	switch (kind) {
	case FUTEX_LOCK:
	case FUTEX_OTHER:
		return n;
	case BLOCKED_FILE:
	case IO_FILE:
		return times(bytes, n);
	}
	return 0;
}

static EBPF_INLINE int is_back(void *ctx)
{
	u32 tid = bpf_get_current_pid_tgid();
	u64 ns, kept, asleep, bytes = 0;
	struct task_struct *t;
	struct wait *w;
	bool is_kept, is_counted;
	u32 kind;

	if (!tid)
		return 0;
	w = slot_of(tid);
	if (!w || w->tid != tid || !w->since)
		return 0;
	ns = bpf_ktime_get_ns() - w->since;
	w->since = 0;
	kept = chance_of(ns, wait_unit_ns);
	is_kept = happens(kept);
	is_counted = wants_file_bytes && ns >= file_ns; /* whether this or another of the call's sleeps is kept */
	if (!is_kept && !is_counted)
		return 0;
	t = (struct task_struct *)bpf_get_current_task();
	asleep = w->state ? chance_asleep(ns, delay_of(t) - w->delay) : 0;
	if (is_counted && asleep)
		bytes = moved(t, w);
	if (!is_kept)
		return 0;
	kind = happens(asleep) ? kind_of_wait(t, w->state, ns) : RUNQUEUE;
	if (is_wanted(kind))
		take_both(ctx, kind, ns > wait_unit_ns ? ns : wait_unit_ns,
			  other_of(kind, stands_for(kept, asleep), bytes));
	return 0;
}

SEC("raw_tp/sched_exit_tp")
int back(struct bpf_raw_tracepoint_args *ctx) { return is_back(ctx); }

SEC("kprobe/finish_task_switch")
int back_by_probe(struct pt_regs *ctx) { return is_back(ctx); }
