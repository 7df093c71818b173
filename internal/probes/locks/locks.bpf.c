//go:build ignore
// SPDX-License-Identifier: GPL-2.0
/*
 * locks - how long tasks and CPUs wait for the kernel's own locks, and which.
 *
 * contention_begin and contention_end (v5.19) are only reached when a lock is
 * taken. Who spins keeps its CPU: its stamp is in a small stack of the CPU,
 * since an interrupt may spin for another lock meanwhile. Who sleeps does not:
 * its stamp is in an array indexed by the low bits of the pid, since a hash or a
 * task storage would take locks of their own here.
 */
#include "huatuo.h"
#include "hist.h"
#include "cgroup.h"

#define NEST 4	      /* task, softirq, hardirq, NMI */
#define SLEEPERS 8192 /* 320 KiB; tasks that wait for a lock at once are hundreds at worst */
#define FRAMES 32
#define CALLER_FRAMES 16	      /* ours, the tracepoint's, the lock's, and then who took it */
#define STALE_NS (10ULL * 1000000000) /* nobody spins that long: the end was missed */

/* include/trace/events/lock.h */
#define LCB_F_SPIN (1U << 0)
#define LCB_F_READ (1U << 1)
#define LCB_F_WRITE (1U << 2)
#define LCB_F_RT (1U << 3)
#define LCB_F_PERCPU (1U << 4)
#define LCB_F_MUTEX (1U << 5)

const volatile u64 stall_ns = 20000000;
const volatile u64 long_ns = 100000;
const volatile u64 lock_contention_period_ns = 200000000;
const volatile u64 lock_contention_burst = 10;

/* Where the code of locks is, and the kernel's own data; 0: not known. */
const volatile u64 sched_text[2] = {};
const volatile u64 lock_text[2] = {};
const volatile u64 static_data[2] = {};

/* Those that sleep come first. */
enum lock_type {
	MUTEX,
	RWSEM_READ,
	RWSEM_WRITE,
	PERCPU_READ,
	PERCPU_WRITE,
	RTMUTEX,
	SEMAPHORE,
	SLEEPING,
	SPINLOCK = SLEEPING,
	RWLOCK_READ,
	RWLOCK_WRITE,
	TYPES,
};

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct mutex___locks {
	atomic_long_t owner; /* a task with flags in the low bits; not with PREEMPT_RT */
};

struct rw_semaphore___locks {
	atomic_long_t owner;
};

#pragma clang attribute pop

struct wait {
	u64 lock;
	u64 ts;
	u64 owner; /* task that had it when the wait began */
	u32 pid;   /* of the waiter, for those that sleep */
	u32 type;
	u32 owner_pid;
	u32 owner_tgid;
};

struct cpu_state {
	u32 depth;
	u32 busy; /* in our own code: the locks that it takes do not count */
	struct wait spins[NEST];
	struct ht_hist_fine wait[TYPES];
	u64 long_waits[TYPES];
	u64 long_wait_ns[TYPES];
	u64 collisions;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct cpu_state);
} cpus SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SLEEPERS);
	__type(key, u32);
	__type(value, struct wait);
} sleepers SEC(".maps");

/* Which lock: its address when it is one of the kernel's own, else who took it. */
struct site {
	u64 addr;
	u32 type;
	u32 pad;
};

struct site_waits {
	u64 waits;
	u64 ns;
};

/* Not LRU: counters must not go back. Once it is full, new ones count in the sums of the CPU alone. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, struct site);
	__type(value, struct site_waits);
} sites SEC(".maps");

struct cgroup_waits {
	struct site_waits by_type[SLEEPING];
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, u64);
	__type(value, struct cgroup_waits);
} cgroups SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct cgroup_waits);
} empty SEC(".maps");

struct lock_contention_wire {
	u64 ts; /* end of the wait */
	u64 waited;
	u64 suppressed;
	u64 cgroup;	  /* of current */
	u64 site;	  /* as in struct site */
	u64 owner_cgroup; /* 0: not known, like the pids */
	u32 owner_pid;
	u32 owner_tgid;
	u32 pid; /* current */
	u32 tgid;
	u32 cpu;
	u32 type;
	s32 ret;    /* of the lock: 0 when it was got */
	s32 frames; /* bytes, negative: errno */
	s32 user_frames;
	u32 pad;
	u8 comm[16];
	u8 owner_comm[16];
	u64 stack[FRAMES];
	u64 user_stack[FRAMES];
};
HT_WIRE(lock_contention_wire);

