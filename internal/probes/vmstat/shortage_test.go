package vmstat

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"huatuo/internal/probes/probetest"
)

// TestKernelShortage uses up the memory of a whole machine: only a small one, that
// is a guest, whose memory nobody else wants.
func TestKernelShortage(t *testing.T) {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		t.Fatal(err)
	}
	if total := int(info.Totalram) * int(info.Unit); total > 3072*mib {
		t.Skip("needs a machine with less than 3 GiB of memory: run `make vmtest P=vmstat`")
	}
	path := onDisk(t)
	e := start(t)
	const left, more = 300 * mib, 128 * mib
	h := probetest.NewHolder(t, fmt.Sprintf("huatuo-test-vmstat-%d", os.Getpid()), 0)
	h.Do(t, "touch", max(0, available(t)-left)/probetest.HugeSize*probetest.HugeSize) // in huge pages: soon done in emulation
	size := available(t) + more
	if err := os.Truncate(path, int64(size)); err != nil {
		t.Fatal(err)
	}
	moves(t, e, "a file of more than the memory read", func() {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := io.CopyBuffer(io.Discard, struct{ io.Reader }{f}, make([]byte, mib)); err != nil {
			t.Fatal(err)
		}
	}, moved{"pgscan_kswapd", 1000, 0}, moved{"pgsteal_kswapd", 1000, 0}, moved{"pageoutrun", 1, 0}, moved{"pgsteal_file", pages(more / 4), 0})

	if runtime.NumCPU() > 1 {
		t.Log("direct reclaim is not tried: background reclaim has a CPU of its own and may always be in time")
		return
	}
	// Background reclaim comes too late where others go before it.
	for _, thread := range threads(t, "kswapd0") {
		if err := unix.Setpriority(unix.PRIO_PROCESS, thread, 19); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Setpriority(unix.PRIO_PROCESS, thread, 0) })
	}
	for _, thread := range threads(t, strconv.Itoa(h.PID())) {
		if err := unix.SchedSetAttr(thread, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 1}, 0); err != nil {
			t.Fatal(err)
		}
	}
	moves(t, e, "page cache wanted for something else at once", func() { h.Do(t, "fill", more) },
		moved{"allocstall", 1, 0}, moved{"pgscan_direct", 1, 0}, moved{"pgsteal_direct", 1, 0})
}

// available is what /proc/meminfo says of memory that can be had.
func available(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "MemAvailable:")
	n := 0
	if _, err := fmt.Sscan(rest, &n); err != nil {
		t.Fatal(err)
	}
	return n << 10
}

// threads are those of a process, by its id or name.
func threads(t *testing.T, process string) (ids []int) {
	t.Helper()
	comms, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range comms {
		dir := filepath.Dir(c)
		if b, _ := os.ReadFile(c); strings.TrimSpace(string(b)) != process && filepath.Base(dir) != process {
			continue
		}
		tasks, _ := filepath.Glob(dir + "/task/*")
		for _, task := range tasks {
			id, _ := strconv.Atoi(filepath.Base(task))
			ids = append(ids, id)
		}
		return ids
	}
	t.Fatalf("no process %s", process)
	return nil
}
