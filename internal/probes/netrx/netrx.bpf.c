//go:build ignore
// SPDX-License-Identifier: GPL-2.0
/*
 * netrx - how long received packets wait on their way to the program that reads them.
 *
 * The kernel stamps a packet where the driver hands it over, as long as somebody
 * has a socket with SO_TIMESTAMP; user space holds one. Each stage is the time
 * from that stamp. The programs see every packet, so a counter of the CPU stands
 * before all else.
 */
#include "huatuo.h"
#include "hist.h"
#include "cgroup.h"
#include "packet.h"

#define FRAMES 32
#define SECOND 1000000000ULL

HT_CONST(u32, every, 16);
HT_CONST(u64, stack_ns, 5000000);
HT_CONST(u64, tcp_ns, 10000000);
HT_CONST(u64, user_ns, 115000000);
HT_CONST(u64, net_rx_latency_period_ns, 100000000);
HT_CONST(u64, net_rx_latency_burst, 10);

/* Members that no other probe reads. */
#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct sk_buff___netrx {
	u64 tstamp;
	unsigned char *data;
};

struct nsproxy {
	struct net *net_ns;
};

struct task_struct___netrx {
	struct nsproxy *nsproxy;
};
#pragma clang attribute pop

enum stage { STACK, TCP, USER_TCP, USER_UDP, STAGES };

struct cpu_state {
	struct ht_hist_fine stages[STAGES];
	u64 unstamped;
	u32 seen[STAGES]; /* since the last sample; both kinds of USER count in USER_TCP */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct cpu_state);
} cpus SEC(".maps");

/* What to add to bpf_ktime_get_ns() for the time of day, which stamps are in. User space keeps it right. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, u64);
} offset SEC(".maps");

/* By the group of the reader, shared by CPUs: what is counted is sampled. */
struct group {
	struct ht_hist user[2]; /* TCP, UDP */
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, u64);
	__type(value, struct group);
} groups SEC(".maps");

/* Where a new group is copied from: too large for the stack. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct group);
} empty SEC(".maps");

struct netrx_wire {
	u64 ts;
	u64 suppressed;
	u64 waited; /* ns since the stamp */
	u64 cgroup; /* of the reader, 0: not at that stage */
	struct ht_packet packet;
	u32 stage;
	u32 len;
	u32 netns;
	u32 pid; /* of the reader */
	u32 tgid;
	s32 frames; /* bytes, negative: errno */
	u8 dev[16];
	u8 comm[16];
	u64 stack[FRAMES]; /* of the reader, in user space */
};
HT_WIRE(netrx_wire);

/* The CPU's state when it is this packet's turn. */
static __always_inline struct cpu_state *turn(u32 stage)
{
	u32 zero = 0;
	struct cpu_state *c = bpf_map_lookup_elem(&cpus, &zero);

	if (!c || ++c->seen[stage] < HT_GET(every))
		return NULL;
	c->seen[stage] = 0;
	return c;
}

/*
 * Time since the packet's stamp, or -1 without one. A stamp of another clock (the
 * time at which a packet is to be sent is of the monotonic one) and one that the
 * time of day has been set across are far off.
 */
static __always_inline s64 since(struct cpu_state *c, struct sk_buff *skb, u64 now)
{
	u64 stamp = BPF_CORE_READ((struct sk_buff___netrx *)skb, tstamp), *add;
	u32 zero = 0;
	s64 waited;

	add = bpf_map_lookup_elem(&offset, &zero);
	if (!add)
		return -1;
	waited = now + *add - stamp;
	if (!stamp || waited > 60 * (s64)SECOND || waited < -1000000) {
		c->unstamped++;
		return -1;
	}
	return waited < 0 ? 0 : waited;
}

static __always_inline struct netrx_wire *reserve(u32 stage, u64 now, u64 waited)
{
	struct netrx_wire *e;
	s64 suppressed;

	suppressed = ht_admit(stage, now, HT_GET(net_rx_latency_period_ns), HT_GET(net_rx_latency_burst));
	if (suppressed < 0)
		return NULL;
	e = ht_reserve(sizeof(*e));
	if (!e)
		return NULL;
	__builtin_memset(e, 0, __builtin_offsetof(struct netrx_wire, stack));
	e->ts = now;
	e->suppressed = suppressed;
	e->waited = waited;
	e->stage = stage;
	return e;
}

static __always_inline void parse(struct ht_packet *p, struct sk_buff *skb, const u8 *at)
{
	p->eth = bpf_ntohs(BPF_CORE_READ(skb, protocol));
	if (p->eth == ETH_P_IP)
		ht_parse_ipv4(p, at);
	else if (p->eth == ETH_P_IPV6)
		ht_parse_ipv6(p, at);
}

static __always_inline const u8 *network_header(struct sk_buff *skb)
{
	return BPF_CORE_READ(skb, head) + BPF_CORE_READ(skb, network_header);
}

