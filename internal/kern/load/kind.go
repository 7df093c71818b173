package load

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
)

// kind is an exact (program type, attach type): what one kernel accepts of a
// program type says nothing about its other attach types. Linux 6.18 with
// lockdown, for one, takes tp_btf and refuses fentry, both BPF_PROG_TYPE_TRACING.
type kind struct {
	typ    ebpf.ProgramType
	attach ebpf.AttachType
}

// Names of the kinds, as section prefixes have them.
const (
	TPBTF      = "tp_btf"
	RawTP      = "raw_tp"
	Tracepoint = "tracepoint"
	Fentry     = "fentry"
	Fexit      = "fexit"
	Kprobe     = "kprobe"
	PerfEvent  = "perf_event"
	Iter       = "iter"
	// Sysctl sees accesses to /proc/sys by the processes of the cgroup, of the
	// default hierarchy, whose directory is the AttachTo of the program's spec.
	Sysctl = "cgroup_sysctl"
)

// Kinds lists the kinds of hook, cheapest first among those that see the same.
func Kinds() []string {
	return []string{TPBTF, RawTP, Tracepoint, Fentry, Fexit, Kprobe, PerfEvent, Iter, Sysctl}
}

func (k kind) String() string {
	switch k.typ {
	case ebpf.RawTracepoint:
		return RawTP
	case ebpf.TracePoint:
		return Tracepoint
	case ebpf.Kprobe:
		return Kprobe
	case ebpf.PerfEvent:
		return PerfEvent
	case ebpf.CGroupSysctl:
		return Sysctl
	case ebpf.Tracing:
		switch k.attach {
		case ebpf.AttachTraceRawTp:
			return TPBTF
		case ebpf.AttachTraceFEntry:
			return Fentry
		case ebpf.AttachTraceFExit:
			return Fexit
		case ebpf.AttachTraceIter:
			return Iter
		}
	}
	return fmt.Sprintf("%v/%v", k.typ, k.attach)
}

func kindOf(p *ebpf.ProgramSpec) kind { return kind{p.Type, p.AttachType} }

// probeTargets are functions and tracepoints that every kernel has, to try a
// kind on. The function is one that is seldom called and that returns: fexit
// is refused on others since cfe816d469dc ("bpf: Reject attaching fexit/fmod_ret
// to __noreturn functions"), v6.16 and its stable series.
var probeTargets = map[string]string{TPBTF: "sched_switch", Fentry: "__set_task_comm", Fexit: "__set_task_comm", Iter: "task"}

// supports tells whether the kernel takes programs of this kind, by loading
// the smallest one; the answer is kept when it is conclusive.
func (k *Kernel) supports(x kind) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err, ok := k.kinds[x]; ok {
		return err
	}
	err := k.tryKind(x)
	k.kinds[x] = err
	return err
}

func (k *Kernel) tryKind(x kind) error {
	if len(k.opts.Kinds) > 0 && !contains(k.opts.Kinds, x.String()) {
		return fmt.Errorf("%s: excluded by configuration (kernel.hooks)", x)
	}
	if x.String() == Kprobe && !haveKprobes() {
		return fmt.Errorf("%s: this kernel has no kprobes (CONFIG_KPROBE_EVENTS)", x)
	}
	spec := &ebpf.ProgramSpec{
		Type: x.typ, AttachType: x.attach, AttachTo: probeTargets[x.String()], License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	}
	p, err := ebpf.NewProgramWithOptions(spec, ebpf.ProgramOptions{LogDisabled: true})
	switch {
	case err == nil:
		defer p.Close()
		return tryAttach(x, p)
	case errors.Is(err, btf.ErrNotFound), errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("%s: this kernel has no BTF", x)
	default:
		return fmt.Errorf("%s: refused by this kernel: %s", x, firstLine(err))
	}
}

// tryAttach ties the program to its target for a moment where a kernel takes
// the one and refuses the other: arm64 loads fentry since v5.8 and attaches it
// since 59fea8ecdf9e ("arm64: ftrace: Add direct call support"), v6.4.
func tryAttach(x kind, p *ebpf.Program) error {
	if n := x.String(); n != Fentry && n != Fexit {
		return nil
	}
	l, err := link.AttachTracing(link.TracingOptions{Program: p})
	if err != nil {
		return fmt.Errorf("%s: this kernel cannot attach it: %s", x, firstLine(err))
	}
	return l.Close()
}

// haveKprobes: programs load without CONFIG_KPROBE_EVENTS but cannot be
// attached, so the perf PMU and tracefs are asked instead.
func haveKprobes() bool {
	for _, p := range []string{"/sys/bus/event_source/devices/kprobe", "/sys/kernel/tracing/kprobe_events", "/sys/kernel/debug/tracing/kprobe_events"} {
		if _, err := os.Stat(p); err == nil {
			return true
		}
	}
	return false
}

// attach ties a loaded program to what its spec names.
func attach(spec *ebpf.ProgramSpec, p *ebpf.Program) (link.Link, error) {
	switch kindOf(spec).String() {
	case TPBTF, Fentry, Fexit:
		return link.AttachTracing(link.TracingOptions{Program: p})
	case RawTP:
		return link.AttachRawTracepoint(link.RawTracepointOptions{Name: spec.AttachTo, Program: p})
	case Tracepoint:
		group, name, ok := strings.Cut(spec.AttachTo, "/")
		if !ok {
			return nil, fmt.Errorf("BUG: section %s names no tracepoint group", spec.SectionName)
		}
		return link.Tracepoint(group, name, p, nil)
	case Kprobe:
		if strings.HasPrefix(spec.SectionName, "kretprobe/") {
			return link.Kretprobe(spec.AttachTo, p, nil)
		}
		return link.Kprobe(spec.AttachTo, p, nil)
	case Iter:
		return link.AttachIter(link.IterOptions{Program: p})
	case Sysctl:
		return link.AttachCgroup(link.CgroupOptions{Path: spec.AttachTo, Attach: spec.AttachType, Program: p})
	case PerfEvent:
		return attachSoftware(strings.TrimPrefix(spec.SectionName, PerfEvent+"/"), p)
	default:
		return nil, fmt.Errorf("BUG: no way to attach %s", spec.SectionName)
	}
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}

func firstLine(err error) string {
	s, _, _ := strings.Cut(err.Error(), "\n")
	return s
}
