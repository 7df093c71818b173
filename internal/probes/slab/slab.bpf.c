//go:build ignore
// SPDX-License-Identifier: GPL-2.0
/*
 * slab - the kernel's object caches and the slabs that each has.
 *
 * User space walks the caches once a minute; nothing runs in between. Unlike
 * /proc/slabinfo this reads counters alone: that file counts the objects on
 * each node's list of partial slabs, with the list's lock and interrupts off.
 */
#include "kernel.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>
#include "flavour.h"

/* More nodes than machines have; what lies on others is not counted. */
#define MAX_NODES 64

/* Possible nodes of this machine; the pointers behind are not set. */
HT_CONST(u32, nodes, 1);

/*
 * Where struct kmem_cache has the pointers to its nodes, and how far they are apart: before Linux 7.1 in an array
 * of them, since then in one of struct kmem_cache_per_node_ptrs. User space knows by the kernel's types.
 */
HT_CONST(u32, nodes_at, 0);
HT_CONST(u32, nodes_step, 8);

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct kmem_cache_order_objects {
	unsigned int x; /* order of a slab << 16 | objects in it */
};

struct kmem_cache_node {
	atomic_long_t nr_slabs; /* with CONFIG_SLUB_DEBUG, which /proc/slabinfo needs as well */
	atomic_long_t total_objects;
};

struct kmem_cache {
	unsigned int size;
	struct kmem_cache_order_objects oo;
	const char *name;
};

struct bpf_iter__kmem_cache {
	struct bpf_iter_meta *meta;
	struct kmem_cache *s;
};

#pragma clang attribute pop

struct cache_row {
	u64 slabs;
	u64 objects;
	u32 order;
	u32 size;
	u8 name[64];
};

const struct cache_row *_cache_row SEC(".wire") = NULL;

SEC("iter/kmem_cache")
int caches(struct bpf_iter__kmem_cache *ctx)
{
	struct seq_file *seq = ctx->meta->seq;
	struct kmem_cache *s = ctx->s;
	struct cache_row r = {};
	u32 i;

	if (!s)
		return 0;
	for (i = 0; i < MAX_NODES && i < HT_GET(nodes); i++) {
		struct kmem_cache_node *n = NULL;
		s64 slabs = 0, objects = 0;

		bpf_probe_read_kernel(&n, sizeof(n), (char *)s + HT_GET(nodes_at) + i * HT_GET(nodes_step));
		if (!n)
			continue;
		bpf_core_read(&slabs, sizeof(slabs), &n->nr_slabs.counter);
		bpf_core_read(&objects, sizeof(objects), &n->total_objects.counter);
		r.slabs += slabs;
		r.objects += objects;
	}
	r.order = s->oo.x >> 16;
	r.size = s->size;
	bpf_probe_read_kernel_str(r.name, sizeof(r.name), s->name);
	bpf_seq_write(seq, &r, sizeof(r));
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
