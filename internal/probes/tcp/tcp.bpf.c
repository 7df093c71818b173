//go:build ignore
// SPDX-License-Identifier: GPL-2.0
/*
 * tcp - how connections begin, how they break, and how long a round trip takes.
 *
 * Connections change their state a few times in their life, so sockets are
 * described by probe reads. Only tcp_probe comes with each segment: a counter
 * of the CPU stands before its work.
 */
#include "huatuo.h"
#include "hist.h"
#include "sock.h"

#define TCP_ESTABLISHED 1
#define TCP_SYN_SENT 2
#define TCP_SYN_RECV 3
#define TCP_FIN_WAIT1 4
#define TCP_FIN_WAIT2 5
#define TCP_CLOSE 7
#define TCP_CLOSE_WAIT 8
#define TCP_LISTEN 10
#define IPPROTO_TCP 6
#define ECONNREFUSED 111
#define ETIMEDOUT 110
#define EHOSTUNREACH 113
#define ENETUNREACH 101
#define SECOND 1000000000ULL
#define NO_REASON 0xffffffff /* the kernel does not tell */

HT_CONST(u64, connect_failure_period_ns, 100000000);
HT_CONST(u64, connect_failure_burst, 10);
HT_CONST(u64, tcp_reset_period_ns, 100000000);
HT_CONST(u64, tcp_reset_burst, 10);
HT_CONST(u32, rtt_every, 32);

/* Members that no other probe reads. */
#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct sock___tcp {
	int sk_err;
};

struct inet_sock {
	__be16 inet_sport;
};
#pragma clang attribute pop

enum role { CONNECT, ACCEPT, ROLES };
enum direction { SENT, RECEIVED, DIRECTIONS };
enum failure { REFUSED, TIMED_OUT, UNREACHABLE, ABORTED, OTHER, FAILURES };
enum event { CONNECT_FAILURE, RESET_SENT, RESET_RECEIVED };

struct cpu_state {
	struct ht_hist_fine handshake[ROLES];
	struct ht_hist_fine rtt;
	struct ht_hist_fine variation;
	u64 failures[FAILURES];
	u32 segments; /* since the last sample */
	u32 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct cpu_state);
} cpus SEC(".maps");

/* Shared by CPUs: what is counted is rare or sampled, and a copy per CPU would be 1 MB each. */
struct group {
	struct ht_hist handshake[ROLES];
	struct ht_hist rtt;
	u64 failures[FAILURES];
	u64 resets[DIRECTIONS];
};

/* By the group of the socket, in the default hierarchy. */
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

/* Connects under way, by the address of the socket. */
struct attempt {
	u64 ts;
	u32 pid;
	u32 tgid;
	u8 comm[16];
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, u64);
	__type(value, struct attempt);
} attempts SEC(".maps");

struct reset_key {
	u32 reason;
	u16 direction;
	u16 state; /* 0: no socket */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 512);
	__type(key, struct reset_key);
	__type(value, u64);
} resets SEC(".maps");

struct tcp_wire {
	u64 ts;
	u64 suppressed;
	u64 cgroup;  /* of the socket, 0: not known */
	u64 elapsed; /* of a connect, ns */
	struct ht_flow flow;
	u32 event;
	s32 error;  /* of a connect */
	u32 reason; /* of a reset */
	u32 pid;    /* 0: not known */
	u32 tgid;
	u32 retransmits; /* in a row: of the SYN */
	u32 total_retransmits;
	u32 srtt_us; /* eight times the smoothed RTT */
	u8 comm[16];
};
HT_WIRE(tcp_wire);

static __always_inline struct group *group_of(u64 id)
{
	struct group *g;
	u32 zero = 0;

	if (!id)
		return NULL;
	g = bpf_map_lookup_elem(&groups, &id);
	if (g)
		return g;
	g = bpf_map_lookup_elem(&empty, &zero);
	if (!g)
		return NULL;
	bpf_map_update_elem(&groups, &id, g, BPF_NOEXIST);
	return bpf_map_lookup_elem(&groups, &id);
}

static __always_inline void describe(struct tcp_wire *e, struct sock *sk)
{
	struct inet_connection_sock *icsk = (void *)sk;
	struct tcp_sock *tp = (void *)sk;
	__be16 sport;

	ht_flow_of(&e->flow, &sk->__sk_common);
	if (!e->flow.sport) { /* a socket that is closed has given its port back */
		sport = BPF_CORE_READ((struct inet_sock *)sk, inet_sport);
		e->flow.sport = sport << 8 | sport >> 8;
	}
	e->retransmits = BPF_CORE_READ(icsk, icsk_retransmits);
	e->total_retransmits = BPF_CORE_READ(tp, total_retrans);
	e->srtt_us = BPF_CORE_READ(tp, srtt_us);
}

