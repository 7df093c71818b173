package checkup

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"huatuo/internal/diagnose/window"
	"huatuo/internal/probe"
	"huatuo/internal/signal"
)

// facts is made of lines "metric{label=value,…} number": what a counter grew by
// in ten seconds, or what a gauge is; a number "0.05x200" is a histogram of 200
// observations of at most that. A metric of workloads has a label unit.
func facts(t *testing.T, lines string, events ...*signal.Document) *Facts {
	t.Helper()
	schemas := map[string]*signal.Schema{}
	var samples []signal.Sample
	for line := range strings.Lines(lines) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		head, number, _ := strings.Cut(line, " ")
		name, rest, _ := strings.Cut(head, "{")
		s := signal.Sample{}
		schema := &signal.Schema{Name: name, Kind: signal.Metric, Type: signal.Gauge, Scope: signal.Host}
		unit, isWorkload := "", false
		for _, l := range strings.Split(strings.TrimSuffix(rest, "}"), ",") {
			k, v, ok := strings.Cut(l, "=")
			if k == "unit" {
				unit, isWorkload = v, true
			} else if ok {
				schema.Fields = append(schema.Fields, signal.Field{Name: k})
				s.Labels = append(s.Labels, v)
			}
		}
		if isWorkload {
			schema.Scope = signal.Workload
			s.Labels = append(s.Labels, "", "", "", unit)
		}
		if schemas[name] == nil {
			schemas[name] = schema
		}
		s.Schema = schemas[name]
		bound, count, isHist := strings.Cut(number, "x")
		if isHist {
			s.Hist = observations(t, bound, count)
		} else if _, err := fmt.Sscan(number, &s.Value); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		samples = append(samples, s)
	}
	var signals []string
	for _, r := range Rules() {
		signals = append(append(signals, r.Metrics...), r.Kinds...)
	}
	return &Facts{
		Window: window.New(nil, samples, 10), Events: events, CPUs: 4,
		Probes: []probe.Status{{Name: "all", State: probe.Running, Signals: signals}},
		Disk: func(name string) Class {
			return map[string]Class{"nvme0n1": Fast, "sda": Flash, "sdb": Spindle}[name]
		},
	}
}

func observations(t *testing.T, bound, count string) *signal.Hist {
	t.Helper()
	var v float64
	var n uint64
	if _, err := fmt.Sscan(bound+" "+count, &v, &n); err != nil {
		t.Fatal(err)
	}
	h := signal.LatencyHist(0, 0, 0, make([]uint64, signal.LatencySlots(0)))
	at := 0
	for b := 1.0 / (1 << 19); b < v; b *= 2 {
		at++
	}
	h.Counts[at], h.Count, h.Sum = n, n, v*float64(n)
	return h
}

func event(kind, title, unit string, severity signal.Severity) *signal.Document {
	return &signal.Document{ID: "01" + kind, Kind: kind, Title: title, Severity: severity, Container: &signal.Container{Unit: unit}}
}

