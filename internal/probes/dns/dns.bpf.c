//go:build ignore
// SPDX-License-Identifier: GPL-2.0
/*
 * dns - how long name servers take to answer, and what they answer.
 *
 * A query is a UDP packet to port 53 that leaves a socket of this host; its
 * answer comes from there with the same id. Both are seen at the device of the
 * socket's own namespace, where address translation has been done or is still to
 * be undone, so that one fits the other. The programs see every packet: what is
 * not of port 53 costs two reads.
 */
#include "huatuo.h"
#include "hist.h"
#include "packet.h"

#define DNS_PORT 53
#define QUESTION 96 /* bytes kept: a name may have 255, those that people read are shorter */
#define PF_KTHREAD 0x00200000
#define RCODES 16

HT_CONST(u64, slow_ns, 1000000000);
HT_CONST(u64, dns_failure_period_ns, 200000000);
HT_CONST(u64, dns_failure_burst, 10);

/* Members that no other probe reads. */
#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct sk_buff___dns {
	unsigned char *data;
};
#pragma clang attribute pop

struct query_key {
	u8 client[16]; /* 4 bytes of it for IPv4 */
	u8 server[16];
	u32 netns;
	u16 port; /* of the client */
	u16 id;
	u16 family;
	u16 pad;
};

struct query {
	u64 ts;	    /* of the first packet */
	u64 cgroup; /* of the socket, 0: not known */
	u32 retries;
	u32 pid; /* who sent it, 0: not known */
	u32 tgid;
	u32 len; /* bytes of question that are known */
	u8 comm[16];
	u8 question[QUESTION];
};

/* What waits for an answer. User space takes out what has waited too long. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, struct query_key);
	__type(value, struct query);
} queries SEC(".maps");

struct cpu_state {
	struct ht_hist_fine answers;
	u64 rcodes[RCODES];
	u64 retries;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct cpu_state);
} cpus SEC(".maps");

/* By the group of the socket, in the default hierarchy; shared by CPUs: answers are rare. */
struct group {
	struct ht_hist answers;
	u64 rcodes[RCODES];
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 2048);
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

struct dns_wire {
	u64 ts;
	u64 suppressed;
	struct query_key key;
	struct query query;
	u32 rcode;
	u32 pad;
};
HT_WIRE(dns_wire);

/* What a UDP packet is, as far as a query needs. */
struct udp {
	u8 saddr[16];
	u8 daddr[16];
	u16 sport;
	u16 dport;
	u16 family;
	u16 len; /* of the payload */
	const u8 *payload;
};

/* Reads the headers at @at. Not ok for what is not UDP, or a fragment that is not the first. */
static __always_inline bool parse(bool btf, struct udp *u, struct sk_buff *skb, const u8 *at)
{
	u16 eth = bpf_ntohs(HT_READ(btf, skb, protocol));
	u8 b[48];

	if (eth == ETH_P_IP) {
		if (bpf_probe_read_kernel(b, 28, at) || b[9] != IPPROTO_UDP || bpf_ntohs(*(u16 *)(b + 6)) & 0x1fff)
			return false;
		at += (b[0] & 15) * 4;
		if ((b[0] & 15) != 5 && bpf_probe_read_kernel(b + 20, 8, at))
			return false;
		u->family = AF_INET;
		__builtin_memcpy(u->saddr, b + 12, 4);
		__builtin_memcpy(u->daddr, b + 16, 4);
		u->sport = bpf_ntohs(*(u16 *)(b + 20));
		u->dport = bpf_ntohs(*(u16 *)(b + 22));
		u->len = bpf_ntohs(*(u16 *)(b + 24)) - 8;
	} else if (eth == ETH_P_IPV6) {
		if (bpf_probe_read_kernel(b, 48, at) || b[6] != IPPROTO_UDP)
			return false;
		at += 40;
		u->family = AF_INET6;
		__builtin_memcpy(u->saddr, b + 8, 16);
		__builtin_memcpy(u->daddr, b + 24, 16);
		u->sport = bpf_ntohs(*(u16 *)(b + 40));
		u->dport = bpf_ntohs(*(u16 *)(b + 42));
		u->len = bpf_ntohs(*(u16 *)(b + 44)) - 8;
	} else {
		return false;
	}
	u->payload = at + 8;
	return true;
}

struct dns_header {
	u8 id[2];
	u8 flags[2];
	u8 counts[8];
};

#define DNS_RESPONSE 0x80 /* in flags[0] */

/* Not for a packet that waited for its neighbour's address: that is sent in another's time, mostly the idle task's. */
static __always_inline void sender(struct query *q)
{
	struct task_struct *t = (void *)bpf_get_current_task();
	u64 id = bpf_get_current_pid_tgid();

	if (!id || BPF_CORE_READ(t, flags) & PF_KTHREAD)
		return;
	q->pid = id;
	q->tgid = id >> 32;
	bpf_get_current_comm(q->comm, sizeof(q->comm));
}

