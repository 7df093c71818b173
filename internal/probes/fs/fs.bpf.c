//go:build ignore
// SPDX-License-Identifier: GPL-2.0
/*
 * fs - how long fsync and journal commits take, who is paused because too much
 * is dirty, and what goes wrong in file systems.
 *
 * ext4 tells the beginning and the end of fsync, jbd2 those of a commit, each in
 * the task that does it: the stamp is in an array indexed by the pid's low bits.
 */
#include "huatuo.h"
#include "hist.h"
#include "cgroup.h"

#define STAMPS 4096 /* tasks that are in fsync or commit at once are tens */
#define FRAMES 32
#define MAX_ERRNO 4095

HT_CONST(u64, fs_error_period_ns, 1000000000);
HT_CONST(u64, fs_error_burst, 10);

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct file_system_type___fs {
	const char *name;
};

struct super_block___fs {
	dev_t s_dev;
	char s_id[32];
	struct file_system_type___fs *s_type;
};

struct inode___fs {
	unsigned long i_ino;
	dev_t i_rdev;
	struct super_block___fs *i_sb;
};

struct address_space___fs {
	struct inode___fs *host;
	u32 wb_err;
};

struct block_device___fs {
	dev_t bd_dev;
};

struct journal_s___fs {
	struct block_device___fs *j_fs_dev;
};

#pragma clang attribute pop

enum fs_op { FSYNC, COMMIT };

struct stamp {
	u64 ts;
	u32 pid;
	u32 op;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, STAMPS);
	__type(key, u32);
	__type(value, struct stamp);
} stamps SEC(".maps");

struct fs_key {
	u32 dev; /* as the kernel has it: 12 bits major, 20 minor */
	u32 op;
};

/* Shared by the CPUs: an fsync takes longer than a cache line does. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 512);
	__type(key, struct fs_key);
	__type(value, struct ht_hist);
} latencies SEC(".maps");

/* Where a new histogram is copied from: too large for the stack. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct ht_hist);
} empty SEC(".maps");

struct pauses {
	u64 pauses;
	u64 jiffies;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, u64);
	__type(value, struct pauses);
} cgroups SEC(".maps");

enum error_kind { DAMAGE, WRITE };

struct fs_error_wire {
	u64 ts;
	u64 suppressed;
	u64 cgroup; /* of current; 0 when it has nothing to do with it */
	u64 inode;  /* 0: not told */
	u32 dev;
	u32 kind;  /* enum error_kind */
	u32 error; /* errno of a write */
	u32 line;
	u32 pad;
	u32 pid;
	u32 tgid;
	s32 frames; /* bytes, negative: errno */
	u8 comm[16];
	u8 fstype[16];
	u8 device[32];
	u8 function[48];
	u64 stack[FRAMES];
};
HT_WIRE(fs_error_wire);

static __always_inline void begin(u32 op)
{
	u32 pid = bpf_get_current_pid_tgid(), slot = pid & (STAMPS - 1);
	struct stamp *s = bpf_map_lookup_elem(&stamps, &slot);

	if (!s)
		return;
	s->ts = bpf_ktime_get_ns();
	s->pid = pid;
	s->op = op;
}

static __always_inline void end(u32 op, u32 dev)
{
	u32 pid = bpf_get_current_pid_tgid(), slot = pid & (STAMPS - 1), zero = 0;
	struct stamp *s = bpf_map_lookup_elem(&stamps, &slot);
	struct fs_key key = { .dev = dev, .op = op };
	struct ht_hist *h;

	if (!s || !s->ts || s->pid != pid || s->op != op)
		return;
	h = bpf_map_lookup_elem(&latencies, &key);
	if (!h) {
		h = bpf_map_lookup_elem(&empty, &zero);
		if (!h)
			return;
		bpf_map_update_elem(&latencies, &key, h, BPF_NOEXIST);
		h = bpf_map_lookup_elem(&latencies, &key);
		if (!h)
			return;
	}
	ht_observe_shared(h, bpf_ktime_get_ns() - s->ts);
	s->ts = 0;
}

static __always_inline int on_sync_enter(void *ctx, bool btf, void *file)
{
	begin(FSYNC);
	return 0;
}

static __always_inline int on_sync_exit(void *ctx, bool btf, struct inode___fs *inode)
{
	struct super_block___fs *sb;
	u32 dev = 0;

	bpf_core_read(&sb, sizeof(sb), &inode->i_sb);
	bpf_core_read(&dev, sizeof(dev), &sb->s_dev);
	end(FSYNC, dev);
	return 0;
}

HT_TP1(ext4_sync_file_enter, on_sync_enter, void *)
HT_TP1(ext4_sync_file_exit, on_sync_exit, struct inode___fs *)

static __always_inline int on_commit_start(void *ctx, bool btf, void *journal)
{
	begin(COMMIT);
	return 0;
}

