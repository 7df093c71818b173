package vmstat

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"huatuo/internal/probes/probetest"
	"huatuo/internal/signal"
)

// scarcity is what the parts of TestKernelScarce share.
type scarcity struct {
	env    *probetest.Env
	holder *probetest.Holder // has taken what it says
	file   *os.File          // of holes: its page cache can be dropped at once
}

// TestKernelScarce leaves a whole machine little memory: only a small one, that is
// a guest, and one whose background reclaim has a CPU of its own to be quick on.
func TestKernelScarce(t *testing.T) {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		t.Fatal(err)
	}
	if total := int(info.Totalram) * int(info.Unit); total > 3072*mib {
		t.Skip("needs a machine with less than 3 GiB of memory: run `make vmtest P=vmstat`")
	}
	if runtime.NumCPU() < 2 {
		t.Skip("needs two CPUs: run `make vmtest K=6.12 P=vmstat`")
	}
	path := onDisk(t)
	s := &scarcity{env: start(t)}
	s.holder = probetest.NewHolder(t, fmt.Sprintf("huatuo-test-vmstat-%d", os.Getpid()), 0)
	const left = 400 * mib
	s.holder.Do(t, "touch", max(0, available(t)-left)/probetest.HugeSize*probetest.HugeSize) // in huge pages: soon done in emulation
	var err error
	if s.file, err = os.OpenFile(path, os.O_RDWR, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.file.Close() })
	size := available(t) + 128*mib
	if err := s.file.Truncate(int64(size)); err != nil {
		t.Fatal(err)
	}
	s.read(t, size, 0)
	t.Run("marks", s.marks)
	t.Run("node", s.node)
	t.Run("throttle", s.throttle)
	t.Run("daemon", s.daemon)
}

// read reads on in the file, which begins anew at its end, with a pause after each
// piece: what comes next is never in memory any more, for the file is larger.
func (s *scarcity) read(t *testing.T, size int, pause time.Duration) {
	t.Helper()
	b := make([]byte, 256<<10)
	for range size / len(b) {
		n, err := s.file.Read(b)
		if n == 0 && err == io.EOF {
			_, err = s.file.Seek(0, io.SeekStart)
		}
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(pause)
	}
}

// until does something again and again until a counter has moved so far.
func (s *scarcity) until(t *testing.T, what, name string, n float64, do func()) {
	t.Helper()
	before := s.env.Gather()
	s.tries(before, name, n, do)
	within(t, what, before, s.env, moved{name, n, 0})
}

// tries tells whether it has within half a minute.
func (s *scarcity) tries(before []signal.Sample, name string, n float64, do func()) bool {
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); do() {
		if by(before, s.env.Gather(), name) >= n {
			return true
		}
	}
	return by(before, s.env.Gather(), name) >= n
}

// by is how far a counter has moved.
func by(before, after []signal.Sample, name string) float64 {
	was, _ := probetest.Value(before, "huatuo_vmstat_"+name+"_total")
	is, _ := probetest.Value(after, "huatuo_vmstat_"+name+"_total")
	return is - was
}

// marks wants memory again less than 0.1 s after background reclaim has ended:
// some while the marks go up, and then less than is between those at which it
// begins and ends.
func (s *scarcity) marks(t *testing.T) {
	const file = "/proc/sys/vm/min_free_kbytes"
	was, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { probetest.Restore(t, file, was) })
	least, err := strconv.Atoi(strings.TrimSpace(string(was)))
	if err != nil {
		t.Fatal(err)
	}
	t.Run("low", func(t *testing.T) { s.lowMark(t, file, least, was) })
	s.until(t, "a file read with pauses", "kswapd_high_wmark_hit_quickly", 3, func() {
		s.read(t, 4*mib, 0)
		time.Sleep(20 * time.Millisecond)
	})
}

// lowMark wants memory while the marks go up: background reclaim must not yet
// sleep again, which is for the guest's host to say, too.
func (s *scarcity) lowMark(t *testing.T, file string, least int, was []byte) {
	before := s.env.Gather()
	quick := s.tries(before, "kswapd_low_wmark_hit_quickly", 1, func() {
		mem, err := probetest.Pages(10 * mib)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Munmap(mem)
		for i := range 10 {
			write(t, file, strconv.Itoa(least+(i+1)*8192))
			touch(mem[i*mib : (i+1)*mib])
			time.Sleep(time.Duration(i+1) * 40 * time.Millisecond) // it takes long on a busy machine: one of them is right
		}
		probetest.Restore(t, file, was)
		s.read(t, 100*mib, 0)
	})
	if !quick {
		t.Skip("needs a machine that is less busy: background reclaim was not wanted again within 0.1 s; run `make vmtest K=6.12 P=vmstat` alone")
	}
	within(t, "marks that go up", before, s.env, moved{"kswapd_low_wmark_hit_quickly", 1, 0})
}

