//go:build ignore
// SPDX-License-Identifier: GPL-2.0
/*
 * netdrop - packets that the kernel dropped, why and where.
 *
 * Every drop is counted by reason and protocol. What is not an everyday reason
 * becomes an event with the packet's headers and the stack; only that path
 * costs more than two map lookups, and a token bucket stands before it.
 */
#include "huatuo.h"
#include "filter.h"

#define FRAMES 32
#define PF_KTHREAD 0x00200000

#define NO_REASON 0xffffffff /* the kernel does not tell */
#define PACKET_MULTICAST 2

HT_CONST(u64, packet_drop_period_ns, 100000000);
HT_CONST(u64, packet_drop_burst, 10);
/* Reasons that make no event, a bit each from 0, 64, 128 and 192: user space knows their names. Those beyond are of subsystems. */
HT_CONST(u64, quiet_0, 0);
HT_CONST(u64, quiet_64, 0);
HT_CONST(u64, quiet_128, 0);
HT_CONST(u64, quiet_192, 0);
/* SKB_DROP_REASON_NOT_SPECIFIED: the call that dropped it gave no reason, the place may tell. */
HT_CONST(u32, not_specified, 2);
/* SKB_DROP_REASON_IP_INNOROUTES; 0 is no drop: the kernel has no such reason. */
HT_CONST(u32, no_route_in, 0);
/* SKB_DROP_REASON_NO_SOCKET, likewise. */
HT_CONST(u32, no_socket, 0);

struct drop_key {
	u32 reason;
	u16 proto;
	u16 normal;
};

/* 130 reasons in Linux 6.18, of which a host sees a few. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 1024);
	__type(key, struct drop_key);
	__type(value, u64);
} drops SEC(".maps");

/*
 * Places of drops without a reason that are known to be normal. Only user space
 * has names for places: it learns from the first event of each.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, u64);
	__type(value, u32);
} normal_places SEC(".maps");

/* By the group of the socket, in the default hierarchy: abnormal reasons only. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_PERCPU_HASH);
	__uint(max_entries, 4096);
	__type(key, u64);
	__type(value, u64);
} cgroups SEC(".maps");

struct drop_wire {
	u64 ts;
	u64 suppressed;
	u64 location; /* return address of the call that dropped it */
	u64 cgroup;   /* of the socket, 0: none is known */
	struct ht_packet packet;
	u32 reason;
	u32 len;
	u32 netns;
	u32 ifindex;
	u32 queue;
	u32 pid; /* current: often not whose packet it is */
	u32 tgid;
	u32 kthread; /* current is one */
	s32 frames;  /* bytes, negative: errno */
	u32 state;   /* of the socket, 0: none is known */
	u8 dev[16];
	u8 comm[16];
	u64 stack[FRAMES];
};
HT_WIRE(drop_wire);

static __always_inline void bump(void *map, void *key)
{
	u64 *n = bpf_map_lookup_elem(map, key), one = 1;

	if (n)
		*n += 1; /* per CPU */
	else if (bpf_map_update_elem(map, key, &one, BPF_NOEXIST))
		if ((n = bpf_map_lookup_elem(map, key)))
			*n += 1; /* another CPU made it */
}

static __always_inline bool is_quiet(u32 reason)
{
	u64 set;

	switch (reason >> 6) {
	case 0:
		set = HT_GET(quiet_0);
		break;
	case 1:
		set = HT_GET(quiet_64);
		break;
	case 2:
		set = HT_GET(quiet_128);
		break;
	case 3:
		set = HT_GET(quiet_192);
		break;
	default:
		return false;
	}
	return set >> (reason & 63) & 1;
}

static __always_inline bool is_normal_place(u32 reason, u64 location)
{
	return (reason == HT_GET(not_specified) || reason == NO_REASON) &&
	       bpf_map_lookup_elem(&normal_places, &location);
}

/*
 * Multicast that nobody here has joined, or that comes before the device is
 * ready for it, has no reason of its own.
 */
static __always_inline bool is_unjoined(bool btf, struct sk_buff *skb, u32 reason)
{
	if (!bpf_core_field_exists(
		    skb->pkt_type)) /* the types of kernels without types leave it out; they have no reasons */
		return false;
	if (reason != HT_GET(not_specified) && (!reason || reason != HT_GET(no_route_in)))
		return false;
	if (btf)
		return BPF_CORE_READ_BITFIELD(skb, pkt_type) == PACKET_MULTICAST;
	return BPF_CORE_READ_BITFIELD_PROBED(skb, pkt_type) == PACKET_MULTICAST;
}

#define TCP_SYN 0x02

/*
 * A TCP segment that opens nothing and finds no socket: what was under way when
 * its connection ended here. Its sender is told by a reset.
 */
static __always_inline bool is_leftover(bool btf, struct sk_buff *skb, u32 reason, u32 proto)
{
	u8 flags = TCP_SYN;

	if (reason != HT_GET(no_socket) || !reason || proto != HT_PROTO_TCP)
		return false;
	bpf_probe_read_kernel(&flags, 1, HT_READ(btf, skb, head) + HT_READ(btf, skb, transport_header) + 13);
	return !(flags & TCP_SYN);
}