static __always_inline u32 type_of(u32 flags)
{
	if (flags & LCB_F_MUTEX) /* with LCB_F_SPIN while it waits for the owner to sleep */
		return MUTEX;
	if (flags & LCB_F_PERCPU)
		return flags & LCB_F_WRITE ? PERCPU_WRITE : PERCPU_READ;
	if (flags & LCB_F_RT)
		return RTMUTEX;
	if (flags & LCB_F_SPIN) {
		if (flags & LCB_F_READ)
			return RWLOCK_READ;
		return flags & LCB_F_WRITE ? RWLOCK_WRITE : SPINLOCK;
	}
	if (flags & LCB_F_READ)
		return RWSEM_READ;
	return flags & LCB_F_WRITE ? RWSEM_WRITE : SEMAPHORE;
}

/* Note who has the lock; a reader that has it is not known for sure, and not noted. */
static __always_inline void note_owner(struct wait *w, void *lock, u32 type)
{
	struct mutex___locks *m = lock;
	struct rw_semaphore___locks *s = lock;
	struct task_struct *t;
	u64 owner = 0;

	if (type == MUTEX) {
		if (bpf_core_field_exists(m->owner))
			bpf_core_read(&owner, sizeof(owner), &m->owner);
	} else if (type == RWSEM_READ || type == RWSEM_WRITE) {
		if (bpf_core_field_exists(s->owner))
			bpf_core_read(&owner, sizeof(owner), &s->owner);
		if (owner & 1) /* RWSEM_READER_OWNED */
			owner = 0;
	}
	w->owner = owner & ~7ULL;
	w->owner_pid = 0;
	w->owner_tgid = 0;
	if (!w->owner)
		return;
	t = (void *)w->owner;
	bpf_core_read(&w->owner_pid, sizeof(w->owner_pid), &t->pid);
	bpf_core_read(&w->owner_tgid, sizeof(w->owner_tgid), &t->tgid);
}

static __always_inline struct cpu_state *this_cpu(void)
{
	u32 zero = 0;

	return bpf_map_lookup_elem(&cpus, &zero);
}

static __always_inline int on_begin(void *ctx, bool btf, void *lock, u32 flags)
{
	u32 type = type_of(flags), pid, slot, i;
	struct cpu_state *c = this_cpu();
	struct wait *w;
	u64 now;

	if (!c || c->busy)
		return 0;
	if (type >= SLEEPING) {
		now = bpf_ktime_get_ns();
		i = c->depth;
		if (i >= NEST || (i && now - c->spins[(i - 1) & (NEST - 1)].ts > STALE_NS))
			i = 0;
		w = &c->spins[i & (NEST - 1)];
		w->lock = (u64)lock;
		w->ts = now;
		w->type = type;
		c->depth = i + 1;
		return 0;
	}
	pid = bpf_get_current_pid_tgid();
	slot = pid & (SLEEPERS - 1);
	w = bpf_map_lookup_elem(&sleepers, &slot);
	if (!w || !pid)
		return 0;
	if (type == MUTEX && w->lock == (u64)lock && w->pid == pid) /* spun for it, and sleeps now */
		return 0;
	if (w->lock && w->pid != pid)
		c->collisions++;
	w->lock = (u64)lock;
	w->ts = bpf_ktime_get_ns();
	w->pid = pid;
	w->type = type;
	note_owner(w, lock, type);
	return 0;
}

static __always_inline bool within(const volatile u64 range[2], u64 addr)
{
	return addr >= range[0] && addr < range[1];
}

/* The first function behind those of locks. */
static __always_inline u64 caller(void *ctx)
{
	u64 ips[CALLER_FRAMES] = {};
	bool seen = false;
	u32 i;

	if (!lock_text[1] || bpf_get_stack(ctx, ips, sizeof(ips), 0) < 0)
		return 0;
	for (i = 0; i < CALLER_FRAMES; i++) {
		if (within(lock_text, ips[i]) || within(sched_text, ips[i]))
			seen = true;
		else if (seen)
			return ips[i];
	}
	return 0;
}

static __always_inline void count_site(u64 addr, u32 type, u64 ns)
{
	struct site key = { .addr = addr, .type = type };
	struct site_waits zero = {}, *s = bpf_map_lookup_elem(&sites, &key);

	if (!s) {
		bpf_map_update_elem(&sites, &key, &zero, BPF_NOEXIST);
		s = bpf_map_lookup_elem(&sites, &key);
		if (!s)
			return;
	}
	__sync_fetch_and_add(&s->waits, 1);
	__sync_fetch_and_add(&s->ns, ns);
}

static __always_inline void count_cgroup(u64 id, u32 type, u64 ns)
{
	struct cgroup_waits *g = bpf_map_lookup_elem(&cgroups, &id);
	u32 zero = 0;

	if (!g) {
		g = bpf_map_lookup_elem(&empty, &zero);
		if (!g)
			return;
		bpf_map_update_elem(&cgroups, &id, g, BPF_NOEXIST);
		g = bpf_map_lookup_elem(&cgroups, &id);
	}
	if (!g || type >= SLEEPING)
		return;
	__sync_fetch_and_add(&g->by_type[type].waits, 1);
	__sync_fetch_and_add(&g->by_type[type].ns, ns);
}

