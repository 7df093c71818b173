//go:build ignore
// SPDX-License-Identifier: GPL-2.0
/*
 * nic - queues of network devices that do not send: the kernel's watchdog found
 * one and tells the driver to reset it. Rare, so nothing here need be cheap.
 */
#include "huatuo.h"

HT_CONST(u64, nic_period_ns, 200000000);
HT_CONST(u64, nic_burst, 20);

/* Members that no other probe reads. */
#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct device_driver {
	const char *name;
};

struct device {
	struct device *parent;
	struct device_driver *driver;
};

struct net_device___nic {
	struct device dev;
};
#pragma clang attribute pop

struct device_name {
	u8 name[16];
};

/* 256 devices: more have never failed at once. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 256);
	__type(key, struct device_name);
	__type(value, u64);
} timeouts SEC(".maps");

struct nic_timeout_wire {
	u64 ts;
	u64 suppressed;
	u32 ifindex;
	u32 queue;
	u32 netns;
	u32 pad;
	struct device_name device;
	u8 driver[32];
};
HT_WIRE(nic_timeout_wire);

static __always_inline int on_timeout(void *ctx, bool btf, struct net_device *dev, u32 queue)
{
	u64 now = bpf_ktime_get_ns(), zero = 0, *n;
	struct device_name name = {};
	struct nic_timeout_wire *e;
	struct device_driver *drv;
	struct device *parent;
	const char *s;
	s64 suppressed;

	bpf_core_read(&name, sizeof(name), &dev->name);
	bpf_map_update_elem(&timeouts, &name, &zero, BPF_NOEXIST);
	n = bpf_map_lookup_elem(&timeouts, &name);
	if (n)
		__sync_fetch_and_add(n, 1);

	suppressed = ht_admit(0, now, HT_GET(nic_period_ns), HT_GET(nic_burst));
	if (suppressed < 0)
		return 0;
	e = ht_reserve(sizeof(*e));
	if (!e)
		return 0;
	__builtin_memset(e, 0, sizeof(*e));
	e->ts = now;
	e->suppressed = suppressed;
	e->ifindex = HT_READ(btf, dev, ifindex);
	e->queue = queue;
	e->netns = BPF_CORE_READ(dev, nd_net.net, ns.inum);
	e->device = name;
	parent = BPF_CORE_READ((struct net_device___nic *)dev, dev.parent);
	if (parent) {
		drv = BPF_CORE_READ(parent, driver);
		if (drv) {
			s = BPF_CORE_READ(drv, name);
			bpf_probe_read_kernel_str(e->driver, sizeof(e->driver), s);
		}
	}
	ht_submit_now(ctx, e, sizeof(*e));
	return 0;
}

HT_TP2(net_dev_xmit_timeout, on_timeout, struct net_device *, u32)
