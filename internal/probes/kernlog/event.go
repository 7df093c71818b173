package kernlog

import (
	"fmt"
	"slices"
	"strings"

	"huatuo/internal/signal"
)

// Report is what is in the body of each of the events.
type Report struct {
	What       string      `json:"what" help:"which check of the kernel has reported: warn, kasan, lockdep, oops, page_fault, bug, panic, …"`
	CPU        int         `json:"cpu" help:"CPU that it is about; -1 when the report does not tell"`
	Reason     string      `json:"reason,omitempty" help:"what the kernel says besides"`
	Function   string      `json:"function,omitempty" help:"function of the kernel that was running, or that failed the check"`
	Module     string      `json:"module,omitempty" help:"module of the function"`
	File       string      `json:"file,omitempty" help:"source file of the check"`
	Line       int         `json:"line,omitempty" help:"line in the source file"`
	Workqueue  string      `json:"workqueue,omitempty" help:"workqueue and function of the work item that was running"`
	Taint      []string    `json:"taint,omitempty" help:"what the kernel was tainted by before, as in huatuo_kernel_taint"`
	Release    string      `json:"release,omitempty" help:"release and version of the kernel, as it prints them"`
	Hardware   string      `json:"hardware,omitempty" help:"machine and firmware, as the kernel prints them"`
	Backtraces []Backtrace `json:"backtraces,omitempty" help:"other stacks in the report: of other CPUs, of who allocated and freed the memory"`
	Text       []string    `json:"text" help:"lines of the report, without kernel addresses; at most 200"`
	Cut        int         `json:"cut,omitempty" help:"lines that are left out of the text"`
}

// Backtrace is one of several stacks in a report.
type Backtrace struct {
	Of     string         `json:"of"`            // "CPU 3", "allocated", "freed", …
	PID    uint32         `json:"pid,omitempty"` // thread
	Comm   string         `json:"comm,omitempty"`
	Idle   string         `json:"idle,omitempty"` // why there is no stack
	Frames []signal.Frame `json:"frames,omitempty"`
}

// SoftLockup is the body of a soft_lockup event.
type SoftLockup struct {
	Report
	Stuck float64 `json:"stuck_seconds" unit:"seconds" help:"for how long nothing else could run on the CPU"`
}

// HardLockup is the body of a hard_lockup event.
type HardLockup struct {
	Report
}

// RCUStall is the body of an rcu_stall event.
type RCUStall struct {
	Report
	Flavour  string   `json:"flavour" help:"which RCU: rcu_sched, rcu_preempt, rcu_tasks, …"`
	Detected string   `json:"detected" help:"self: by the CPU that holds it up; other: by another; expedited: of somebody who cannot wait"`
	Waited   float64  `json:"waited_seconds,omitempty" unit:"seconds" help:"age of the grace period that does not end"`
	CPUs     []int    `json:"cpus,omitempty" help:"CPUs that it waits for"`
	Tasks    []uint32 `json:"tasks,omitempty" help:"threads that it waits for, preempted within a critical section"`
	Starved  bool     `json:"starved,omitempty" help:"RCU's own thread did not get to run: the CPUs that it waits for are not at fault"`
}

// WorkqueueLockup is the body of a workqueue_lockup event.
type WorkqueueLockup struct {
	Report
	Stuck float64  `json:"stuck_seconds" unit:"seconds" help:"for how long the pool has not begun a work item"`
	Pools []string `json:"pools" help:"pools of workers that are stuck, as the kernel describes them"`
	// Of all workqueues that have something to do, not of the stuck pools alone.
	Pending []string `json:"pending,omitempty" help:"work that is not begun, as workqueue: function"`
	Running []string `json:"running,omitempty" help:"work that a worker has begun and not ended, likewise"`
}

// KernelWarning is the body of a kernel_warning event.
type KernelWarning struct {
	Report
}

