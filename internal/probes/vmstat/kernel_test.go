package vmstat

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"huatuo/internal/probes/probetest"
	"huatuo/internal/signal"
)

func TestMain(m *testing.M) {
	probetest.HolderMain()
	os.Exit(m.Run())
}

// moved says by how much a counter moves. Others on the host move it as well: hi
// is 0 where they may do so without bound.
type moved struct {
	name   string
	lo, hi float64
}

// moves does something and waits until the counters have moved as that makes
// them: some lag behind by a second, the kernel's own interval. A counter that
// this kernel does not have is passed over.
func moves(t *testing.T, e *probetest.Env, what string, do func(), want ...moved) {
	t.Helper()
	before := e.Gather()
	do()
	within(t, what, before, e, want...)
}

// within waits until the counters have moved so far since before.
func within(t *testing.T, what string, before []signal.Sample, e *probetest.Env, want ...moved) {
	t.Helper()
	value := func(s []signal.Sample, w moved) (float64, bool) {
		unit := ""
		if w.name == "pgpgin" || w.name == "pgpgout" {
			unit = "_bytes"
		}
		return probetest.Value(s, "huatuo_vmstat_"+w.name+unit+"_total")
	}
	var wrong []string
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		wrong = wrong[:0]
		over := false
		after := e.Gather()
		for _, w := range want {
			was, known := value(before, w)
			is, _ := value(after, w)
			if d := is - was; known && (d < w.lo || w.hi > 0 && d > w.hi) {
				wrong = append(wrong, fmt.Sprintf("%s: %s moved by %g, want %g to %g", what, w.name, d, w.lo, w.hi))
				over = over || d > w.lo
			}
		}
		if len(wrong) == 0 {
			return
		}
		if over || time.Now().After(end) {
			t.Error(strings.Join(wrong, "\n"))
			return
		}
	}
}

// account is what the kernel says that this process has used.
func account(t *testing.T) *unix.Rusage {
	t.Helper()
	ru := new(unix.Rusage)
	if err := unix.Getrusage(unix.RUSAGE_SELF, ru); err != nil {
		t.Fatal(err)
	}
	return ru
}

func start(t *testing.T) *probetest.Env {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: run `make ktest` as root")
	}
	e := probetest.New(t)
	e.Start(Spec(), nil)
	return e
}

const mib = 1 << 20

// page is how many pages so many bytes are.
func pages(bytes int) float64 { return float64(bytes / os.Getpagesize()) }

// onDisk returns a file of a directory whose pages can be dropped.
func onDisk(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); err != nil {
		t.Fatal(err)
	}
	if fs.Type == unix.TMPFS_MAGIC {
		t.Skip("needs a temporary directory that is not on tmpfs: set TMPDIR")
	}
	return path
}

// room is half of what the file's disk has, want at most: some guests have little.
func room(t *testing.T, path string, want int) int {
	t.Helper()
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); err != nil {
		t.Fatal(err)
	}
	size := min(want, int(fs.Bavail)*int(fs.Bsize)/2/mib*mib)
	if size < 2*mib {
		t.Skip("needs 4 MiB of room in the temporary directory: set TMPDIR")
	}
	return size
}

// twoLists has the kernel keep active and inactive pages apart until the test's
// end: with generations of pages (6.1) it activates none, and these counters rest.
func twoLists(t *testing.T) {
	t.Helper()
	const file = "/sys/kernel/mm/lru_gen/enabled"
	if _, err := os.Stat(file); err == nil {
		probetest.Set(t, file, "n")
	}
}

// TestKernelFile writes a file, drops its pages, maps and reads them one by one.
func TestKernelFile(t *testing.T) {
	path := onDisk(t)
	e := start(t)
	twoLists(t)
	size := room(t, path, 16*mib)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	moves(t, e, "a file written and synced", func() {
		b := make([]byte, mib)
		for range size / mib {
			probetest.Fill(b)
			if _, err := f.Write(b); err != nil {
				t.Fatal(err)
			}
		}
		if err := f.Sync(); err != nil {
			t.Fatal(err)
		}
	}, moved{"nr_dirtied", pages(size), 0}, moved{"nr_written", pages(size), 0}, moved{"pgpgout", float64(size), 0})

	drop(t, path)
	mem, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Madvise(mem, unix.MADV_RANDOM); err != nil { // no readahead: each page is a fault of its own
		t.Fatal(err)
	}
	// How many faults and reads that takes depends on what the kernel has kept and
	// on the size of its pages; the process's own account knows.
	before, was := e.Gather(), account(t)
	probetest.Read(mem)
	is := account(t)
	if is.Majflt-was.Majflt < 10 {
		t.Fatalf("%d major faults while a mapped file was read", is.Majflt-was.Majflt)
	}
	within(t, "a mapped file read", before, e, moved{"pgmajfault", float64(is.Majflt - was.Majflt), 0},
		moved{"pgfault", float64(is.Majflt - was.Majflt + is.Minflt - was.Minflt), 0}, moved{"pgpgin", 512 * float64(is.Inblock-was.Inblock), 0})

	if err := unix.Munmap(mem); err != nil {
		t.Fatal(err)
	}
	drop(t, path) // so that no page is active yet
	b := make([]byte, 4096)
	moves(t, e, "each page read twice", func() {
		for range 2 {
			for i := int64(0); i < int64(size); i += 4096 {
				if _, err := f.ReadAt(b, i); err != nil {
					t.Fatal(err)
				}
			}
		}
	}, moved{"pgactivate", pages(size) / 64, 0}) // each, or where pages come in groups each group
}