static __always_inline void describe_owner(struct lock_contention_wire *e, struct wait *w)
{
	struct task_struct *t = (void *)w->owner;
	u32 pid = 0;

	e->owner_pid = 0;
	e->owner_tgid = 0;
	e->owner_cgroup = 0;
	__builtin_memset(e->owner_comm, 0, sizeof(e->owner_comm));
	if (!t || !w->owner_pid)
		return;
	e->owner_pid = w->owner_pid;
	e->owner_tgid = w->owner_tgid;
	bpf_core_read(&pid, sizeof(pid), &t->pid);
	if (pid != w->owner_pid) /* it has ended meanwhile */
		return;
	bpf_probe_read_kernel(e->owner_comm, sizeof(e->owner_comm), t->comm);
	e->owner_cgroup = ht_cgroup_id(false, t);
}

static __always_inline void stall(void *ctx, struct wait *w, u64 cgroup, u64 site, u64 now, s32 ret)
{
	u64 id = bpf_get_current_pid_tgid();
	struct lock_contention_wire *e;
	s64 suppressed;

	suppressed = ht_admit(w->type >= SLEEPING, now, lock_contention_period_ns, lock_contention_burst);
	if (suppressed < 0)
		return;
	e = ht_reserve(sizeof(*e));
	if (!e)
		return;
	e->ts = now;
	e->waited = now - w->ts;
	e->suppressed = suppressed;
	e->cgroup = cgroup;
	e->site = site;
	e->pid = id;
	e->tgid = id >> 32;
	e->cpu = bpf_get_smp_processor_id();
	e->type = w->type;
	e->ret = ret;
	e->pad = 0;
	bpf_get_current_comm(e->comm, sizeof(e->comm));
	describe_owner(e, w);
	e->frames = bpf_get_stack(ctx, e->stack, sizeof(e->stack), 0);
	e->user_frames = -95; /* EOPNOTSUPP: who spins may be an interrupt */
	if (w->type < SLEEPING)
		e->user_frames = bpf_get_stack(ctx, e->user_stack, sizeof(e->user_stack), BPF_F_USER_STACK);
	ht_submit(ctx, e, sizeof(*e));
}

static __always_inline void count_wait(void *ctx, bool btf, struct cpu_state *c, struct wait *w, u64 now, s32 ret)
{
	u64 ns = now - w->ts, cgroup = 0, site, type = w->type;

	barrier_var(type); /* what is compared is what is used, or the verifier of 6.1 does not see the bound */
	if ((s64)ns < 0 || type >= TYPES)
		return;
	ht_observe_fine(&c->wait[type], ns);
	if (type < SLEEPING) {
		cgroup = ht_cgroup_id(false, (void *)bpf_get_current_task());
		count_cgroup(cgroup, type, ns);
	}
	barrier_var(type);
	if (ns < long_ns || type >= TYPES)
		return;
	c->long_waits[type]++;
	c->long_wait_ns[type] += ns;
	site = within(static_data, w->lock) ? w->lock : caller(ctx);
	count_site(site, type, ns);
	if (ns >= stall_ns)
		stall(ctx, w, cgroup, site, now, ret);
}

/* The stamp of the wait for a lock that ends here, as a copy: it is free for the next. */
static __always_inline bool take(struct cpu_state *c, u64 lock, struct wait *to)
{
	u32 i = c->depth, n, pid, slot;
	struct wait *w;

	for (n = 0; n < NEST && i > 0; n++) {
		i--;
		w = &c->spins[i & (NEST - 1)];
		if (w->lock == lock) {
			*to = *w;
			c->depth = i;
			return true;
		}
	}
	pid = bpf_get_current_pid_tgid();
	slot = pid & (SLEEPERS - 1);
	w = bpf_map_lookup_elem(&sleepers, &slot);
	if (!w || w->lock != lock || w->pid != pid)
		return false;
	*to = *w;
	w->lock = 0;
	return true;
}

static __always_inline int on_end(void *ctx, bool btf, void *lock, s32 ret)
{
	struct cpu_state *c = this_cpu();
	struct wait w;

	if (!c || c->busy)
		return 0;
	if (!take(c, (u64)lock, &w))
		return 0;
	c->busy = 1;
	count_wait(ctx, btf, c, &w, bpf_ktime_get_ns(), ret);
	c->busy = 0;
	return 0;
}

HT_TP2(contention_begin, on_begin, void *, u32)
HT_TP2(contention_end, on_end, void *, s32)
