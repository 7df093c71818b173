package e2e

import (
	"flag"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"huatuo/internal/probes/probetest"
)

var update = flag.Bool("update", false, "rewrite testdata/metrics.always from what this kernel's /metrics has")

// always lists what /metrics has on every run on the development kernel.
const always = "testdata/metrics.always"

// sometimes are metrics that a host of the same kernel may lack: the list of
// what is always there leaves them out.
var sometimes = []struct{ name, why string }{
	{"huatuo_agent_bpf_run_ratio", "measured each five minutes"},
	{"huatuo_conntrack_", "only where the module is loaded"},
	{"huatuo_disk_", "only where there are disks"},
	{"huatuo_block_io_", "only where there are disks"},
	{"huatuo_container_block_io_", "only where there are disks"},
	{"huatuo_container_io_", "only where there are disks"},
	{"huatuo_fs_", "only once a file system has synced"},
	{"huatuo_filesystem_", "only where the file system is on a disk"},
	{"huatuo_container_restarts", "only with a container runtime"},
	{"huatuo_container_info", "only with a container runtime"},
	{"huatuo_container_start_time_seconds", "only with a container runtime"},
	{"huatuo_names_source_up", "only with a container runtime"},
	{"huatuo_neighbor_", "by address family"},
	{"huatuo_container_dns_", "only once a workload has asked"},
	{"huatuo_container_reclaim_", "only once a workload was short of memory"},
	{"huatuo_container_oom_kills_total", "only once a workload was short of memory"},
	{"huatuo_container_dirty_", "only once a workload was held back"},
	{"huatuo_container_lock_", "only once a workload has waited"},
	{"huatuo_lock_long_", "only once somebody has waited long"},
	{"huatuo_container_tcp_", "only once a workload has used the network"},
	{"huatuo_container_udp_", "only once a workload has used the network"},
	{"huatuo_container_sockets", "only where the workload has a network of its own"},
	{"huatuo_container_network_", "only once a workload has used the network"},
	{"huatuo_container_tasks_", "only while tasks wait"},
	{"huatuo_tcp_resets_total", "only once there was one"},
	{"huatuo_tcp_connect_failures_total", "only once there was one"},
	{"huatuo_enrich_unresolved_total", "only once there was one"},
	{"huatuo_symbol_frames_total", "only once there was a stack"},
	{"huatuo_vmstat_balloon_", "by configuration of the kernel"},
	{"huatuo_vmstat_numa_", "by configuration of the kernel"},
	{"huatuo_vmstat_thp_", "by configuration of the kernel"},
	{"huatuo_vmstat_zsw", "by configuration of the kernel"},
	{"huatuo_memory_zswap", "by configuration of the kernel"},
	{"huatuo_memory_balloon_bytes", "by configuration of the kernel"},
	{"huatuo_memory_cma_", "by configuration of the kernel"},
	{"huatuo_memory_hardware_corrupted_bytes", "by configuration of the kernel"},
	{"huatuo_irq_handled_", "by hardware"},
	{"huatuo_edac_", "by hardware"},
	{"huatuo_ras_", "by hardware"},
	{"huatuo_hardware_", "by hardware"},
	{"huatuo_thermal_", "by hardware"},
	{"huatuo_cpu_frequency_", "by hardware"},
	{"huatuo_nvme_", "by hardware"},
	{"huatuo_rdma_", "by hardware"},
	{"huatuo_gpu_", "by hardware"},
	{"huatuo_numa_", "by hardware"},
	{"huatuo_power_", "by hardware"},
	{"huatuo_bond_", "by device"},
	{"huatuo_devlink_", "by device"},
	{"huatuo_netdev_driver_errors_total", "by device"},
	{"huatuo_netdev_pause_frames_total", "by device"},
	{"huatuo_netdev_speed_bytes", "by device"},
	{"huatuo_qdisc_", "by device"},
	{"huatuo_network_transmit_seconds", "only once something was sent"},
	{"huatuo_container_runqueue_culprit_", "only once a workload has waited"},
	{"huatuo_container_fs_wait", "only once a workload has waited"},
	{"huatuo_container_futex_", "only once a workload has waited"},
	{"huatuo_container_page_fault_", "only once a workload has waited"},
	{"huatuo_container_files_open", "each half minute"},
	{"huatuo_container_process_files_", "each half minute"},
	{"huatuo_container_memory_zswap", "by configuration of the kernel"},
	{"huatuo_container_memory_huge_", "by configuration of the kernel"},
	{"huatuo_container_memory_high_bytes", "by version of control groups"},
	{"huatuo_container_memory_peak_bytes", "by version of control groups"},
	{"huatuo_container_memory_protection_", "by version of control groups"},
	{"huatuo_container_memory_swap", "by version of control groups"},
	{"huatuo_files_limit", "by configuration of the kernel"},
	{"huatuo_process_files_", "each half minute"},
	{"huatuo_probe_bpf_run_ratio", "measured each five minutes"},
	{"huatuo_budget_", "once it was measured"},
}

// family is a metric as /metrics shows it.
type family struct {
	kind   string
	labels map[string]bool
}

