package vmstat

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"huatuo/internal/probes/probetest"
)

// near and far are the node of the CPUs and one of slow memory without CPUs.
const near, far = 0, 1

func slowNode(t *testing.T) {
	t.Helper()
	probetest.Nodes(t, 2)
	if b, _ := os.ReadFile(fmt.Sprintf("/sys/devices/system/node/node%d/cpulist", far)); strings.TrimSpace(string(b)) != "" {
		t.Skipf("needs a NUMA node without CPUs, node %d has %s", far, b)
	}
}

// of takes small pages of a node.
func of(t *testing.T, size int, p probetest.Policy, node int) []byte {
	t.Helper()
	mem, err := probetest.Pages(size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Munmap(mem) })
	probetest.Bind(t, mem, p, node)
	return mem
}

// TestKernelNodes takes memory of the far node, more than it has, and moves some.
func TestKernelNodes(t *testing.T) {
	slowNode(t)
	e := start(t)
	const size, others = 32 * mib, 4096
	n := pages(size)
	mem := of(t, size, probetest.Bound, far)
	moves(t, e, "32 MiB of the far node taken", func() { probetest.Fill(mem) }, moved{"numa_other", n, n + others}, moved{"numa_hit", n, n + others})
	moves(t, e, "32 MiB moved to the near node", func() {
		if there := probetest.Move(t, mem, near); there != int(n) {
			t.Errorf("%d of %g pages are moved", there, n)
		}
	}, moved{"pgmigrate_success", n, n + others})
	const held = 16
	moves(t, e, "16 pages that a pipe holds not moved", func() { inPipe(t, mem[:held*os.Getpagesize()]) }, moved{"pgmigrate_fail", held, held + others})

	// Now it has no more than what the kernel keeps for emergencies; what the CPUs
	// keep for themselves is not told of as free.
	most := of(t, free(t, far)+32*mib, probetest.Preferred, far)
	probetest.Fill(most)
	more := of(t, size, probetest.Preferred, far)
	moves(t, e, "32 MiB wanted of the far node, which is full", func() { probetest.Fill(more) },
		moved{"numa_miss", n, n + others}, moved{"numa_foreign", n, n + others}, moved{"numa_local", n, n + others})
}

// inPipe puts pages into a pipe, as they are, and tries to move them then.
func inPipe(t *testing.T, mem []byte) {
	t.Helper()
	var p [2]int
	if err := unix.Pipe(p[:]); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(p[0])
	defer unix.Close(p[1])
	v := unix.Iovec{Base: &mem[0], Len: uint64(len(mem))}
	if n, err := unix.Vmsplice(p[1], []unix.Iovec{v}, 0); err != nil || n != len(mem) {
		t.Fatalf("vmsplice %d of %d bytes: %v", n, len(mem), err)
	}
	if there := probetest.Move(t, mem, far); there != 0 {
		t.Errorf("%d pages are moved although a pipe holds them", there)
	}
}

// free is how many bytes a node has free.
func free(t *testing.T, node int) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/sys/devices/system/node/node%d/meminfo", node))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "MemFree:")
	n := 0
	if _, err := fmt.Sscan(rest, &n); err != nil {
		t.Fatal(err)
	}
	return n << 10
}

// TestKernelBalancing uses memory of the far node until the kernel brings it near.
func TestKernelBalancing(t *testing.T) {
	slowNode(t)
	e := start(t)
	const debug = "/sys/kernel/debug/sched/numa_balancing/"
	if _, err := os.Stat(debug); err != nil {
		t.Skip("needs NUMA balancing, and debugfs: ", err)
	}
	probetest.Set(t, debug+"scan_delay_ms", "10")
	probetest.Set(t, debug+"scan_period_min_ms", "10")
	probetest.Set(t, debug+"scan_period_max_ms", "100")
	const size = 16 * mib
	n := pages(size)
	try := func(what, mode string, node int, counter string, want ...moved) {
		t.Run(what, func(t *testing.T) {
			probetest.Set(t, "/proc/sys/kernel/numa_balancing", mode)
			mem := of(t, size, probetest.Bound, node)
			probetest.Fill(mem)
			probetest.Bind(t, mem, probetest.Default)
			before := e.Gather()
			for end := time.Now().Add(30 * time.Second); time.Now().Before(end); {
				for range 10 {
					probetest.Read(mem)
				}
				if d := by(before, e.Gather(), counter); d >= n*0.75 {
					break
				}
			}
			within(t, "16 MiB used", before, e, append(want, moved{counter, n * 0.75, 0})...)
		})
	}
	most := n * 0.75 // some pages of it the kernel may not have come to yet
	try("far", "1", far, "numa_pages_migrated", moved{"numa_pte_updates", most, 0}, moved{"numa_hint_faults", most, 0}, moved{"pgmigrate_success", most, 0})
	try("near", "1", near, "numa_hint_faults_local", moved{"numa_hint_faults", most, 0})
	try("tiers", "2", far, "pgpromote_success", moved{"numa_pages_migrated", most, 0})
}

// TestKernelDemotion has memory moved to the slow node: some of a cgroup by
// request, some of the near node because it is full.
func TestKernelDemotion(t *testing.T) {
	slowNode(t)
	const file = "/sys/kernel/mm/numa/demotion_enabled"
	if _, err := os.Stat(file); err != nil {
		t.Skip("needs memory tiers: ", err)
	}
	e := start(t)
	probetest.Set(t, file, "1")
	h := probetest.NewHolder(t, fmt.Sprintf("huatuo-test-vmstat-%d", os.Getpid()), 0)
	h.Do(t, "fill", 64*mib)
	const size, others = 16 * mib, 4096
	moves(t, e, "16 MiB of a cgroup reclaimed by request", func() {
		if err := os.WriteFile(filepath.Join(h.Dir("memory"), "memory.reclaim"), []byte(fmt.Sprint(size)), 0); err != nil {
			t.Fatal(err)
		}
	}, moved{"pgdemote_direct", pages(size), pages(size) + others}, moved{"pgsteal_anon", pages(size), pages(size) + others})

	more := free(t, near)/probetest.HugeSize*probetest.HugeSize + 64*mib
	mem, err := probetest.HugePages(more) // soon done in emulation
	if err != nil {
		t.Fatal(err)
	}
	defer probetest.Unmap(mem)
	probetest.Bind(t, mem, probetest.Bound, near)
	moves(t, e, "64 MiB more wanted of the near node than it has", func() { touch(mem) }, moved{"pgdemote_kswapd", 1000, 0}, moved{"pgsteal_anon", pages(32 * mib), 0})
}

// touch writes a byte to each page.
func touch(mem []byte) {
	for i := 0; i < len(mem); i += os.Getpagesize() {
		mem[i] = 1
	}
}
