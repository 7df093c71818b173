//go:build ignore
// SPDX-License-Identifier: GPL-2.0
/*
 * nettx - how long packets wait in a queueing discipline, and how long drivers take to accept them.
 *
 * All of it runs for each packet sent, so the clock, which costs more than the
 * rest, is read for one packet of so many only. The others pass by a stamp of
 * their address, because a packet that was dropped leaves its stamp behind and
 * its memory is used again at once.
 */
#include "kernel.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include "flavour.h"
#include "hook.h"
#include "hist.h"

#define STAMPS 4096 /* 64 KiB: a queue of 1,000 packets, one of 16 stamped, collides with a chance of 1.5 % */

HT_CONST(u32, every, 16);
HT_CONST(u32, stamp_mask, STAMPS - 1);

/* Members that no other probe reads. */
#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct device {
	struct device *parent;
};

struct net_device___nettx {
	unsigned int flags;
	struct device dev;
};

struct netdev_queue {
	struct net_device *dev;
};
#pragma clang attribute pop

#define IFF_LOOPBACK (1 << 3)

enum stage { QDISC, DRIVER, STAGES };
enum class { VIRTUAL, HARDWARE, CLASSES };

struct cpu_state {
	u32 seen[STAGES]; /* since the last sample */
	u64 key;	  /* of the packet that is with the driver; 0: none */
	u64 since;
	u64 unmeasured[STAGES];
	struct ht_hist_fine hists[STAGES * CLASSES];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct cpu_state);
} cpus SEC(".maps");

struct stamp {
	u64 key;
	u64 ts; /* 0: none */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, HT_MMAPABLE);
	__uint(max_entries, STAMPS);
	__type(key, u32);
	__type(value, struct stamp);
} stamps SEC(".maps");

static __always_inline struct cpu_state *this_cpu(void)
{
	u32 zero = 0;

	return bpf_map_lookup_elem(&cpus, &zero);
}

/* What identifies a packet: a number, unlike a pointer, and no address. */
static __always_inline u64 key_of(bool btf, struct sk_buff *skb)
{
	/* To the verifier the difference of two pointers is a number. */
	return btf ? (u64)skb - (u64)&every : (u64)skb;
}

/* Packets lie 256 bytes apart: the lower bits tell nothing. */
static __always_inline struct stamp *stamp_of(u64 key)
{
	u32 slot = ((key >> 8) * 0x9e3779b97f4a7c15ULL >> 40) & HT_GET(stamp_mask) & (STAMPS - 1);

	return bpf_map_lookup_elem(&stamps, &slot);
}

/* A device with a bus behind it, and not one that is software alone. */
static __always_inline u32 class_of(bool btf, struct net_device *dev)
{
	struct net_device___nettx *d = (void *)dev;

	return HT_READ(btf, d, dev.parent) ? HARDWARE : VIRTUAL;
}

static __always_inline void observe(struct cpu_state *c, u32 stage, u32 class, u64 ns)
{
	u32 i = stage * CLASSES + class;

	if (i < STAGES * CLASSES)
		ht_observe_fine(&c->hists[i], ns);
}

static __always_inline int on_enqueue(void *ctx, bool btf, struct sk_buff *skb)
{
	u64 key = key_of(btf, skb);
	struct cpu_state *c = this_cpu();
	struct stamp *s = stamp_of(key);

	if (!c || !s)
		return 0;
	if (++c->seen[QDISC] < HT_GET(every)) {
		if (s->key == key && s->ts) {
			s->ts = 0; /* of one whose memory this packet has */
			c->unmeasured[QDISC]++;
		}
		return 0;
	}
	c->seen[QDISC] = 0;
	if (s->ts)
		c->unmeasured[QDISC]++;
	s->key = key;
	s->ts = bpf_ktime_get_ns();
	return 0;
}

HT_TP_FORM(qdisc_enqueue, qdisc_enqueue, on_enqueue, (struct sk_buff *)c[2])

/*
 * For kernels without qdisc_enqueue (70713dddf3d2, "net_sched: introduce
 * tracepoint trace_qdisc_enqueue()", v5.15). It sees packets that no queue
 * gets as well: their stamps are overwritten when their memory is used again.
 */
HT_TP1(net_dev_queue, on_enqueue, struct sk_buff *)

/* @skb: the first packet of those that were taken out at once; NULL when there was none. */
static __always_inline int on_dequeue(void *ctx, bool btf, struct netdev_queue *txq, struct sk_buff *skb)
{
	struct cpu_state *c;
	struct stamp *s;
	u64 key, ts, now;

	if (!skb)
		return 0;
	key = key_of(btf, skb);
	s = stamp_of(key);
	if (!s || s->key != key)
		return 0;
	ts = s->ts;
	c = this_cpu();
	if (!ts || !c)
		return 0;
	s->ts = 0;
	now = bpf_ktime_get_ns();
	if (now < ts) /* stamped on another CPU a moment later */
		now = ts;
	observe(c, QDISC, class_of(btf, HT_READ(btf, txq, dev)), now - ts);
	return 0;
}

HT_TP_FORM(qdisc_dequeue, qdisc_dequeue, on_dequeue, (struct netdev_queue *)c[1], (struct sk_buff *)c[3])

static __always_inline int on_start(void *ctx, bool btf, struct sk_buff *skb, struct net_device *dev)
{
	struct cpu_state *c = this_cpu();

	if (!c)
		return 0;
	if (c->key) { /* a device above another, such as a bond, gave it on: the lower one counts */
		c->key = 0;
		c->unmeasured[DRIVER]++;
	}
	if (++c->seen[DRIVER] < HT_GET(every))
		return 0;
	if (HT_READ(btf, (struct net_device___nettx *)dev, flags) & IFF_LOOPBACK)
		return 0;
	c->seen[DRIVER] = 0;
	c->key = key_of(btf, skb);
	c->since = bpf_ktime_get_ns();
	return 0;
}

HT_TP2(net_dev_start_xmit, on_start, struct sk_buff *, struct net_device *)

static __always_inline int on_xmit(void *ctx, bool btf, struct sk_buff *skb, struct net_device *dev)
{
	struct cpu_state *c = this_cpu();

	if (!c || c->key != key_of(btf, skb))
		return 0;
	c->key = 0;
	observe(c, DRIVER, class_of(btf, dev), bpf_ktime_get_ns() - c->since);
	return 0;
}

HT_TP_FORM(net_dev_xmit, net_dev_xmit, on_xmit, (struct sk_buff *)c[0], (struct net_device *)c[2])

char LICENSE[] SEC("license") = "GPL"; /* no events, so no huatuo.h */
