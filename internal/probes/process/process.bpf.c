//go:build ignore
// SPDX-License-Identifier: GPL-2.0
/*
 * process - processes that start, run another program and end, and those that crash.
 *
 * Everything is counted in the kernel. A crash is told when the kernel delivers
 * a signal that dumps core and nobody handles: then the process has its memory
 * still, and its registers and stack say where it was.
 */
#include "huatuo.h"
#include "cgroup.h"
#include "task.h"
#include "crash.h"

#define PF_KTHREAD 0x00200000
#define SIGNAL_UNKILLABLE 0x40
#define FRAMES 64
#define ARGS 512
#define SIGNALS 65

HT_CONST(u64, process_crash_period_ns, 200000000);
HT_CONST(u64, process_crash_burst, 10);
HT_CONST(u64, process_exec_period_ns, 5000000);
HT_CONST(u64, process_exec_burst, 200);
HT_CONST(bool, report_exec, false);

enum kind { CRASH, EXEC };

/* How a process ended, for its workload: exit status 0, another one, a signal. */
enum { SUCCESS, FAILURE, SIGNALED, ENDS };

struct host_counts {
	u64 forks;
	u64 threads;
	u64 execs;
	u64 success;
	u64 failure;
	u64 signaled[SIGNALS];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct host_counts);
} host SEC(".maps");

struct cgroup_counts {
	u64 forks;
	u64 execs;
	u64 exits[ENDS];
};

/* 4096 cgroups; the least recently used go first. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_PERCPU_HASH);
	__uint(max_entries, 4096);
	__type(key, u64);
	__type(value, struct cgroup_counts);
} cgroups SEC(".maps");

/* Who sent a signal that dumps core, by the process that gets it. */
struct sender {
	u64 ts;
	u64 cgroup;
	u32 pid;
	u32 tgid;
	u32 sig;
	u32 pad;
	u8 comm[16];
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 256);
	__type(key, u32);
	__type(value, struct sender);
} senders SEC(".maps");

struct crash_wire {
	u32 kind;
	u32 sig;
	u64 ts;
	u64 suppressed;
	u64 cgroup;
	u64 addr; /* si_addr */
	u32 pid;
	u32 tgid;
	s32 code; /* si_code */
	s32 syscall;
	struct sender from; /* ts 0: nobody */
	struct ht_regs regs;
	struct ht_place place; /* of regs.pc */
	s32 frames;	       /* bytes, negative: errno */
	u32 pad;
	u8 comm[16];
	u64 stack[FRAMES];
};
HT_WIRE(crash_wire);

struct exec_wire {
	u32 kind;
	u32 uid;
	u64 ts;
	u64 suppressed;
	u64 cgroup;
	u32 pid;
	u32 tgid;
	u32 ppid;
	s32 args_len;
	u8 comm[16];
	u8 parent[16];
	u8 file[256];
	u8 args[ARGS]; /* each with its NUL */
};
HT_WIRE(exec_wire);

static __always_inline struct host_counts *this_cpu(void)
{
	u32 zero = 0;

	return bpf_map_lookup_elem(&host, &zero);
}

static __always_inline struct cgroup_counts *counts_of(u64 cgroup)
{
	struct cgroup_counts *c = bpf_map_lookup_elem(&cgroups, &cgroup), none = {};

	if (c)
		return c;
	bpf_map_update_elem(&cgroups, &cgroup, &none, BPF_NOEXIST);
	return bpf_map_lookup_elem(&cgroups, &cgroup);
}

static __always_inline int on_fork(void *ctx, bool btf, struct task_struct *parent, struct task_struct *child)
{
	struct host_counts *h = this_cpu();
	struct cgroup_counts *c;

	if (!h || HT_READ(btf, child, flags) & PF_KTHREAD)
		return 0;
	if (HT_READ(btf, child, pid) != HT_READ(btf, child, tgid)) {
		h->threads++;
		return 0;
	}
	h->forks++;
	c = counts_of(ht_cgroup_id(btf, child));
	if (c)
		c->forks++;
	return 0;
}