// TestRules: for each rule what is wrong, and the near miss that is not.
func TestRules(t *testing.T) {
	type row struct {
		rule, name string
		metrics    string
		events     []*signal.Document
		severity   signal.Severity // "": nothing is found
		subject    string
		want       string // part of the sentence
	}
	const cpus = "huatuo_cpu_seconds_total{mode=user} 30\nhuatuo_cpu_seconds_total{mode=idle} 10\nhuatuo_cpu_seconds_total{mode=guest} 30\n"
	rows := []row{
		{"cpu_wait", "long waits", cpus + "huatuo_runqueue_wait_seconds{kind=wakeup} 0.03x1000", nil, signal.Warning, "host", "99 were over within 31 ms; 3 tasks waited on average, and the CPUs were busy for 75 %"},
		{"cpu_wait", "very long waits", cpus + "huatuo_runqueue_wait_seconds{kind=wakeup} 0.2x1000", nil, signal.Critical, "host", "248 ms"},
		{"cpu_wait", "more tasks than CPUs", cpus + "huatuo_runqueue_wait_seconds{kind=wakeup} 0.002x30000", nil, signal.Warning, "host", "6 tasks waited on average"},
		{"cpu_wait", "short waits", cpus + "huatuo_runqueue_wait_seconds{kind=wakeup} 0.002x10000", nil, "", "", "99 were over within 3.88 ms"},
		{"cpu_wait", "few waits", cpus + "huatuo_runqueue_wait_seconds{kind=wakeup} 5x99", nil, "", "", "Hardly any"},
		{"workload_wait", "with a culprit", "huatuo_container_runqueue_wait_seconds{unit=web.service} 0.02x1000\n" +
			"huatuo_container_runqueue_culprit_seconds_total{culprit=workload,culprit_namespace=,culprit_pod=,culprit_container=,culprit_unit=batch.service,unit=web.service} 15\n" +
			"huatuo_container_runqueue_culprit_seconds_total{culprit=self,culprit_namespace=,culprit_pod=,culprit_container=,culprit_unit=,unit=web.service} 5",
			nil, signal.Warning, "web.service", "2 tasks of it waited for a CPU, one wait in a hundred for 31 ms or longer; meanwhile the CPU was with batch.service for 75 %, itself for 25 %."},
		{"workload_wait", "many short ones", "huatuo_container_runqueue_wait_seconds{unit=web.service} 0.002x10000", nil, "", "", "2 tasks waiting"},
		{"workload_wait", "few long ones", "huatuo_container_runqueue_wait_seconds{unit=web.service} 0.02x100", nil, "", "", "0.2 tasks"},
		{"cpu_throttling", "half", "huatuo_container_cpu_periods_total{unit=a} 100\nhuatuo_container_cpu_throttled_periods_total{unit=a} 50\nhuatuo_container_cpu_limit_cores{unit=a} 0.5",
			nil, signal.Warning, "a", "stopped in 50 % of its periods (50 of 100) because its quota was used up; its limit is 0.5 CPUs."},
		{"cpu_throttling", "seldom", "huatuo_container_cpu_periods_total{unit=a} 100\nhuatuo_container_cpu_throttled_periods_total{unit=a} 9", nil, "", "", "more than 9 %"},
		{"cpu_throttling", "few periods", "huatuo_container_cpu_periods_total{unit=a} 9\nhuatuo_container_cpu_throttled_periods_total{unit=a} 9", nil, "", "", ""},
		{"cpu_throttling", "no limits", "", nil, "", "", "No workload has a CPU limit."},
		{"cpu_steal", "some", cpus + "huatuo_cpu_seconds_total{mode=steal} 4", nil, signal.Warning, "host", "9.09 %"},
		{"cpu_steal", "much", cpus + "huatuo_cpu_seconds_total{mode=steal} 20", nil, signal.Critical, "host", "33.3 %"},
		{"cpu_steal", "little", cpus + "huatuo_cpu_seconds_total{mode=steal} 1", nil, "", "", "2.44 %"},
		{"softirq_wait", "late", "huatuo_softirq_wait_seconds{vector=NET_RX} 0.012x1000", nil, signal.Warning, "host", "15.5 ms"},
		{"softirq_wait", "in time", "huatuo_softirq_wait_seconds{vector=NET_RX} 0.001x1000", nil, "", "", "1.94 ms"},

		{"oom_kill", "an event", "huatuo_oom_kills_total{constraint=memcg} 1", []*signal.Document{event("oom_kill", "java was killed.", "app.service", signal.Critical)}, signal.Critical, "app.service", "java was killed."},
		{"oom_kill", "only counted", "huatuo_oom_kills_total{constraint=memcg} 2", nil, signal.Critical, "host", "2 processes killed"},
		{"oom_kill", "none", "huatuo_oom_kills_total{constraint=memcg} 0", []*signal.Document{event("io_stall", "x", "a", signal.Warning)}, "", "", "No process was killed"},
		{"memory_pressure", "some", "huatuo_pressure_stall_seconds_total{resource=memory,kind=some} 2\nhuatuo_pressure_stall_seconds_total{resource=memory,kind=full} 0.5", nil, signal.Warning, "host", "For 20 % of the time"},
		{"memory_pressure", "full", "huatuo_pressure_stall_seconds_total{resource=memory,kind=some} 5\nhuatuo_pressure_stall_seconds_total{resource=memory,kind=full} 2", nil, signal.Critical, "host", "for 20 % of it all did"},
		{"memory_pressure", "of another resource", "huatuo_pressure_stall_seconds_total{resource=cpu,kind=some} 9", nil, "", "", "For 0 %"},
		{"workload_pressure", "full", "huatuo_container_pressure_stall_seconds_total{resource=memory,kind=full,unit=a} 3", nil, signal.Warning, "a", "for 30 % of the time"},
		{"workload_pressure", "some", "huatuo_container_pressure_stall_seconds_total{resource=memory,kind=some,unit=a} 3", nil, "", "", ""},
		{"memory_available", "low", "huatuo_memory_available_bytes 4e8\nhuatuo_memory_total_bytes 1e10", nil, signal.Warning, "host", "381 MiB of 9.31 GiB are available (4 %)"},
		{"memory_available", "very low", "huatuo_memory_available_bytes 1e8\nhuatuo_memory_total_bytes 1e10", nil, signal.Critical, "host", "1 %"},
		{"memory_available", "enough", "huatuo_memory_available_bytes 6e8\nhuatuo_memory_total_bytes 1e10", nil, "", "", "6 %"},
		{"memory_limit", "near", "huatuo_container_memory_working_set_bytes{unit=a} 95\nhuatuo_container_memory_limit_bytes{unit=a} 100", nil, signal.Warning, "a", "95 B of the 100 B that it may have (95 %)"},
		{"memory_limit", "far", "huatuo_container_memory_working_set_bytes{unit=a} 80\nhuatuo_container_memory_limit_bytes{unit=a} 100\nhuatuo_container_memory_working_set_bytes{unit=b} 500", nil, "", "", "more than 80 %"},
		{"direct_reclaim", "much", "huatuo_reclaim_seconds{kind=direct} 0.1x50", nil, signal.Warning, "host", "0.5 tasks reclaimed"},
		{"direct_reclaim", "at a limit only", "huatuo_reclaim_seconds{kind=memcg} 0.1x50", nil, "", "", "Nobody had to"},
		{"swapping", "much", "huatuo_vmstat_pswpin_total 2000", nil, signal.Warning, "host", "200 pages a second"},
		{"swapping", "little", "huatuo_vmstat_pswpin_total 900", nil, "", "", "90 pages"},

		{"disk_latency", "of NVMe", "huatuo_block_io_total_seconds{device=nvme0n1,op=read} 0.03x100", nil, signal.Warning, "nvme0n1", "99 took up to 31 ms, of 100 in all; the device is nvme, for which 20 ms is slow"},
		{"disk_latency", "the same of flash", "huatuo_block_io_total_seconds{device=sda,op=read} 0.03x100", nil, "", "", "31 ms"},
		{"disk_latency", "of one that turns", "huatuo_block_io_total_seconds{device=sdb,op=write} 3x100", nil, signal.Critical, "sdb", "100 write requests"},
		{"disk_latency", "one request", "huatuo_block_io_total_seconds{device=nvme0n1,op=read} 3x1", nil, "", "", "Hardly any"},
		{"disk_saturation", "deep queue", "huatuo_disk_io_seconds_total{device=sdb} 10\nhuatuo_disk_io_weighted_seconds_total{device=sdb} 80", nil, signal.Warning, "sdb", "busy for 100 % of the time and had 8 requests at a time"},
		{"disk_saturation", "one at a time", "huatuo_disk_io_seconds_total{device=sdb} 10\nhuatuo_disk_io_weighted_seconds_total{device=sdb} 10", nil, "", "", "100 %"},
		{"disk_saturation", "deep and seldom", "huatuo_disk_io_seconds_total{device=sdb} 5\nhuatuo_disk_io_weighted_seconds_total{device=sdb} 80", nil, "", "", "50 %"},
		{"disk_errors", "an error", "", []*signal.Document{event("io_error", "sda failed", "a", signal.Critical)}, signal.Critical, "a", "sda failed."},
		{"disk_errors", "a stall", "", []*signal.Document{event("io_stall", "sda waits", "a", signal.Warning)}, signal.Warning, "a", "sda waits."},
		{"disk_errors", "another event", "", []*signal.Document{event("hung_task", "x", "a", signal.Warning)}, "", "", "No request"},
		{"filesystem_errors", "an error", "", []*signal.Document{event("fs_error", "ext4 broke", "a", signal.Critical)}, signal.Critical, "a", "ext4 broke."},
		{"filesystem_errors", "hangs", "huatuo_filesystem_hung{device=x,fstype=nfs4,mountpoint=/mnt} 1", nil, signal.Critical, "/mnt", "nfs4 file system there does not answer"},
		{"filesystem_errors", "answers", "huatuo_filesystem_hung{device=x,fstype=nfs4,mountpoint=/mnt} 0", nil, "", "", "No file system"},
		{"filesystem_space", "little space", "huatuo_filesystem_available_bytes{device=a,fstype=ext4,mountpoint=/} 3\nhuatuo_filesystem_size_bytes{device=a,fstype=ext4,mountpoint=/} 100", nil, signal.Warning, "/", "3 % of its space are left (ext4 on a)"},
		{"filesystem_space", "no inodes", "huatuo_filesystem_available_bytes{device=a,fstype=ext4,mountpoint=/} 90\nhuatuo_filesystem_size_bytes{device=a,fstype=ext4,mountpoint=/} 100\n" +
			"huatuo_filesystem_inodes_available{device=a,fstype=ext4,mountpoint=/} 0\nhuatuo_filesystem_inodes{device=a,fstype=ext4,mountpoint=/} 100", nil, signal.Critical, "/", "0 % of its inodes"},
		{"filesystem_space", "made full", "huatuo_filesystem_available_bytes{device=a,fstype=squashfs,mountpoint=/s} 0\nhuatuo_filesystem_size_bytes{device=a,fstype=squashfs,mountpoint=/s} 100", nil, "", "", "100 %"},
		{"filesystem_space", "enough", "huatuo_filesystem_available_bytes{device=a,fstype=ext4,mountpoint=/} 6\nhuatuo_filesystem_size_bytes{device=a,fstype=ext4,mountpoint=/} 100", nil, "", "", "6 %"},

		{"packet_drops", "abnormal", "huatuo_network_drops_total{reason=TCP_CSUM,protocol=tcp,normal=false} 30\nhuatuo_network_drops_total{reason=NO_SOCKET,protocol=tcp,normal=false} 10", nil, signal.Warning, "host", "4 packets a second dropped for reasons that are not everyday: TCP_CSUM 30, NO_SOCKET 10."},
		{"packet_drops", "by the firewall", "huatuo_network_drops_total{reason=NETFILTER_DROP,protocol=tcp,normal=false} 300", nil, "", "", "0 packets a second dropped for reasons that are not everyday. Rules of the firewall dropped 30 a second."},
		{"packet_drops", "everyday", "huatuo_network_drops_total{reason=X,protocol=tcp,normal=true} 3000", nil, "", "", "0 packets"},
		{"packet_drops", "not told", "huatuo_network_drops_total{reason=X,protocol=tcp,normal=unknown} 3000", nil, "", "", "Of 300 a second this kernel does not tell why."},
		{"tcp_retransmits", "many", "huatuo_tcp_segments_total{direction=transmit} 10000\nhuatuo_tcp_segments_retransmitted_total 200", nil, signal.Warning, "host", "200 of 10000 segments (2 %)"},
		{"tcp_retransmits", "very many", "huatuo_tcp_segments_total{direction=transmit} 10000\nhuatuo_tcp_segments_retransmitted_total 600", nil, signal.Critical, "host", "6 %"},
		{"tcp_retransmits", "few", "huatuo_tcp_segments_total{direction=transmit} 10000\nhuatuo_tcp_segments_retransmitted_total 50", nil, "", "", "0.5 %"},
		{"tcp_retransmits", "few segments", "huatuo_tcp_segments_total{direction=transmit} 100\nhuatuo_tcp_segments_retransmitted_total 50", nil, "", "", "too few to judge"},
		{"listen_overflow", "counted", "huatuo_tcp_listen_overflows_total 3", nil, signal.Warning, "host", "3 connections met a full queue"},
		{"listen_overflow", "an event", "huatuo_tcp_listen_overflows_total 300", []*signal.Document{event("listen_overflow", "nginx is full", "nginx.service", signal.Warning)}, signal.Critical, "nginx.service", "nginx is full."},
		{"listen_overflow", "none", "huatuo_tcp_listen_overflows_total 0", nil, "", "", "0 connections"},
		{"conntrack", "near the limit", "huatuo_conntrack_entries 85\nhuatuo_conntrack_limit 100", nil, signal.Warning, "host", "85 of 100 entries are used (85 %)"},
		{"conntrack", "at the limit", "huatuo_conntrack_entries 99\nhuatuo_conntrack_limit 100", nil, signal.Critical, "host", "99 %"},
		{"conntrack", "far from it", "huatuo_conntrack_entries 9\nhuatuo_conntrack_limit 100", nil, "", "", "9 %"},
		{"conntrack", "no tracking", "", nil, "", "", "No connections are tracked."},
		{"nic_errors", "errors", "huatuo_netdev_receive_errors_total{device=eth0} 2\nhuatuo_netdev_receive_errors_total{device=eth1} 0", nil, signal.Warning, "eth0", "2 packets received with errors"},
		{"nic_errors", "none", "huatuo_netdev_receive_errors_total{device=eth0} 0", nil, "", "", "No errors on 1 device"},
		{"softnet_drops", "some", "huatuo_softnet_drops_total{cpu=0} 2", nil, signal.Warning, "host", "2 packets"},
		{"softnet_drops", "none", "huatuo_softnet_drops_total{cpu=0} 0", nil, "", "", "0 packets"},
		{"udp_drops", "full buffers", "huatuo_udp_drops_total{family=ipv4,cause=receive_buffer} 30", nil, signal.Warning, "host", "3 datagrams a second"},
		{"udp_drops", "checksums", "huatuo_udp_drops_total{family=ipv4,cause=checksum} 30", nil, "", "", "0 datagrams"},

		{"hung_tasks", "an event", "huatuo_tasks_hung 3", []*signal.Document{event("hung_task", "dd hangs", "a", signal.Warning)}, signal.Critical, "a", "dd hangs."},
		{"hung_tasks", "from before", "huatuo_tasks_hung 3", nil, signal.Critical, "host", "3 tasks hang"},
		{"hung_tasks", "none", "huatuo_tasks_hung 0", nil, "", "", "0 tasks"},
		{"stalls", "many", "", slices.Repeat([]*signal.Document{event("lock_contention", "rwsem waited", "a", signal.Warning)}, 12), signal.Warning, "a", "rwsem waited; 12 such events in all."},
		{"stalls", "few of each", "", append(slices.Repeat([]*signal.Document{event("lock_contention", "x", "a", signal.Warning)}, 4), event("tick_gap", "y", "a", signal.Warning)), "", "", "more than 4 events"},
		{"gpu_errors", "one", "", []*signal.Document{event("gpu_error", "Xid 79", "", signal.Critical)}, signal.Critical, "host", "Xid 79."},
		{"gpu_errors", "none", "", nil, "", "", "No GPU"},
		{"resource_exhausted", "near", "", []*signal.Document{event("resource_exhausted", "inodes of / run out", "", signal.Warning)}, signal.Warning, "host", "inodes of / run out."},
		{"resource_exhausted", "at the end", "", []*signal.Document{event("resource_exhausted", "ports run out", "a", signal.Critical)}, signal.Critical, "a", "ports run out."},
		{"resource_exhausted", "none", "", nil, "", "", "No resource"},
		{"kernel_reports", "a lockup", "", []*signal.Document{event("soft_lockup", "CPU 1 is stuck", "", signal.Critical)}, signal.Critical, "host", "CPU 1 is stuck."},
		{"kernel_reports", "a warning", "", []*signal.Document{event("kernel_warning", "WARNING at x", "", signal.Warning)}, signal.Warning, "host", "WARNING at x."},
		{"kernel_reports", "none", "", nil, "", "", "The kernel reported nothing."},
		{"hardware_errors", "corrected", "", []*signal.Document{event("hardware_error", "a DIMM", "", signal.Warning)}, signal.Warning, "host", "a DIMM."},
		{"hardware_errors", "fatal", "", []*signal.Document{event("hardware_error", "a DIMM", "", signal.Critical)}, signal.Critical, "host", "a DIMM."},
		{"hardware_errors", "counted", "huatuo_hardware_errors_total{source=memory,severity=corrected,where=x} 4", nil, signal.Warning, "host", "4 hardware errors counted"},
		{"hardware_errors", "none", "huatuo_hardware_errors_total{source=memory,severity=corrected,where=x} 0", nil, "", "", "The hardware reported nothing"},
		{"nvme_health", "warns", "huatuo_nvme_critical_warning{device=nvme0,warning=spare} 1", nil, signal.Critical, "nvme0", "critical warning: spare"},
		{"nvme_health", "old", "huatuo_nvme_critical_warning{device=nvme0,warning=spare} 0\nhuatuo_nvme_used_ratio{device=nvme0} 1.1", nil, signal.Warning, "nvme0", "110 %"},
		{"nvme_health", "well", "huatuo_nvme_critical_warning{device=nvme0,warning=spare} 0\nhuatuo_nvme_used_ratio{device=nvme0} 0.2", nil, "", "", "are well"},
		{"thermal_throttling", "hot", "huatuo_thermal_core_throttles_total{package=0} 3", nil, signal.Warning, "host", "slowed down 3 times"},
		{"thermal_throttling", "cool", "huatuo_thermal_core_throttles_total{package=0} 0", nil, "", "", "0 times"},
		{"crashes", "one", "", []*signal.Document{event("process_crash", "app crashed", "a", signal.Critical)}, signal.Warning, "a", "app crashed."},
		{"crashes", "of two", "", []*signal.Document{event("process_crash", "app crashed", "a", signal.Critical), event("process_crash", "x", "b", signal.Critical)}, signal.Warning, "a", "2 such events in all. They are of a, b."},
		{"crashes", "none", "", nil, "", "", "No process crashed."},
		{"open_files", "of the host", "huatuo_files_open 95\nhuatuo_files_limit 100", nil, signal.Warning, "host", "95 files are open"},
		{"open_files", "of a process", "huatuo_files_open 5\nhuatuo_files_limit 100\nhuatuo_container_process_files_used_ratio{unit=a} 0.95", nil, signal.Warning, "a", "95 %"},
		{"open_files", "few", "huatuo_files_open 5\nhuatuo_files_limit 100\nhuatuo_container_process_files_used_ratio{unit=a} 0.5", nil, "", "", "5 files are open on the host. No process has more than 50 %"},
		{"task_limit", "near", "huatuo_container_pids{unit=a} 95\nhuatuo_container_pids_limit{unit=a} 100", nil, signal.Warning, "a", "95 of the 100 tasks"},
		{"task_limit", "far", "huatuo_container_pids{unit=a} 5\nhuatuo_container_pids_limit{unit=a} 100", nil, "", "", "more than 5 %"},
	}
	seen := map[string]map[bool]bool{}
	for _, tt := range rows {
		t.Run(tt.rule+"/"+tt.name, func(t *testing.T) {
			i := slices.IndexFunc(Rules(), func(r Rule) bool { return r.Name == tt.rule })
			if i < 0 {
				t.Fatal("no such rule")
			}
			r := Run(facts(t, tt.metrics, tt.events...), Rules()[i:i+1])
			if tt.severity == "" {
				if len(r.Findings) != 0 || len(r.Fine) != 1 || !strings.Contains(r.Fine[0].Text, tt.want) || r.Verdict != "healthy" {
					t.Errorf("%+v, want fine, with %q", r, tt.want)
				}
				return
			}
			if len(r.Findings) != 1 {
				t.Fatalf("%+v, want one finding", r)
			}
			x := r.Findings[0]
			if x.Severity != tt.severity || x.Subject != tt.subject || !strings.Contains(x.Sentence, tt.want) || r.Verdict != string(tt.severity) || x.Next == "" || x.Excess < 1 {
				t.Errorf("%+v, want %s of %s with %q", x, tt.severity, tt.subject, tt.want)
			}
		})
		if seen[tt.rule] == nil {
			seen[tt.rule] = map[bool]bool{}
		}
		seen[tt.rule][tt.severity != ""] = true
	}
	for _, r := range Rules() {
		if !seen[r.Name][true] || !seen[r.Name][false] {
			t.Errorf("%s: want a row in which it finds something, and a near miss", r.Name)
		}
		if r.What == "" || r.Threshold == "" || r.Next == "" || r.Area == "" || len(r.Metrics)+len(r.Kinds) == 0 {
			t.Errorf("%s: something is not told: %+v", r.Name, r)
		}
	}
}

