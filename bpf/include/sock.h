/* SPDX-License-Identifier: GPL-2.0 */
/* sock.h - what we read of a socket. */
#pragma once

#define AF_INET 2
#define AF_INET6 10
#define TCP_TIME_WAIT 6
#define TCP_NEW_SYN_RECV 12

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
	return HT_READ(btf, kn, id);
}