// node has a full node make room of its own page cache. With generations of pages
// the kernel does not even try to, and fails.
func (s *scarcity) node(t *testing.T) {
	probetest.Set(t, "/proc/sys/vm/zone_reclaim_mode", "1")
	t.Run("success", func(t *testing.T) {
		twoLists(t)
		s.until(t, "page cache wanted of a full node", "zone_reclaim_success", 20, func() { s.read(t, 64*mib, 0) })
	})
	t.Run("failure", func(t *testing.T) {
		const file = "/sys/kernel/mm/lru_gen/enabled"
		if _, err := os.Stat(file); err != nil {
			t.Log("a kernel without generations of pages does not fail in this: it is before 6.1")
			return
		}
		probetest.Set(t, file, "y")
		s.until(t, "page cache wanted of a full node", "zone_reclaim_failed", 20, func() { s.read(t, 64*mib, 0) })
	})
}

// daemon has the huge page daemon make huge pages of small ones where there is no
// free memory in large pieces: it has to reclaim and to compact, and cannot where
// the pages between must not be moved.
func (s *scarcity) daemon(t *testing.T) {
	const dir = "/sys/kernel/mm/transparent_hugepage/"
	if b, err := os.ReadFile(dir + "enabled"); err != nil || strings.Contains(string(b), "[never]") {
		t.Logf("huge pages are not tried: %s, %v", b, err)
		return
	}
	probetest.Set(t, dir+"khugepaged/pages_to_scan", fmt.Sprint(64*512))
	for _, what := range []string{"alloc", "scan"} {
		probetest.Set(t, dir+"khugepaged/"+what+"_sleep_millisecs", "10")
	}
	probetest.Set(t, "/proc/sys/vm/watermark_scale_factor", "100")
	mem := holes(t, 300*mib)
	probetest.Set(t, "/proc/sys/vm/compact_unevictable_allowed", "0")
	if err := unix.Mlock(mem); err != nil {
		t.Fatal(err)
	}
	all := s.env.Gather()
	places := 0
	more := func() {
		if s.settle(t); places < 96 {
			s.holder.Do(t, "small", 4*probetest.HugeSize)
			places += 4
		}
	}
	s.until(t, "huge pages wanted between pages that stay where they are", "thp_collapse_alloc_failed", 1, more)
	within(t, "huge pages wanted between pages that stay where they are", all, s.env, moved{"compact_fail", 1, 0}, moved{"pgscan_khugepaged", 1, 0}, moved{"pgsteal_khugepaged", 1, 0})
	write(t, "/proc/sys/vm/compact_unevictable_allowed", "1")
	if err := unix.Munlock(mem); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end) && by(all, s.env.Gather(), "compact_success") < 1; {
		more()
	}
	deferred(t, dir+"defrag")
	s.until(t, "huge pages wanted that the kernel is to have ready later", "compact_daemon_wake", 1, func() {
		s.settle(t)
		if err := s.holder.Try("touch", probetest.HugeSize); err != nil {
			t.Fatal(err)
		}
	})
	within(t, "huge pages made of small ones", all, s.env, moved{"compact_success", 1, 0}, moved{"compact_stall", 2, 0}, moved{"thp_collapse_alloc", float64(places) / 4, 0})
}

// deferred has who wants a huge page not wait for one until the test's end.
func deferred(t *testing.T, file string) {
	t.Helper()
	b, err := os.ReadFile(file) // "always defer [madvise] never"
	if err != nil {
		t.Fatal(err)
	}
	_, was, _ := strings.Cut(string(b), "[")
	was, _, _ = strings.Cut(was, "]")
	t.Cleanup(func() { probetest.Restore(t, file, []byte(was)) })
	write(t, file, "defer")
}

// settle fills free memory with page cache, and lets background reclaim have its
// way: without free pages beyond the marks the kernel does not compact.
func (s *scarcity) settle(t *testing.T) {
	t.Helper()
	s.read(t, 32*mib, 0)
	time.Sleep(300 * time.Millisecond)
}

// holes takes memory in small pages and gives every other one back.
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

// throttle wants memory when less than half of what is kept for emergencies is there.
func (s *scarcity) throttle(t *testing.T) {
	const file = "/proc/sys/vm/min_free_kbytes"
	was, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { probetest.Restore(t, file, was) })
	s.until(t, "memory wanted when the kernel wants it itself", "pgscan_direct_throttle", 1, func() {
		mem, err := probetest.Pages(4 * mib)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Munmap(mem)
		probetest.Restore(t, file, was)
		s.read(t, 200*mib, 0)
		write(t, file, "200000")
		probetest.Fill(mem) // before background reclaim has seen it
	})
}
