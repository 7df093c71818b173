package cgroupstat

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"huatuo/internal/kern/cgroup"
	"huatuo/internal/probes/probetest"
	"huatuo/internal/signal"
)

const mib = 1 << 20

// want says between what a value is to be.
type want struct {
	schema *signal.Schema
	labels []string
	lo, hi float64 // hi 0: no limit
}

// becomes waits until the values of a workload are as wanted: what v1 and v2 tell
// of lags behind by two seconds, and the limits are read once a minute only, so
// that each round needs a probe of its own for them.
func becomes(t *testing.T, h *probetest.Holder, what string, all ...want) {
	t.Helper()
	var wrong []string
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(200 * time.Millisecond) {
		wrong = wrong[:0]
		p := newTestPoller(t, "/", Config{MaxGroups: 1000, MaxOpenFiles: 1000})
		b := new(signal.Batch)
		if err := p.collect(b); err != nil {
			t.Fatal(err)
		}
		for _, w := range all {
			v, ok := probetest.WorkloadValue(b.Samples, w.schema.Name, h.ID, w.labels...)
			if !ok || v < w.lo || w.hi > 0 && v > w.hi {
				wrong = append(wrong, fmt.Sprintf("%s: %s%q = %g, %v; want %g to %g", what, w.schema.Name, w.labels, v, ok, w.lo, w.hi))
			}
		}
		if len(wrong) == 0 {
			return
		}
		if time.Now().After(end) {
			t.Error(strings.Join(wrong, "\n"))
			return
		}
	}
}

func newHolder(t *testing.T, limit int) *probetest.Holder {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: run `make ktest` as root")
	}
	enable(t)
	return probetest.NewHolder(t, fmt.Sprintf("huatuo-test-holder-%d", os.Getpid()), limit)
}

// enable gives groups their controllers, on v2.
func enable(t *testing.T) {
	t.Helper()
	l, err := cgroup.Detect("/")
	if err != nil {
		t.Skip("needs control groups: ", err)
	}
	if l.Mode == cgroup.V2 {
		for _, c := range []string{"+cpu", "+memory", "+pids", "+io"} {
			os.WriteFile(l.Mount("")+"/cgroup.subtree_control", []byte(c), 0) // refused where it is missing
		}
	}
}

func pagesOf(bytes int) float64 { return float64(bytes / os.Getpagesize()) }

// TestKernelSwap takes twice the memory that a group may have, and reads it again.
func TestKernelSwap(t *testing.T) {
	const size, limit = 64 * mib, 32 * mib
	probetest.Swap(t, 128*mib)
	h := newHolder(t, limit)
	h.Do(t, "fill", size)
	all := []want{
		{memorySwap, nil, size - limit, 2 * size}, {memoryLimit, nil, limit, limit}, {memoryUsage, nil, limit / 2, limit},
		{memoryEventsTotal, []string{"max"}, 1, 0}, {memoryFaults, nil, pagesOf(size), 0}, {memoryPeak, nil, limit / 2, limit + mib},
	}
	if !probetest.OnV1() {
		all = append(all, want{memoryScanned, nil, pagesOf(size - limit), 0}, want{memoryReclaimed, nil, pagesOf(size - limit), 0})
	}
	becomes(t, h, "64 MiB taken in a group of 32 MiB", all...)
	h.Do(t, "read", 0)
	all = []want{{memoryMajorFaults, nil, 100, 0}}
	if tells(t, h, "workingset_refault_anon") {
		all = append(all, want{memoryRefaults, []string{"anon"}, pagesOf(size-limit) / 2, 0})
	}
	if tells(t, h, "pswpin") {
		all = append(all, want{memorySwapped, []string{"in", "disk"}, pagesOf(size-limit) * 9 / 10, 0}, want{memorySwapped, []string{"out", "disk"}, pagesOf(size - limit), 0})
	}
	becomes(t, h, "64 MiB read again", all...)
}

// tells tells whether memory.stat of this kernel has a line.
func tells(t *testing.T, h *probetest.Holder, key string) bool {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(h.Dir("memory"), "memory.stat"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Contains(string(b), "\n"+key+" ")
}

// TestKernelZswap does the same with the compressed cache before the disk.
func TestKernelZswap(t *testing.T) {
	const size, limit = 64 * mib, 32 * mib
	probetest.Swap(t, 128*mib)
	h := newHolder(t, limit)
	if !tells(t, h, "zswapped") {
		t.Skip("needs memory.stat to tell of zswap: v2 on Linux 5.19, with CONFIG_ZSWAP")
	}
	if !probetest.Zswap(t) {
		t.Skip("needs a kernel with zswap (CONFIG_ZSWAP)")
	}
	h.Do(t, "fill", size)
	// What is in the cache counts against the limit: more than half goes there.
	becomes(t, h, "64 MiB taken in a group of 32 MiB", want{memoryZswapped, nil, size - limit, size}, want{memoryZswap, nil, 1, limit},
		want{memorySwapped, []string{"out", "zswap"}, pagesOf(size - limit), 0}, want{memorySwap, nil, size - limit, 2 * size})
	h.Do(t, "read", 0)
	becomes(t, h, "64 MiB read again", want{memorySwapped, []string{"in", "zswap"}, pagesOf(size-limit) * 9 / 10, 0})
}

// TestKernelSwapFull lets a group have 8 MiB of swap beside its 32 MiB, on v1
// none: it is killed when both are full.
func TestKernelSwapFull(t *testing.T) {
	limit, more := 32*mib, 8*mib
	probetest.Swap(t, 64*mib)
	h := newHolder(t, limit)
	file, value, why := "memory.swap.max", more, "fail"
	if probetest.OnV1() {
		more = 0
		file, value, why = "memory.memsw.limit_in_bytes", limit, "max"
	}
	if err := os.WriteFile(filepath.Join(h.Dir("memory"), file), []byte(fmt.Sprint(value)), 0); err != nil {
		t.Skipf("needs swap to be counted by group: %v", err)
	}
	if err := h.Try("fill", 2*limit); err == nil {
		t.Fatalf("%d bytes fit into %d", 2*limit, limit+more)
	}
	all := []want{{memorySwapLimit, nil, float64(more), float64(more)}, {memoryEventsTotal, []string{"oom_kill"}, 1, 1}}
	if !probetest.OnV1() {
		all = append(all, want{memoryEventsTotal, []string{"max"}, 1, 0}, want{memoryEventsTotal, []string{"oom"}, 1, 0})
	}
	// What does not fit the kernel need not try: Linux 6.18 counts nothing on v1,
	// newer kernels on v2 only what they tried in vain.
	switch n := failures(t, h); {
	case n > 0:
		all = append(all, want{memorySwapEvents, []string{why}, n, n})
	case probetest.OnV1() && old(t):
		t.Error("memory.memsw.failcnt is 0 although memory and swap together are full")
	default:
		t.Log("the kernel counted no failure to swap")
	}
	becomes(t, h, "a group whose memory and swap are full", all...)
}

// old tells the kernels that are known to count on v1.
func old(t *testing.T) bool {
	t.Helper()
	b, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		t.Fatal(err)
	}
	return strings.HasPrefix(string(b), "5.10.") || strings.HasPrefix(string(b), "6.1.")
}