// TestKernelHuge takes, splits and gives back ten huge pages.
func TestKernelHuge(t *testing.T) {
	e := start(t)
	if v, ok := probetest.Value(e.Gather(), "huatuo_vmstat_thp_fault_alloc_total"); !ok {
		t.Skipf("needs a kernel with transparent huge pages (%g)", v)
	}
	if b, _ := os.ReadFile("/sys/kernel/mm/transparent_hugepage/enabled"); strings.Contains(string(b), "[never]") {
		t.Skip("needs transparent huge pages on: echo madvise > /sys/kernel/mm/transparent_hugepage/enabled")
	}
	const n = 10
	mem, err := probetest.HugePages(n * probetest.HugeSize)
	if err != nil {
		t.Fatal(err)
	}
	moves(t, e, "ten huge pages touched", func() { probetest.Fill(mem) }, moved{"thp_fault_alloc", n, 0})
	half := func(advice int) {
		for i := 0; i < len(mem); i += probetest.HugeSize {
			if err := unix.Madvise(mem[i:i+probetest.HugeSize/2], advice); err != nil {
				t.Fatal(err)
			}
		}
	}
	// What is left of a page that is given back in part waits for its split.
	moves(t, e, "the halves of ten huge pages given back", func() { half(unix.MADV_DONTNEED) },
		moved{"thp_split_pmd", n, 0}, moved{"thp_deferred_split_page", n, 0})
	if err := probetest.Unmap(mem); err != nil {
		t.Fatal(err)
	}

	if mem, err = probetest.HugePages(n * probetest.HugeSize); err != nil {
		t.Fatal(err)
	}
	probetest.Fill(mem)
	moves(t, e, "the halves of ten huge pages called cold", func() { half(unix.MADV_COLD) }, moved{"thp_split_page", n, 0})
	if err := probetest.Unmap(mem); err != nil {
		t.Fatal(err)
	}
	collapsed(t, e)
	fromMemory(t, e)
}

