/* SPDX-License-Identifier: GPL-2.0 */
/*
 * filter.h - a filter of packets in tcpdump's syntax, which user space compiles
 * and writes into the program before the load (internal/kern/packetfilter).
 *
 * The filter sees an Ethernet frame that is copied together from the packet or,
 * where it has no headers, made up from its socket. It stands before the token
 * bucket: what it leaves out makes no event and is counted as left out.
 */
#pragma once
#include "packet.h"

#define HT_LINK_BYTES 14
#define HT_FILTER_BYTES 240 /* of the packet, from the network header on */
#define HT_NO_HEADER 0xffff /* skb->mac_header: not set */

HT_CONST(bool, ht_filter_on, false);		 /* there is a filter */
HT_CONST(bool, ht_filter_link, false);		 /* it looks at the addresses of the link */
HT_CONST(u32, ht_filter_bytes, HT_FILTER_BYTES); /* as much as it can look at */

struct ht_filter_value {
	u64 left_out;
	u8 pad[2]; /* aligns net */
	u8 mac[12];
	__be16 type;
	u8 net[HT_FILTER_BYTES];
};

/*
 * Where the frame is put together: in a map, because old verifiers let a
 * program load from a place that it computed there, and not on the stack.
 * Before 05b24ff9b2cf ("bpf: Prevent bpf program recursion for raw tracepoint
 * probes"), v6.2, a softirq that loses a packet while this CPU filters another
 * one writes over the frame: that one is then judged by the wrong headers.
 */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct ht_filter_value);
} ht_filter SEC(".maps");

/*
 * ht_filter_run - the filter: the loader puts its instructions here.
 * @frame: FrameBytes of packetfilter.go
 * @have: bytes of it that are of the packet
 * @length: of the packet with its link header
 */
static __noinline u64 ht_filter_run(const u8 *frame, u64 have, u64 length)
{
	u64 take;

	asm volatile("%0 = 1" : "=r"(take) : "r"(frame), "r"(have), "r"(length)); /* the compiler cannot know */
	return take;
}

static __always_inline struct ht_filter_value *ht_filter_frame(void)
{
	u32 zero = 0;

	return bpf_map_lookup_elem(&ht_filter, &zero);
}

static __always_inline bool ht_filter_take(struct ht_filter_value *v, u64 have, u64 length)
{
	if (ht_filter_run(v->mac, have, length))
		return true;
	v->left_out++;
	ht_count(HT_OBSERVED);
	return false;
}

static __always_inline void ht_filter_no_link(struct ht_filter_value *v)
{
	if (HT_GET(ht_filter_link))
		__builtin_memset(v->mac, 0, sizeof(v->mac));
}

/* What is known of a packet that has no headers. Addresses as in struct ht_packet. */
struct ht_filter_ends {
	const u8 *saddr;
	const u8 *daddr;
	u16 sport;
	u16 dport;
	u8 version;
	u8 proto;
	u8 flags;    /* TCP */
	u32 seq;     /* TCP */
	u32 payload; /* bytes */
};

static __always_inline u32 ht_filter_l4(u8 *at, const struct ht_filter_ends *p)
{
	__builtin_memset(at, 0, 20);
	*(u16 *)at = bpf_htons(p->sport);
	*(u16 *)(at + 2) = bpf_htons(p->dport);
	if (p->proto == IPPROTO_TCP) {
		*(u32 *)(at + 4) = bpf_htonl(p->seq);
		at[12] = 20 / 4 << 4;
		at[13] = p->flags;
		return 20;
	}
	*(u16 *)(at + 4) = bpf_htons(8 + p->payload);
	return 8;
}

/* An address of IPv4 that a socket of IPv6 talks to. */
static __always_inline bool ht_filter_mapped(const u8 *addr)
{
	const u32 *a = (const u32 *)addr;

	return !a[0] && !a[1] && a[2] == bpf_htonl(0xffff);
}

