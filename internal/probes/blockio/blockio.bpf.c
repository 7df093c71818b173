//go:build ignore
// SPDX-License-Identifier: GPL-2.0
/*
 * blockio - how long block requests wait and take, by device and by workload.
 *
 * The kernel keeps in each request when it was made and when it was issued, so
 * a completion alone tells all latencies. What the kernel does not keep is which
 * requests are under way and who sent them: `flights` has that, a
 * set-associative table keyed by the request. A hash map with update and delete
 * would cost 260 ns a request, this costs a few loads; user space maps it and
 * looks for requests that hang.
 */
#include "huatuo.h"
#include "hist.h"
#include "block.h"

HT_CONST(u64, stall_ns, 1000000000);
HT_CONST(u64, io_stall_period_ns, 1000000000);
HT_CONST(u64, io_stall_burst, 10);
HT_CONST(u64, io_error_period_ns, 1000000000);
HT_CONST(u64, io_error_burst, 10);

enum { IO_STALL, IO_ERROR }; /* kinds of event */

/* Per device and operation. */
struct io_key {
	u32 dev;
	u32 op;
};

/* Sizes of requests in powers of two: up to 512 bytes, 1 KiB, … 16 MiB and beyond. The unit is half a byte, in which hist.h has these bounds. */
struct io_sizes {
	u64 zero;
	u64 sum;
	u64 slots[15];
};

struct io_stats {
	struct ht_hist queue;	    /* made -> issued */
	struct ht_hist_fine device; /* issued -> completed */
	struct ht_hist_fine total;  /* made -> completed */
	struct io_sizes size;
	u64 bytes;
	u64 requeues;
	u64 merges;
	u64 errors[HT_IO_CLASSES];
};

/* User space sizes it by the number of disks; what does not fit is counted in `missed`. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 256);
	__type(key, struct io_key);
	__type(value, struct io_stats);
} devices SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct io_stats);
} no_stats SEC(".maps");

/* Per cgroup of the blkio (v1) or default hierarchy: reads, and all the rest. */
struct io_cgroup {
	struct ht_hist total[2];
	u64 bytes[2];
	u64 merges[2];
};

/* 1024 cgroups that do I/O; the least recently used go first. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_PERCPU_HASH);
	__uint(max_entries, 1024);
	__type(key, u64);
	__type(value, struct io_cgroup);
} cgroups SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct io_cgroup);
} no_cgroup SEC(".maps");

/* A request under way. rq and made together identify it. */
struct flight {
	u64 rq;	    /* key_of() it, 0: the slot is free */
	u64 made;   /* ns */
	u64 issued; /* ns, 0: not yet */
	u64 sector;
	u64 cgroup; /* as in cgroups */
	u32 dev;
	u32 bytes;
	u32 flags; /* cmd_flags */
	u32 requeues;
	u32 pid; /* thread that inserted or issued it first */
	u32 tgid;
	u8 comm[16];
};

#define WAYS 4
#define SETS 1024 /* 4096 requests: 64 hardware queues of 64 */

struct flight_set {
	struct flight way[WAYS];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, HT_MMAPABLE);
	__uint(max_entries, SETS);
	__type(key, u32);
	__type(value, struct flight_set);
} flights SEC(".maps");

enum { MISSED_FLIGHT, MISSED_DEVICE, MISSED };

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, MISSED);
	__type(key, u32);
	__type(value, u64);
} missed SEC(".maps");

struct io_wire {
	u64 ts; /* completion */
	u64 suppressed;
	struct flight io;
	u32 kind;
	s32 error; /* class, enum ht_io_class */
	u32 done;  /* bytes that this completion was about */
	u32 known; /* io says who sent it */
};
HT_WIRE(io_wire);

static __always_inline void miss(u32 what)
{
	u64 *n = bpf_map_lookup_elem(&missed, &what);

	if (n)
		*n += 1;
}

