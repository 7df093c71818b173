package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"huatuo/internal/probes/probetest"
)

// TestPaging: a workload that may have 16 MiB reads a file of 64 MiB twice. What
// does not fit is reclaimed, and the second time it is read again; and this test
// writes 16 MiB to the disk. Others page too: the host's counters move by that
// much or more.
func TestPaging(t *testing.T) {
	a := start(t)
	const size, limit, page = 64 << 20, 16 << 20, 4096
	file := filepath.Join(t.TempDir(), "file")
	cg := probetest.NewCgroup(t, cgroupName("paging"))
	unit := fmt.Sprintf("unit=%q", cg.Path)
	name := "memory.max"
	if probetest.OnV1() {
		name = "memory.limit_in_bytes"
	}
	if err := os.WriteFile(filepath.Join(cg.Dir("memory"), name), []byte(fmt.Sprint(limit)), 0); err != nil {
		t.Skipf("needs the memory controller: %v", err)
	}
	host := map[string]float64{ // at least
		"huatuo_vmstat_nr_dirtied_total":              size / page,
		"huatuo_vmstat_nr_written_total":              size / page,
		"huatuo_vmstat_pgpgout_bytes_total":           size,
		"huatuo_vmstat_pgpgin_bytes_total":            size,
		"huatuo_vmstat_pgsteal_file_total":            (size - limit) / page,
		"huatuo_vmstat_pgscan_file_total":             (size - limit) / page,
		"huatuo_vmstat_workingset_refault_file_total": 1000,
	}
	before := map[string]float64{}
	for name := range host {
		before[name] = counter(t, a, name)
	}
	if err := os.WriteFile(file, make([]byte, size), 0o600); err != nil {
		t.Fatal(err)
	}
	if !evict(t, file) {
		t.Skip("needs a temporary directory on a disk, whose pages can be dropped: set TMPDIR")
	}
	twice(t, cg, file)
	a.eventually(20*time.Second, "paging of the host", func() error {
		for name, want := range host {
			if d := counter(t, a, name) - before[name]; d < want {
				return fmt.Errorf("%s moved by %v, want %v", name, d, want)
			}
		}
		return nil
	})
	a.eventually(10*time.Second, "paging of the workload", func() error {
		if n := counter(t, a, "huatuo_container_memory_refaults_total", unit, `type="file"`); n < 1000 {
			return fmt.Errorf("%v refaults", n)
		}
		if n := counter(t, a, "huatuo_container_reclaim_pages_total", unit); n < (size-limit)/page || n > 32*size/page {
			return fmt.Errorf("%v pages reclaimed for the workload, want %d, or with large folios a multiple", n, (size-limit)/page)
		}
		if n := counter(t, a, "huatuo_container_reclaim_seconds_count", unit, `kind="memcg"`); n < 100 {
			return fmt.Errorf("reclaimed for the workload %v times", n)
		}
		if n := counter(t, a, "huatuo_container_memory_usage_bytes", unit); n < limit/2 || n > limit {
			return fmt.Errorf("the workload uses %v bytes, its limit is %d", n, limit)
		}
		return nil
	})
}

// twice lets a process in the group read a file two times, and then stay.
func twice(t *testing.T, cg *probetest.Cgroup, file string) {
	t.Helper()
	c := exec.Command("sh", "-c", "read _; for i in 1 2; do dd if="+file+" of=/dev/null bs=1M 2>/dev/null || exit; done; exec sleep 60")
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Process.Kill(); c.Wait() })
	cg.Add(t, c.Process.Pid)
	fmt.Fprintln(in)
}