static __always_inline int on_queue(void *ctx, bool btf, struct sk_buff *skb)
{
	const u8 *at = HT_READ(btf, skb, head) + HT_READ(btf, skb, network_header);
	struct query_key k = {};
	struct query q = {}, *old;
	struct cpu_state *c;
	struct dns_header h;
	struct udp u = {};
	struct sock *sk;
	u32 zero = 0, n;

	if (!parse(btf, &u, skb, at) || u.dport != DNS_PORT)
		return 0;
	sk = BPF_CORE_READ(skb, sk);
	if (!ht_sk_full(false, sk))
		return 0; /* somebody else's, passed on */
	if (u.len < sizeof(h) || bpf_probe_read_kernel(&h, sizeof(h), u.payload) || h.flags[0] & DNS_RESPONSE)
		return 0;
	__builtin_memcpy(k.client, u.saddr, 16);
	__builtin_memcpy(k.server, u.daddr, 16);
	k.netns = BPF_CORE_READ(sk, __sk_common.skc_net.net, ns.inum);
	k.port = u.sport;
	k.id = h.id[0] << 8 | h.id[1];
	k.family = u.family;
	old = bpf_map_lookup_elem(&queries, &k);
	if (old) {
		__sync_fetch_and_add(&old->retries, 1);
		c = bpf_map_lookup_elem(&cpus, &zero);
		if (c)
			c->retries++;
		return 0;
	}
	q.ts = bpf_ktime_get_ns();
	q.cgroup = ht_sk_cgroup(false, sk);
	sender(&q);
	n = u.len - sizeof(h);
	if (n > QUESTION)
		n = QUESTION;
	asm volatile("" : "+r"(n)); /* what is compared is what is used */
	if (n <= QUESTION && !bpf_probe_read_kernel(q.question, n, u.payload + sizeof(h)))
		q.len = n;
	bpf_map_update_elem(&queries, &k, &q, BPF_ANY);
	return 0;
}

HT_TP1(net_dev_queue, on_queue, struct sk_buff *)

static __always_inline void observe_group(u64 id, u32 rcode, u64 ns)
{
	struct group *g;
	u32 zero = 0;

	if (!id)
		return;
	g = bpf_map_lookup_elem(&groups, &id);
	if (!g) {
		g = bpf_map_lookup_elem(&empty, &zero);
		if (!g)
			return;
		bpf_map_update_elem(&groups, &id, g, BPF_NOEXIST);
		g = bpf_map_lookup_elem(&groups, &id);
		if (!g)
			return;
	}
	ht_observe_shared(&g->answers, ns);
	__sync_fetch_and_add(&g->rcodes[rcode & (RCODES - 1)], 1);
}

#define SERVFAIL 2
#define NXDOMAIN 3

/* No answer for a name that there is not is an answer; the rest is the server's failure. */
static __always_inline bool is_failure(u32 rcode) { return rcode && rcode != NXDOMAIN; }

static __always_inline int on_receive(void *ctx, bool btf, struct sk_buff *skb)
{
	const u8 *at = HT_READ(btf, (struct sk_buff___dns *)skb, data); /* the header's place is noted right after */
	struct query_key k = {};
	struct cpu_state *c;
	struct dns_header h;
	struct udp u = {};
	struct dns_wire *e;
	struct query *q;
	u32 zero = 0, rcode;
	s64 suppressed;
	u64 now, took;

	if (!parse(btf, &u, skb, at) || u.sport != DNS_PORT)
		return 0;
	if (u.len < sizeof(h) || bpf_probe_read_kernel(&h, sizeof(h), u.payload) || !(h.flags[0] & DNS_RESPONSE))
		return 0;
	__builtin_memcpy(k.client, u.daddr, 16);
	__builtin_memcpy(k.server, u.saddr, 16);
	k.netns = BPF_CORE_READ(skb, dev, nd_net.net, ns.inum);
	k.port = u.dport;
	k.id = h.id[0] << 8 | h.id[1];
	k.family = u.family;
	q = bpf_map_lookup_elem(&queries, &k);
	c = bpf_map_lookup_elem(&cpus, &zero);
	if (!q || !c)
		return 0;
	now = bpf_ktime_get_ns();
	took = now - q->ts;
	if ((s64)took < 0)
		took = 0;
	rcode = h.flags[1] & (RCODES - 1);
	ht_observe_fine(&c->answers, took);
	c->rcodes[rcode]++;
	observe_group(q->cgroup, rcode, took);
	if (!is_failure(rcode) && took < HT_GET(slow_ns))
		goto out;
	suppressed = ht_admit(0, now, HT_GET(dns_failure_period_ns), HT_GET(dns_failure_burst));
	if (suppressed < 0)
		goto out;
	e = ht_reserve(sizeof(*e));
	if (!e)
		goto out;
	e->ts = now;
	e->suppressed = suppressed;
	e->key = k;
	e->query = *q;
	e->rcode = rcode;
	e->pad = 0;
	ht_submit(ctx, e, sizeof(*e));
out:
	bpf_map_delete_elem(&queries, &k);
	return 0;
}

HT_TP1(netif_receive_skb, on_receive, struct sk_buff *)
