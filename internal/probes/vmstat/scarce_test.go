package vmstat

import (
	"fmt"
	"io"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"huatuo/internal/probes/probetest"
	"huatuo/internal/signal"
)

const hugeDir = "/sys/kernel/mm/transparent_hugepage/"

// scarce leaves the machine so many bytes that nobody has taken, until the test's
// end. Only a small one can be so.
func scarce(t *testing.T, left int) *probetest.Holder {
	t.Helper()
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		t.Fatal(err)
	}
	if total := int(info.Totalram) * int(info.Unit); total > 3072*mib {
		t.Skip("needs a machine with less than 3 GiB of memory: run `make vmtest P=vmstat`")
	}
	h := probetest.NewHolder(t, fmt.Sprintf("huatuo-test-vmstat-%d", os.Getpid()), 0)
	write(t, "/proc/sys/vm/drop_caches", "3")
	h.Do(t, "touch", max(0, available(t)-left)/probetest.HugeSize*probetest.HugeSize) // in huge pages: soon done in emulation
	return h
}

// cached reads a file of holes: so much page cache that can be dropped again.
func cached(t *testing.T, path string, size int) {
	t.Helper()
	if err := os.Truncate(path, int64(size)); err != nil {
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

// holes takes memory in small pages and gives every other one back: no two free
// pages are neighbours any more, and what is left can be moved.
func holes(t *testing.T, size int) []byte {
	t.Helper()
	mem, err := probetest.Pages(size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Munmap(mem) })
	page := os.Getpagesize()
	for i := 0; i < size; i += page {
		mem[i] = 1
	}
	for i := 0; i < size; i += 2 * page {
		if err := unix.Madvise(mem[i:i+page], unix.MADV_DONTNEED); err != nil {
			t.Fatal(err)
		}
	}
	return mem
}

func value(s []signal.Sample, name string) float64 {
	v, _ := probetest.Value(s, "huatuo_vmstat_"+name+"_total")
	return v
}

// TestKernelFragments wants huge pages of a machine whose free memory is all single pages.
func TestKernelFragments(t *testing.T) {
	h := scarce(t, 400*mib)
	e := start(t)
	mem := holes(t, 300*mib)
	h.Do(t, "touch", available(t)/2/probetest.HugeSize*probetest.HugeSize) // what is free in large pieces, and some more
	before := e.Gather()
	for i := range 10 {
		h.Do(t, "touch", probetest.HugeSize)
		a := e.Gather()
		t.Logf("%d: stall %g success %g fail %g wake %g alloc %g fallback %g", i, value(a, "compact_stall")-value(before, "compact_stall"), value(a, "compact_success")-value(before, "compact_success"),
			value(a, "compact_fail")-value(before, "compact_fail"), value(a, "compact_daemon_wake")-value(before, "compact_daemon_wake"), value(a, "thp_fault_alloc")-value(before, "thp_fault_alloc"), value(a, "thp_fault_fallback")-value(before, "thp_fault_fallback"))
	}
	probetest.Set(t, "/proc/sys/vm/compact_unevictable_allowed", "0")
	if err := unix.Mlock(mem); err != nil {
		t.Log(err)
	}
	for i := range 10 {
		h.Do(t, "touch", probetest.HugeSize)
		a := e.Gather()
		t.Logf("%d: stall %g success %g fail %g wake %g alloc %g fallback %g", i, value(a, "compact_stall")-value(before, "compact_stall"), value(a, "compact_success")-value(before, "compact_success"),
			value(a, "compact_fail")-value(before, "compact_fail"), value(a, "compact_daemon_wake")-value(before, "compact_daemon_wake"), value(a, "thp_fault_alloc")-value(before, "thp_fault_alloc"), value(a, "thp_fault_fallback")-value(before, "thp_fault_fallback"))
	}
}

// TestKernelZoneReclaim has a full node make room of its own cache.
func TestKernelZoneReclaim(t *testing.T) {
	const file = "/proc/sys/vm/zone_reclaim_mode"
	path := onDisk(t)
	h := scarce(t, 300*mib)
	e := start(t)
	cached(t, path, 320*mib)
	probetest.Set(t, file, "1")
	before := e.Gather()
	h.Do(t, "fill", 64*mib)
	diff(t, before, e.Gather())
	t.Run("failed", func(t *testing.T) {
		probetest.Set(t, "/proc/sys/vm/min_unmapped_ratio", "0")
		probetest.Set(t, "/proc/sys/vm/dirty_background_ratio", "70")
		probetest.Set(t, "/proc/sys/vm/dirty_ratio", "80")
		write(t, "/proc/sys/vm/drop_caches", "3")
		h.Do(t, "fill", (available(t)-48*mib)/4096*4096)
		if err := os.WriteFile(path, make([]byte, 4*mib), 0o600); err != nil {
			t.Log(err)
		}
		before := e.Gather()
		h.Do(t, "fill", 16*mib)
		diff(t, before, e.Gather())
	})
}

func diff(t *testing.T, before, after []signal.Sample) {
	for _, f := range fields {
		was, _ := probetest.Value(before, f.schema.Name)
		is, _ := probetest.Value(after, f.schema.Name)
		if is != was {
			t.Logf("%s +%g", f.schema.Name, is-was)
		}
	}
}

// TestKernelMarks has memory run low again right after background reclaim ended.
func TestKernelMarks(t *testing.T) {
	path := onDisk(t)
	scarce(t, 300*mib)
	e := start(t)
	before := e.Gather()
	cached(t, path, 800*mib)
	diff(t, before, e.Gather())
	t.Log("slow")
	before = e.Gather()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 256<<10)
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if _, err := f.Read(b); err == io.EOF {
			break
		}
	}
	diff(t, before, e.Gather())
	t.Log("throttle")
	before = e.Gather()
	probetest.Set(t, "/proc/sys/vm/min_free_kbytes", "200000")
	cached(t, path, 400*mib)
	diff(t, before, e.Gather())
}

// TestKernelDaemon has the huge page daemon make huge pages of small ones.
func TestKernelDaemon(t *testing.T) {
	path := onDisk(t)
	h := scarce(t, 300*mib)
	e := start(t)
	before := e.Gather()
	h.Do(t, "small", 16*probetest.HugeSize)
	cached(t, path, 400*mib)
	probetest.Set(t, hugeDir+"khugepaged/pages_to_scan", fmt.Sprint(64*512))
	probetest.Set(t, hugeDir+"khugepaged/alloc_sleep_millisecs", "10")
	probetest.Set(t, hugeDir+"khugepaged/scan_sleep_millisecs", "10")
	time.Sleep(8 * time.Second)
	diff(t, before, e.Gather())
}