// KernelBug is the body of a kernel_bug event.
type KernelBug struct {
	Report
}

var (
	softLockup = signal.EventOf[SoftLockup]("soft_lockup", signal.AreaCPU, signal.Critical, "A CPU was in the kernel for so long that nothing else could run on it.").When(
		"A report of the kernel's watchdog: twice `kernel.watchdog_thresh`, 20 s unless changed, in which no task was scheduled on a CPU.",
		"None on hardware. In a virtual machine that was stopped or migrated the CPU was absent, not stuck: compare with steal.")
	hardLockup = signal.EventOf[HardLockup]("hard_lockup", signal.AreaCPU, signal.Critical, "A CPU did not even take interrupts for seconds.").When(
		"A report of the kernel's watchdog: `kernel.watchdog_thresh`, 10 s unless changed, without an interrupt.",
		"None.")
	rcuStall = signal.EventOf[RCUStall]("rcu_stall", signal.AreaCPU, signal.Critical, "An RCU grace period does not end: a CPU or a task does not come out of a critical section, and memory is not freed.").When(
		"A report of the kernel: a grace period that does not end within rcupdate.rcu_cpu_stall_timeout, 21 s unless changed.",
		"None on hardware. In a virtual machine that was stopped or migrated the CPU was absent, not stuck: compare with steal.")
	workqueueLockup = signal.EventOf[WorkqueueLockup]("workqueue_lockup", signal.AreaSystem, signal.Critical, "Work that the kernel has deferred is not begun.").When(
		"A report of the kernel: a pool of workers that has made no progress for workqueue.watchdog_thresh, 30 s unless changed.",
		"None on hardware; in a virtual machine as for soft_lockup.")
	kernelWarning = signal.EventOf[KernelWarning]("kernel_warning", signal.AreaSystem, signal.Warning, "A check in the kernel failed and the kernel went on.").When(
		"Any report of a failed check (WARN, lockdep, KCSAN, UBSAN and the like): the authors of the kernel believed that it cannot be.",
		"Drivers that dislike the firmware warn once at boot or when hardware is plugged in. `ignore` takes what is known on this machine.")
	kernelBug = signal.EventOf[KernelBug]("kernel_bug", signal.AreaSystem, signal.Critical, "The kernel crashed in a process or found its memory corrupted.").When(
		"Any oops, BUG, panic, or report of a memory checker (KASAN, KFENCE, slab): what ran is dead, and its locks stay locked.",
		"None.")
)

func events() []*signal.Schema {
	return []*signal.Schema{softLockup, hardLockup, rcuStall, workqueueLockup, kernelWarning, kernelBug}
}

// record makes the event of a report that is complete.
func (r *report) record() *signal.Record {
	main := r.main()
	pid, comm := r.pid, r.comm
	if comm == "" && (pid == 0 || pid == main.pid) {
		pid, comm = main.pid, main.comm
	}
	rec := &signal.Record{Schema: r.is.schema, Severity: r.is.severity, KernelStack: main.stack(), Registers: r.registers()}
	rec.Process = signal.Process{TID: pid, Comm: comm}
	if r.cpu < 0 {
		r.cpu = main.cpu
	}
	b := r.body(main)
	rec.Title = mask(r.title(&b, rec.Process))
	switch r.is.schema {
	case softLockup:
		rec.Body = &SoftLockup{b, r.seconds}
	case hardLockup:
		rec.Body = &HardLockup{b}
	case rcuStall:
		rec.Body = &RCUStall{Report: b, Flavour: r.flavour, Detected: r.detected, Waited: r.seconds, CPUs: r.cpus, Tasks: r.tasks, Starved: r.starved}
	case workqueueLockup:
		rec.Body = &WorkqueueLockup{b, r.seconds, r.pools, r.pending, r.running}
	case kernelWarning:
		rec.Body = &KernelWarning{b}
	default:
		rec.Body = &KernelBug{b}
	}
	return rec
}