HT_TP2(sched_process_fork, on_fork, struct task_struct *, struct task_struct *)

static __always_inline int exec_event(void *ctx, bool btf, struct task_struct *p, struct linux_binprm *bprm)
{
	struct task_struct *parent;
	struct exec_wire *e;
	struct mm_struct *mm;
	u64 now = bpf_ktime_get_ns(), from, len;
	s64 suppressed;

	suppressed = ht_admit(EXEC, now, HT_GET(process_exec_period_ns), HT_GET(process_exec_burst));
	if (suppressed < 0)
		return 0;
	e = ht_reserve(sizeof(*e));
	if (!e)
		return 0;
	e->kind = EXEC;
	e->uid = bpf_get_current_uid_gid();
	e->ts = now;
	e->suppressed = suppressed;
	e->cgroup = ht_cgroup_id(btf, p);
	e->pid = HT_READ(btf, p, pid);
	e->tgid = HT_READ(btf, p, tgid);
	bpf_probe_read_kernel(e->comm, sizeof(e->comm), p->comm);
	parent = HT_READ(btf, p, real_parent);
	e->ppid = HT_READ(btf, parent, tgid);
	bpf_probe_read_kernel(e->parent, sizeof(e->parent), parent->comm);
	e->file[0] = 0;
	bpf_probe_read_kernel_str(e->file, sizeof(e->file), (void *)HT_READ(btf, bprm, filename));
	e->args_len = 0;
	mm = HT_READ(btf, p, mm);
	if (mm) {
		from = HT_READ(btf, mm, arg_start);
		len = HT_READ(btf, mm, arg_end) - from;
		if (len > ARGS)
			len = ARGS;
		/* The pages were written a moment ago, so they are there. */
		if (!bpf_probe_read_user(e->args, len, (void *)from))
			e->args_len = len;
	}
	ht_submit(ctx, e, sizeof(*e));
	return 0;
}

static __always_inline int on_exec(void *ctx, bool btf, struct task_struct *p, u64 old_pid, struct linux_binprm *bprm)
{
	struct host_counts *h = this_cpu();
	struct cgroup_counts *c;

	if (!h)
		return 0;
	h->execs++;
	c = counts_of(ht_cgroup_id(btf, p));
	if (c)
		c->execs++;
	if (HT_GET(report_exec))
		exec_event(ctx, btf, p, bprm);
	return 0;
}

HT_TP3(sched_process_exec, on_exec, struct task_struct *, u64, struct linux_binprm *)

static __always_inline int on_exit(void *ctx, bool btf, struct task_struct *p, bool last)
{
	struct host_counts *h = this_cpu();
	struct cgroup_counts *c;
	u32 code, sig, end;

	if (!h || !last || HT_READ(btf, p, flags) & PF_KTHREAD)
		return 0;
	code = HT_READ(btf, p, exit_code);
	sig = code & 0x7f;
	if (sig) {
		end = SIGNALED;
		if (sig < SIGNALS)
			h->signaled[sig]++;
	} else if (code) {
		end = FAILURE;
		h->failure++;
	} else {
		end = SUCCESS;
		h->success++;
	}
	c = counts_of(ht_cgroup_id(btf, p));
	if (c)
		c->exits[end]++;
	return 0;
}

/* Whether p was the last thread of its process, for kernels whose tracepoint does not tell: see core_fixes.h. */
static __always_inline bool was_last(bool btf, struct task_struct *p)
{
	struct signal_struct *s = HT_READ(btf, p, signal);

	return HT_READ(btf, s, live.counter) == 0;
}

static __always_inline int on_exit_1(void *ctx, bool btf, struct task_struct *p)
{
	return on_exit(ctx, btf, p, was_last(btf, p));
}

HT_TP2(sched_process_exit, on_exit, struct task_struct *, bool)
HT_TP_FORM(sched_process_exit_1, sched_process_exit, on_exit_1, (struct task_struct *)c[0])

