/* SPDX-License-Identifier: GPL-2.0 */
/* block.h - what we read of a block request. */
#pragma once
#include "flat.h"
#include "kernfs.h"

enum ht_io_op { HT_IO_READ, HT_IO_WRITE, HT_IO_FLUSH, HT_IO_DISCARD, HT_IO_OTHER, HT_IO_OPS };

/* REQ_OP_MASK and the first of enum req_op have not changed since v4.10. */
static __always_inline u32 ht_io_op(u32 cmd_flags)
{
	u64 op = cmd_flags & 0xff;

	return op - ht_less(HT_IO_OTHER, op) * (op - HT_IO_OTHER);
}

/*
 * Classes of outcome: BLK_STS_* up to BLK_STS_AGAIN, whose numbers are the same
 * in all kernels since v4.17; later ones are not and fall together.
 */
enum ht_io_class {
	HT_IO_OK,
	HT_IO_NOTSUPP,
	HT_IO_TIMEOUT,
	HT_IO_NOSPC,
	HT_IO_TRANSPORT,
	HT_IO_TARGET,
	HT_IO_RESERVATION,
	HT_IO_MEDIUM,
	HT_IO_PROTECTION,
	HT_IO_RESOURCE,
	HT_IO_IOERR,
	HT_IO_DM_REQUEUE,
	HT_IO_AGAIN,
	HT_IO_REST,
	HT_IO_CLASSES = 16,
};

/*
 * What block_rq_complete says: a BLK_STS_* since 8a7d267b4a2c ("block: don't
 * call blk_status_to_errno in blk_update_request"), v5.16; before that the
 * errno that stands for it.
 */
static __always_inline u32 ht_io_class(s32 error)
{
	u64 negative = (u64)(s64)error >> 63, known = 0, class = 0, e;

	barrier_var(negative); /* see flat.h */
	e = ((s64)error ^ -negative) + negative;
#define HT_IO_ERRNO(errno, is)                                                                                         \
	({                                                                                                             \
		u64 hit = ht_equal(e, errno);                                                                          \
		known |= hit;                                                                                          \
		class |= hit * (is);                                                                                   \
	})
	HT_IO_ERRNO(95 /* EOPNOTSUPP */, HT_IO_NOTSUPP);
	HT_IO_ERRNO(110 /* ETIMEDOUT */, HT_IO_TIMEOUT);
	HT_IO_ERRNO(28 /* ENOSPC */, HT_IO_NOSPC);
	HT_IO_ERRNO(67 /* ENOLINK */, HT_IO_TRANSPORT);
	HT_IO_ERRNO(121 /* EREMOTEIO */, HT_IO_TARGET);
	HT_IO_ERRNO(52 /* EBADE */, HT_IO_RESERVATION);
	HT_IO_ERRNO(61 /* ENODATA */, HT_IO_MEDIUM);
	HT_IO_ERRNO(84 /* EILSEQ */, HT_IO_PROTECTION);
	HT_IO_ERRNO(12 /* ENOMEM */, HT_IO_RESOURCE);
	HT_IO_ERRNO(5 /* EIO */, HT_IO_IOERR);
	HT_IO_ERRNO(11 /* EAGAIN */, HT_IO_AGAIN);
#undef HT_IO_ERRNO
	class += (1 - known) * HT_IO_REST;
	e -= ht_less(HT_IO_REST, e) * (e - HT_IO_REST);
	return negative * class + (1 - negative) * e;
}

/* Not what went well, what a caller provokes by asking (an operation that the device lacks, RWF_NOWAIT) or what is tried again. */
static __always_inline bool ht_io_abnormal(u32 class)
{
	const u32 normal =
		1 << HT_IO_OK | 1 << HT_IO_NOTSUPP | 1 << HT_IO_RESOURCE | 1 << HT_IO_DM_REQUEUE | 1 << HT_IO_AGAIN;

	return !(normal >> (class & 31) & 1);
}

/*
 * Whether a request is one to measure. Other requests without data are the two
 * ends of a flush sequence, which complete more than once, and driver-internal
 * commands, whose completion is not always traced.
 */
static __always_inline bool ht_rq_counts(bool btf, struct request *rq)
{
	return HT_READ(btf, rq, __data_len) || ht_io_op(HT_READ(btf, rq, cmd_flags)) == HT_IO_FLUSH;
}

/* The whole disk, as major << 20 | minor; 0 for a request without a disk. */
static __always_inline u32 ht_rq_dev(bool btf, struct request *rq)
{
	struct gendisk *disk = NULL;
	struct request_queue *q;

	if (bpf_core_field_exists(struct request_queue, disk)) {
		q = HT_READ(btf, rq, q);
		disk = HT_READ(btf, q, disk);
	} else {
		struct request___5_16_0 *o = (void *)rq;

		bpf_core_read(&disk, sizeof(disk), &o->rq_disk);
		btf = false; /* not a pointer that the verifier trusts */
	}
	return HT_READ(btf, disk, major) << 20 | HT_READ(btf, disk, first_minor);
}

/*
 * The cgroup to which the kernel charges I/O: of the task that
 * submitted it, or with cgroup v2 of the one that dirtied the pages. Its id in
 * the v1 blkio or in the default hierarchy; 0 when the kernel does not say.
 */
static __always_inline u64 ht_bio_cgroup(bool btf, struct bio *bio)
{
	struct blkcg_gq *blkg;
	struct kernfs_node *kn;
	struct blkcg *blkcg;
	struct cgroup *cg;

	if (!bpf_core_field_exists(struct bio, bi_blkg))
		return 0;
	/* Any of them may be NULL: to read of that gives 0. */
	blkg = HT_READ(btf, bio, bi_blkg);
	blkcg = HT_READ(btf, blkg, blkcg);
	cg = HT_READ(btf, blkcg, css.cgroup);
	kn = HT_READ(btf, cg, kn);
	return ht_kernfs_id(btf, kn);
}

static __always_inline u64 ht_rq_cgroup(bool btf, struct request *rq)
{
	return ht_bio_cgroup(btf, HT_READ(btf, rq, bio));
}

/* ht_rq_dev() of what is not part of a request yet. */
static __always_inline u32 ht_bio_dev(bool btf, struct bio *bio)
{
	struct gendisk *disk = NULL;
	struct block_device *bdev;

	if (bpf_core_field_exists(struct bio, bi_bdev)) {
		bdev = HT_READ(btf, bio, bi_bdev);
		disk = HT_READ(btf, bdev, bd_disk);
	} else {
		struct bio___5_11_0 *o = (void *)bio;

		bpf_core_read(&disk, sizeof(disk), &o->bi_disk);
		btf = false; /* not a pointer that the verifier trusts */
	}
	return HT_READ(btf, disk, major) << 20 | HT_READ(btf, disk, first_minor);
}
