//go:build ignore
// SPDX-License-Identifier: GPL-2.0
/*
 * tcpretrans - segments that TCP sends again, and why.
 *
 * A retransmission costs microseconds of network code, so members of the
 * socket are read one by one where that is simplest. Each one is counted; a
 * connection makes one event a second at most, so that a broken one does not
 * hide the others behind the rate limit.
 */
#include "huatuo.h"
#include "filter.h"

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_ACK 0x10
#define TCP_SYN_SENT 2
#define TCP_SYN_RECV 3
#define TCP_CA_RECOVERY 3
#define TCP_CA_LOSS 4
#define ICSK_TIME_LOSS_PROBE 5
#define SECOND 1000000000ULL

HT_CONST(u64, tcp_retransmit_period_ns, 100000000);
HT_CONST(u64, tcp_retransmit_burst, 10);

enum kind { FAST, RTO, TLP, SYN, SYNACK, OTHER, KINDS };

struct counts {
	u64 sent[KINDS];
	u64 failed;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct counts);
} host SEC(".maps");

/* By the group of the socket, in the default hierarchy. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_PERCPU_HASH);
	__uint(max_entries, 4096);
	__type(key, u64);
	__type(value, u64);
} cgroups SEC(".maps");

/* When a connection made an event, by its address in the kernel: a new one at the same place does not matter. */
struct last {
	u64 ts;
	u64 suppressed; /* since */
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, u64);
	__type(value, struct last);
} flows SEC(".maps");

struct retransmit_wire {
	u64 ts;
	u64 suppressed;
	u64 cgroup; /* of the socket, 0: not known */
	struct ht_flow flow;
	u32 kind;
	s32 error; /* 0, or why it was not sent */
	u32 seq;
	u32 end_seq;
	u32 srtt_us; /* eight times the smoothed RTT */
	u32 mdev_us; /* four times its mean deviation */
	u32 cwnd;
	u32 ssthresh;
	u32 packets_out;
	u32 lost_out;
	u32 mss;
	u32 total;    /* retransmissions of the connection */
	u32 timeouts; /* in a row */
	u32 backoff;
};
HT_WIRE(retransmit_wire);

static __always_inline u32 kind_of(struct sock *sk)
{
	struct inet_connection_sock *icsk = (void *)sk;
	u8 state = BPF_CORE_READ(sk, __sk_common.skc_state), ca;

	if (state == TCP_SYN_SENT)
		return SYN;
	if (state == TCP_SYN_RECV)
		return SYNACK;
	ca = BPF_CORE_READ_BITFIELD_PROBED(icsk, icsk_ca_state);
	if (ca == TCP_CA_LOSS)
		return RTO;
	if (ca == TCP_CA_RECOVERY)
		return FAST;
	/* A timer for a loss probe may be pending in Recovery as well, but then it is not what sends. */
	if (BPF_CORE_READ(icsk, icsk_pending) == ICSK_TIME_LOSS_PROBE)
		return TLP;
	return OTHER;
}

static __always_inline void count(u32 kind, s32 error, u64 cgroup)
{
	u32 zero = 0;
	struct counts *c = bpf_map_lookup_elem(&host, &zero);
	u64 *n, one = 1;

	if (!c)
		return;
	if (error) {
		c->failed++;
		return;
	}
	if (kind < KINDS)
		c->sent[kind]++;
	if (!cgroup)
		return;
	n = bpf_map_lookup_elem(&cgroups, &cgroup);
	if (n)
		*n += 1; /* per CPU */
	else if (bpf_map_update_elem(&cgroups, &cgroup, &one, BPF_NOEXIST))
		if ((n = bpf_map_lookup_elem(&cgroups, &cgroup)))
			*n += 1; /* another CPU made it */
}

/* Room for an event of the connection at @key, unless it had one within a second or there are too many. */
static __always_inline struct retransmit_wire *begin(u64 key, u32 kind, u64 now)
{
	struct last *l = bpf_map_lookup_elem(&flows, &key), first = { .ts = now };
	struct retransmit_wire *e;
	s64 suppressed;

	if (l && now - l->ts < SECOND) {
		l->suppressed++;
		ht_count(HT_OBSERVED);
		ht_count(HT_RATE_LIMITED);
		return NULL;
	}
	/* A bucket for each of the usual kinds, and one for the rest. */
	suppressed = ht_admit(kind < HT_KINDS - 1 ? kind : HT_KINDS - 1, now, HT_GET(tcp_retransmit_period_ns),
			      HT_GET(tcp_retransmit_burst));
	if (suppressed < 0)
		return NULL;
	e = ht_reserve(sizeof(*e));
	if (!e)
		return NULL;
	__builtin_memset(e, 0, sizeof(*e));
	e->ts = now;
	e->kind = kind;
	e->suppressed = suppressed;
	if (l) {
		e->suppressed += l->suppressed;
		l->suppressed = 0;
		l->ts = now;
	} else {
		bpf_map_update_elem(&flows, &key, &first, BPF_ANY);
	}
	return e;
}

/*
 * Whether the filter takes a segment. One that is sent again has no headers, so
 * they are made up: addresses, ports, sequence number, flags and length are
 * those that it will have, all else is zero.
 */
