package hungtask

import "strings"

// Classes of wait. A task is in the first whose table knows a function of its
// stack: what makes a lock's holder wait is farther out than the lock.
const (
	classNetworkFS = "network_fs"
	classJournal   = "journal"
	classMemory    = "memory"
	classIO        = "io"
	classLock      = "lock"
	classOther     = "other"
	classFrozen    = "" // put aside by the administrator: it does not wait
)

// classes in the order in which they are tried. A name that ends in * is a prefix.
var classes = []struct {
	name      string
	functions []string
}{
	{classFrozen, []string{"__refrigerator"}}, // before 6.1 a frozen task is in state D: f5d39b020809 ("freezer,sched: Rewrite core freezer logic")
	{classNetworkFS, []string{"nfs_*", "nfs4_*", "rpc_*", "cifs_*", "smb2_*", "ceph_*", "fuse_*", "request_wait_answer", "v9fs_*", "p9_*", "afs_*"}},
	{classJournal, []string{"jbd2_*", "start_this_handle", "wait_transaction_locked", "xlog_*", "xfs_log_*", "xfs_trans_*", "btrfs_wait_*", "btrfs_commit_transaction", "wait_current_trans"}},
	{classMemory, []string{"balance_dirty_pages*", "shrink_*", "try_to_free_*", "reclaim_throttle", "do_try_to_free_pages", "mem_cgroup_*", "folio_wait_writeback", "wait_on_page_writeback", "do_swap_page"}},
	{classIO, []string{"io_schedule*", "submit_bio_wait", "blk_*", "__blk_*", "blkdev_*", "wait_on_page_bit*", "folio_wait_bit*", "bit_wait_io*", "wait_on_buffer", "__wait_on_buffer", "wait_for_completion_io*", "iomap_dio_*", "__iomap_dio_*", "dio_*", "scsi_*", "nvme_*", "md_*", "dm_*"}},
	{classLock, []string{"__mutex_lock*", "mutex_lock*", "rwsem_*", "down_*", "__down*", "percpu_rwsem_wait", "__percpu_down_read*", "percpu_down_*", "rt_mutex_*", "__rt_mutex_*", "rwbase_*", "wait_on_bit*", "__wait_on_bit*"}},
}

func classNames() []string {
	return []string{classIO, classNetworkFS, classJournal, classMemory, classLock, classOther}
}

// scheduler are functions by which any task waits: they do not tell what for.
var scheduler = []string{"__schedule", "schedule*", "io_schedule*", "__cond_resched", "preempt_schedule*", "context_switch", "__switch_to*",
	"bit_wait*", "wait_woken", "__sched_text_start"}

// classify takes the functions of a stack, innermost first, and returns that in which the
// task waits and the class of the wait.
func classify(functions []string) (wait, class string) {
	for _, f := range functions {
		if !matches(f, scheduler) {
			wait = f
			break
		}
	}
	for _, c := range classes {
		for _, f := range functions {
			if matches(f, c.functions) {
				return wait, c.name
			}
		}
	}
	return wait, classOther
}

// matches ignores what the compiler adds to the name of a part of a function (f.constprop.0, f.isra.0).
func matches(f string, list []string) bool {
	f, _, _ = strings.Cut(f, ".")
	for _, l := range list {
		if p, ok := strings.CutSuffix(l, "*"); ok && strings.HasPrefix(f, p) || f == l {
			return true
		}
	}
	return false
}
