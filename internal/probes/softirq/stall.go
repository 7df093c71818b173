package softirq

import (
	"fmt"
	"strings"
	"time"

	"huatuo/internal/kern/ring"
	"huatuo/internal/probe"
	"huatuo/internal/signal"
)

// phases by the number the program gives them.
var phases = [...]string{"wait", "service"}

// SoftirqStall is the body of a softirq_stall event. The record's process is
// only set when it kept soft interrupts off; the kernel stack is that of the
// CPU at the end of the wait or of the handler.
type SoftirqStall struct {
	Vector       string  `json:"vector" help:"which soft interrupt, as in /proc/softirqs"`
	Phase        string  `json:"phase" help:"what was long: wait (raised, but the handler did not begin) or service (the handler ran)"`
	StallSeconds float64 `json:"stall_seconds" unit:"seconds" help:"how long it waited or ran"`
	CPU          uint32  `json:"cpu" help:"CPU on which it was"`
	Began        string  `json:"began" help:"where the handler ran: interrupt (at the end of a hardware interrupt), enable (the event's process had kept soft interrupts off and let them in), ksoftirqd (left to that thread, which competes for the CPU like any other); empty when the stack does not tell"`
	Interrupted  string  `json:"interrupted" help:"who was on the CPU when that is not the cause"`
	AfterVector  string  `json:"after_vector" help:"the vector that ran last during a wait; empty when none did"`
	AfterSeconds float64 `json:"after_seconds" unit:"seconds" help:"how long that one ran"`
}

// How a handler came to run.
const (
	byInterrupt = "interrupt"
	byEnable    = "enable"
	byKsoftirqd = "ksoftirqd"
)

// decoder turns samples into records. symbol may be nil.
type decoder struct {
	clock  func(uint64) time.Time
	symbol func(uint64) string
}

func (d *decoder) decode(raw []byte) (*signal.Record, error) {
	w, err := ring.View[bpfSoftirqStallWire](raw)
	if err != nil {
		return nil, fmt.Errorf("decode softirq_stall: %w", err)
	}
	if int(w.Vec) >= len(vectors) || int(w.Phase) >= len(phases) || int(w.AfterVec) >= len(vectors) {
		return nil, fmt.Errorf("decode softirq_stall: vector %d, phase %d, vector before %d", w.Vec, w.Phase, w.AfterVec)
	}
	comm := probe.CString(w.Comm[:])
	b := &SoftirqStall{Vector: vectors[w.Vec], Phase: phases[w.Phase], StallSeconds: time.Duration(w.Ns).Seconds(), CPU: w.Cpu}
	if w.AfterNs != 0 {
		b.AfterVector, b.AfterSeconds = vectors[w.AfterVec], time.Duration(w.AfterNs).Seconds()
	}
	r := &signal.Record{
		Schema: stalled, Time: d.clock(w.Ts), Suppressed: w.Suppressed,
		KernelIPs: probe.Stack(w.Frames, w.Stack[:]), Body: b,
		Measures: []signal.Measure{{Schema: wait, Labels: []string{b.Vector}, Value: b.StallSeconds}},
	}
	if b.Phase == phases[1] {
		r.Measures[0].Schema = service
	}
	b.Began = d.began(comm, r.KernelIPs)
	switch {
	case b.Phase == phases[0] && b.Began == byEnable && !b.behind():
		r.Process, r.CgroupID = signal.Process{PID: w.Tgid, TID: w.Pid, Comm: comm}, w.Cgroup
	case w.Tgid != 0:
		b.Interrupted = fmt.Sprintf("%s (pid %d)", comm, w.Tgid)
	default:
		b.Interrupted = "idle"
	}
	r.Title = b.title(r.Process)
	r.Keys, r.Lasted = []string{fmt.Sprintf("cpu:%d", w.Cpu)}, time.Duration(w.Ns)
	return r, nil
}

// began reads the stack from the handler outwards to what led to it.
func (d *decoder) began(comm string, ips []uint64) string {
	if strings.HasPrefix(comm, "ksoftirqd/") {
		return byKsoftirqd
	}
	if d.symbol == nil {
		return ""
	}
	for _, ip := range ips {
		switch s := d.symbol(ip); {
		case strings.Contains(s, "local_bh_enable"), s == "netif_rx", s == "netif_rx_ni":
			return byEnable
		case strings.Contains(s, "irq_exit"):
			return byInterrupt
		}
	}
	return ""
}

// behind tells that most of the wait was the time of another handler.
func (b *SoftirqStall) behind() bool { return 2*b.AfterSeconds >= b.StallSeconds }

func (b *SoftirqStall) title(p signal.Process) string {
	d := time.Duration(b.StallSeconds * float64(time.Second)).Round(100 * time.Microsecond)
	if b.Phase == phases[1] {
		return fmt.Sprintf("soft interrupt %s ran %s on CPU %d", b.Vector, d, b.CPU)
	}
	s := fmt.Sprintf("soft interrupt %s waited %s on CPU %d", b.Vector, d, b.CPU)
	switch {
	case b.behind():
		return s + " behind " + b.AfterVector
	case b.Began == byKsoftirqd:
		return s + " for ksoftirqd"
	case p.PID != 0:
		return fmt.Sprintf("%s while %s (pid %d) kept soft interrupts off", s, p.Comm, p.PID)
	}
	return s + " while " + b.Interrupted + " was there"
}