static __always_inline int on_receive(void *ctx, bool btf, struct sk_buff *skb)
{
	struct cpu_state *c = turn(STACK);
	struct net_device *dev;
	struct netrx_wire *e;
	s64 waited;
	u64 now;

	if (!c)
		return 0;
	now = bpf_ktime_get_ns();
	waited = since(c, skb, now);
	if (waited < 0)
		return 0;
	ht_observe_fine(&c->stages[STACK], waited);
	if (waited < HT_GET(stack_ns))
		return 0;
	e = reserve(STACK, now, waited);
	if (!e)
		return 0;
	/* The header's place is noted right after this tracepoint; now data points to it. */
	parse(&e->packet, skb, BPF_CORE_READ((struct sk_buff___netrx *)skb, data));
	dev = BPF_CORE_READ(skb, dev);
	e->netns = BPF_CORE_READ(dev, nd_net.net, ns.inum);
	bpf_core_read(e->dev, sizeof(e->dev), &dev->name);
	e->len = BPF_CORE_READ(skb, len);
	e->frames = -95; /* EOPNOTSUPP: whoever runs is not the reader */
	ht_submit(ctx, e, sizeof(*e));
	return 0;
}

HT_TP1(netif_receive_skb, on_receive, struct sk_buff *)

static __always_inline int on_tcp(void *ctx, bool btf, struct sock *sk, struct sk_buff *skb)
{
	struct cpu_state *c = turn(TCP);
	struct netrx_wire *e;
	s64 waited;
	u64 now;

	if (!c)
		return 0;
	now = bpf_ktime_get_ns();
	waited = since(c, skb, now);
	if (waited < 0)
		return 0;
	ht_observe_fine(&c->stages[TCP], waited);
	if (waited < HT_GET(tcp_ns))
		return 0;
	e = reserve(TCP, now, waited);
	if (!e)
		return 0;
	parse(&e->packet, skb, network_header(skb));
	e->netns = BPF_CORE_READ(sk, __sk_common.skc_net.net, ns.inum);
	e->len = BPF_CORE_READ(skb, len);
	e->frames = -95;
	ht_submit(ctx, e, sizeof(*e));
	return 0;
}

HT_TP2(tcp_probe, on_tcp, struct sock *, struct sk_buff *)

/*
 * What is copied to a reader: of TCP, the packet is its socket's; of UDP, of none.
 * Packet and raw sockets own theirs and have another protocol.
 */
static __always_inline s32 user_stage(struct sk_buff *skb)
{
	struct sock *sk = BPF_CORE_READ(skb, sk);
	u16 eth, family;
	u8 proto = 0;

	if (sk) {
		family = BPF_CORE_READ(sk, __sk_common.skc_family);
		if (family != AF_INET && family != AF_INET6)
			return -1;
		proto = BPF_CORE_READ_BITFIELD_PROBED(sk, sk_protocol);
	} else {
		eth = bpf_ntohs(BPF_CORE_READ(skb, protocol));
		if (eth != ETH_P_IP && eth != ETH_P_IPV6)
			return -1;
		bpf_probe_read_kernel(&proto, 1, network_header(skb) + (eth == ETH_P_IP ? 9 : 6));
	}
	if (proto == IPPROTO_TCP)
		return USER_TCP;
	return proto == IPPROTO_UDP ? USER_UDP : -1;
}

static __always_inline void observe_group(u64 id, bool udp, u64 ns)
{
	struct group *g = bpf_map_lookup_elem(&groups, &id);
	u32 zero = 0;

	if (!g) {
		g = bpf_map_lookup_elem(&empty, &zero);
		if (!g)
			return;
		bpf_map_update_elem(&groups, &id, g, BPF_NOEXIST);
		g = bpf_map_lookup_elem(&groups, &id);
		if (!g)
			return;
	}
	ht_observe_shared(udp ? &g->user[1] : &g->user[0], ns);
}

static __always_inline int on_copy(void *ctx, bool btf, struct sk_buff *skb)
{
	struct cpu_state *c = turn(USER_TCP);
	struct task_struct *t;
	struct netrx_wire *e;
	u64 now, cgroup, id;
	s64 waited;
	s32 stage;

	if (!c)
		return 0;
	stage = user_stage(skb);
	if (stage < 0)
		return 0;
	now = bpf_ktime_get_ns();
	waited = since(c, skb, now);
	if (waited < 0)
		return 0;
	t = (void *)bpf_get_current_task();
	cgroup = ht_cgroup_id(false, t);
	if (stage == USER_UDP)
		ht_observe_fine(&c->stages[USER_UDP], waited);
	else
		ht_observe_fine(&c->stages[USER_TCP], waited);
	observe_group(cgroup, stage == USER_UDP, waited);
	if (waited < HT_GET(user_ns))
		return 0;
	e = reserve(stage, now, waited);
	if (!e)
		return 0;
	parse(&e->packet, skb, network_header(skb));
	id = bpf_get_current_pid_tgid();
	e->pid = id;
	e->tgid = id >> 32;
	e->cgroup = cgroup;
	e->netns = BPF_CORE_READ((struct task_struct___netrx *)t, nsproxy, net_ns, ns.inum);
	e->len = BPF_CORE_READ(skb, len);
	bpf_get_current_comm(e->comm, sizeof(e->comm));
	e->frames = bpf_get_stack(ctx, e->stack, sizeof(e->stack), BPF_F_USER_STACK);
	ht_submit(ctx, e, sizeof(*e));
	return 0;
}

HT_TP1(skb_copy_datagram_iovec, on_copy, struct sk_buff *)
