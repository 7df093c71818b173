package process

import (
	"fmt"
	"strings"
	"time"
	"unsafe"

	"huatuo/internal/kern/ring"
	"huatuo/internal/probe"
	"huatuo/internal/signal"
)

// ProcessCrash is the body of a process_crash event. The record's user stack
// and registers are those of the moment in which the signal was delivered.
type ProcessCrash struct {
	Signal  string       `json:"signal" help:"signal that ends the process, as SIGSEGV"`
	Code    string       `json:"code" help:"why: what the fault was (SEGV_MAPERR: nothing is mapped there; SEGV_ACCERR: not allowed), or how it was sent (SI_TKILL, SI_USER)"`
	Cause   string       `json:"cause" help:"fault: the process did something that it cannot do; self: it sent the signal to itself, as abort() does; sent: another process did; unknown: sent, and not seen by whom"`
	Address string       `json:"address" help:"address of the fault; empty when the signal carries none"`
	Module  string       `json:"module" help:"file of the code that ran, without its directory; empty when the kernel does not tell (before Linux 5.17)"`
	Offset  uint64       `json:"offset" unit:"bytes" help:"place in that file"`
	Syscall int32        `json:"syscall" help:"number of the system call that seccomp refused, with SIGSYS"`
	Sender  signal.Party `json:"sender" help:"who sent the signal, when cause is sent"`
}

// ProcessExec is the body of a process_exec event. The record's process is the
// one that runs the program, with its command line.
type ProcessExec struct {
	File string `json:"file" help:"program, as it was named to execve"`
	UID  uint32 `json:"uid" help:"user id"`
}

var (
	crashed = signal.EventOf[ProcessCrash]("process_crash", signal.AreaProcess, signal.Critical,
		"A process was ended by a signal that dumps core.").When(
		"A process that ends by a signal whose default action dumps core and for which it has no handler: never what a program wants.",
		"Ends by SIGTERM, SIGKILL or a non-zero status are counted and make none. A build that tests crashes, or a fuzzer, makes many.")
	executed = signal.EventOf[ProcessExec]("process_exec", signal.AreaProcess, signal.Info,
		"A process started to run a program.").When(
		"Each execve while `exec` (false) is on: there is no threshold, for it is a record of what ran.",
		"All of them: a host starts thousands, which is why it is off.")
)

// Causes of a crash.
const (
	byFault  = "fault"
	bySelf   = "self"
	bySent   = "sent"
	byNobody = "unknown"
)

// decode is pure: golden and fuzz tests call it.
func decode(raw []byte, clock func(uint64) time.Time) (*signal.Record, error) {
	kind, err := ring.View[uint32](raw)
	if err != nil {
		return nil, fmt.Errorf("decode process: %w", err)
	}
	switch *kind {
	case 0:
		w, err := ring.View[bpfCrashWire](raw)
		if err != nil {
			return nil, fmt.Errorf("decode process_crash: %w", err)
		}
		return decodeCrash(w, clock), nil
	case 1:
		w, err := ring.View[bpfExecWire](raw)
		if err != nil {
			return nil, fmt.Errorf("decode process_exec: %w", err)
		}
		return decodeExec(w, clock), nil
	}
	return nil, fmt.Errorf("decode process: unknown kind %d", *kind)
}

func decodeCrash(w *bpfCrashWire, clock func(uint64) time.Time) *signal.Record {
	b := &ProcessCrash{
		Signal: signalName(w.Sig), Code: codeName(w.Sig, w.Code), Cause: byFault,
		Module: probe.CString(w.Place.File[:]), Offset: w.Place.Offset,
	}
	switch {
	case w.Code > 0 && w.Sig == sigsys:
		b.Syscall = w.Syscall
	case w.Code > 0 && hasAddress(w.Sig, w.Code):
		b.Address = fmt.Sprintf("%#x", w.Addr)
	case w.Code > 0:
	case w.From.Ts == 0:
		b.Cause = byNobody
	case w.From.Tgid == w.Tgid:
		b.Cause = bySelf
	default:
		b.Cause = bySent
		b.Sender = signal.Party{
			Process:  signal.Process{PID: w.From.Tgid, TID: w.From.Pid, Comm: probe.CString(w.From.Comm[:])},
			CgroupID: w.From.Cgroup,
		}
	}
	r := &signal.Record{
		Schema: crashed, Time: clock(w.Ts), Suppressed: w.Suppressed, CgroupID: w.Cgroup,
		Process: signal.Process{PID: w.Tgid, TID: w.Pid, Comm: probe.CString(w.Comm[:])},
		UserIPs: probe.Stack(w.Frames, w.Stack[:]), Registers: registers(&w.Regs), Body: b,
	}
	if b.Cause == bySent {
		r.Parties = []*signal.Party{&b.Sender}
	}
	r.Title = b.title(r.Process, w.Addr)
	return r
}

// hasAddress tells whether siginfo of a fault has an address. SI_KERNEL, a
// general protection fault on x86, has none.
func hasAddress(sig uint32, code int32) bool { return code != 0x80 && codes[sig] != nil }

// nullPage is how far from 0 an address still comes from a null pointer, as a
// member of what it should point to: vm.mmap_min_addr of most hosts.
const nullPage = 64 << 10

func (b *ProcessCrash) title(p signal.Process, addr uint64) string {
	s := fmt.Sprintf("%s (pid %d) crashed: %s", p.Comm, p.PID, b.Signal)
	switch b.Cause {
	case bySelf:
		s += " that it sent to itself"
	case bySent:
		s += fmt.Sprintf(" from %s (pid %d)", b.Sender.Process.Comm, b.Sender.Process.PID)
	case byFault:
		switch {
		case b.Signal == signals[sigsegv] && b.Address != "" && addr < nullPage:
			s += ", null pointer"
		case b.Address != "":
			s += " at address " + b.Address
		case b.Signal == signals[sigsys]:
			s += fmt.Sprintf(", system call %d is not allowed", b.Syscall)
		}
	}
	if b.Module != "" {
		s += fmt.Sprintf(" in %s+%#x", b.Module, b.Offset)
	}
	return s
}

// registers are what the crash left in them.
func registers(g *bpfHtRegs) map[string]string {
	return probe.Registers(g.Kind, g.Pc, g.Sp, g.Flags, g.General[:])
}

func decodeExec(w *bpfExecWire, clock func(uint64) time.Time) *signal.Record {
	b := &ProcessExec{File: probe.CString(w.File[:]), UID: w.Uid}
	p := signal.Process{
		PID: w.Tgid, TID: w.Pid, Comm: probe.CString(w.Comm[:]), ParentPID: w.Ppid, Parent: probe.CString(w.Parent[:]),
	}
	return &signal.Record{
		Schema: executed, Time: clock(w.Ts), Suppressed: w.Suppressed, CgroupID: w.Cgroup, Process: p, Body: b,
		Args:  arguments(w),
		Title: fmt.Sprintf("%s (pid %d) runs %s", p.Parent, p.PID, b.File),
	}
}

// arguments splits the command line; the last argument may be cut short.
func arguments(w *bpfExecWire) []string {
	n := min(max(int(w.ArgsLen), 0), len(w.Args))
	s := strings.TrimRight(strings.ToValidUTF8(string(w.Args[:n]), "\uFFFD"), "\x00")
	if s == "" {
		return nil
	}
	args := strings.Split(s, "\x00")
	if n == len(w.Args) {
		args[len(args)-1] += "…"
	}
	return args
}

// Held to the kernel's part: an event must fit where it is built without a ring (ht_scratch).
const _ = uint(4096 - unsafe.Sizeof(bpfCrashWire{}))