/* What identifies a request: a number, unlike a pointer, and no address that could leave the kernel. */
static __always_inline u64 key_of(bool btf, struct request *rq)
{
	/* To the verifier the difference of two pointers is a number. */
	return btf ? (u64)rq - (u64)&stall_ns : (u64)rq;
}

static __always_inline struct flight_set *set_of(u64 key)
{
	/* Requests of a queue lie next to each other, some hundred bytes apart. */
	u32 i = ((u32)(key >> 6) * 0x9e3779b1U) >> 22;

	return bpf_map_lookup_elem(&flights, &i);
}

/*
 * The slot of the key's set that holds @wanted, 0 for a free one. Which way it
 * is comes without a branch for each: the verifier would walk all of them to the
 * end of the program.
 */
static __always_inline struct flight *find(u64 key, u64 wanted)
{
	struct flight_set *s = set_of(key);
	u64 way = WAYS;

	if (!s)
		return NULL;
	way += ht_equal(s->way[3].rq, wanted) * (3 - way);
	way += ht_equal(s->way[2].rq, wanted) * (2 - way);
	way += ht_equal(s->way[1].rq, wanted) * (1 - way);
	way += ht_equal(s->way[0].rq, wanted) * (0 - way);
	/* Against the compiler, which would compare another copy of way than it uses. */
	asm volatile("" : "+r"(way));
	if (way >= WAYS)
		return NULL;
	return &s->way[way];
}

/*
 * The slot of a request, taken now if it has none. @now may be 0: not read yet.
 * Two CPUs that take the same slot at once lose one of the two flights.
 */
static __always_inline struct flight *take(bool btf, struct request *rq, u64 now)
{
	u64 key = key_of(btf, rq), made, id;
	struct flight *f;

	made = HT_READ(btf, rq, start_time_ns);
	f = find(key, key);
	if (f && (f->made == made || (!made && !f->issued)))
		return f;
	if (!f)
		f = find(key, 0);
	if (!f) {
		miss(MISSED_FLIGHT);
		return NULL;
	}
	id = bpf_get_current_pid_tgid();
	f->rq = key;
	if (!made) /* the queue's iostats are off */
		made = now ? now : bpf_ktime_get_ns();
	f->made = made;
	f->issued = 0;
	f->requeues = 0;
	f->sector = HT_READ(btf, rq, __sector);
	f->bytes = HT_READ(btf, rq, __data_len);
	f->flags = HT_READ(btf, rq, cmd_flags);
	f->dev = ht_rq_dev(btf, rq);
	f->cgroup = ht_rq_cgroup(btf, rq);
	f->pid = id;
	f->tgid = id >> 32;
	bpf_get_current_comm(f->comm, sizeof(f->comm));
	return f;
}

static __always_inline int on_insert(void *ctx, bool btf, struct request *rq)
{
	if (ht_rq_counts(btf, rq))
		take(btf, rq, 0);
	return 0;
}

HT_TP_FORM(block_rq_insert, block_rq_insert, on_insert, (struct request *)c[0])
HT_TP_FORM(block_rq_insert_q, block_rq_insert, on_insert, (struct request *)c[1])

static __always_inline int on_issue(void *ctx, bool btf, struct request *rq)
{
	u64 now = bpf_ktime_get_ns();
	struct flight *f;

	if (!ht_rq_counts(btf, rq))
		return 0;
	f = take(btf, rq, now);
	if (!f)
		return 0;
	f->bytes = HT_READ(btf, rq, __data_len); /* merges made it grow since the insert */
	f->sector = HT_READ(btf, rq, __sector);
	f->issued = now;
	return 0;
}

HT_TP_FORM(block_rq_issue, block_rq_issue, on_issue, (struct request *)c[0])
HT_TP_FORM(block_rq_issue_q, block_rq_issue, on_issue, (struct request *)c[1])

/* A request that was merged into another is freed without a completion. */
static __always_inline int on_merge(void *ctx, bool btf, struct request *rq)
{
	u64 key = key_of(btf, rq);
	struct flight *f = find(key, key);

	if (f)
		f->rq = 0;
	return 0;
}

