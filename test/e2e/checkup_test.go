package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"huatuo/internal/probes/probetest"
	"huatuo/internal/signal"
)

// quota gives a group a fifth of a CPU.
func quota(t testing.TB, cg *probetest.Cgroup) {
	t.Helper()
	file, text := "cpu.max", "20000 100000"
	if probetest.OnV1() {
		file, text = "cpu.cfs_quota_us", "20000"
	}
	if err := os.WriteFile(filepath.Join(cg.Dir("cpu"), file), []byte(text), 0); err != nil {
		t.Skipf("needs the cpu controller: %v", err)
	}
}

// report is what `huatuo checkup -o json` writes.
type report struct {
	Verdict  string
	Seconds  float64
	Findings []struct {
		Rule, Severity, Subject, Sentence, Next string
		Workload                                *struct{ Unit string }
	}
	Fine, NotMeasured []struct{ Rule, Text string }
}

func checkup(t *testing.T) report {
	t.Helper()
	code, out, errs := cli(t, "checkup", "--for", "5s", "-o", "json")
	var r report
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatalf("exit code %d, %v in\n%s%s", code, err, out, errs)
	}
	if want := map[string]int{"healthy": 0, "warning": 1, "critical": 2}[r.Verdict]; code != want {
		t.Errorf("exit code %d with verdict %q", code, r.Verdict)
	}
	if r.Seconds < 4.5 || len(r.Fine) == 0 {
		t.Errorf("report %+v", r)
	}
	for _, f := range r.Findings {
		if f.Sentence == "" || f.Next == "" || f.Subject == "" {
			t.Errorf("finding %+v: want a sentence, a subject and what to do", f)
		}
	}
	return r
}

// TestCheckup: four loops in a group that may use a fifth of a CPU are a finding
// that names the group; a group with the same quota that does nothing is none.
func TestCheckup(t *testing.T) {
	needRoot(t)
	busy, quiet := probetest.NewCgroup(t, cgroupName("busy")), probetest.NewCgroup(t, cgroupName("quiet"))
	quota(t, busy)
	quota(t, quiet)
	hogs(t, busy, 4)
	r := checkup(t)
	found := ""
	for _, f := range r.Findings {
		if f.Subject == quiet.Path {
			t.Errorf("a group in which nothing runs: %+v", f)
		}
		if f.Rule == "cpu_throttling" && f.Workload != nil && f.Workload.Unit == busy.Path {
			found = f.Sentence
		}
	}
	if !strings.Contains(found, "0.2 CPUs") {
		t.Errorf("cpu_throttling of %s says %q in %+v", busy.Path, found, r.Findings)
	}
}

// TestCheckupQuiet: without the load there is no such finding.
func TestCheckupQuiet(t *testing.T) {
	needRoot(t)
	quiet := probetest.NewCgroup(t, cgroupName("quiet"))
	quota(t, quiet)
	for _, f := range checkup(t).Findings {
		if f.Subject == quiet.Path {
			t.Errorf("%+v", f)
		}
	}
}

func TestCheckupText(t *testing.T) {
	needRoot(t)
	code, out, errs := cli(t, "checkup", "--for", "2s")
	if code > 2 || !strings.Contains(out, "Checked and fine") || !strings.Contains(out, "oom_kill") {
		t.Errorf("exit code %d\n%s%s", code, out, errs)
	}
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"checkup", "--for", "1s"}, "--for 1s: want 2s to 1h"}, {[]string{"checkup", "-o", "xml"}, "want text or json"},
		{[]string{"checkup", "now"}, `unknown command "now"`}, {[]string{"top", "--sort", "size"}, `--sort "size": want cpu, wait`},
		{[]string{"top", "-i", "1ms"}, "--interval 1ms: want 500ms to 1h"}, {[]string{"top", "-n", "-1"}, "must not be negative"},
	} {
		if code, _, errs := cli(t, tt.args...); code != 2 || !strings.Contains(errs, tt.want) {
			t.Errorf("%q: exit code %d, %q does not say %q", tt.args, code, errs, tt.want)
		}
	}
	if code, out, _ := cli(t, "checkup", "--rules"); code != 0 || !strings.Contains(out, "cpu_throttling (cpu)") {
		t.Errorf("rules: %d\n%s", code, out)
	}
}

