package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"huatuo/internal/probe"
)

// TestBudget: an agent that may cost nothing gives up details and sampling
// before probes, keeps the probes that it is told to keep, says so, and has
// everything again when the limit is lifted.
func TestBudget(t *testing.T) {
	file := filepath.Join(t.TempDir(), "huatuo.yaml")
	write := func(share string) {
		if err := os.WriteFile(file, []byte("budget:\n  share: "+share+"\n  calm: 1s\n  keep: [oomkill, loadavg]\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("0.0001")
	a := start(t, "--config", file, "--set", "budget.interval=2s", "--set", "store.interval=1s", "--set", "profiles.enabled=true")
	status := func() (lean, shed, running []string) {
		var p struct{ Probes []probe.Status }
		a.json("/api/v1/probes", &p)
		for _, s := range p.Probes {
			if len(s.Lean) > 0 {
				lean = append(lean, s.Name)
			}
			switch s.State {
			case probe.Shed:
				shed = append(shed, s.Name)
			case probe.Running, probe.Degraded:
				running = append(running, s.Name)
			}
		}
		return lean, shed, running
	}
	busy := make(chan struct{})
	defer close(busy)
	go func() { // the scrapes are what the agent spends its time on
		for {
			select {
			case <-busy:
				return
			default:
				a.get("/metrics")
				time.Sleep(100 * time.Millisecond)
			}
		}
	}()
	a.eventually(time.Minute, "stacks are taken", func() error {
		if st := a.profiler(); st.State != "running" || st.Hertz != 19 {
			return fmt.Errorf("%+v", st)
		}
		return nil
	})
	_, _, all := status()
	a.eventually(3*time.Minute, "two probes ended", func() error {
		lean, shed, _ := status()
		if len(shed) > 0 && len(lean) == 0 {
			t.Fatalf("%q ended before any detail was given up", shed)
		}
		if len(shed) < 2 {
			return fmt.Errorf("lean: %q, ended: %q", lean, shed)
		}
		return nil
	})
	_, shed, running := status()
	if slices.Contains(shed, "oomkill") || !slices.Contains(running, "loadavg") {
		t.Errorf("ended %q, and runs %q", shed, running)
	}
	_, page := a.get("/metrics")
	for _, want := range []string{`huatuo_budget_shed{class="probe"} `, "huatuo_budget_limit_ratio 0.0001", "huatuo_budget_used_ratio ", `huatuo_probe_state{probe="` + shed[0] + `",state="shed"} 1`} {
		if !strings.Contains(page, want) {
			t.Errorf("no %s in /metrics", want)
		}
	}
	var sys struct {
		Cost struct {
			Shed []struct{ Probe, Class, What, Why string }
		}
	}
	a.json("/api/v1/system", &sys)
	if n := len(sys.Cost.Shed); n < 3 || sys.Cost.Shed[0].Class == "probe" || !strings.Contains(sys.Cost.Shed[0].Why, "limit is 0.01 %") {
		t.Errorf("given up: %+v", sys.Cost.Shed)
	}
	sampling := 0
	for _, s := range sys.Cost.Shed {
		if s.Probe == "profiles" && s.Class == "sampling" {
			sampling++
		}
	}
	if st := a.profiler(); sampling != 2 || st.Hertz >= 19 {
		t.Errorf("%d sampling rates of profiles given up: %+v", sampling, st)
	}

	write("1")
	a.cmd.Process.Signal(syscall.SIGHUP)
	a.eventually(3*time.Minute, "all of it is back", func() error {
		lean, shed, running := status()
		if len(lean)+len(shed) > 0 || len(running) < len(all) {
			return fmt.Errorf("lean: %q, ended: %q, %d of %d run", lean, shed, len(running), len(all))
		}
		if st := a.profiler(); st.State != "running" || st.Hertz != 19 {
			return fmt.Errorf("%+v", st)
		}
		return nil
	})
}
