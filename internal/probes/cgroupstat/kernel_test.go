package cgroupstat

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"huatuo/internal/kern/cgroup"
	"huatuo/internal/probes/probetest"
	"huatuo/internal/signal"
)

// testGroup is a real control group, in every hierarchy of this host.
type testGroup struct {
	t      testing.TB
	layout *cgroup.Layout
	path   string
	id     uint64
}

var controllers = []string{"cpu", "cpuacct", "memory", "pids", "blkio", ""}

func newTestGroup(t testing.TB, path string) *testGroup {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	l, err := cgroup.Detect("/")
	if err != nil {
		t.Skip("needs control groups: ", err)
	}
	if l.Mode == cgroup.V2 {
		// Refused where a controller is missing: then the values are, and the test tells.
		for _, c := range []string{"+cpu", "+memory", "+pids", "+io"} {
			os.WriteFile(l.Mount("")+"/cgroup.subtree_control", []byte(c), 0)
		}
	}
	g := &testGroup{t: t, layout: l, path: path}
	t.Cleanup(g.remove)
	for _, dir := range g.dirs() {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if g.id, err = cgroup.ID(l.IdentityRoot + path); err != nil {
		t.Fatal(err)
	}
	return g
}

// dirs are the group's directories, each once.
func (g *testGroup) dirs() []string {
	var dirs []string
	seen := map[string]bool{}
	for _, c := range controllers {
		if m := g.layout.Mount(c); m != "" && !seen[m] {
			seen[m] = true
			dirs = append(dirs, m+g.path)
		}
	}
	return dirs
}

func (g *testGroup) remove() {
	for _, dir := range g.dirs() {
		var err error
		for range 50 { // the kernel needs a moment after the last process
			if err = unix.Rmdir(dir); err == nil || errors.Is(err, unix.ENOENT) {
				err = nil
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
		if err != nil {
			g.t.Errorf("remove cgroup %s: %v", dir, err)
		}
	}
}

// set writes a file of the group.
func (g *testGroup) set(controller, file, value string) {
	g.t.Helper()
	if err := os.WriteFile(g.layout.FileIn(controller, g.path, file), []byte(value), 0); err != nil {
		g.t.Skipf("needs the %s controller: %v", controller, err)
	}
}

// sh runs a shell script in the group until the test's end, with its children.
func (g *testGroup) sh(script string) *exec.Cmd {
	g.t.Helper()
	cmd := exec.Command("sh", "-c", "read go; "+script)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		g.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() {
		unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
		cmd.Wait() // killed: its status is an error by design
	})
	for _, dir := range g.dirs() {
		if err := os.WriteFile(dir+"/cgroup.procs", []byte(strconv.Itoa(cmd.Process.Pid)), 0); err != nil {
			g.t.Fatalf("move into %s: %v", dir, err)
		}
	}
	if _, err := io.WriteString(in, "go\n"); err != nil {
		g.t.Fatal(err)
	}
	return cmd
}

// TestKernelThrottle gives a busy loop 10 ms in each 100 ms until it was
// stopped in 15 periods: 1.5 s on an idle machine, longer on a busy one, where
// the loop does not get its 10 ms in every period.
func TestKernelThrottle(t *testing.T) {
	g := newTestGroup(t, "/huatuo-test-throttle")
	if g.layout.IsV1("cpu") {
		g.set("cpu", "cpu.cfs_period_us", "100000")
		g.set("cpu", "cpu.cfs_quota_us", "10000")
	} else {
		g.set("cpu", "cpu.max", "10000 100000")
	}
	e := probetest.New(t)
	e.Start(Spec(), nil)
	g.sh("while :; do :; done")
	const wanted = 15
	var s []signal.Sample
	value := func(name string, labels ...string) float64 {
		v, _ := probetest.WorkloadValue(s, "huatuo_container_"+name, g.id, labels...)
		return v
	}
	for end := time.Now().Add(60 * time.Second); value("cpu_throttled_periods_total") < wanted; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("throttled in %g of %g periods after a minute", value("cpu_throttled_periods_total"), value("cpu_periods_total"))
		}
		s = e.Gather()
	}
	throttled, periods := value("cpu_throttled_periods_total"), value("cpu_periods_total")
	between := func(name string, low, high float64, labels ...string) {
		t.Helper()
		if v := value(name, labels...); v < low || v > high {
			t.Errorf("huatuo_container_%s%q = %g; want %g to %g (throttled in %g of %g periods)", name, labels, v, low, high, throttled, periods)
		}
	}
	between("cpu_limit_cores", 0.1, 0.1)
	between("cpu_periods_total", wanted, 700)
	// It ran 10 ms before each stop, and a tick more at most; the last stop may not be over.
	between("cpu_usage_seconds_total", 0.01*(throttled-1), 0.02*(periods+1))
	between("cpu_throttled_seconds_total", 0.001*throttled, 0.1*throttled)
	between("pids", 1, 1)
	if _, err := os.Stat("/proc/pressure"); err == nil && g.layout.Mount("") != "" {
		between("pressure_stall_seconds_total", 0.001*throttled, 60, "cpu", "some")
	}
}