var (
	typeLine   = regexp.MustCompile(`^# TYPE (\S+) (\S+)$`)
	sampleLine = regexp.MustCompile(`^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? \S+$`)
	labelPair  = regexp.MustCompile(`([a-zA-Z_][a-zA-Z0-9_]*)="(?:[^"\\]|\\.)*"`)
)

// families reads the text form of /metrics.
func families(t testing.TB, text string) map[string]family {
	t.Helper()
	out := map[string]family{}
	last := ""
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if m := typeLine.FindStringSubmatch(line); m != nil {
			last = m[1]
			out[last] = family{kind: m[2], labels: map[string]bool{}}
			continue
		}
		if strings.HasPrefix(line, "#") || line == "" {
			continue
		}
		m := sampleLine.FindStringSubmatch(line)
		if m == nil || !strings.HasPrefix(m[1], last) {
			t.Fatalf("/metrics has the line %q below %s", line, last)
		}
		for _, l := range labelPair.FindAllStringSubmatch(m[2], -1) {
			if l[1] != "le" || out[last].kind != "histogram" {
				out[last].labels[l[1]] = true
			}
		}
	}
	return out
}

// catalogue reads docs/ledger/metrics.golden.
func catalogue(t testing.TB) map[string]family {
	t.Helper()
	out := map[string]family{}
	for _, line := range lines(t, "../../docs/ledger/metrics.golden") {
		name, rest, _ := strings.Cut(line, " ")
		kind, labels, _ := strings.Cut(rest, " ")
		f := family{kind: kind, labels: map[string]bool{}}
		for _, l := range strings.FieldsFunc(labels, func(r rune) bool { return r == ',' }) {
			f.labels[l] = true
		}
		out[name] = f
	}
	return out
}

// lines of a file, comments left out.
func lines(t testing.TB, file string) []string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(strings.Split(string(b), "\n"), func(l string) bool { return l == "" || strings.HasPrefix(l, "#") })
}

// TestMetrics holds the whole of /metrics to the ledger of names, types and
// labels, and to the list of what is always there. `go test -run
// '^TestMetrics$' ./test/e2e -update` rewrites that list.
func TestMetrics(t *testing.T) {
	a := start(t)
	workload(t)
	var live map[string]family
	var text string
	if *update {
		time.Sleep(12 * time.Second) // the slowest poller, twice
		text = scrape(t, a, "text/plain")
		live = families(t, text)
		writeAlways(t, live)
	} else {
		want := lines(t, always)
		a.eventually(30*time.Second, "all of "+always, func() error {
			text = scrape(t, a, "text/plain")
			live = families(t, text)
			if missing := slices.DeleteFunc(slices.Clone(want), func(n string) bool { _, ok := live[n]; return ok }); len(missing) > 0 {
				return fmt.Errorf("/metrics lacks %v", missing)
			}
			return nil
		})
	}
	lint(t, text)
	golden := catalogue(t)
	for _, name := range slices.Sorted(maps.Keys(live)) {
		g, ok := golden[name]
		if !ok {
			t.Errorf("/metrics has %s, docs/ledger/metrics.golden has not: run `make gen`", name)
			continue
		}
		if live[name].kind != g.kind {
			t.Errorf("%s is a %s, want a %s", name, live[name].kind, g.kind)
		}
		for l := range live[name].labels {
			if !g.labels[l] {
				t.Errorf("%s has the label %s, which the ledger does not know", name, l)
			}
		}
	}
}

// lint lets promtool look at a scrape with everything in it.
func lint(t testing.TB, text string) {
	t.Helper()
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Log("not checked by promtool: apt-get install prometheus")
		return
	}
	c := exec.Command(promtool, "check", "metrics")
	c.Stdin = strings.NewReader(text)
	if out, err := c.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
}

func writeAlways(t testing.TB, live map[string]family) {
	t.Helper()
	var b strings.Builder
	b.WriteString("# What /metrics has on every run on the development kernel. `go test -run '^TestMetrics$' ./test/e2e -update` writes it.\n")
	for _, name := range slices.Sorted(maps.Keys(live)) {
		if !slices.ContainsFunc(sometimes, func(s struct{ name, why string }) bool { return strings.HasPrefix(name, s.name) }) {
			b.WriteString(name + "\n")
		}
	}
	if err := os.MkdirAll(filepath.Dir(always), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(always, []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

// workload makes a group with a CPU limit in which something runs, and some
// traffic, so that what counts them has something to count.
func workload(t testing.TB) {
	t.Helper()
	cg := probetest.NewCgroup(t, cgroupName("metrics"))
	file, limit := "cpu.max", "50000 100000"
	if probetest.OnV1() {
		file, limit = "cpu.cfs_quota_us", "50000"
	}
	if err := os.WriteFile(filepath.Join(cg.Dir("cpu"), file), []byte(limit), 0); err != nil {
		t.Logf("no CPU limit: %v", err)
	}
	c := exec.Command("sh", "-c", "while :; do sleep 0.05; done")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Process.Kill(); c.Wait() })
	cg.Add(t, c.Process.Pid)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}
