package known

// Builtin returns what is known on every machine. Each is marked and none is
// hidden: whether a dead file server is normal, only its owner can tell.
//
// An entry belongs here when the kernel's documentation or its authors say that
// this is what happens, and the stack alone proves that it has happened.
func Builtin() []Issue { return append(servers(), ownDoing()...) }

// servers are waits for somebody else, who does not come.
func servers() []Issue {
	return []Issue{
		{
			Name: "fuse_server", Kinds: []string{"hung_task", "page_fault_stall"},
			// The request is with the server, and the caller may not leave before it has answered.
			Stack: `^(request_wait_answer|(__)?fuse_simple_request|fuse_wait_on_(page|folio)_writeback)$`,
			Label: "It waits for a FUSE file system's server, a process that does not answer: look at that process, or abort the connection in /sys/fs/fuse/connections.",
			URL:   "https://docs.kernel.org/filesystems/fuse.html#aborting-a-filesystem-connection",
		},
		{
			Name: "nfs_server", Kinds: []string{"hung_task", "page_fault_stall"},
			// A hard mount, the default, asks again until the server answers: nfs(5).
			Stack: `^(rpc_wait_bit_killable|nfs_wait_bit_killable|nfs_wait_on_request|nfs4?_wait_clnt_recover|nfs4_proc_\w+)$`,
			Label: "It waits for an NFS server that does not answer; a hard mount asks for ever. Look at the server and the network to it.",
			URL:   "https://man7.org/linux/man-pages/man5/nfs.5.html",
		},
		{
			Name: "filesystem_frozen", Kinds: []string{"hung_task"},
			// FIFREEZE takes the write side of s_writers until FITHAW gives it back.
			Stack: `^(__sb_start_write|sb_start_write|mnt_want_write|mnt_want_write_file|sb_wait_write|sb_start_pagefault|sb_start_intwrite)$`,
			Label: "It wants to write to a file system that is frozen, for a snapshot or a backup. When the backup has died, thaw it: fsfreeze --unfreeze.",
			URL:   "https://man7.org/linux/man-pages/man8/fsfreeze.8.html",
		},
		{
			Name: "userfaultfd_handler", Kinds: []string{"hung_task", "page_fault_stall"},
			Stack: `^handle_userfault$`,
			Label: "It waits for a page that a process in user space has to give it (userfaultfd: live migration, snapshots of virtual machines, CRIU). Look at that process.",
			URL:   "https://docs.kernel.org/admin-guide/mm/userfaultfd.html",
		},
		{
			Name: "core_dump", Kinds: []string{"hung_task"},
			// Uninterruptible until b8e753128ed0 ("exit: Sleep at TASK_IDLE when waiting for application core dump"), Linux 6.12.
			Stack: `^(coredump_task_exit|do_coredump|vfs_coredump|elf_core_dump|coredump_wait)$`,
			Label: "Its process is being dumped to a core file, and all its threads wait for that. A large process takes minutes.",
			URL:   "https://git.kernel.org/linus/b8e753128ed0",
		},
	}
}

// ownDoing are waits that somebody has asked for, and what is not the kernel's.
func ownDoing() []Issue {
	return []Issue{
		{
			Name: "oom_killer_disabled", Kinds: []string{"hung_task"},
			Stack: `^mem_cgroup_oom_synchronize$`,
			Label: "Its control group (v1) has used up its memory and has the OOM killer disabled: its tasks wait until there is more. See memory.oom_control.",
			URL:   "https://docs.kernel.org/admin-guide/cgroup-v1/memory.html#oom-control",
		},
		{
			Name: "memory_high", Kinds: []string{"hung_task", "direct_reclaim_stall"},
			Stack: `^(__)?mem_cgroup_handle_over_high$`,
			Label: "Its control group is above memory.high, and the kernel slows it down on purpose. Raise memory.high, or use less.",
			URL:   "https://docs.kernel.org/admin-guide/cgroup-v2.html#memory-interface-files",
		},
		{
			Name: "network_namespace", Kinds: []string{"hung_task"},
			// cleanup_net holds pernet_ops_rwsem while it waits for references; copy_net_ns wants it.
			Stack: `^(netdev_wait_allrefs(_any)?|copy_net_ns)$`,
			Label: "It waits to make or to remove a network namespace. When the kernel log says \"waiting for … to become free\", a reference to a device has leaked, which has many causes; new containers then hang until a reboot.",
			URL:   "https://github.com/moby/moby/issues/5618",
		},
		{
			Name: "transmit_timeout", Kinds: []string{"kernel_warning"},
			// WARN_ONCE in net/sched/sch_generic.c: the card or its driver, not this code.
			Stack: `^dev_watchdog$`,
			Label: "A network card did not send for seconds: the card, its driver or its firmware. The stack is that of the watchdog.",
			URL:   "https://docs.kernel.org/networking/driver.html",
		},
	}
}