static __always_inline int on_generate(void *ctx, bool btf, u64 sig, u64 info, struct task_struct *to)
{
	struct task_struct *t;
	struct sender s = {};
	s32 code = 0;
	u32 tgid;
	u64 id;

	if (!ht_dumps_core(sig))
		return 0;
	/* 0 and 1 stand for "a process without more to say" and "the kernel". */
	if (info == 1)
		return 0;
	if (info && bpf_probe_read_kernel(&code, sizeof(code), (void *)(info + HT_SI_CODE)))
		return 0;
	if (code > 0)
		return 0; /* a fault of its own */
	t = (void *)bpf_get_current_task();
	id = bpf_get_current_pid_tgid();
	s.ts = bpf_ktime_get_ns();
	s.cgroup = ht_cgroup_id(false, t);
	s.pid = id;
	s.tgid = id >> 32;
	s.sig = sig;
	bpf_get_current_comm(s.comm, sizeof(s.comm));
	tgid = HT_READ(btf, to, tgid);
	bpf_map_update_elem(&senders, &tgid, &s, BPF_ANY);
	return 0;
}

HT_TP3(signal_generate, on_generate, u64, u64, struct task_struct *)

static __always_inline int deliver(void *ctx, bool btf, bool place, u64 sig, void *info, struct k_sigaction *ka)
{
	struct task_struct *t = (void *)bpf_get_current_task();
	struct crash_wire *e;
	struct sender *from;
	s64 suppressed;
	u64 now, id;
	u32 tgid;

	if (!ht_dumps_core(sig) || HT_READ(btf, ka, sa.sa_handler))
		return 0;
	if (BPF_CORE_READ(t, signal, flags) & SIGNAL_UNKILLABLE)
		return 0;
	now = bpf_ktime_get_ns();
	suppressed = ht_admit(CRASH, now, HT_GET(process_crash_period_ns), HT_GET(process_crash_burst));
	if (suppressed < 0)
		return 0;
	e = ht_reserve(sizeof(*e));
	if (!e)
		return 0;
	__builtin_memset(e, 0, __builtin_offsetof(struct crash_wire, stack));
	id = bpf_get_current_pid_tgid();
	tgid = id >> 32;
	e->kind = CRASH;
	e->sig = sig;
	e->ts = now;
	e->suppressed = suppressed;
	e->cgroup = ht_cgroup_id(false, t);
	e->pid = id;
	e->tgid = tgid;
	bpf_get_current_comm(e->comm, sizeof(e->comm));
	bpf_probe_read_kernel(&e->code, sizeof(e->code), info + HT_SI_CODE);
	if (e->code > 0) {
		bpf_probe_read_kernel(&e->addr, sizeof(e->addr), info + HT_SI_ADDR);
		bpf_probe_read_kernel(&e->syscall, sizeof(e->syscall), info + HT_SI_SYSCALL);
	} else {
		from = bpf_map_lookup_elem(&senders, &tgid);
		if (from && from->sig == sig)
			e->from = *from;
	}
	e->frames = bpf_get_stack(ctx, e->stack, sizeof(e->stack), BPF_F_USER_STACK);
	if (btf) {
		ht_user_regs(&e->regs);
		if (place)
			ht_find_place(&e->place, e->regs.kind ? e->regs.pc : e->stack[0]);
	}
	/* Woken at once: the sooner user space looks, the more of the process is left. */
	ht_submit_now(ctx, e, sizeof(*e));
	return 0;
}

static __always_inline int on_deliver(void *ctx, bool btf, u64 sig, void *info, struct k_sigaction *ka)
{
	return deliver(ctx, btf, true, sig, info, ka);
}

/* For kernels that cannot load a program with a callback (before v5.13), and so none that might look up a place. */
static __always_inline int on_deliver_plain(void *ctx, bool btf, u64 sig, void *info, struct k_sigaction *ka)
{
	return deliver(ctx, btf, false, sig, info, ka);
}

HT_TP3(signal_deliver, on_deliver, u64, void *, struct k_sigaction *)
HT_TP_FORM(signal_deliver_plain, signal_deliver, on_deliver_plain, c[0], (void *)c[1], (struct k_sigaction *)c[2])
