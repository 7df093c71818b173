/* SPDX-License-Identifier: GPL-2.0 */
/* sock.h - what we read of a socket. */
#pragma once
#include "kernfs.h"

#define AF_INET 2
#define AF_INET6 10
#define TCP_TIME_WAIT 6
#define TCP_NEW_SYN_RECV 12

/* A bit field before bf9765145b85 ("sock: Make sk_protocol a 16-bit value"), v5.6 */
static __always_inline u16 ht_sk_protocol(bool btf, struct sock *sk)
{
	if (btf)
		return BPF_CORE_READ_BITFIELD(sk, sk_protocol);
	return BPF_CORE_READ_BITFIELD_PROBED(sk, sk_protocol);
}

/* Whether sk is a struct sock, and not one of the small stand-ins for a connection that has none (yet or any more). */
static __always_inline bool ht_sk_full(bool btf, struct sock *sk)
{
	u8 state;

	if (!sk)
		return false;
	state = HT_READ(btf, sk, __sk_common.skc_state);
	return state != TCP_TIME_WAIT && state != TCP_NEW_SYN_RECV;
}

/* The id of the group, in the default hierarchy, in which a full socket was made; 0 when unknown. */
static __always_inline u64 ht_sk_cgroup(bool btf, struct sock *sk)
{
	struct kernfs_node *kn;
	struct cgroup *cg;

	if (bpf_core_field_exists(struct sock_cgroup_data, cgroup)) {
		cg = HT_READ(btf, sk, sk_cgrp_data.cgroup);
	} else {
		struct sock_cgroup_data___5_14_0 *o = (void *)&sk->sk_cgrp_data;
		u64 val = 0;

		bpf_core_read(&val, sizeof(val), &o->val);
		if (val & 1)
			return 0;
		cg = (void *)(val & ~3ULL);
		btf = false; /* not a pointer that the verifier trusts */
	}
	if (!cg)
		return 0;
	kn = HT_READ(btf, cg, kn);
	return ht_kernfs_id(btf, kn);
}

/* Both ends of a connection, as a socket or one of its stand-ins knows them. */
struct ht_flow {
	u8 saddr[16]; /* 4 bytes of it for IPv4 */
	u8 daddr[16];
	u16 sport;
	u16 dport;
	u16 family;
	u16 state; /* TCP_* */
	u32 netns;
	u32 pad;
};

/* @c may be of a struct sock, request_sock or inet_timewait_sock: all begin with it. */
static __always_inline void ht_flow_of(struct ht_flow *f, struct sock_common *c)
{
	__be16 dport = 0;
	u8 state = 0;

	bpf_core_read(&f->family, sizeof(f->family), &c->skc_family);
	bpf_core_read(&f->sport, sizeof(f->sport), &c->skc_num);
	bpf_core_read(&dport, sizeof(dport), &c->skc_dport);
	f->dport = dport << 8 | dport >> 8;
	bpf_core_read(&state, sizeof(state), (void *)&c->skc_state);
	f->state = state;
	f->netns = BPF_CORE_READ(c, skc_net.net, ns.inum);
	if (f->family == AF_INET6) {
		bpf_core_read(f->saddr, 16, &c->skc_v6_rcv_saddr);
		bpf_core_read(f->daddr, 16, &c->skc_v6_daddr);
	} else {
		bpf_core_read(f->saddr, 4, &c->skc_rcv_saddr);
		bpf_core_read(f->daddr, 4, &c->skc_daddr);
	}
}
