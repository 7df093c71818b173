/* SPDX-License-Identifier: GPL-2.0 */
/* cgroup.h - which cgroup a task belongs to, in the hierarchy that names workloads. */
#pragma once
#include "kernfs.h"

/*
 * Index of the v1 controller whose hierarchy gives the identity, or -1 for the
 * default (v2) hierarchy. On a v1 or hybrid host runtimes always make the
 * container's cgroup in the cpu hierarchy, but not always in the default one.
 */
HT_CONST(s32, ht_cgroup_subsys, -1);

static __always_inline u64 ht_cgroup_id(bool btf, struct task_struct *t)
{
	struct css_set *set = HT_READ(btf, t, cgroups);
	struct cgroup_subsys_state *css;
	struct kernfs_node *kn;
	struct cgroup *cg;

	if (HT_GET(ht_cgroup_subsys) < 0) {
		cg = HT_READ(btf, set, dfl_cgrp);
	} else {
		css = HT_READ(btf, set, subsys[HT_GET(ht_cgroup_subsys) & 15]);
		cg = HT_READ(btf, css, cgroup);
	}
	kn = HT_READ(btf, cg, kn);
	return ht_kernfs_id(btf, kn);
}