// TestNotMeasured: what is not measured is never fine.
func TestNotMeasured(t *testing.T) {
	rule := []Rule{{Name: "x", Metrics: []string{"m"}, Kinds: []string{"k"}, check: func(*Facts) verdict { return verdict{fine: "well"} }}}
	for _, tt := range []struct {
		name    string
		probes  []probe.Status
		metrics string
		want    string
	}{
		{"no probe", nil, "m 1", "No probe tells of m."},
		{"unsupported", []probe.Status{{Name: "p", State: probe.Unsupported, Reason: "needs 5.8", Signals: []string{"m", "k"}}}, "", "The probe p is unsupported: needs 5.8."},
		{"probe of the events", []probe.Status{{Name: "p", State: probe.Running, Signals: []string{"m"}}, {Name: "q", State: probe.Failed, Signals: []string{"k"}}}, "m 1", "The probe q is failed."},
		{"metric absent", []probe.Status{{Name: "p", State: probe.Degraded, Signals: []string{"m", "k"}}}, "", "The kernel does not tell m."},
	} {
		f := facts(t, tt.metrics)
		f.Probes = tt.probes
		r := Run(f, rule)
		if len(r.Fine) != 0 || len(r.NotMeasured) != 1 || r.NotMeasured[0].Text != tt.want {
			t.Errorf("%s: %+v, want %q", tt.name, r, tt.want)
		}
	}
}