func (r *report) body(main *section) Report {
	b := Report{
		What: r.is.what, CPU: r.cpu, Reason: strings.Join(r.reason, "; "), File: r.file, Line: r.line,
		Workqueue: r.workqueue, Taint: decodeTaint(r.taint), Release: r.release, Hardware: r.hardware, Text: r.raw, Cut: r.cut,
	}
	if at := r.culprit(main); at != nil {
		b.Function, b.Module = at.Function, at.Module
	}
	for _, s := range r.sections {
		if s == main || len(s.frames) == 0 && s.idle == "" {
			continue
		}
		b.Backtraces = append(b.Backtraces, Backtrace{Of: s.name(), PID: s.pid, Comm: s.comm, Idle: s.idle, Frames: s.stack()})
	}
	return b
}

// culprit returns the function that the report is about.
func (r *report) culprit(main *section) *signal.Frame {
	switch {
	case r.at != nil:
		return r.at
	case main.at != nil:
		return main.at
	case main.was != nil && r.is.schema != kernelWarning && r.is.schema != kernelBug:
		return main.was
	}
	for _, f := range main.stack() {
		if !isMark(f) && !slices.ContainsFunc(reporting, func(p string) bool { return strings.HasPrefix(f.Function, p) }) {
			return &f
		}
	}
	return nil
}

// reporting are beginnings of functions by which the kernel reports.
var reporting = []string{
	"dump_stack", "dump_backtrace", "show_stack", "__schedule", "schedule", "___might_", "__might_", "kasan_", "__kasan_", "print_", "ubsan_", "__ubsan_",
	"bad_page", "__warn", "warn_slowpath", "panic", "nmi_", "__switch_to",
}

// title says in one sentence what happened.
func (r *report) title(b *Report, p signal.Process) string {
	who := "unknown"
	if p.Comm != "" {
		who = fmt.Sprintf("%s (%d)", p.Comm, p.TID)
	}
	in := ""
	if b.Function != "" {
		in = " in " + b.Function
	}
	switch r.is.schema {
	case softLockup:
		return fmt.Sprintf("CPU %d was stuck in the kernel for %.0f s: %s%s", r.cpu, r.seconds, who, in)
	case hardLockup:
		return fmt.Sprintf("CPU %d was stuck with interrupts off: %s%s", r.cpu, who, in)
	case rcuStall:
		return r.rcuTitle(who, in)
	case workqueueLockup:
		return fmt.Sprintf("workqueue workers were stuck for %.0f s: %s", r.seconds, strings.Join(r.pools, ", "))
	}
	place := in
	if b.File != "" {
		place = fmt.Sprintf(" at %s:%d%s", b.File, b.Line, in)
	}
	title := r.is.title + place
	if len(r.reason) > 0 {
		title += ": " + r.reason[0]
	}
	if len(title) > maxTitle {
		title = strings.ToValidUTF8(title[:maxTitle], "") + "…"
	}
	return title
}

func (r *report) rcuTitle(who, in string) string {
	t := r.flavour + " grace period does not end"
	if r.seconds > 0 {
		t = fmt.Sprintf("%s grace period has not ended for %.0f s", r.flavour, r.seconds)
	}
	switch {
	case r.starved:
		return t + ": its own thread does not get to run"
	case len(r.cpus) > 0 && who != "unknown":
		return fmt.Sprintf("%s: waits for CPU %s, %s%s", t, join(r.cpus), who, in)
	case len(r.cpus) > 0:
		return fmt.Sprintf("%s: waits for CPU %s", t, join(r.cpus))
	case len(r.tasks) > 0:
		return fmt.Sprintf("%s: waits for thread %s", t, join(r.tasks))
	}
	return t
}

func join[T int | uint32](list []T) string {
	var s []string
	for _, v := range list {
		s = append(s, fmt.Sprint(v))
	}
	return strings.Join(s, ", ")
}
