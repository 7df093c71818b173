package cgroupstat

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"huatuo/internal/probes/probetest"
	"huatuo/internal/signal"
)

// TestSwapLimit: on v1 the file limits memory and swap together; on v2 none at all is a limit.
func TestSwapLimit(t *testing.T) {
	f := func(add func(*entry, []byte), memory uint64, file string, want float64, told bool) {
		t.Helper()
		e := &entry{group: &group{limits: limits{memory: memory}}}
		add(e, []byte(file))
		h := e.group.limits.held
		if told != (len(h) == 1) || told && (h[0].schema != memorySwapLimit || h[0].value != want) {
			t.Errorf("memory limit %d, %q: %+v; want %v, %v", memory, file, h, want, told)
		}
	}
	f(addSwapLimit, 0, "max\n", 0, false)
	f(addSwapLimit, 0, "0\n", 0, true)
	f(addSwapLimit, 0, "4096\n", 4096, true)
	f(addSwapLimitV1, 1000, "1500\n", 500, true)
	f(addSwapLimitV1, 1000, "1000\n", 0, true)
	f(addSwapLimitV1, 1000, "9223372036854771712\n", 0, false)
	f(addSwapLimitV1, 0, "1500\n", 0, false)
}

// hugeBytes makes this binary a process that holds so much memory in huge pages until it is killed.
const hugeBytes = "HUATUO_TEST_HUGE_BYTES"

func TestMain(m *testing.M) {
	probetest.HolderMain()
	if s := os.Getenv(hugeBytes); s != "" {
		if err := holdHuge(s); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func holdHuge(s string) error {
	n, err := strconv.Atoi(s)
	if err != nil {
		return err
	}
	mem, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return err
	}
	if err := unix.Madvise(mem, unix.MADV_HUGEPAGE); err != nil {
		return err
	}
	for i := 0; i < n; i += os.Getpagesize() {
		mem[i] = 1
	}
	time.Sleep(time.Minute) // the test kills it
	return nil
}

// TestKernelHuge lets a process hold memory in huge pages.
func TestKernelHuge(t *testing.T) {
	if b, err := os.ReadFile("/sys/kernel/mm/transparent_hugepage/enabled"); err != nil || strings.Contains(string(b), "[never]") {
		t.Skipf("needs transparent huge pages: %q, %v", b, err)
	}
	g := newTestGroup(t, "/huatuo-test-huge")
	e := probetest.New(t)
	e.Start(Spec(), nil)
	const size = 64 << 20
	g.sh(fmt.Sprintf("exec env %s=%d %s", hugeBytes, size, os.Args[0]))
	var got float64
	// memory.stat lags behind by up to 2 s. On a machine with fragmented memory not all get to be huge.
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		got, _ = probetest.WorkloadValue(e.Gather(), memoryHuge.Name, g.id, "anon")
		if got >= size/4 && got <= size+16<<20 {
			return
		}
	}
	if b, _ := os.ReadFile("/proc/sys/kernel/osrelease"); got == 0 && strings.HasPrefix(string(b), "5.10.") {
		t.Skip("the kernel tells of no huge page: needs Linux 6.1 or newer to be sure of one")
	}
	t.Errorf("%d bytes wanted in huge pages, %s tells %.0f", size, memoryHuge.Name, got)
}

// TestKernelRefused lets a group have three tasks, and a shell make a third child: one fork is refused.
func TestKernelRefused(t *testing.T) {
	g := newTestGroup(t, "/huatuo-test-refused")
	g.set("pids", "pids.max", "3")
	if _, err := os.Stat(g.layout.FileIn("pids", g.path, "pids.events")); err != nil {
		t.Skip("needs pids.events: ", err)
	}
	e := probetest.New(t)
	e.Start(Spec(), nil)
	if v, ok := probetest.WorkloadValue(e.Gather(), pidsRefused.Name, g.id); !ok || v != 0 {
		t.Errorf("before: %v, %v; want 0", v, ok)
	}
	g.sh("exec 2>/dev/null; sleep 60 & sleep 60 & sleep 60 & sleep 60")
	var v float64
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if v, _ = probetest.WorkloadValue(e.Gather(), pidsRefused.Name, g.id); v >= 1 {
			break
		}
	}
	if v < 1 || v > 2 { // a shell may try twice
		t.Errorf("%v forks were refused, want 1", v)
	}
}

// TestKernelSlow sets what is read with the limits, and uses some memory.
func TestKernelSlow(t *testing.T) {
	g := newTestGroup(t, "/huatuo-test-slow")
	const size = 32 << 20
	type want struct {
		schema *signal.Schema
		labels []string
		value  float64
	}
	var all []want
	if g.layout.IsV1("cpu") {
		g.set("cpu", "cpu.shares", "512")
	} else {
		g.set("cpu", "cpu.weight", "50")
	}
	all = append(all, want{cpuWeight, nil, 50})
	peak := "memory.peak"
	if g.layout.IsV1("memory") {
		peak = "memory.max_usage_in_bytes"
		g.set("memory", "memory.soft_limit_in_bytes", strconv.Itoa(size))
		g.set("memory", "memory.limit_in_bytes", strconv.Itoa(4*size))
		all = append(all, want{memoryProtection, []string{"soft"}, size})
		if err := os.WriteFile(g.layout.FileIn("memory", g.path, "memory.memsw.limit_in_bytes"), []byte(strconv.Itoa(5*size)), 0); err == nil {
			all = append(all, want{memorySwapLimit, nil, size})
		}
	} else {
		g.set("memory", "memory.low", strconv.Itoa(size))
		g.set("memory", "memory.min", strconv.Itoa(size/2))
		g.set("memory", "memory.high", strconv.Itoa(4*size))
		all = append(all, want{memoryProtection, []string{"low"}, size}, want{memoryProtection, []string{"min"}, size / 2}, want{memoryHigh, nil, 4 * size})
		if err := os.WriteFile(g.layout.FileIn("memory", g.path, "memory.swap.max"), []byte("0"), 0); err == nil {
			all = append(all, want{memorySwapLimit, nil, 0})
		}
	}
	if _, err := os.Stat(g.layout.FileIn("memory", g.path, peak)); err == nil {
		// tail keeps what it reads until the end, and gives it back then.
		cmd := exec.Command("sh", "-c", fmt.Sprintf("read go; head -c %d /dev/zero | tail -c %d >/dev/null", size, size))
		runIn(t, g, cmd)
		all = append(all, want{memoryPeak, nil, size})
	}
	e := probetest.New(t)
	e.Start(Spec(), nil)
	s := e.Gather()
	for _, w := range all {
		v, ok := probetest.WorkloadValue(s, w.schema.Name, g.id, w.labels...)
		if w.schema == memoryPeak && ok && v >= w.value && v <= 2*w.value {
			continue
		}
		if !ok || v != w.value {
			t.Errorf("%s%q = %v, %v; want %v", w.schema.Name, w.labels, v, ok, w.value)
		}
	}
}

// runIn runs a script that waits for a line, in the group, to its end.
func runIn(t *testing.T, g *testGroup, cmd *exec.Cmd) {
	t.Helper()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for _, dir := range g.dirs() {
		if err := os.WriteFile(dir+"/cgroup.procs", []byte(strconv.Itoa(cmd.Process.Pid)), 0); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := fmt.Fprintln(in, "go"); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
}