HT_TP_FORM(block_rq_merge, block_rq_merge, on_merge, (struct request *)c[0])

static __always_inline struct io_stats *stats_of(u32 dev, u32 op)
{
	struct io_key k = { .dev = dev, .op = op };
	struct io_stats *s = bpf_map_lookup_elem(&devices, &k);
	u32 zero = 0;

	if (s)
		return s;
	s = bpf_map_lookup_elem(&no_stats, &zero);
	if (!s)
		return NULL;
	bpf_map_update_elem(&devices, &k, s, BPF_NOEXIST);
	s = bpf_map_lookup_elem(&devices, &k);
	if (!s)
		miss(MISSED_DEVICE);
	return s;
}

static __always_inline int on_requeue(void *ctx, bool btf, struct request *rq)
{
	u64 key = key_of(btf, rq);
	struct io_stats *s;
	struct flight *f;

	if (!ht_rq_counts(btf, rq))
		return 0;
	s = stats_of(ht_rq_dev(btf, rq), ht_io_op(HT_READ(btf, rq, cmd_flags)));
	if (s)
		s->requeues++;
	f = find(key, key);
	if (f) {
		f->issued = 0;
		f->requeues++;
	}
	return 0;
}

HT_TP_FORM(block_rq_requeue, block_rq_requeue, on_requeue, (struct request *)c[0])
HT_TP_FORM(block_rq_requeue_q, block_rq_requeue, on_requeue, (struct request *)c[1])

/* ht_observe() and ht_observe_fine() when the fine slot is known; four fine ones are a coarse one. */
static __always_inline void observe(struct ht_hist *h, u64 ns, u64 slot)
{
	ht_add_flat((u64 *)h, sizeof(*h) / 8, ht_units(ns), slot >> 2);
}

static __always_inline void observe_fine(struct ht_hist_fine *h, u64 ns, u64 slot)
{
	ht_add_flat((u64 *)h, sizeof(*h) / 8, ht_units(ns), slot);
}

static __always_inline struct io_cgroup *cgroup_of(u64 id)
{
	struct io_cgroup *g = bpf_map_lookup_elem(&cgroups, &id);
	u32 zero = 0;

	if (g)
		return g;
	g = bpf_map_lookup_elem(&no_cgroup, &zero);
	if (!g)
		return NULL;
	bpf_map_update_elem(&cgroups, &id, g, BPF_NOEXIST);
	return bpf_map_lookup_elem(&cgroups, &id);
}

static __always_inline void observe_cgroup(u64 id, u32 op, u64 ns, u64 slot, u32 bytes)
{
	struct io_cgroup *g = cgroup_of(id);

	if (!g)
		return;
	if (op == HT_IO_READ) {
		observe(&g->total[0], ns, slot);
		g->bytes[0] += bytes;
	} else {
		observe(&g->total[1], ns, slot);
		g->bytes[1] += bytes;
	}
}

/* A bio that became part of a request that was there already. */
static __always_inline int on_bio_merge(void *ctx, bool btf, struct bio *bio)
{
	u32 op = ht_io_op(HT_READ(btf, bio, bi_opf));
	struct io_cgroup *g;
	struct io_stats *s;

	s = stats_of(ht_bio_dev(btf, bio), op);
	if (s)
		s->merges++;
	g = cgroup_of(ht_bio_cgroup(btf, bio));
	if (!g)
		return 0;
	if (op == HT_IO_READ)
		g->merges[0]++;
	else
		g->merges[1]++;
	return 0;
}

HT_TP_FORM(block_bio_backmerge, block_bio_backmerge, on_bio_merge, (struct bio *)c[0])
HT_TP_FORM(block_bio_frontmerge, block_bio_frontmerge, on_bio_merge, (struct bio *)c[0])
HT_TP_FORM(block_bio_backmerge_q, block_bio_backmerge, on_bio_merge, (struct bio *)c[2])
HT_TP_FORM(block_bio_frontmerge_q, block_bio_frontmerge, on_bio_merge, (struct bio *)c[2])

