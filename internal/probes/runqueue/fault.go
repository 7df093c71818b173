package runqueue

import (
	"fmt"
	"time"

	"huatuo/internal/kern/ring"
	"huatuo/internal/probe"
	"huatuo/internal/signal"
)

// PageFaultStall is the body of a page_fault_stall event. The record's process
// took the fault; its stacks are those of the longest sleep and of the program
// that touched the memory, its registers the program's.
type PageFaultStall struct {
	StallSeconds   float64 `json:"stall_seconds" unit:"seconds" help:"how long the thread slept in this fault"`
	LongestSeconds float64 `json:"longest_seconds" unit:"seconds" help:"the longest of its sleeps, whose stack this is"`
	Sleeps         uint32  `json:"sleeps" help:"how many times it slept"`
	Major          bool    `json:"major" help:"whether the kernel counts the fault as a major one: a page was read, or the fault was tried again after a sleep"`
	IO             bool    `json:"io" help:"whether it slept for I/O"`
	Mapping        string  `json:"mapping" help:"what is at the address: file, anonymous (memory of the process), swap (a page of that which was read back), or unknown"`
	Address        string  `json:"address" help:"address in the process that was touched; empty when the kernel did not tell it, as of faults that are not major"`
	File           string  `json:"file" help:"file that is mapped there, as the process sees it; its name alone when the process was gone"`
	Offset         uint64  `json:"offset" unit:"bytes" help:"offset of the address in the file"`
	Device         string  `json:"device" help:"block device of the file system, when it has one"`
}

var faultStall = signal.EventOf[PageFaultStall]("page_fault_stall", signal.AreaMemory, signal.Warning,
	"A thread slept in a page fault longer than the threshold.").When(
	"A page fault in which a thread slept for `page_fault` (100ms), in one or several sleeps: ten times what a busy disk takes to read a page, and what a request with a deadline does not survive.",
	"The first run of a large program from a cold, slow disk, and whatever reads a mapped file of a network file system. A workload at `memory.high` is made to sleep on its way out of faults.")

// Values of PageFaultStall.Mapping.
const (
	onFile      = "file"
	onAnonymous = "anonymous"
	onSwap      = "swap"
	onUnknown   = "unknown"
)

// What a record lacks.
const (
	lackAddress = "address" // the kernel did not tell it
	lackMapping = "mapping" // the process was gone, or did not give its maps in time
)

// decodeFault is pure. What is mapped at the address is for the placer to tell.
func decodeFault(raw []byte, clock func(uint64) time.Time) (*signal.Record, error) {
	w, err := ring.View[bpfPageFaultStallWire](raw)
	if err != nil {
		return nil, fmt.Errorf("decode page_fault_stall: %w", err)
	}
	b := &PageFaultStall{
		StallSeconds: time.Duration(w.Slept).Seconds(), LongestSeconds: time.Duration(w.Longest).Seconds(),
		Sleeps: w.Sleeps, Major: w.Major != 0, IO: w.Io != 0, Mapping: onUnknown,
	}
	r := &signal.Record{
		Schema: faultStall, Time: clock(w.Ts), Suppressed: w.Suppressed, CgroupID: w.Cgroup,
		Process:   signal.Process{PID: w.Tgid, TID: w.Pid, Comm: probe.CString(w.Comm[:])},
		KernelIPs: probe.Stack(w.Frames, w.Stack[:]), UserIPs: probe.Stack(w.UserFrames, w.User[:]),
		Registers: probe.Registers(w.Regs.Kind, w.Regs.Pc, w.Regs.Sp, w.Regs.Flags, w.Regs.General[:]),
		Body:      b, Lasted: time.Duration(w.Slept),
	}
	if r.UserIPs == nil && r.Registers != nil {
		r.UserIPs = []uint64{w.Regs.Pc} // where it was, if not how it came there
	}
	wait := faults[1:2]
	if b.IO {
		wait = faults[:1]
	}
	r.Measures = []signal.Measure{{Schema: faultWait, Labels: wait, Value: b.LongestSeconds}}
	if w.Known == 0 {
		r.Unresolved = append(r.Unresolved, lackAddress)
	} else {
		b.Address = fmt.Sprintf("%#x", w.Address)
	}
	if name := probe.CString(w.Place.File[:]); name != "" {
		b.Mapping, b.File, b.Offset = onFile, name, w.Place.Offset
	}
	r.Title = b.title(r.Process)
	return r, nil
}

func (b *PageFaultStall) title(p signal.Process) string {
	s := fmt.Sprintf("%s (pid %d) slept %s in a page fault", p.Comm, p.PID, round(b.StallSeconds))
	switch b.Mapping {
	case onFile:
		s += fmt.Sprintf(" on %s at offset %#x", b.File, b.Offset)
	case onAnonymous:
		s += " on anonymous memory"
	case onSwap:
		s += " on memory that had been swapped out"
	}
	return s
}