func TestRanking(t *testing.T) {
	found := func(severity signal.Severity, excess ...float64) Rule {
		return Rule{Name: string(severity), Next: "n", check: func(*Facts) verdict {
			var v verdict
			for _, e := range excess {
				v.findings = append(v.findings, Finding{Severity: severity, Excess: e, Sentence: fmt.Sprintf("%v.", e)})
			}
			return v
		}}
	}
	r := Run(facts(t, ""), []Rule{found(signal.Warning, 1, 9, 3, 2, 8, 4, 7), found(signal.Critical, 2)})
	var got []string
	for _, x := range r.Findings {
		got = append(got, x.Sentence)
	}
	want := []string{"2.", "9.", "8.", "7.", "4.", "3. So it is with 2 more."}
	if !slices.Equal(got, want) || r.Verdict != "critical" {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestWaitAdvice: what to do depends on who had the CPU.
func TestWaitAdvice(t *testing.T) {
	for kind, want := range map[string]string{"workload": "limit or a smaller weight", "self": "run fewer threads, or give it more CPUs", "quota": "raise its CPU limit"} {
		f := facts(t, "huatuo_container_runqueue_wait_seconds{unit=a} 0.02x1000\nhuatuo_container_runqueue_culprit_seconds_total{culprit="+kind+
			",culprit_namespace=,culprit_pod=,culprit_container=,culprit_unit=b,unit=a} 5")
		v := checkWorkloadWait(f)
		rule := cpuRules()[1]
		if found := rule.finish(v.findings); len(found) != 1 || !strings.Contains(found[0].Next, want) {
			t.Errorf("%s: %+v, want %q", kind, found, want)
		}
	}
}

func TestKnownIssueIsTold(t *testing.T) {
	d := event("hung_task", "dd hangs", "a", signal.Warning)
	d.Known = []string{"nfs_server"}
	if x := tell([]*signal.Document{d}, signal.Warning); x.Sentence != "dd hangs. It is a known issue: nfs_server." || !slices.Equal(x.Events, []string{"01hung_task"}) {
		t.Errorf("%+v", x)
	}
}

func TestPrint(t *testing.T) {
	r := Report{Host: "h", Kernel: "6.1", Seconds: 30, Verdict: "warning",
		Findings:    []Finding{{Rule: "cpu_wait", Severity: signal.Warning, Subject: "host", Sentence: strings.Repeat("word ", 30), Next: "do this"}},
		Fine:        []Note{{"oom_kill", "No process was killed for memory."}, {"swapping", "0 pages a second were read back from swap, and this goes on and on."}},
		NotMeasured: []Note{{"nvme_health", "The probe nvme is absent."}},
	}
	var b strings.Builder
	if err := r.Print(&b, 60); err != nil {
		t.Fatal(err)
	}
	out := b.String()
	for _, want := range []string{"One finding:", " 1  warning   cpu_wait: host\n", "    → do this\n", "Checked and fine\n    oom_kill  No process", "Not measured here\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing in\n%s", want, out)
		}
	}
	for line := range strings.Lines(out) {
		if n := len([]rune(strings.TrimSuffix(line, "\n"))); n > 60 {
			t.Errorf("%d columns: %s", n, line)
		}
		if strings.HasSuffix(line, " \n") {
			t.Errorf("trailing space: %q", line)
		}
	}
	b.Reset()
	if err := (&Report{}).Print(&b, 80); err != nil || !strings.Contains(b.String(), "Nothing is wrong.") {
		t.Errorf("%v\n%s", err, b.String())
	}
	text, err := json.Marshal(Run(facts(t, ""), nil))
	if err != nil || !strings.Contains(string(text), `"findings":[],"fine":[],"not_measured":[]`) {
		t.Errorf("%v %s", err, text)
	}
}

func TestNumbers(t *testing.T) {
	for want, got := range map[string]string{
		"1.5 ms": Seconds(0.0015), "30 s": Seconds(30), "5 min": Seconds(300), "12 µs": Seconds(12e-6), "0 µs": Seconds(0),
		"1.5 KiB": Bytes(1536), "0 B": Bytes(0), "2 GiB": Bytes(2 << 30), "12.3 %": Percent(0.123), "0.004 %": Percent(0.00004), "100 %": Percent(1),
		"1 task": many(1, "task"), "2 processes": many(2, "process"), "12346": number(12345.6),
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