static __always_inline void report(void *ctx, bool btf, struct request *rq, struct flight *f, u32 kind, u64 now,
				   u64 period, u64 burst, u64 made, u64 issued, u32 class, u32 done)
{
	s64 suppressed = ht_admit(kind, now, period, burst);
	struct io_wire *e;

	if (suppressed < 0)
		return;
	e = ht_reserve(sizeof(*e));
	if (!e)
		return;
	__builtin_memset(e, 0, sizeof(*e));
	if (f)
		e->io = *f;
	e->ts = now;
	e->suppressed = suppressed;
	e->kind = kind;
	e->error = class;
	e->done = done;
	e->known = f != NULL;
	e->io.made = made;
	e->io.issued = issued;
	e->io.dev = ht_rq_dev(btf, rq);
	e->io.flags = HT_READ(btf, rq, cmd_flags);
	e->io.sector = HT_READ(btf, rq, __sector);
	if (!f) {
		e->io.bytes = HT_READ(btf, rq, __data_len);
		e->io.cgroup = ht_rq_cgroup(btf, rq);
	}
	ht_submit(ctx, e, sizeof(*e));
}

/* What one branch decides here doubles what the verifier walks: hence flat.h. */
static __always_inline int on_complete(void *ctx, bool btf, struct request *rq, s32 error, u32 bytes)
{
	u32 left = HT_READ(btf, rq, __data_len), op = ht_io_op(HT_READ(btf, rq, cmd_flags)), class;
	u64 key = key_of(btf, rq), now, made, issued, total, failed, is_timed, is_issued, is_queued;
	struct flight *f;
	struct io_stats *s;

	if (!(left | ht_equal(op, HT_IO_FLUSH)))
		return 0; /* see ht_rq_counts() */
	class = ht_io_class(error);
	failed = 1 - ht_equal(class, HT_IO_OK);
	now = bpf_ktime_get_ns();
	f = find(key, key);
	made = HT_READ(btf, rq, start_time_ns);
	issued = HT_READ(btf, rq, io_start_time_ns); /* 0 when the queue keeps no statistics */
	if (f) {
		made += ht_equal(made, 0) * f->made;
		issued += ht_equal(issued, 0) * f->issued;
	}
	s = stats_of(ht_rq_dev(btf, rq), op);
	if (s) {
		s->errors[class & (HT_IO_CLASSES - 1)] += failed;
		s->bytes += (1 - failed) * bytes;
	}
	if (ht_io_abnormal(class))
		report(ctx, btf, rq, f, IO_ERROR, now, HT_GET(io_error_period_ns), HT_GET(io_error_burst), made, issued,
		       class, bytes);
	if (bytes < left)
		return 0; /* the rest completes later */

	is_timed = (1 - ht_equal(made, 0)) & (1 - ht_less(now, made));
	is_issued = (1 - ht_equal(issued, 0)) & (1 - ht_less(now, issued));
	is_queued = (1 - ht_equal(made, 0)) & (1 - ht_less(issued, made));
	total = now - made;
	if (s)
		ht_add_flat((u64 *)&s->size, sizeof(s->size) / 8, 2 * (u64)left, ht_slot_flat(2 * (u64)left) >> 2);
	if (is_timed) {
		u64 slot = ht_slot_flat(ht_units(total));

		if (s)
			observe_fine(&s->total, total, slot);
		observe_cgroup(ht_rq_cgroup(btf, rq), op, total, slot, (1 - failed) * bytes);
		if (total >= HT_GET(stall_ns))
			report(ctx, btf, rq, f, IO_STALL, now, HT_GET(io_stall_period_ns), HT_GET(io_stall_burst), made,
			       issued, class, bytes);
	}
	if (s && is_issued) {
		observe_fine(&s->device, now - issued, ht_slot_flat(ht_units(now - issued)));
		if (is_queued)
			observe(&s->queue, issued - made, ht_slot_flat(ht_units(issued - made)));
	}
	if (f)
		f->rq = 0;
	return 0;
}

HT_TP3(block_rq_complete, on_complete, struct request *, s32, u32)
