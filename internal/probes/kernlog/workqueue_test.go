package kernlog

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"huatuo/internal/kern/clock"
	"huatuo/internal/probes/probetest"
	"huatuo/internal/signal"
)

// TestKernelWorkqueue keeps a CPU in the kernel while work is queued on it, until
// the workqueues' own watchdog reports that; a shorter stay is no report.
func TestKernelWorkqueue(t *testing.T) {
	needHarmless(t)
	const thresh = "/sys/module/workqueue/parameters/watchdog_thresh"
	if _, err := os.Stat(thresh); err != nil {
		t.Skip("needs a kernel that watches its workqueues: CONFIG_WQ_WATCHDOG")
	}
	if b, err := os.ReadFile("/sys/module/workqueue/parameters/panic_on_stall"); err == nil && strings.TrimSpace(string(b)) != "0" {
		t.Skip("needs workqueue.panic_on_stall=0: a report would end this kernel")
	}
	const refresh = "/proc/sys/vm/stat_refresh" // asks a worker of each CPU, and waits for all
	set(t, thresh, "1")
	c, err := clock.New()
	if err != nil {
		t.Fatal(err)
	}
	e := probetest.New(t)
	e.Clock = c.Mono
	e.Start(Spec(), nil)
	stuck := func(comm string, d time.Duration) {
		t.Helper()
		asked := make(chan error, 1)
		time.AfterFunc(d/8, func() { asked <- os.WriteFile(refresh, []byte("1"), 0) })
		hold(t, comm, d)
		if err := <-asked; err != nil {
			t.Fatal(err)
		}
	}
	before, _ := probetest.Value(e.Gather(), reports.Name, workqueueLockup.Name)
	stuck("huatuo-nearwq", 500*time.Millisecond)
	near, _ := probetest.Value(e.Gather(), reports.Name, workqueueLockup.Name)
	if near != before {
		t.Errorf("%g lockups for half a second", near-before)
	}
	start := time.Now()
	stuck("huatuo-stuckwq", 5*time.Second)
	r := e.WaitRecord(func(r *signal.Record) bool { // the report tells what has not begun
		b, ok := r.Body.(*WorkqueueLockup)
		return ok && slices.ContainsFunc(b.Pending, func(s string) bool { return strings.HasSuffix(s, ": refresh_vm_stats") })
	})
	b := r.Body.(*WorkqueueLockup)
	if b.Stuck < 1 || b.Stuck > 30 || len(b.Pools) == 0 || !regexp.MustCompile(`^cpus=\d+ node=0 flags=0x0 nice=-?\d+$`).MatchString(b.Pools[0]) || len(b.Text) < 2 {
		t.Errorf("body %+v", b)
	}
	if pools := slices.Compact(slices.Sorted(slices.Values(b.Pools))); len(pools) != len(b.Pools) {
		t.Errorf("a pool is named twice: %v", b.Pools)
	}
	if want := fmt.Sprintf("workqueue workers were stuck for %.0f s: cpus=", b.Stuck); !strings.HasPrefix(r.Title, want) || r.Schema.Severity != signal.Critical {
		t.Errorf("title %q, want %q", r.Title, want)
	}
	if r.Time.Before(start.Add(-time.Second)) || r.Time.After(time.Now().Add(time.Second)) {
		t.Errorf("time %v, the CPU was stuck from %v on", r.Time, start)
	}
	if n, _ := probetest.Value(e.Gather(), reports.Name, workqueueLockup.Name); n < before+1 {
		t.Errorf("%g lockups are counted", n)
	}
}
