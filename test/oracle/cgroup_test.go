package oracle

import (
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"

	"huatuo/internal/probes/probetest"
)

// TestCPU: a busy loop with a tenth of a CPU is stopped in thirty periods. Then it
// ends, its group's files stand still, and the agent's values are theirs; and
// what the kernel says that the process itself used is the same.
func TestCPU(t *testing.T) {
	url := start(t, "cgroupstat")
	cg := probetest.NewCgroup(t, groupName("cpu"))
	limit := map[string]string{"cpu.max": "10000 100000"}
	if probetest.OnV1() {
		limit = map[string]string{"cpu.cfs_quota_us": "10000"}
	}
	for file, text := range limit {
		if err := os.WriteFile(filepath.Join(cg.Dir("cpu"), file), []byte(text), 0); err != nil {
			t.Skipf("needs the cpu controller: %v", err)
		}
	}
	c := in(t, cg, "while :; do :; done", nil)
	eventually(t, "thirty throttled periods", func() error {
		if n := keyed(t, cg, "cpu", "cpu.stat", "nr_throttled"); n < 30 {
			return fmt.Errorf("%v", n)
		}
		return nil
	})
	c.Process.Kill()
	c.Wait()
	var used syscall.Rusage
	if u, ok := c.ProcessState.SysUsage().(*syscall.Rusage); ok {
		used = *u
	}
	process := float64(used.Utime.Nano()+used.Stime.Nano()) / 1e9

	want := cpuFiles(t, cg)
	want["huatuo_container_cpu_limit_cores"] = 0.1
	eventually(t, "the files' values", func() error { return equal(scrape(t, url), cg, want, 1e-6) })
	usage := want["huatuo_container_cpu_usage_seconds_total"]
	t.Logf("used %.3f s, the process itself %.3f s; throttled in %v periods", usage, process, want["huatuo_container_cpu_throttled_periods_total"])
	// The shell ran for some milliseconds before it joined the group.
	if math.Abs(usage-process) > 0.05+process/50 {
		t.Errorf("the group used %.3f s, its only process %.3f s", usage, process)
	}
	if want["huatuo_container_cpu_throttled_periods_total"] < 30 {
		t.Errorf("throttled in %v periods", want["huatuo_container_cpu_throttled_periods_total"])
	}
}

// cpuFiles are the metrics as the group's files have them. A mode is a label.
func cpuFiles(t *testing.T, cg *probetest.Cgroup) map[string]float64 {
	t.Helper()
	stat := func(key string) float64 { return keyed(t, cg, "cpu", "cpu.stat", key) }
	m := map[string]float64{
		"huatuo_container_cpu_periods_total":           stat("nr_periods"),
		"huatuo_container_cpu_throttled_periods_total": stat("nr_throttled"),
	}
	if !probetest.OnV1() {
		m["huatuo_container_cpu_throttled_seconds_total"] = stat("throttled_usec") / 1e6
		m["huatuo_container_cpu_usage_seconds_total"] = stat("usage_usec") / 1e6
		m["huatuo_container_cpu_seconds_total user"] = stat("user_usec") / 1e6
		m["huatuo_container_cpu_seconds_total system"] = stat("system_usec") / 1e6
		return m
	}
	m["huatuo_container_cpu_throttled_seconds_total"] = stat("throttled_time") / 1e9
	m["huatuo_container_cpu_usage_seconds_total"] = keyed(t, cg, "cpuacct", "cpuacct.usage", "") / 1e9
	m["huatuo_container_cpu_seconds_total user"] = keyed(t, cg, "cpuacct", "cpuacct.stat", "user") / 100
	m["huatuo_container_cpu_seconds_total system"] = keyed(t, cg, "cpuacct", "cpuacct.stat", "system") / 100
	return m
}

// TestMemory: a process holds 64 MiB and does nothing. The agent's values are
// those of the group's files.
func TestMemory(t *testing.T) {
	url := start(t, "cgroupstat")
	cg := probetest.NewCgroup(t, groupName("mem"))
	usage, anon := "memory.current", "anon"
	if probetest.OnV1() {
		usage, anon = "memory.usage_in_bytes", "rss"
	}
	if _, err := os.Stat(filepath.Join(cg.Dir("memory"), usage)); err != nil {
		t.Skipf("needs the memory controller: %v", err)
	}
	const size = 64 << 20
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	in(t, cg, fmt.Sprintf("exec dd if=/dev/zero bs=%d count=1", size), w) // blocks once the pipe is full
	w.Close()
	eventually(t, "64 MiB in use", func() error {
		if n := keyed(t, cg, "memory", "memory.stat", anon); n < size {
			return fmt.Errorf("%v bytes", n)
		}
		return nil
	})
	eventually(t, "the files' values", func() error {
		want := map[string]float64{
			"huatuo_container_memory_usage_bytes":       keyed(t, cg, "memory", usage, ""),
			"huatuo_container_memory_anon_bytes":        keyed(t, cg, "memory", "memory.stat", anon),
			"huatuo_container_memory_page_faults_total": keyed(t, cg, "memory", "memory.stat", "pgfault"),
		}
		want["huatuo_container_memory_working_set_bytes"] = want["huatuo_container_memory_usage_bytes"] - keyed(t, cg, "memory", "memory.stat", "inactive_file")
		if got := want["huatuo_container_memory_anon_bytes"]; got > size+8<<20 {
			return fmt.Errorf("%v bytes in use", got)
		}
		// The kernel folds its counters of each CPU now and then: 32 pages each.
		return equal(scrape(t, url), cg, want, 0.01)
	})
}

// in runs a shell command in the group until the test ends.
func in(t *testing.T, cg *probetest.Cgroup, command string, out *os.File) *exec.Cmd {
	t.Helper()
	c := exec.Command("sh", "-c", "read _; "+command)
	if out != nil {
		c.Stdout = out
	}
	stdin, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Process.Kill(); c.Wait() })
	cg.Add(t, c.Process.Pid)
	time.Sleep(300 * time.Millisecond) // the agent looks for new groups at most each 200 ms
	if _, err := stdin.Write([]byte("\n")); err != nil {
		t.Fatal(err)
	}
	return c
}

// keyed reads a number of a control group file, the one after key, or the only one.
func keyed(t *testing.T, cg *probetest.Cgroup, controller, file, key string) float64 {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(cg.Dir(controller), file))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if key == "" || len(f) == 2 && f[0] == key {
			v, err := strconv.ParseFloat(f[len(f)-1], 64)
			if err != nil {
				t.Fatalf("%s of %s: %v", key, file, err)
			}
			return v
		}
	}
	t.Fatalf("%s has no %s", file, key)
	return 0
}

// equal tells the first metric of the group that is not as wanted.
func equal(m map[string]*dto.MetricFamily, cg *probetest.Cgroup, want map[string]float64, tolerance float64) error {
	for what, v := range want {
		name, mode, hasMode := strings.Cut(what, " ")
		labels := []string{"unit", cg.Path}
		if hasMode {
			labels = append(labels, "mode", mode)
		}
		s := series(m[name], labels...)
		if s == nil {
			return fmt.Errorf("/metrics has no %s of %s", what, cg.Path)
		}
		got := s.GetCounter().GetValue() + s.GetGauge().GetValue()
		if math.Abs(got-v) > tolerance*math.Max(1, math.Abs(v)) {
			return fmt.Errorf("%s is %v, the file says %v", what, got, v)
		}
	}
	return nil
}
