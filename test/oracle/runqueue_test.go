package oracle

import (
	"os/exec"
	"slices"
	"testing"
	"time"

	"huatuo/internal/probes/probetest"
)

// TestRunQueue: waits for a CPU as the kernel's trace ring has them. Three busy
// loops and a task that sleeps and wakes share a CPU, beside whatever the
// machine does.
func TestRunQueue(t *testing.T) {
	url := start(t, "runqueue")
	tr := newTrace(t, 32<<10, "sched/sched_wakeup", "sched/sched_wakeup_new", "sched/sched_switch")
	cg := probetest.NewCgroup(t, groupName("runq"))
	time.Sleep(time.Second) // the agent gets to know the group
	pids := map[uint64]bool{}
	for _, program := range []string{"while :; do :; done", "while :; do :; done", "while :; do :; done", "exec perl -e 'select undef, undef, undef, 0.003 while 1'"} {
		c := exec.Command("taskset", "-c", "0", "sh", "-c", program)
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Process.Kill(); c.Wait() })
		cg.Add(t, c.Process.Pid)
		pids[uint64(c.Process.Pid)] = true
	}

	seconds := 6 * time.Second
	for try := 0; ; try++ {
		tr.write("trace", "") // empty it
		tr.write("tracing_on", "1")
		time.Sleep(1500 * time.Millisecond) // waits that had begun before are over, and no earlier scrape is fresh enough to be given again
		var w window
		before := w.scrape(t, url)
		time.Sleep(seconds)
		after := w.scrape(t, url)
		tr.write("tracing_on", "0")
		lost, records := tr.lost(), tr.records()
		waits, unseen := runWaits(records)
		if lost > 0 || w.blurred(waits["wakeup"]) || w.blurred(waits["preempt"]) {
			if try == 3 {
				t.Skipf("the machine is too busy: the trace ring lost %d events, or a scrape took too long; run it on an idle one", lost)
			}
			if lost > 0 {
				seconds /= 2
			}
			continue
		}
		slack := unseen + len(records)/200 // the agent does not read all CPUs in one instant
		for _, kind := range []string{"wakeup", "preempt"} {
			f := "huatuo_runqueue_wait_seconds"
			h := native(series(after[f], "kind", kind)).since(native(series(before[f], "kind", kind)))
			w.agree(t, kind, h, waits[kind], slack)
		}
		f := "huatuo_container_runqueue_wait_seconds"
		h := native(series(after[f], "unit", cg.Path)).since(native(series(before[f], "unit", cg.Path)))
		ours := slices.DeleteFunc(slices.Concat(waits["wakeup"], waits["preempt"]), func(w wait) bool { return !pids[w.pid] })
		w.agree(t, "the workload's", h, ours, unseen+len(ours)/100)
		return
	}
}

// runWaits are the times from a wake-up, or from being preempted, until the
// task got a CPU, by kind. Some kernels do not tell each switch from the idle
// task: who ran next was then somebody else than who gives the CPU up, and the
// wait of the one in between, if it had one, is unseen.
func runWaits(records []record) (waits map[string][]wait, unseen int) {
	type stamp struct {
		ts   uint64
		kind string
	}
	waits = map[string][]wait{}
	ready := map[uint64]stamp{}
	running := map[int]uint64{}
	for _, r := range records {
		if r.ev.name != "sched_switch" {
			ready[r.num("pid")] = stamp{r.ts, "wakeup"}
			continue
		}
		prev, next := r.num("prev_pid"), r.num("next_pid")
		if was, ok := running[r.cpu]; ok && was != prev {
			unseen++
			delete(ready, prev)
		}
		running[r.cpu] = next
		if prev != 0 && r.num("prev_state")&0xff == 0 {
			ready[prev] = stamp{r.ts, "preempt"}
		}
		if s, ok := ready[next]; ok && next != 0 {
			delete(ready, next)
			waits[s.kind] = append(waits[s.kind], wait{time.Duration(r.ts - s.ts), r.ts, next})
		}
	}
	return waits, unseen
}