// TestTop: the table has the group, what it used, that it was stopped, and who it
// waited for.
func TestTop(t *testing.T) {
	needRoot(t)
	cg := probetest.NewCgroup(t, cgroupName("top"))
	quota(t, cg)
	hogs(t, cg, 4)
	code, out, errs := cli(t, "top", "-n", "2", "-i", "2s", "-o", "json")
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if code != 0 || len(lines) != 2 {
		t.Fatalf("exit code %d, %d lines\n%s%s", code, len(lines), out, errs)
	}
	var v struct {
		Workloads []struct {
			Name    string
			CPU     float64 `json:"cpu_cores"`
			Limit   float64 `json:"cpu_limit_cores"`
			Wait    float64 `json:"waiting_tasks"`
			Stopped float64 `json:"throttled_ratio"`
			Culprit struct{ Kind string }
		}
	}
	if err := json.Unmarshal([]byte(lines[1]), &v); err != nil {
		t.Fatal(err)
	}
	for _, w := range v.Workloads {
		if w.Name != cg.Path {
			continue
		}
		if w.CPU < 0.02 || w.CPU > 0.4 || w.Limit != 0.2 || w.Wait < 0.5 || w.Stopped < 0.3 || w.Culprit.Kind == "" {
			t.Errorf("%+v", w)
		}
		code, out, _ := cli(t, "top", "--once", "-i", "1s", "--sort", "throttled")
		if code != 0 || !strings.Contains(out, "*THR%") || !strings.Contains(out, cg.Path[:8]) {
			t.Errorf("exit code %d\n%s", code, out)
		}
		return
	}
	t.Errorf("%s is not in\n%s", cg.Path, lines[1])
}

// TestMomentAndKnown: an event tells what there was when it happened, is marked
// as known, and is dropped and counted once that is what the configuration says.
func TestMomentAndKnown(t *testing.T) {
	config := filepath.Join(t.TempDir(), "huatuo.yaml")
	write := func(action string) {
		t.Helper()
		text := fmt.Sprintf("known_issues:\n  - {name: loops, kinds: [sched_stall], process: \"^sh$\", label: A test., action: %s}\n", action)
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("label")
	a := start(t, "--config", config)
	cg := probetest.NewCgroup(t, cgroupName("known"))
	pids := filepath.Join(cg.Dir("pids"), "pids.max")
	limited := os.WriteFile(pids, []byte("77"), 0) == nil
	time.Sleep(300 * time.Millisecond) // the agent learns of new cgroups on a miss, at most each 200 ms
	hogs(t, cg, 24)
	d := a.event("sched_stall", 20*time.Second, func(d *signal.Document) bool {
		return d.Process != nil && d.Process.Comm == "sh" && d.Container != nil && d.Container.Cgroup == cg.Path && d.Resources != nil && d.Resources.Workload != nil
	})
	if len(d.Known) != 1 || d.Known[0] != "loops" {
		t.Errorf("known %q", d.Known)
	}
	h, w := d.Resources.Host, d.Resources.Workload
	if h == nil || h.MemoryTotal == 0 || h.Runnable < 2 {
		t.Errorf("host %+v", h)
	}
	if limited && (w.PidsLimit != 77 || w.Pids < 24) {
		t.Errorf("workload %+v", w)
	}

	write("suppress")
	if err := a.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	a.eventually(20*time.Second, "events are suppressed", func() error {
		if n := a.accounts()["runqueue"].Dropped["known_issue"]; n < 3 {
			return fmt.Errorf("%d dropped as known", n)
		}
		return nil
	})
	a.balanced()
}
