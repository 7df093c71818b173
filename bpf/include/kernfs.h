/* SPDX-License-Identifier: GPL-2.0 */
/* kernfs.h - what identifies a cgroup to user space. */
#pragma once

/*
 * The inode number of a cgroup's directory. The id is that since v5.5; before,
 * the number is a half of it (core_fixes.h).
 */
static __always_inline u64 ht_kernfs_id(bool btf, struct kernfs_node *kn)
{
	struct kernfs_node___5_4_0 *o = (void *)kn;
	u32 ino = 0;

	if (!bpf_core_field_exists(o->id.ino))
		return HT_READ(btf, kn, id);
	bpf_core_read(&ino, sizeof(ino), &o->id.ino);
	return ino;
}