static __always_inline void current(struct tcp_wire *e)
{
	u64 id = bpf_get_current_pid_tgid();

	e->pid = id;
	e->tgid = id >> 32;
	bpf_get_current_comm(e->comm, sizeof(e->comm));
}

static __always_inline void observe_handshake(struct cpu_state *c, u32 role, u64 cgroup, u64 ns)
{
	struct group *g;

	ht_observe_fine(&c->handshake[role], ns);
	g = group_of(cgroup);
	if (g)
		ht_observe_shared(&g->handshake[role], ns);
}

static __always_inline void begin(struct sock *sk, u64 now)
{
	u64 key = (u64)sk, id = bpf_get_current_pid_tgid();
	struct attempt a = { .ts = now, .pid = id, .tgid = id >> 32 };

	bpf_get_current_comm(a.comm, sizeof(a.comm));
	bpf_map_update_elem(&attempts, &key, &a, BPF_ANY);
}

static __always_inline u32 failure_of(s32 error)
{
	switch (error) {
	case 0:
		return ABORTED;
	case ECONNREFUSED:
		return REFUSED;
	case ETIMEDOUT:
		return TIMED_OUT;
	case EHOSTUNREACH:
	case ENETUNREACH:
		return UNREACHABLE;
	default:
		return OTHER;
	}
}

static __always_inline void fail(void *ctx, struct cpu_state *c, struct sock *sk, struct attempt *a, u64 cgroup,
				 u64 now)
{
	s32 error = BPF_CORE_READ((struct sock___tcp *)sk, sk_err);
	u32 failure = failure_of(error);
	struct tcp_wire *e;
	struct group *g;
	s64 suppressed;

	if (failure < FAILURES)
		c->failures[failure]++;
	g = group_of(cgroup);
	if (g && failure < FAILURES)
		__sync_fetch_and_add(&g->failures[failure], 1);
	/* Whoever tries several addresses at once drops those that are slower. */
	if (failure == ABORTED && now - a->ts < SECOND)
		return;
	suppressed = ht_admit(CONNECT_FAILURE, now, HT_GET(connect_failure_period_ns), HT_GET(connect_failure_burst));
	if (suppressed < 0)
		return;
	e = ht_reserve(sizeof(*e));
	if (!e)
		return;
	__builtin_memset(e, 0, sizeof(*e));
	e->ts = now;
	e->suppressed = suppressed;
	e->cgroup = cgroup;
	e->elapsed = now - a->ts;
	e->event = CONNECT_FAILURE;
	e->error = error;
	e->pid = a->pid;
	e->tgid = a->tgid;
	__builtin_memcpy(e->comm, a->comm, sizeof(e->comm));
	describe(e, sk);
	ht_submit(ctx, e, sizeof(*e));
}

static __always_inline void accepted(struct cpu_state *c, bool btf, struct sock *sk)
{
	u64 us = BPF_CORE_READ((struct tcp_sock *)sk, srtt_us) >> 3;

	if (us) /* not measured when the SYN-ACK was sent twice */
		observe_handshake(c, ACCEPT, ht_sk_cgroup(btf, sk), us * 1000);
}

static __always_inline int on_state(void *ctx, bool btf, struct sock *sk, s32 from, s32 to)
{
	u64 now, key = (u64)sk;
	struct cpu_state *c;
	struct attempt *a;
	u32 zero = 0;

	if (to != TCP_SYN_SENT && from != TCP_SYN_SENT && !(from == TCP_SYN_RECV && to == TCP_ESTABLISHED))
		return 0;
	/* A bit field before bf9765145b85 ("sock: Make sk_protocol a 16-bit value"), v5.6. MPTCP, DCCP and SCTP come here as well. */
	if (BPF_CORE_READ_BITFIELD_PROBED(sk, sk_protocol) != IPPROTO_TCP)
		return 0;
	c = bpf_map_lookup_elem(&cpus, &zero);
	if (!c)
		return 0;
	now = bpf_ktime_get_ns();
	if (to == TCP_SYN_SENT) {
		begin(sk, now);
		return 0;
	}
	if (from == TCP_SYN_RECV) {
		accepted(c, btf, sk);
		return 0;
	}
	a = bpf_map_lookup_elem(&attempts, &key);
	if (!a)
		return 0; /* it began before this program */
	if (to == TCP_ESTABLISHED)
		observe_handshake(c, CONNECT, ht_sk_cgroup(btf, sk), now - a->ts);
	else if (to == TCP_CLOSE)
		fail(ctx, c, sk, a, ht_sk_cgroup(btf, sk), now);
	bpf_map_delete_elem(&attempts, &key);
	return 0;
}

HT_TP_FORM(inet_sock_set_state, inet_sock_set_state, on_state, (struct sock *)c[0], c[1], c[2])