/* Network namespaces have numbers from here on (PROC_DYNAMIC_FIRST, and a few below it for the first ones). */
#define FIRST_NS 0xe0000000

/*
 * skb->dev shares its place with the links of TCP's queues: it is a device
 * only when what it points to is in a network namespace.
 */
static __always_inline void describe_dev(bool btf, struct drop_wire *e, struct sk_buff *skb, struct sock *sk)
{
	struct net_device *dev = HT_READ(btf, skb, dev);
	struct net *net = NULL;
	u32 inum = 0;

	if (dev) {
		net = HT_READ(btf, dev, nd_net.net);
		if (net)
			inum = HT_READ(btf, net, ns.inum);
		if (inum >= FIRST_NS) {
			e->netns = inum;
			e->ifindex = HT_READ(btf, dev, ifindex);
			bpf_core_read(e->dev, sizeof(e->dev), &dev->name);
			return;
		}
	}
	if (sk) {
		net = HT_READ(false, sk, __sk_common.skc_net.net);
		if (net)
			e->netns = HT_READ(false, net, ns.inum);
	}
}

static __always_inline void describe_current(struct drop_wire *e)
{
	struct task_struct *t = (void *)bpf_get_current_task();
	u64 id = bpf_get_current_pid_tgid();
	u32 flags = 0;

	e->pid = id;
	e->tgid = id >> 32;
	bpf_core_read(&flags, sizeof(flags), &t->flags);
	e->kthread = !!(flags & PF_KTHREAD);
	bpf_get_current_comm(e->comm, sizeof(e->comm));
}

static __always_inline int report(void *ctx, bool btf, struct sk_buff *skb, u64 location, u32 reason, struct sock *sk,
				  u64 cgroup)
{
	struct drop_wire *e;
	s64 suppressed;
	u64 now;

	if (!ht_filter_skb(btf, skb, sk))
		return 0;
	now = bpf_ktime_get_ns();
	/* A bucket for each of four sets of reasons: a flood of one does not hide all others. */
	suppressed = ht_admit(reason & (HT_KINDS - 1), now, HT_GET(packet_drop_period_ns), HT_GET(packet_drop_burst));
	if (suppressed < 0)
		return 0;
	e = ht_reserve(sizeof(*e));
	if (!e)
		return 0;
	__builtin_memset(e, 0, __builtin_offsetof(struct drop_wire, stack));
	e->ts = now;
	e->suppressed = suppressed;
	e->location = location;
	e->reason = reason;
	e->cgroup = cgroup;
	e->len = HT_READ(btf, skb, len);
	e->queue = HT_READ(btf, skb, queue_mapping);
	if (sk)
		e->state = HT_READ(false, sk, __sk_common.skc_state);
	ht_parse(btf, &e->packet, skb, sk);
	describe_dev(btf, e, skb, sk);
	describe_current(e);
	e->frames = bpf_get_stack(ctx, e->stack, sizeof(e->stack), 0);
	ht_submit(ctx, e, sizeof(*e));
	return 0;
}

static __always_inline int on_drop(void *ctx, bool btf, struct sk_buff *skb, u64 location, u32 reason,
				   struct sock *rx_sk)
{
	struct drop_key k = { .reason = reason };
	struct sock *sk = rx_sk;
	u64 cgroup = 0;
	s32 proto;

	if (!sk)
		sk = HT_READ(btf, skb, sk);
	if (!ht_sk_full(false, sk))
		sk = NULL;
	proto = ht_classify(btf, skb, sk);
	if (proto < 0)
		return 0;
	k.proto = proto;
	k.normal = is_normal_place(reason, location) || is_unjoined(btf, skb, reason) ||
		   is_leftover(btf, skb, reason, proto);
	bump(&drops, &k);
	if (k.normal || is_quiet(reason))
		return 0;
	if (sk) {
		cgroup = ht_sk_cgroup(false, sk);
		if (cgroup)
			bump(&cgroups, &cgroup);
	}
	return report(ctx, btf, skb, location, reason, sk, cgroup);
}

/*
 * rx_sk may be NULL, but until 6.13 the verifier believes that an argument of a
 * tracepoint is not, and takes the check away. Read from the context by a helper
 * it is a number: the check stays, and all of the socket is read by probe reads.
 */
static __always_inline struct sock *rx_sk_of(u64 *c)
{
	struct sock *sk = NULL;

	bpf_probe_read_kernel(&sk, sizeof(sk), c + 3);
	return sk;
}

HT_TP_FORM(kfree_skb, kfree_skb, on_drop, (struct sk_buff *)c[0], c[1], c[2], rx_sk_of(c))
HT_TP_FORM(kfree_skb_3, kfree_skb, on_drop, (struct sk_buff *)c[0], c[1], c[2], NULL)
HT_TP_FORM(kfree_skb_2, kfree_skb, on_drop, (struct sk_buff *)c[0], c[1], NO_REASON, NULL)
