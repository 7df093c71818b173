package stress

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"huatuo/internal/probes/probetest"
)

// labelled is how many workloads may have series of their own.
const labelled = 500

// TestManyCgroups runs a process in each of a thousand control groups. Series
// must stay bounded, a scrape fast, and the agent's share of the CPU small.
func TestManyCgroups(t *testing.T) {
	load := loader(t)
	a := start(t, t.TempDir(), nil)
	time.Sleep(6 * time.Second)
	seriesBefore, _ := a.metric("huatuo_store_series")
	before := usageOf(t, a.pid)

	groups := pick(600, 1000)
	occupy(t, load, groups)
	eventually(t, 25*time.Second, "the groups have series", func() error {
		_, body := a.get("/metrics")
		if n := strings.Count(body, "\nhuatuo_container_memory_usage_bytes{"); n < labelled*9/10 {
			return fmt.Errorf("%d workloads", n)
		}
		return nil
	})
	var body string
	var took []time.Duration
	for range 5 {
		began := time.Now()
		_, body = a.get("/metrics")
		took = append(took, time.Since(began))
		time.Sleep(300 * time.Millisecond)
	}
	own, other := labelsIn(body)
	if len(own) > labelled || len(own) < labelled*3/4 || !other {
		t.Errorf("%d groups have labels of their own, want close to %d; other: %v", len(own), labelled, other)
	}
	cpu, wall := usageOf(t, a.pid).cpu, time.Now()
	time.Sleep(pick(6*time.Second, 30*time.Second))
	after := usageOf(t, a.pid)
	ratio := float64(after.cpu-cpu) / float64(time.Since(wall))
	series, _ := a.metric("huatuo_store_series")
	if ratio > 0.25 {
		t.Errorf("the agent takes %.1f %% of a core", 100*ratio)
	}
	if limit := float64(seriesBefore) + 100*labelled; series > limit {
		t.Errorf("%v series, %v before: more than %v", series, seriesBefore, limit)
	}
	if q, limit := quantile(took, 0.5), time.Duration(float64(time.Second)*slowness()); q > limit {
		t.Errorf("a scrape takes %v", q)
	}
	if after.rss > before.rss+200e6 {
		t.Errorf("from %v to %v", before, after)
	}
	if after.fds > 6000 {
		t.Errorf("%d descriptors", after.fds)
	}
	t.Logf("%d groups: %d with own labels, %v → %v series, scrape of %d kB in %v, %.1f %% of a core; %v → %v",
		groups, len(own), seriesBefore, series, len(body)/1000, quantile(took, 0.5).Round(time.Millisecond), 100*ratio, before, after)
	a.stop()
}

// occupy makes n control groups with a process in each, until the test's end.
func occupy(t *testing.T, load string, n int) {
	t.Helper()
	for i := range n {
		cg := probetest.NewCgroup(t, fmt.Sprintf("huatuo-stress-%d-%04d", os.Getpid(), i))
		c := exec.Command(load, "tick", "500")
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Process.Kill(); c.Wait() })
		cg.Add(t, c.Process.Pid)
	}
}

// labelsIn finds the groups that have series of their own in an exposition, and
// whether some have not.
func labelsIn(body string) (own map[string]bool, other bool) {
	own = map[string]bool{}
	for line := range strings.Lines(body) {
		if _, unit, ok := strings.Cut(line, `unit="/huatuo-stress-`); ok {
			unit, _, _ = strings.Cut(unit, `"`)
			own[unit] = true
		}
		other = other || strings.Contains(line, `container="other"`)
	}
	return own, other
}

// TestForkStorm makes 5,000 processes a second that exit at once.
func TestForkStorm(t *testing.T) {
	load := loader(t)
	a := start(t, t.TempDir(), nil)
	time.Sleep(5 * time.Second)
	routines := a.system().Cost.Goroutines
	seconds := pick(4, 10)
	storm := func(seconds int) string {
		out, err := exec.Command(load, "storm", "5000", fmt.Sprint(seconds)).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return strings.TrimSpace(string(out))
	}
	storm(2) // caches fill
	time.Sleep(2 * time.Second)
	before := usageOf(t, a.pid)
	top := peak(t, a.pid)
	made := storm(seconds)
	rss, during := top(), usageOf(t, a.pid)
	share := float64(during.cpu-before.cpu) / (float64(seconds) * float64(time.Second))
	a.accountedFor()
	var after usage
	eventually(t, 15*time.Second, "the agent is as before", func() error {
		after = usageOf(t, a.pid)
		if r := a.system().Cost.Goroutines; r > routines+20 || after.fds > before.fds+20 {
			return fmt.Errorf("%d goroutines, %d before; %v, %v before", r, routines, after, before)
		}
		return nil
	})
	if share > 0.5 {
		t.Errorf("the agent takes %.1f %% of a core", 100*share)
	}
	if rss > before.rss+40e6 {
		t.Errorf("resident memory went from %d to %d MB", before.rss/1e6, rss/1e6)
	}
	t.Logf("%s processes in %d s; %.1f %% of a core; RSS %d → %d MB at most; %v → %v", made, seconds, 100*share, before.rss/1e6, rss/1e6, before, after)
	a.stop()
}
