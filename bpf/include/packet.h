/* SPDX-License-Identifier: GPL-2.0 */
/* packet.h - what a packet says about itself, by bounded reads of its headers. */
#pragma once
#include "sock.h"
#include <bpf/bpf_endian.h>

#define ETH_P_IP 0x0800
#define ETH_P_ARP 0x0806
#define ETH_P_IPV6 0x86dd
#define IPPROTO_ICMP 1
#define IPPROTO_TCP 6
#define IPPROTO_UDP 17
#define IPPROTO_ICMPV6 58

enum ht_proto { HT_PROTO_OTHER, HT_PROTO_TCP, HT_PROTO_UDP, HT_PROTO_ICMP, HT_PROTO_IP, HT_PROTO_ARP, HT_PROTOS };

struct ht_packet {
	u8 saddr[16]; /* 4 bytes of it for IPv4 */
	u8 daddr[16];
	u32 seq; /* TCP */
	u32 ack;
	u16 sport;
	u16 dport;
	u16 eth;    /* protocol of the frame, 0: the packet has no header yet */
	u8 version; /* 4, 6 or 0: saddr and daddr are not known */
	u8 proto;   /* IPPROTO_* */
	u8 ports;   /* 1: sport and dport are known; 2: TCP's seq, ack and flags as well */
	u8 flags;   /* TCP */
	u8 icmp[2]; /* type and code */
};

static __always_inline u32 ht_proto_of(u8 ipproto)
{
	switch (ipproto) {
	case IPPROTO_TCP:
		return HT_PROTO_TCP;
	case IPPROTO_UDP:
		return HT_PROTO_UDP;
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		return HT_PROTO_ICMP;
	default:
		return HT_PROTO_IP;
	}
}

/* Transport header and payload that follows, where the protocol has what we read. */
static __always_inline void ht_parse_l4(struct ht_packet *p, const u8 *at)
{
	u8 b[16];

	switch (p->proto) {
	case IPPROTO_TCP:
		if (bpf_probe_read_kernel(b, 16, at))
			return;
		p->seq = bpf_ntohl(*(u32 *)(b + 4));
		p->ack = bpf_ntohl(*(u32 *)(b + 8));
		p->flags = b[13];
		p->ports = 2;
		break;
	case IPPROTO_UDP:
		if (bpf_probe_read_kernel(b, 4, at))
			return;
		p->ports = 1;
		break;
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		bpf_probe_read_kernel(p->icmp, 2, at);
		return;
	default:
		return;
	}
	p->sport = bpf_ntohs(*(u16 *)b);
	p->dport = bpf_ntohs(*(u16 *)(b + 2));
}

static __always_inline void ht_parse_ipv4(struct ht_packet *p, const u8 *at)
{
	u8 b[20];

	if (bpf_probe_read_kernel(b, sizeof(b), at) || b[0] >> 4 != 4)
		return;
	p->version = 4;
	p->proto = b[9];
	__builtin_memcpy(p->saddr, b + 12, 4);
	__builtin_memcpy(p->daddr, b + 16, 4);
	if (bpf_ntohs(*(u16 *)(b + 6)) & 0x1fff)
		return; /* not the first fragment: the payload is no header */
	ht_parse_l4(p, at + (b[0] & 15) * 4);
}

#define HT_EXT_HEADERS 3 /* packets with more of them are made to annoy */

static __always_inline void ht_parse_ipv6(struct ht_packet *p, const u8 *at)
{
	u8 b[40], next, ext[8];
	int i;

	if (bpf_probe_read_kernel(b, sizeof(b), at) || b[0] >> 4 != 6)
		return;
	p->version = 6;
	next = b[6];
	__builtin_memcpy(p->saddr, b + 8, 16);
	__builtin_memcpy(p->daddr, b + 24, 16);
	at += sizeof(b);
#pragma unroll
	for (i = 0; i < HT_EXT_HEADERS; i++) {
		/* hop-by-hop options, routing, fragment, destination options */
		if (next != 0 && next != 43 && next != 44 && next != 60)
			break;
		if (bpf_probe_read_kernel(ext, sizeof(ext), at))
			break;
		p->proto = next;
		if (next == 44) {
			if (bpf_ntohs(*(u16 *)(ext + 2)) & 0xfff8)
				return;
			at += 8;
		} else {
			at += (ext[1] + 1) * 8;
		}
		next = ext[0];
	}
	p->proto = next;
	ht_parse_l4(p, at);
}

/* The same of a socket, for a packet that has no header yet or no longer: it is on its way out. */
static __always_inline void ht_parse_sock(bool btf, struct ht_packet *p, struct sock *sk)
{
	u16 family = HT_READ(btf, sk, __sk_common.skc_family);
	u32 addr;

	if (family == AF_INET) {
		p->version = 4;
		addr = HT_READ(btf, sk, __sk_common.skc_rcv_saddr);
		__builtin_memcpy(p->saddr, &addr, 4);
		addr = HT_READ(btf, sk, __sk_common.skc_daddr);
		__builtin_memcpy(p->daddr, &addr, 4);
	} else if (family == AF_INET6) {
		p->version = 6;
		bpf_core_read(p->saddr, 16, &sk->__sk_common.skc_v6_rcv_saddr);
		bpf_core_read(p->daddr, 16, &sk->__sk_common.skc_v6_daddr);
	} else {
		return;
	}
	p->proto = ht_sk_protocol(btf, sk);
	p->sport = HT_READ(btf, sk, __sk_common.skc_num);
	p->dport = bpf_ntohs(HT_READ(btf, sk, __sk_common.skc_dport));
	p->ports = p->proto == IPPROTO_TCP || p->proto == IPPROTO_UDP;
}

/*
 * @p must be zero. @sk, a full socket of the packet or NULL, helps when the
 * packet has no header; it need not be a pointer that the verifier trusts.
 */
static __always_inline void ht_parse(bool btf, struct ht_packet *p, struct sk_buff *skb, struct sock *sk)
{
	const u8 *at = HT_READ(btf, skb, head) + HT_READ(btf, skb, network_header);

	p->eth = bpf_ntohs(HT_READ(btf, skb, protocol));
	if (p->eth == ETH_P_IP)
		ht_parse_ipv4(p, at);
	else if (p->eth == ETH_P_IPV6)
		ht_parse_ipv6(p, at);
	if (!p->version && sk)
		ht_parse_sock(false, p, sk);
}

/*
 * Class of a packet, as cheap as can be; -1 for what is no packet of a network
 * (AF_UNIX, netlink).
 */
static __always_inline s32 ht_classify(bool btf, struct sk_buff *skb, struct sock *sk)
{
	u16 eth = bpf_ntohs(HT_READ(btf, skb, protocol)), family;
	u8 proto = 0;

	if (eth == ETH_P_IP || eth == ETH_P_IPV6) {
		const u8 *at = HT_READ(btf, skb, head) + HT_READ(btf, skb, network_header);

		bpf_probe_read_kernel(&proto, 1, at + (eth == ETH_P_IP ? 9 : 6));
		return ht_proto_of(proto);
	}
	if (eth == ETH_P_ARP)
		return HT_PROTO_ARP;
	if (sk) {
		family = HT_READ(false, sk, __sk_common.skc_family);
		if (family == AF_INET || family == AF_INET6)
			return ht_proto_of(ht_sk_protocol(false, sk));
		if (!eth)
			return -1;
	}
	return eth ? HT_PROTO_OTHER : -1;
}
