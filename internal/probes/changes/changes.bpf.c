//go:build ignore
// SPDX-License-Identifier: GPL-2.0
/*
 * changes - who changed what: writes to sysctls, modules that come and go.
 *
 * A write is told before it takes effect, and never held up: what a handler
 * makes of it is for user space to see. Reads pass here too and end at once.
 */
#include "huatuo.h"
#include "cgroup.h"

enum kind { SYSCTL, MODULE };

#define NAME 96
#define VALUE 128

HT_CONST(u64, sysctl_period_ns, 1000000000);
HT_CONST(u64, sysctl_burst, 20);
HT_CONST(u64, module_period_ns, 1000000000);
HT_CONST(u64, module_burst, 20);
HT_CONST(u32, host_netns, 0); /* 0: not known */
HT_CONST(bool, namespaces, false);
HT_CONST(bool, devices, false);

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct nsproxy {
	struct net *net_ns;
};

struct task_struct___changes {
	struct nsproxy *nsproxy;
};

struct module {
	char name[56];
	unsigned long taints;
};

#pragma clang attribute pop

/* Who did it. */
struct actor {
	u64 cgroup;
	u32 pid;
	u32 tgid;
	u32 ppid;
	u32 uid;
	u8 comm[16];
	u8 parent[16];
};

struct sysctl_wire {
	u32 kind;
	u32 netns; /* of the writer */
	u64 ts;
	u64 suppressed;
	struct actor by;
	s32 old_len; /* negative: an error, -E2BIG when it was cut */
	s32 value_len;
	u8 name[NAME];
	u8 old[VALUE];
	u8 value[VALUE];
};
HT_WIRE(sysctl_wire);

struct module_wire {
	u32 kind;
	u32 gone;
	u64 ts;
	u64 suppressed;
	struct actor by;
	u64 taints;
	u8 name[56];
};
HT_WIRE(module_wire);

static __always_inline void who(struct actor *a)
{
	struct task_struct *t = (void *)bpf_get_current_task(), *p;

	a->cgroup = ht_cgroup_id(false, t);
	a->pid = HT_READ(false, t, pid);
	a->tgid = HT_READ(false, t, tgid);
	a->uid = bpf_get_current_uid_gid();
	bpf_probe_read_kernel(a->comm, sizeof(a->comm), t->comm);
	p = HT_READ(false, t, real_parent);
	a->ppid = HT_READ(false, p, tgid);
	bpf_probe_read_kernel(a->parent, sizeof(a->parent), p->comm);
}

static __always_inline int module(void *ctx, bool btf, struct module *m, bool gone)
{
	u64 now = bpf_ktime_get_ns();
	struct module_wire *e;
	s64 suppressed;

	suppressed = ht_admit(MODULE, now, HT_GET(module_period_ns), HT_GET(module_burst));
	if (suppressed < 0)
		return 0;
	e = ht_reserve(sizeof(*e));
	if (!e)
		return 0;
	e->kind = MODULE;
	e->gone = gone;
	e->ts = now;
	e->suppressed = suppressed;
	who(&e->by);
	e->taints = HT_READ(btf, m, taints);
	bpf_probe_read_kernel(e->name, sizeof(e->name), m->name);
	ht_submit(ctx, e, sizeof(*e));
	return 0;
}

static __always_inline int on_load(void *ctx, bool btf, struct module *m) { return module(ctx, btf, m, false); }
static __always_inline int on_free(void *ctx, bool btf, struct module *m) { return module(ctx, btf, m, true); }

HT_TP1(module_load, on_load, struct module *)
HT_TP1(module_free, on_free, struct module *)

#ifndef HT_LEGACY /* 5.2 has the hook, but helpers that it needs came with 5.11 */

struct bpf_sysctl {
	u32 write;
	u32 file_pos;
};

/* The eight bytes at @p as one number; the buffer is aligned. */
#define WORD(p, i) (((const u64 *)(p))[i])

/* Whether the name is "net/ipv4/conf/IFACE/…", or that of neighbours or of IPv6, and IFACE is a device. */
static __always_inline bool of_device(const char *name)
{
	const char *at;

	if (__builtin_memcmp(name, "net/ipv", 7))
		return false;
	if (!__builtin_memcmp(name + 8, "/conf/", 6))
		at = name + 14;
	else if (!__builtin_memcmp(name + 8, "/neigh/", 7))
		at = name + 15;
	else
		return false;
	return __builtin_memcmp(at, "all/", 4) && __builtin_memcmp(at, "default/", 8);
}

/* Cuts the newline at the end of a value of @len bytes. */
static __always_inline void chomp(char *value, long len)
{
	if (len > 0 && len < VALUE && value[(len - 1) & (VALUE - 1)] == '\n')
		value[(len - 1) & (VALUE - 1)] = 0;
}

static __always_inline void on_write(struct bpf_sysctl *ctx)
{
	char name[NAME] __attribute__((aligned(8))) = {}, old[VALUE] __attribute__((aligned(8))) = {},
			value[VALUE] __attribute__((aligned(8))) = {};
	struct task_struct___changes *t = (void *)bpf_get_current_task();
	u32 netns = BPF_CORE_READ(t, nsproxy, net_ns, ns.inum);
	struct sysctl_wire *e;
	long old_len, value_len;
	s64 suppressed;
	u64 now, differ = 0;

	bpf_sysctl_get_name(ctx, name, sizeof(name), 0);
	if (!HT_GET(devices) && of_device(name))
		return;
	if (!HT_GET(namespaces) && HT_GET(host_netns) && netns != HT_GET(host_netns) &&
	    !__builtin_memcmp(name, "net/", 4))
		return;
	old_len = bpf_sysctl_get_current_value(ctx, old, sizeof(old));
	value_len = bpf_sysctl_get_new_value(ctx, value, sizeof(value));
	chomp(old, old_len);
	chomp(value, value_len);
#pragma unroll
	for (int i = 0; i < VALUE / 8; i++)
		differ |= WORD(old, i) ^ WORD(value, i);
	if (!differ && old_len >= 0 && value_len >= 0)
		return;

	now = bpf_ktime_get_ns();
	suppressed = ht_admit(SYSCTL, now, HT_GET(sysctl_period_ns), HT_GET(sysctl_burst));
	if (suppressed < 0)
		return;
	e = ht_reserve(sizeof(*e));
	if (!e)
		return;
	e->kind = SYSCTL;
	e->netns = netns;
	e->ts = now;
	e->suppressed = suppressed;
	who(&e->by);
	e->old_len = old_len;
	e->value_len = value_len;
	__builtin_memcpy(e->name, name, sizeof(name));
	__builtin_memcpy(e->old, old, sizeof(old));
	__builtin_memcpy(e->value, value, sizeof(value));
	ht_submit(ctx, e, sizeof(*e));
}

SEC("cgroup/sysctl") int sysctl_write(struct bpf_sysctl *ctx)
{
	if (ctx->write)
		on_write(ctx);
	return 1; /* never refused */
}

#endif