static __always_inline bool wanted(bool btf, struct sock_common *c, u8 flags, u32 seq, u32 end_seq)
{
	struct ht_filter_ends e = { .proto = IPPROTO_TCP, .flags = flags, .seq = seq, .version = 4 };
	struct ht_filter_value *v = ht_filter_frame();
	u32 saddr[4] = {}, daddr[4] = {};

	if (!v)
		return true;
	if (HT_READ(btf, c, skc_family) == AF_INET6) {
		e.version = 6;
		bpf_core_read(saddr, sizeof(saddr), &c->skc_v6_rcv_saddr);
		bpf_core_read(daddr, sizeof(daddr), &c->skc_v6_daddr);
	} else {
		saddr[0] = HT_READ(btf, c, skc_rcv_saddr);
		daddr[0] = HT_READ(btf, c, skc_daddr);
	}
	e.saddr = (const u8 *)saddr;
	e.daddr = (const u8 *)daddr;
	e.sport = HT_READ(btf, c, skc_num);
	e.dport = bpf_ntohs(HT_READ(btf, c, skc_dport));
	e.payload = end_seq - seq - !!(flags & TCP_SYN) - !!(flags & TCP_FIN);
	return ht_filter_made(v, &e);
}

static __always_inline bool wanted_skb(bool btf, struct sock *sk, struct sk_buff *skb)
{
	struct tcp_skb_cb *cb = (void *)&skb->cb;
	u32 seq = 0, end_seq = 0;
	u8 flags = 0;

	if (!HT_GET(ht_filter_on))
		return true;
	bpf_core_read(&seq, sizeof(seq), &cb->seq);
	bpf_core_read(&end_seq, sizeof(end_seq), &cb->end_seq);
	bpf_core_read(&flags, sizeof(flags), &cb->tcp_flags);
	return wanted(btf, &sk->__sk_common, flags, seq, end_seq);
}

static __always_inline int on_retransmit(void *ctx, bool btf, struct sock *sk, struct sk_buff *skb, s32 error)
{
	u64 cgroup = ht_sk_cgroup(btf, sk), now = bpf_ktime_get_ns();
	struct inet_connection_sock *icsk = (void *)sk;
	struct tcp_sock *tp = (void *)sk;
	u32 kind = kind_of(sk);
	struct retransmit_wire *e;
	struct tcp_skb_cb cb = {};

	count(kind, error, cgroup);
	if (!wanted_skb(btf, sk, skb))
		return 0;
	e = begin((u64)sk, kind, now);
	if (!e)
		return 0;
	e->cgroup = cgroup;
	e->error = error;
	ht_flow_of(&e->flow, &sk->__sk_common);
	bpf_core_read(&cb.seq, sizeof(cb.seq), (void *)&skb->cb + __builtin_offsetof(struct tcp_skb_cb, seq));
	bpf_core_read(&cb.end_seq, sizeof(cb.end_seq),
		      (void *)&skb->cb + __builtin_offsetof(struct tcp_skb_cb, end_seq));
	e->seq = cb.seq;
	e->end_seq = cb.end_seq;
	e->srtt_us = BPF_CORE_READ(tp, srtt_us);
	e->mdev_us = BPF_CORE_READ(tp, mdev_us);
	e->cwnd = BPF_CORE_READ(tp, snd_cwnd);
	e->ssthresh = BPF_CORE_READ(tp, snd_ssthresh);
	e->packets_out = BPF_CORE_READ(tp, packets_out);
	e->lost_out = BPF_CORE_READ(tp, lost_out);
	e->mss = BPF_CORE_READ(tp, mss_cache);
	e->total = BPF_CORE_READ(tp, total_retrans);
	e->timeouts = BPF_CORE_READ(icsk, icsk_retransmits);
	e->backoff = BPF_CORE_READ(icsk, icsk_backoff);
	ht_submit(ctx, e, sizeof(*e));
	return 0;
}

HT_TP_FORM(tcp_retransmit_skb, tcp_retransmit_skb, on_retransmit, (struct sock *)c[0], (struct sk_buff *)c[1],
	   (s32)c[2])
HT_TP_FORM(tcp_retransmit_skb_2, tcp_retransmit_skb, on_retransmit, (struct sock *)c[0], (struct sk_buff *)c[1], 0)

static __always_inline int on_synack(void *ctx, bool btf, struct sock *sk, struct request_sock *req)
{
	u64 cgroup = ht_sk_cgroup(btf, sk), now = bpf_ktime_get_ns();
	struct retransmit_wire *e;

	count(SYNACK, 0, cgroup);
	if (HT_GET(ht_filter_on) && !wanted(btf, &req->__req_common, TCP_SYN | TCP_ACK, 0, 1))
		return 0;
	e = begin((u64)req, SYNACK, now);
	if (!e)
		return 0;
	e->cgroup = cgroup;
	ht_flow_of(&e->flow, &req->__req_common);
	e->timeouts = BPF_CORE_READ_BITFIELD_PROBED(req, num_timeout);
	ht_submit(ctx, e, sizeof(*e));
	return 0;
}

HT_TP2(tcp_retransmit_synack, on_synack, struct sock *, struct request_sock *)