// TestKernelMemory lets a process hold a known amount of memory below a limit.
func TestKernelMemory(t *testing.T) {
	g := newTestGroup(t, "/huatuo-test-memory")
	const size, limit = 64 << 20, 128 << 20
	file := "memory.max"
	if g.layout.IsV1("memory") {
		file = "memory.limit_in_bytes"
	}
	g.set("memory", file, strconv.Itoa(limit))
	e := probetest.New(t)
	e.Start(Spec(), nil)
	// tail keeps the last bytes of a pipe in memory as long as the pipe is open.
	g.sh(fmt.Sprintf("(head -c %d /dev/zero; sleep 60) | tail -c %d >/dev/null", size, size))
	want := map[string][2]float64{
		"memory_anon_bytes":        {size, size + 16<<20},
		"memory_usage_bytes":       {size, limit},
		"memory_working_set_bytes": {size, limit},
		"memory_limit_bytes":       {limit, limit},
		"pids":                     {3, 5},
	}
	// memory.stat lags behind by up to 2 s: the kernel sums per-CPU counters at intervals.
	var wrong []string
	for end := time.Now().Add(40 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) { // tail is slow in emulation
		wrong = nil
		s := e.Gather()
		for name, r := range want {
			if v, ok := probetest.WorkloadValue(s, "huatuo_container_"+name, g.id); !ok || v < r[0] || v > r[1] {
				wrong = append(wrong, fmt.Sprintf("huatuo_container_%s = %g, %v; want %g to %g", name, v, ok, r[0], r[1]))
			}
		}
		if wrong == nil {
			return
		}
	}
	t.Error(strings.Join(wrong, "\n"))
}

// TestKernelIO writes a known amount around the page cache.
func TestKernelIO(t *testing.T) {
	g := newTestGroup(t, "/huatuo-test-io")
	dir := t.TempDir()
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		t.Fatal(err)
	}
	device := fmt.Sprintf("%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev))
	if unix.Major(st.Dev) == 0 {
		t.Skip("needs a temporary directory on a block device (TMPDIR)")
	}
	if !g.layout.IsV1("blkio") {
		if _, err := os.Stat(g.layout.FileIn("io", g.path, "io.stat")); err != nil {
			t.Skip("needs the io controller: ", err)
		}
	} else {
		// A v1 kernel counts where a limit is set (since 6.10 only there): one that is never reached.
		g.set("blkio", "blkio.throttle.write_bps_device", device+" 100000000000")
	}
	e := probetest.New(t)
	e.Start(Spec(), nil)
	const size = 8 << 20
	done := filepath.Join(dir, "done")
	g.sh(fmt.Sprintf("dd if=/dev/zero of=%s/data bs=1M count=%d oflag=direct status=none && touch %s; sleep 60", dir, size>>20, done))
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if _, err := os.Stat(done); err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal("dd has not ended after 20 s")
		}
	}
	s := e.Gather()
	if v, ok := probetest.WorkloadValue(s, "huatuo_container_io_bytes_total", g.id, "write"); !ok || v < size || v > size+1<<20 {
		t.Errorf("%d bytes written, huatuo_container_io_bytes_total{op=write} = %g, %v", size, v, ok)
	}
	if v, ok := probetest.WorkloadValue(s, "huatuo_container_io_operations_total", g.id, "write"); !ok || v < size>>20 {
		t.Errorf("%d MiB written in pieces of 1 MiB, operations = %g, %v", size>>20, v, ok)
	}
}

// TestKernelGone removes a group between two rounds.
func TestKernelGone(t *testing.T) {
	g := newTestGroup(t, "/huatuo-test-gone")
	p := newTestPoller(t, "/", Config{MaxGroups: 1000, MaxOpenFiles: 1000})
	has := func() bool {
		b := new(signal.Batch)
		if err := p.collect(b); err != nil {
			t.Fatal(err)
		}
		_, ok := probetest.WorkloadValue(b.Samples, "huatuo_container_cpu_usage_seconds_total", g.id)
		return ok
	}
	for range 2 { // the second round reads from open files
		if !has() {
			t.Fatal("the group has no CPU time")
		}
	}
	open := p.open
	g.remove()
	if has() {
		t.Error("a group that is gone still has a value") // although the index does not know yet
	}
	if p.open >= open {
		t.Errorf("%d files are open, %d before the group was removed", p.open, open)
	}
}

// BenchmarkCollect reads 200 groups of this kernel.
func BenchmarkCollect(b *testing.B) {
	parent := newTestGroup(b, "/huatuo-bench")
	for i := range 200 {
		newTestGroup(b, fmt.Sprintf("%s/%03d", parent.path, i))
	}
	for _, cfg := range []Config{{MaxGroups: 1000, MaxOpenFiles: 4096}, {MaxGroups: 1000}} {
		b.Run(fmt.Sprintf("open=%d", cfg.MaxOpenFiles), func(b *testing.B) {
			p := newTestPoller(b, "/", cfg)
			batch := new(signal.Batch)
			b.ReportAllocs()
			start := cpuTime(b)
			for b.Loop() {
				batch.Samples = batch.Samples[:0]
				if err := p.collect(batch); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64((cpuTime(b)-start).Nanoseconds())/float64(b.N), "cpu-ns/op") // what counts on a busy machine
			b.ReportMetric(float64(len(batch.Samples)), "samples")
			b.ReportMetric(float64(p.open), "files")
		})
	}
}

func cpuTime(t testing.TB) time.Duration {
	var ru unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &ru); err != nil {
		t.Fatal(err)
	}
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}