// collapsed makes four huge pages of small ones, by request.
func collapsed(t *testing.T, e *probetest.Env) {
	const n, collapse = 4, 25 // MADV_COLLAPSE
	mem, err := probetest.HugePages(n * probetest.HugeSize)
	if err != nil {
		t.Fatal(err)
	}
	defer probetest.Unmap(mem)
	if err := unix.Madvise(mem, unix.MADV_NOHUGEPAGE); err != nil {
		t.Fatal(err)
	}
	probetest.Fill(mem)
	if err := unix.Madvise(mem, unix.MADV_HUGEPAGE); err != nil {
		t.Fatal(err)
	}
	before := e.Gather()
	err = unix.Madvise(mem, collapse)
	if err == unix.EINVAL {
		t.Log("the kernel does not make huge pages by request: it is before 6.1")
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	was, _ := probetest.Value(before, "huatuo_vmstat_thp_collapse_alloc_total")
	is, _ := probetest.Value(e.Gather(), "huatuo_vmstat_thp_collapse_alloc_total")
	if is-was < n {
		t.Errorf("thp_collapse_alloc moved by %g, want %d", is-was, n)
	}
}

// fromMemory fills a file of a memory file system that has huge pages.
func fromMemory(t *testing.T, e *probetest.Env) {
	dir := t.TempDir()
	if err := unix.Mount("huatuo-test", dir, "tmpfs", 0, "huge=always,size=16m"); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	moves(t, e, "8 MiB of a memory file system with huge pages", func() {
		f, err := os.Create(filepath.Join(dir, "file"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := f.Truncate(8 * mib); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write(make([]byte, 8*mib)); err != nil {
			t.Fatal(err)
		}
	}, moved{"thp_file_alloc", 4, 0})
}

// TestKernelFull fills a cgroup: huge pages no longer fit, then nothing does.
func TestKernelFull(t *testing.T) {
	e := start(t)
	t.Run("kill", func(t *testing.T) {
		h := probetest.NewHolder(t, fmt.Sprintf("huatuo-test-vmstat-%d", os.Getpid()), 32*mib)
		moves(t, e, "64 MiB taken in a cgroup of 32 MiB", func() {
			if err := h.Try("fill", 64*mib); err == nil {
				t.Error("the process lives")
			}
		}, moved{"oom_kill", 1, 3})
	})
	t.Run("huge", func(t *testing.T) {
		h := probetest.NewHolder(t, fmt.Sprintf("huatuo-test-vmstat-%d", os.Getpid()), 32*mib)
		// Half of the places have no room, and one small page each then.
		moves(t, e, "32 places for huge pages touched in a cgroup of 32 MiB", func() { h.Do(t, "touch", 32*probetest.HugeSize) },
			moved{"thp_fault_alloc", 8, 0}, moved{"thp_fault_fallback", 16, 0})
	})
	t.Run("reclaim", func(t *testing.T) { fromFile(t, e) })
}

// fromFile reads a file twice through a cgroup that holds half of it.
func fromFile(t *testing.T, e *probetest.Env) {
	path := onDisk(t)
	const size, limit = 64 * mib, 32 * mib
	if err := os.Truncate(path, size); err != nil { // a hole: it takes pages, and no room on the disk
		t.Fatal(err)
	}
	h := probetest.NewHolder(t, fmt.Sprintf("huatuo-test-vmstat-%d", os.Getpid()), limit)
	moves(t, e, "64 MiB read twice in a cgroup of 32 MiB", func() {
		for range 2 {
			if err := h.TryFile("cat", path); err != nil {
				t.Fatal(err)
			}
		}
	}, moved{"pgscan_file", pages(size - limit), 0}, moved{"pgsteal_file", pages(size - limit), 0},
		moved{"workingset_refault_file", pages(size-limit) / 4, 0}, moved{"workingset_refault", pages(size-limit) / 4, 0}) // by what the kernel is
}

func drop(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		t.Fatal(err)
	}
}

// TestKernelCompact leaves every other page of 64 MiB, and has memory compacted.
func TestKernelCompact(t *testing.T) {
	e := start(t)
	const size = 64 * mib
	mem, err := probetest.Pages(size)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(mem)
	probetest.Fill(mem)
	page := os.Getpagesize()
	for i := 0; i < size; i += 2 * page {
		if err := unix.Madvise(mem[i:i+page], unix.MADV_DONTNEED); err != nil {
			t.Fatal(err)
		}
	}
	// How many are moved is the kernel's choice: other free memory may do.
	moves(t, e, "memory with holes compacted", func() { write(t, "/proc/sys/vm/compact_memory", "1") },
		moved{"compact_migrate_scanned", 100, 0}, moved{"compact_free_scanned", 1, 0}, moved{"compact_isolated", 10, 0}, moved{"pgmigrate_success", 10, 0})
}

func write(t *testing.T, file, value string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(value), 0); err != nil {
		t.Fatal(err)
	}
}

// TestKernelDrop looks for a thousand files that are not there, and drops what
// the kernel remembers of them, and its clean pages.
func TestKernelDrop(t *testing.T) {
	e := start(t)
	const n = 1000
	dir := t.TempDir()
	for i := range n {
		if _, err := os.Stat(fmt.Sprintf("%s/%d", dir, i)); err == nil {
			t.Fatal("there is such a file")
		}
	}
	moves(t, e, "caches dropped by hand", func() { write(t, "/proc/sys/vm/drop_caches", "3") },
		moved{"drop_pagecache", 1, 3}, moved{"drop_slab", 1, 3}, moved{"slabs_scanned", n, 0})
}

// TestKernelNode counts pages that are given out, of the only node or near it,
// and has some of a node reclaimed by request where the kernel lets one.
func TestKernelNode(t *testing.T) {
	e := start(t)
	const size = 16 * mib
	moves(t, e, "16 MiB taken", func() {
		mem, err := probetest.Pages(size)
		if err != nil {
			t.Fatal(err)
		}
		probetest.Fill(mem)
		unix.Munmap(mem)
	}, moved{"pgfault", pages(size), 0}, moved{"numa_hit", pages(size), 0}, moved{"numa_local", pages(size), 0})

	const file = "/sys/devices/system/node/node0/reclaim"
	if _, err := os.Stat(file); err != nil {
		t.Log("the kernel does not reclaim by request: it is before 6.17")
		return
	}
	cache(t)
	fd, err := unix.Open(file, unix.O_WRONLY, 0) // not by os, which waits for the end of an EAGAIN that has none
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	moves(t, e, "8 MiB of a node reclaimed by request", func() {
		if _, err := unix.Write(fd, []byte("8M")); err != nil {
			t.Logf("reclaim: %v", err) // not all that was asked for could be had
		}
	}, moved{"pgscan_proactive", 1, 0}, moved{"pgsteal_proactive", 1, 0})
}

// cache reads a file of holes until the node has what it lets be reclaimed: more
// than vm.min_unmapped_ratio of its memory, 1 % by default.
func cache(t *testing.T) {
	t.Helper()
	path := onDisk(t)
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, int64(info.Totalram)*int64(info.Unit)*3/200+64*mib); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := io.CopyBuffer(io.Discard, struct{ io.Reader }{f}, make([]byte, mib)); err != nil {
		t.Fatal(err)
	}
}
