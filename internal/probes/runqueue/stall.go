package runqueue

import (
	"fmt"
	"time"

	"huatuo/internal/kern/ring"
	"huatuo/internal/probe"
	"huatuo/internal/signal"
)

// kinds of wait, by the number the program gives them.
var kinds = [...]string{"wakeup", "preempt"}

// SchedStall is the body of a sched_stall event. The record's process is the
// victim, its kernel stack the victim's.
type SchedStall struct {
	WaitSeconds    float64      `json:"wait_seconds" unit:"seconds" help:"how long it waited on the run queue"`
	Wait           string       `json:"wait" help:"why it waited: wakeup (it had been woken) or preempt (it was taken off the CPU)"`
	CPU            uint32       `json:"cpu" help:"CPU on which it ran at last"`
	Culprit        signal.Party `json:"culprit" help:"who had that CPU for most of the time; its stacks when it was also the last"`
	CulpritSeconds float64      `json:"culprit_seconds" unit:"seconds" help:"how long the culprit's process had that CPU while the victim waited"`
	IdleSeconds    float64      `json:"idle_seconds" unit:"seconds" help:"how long that CPU was idle while the victim waited: then the victim was throttled by its CPU quota, or waited on another CPU"`
	Ran            []Ran        `json:"ran" help:"who had that CPU while the victim waited, longest first, stays of some length only"`
}

// Ran is one process's time on the CPU.
type Ran struct {
	PID     uint32  `json:"pid"`
	Comm    string  `json:"comm"`
	Seconds float64 `json:"seconds"`

	cgroup uint64
	tid    uint32
}

// Events by their first member, as the program numbers them.
const (
	isSchedStall = iota
	isPageFaultStall
)

// decode is pure: golden and fuzz tests call it.
func decode(raw []byte, clock func(uint64) time.Time) (*signal.Record, error) {
	what, err := ring.View[uint64](raw)
	switch {
	case err != nil:
		return nil, fmt.Errorf("decode runqueue: %w", err)
	case *what == isSchedStall:
		return decodeStall(raw, clock)
	case *what == isPageFaultStall:
		return decodeFault(raw, clock)
	}
	return nil, fmt.Errorf("decode runqueue: unknown kind %d", *what)
}

func decodeStall(raw []byte, clock func(uint64) time.Time) (*signal.Record, error) {
	w, err := ring.View[bpfSchedStallWire](raw)
	if err != nil {
		return nil, fmt.Errorf("decode sched_stall: %w", err)
	}
	body := &SchedStall{
		WaitSeconds: time.Duration(w.Waited).Seconds(), Wait: kinds[w.Kind&1], CPU: w.Cpu,
	}
	body.account(w)
	r := &signal.Record{
		Schema: stalled, Time: clock(w.Ts), Suppressed: w.Suppressed, CgroupID: w.Cgroup,
		Process:   signal.Process{PID: w.Tgid, TID: w.Pid, Comm: probe.CString(w.Comm[:])},
		KernelIPs: probe.Stack(w.VictimFrames, w.Victim[:]),
		Body:      body,
		Parties:   []*signal.Party{&body.Culprit},
		Measures: []signal.Measure{
			{Schema: wait, Labels: kinds[w.Kind&1 : w.Kind&1+1], Value: body.WaitSeconds},
			{Schema: containerWait, CgroupID: w.Cgroup, Value: body.WaitSeconds},
		},
	}
	r.Title = body.title(r.Process)
	r.Keys, r.Lasted = []string{fmt.Sprintf("cpu:%d", w.Cpu)}, time.Duration(w.Waited)
	return r, nil
}

// account fills who ran from the stays that overlap the wait.
func (b *SchedStall) account(w *bpfSchedStallWire) {
	runs := append([]bpfRun{w.Prev}, w.Runs[:]...)
	from := w.Ts - min(w.Waited, w.Ts)
	for i, r := range runs {
		if i > 0 && r.End == w.Prev.End && r.Pid == w.Prev.Pid { // prev again, in the list
			continue
		}
		if r.End <= from || r.End > w.Ts {
			continue
		}
		start := max(from, r.End-min(r.Ns, r.End))
		secs := time.Duration(r.End - start).Seconds()
		if r.Pid == 0 {
			b.IdleSeconds += secs
			continue
		}
		b.add(Ran{PID: r.Tgid, Comm: probe.CString(r.Comm[:]), Seconds: secs, cgroup: r.Cgroup, tid: r.Pid})
	}
	if len(b.Ran) == 0 {
		return
	}
	top := b.Ran[0]
	b.CulpritSeconds = top.Seconds
	b.Culprit = signal.Party{
		Process:  signal.Process{PID: top.PID, TID: top.tid, Comm: top.Comm},
		CgroupID: top.cgroup,
	}
	if w.Prev.Tgid == top.PID && w.Prev.Pid != 0 {
		b.Culprit.Process.TID = w.Prev.Pid
		b.Culprit.KernelIPs = probe.Stack(w.CulpritFrames, w.Culprit[:])
		b.Culprit.UserIPs = probe.Stack(w.CulpritUserFrames, w.CulpritUser[:])
	}
}

// add sums per process and keeps Ran sorted, longest first.
func (b *SchedStall) add(r Ran) {
	i := 0
	for i < len(b.Ran) && b.Ran[i].PID != r.PID {
		i++
	}
	if i == len(b.Ran) {
		b.Ran = append(b.Ran, r)
	} else {
		b.Ran[i].Seconds += r.Seconds
	}
	for ; i > 0 && b.Ran[i-1].Seconds < b.Ran[i].Seconds; i-- {
		b.Ran[i-1], b.Ran[i] = b.Ran[i], b.Ran[i-1]
	}
}

func (b *SchedStall) title(p signal.Process) string {
	who := fmt.Sprintf("%s (pid %d) waited %s for CPU %d", p.Comm, p.PID, round(b.WaitSeconds), b.CPU)
	switch {
	case b.IdleSeconds > b.WaitSeconds/2:
		return who + ", which was idle: its group was throttled, or it waited on another CPU"
	case b.CulpritSeconds > 0 && b.CulpritSeconds < b.WaitSeconds/10:
		return fmt.Sprintf("%s, which many tasks shared in short turns, %s (pid %d) the longest", who, b.Culprit.Process.Comm, b.Culprit.Process.PID)
	case b.CulpritSeconds > 0:
		return fmt.Sprintf("%s while %s (pid %d) had it for %s", who, b.Culprit.Process.Comm, b.Culprit.Process.PID, round(b.CulpritSeconds))
	default:
		return who
	}
}

func round(secs float64) time.Duration {
	return time.Duration(secs * float64(time.Second)).Round(100 * time.Microsecond)
}
