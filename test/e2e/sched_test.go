package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"huatuo/internal/probes/probetest"
	"huatuo/internal/signal"
)

// hogs runs n busy loops on one CPU, in cg, until the test ends.
func hogs(t testing.TB, cg *probetest.Cgroup, n int) {
	t.Helper()
	for range n {
		c := exec.Command("taskset", "-c", "0", "sh", "-c", "while :; do :; done")
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Process.Kill(); c.Wait() })
		cg.Add(t, c.Process.Pid)
	}
}

// TestSchedStall: 24 busy loops share a CPU. Each waits far more than 50 ms for
// its turn; the event must name victim, culprit, cgroup and stacks, and the
// workload's histogram must have the waits.
func TestSchedStall(t *testing.T) {
	a := start(t)
	cg := probetest.NewCgroup(t, cgroupName("hogs"))
	time.Sleep(300 * time.Millisecond) // the agent learns of new cgroups on a miss, at most each 200 ms
	hogs(t, cg, 24)
	d := a.event("sched_stall", 20*time.Second, func(d *signal.Document) bool {
		return d.Process != nil && d.Process.Comm == "sh" && d.Container != nil && d.Container.Cgroup == cg.Path
	})
	var f struct {
		WaitSeconds float64      `json:"wait_seconds"`
		CPU         int          `json:"cpu"`
		Wait        string       `json:"wait"`
		Culprit     signal.Party `json:"culprit"`
		Ran         []any        `json:"ran"`
	}
	if err := json.Unmarshal(d.Fields, &f); err != nil {
		t.Fatal(err)
	}
	if f.WaitSeconds < 0.05 || f.WaitSeconds > 10 || f.CPU != 0 || f.Wait != "preempt" && f.Wait != "wakeup" {
		t.Errorf("fields %s", d.Fields)
	}
	if f.Culprit.Process.PID == 0 || len(f.Ran) == 0 {
		t.Errorf("no culprit: %s", d.Fields)
	}
	if !strings.Contains(d.Title, "waited") || d.Severity != signal.Warning || d.Host == "" {
		t.Errorf("document %+v", d)
	}
	// A loop is preempted by the timer interrupt on its way back to user space.
	if !hasFrame(d.KernelStack, "interrupt") && !hasFrame(d.KernelStack, "schedule") {
		t.Errorf("the victim's kernel stack: %+v", d.KernelStack)
	}
	if d.Process.Cmdline == "" || d.Process.Exe == "" || d.Process.StartTime == nil || d.Process.ParentPID == 0 {
		t.Errorf("process %+v: want cmdline, exe, start time and parent", d.Process)
	}

	a.eventually(20*time.Second, "workload histogram", func() error {
		n, ok := a.query(fmt.Sprintf(`histogram_count(huatuo_container_runqueue_wait_seconds{unit=%q})`, cg.Path))
		if !ok || n < 24 {
			return fmt.Errorf("count %v, %v", n, ok)
		}
		p99, ok := a.query(fmt.Sprintf(`histogram_quantile(0.99, huatuo_container_runqueue_wait_seconds{unit=%q})`, cg.Path))
		if !ok || p99 < 0.02 {
			return fmt.Errorf("p99 %v, %v", p99, ok)
		}
		return nil
	})
	checkScrape(t, a, "huatuo_runqueue_wait_seconds_bucket{", "huatuo_container_runqueue_wait_seconds_count{", "huatuo_sched_switches_total{")
	checkExemplar(t, a)
	a.balanced()
}

func hasFrame(frames []signal.Frame, part string) bool {
	for _, f := range frames {
		if strings.Contains(f.Function, part) {
			return true
		}
	}
	return false
}

// TestSchedStallNearMiss: a wait below the threshold is no event.
func TestSchedStallNearMiss(t *testing.T) {
	a := start(t, "--set", "probes.runqueue.stall=30s")
	cg := probetest.NewCgroup(t, cgroupName("near"))
	hogs(t, cg, 8)
	time.Sleep(2 * time.Second)
	var page signal.EventPage
	a.json("/api/v1/events?kind=sched_stall", &page)
	if len(page.Events) != 0 {
		t.Errorf("%d events for waits below the threshold: %s", len(page.Events), page.Events[0].Title)
	}
}

// killHogs ends what runs in cg at once.
func killHogs(t testing.TB, cg *probetest.Cgroup) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(cg.Dir("cpu"), "cgroup.procs"))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range strings.Fields(string(b)) {
		pid, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		syscall.Kill(pid, syscall.SIGKILL)
	}
}