static __always_inline bool ht_filter_ipv4(struct ht_filter_value *v, const struct ht_filter_ends *p, u32 saddr,
					   u32 daddr)
{
	u32 size;

	v->type = bpf_htons(ETH_P_IP);
	__builtin_memset(v->net, 0, 12);
	v->net[0] = 0x45;
	v->net[8] = 64;
	v->net[9] = p->proto;
	*(u32 *)(v->net + 12) = saddr;
	*(u32 *)(v->net + 16) = daddr;
	size = 20 + ht_filter_l4(v->net + 20, p);
	*(u16 *)(v->net + 2) = bpf_htons(size + p->payload);
	return ht_filter_take(v, HT_LINK_BYTES + size, HT_LINK_BYTES + size + p->payload);
}

static __always_inline bool ht_filter_ipv6(struct ht_filter_value *v, const struct ht_filter_ends *p)
{
	u32 size;

	v->type = bpf_htons(ETH_P_IPV6);
	*(u32 *)v->net = bpf_htonl(0x60000000);
	v->net[6] = p->proto;
	v->net[7] = 64;
	__builtin_memcpy(v->net + 8, p->saddr, 16);
	__builtin_memcpy(v->net + 24, p->daddr, 16);
	size = ht_filter_l4(v->net + 40, p);
	*(u16 *)(v->net + 4) = bpf_htons(size + p->payload);
	size += 40;
	return ht_filter_take(v, HT_LINK_BYTES + size, HT_LINK_BYTES + size + p->payload);
}

/* ht_filter_made - ask the filter about a packet that has no headers yet, or no longer. */
static __always_inline bool ht_filter_made(struct ht_filter_value *v, const struct ht_filter_ends *p)
{
	ht_filter_no_link(v);
	if (p->version == 4)
		return ht_filter_ipv4(v, p, *(const u32 *)p->saddr, *(const u32 *)p->daddr);
	if (p->version != 6)
		return ht_filter_take(v, 0, 0);
	if (ht_filter_mapped(p->daddr))
		return ht_filter_ipv4(v, p, *(const u32 *)(p->saddr + 12), *(const u32 *)(p->daddr + 12));
	return ht_filter_ipv6(v, p);
}

static __always_inline bool ht_filter_of_sock(struct ht_filter_value *v, struct sk_buff *skb, struct sock *sk)
{
	struct ht_packet p = {};
	struct ht_filter_ends e = {};

	ht_parse_sock(false, &p, sk);
	e.saddr = p.saddr;
	e.daddr = p.daddr;
	e.sport = p.sport;
	e.dport = p.dport;
	e.version = p.version;
	e.proto = p.proto;
	e.payload = HT_READ(false, skb, len);
	return ht_filter_made(v, &e);
}

/*
 * ht_filter_skb - whether the filter takes a packet, wherever in the stack it
 * is; yes when there is no filter. @sk is as for ht_parse().
 */
static __always_inline bool ht_filter_skb(bool btf, struct sk_buff *skb, struct sock *sk)
{
	struct ht_filter_value *v;
	u32 net, mac, have;
	const u8 *head;
	s64 length;

	if (!HT_GET(ht_filter_on))
		return true;
	head = HT_READ(btf, skb, head);
	net = HT_READ(btf, skb, network_header);
	v = ht_filter_frame();
	if (!v)
		return true;
	v->type = HT_READ(btf, skb, protocol);
	v->net[0] = 0;
	if (v->type)
		bpf_probe_read_kernel(v->net, HT_GET(ht_filter_bytes), head + net);
	if (sk && (!v->type || (v->type == bpf_htons(ETH_P_IP) && v->net[0] >> 4 != 4) ||
		   (v->type == bpf_htons(ETH_P_IPV6) && v->net[0] >> 4 != 6)))
		return ht_filter_of_sock(v, skb, sk);
	if (HT_GET(ht_filter_link)) {
		mac = HT_READ(btf, skb, mac_header);
		ht_filter_no_link(v);
		if (mac != HT_NO_HEADER && mac + HT_LINK_BYTES == net)
			bpf_probe_read_kernel(v->mac, sizeof(v->mac), head + mac);
	}
	/* What headers were taken off, or put on, from where the packet begins now. */
	length = (s64)(HT_READ(btf, skb, data) - head) - net + HT_READ(btf, skb, len);
	have = HT_READ(btf, skb, tail) - net; /* the rest is not in one piece */
	if (have > HT_GET(ht_filter_bytes))
		have = HT_GET(ht_filter_bytes);
	return ht_filter_take(v, HT_LINK_BYTES + have, HT_LINK_BYTES + length);
}
