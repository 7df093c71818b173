package smoke

import (
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"huatuo/internal/probes/probetest"
	"huatuo/internal/signal"
)

// always are metrics that a guest has on every kernel of the list.
var always = []string{
	"huatuo_agent_cpu_seconds_total", "huatuo_agent_resident_bytes", "huatuo_block_io_device_seconds", "huatuo_block_io_total_seconds",
	"huatuo_boot_time_seconds", "huatuo_build_info", "huatuo_container_memory_anon_bytes",
	"huatuo_container_memory_usage_bytes", "huatuo_container_memory_working_set_bytes", "huatuo_container_oom_kills_total", "huatuo_container_pids",
	"huatuo_container_process_exits_total", "huatuo_container_runqueue_wait_seconds", "huatuo_context_switches_total", "huatuo_cpu_core_seconds_total",
	"huatuo_cpu_seconds_total", "huatuo_cpus", "huatuo_disk_reads_total", "huatuo_events_dropped_total", "huatuo_events_observed_total",
	"huatuo_filesystem_size_bytes", "huatuo_irq_service_seconds", "huatuo_load_average", "huatuo_memory_available_bytes", "huatuo_memory_total_bytes",
	"huatuo_netdev_receive_bytes_total", "huatuo_network_drops_total", "huatuo_oom_kills_total", "huatuo_probe_state", "huatuo_process_execs_total",
	"huatuo_process_exits_total", "huatuo_process_forks_total", "huatuo_reclaim_seconds", "huatuo_runqueue_wait_seconds", "huatuo_sched_migrations_total",
	"huatuo_sched_switches_total", "huatuo_signals_total", "huatuo_sink_events_total", "huatuo_sockets", "huatuo_softirq_service_seconds",
	"huatuo_softirq_wait_seconds", "huatuo_softnet_packets_total", "huatuo_store_bytes", "huatuo_tasks", "huatuo_tcp_connections",
	"huatuo_tcp_handshake_seconds", "huatuo_tcp_segments_total", "huatuo_udp_no_ports_total", "huatuo_vmstat_pgfault_total", "huatuo_workqueue_wait_seconds",
}

var (
	typeLine   = regexp.MustCompile(`^# TYPE (\S+) (\S+)$`)
	sampleLine = regexp.MustCompile(`^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? \S+$`)
	labelPair  = regexp.MustCompile(`([a-zA-Z_][a-zA-Z0-9_]*)="(?:[^"\\]|\\.)*"`)
)

// exposition holds the whole of /metrics to the catalogue, which
// docs/ledger/metrics.golden is the list of: no name, type or label beside it,
// and what is always there is there.
func exposition(t *testing.T, a *agent) {
	t.Helper()
	c := run(t, probetest.NewCgroup(t, "huatuo-smoke-metrics"), "exec sleep 300")
	defer c.Wait()
	defer c.Process.Kill()
	var catalogue struct{ Metrics []signal.Schema }
	a.json("/api/v1/metrics", &catalogue)
	legal := map[string]map[string]bool{}
	kind := map[string]string{}
	for _, s := range catalogue.Metrics {
		kind[s.Name], legal[s.Name] = string(s.Type), map[string]bool{"le": s.Type == signal.Histogram}
		for _, f := range s.Fields {
			legal[s.Name][f.Name] = true
		}
		for _, l := range signal.WorkloadLabels {
			legal[s.Name][l] = legal[s.Name][l] || s.Scope == signal.Workload
		}
	}
	seen := map[string]bool{}
	a.eventually("metrics that are always there", func() error {
		code, body := a.get("/metrics")
		if code != http.StatusOK {
			return fmt.Errorf("GET /metrics: %d", code)
		}
		seen = check(t, body, kind, legal)
		if missing := slices.DeleteFunc(slices.Clone(always), func(n string) bool { return seen[n] }); len(missing) > 0 {
			return fmt.Errorf("/metrics lacks %v", missing)
		}
		return nil
	})
	t.Logf("%d of %d metrics on this kernel", len(seen), len(kind))
	var absent []string
	for _, n := range slices.Sorted(maps.Keys(kind)) {
		if !seen[n] {
			absent = append(absent, n)
		}
	}
	t.Logf("absent: %s", strings.Join(absent, " "))
}

// check reads the text form and returns the names in it.
func check(t *testing.T, text string, kind map[string]string, legal map[string]map[string]bool) map[string]bool {
	t.Helper()
	seen, last := map[string]bool{}, ""
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if m := typeLine.FindStringSubmatch(line); m != nil {
			last = m[1]
			if seen[last] || kind[last] != m[2] {
				t.Errorf("%s is a %s, the catalogue has %q", last, m[2], kind[last])
			}
			seen[last] = true
		}
		if strings.HasPrefix(line, "#") || line == "" {
			continue
		}
		m := sampleLine.FindStringSubmatch(line)
		if m == nil || last == "" || !strings.HasPrefix(m[1], last) {
			t.Errorf("the line %q below %s", line, last)
			continue
		}
		for _, l := range labelPair.FindAllStringSubmatch(m[2], -1) {
			if !legal[last][l[1]] {
				t.Errorf("%s has the label %s", last, l[1])
			}
		}
	}
	return seen
}