static __always_inline int on_commit_end(void *ctx, bool btf, struct journal_s___fs *journal)
{
	struct block_device___fs *bdev;
	u32 dev = 0;

	bpf_core_read(&bdev, sizeof(bdev), &journal->j_fs_dev);
	bpf_core_read(&dev, sizeof(dev), &bdev->bd_dev);
	end(COMMIT, dev);
	return 0;
}

HT_TP1(jbd2_start_commit, on_commit_start, void *)
HT_TP1(jbd2_end_commit, on_commit_end, struct journal_s___fs *)

/* @pause: jiffies; less than 1: it may go on */
static __always_inline int on_dirty(void *ctx, bool btf, s64 pause)
{
	u64 id = ht_cgroup_id(false, (void *)bpf_get_current_task());
	struct pauses zero = {}, *p;

	if (pause < 1)
		return 0;
	p = bpf_map_lookup_elem(&cgroups, &id);
	if (!p) {
		bpf_map_update_elem(&cgroups, &id, &zero, BPF_NOEXIST);
		p = bpf_map_lookup_elem(&cgroups, &id);
		if (!p)
			return 0;
	}
	__sync_fetch_and_add(&p->pauses, 1);
	__sync_fetch_and_add(&p->jiffies, pause);
	return 0;
}

/* (wb, dtc, dirty_ratelimit, task_ratelimit, dirtied, period, pause, start_time) */
HT_TP_FORM(balance_dirty_pages_dtc, balance_dirty_pages, on_dirty, (s64)c[6])
/* before: (wb, thresh, bg_thresh, dirty, bdi_thresh, bdi_dirty, dirty_ratelimit, task_ratelimit, dirtied, period, pause, start_time) */
HT_TP_FORM(balance_dirty_pages, balance_dirty_pages, on_dirty, (s64)c[10])

static __always_inline struct fs_error_wire *new_error(struct super_block___fs *sb, u64 now)
{
	struct file_system_type___fs *type;
	s64 suppressed = ht_admit(0, now, HT_GET(fs_error_period_ns), HT_GET(fs_error_burst));
	struct fs_error_wire *e;
	const char *name;

	if (suppressed < 0)
		return NULL;
	e = ht_reserve(sizeof(*e));
	if (!e)
		return NULL;
	__builtin_memset(e, 0, sizeof(*e) - sizeof(e->stack));
	e->ts = now;
	e->suppressed = suppressed;
	e->frames = -95; /* EOPNOTSUPP */
	bpf_core_read(&e->dev, sizeof(e->dev), &sb->s_dev);
	bpf_core_read(&e->device, sizeof(e->device), &sb->s_id);
	bpf_core_read(&type, sizeof(type), &sb->s_type);
	bpf_core_read(&name, sizeof(name), &type->name);
	bpf_probe_read_kernel_str(e->fstype, sizeof(e->fstype), name);
	return e;
}

static __always_inline int on_error(void *ctx, bool btf, struct super_block___fs *sb, const char *function, u32 line)
{
	struct fs_error_wire *e = new_error(sb, bpf_ktime_get_ns());
	u64 id = bpf_get_current_pid_tgid();

	if (!e)
		return 0;
	e->line = line;
	e->pid = id;
	e->tgid = id >> 32;
	e->cgroup = ht_cgroup_id(false, (void *)bpf_get_current_task());
	bpf_get_current_comm(e->comm, sizeof(e->comm));
	bpf_probe_read_kernel_str(e->function, sizeof(e->function), function);
	e->frames = bpf_get_stack(ctx, e->stack, sizeof(e->stack), 0);
	ht_submit(ctx, e, sizeof(*e));
	return 0;
}

HT_TP3(ext4_error, on_error, struct super_block___fs *, const char *, u32)

/* A page could not be written: noticed where the request ends, so current is somebody else. */
static __always_inline int on_wb_err(void *ctx, bool btf, struct address_space___fs *mapping, u32 seq)
{
	struct super_block___fs *sb;
	struct fs_error_wire *e;
	struct inode___fs *inode;
	u32 rdev = 0;

	bpf_core_read(&inode, sizeof(inode), &mapping->host);
	bpf_core_read(&sb, sizeof(sb), &inode->i_sb);
	e = new_error(sb, bpf_ktime_get_ns());
	if (!e)
		return 0;
	e->kind = WRITE;
	bpf_core_read(&seq, sizeof(seq), &mapping->wb_err); /* the argument may be what it was before */
	e->error = seq & MAX_ERRNO;
	bpf_core_read(&e->inode, sizeof(e->inode), &inode->i_ino);
	bpf_core_read(&rdev, sizeof(rdev), &inode->i_rdev);
	if (rdev) /* a block device's own pages: the file system's metadata, or nobody's */
		e->dev = rdev;
	ht_submit(ctx, e, sizeof(*e));
	return 0;
}

HT_TP2(filemap_set_wb_err, on_wb_err, struct address_space___fs *, u32)
