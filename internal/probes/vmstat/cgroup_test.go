package vmstat

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"huatuo/internal/probes/probetest"
)

// TestKernelDirty writes four times the memory that a cgroup may have: reclaim
// meets what the disk has not taken yet. On v2 the writer is slowed down first; on
// v1 a slow disk may cost it its life, which does as well.
func TestKernelDirty(t *testing.T) {
	if !probetest.OnV1() {
		t.Skip("needs the v1 memory controller")
	}
	path := onDisk(t)
	if room(t, path, 256*mib) < 128*mib {
		t.Skip("needs 256 MiB of room in the temporary directory: set TMPDIR")
	}
	e := start(t)
	const limit = 32 * mib
	h := probetest.NewHolder(t, fmt.Sprintf("huatuo-test-vmstat-%d", os.Getpid()), limit)
	moves(t, e, "128 MiB written in a cgroup of 32 MiB", func() {
		for i := range 4 * limit / (4 * mib) {
			if err := h.TryFile("write", filepath.Join(filepath.Dir(path), fmt.Sprint(i))); err != nil {
				t.Log(err)
				break
			}
		}
	}, moved{"nr_dirtied", pages(limit / 2), 0}, moved{"nr_vmscan_immediate_reclaim", 32, 0}, moved{"nr_throttled_written", 1, 0})
}

// TestKernelShadows reads a page of each of 16384 parts of a file: where each was
// the kernel keeps, and forgets most of it, for that takes more memory than the
// cgroup may have.
func TestKernelShadows(t *testing.T) {
	path := onDisk(t)
	e := start(t)
	const limit, parts = 16 * mib, 16384
	if err := os.Truncate(path, parts*256<<10); err != nil { // a hole
		t.Fatal(err)
	}
	h := probetest.NewHolder(t, fmt.Sprintf("huatuo-test-vmstat-%d", os.Getpid()), limit)
	moves(t, e, "a page read of each of 16384 parts of a file", func() {
		if err := h.TryFile("scatter", path); err != nil {
			t.Fatal(err)
		}
	}, moved{"workingset_nodereclaim", parts / 8, 0})
}

// TestKernelComesBack takes from a cgroup some of the memory that it is using, and
// none of its page cache, which it could do without, and gives it back: what comes
// back is active at once, and known when it comes back once more.
func TestKernelComesBack(t *testing.T) {
	path := onDisk(t)
	e := start(t)
	probetest.Swap(t, 128*mib)
	twoLists(t)
	const most, size = 64 * mib, 24 * mib
	if err := os.Truncate(path, size); err != nil { // a hole
		t.Fatal(err)
	}
	probetest.Set(t, "/proc/sys/vm/swappiness", "200")
	h := probetest.NewHolder(t, fmt.Sprintf("huatuo-test-vmstat-%d", os.Getpid()), most)
	h.Do(t, "fill", size)
	before := e.Gather()
	n := pages(4 * mib)
	for i := range 8 {
		if by(before, e.Gather(), "workingset_restore_anon") >= n {
			break
		}
		if err := h.TryFile("cat", path); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2500 * time.Millisecond) // how much that is the kernel sees at intervals of 2 s, and compares with it
		out := size / 3                     // it comes back as active; of what is, some has to go again
		if i%2 == 1 {
			out = size * 3 / 4
		}
		squeeze(t, h, 2*size-out)
		squeeze(t, h, most)
		h.Do(t, "read", 0)
	}
	within(t, "memory in use taken", before, e, moved{"workingset_refault_anon", n, 0},
		moved{"workingset_activate_anon", n, 0}, moved{"workingset_restore_anon", n, 0})
}

// squeeze has a cgroup use no more than so many bytes, or try to.
func squeeze(t *testing.T, h *probetest.Holder, bytes int) {
	t.Helper()
	file := "memory.high"
	if probetest.OnV1() {
		file = "memory.limit_in_bytes"
	}
	err := os.WriteFile(filepath.Join(h.Dir("memory"), file), []byte(fmt.Sprint(bytes)), 0)
	if err != nil && !errors.Is(err, unix.EBUSY) { // not all of it could be taken
		t.Fatal(err)
	}
}
