package vmstat

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"huatuo/internal/probes/probetest"
)

// TestKernelSwap takes twice the memory that a cgroup may have, and reads it all
// again: half of it goes out, and as much comes back.
func TestKernelSwap(t *testing.T) {
	e := start(t)
	probetest.Swap(t, 128*mib)
	const size, limit = 64 * mib, 32 * mib
	t.Run("disk", func(t *testing.T) {
		h := probetest.NewHolder(t, fmt.Sprintf("huatuo-test-vmstat-%d", os.Getpid()), limit)
		out := pages(size - limit)
		moves(t, e, "64 MiB taken in a cgroup of 32 MiB", func() { h.Do(t, "fill", size) },
			moved{"pswpout", out, 0}, moved{"pgpgout", size - limit, 0}, moved{"nr_vmscan_write", out, 0}, moved{"pgscan_anon", out, 0}, moved{"pgsteal_anon", out, 0})
		moves(t, e, "64 MiB read again in a cgroup of 32 MiB", func() { h.Do(t, "read", 0) },
			moved{"pswpin", out * 9 / 10, 0}, moved{"pgmajfault", 100, 0}, moved{"workingset_refault_anon", out / 2, 0})
		ahead(t, e, h)
	})
	t.Run("thrash", func(t *testing.T) { thrash(t, e, limit) })
	t.Run("compressed", func(t *testing.T) { compressed(t, e, size, limit) })
	t.Run("huge", func(t *testing.T) { hugeOut(t, e) })
}

// ahead reads on, in order, where the kernel reads ahead: not from memory.
func ahead(t *testing.T, e *probetest.Env, h *probetest.Holder) {
	if b, _ := os.ReadFile("/proc/swaps"); !strings.Contains(string(b), "file") {
		return // a device in memory: see probetest.Swap
	}
	moves(t, e, "the same read in order", func() { h.Do(t, "read", 0) }, moved{"swap_ra", 100, 0}, moved{"swap_ra_hit", 50, 0})
}

// compressed does the same with the compressed cache before the disk, and then
// leaves that no room.
func compressed(t *testing.T, e *probetest.Env, size, limit int) {
	if !probetest.Zswap(t) {
		return
	}
	h := probetest.NewHolder(t, fmt.Sprintf("huatuo-test-vmstat-%d", os.Getpid()), limit)
	out := pages(size - limit)
	moves(t, e, "64 MiB taken in a cgroup of 32 MiB", func() { h.Do(t, "fill", size) }, moved{"zswpout", out, 0})
	moves(t, e, "64 MiB read again in a cgroup of 32 MiB", func() { h.Do(t, "read", 0) }, moved{"zswpin", out * 9 / 10, 0})
	const name = "huatuo_vmstat_zswpwb_total"
	was, known := probetest.Value(e.Gather(), name)
	if !known {
		return
	}
	// What the other one cannot put into the cache has the kernel write some of this
	// one's pages to the disk: they need memory of this group on their way, and are
	// spared when they are met for the first time.
	h.Limit(t, 4*size)
	probetest.Set(t, "/sys/module/zswap/parameters/max_pool_percent", "0")
	other := probetest.NewHolder(t, fmt.Sprintf("huatuo-test-other-%d", os.Getpid()), limit)
	other.Do(t, "fill", size)
	for end := time.Now().Add(10 * time.Second); ; {
		if is, _ := probetest.Value(e.Gather(), name); is > was {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s does not move while the compressed cache has no room", name)
		}
		other.Do(t, "read", 0)
	}
}

// hugeOut pages ten huge pages out by request.
func hugeOut(t *testing.T, e *probetest.Env) {
	if _, ok := probetest.Value(e.Gather(), "huatuo_vmstat_thp_swpout_total"); !ok {
		return
	}
	const n = 10
	mem, err := probetest.HugePages(n * probetest.HugeSize)
	if err != nil {
		t.Fatal(err)
	}
	defer probetest.Unmap(mem)
	probetest.Fill(mem)
	// Whole where the swap area has room in one piece for each, else split.
	before := e.Gather()
	if err := unix.Madvise(mem, unix.MADV_PAGEOUT); err != nil {
		t.Fatal(err)
	}
	within(t, "ten huge pages paged out", before, e, moved{"pswpout", 256, 0})
	sum := 0.0
	for _, name := range []string{"thp_swpout", "thp_swpout_fallback"} {
		was, _ := probetest.Value(before, "huatuo_vmstat_"+name+"_total")
		is, _ := probetest.Value(e.Gather(), "huatuo_vmstat_"+name+"_total")
		t.Logf("%s moved by %g", name, is-was)
		sum += is - was
	}
	if sum < n/2 {
		t.Errorf("of %d huge pages %g were swapped out whole, or split for it", n, sum)
	}
}

// thrash reads a file that does not fit beside what a cgroup has in use: what
// comes back soon after it went becomes active, goes all the same, and comes back.
func thrash(t *testing.T, e *probetest.Env, limit int) {
	twoLists(t)
	path := onDisk(t)
	if err := os.Truncate(path, 24*mib); err != nil {
		t.Fatal(err)
	}
	h := probetest.NewHolder(t, fmt.Sprintf("huatuo-test-vmstat-%d", os.Getpid()), limit)
	h.Do(t, "fill", 14*mib)
	time.Sleep(2500 * time.Millisecond) // how much that is the kernel sees at intervals of 2 s, and compares with it
	const name = "huatuo_vmstat_workingset_restore_file_total"
	was, _ := probetest.Value(e.Gather(), name)
	moves(t, e, "a file of 24 MiB read again and again in a cgroup of 32 MiB of which 14 are taken", func() {
		for end := time.Now().Add(10 * time.Second); time.Now().Before(end); {
			if is, known := probetest.Value(e.Gather(), name); !known || is >= was+100 {
				break
			}
			if err := h.TryFile("cat", path); err != nil {
				t.Fatal(err)
			}
			h.Do(t, "read", 0)
		}
	}, moved{"workingset_refault_file", 1000, 0}, moved{"workingset_activate_file", 100, 0}, moved{"workingset_restore_file", 100, 0},
		moved{"pgdeactivate", 100, 0}, moved{"pgactivate", 100, 0})
}