/* Whether somebody had a connection and lost it. */
static __always_inline bool is_abnormal(u32 direction, u32 state)
{
	switch (state) {
	case TCP_ESTABLISHED:
	case TCP_CLOSE_WAIT:
	case TCP_SYN_RECV:
		return true;
	case TCP_CLOSE: /* this host gives up in the middle: state changes first */
	case TCP_FIN_WAIT1:
	case TCP_FIN_WAIT2:
		return direction == SENT;
	default:
		return false;
	}
}

static __always_inline void on_reset(void *ctx, struct sock *sk, u32 direction, u32 reason)
{
	struct reset_key k = { .reason = reason, .direction = direction };
	u64 cgroup, now, *n, one = 1;
	struct tcp_wire *e;
	struct group *g;
	s64 suppressed;

	if (sk)
		k.state = BPF_CORE_READ(sk, __sk_common.skc_state);
	n = bpf_map_lookup_elem(&resets, &k);
	if (n)
		*n += 1; /* per CPU */
	else if (bpf_map_update_elem(&resets, &k, &one, BPF_NOEXIST))
		if ((n = bpf_map_lookup_elem(&resets, &k)))
			*n += 1; /* another CPU made it */
	if (!ht_sk_full(false, sk) || !is_abnormal(direction, k.state))
		return;
	cgroup = ht_sk_cgroup(false, sk);
	g = group_of(cgroup);
	if (g)
		__sync_fetch_and_add(&g->resets[direction & 1], 1);
	now = bpf_ktime_get_ns();
	suppressed = ht_admit(RESET_SENT + direction, now, HT_GET(tcp_reset_period_ns), HT_GET(tcp_reset_burst));
	if (suppressed < 0)
		return;
	e = ht_reserve(sizeof(*e));
	if (!e)
		return;
	__builtin_memset(e, 0, sizeof(*e));
	e->ts = now;
	e->suppressed = suppressed;
	e->cgroup = cgroup;
	e->event = RESET_SENT + direction;
	e->reason = reason;
	describe(e, sk);
	if (direction == SENT && k.state == TCP_CLOSE) /* only a process closes a socket before it sends the reset */
		current(e);
	ht_submit(ctx, e, sizeof(*e));
}

/*
 * "trace: tcp: fully support trace_tcp_send_reset", v6.10: the socket may be
 * NULL. Until 6.13 the verifier believes that it is not, and takes a check away.
 * Read from the context by a helper the socket is a number, and the check stays.
 * "rstreason: make it work in trace world", v6.10: (sk, skb) -> (sk, skb, reason).
 */
static __always_inline int on_send_reset(void *ctx, bool btf, u32 reason)
{
	struct sock *sk = NULL;

	bpf_probe_read_kernel(&sk, sizeof(sk), ctx);
	on_reset(ctx, sk, SENT, reason);
	return 0;
}

HT_TP_FORM(tcp_send_reset, tcp_send_reset, on_send_reset, c[2])
HT_TP_FORM(tcp_send_reset_2, tcp_send_reset, on_send_reset, NO_REASON)

static __always_inline int on_receive_reset(void *ctx, bool btf, struct sock *sk)
{
	on_reset(ctx, sk, RECEIVED, NO_REASON);
	return 0;
}

HT_TP1(tcp_receive_reset, on_receive_reset, struct sock *)

/* Both ends are one address: nothing of it is on a wire, and it would hide what is. */
static __always_inline bool is_local(struct sock *sk)
{
	u64 a[2] = {}, b[2] = {};

	if (BPF_CORE_READ(sk, __sk_common.skc_family) != AF_INET6)
		return BPF_CORE_READ(sk, __sk_common.skc_daddr) == BPF_CORE_READ(sk, __sk_common.skc_rcv_saddr);
	bpf_core_read(a, sizeof(a), &sk->__sk_common.skc_v6_daddr);
	bpf_core_read(b, sizeof(b), &sk->__sk_common.skc_v6_rcv_saddr);
	return a[0] == b[0] && a[1] == b[1];
}

static __always_inline int on_segment(void *ctx, bool btf, struct sock *sk)
{
	u32 zero = 0, srtt, mdev;
	struct cpu_state *c = bpf_map_lookup_elem(&cpus, &zero);
	struct group *g;

	if (!c || ++c->segments < HT_GET(rtt_every))
		return 0;
	c->segments = 0;
	srtt = BPF_CORE_READ((struct tcp_sock *)sk, srtt_us);
	if (!srtt || is_local(sk))
		return 0;
	mdev = BPF_CORE_READ((struct tcp_sock *)sk, mdev_us);
	ht_observe_fine(&c->rtt, (u64)(srtt >> 3) * 1000);
	ht_observe_fine(&c->variation, (u64)(mdev >> 2) * 1000);
	g = group_of(ht_sk_cgroup(btf, sk));
	if (g)
		ht_observe_shared(&g->rtt, (u64)(srtt >> 3) * 1000);
	return 0;
}

HT_TP1(tcp_probe, on_segment, struct sock *)