// failures is how often a group could not swap, as its file tells.
func failures(t *testing.T, h *probetest.Holder) (n float64) {
	t.Helper()
	file, key := "memory.swap.events", "fail "
	if probetest.OnV1() {
		file, key = "memory.memsw.failcnt", ""
	}
	b, err := os.ReadFile(filepath.Join(h.Dir("memory"), file))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), key)
	if _, err := fmt.Sscan(rest, &n); err != nil {
		t.Fatalf("%s: %q", file, b)
	}
	return n
}

// TestKernelKinds uses known amounts of each kind of memory that a group is told of.
func TestKernelKinds(t *testing.T) {
	h := newHolder(t, 0)
	dir, mem := t.TempDir(), t.TempDir()
	if err := unix.Mount("huatuo-test", mem, "tmpfs", 0, "size=32m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(mem, unix.MNT_DETACH) })
	file := filepath.Join(dir, "file")
	do := func(command, arg string) {
		t.Helper()
		if err := h.TryFile(command, arg); err != nil {
			t.Fatal(err)
		}
	}
	const size = 4 * mib         // of what "write" writes
	const least = size - 128<<10 // what is new is counted by CPU first
	do("write", filepath.Join(mem, "file"))
	becomes(t, h, "4 MiB in a memory file system", want{memoryShmem, nil, least, size + mib}, want{memoryFile, nil, least, size + 16*mib})
	if err := h.TryFile("write", file); err != nil && strings.Contains(err.Error(), "no space") {
		t.Logf("files are not tried, the temporary directory has no room: %v", err)
	} else if err != nil {
		t.Fatal(err)
	} else {
		becomes(t, h, "4 MiB written", want{memoryFile, nil, 2 * least, 2*size + 16*mib}, want{memoryDirty, nil, size / 2, size + 4*mib})
		do("map", file)
		becomes(t, h, "4 MiB mapped", want{memoryMapped, nil, least, size + 16*mib})
	}
	do("names", dir)
	all := []want{{memoryKernel, nil, mib, 0}} // a name takes 192 bytes and more
	if !probetest.OnV1() {
		all = append(all, want{memorySlab, nil, mib, 0})
	}
	if probetest.OnV1() || tells(t, h, "kernel") {
		becomes(t, h, "20000 names looked for", all...)
	}
	h.Do(t, "fill", size)
	h.Do(t, "mlock", 0)
	becomes(t, h, "4 MiB locked", want{memoryUnevictable, nil, least, size + mib}, want{memoryAnon, nil, least, size + 32*mib})
	if probetest.OnV1() {
		return // it does not tell the rest
	}
	h.Do(t, "sparse", 1024*mib)
	if tells(t, h, "pagetables") {
		becomes(t, h, "a page taken in each of 512 places", want{memoryPageTables, nil, float64(512 * os.Getpagesize()), 0})
	}
	h.Do(t, "send", 2000)
	becomes(t, h, "2000 datagrams that nobody reads", want{memorySocket, nil, 2000 * 1000, 16 * mib})
}

// TestKernelBurst saves up quota while it sleeps, and uses it all at once.
func TestKernelBurst(t *testing.T) {
	h := newHolder(t, 0)
	quota, burst := map[string]string{"cpu.max": "20000 100000"}, "cpu.max.burst"
	if probetest.OnV1() {
		quota, burst = map[string]string{"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "20000"}, "cpu.cfs_burst_us"
	}
	for file, value := range quota {
		if err := os.WriteFile(filepath.Join(h.Dir("cpu"), file), []byte(value), 0); err != nil {
			t.Skipf("needs the cpu controller: %v", err)
		}
	}
	if err := os.WriteFile(filepath.Join(h.Dir("cpu"), burst), []byte("20000"), 0); err != nil {
		t.Skipf("needs bursts of CPU time (Linux 5.14): %v", err)
	}
	const times = 5
	for range times {
		time.Sleep(300 * time.Millisecond) // three periods: 20 ms are saved
		h.Do(t, "spin", 60)
	}
	becomes(t, h, "five bursts of 20 ms", want{cpuBurst, nil, 0.001, times * 0.04}, want{cpuLimit, nil, 0.2, 0.2}, want{cpuPeriods, nil, times, 0})
}
