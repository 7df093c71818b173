package changes

import (
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"huatuo/internal/kern/ring"
	"huatuo/internal/kern/sysfs"
	"huatuo/internal/probe"
	"huatuo/internal/signal"
)

// Sysctl is the body of a sysctl event. The record's process and container are
// the writer's.
type Sysctl struct {
	Name         string `json:"name" help:"of the sysctl, as sysctl(8) writes it: vm.swappiness"`
	Old          string `json:"old" help:"value before; one that is longer than 127 bytes is cut and ends in …, keys are not shown"`
	New          string `json:"new" help:"value that was written, likewise"`
	Effect       string `json:"effect" help:"applied: the value is another one since; unchanged: the kernel has refused it, or it was set back at once; unknown: it is that of a namespace which the agent does not see"`
	Source       string `json:"source" help:"hook: the kernel told of the write; poll: the agent found another value, and does not know who wrote it, nor values in between"`
	UID          uint32 `json:"uid" help:"user who wrote it; 0 also when it is not known who"`
	NetNamespace uint32 `json:"net_namespace" help:"number of the writer's network namespace, for the sysctls below net, which each has for itself; 0 for others"`
}

// KernelModule is the body of a kernel_module event. The record's process is
// the one that loaded or removed it.
type KernelModule struct {
	Module string   `json:"module" help:"name of the module"`
	Action string   `json:"action" help:"loaded or unloaded; a module whose start fails is loaded and then unloaded"`
	Taints []string `json:"taints" help:"what the kernel holds against it: proprietary, out_of_tree, unsigned, forced, staging, livepatch, test"`
	UID    uint32   `json:"uid" help:"user who did it"`
}

// ConfigChange is the body of a config_change event. The record's container is
// the one whose limit it is.
type ConfigChange struct {
	What    string `json:"what" help:"cgroup: a limit of a control group; mount: options of a mount; host: a setting of the kernel below /sys"`
	Setting string `json:"setting" help:"which one: memory.max, options, transparent_hugepage/enabled"`
	Target  string `json:"target" help:"whose: the path of the control group, the mount point; empty for the host"`
	Old     string `json:"old" help:"value before, as the kernel writes it; cut after 256 bytes"`
	New     string `json:"new" help:"value since"`
}

var (
	sysctlWritten = signal.EventOf[Sysctl]("sysctl", signal.AreaSystem, signal.Info,
		"A process wrote another value to a sysctl.").When(
		"Any write below /proc/sys of a value other than the one that is there; at most `burst` (20) at once and `rate` (1) a second on a CPU. Where the kernel does not tell of writes, a value that is another one at a look each 30 s.",
		"Writing the value that is there; net.* in the network namespaces of containers and of single network devices, which runtimes and network plugins set for each container (`namespaces` and `devices` make events of them).")
	moduleChanged = signal.EventOf[KernelModule]("kernel_module", signal.AreaSystem, signal.Info,
		"A kernel module was loaded or removed.").When(
		"Any module that comes or goes: there are few after the start of the host, and a new one may change how everything behaves.",
		"Modules that the kernel asks for by itself, at the first use of a file system, a protocol or a netfilter match.")
	configChanged = signal.EventOf[ConfigChange]("config_change", signal.AreaSystem, signal.Info,
		"A limit of a workload, the options of a mount or a setting of the kernel is another one than before.").When(
		"A value that is not what it was at the last look, each `interval` (10s).",
		"Limits that are set within `settle` (10s) after a control group appeared, which is its making; the same value written again, as systemd does at each reload; mounts that come and go; a mount that becomes read-only (`readonly_remount` tells that).")
)

// The kinds of enum kind.
const (
	sysctlKind = 0
	moduleKind = 1
)

type decoder struct {
	clock func(uint64) time.Time
}

// decode is pure.
func (d *decoder) decode(raw []byte) (*signal.Record, error) {
	if len(raw) < 4 {
		return nil, errors.New("decode a change: too short for its kind")
	}
	switch kind := binary.NativeEndian.Uint32(raw); kind {
	case sysctlKind:
		w, err := ring.View[bpfSysctlWire](raw)
		if err != nil {
			return nil, fmt.Errorf("decode sysctl: %w", err)
		}
		return d.sysctl(w), nil
	case moduleKind:
		w, err := ring.View[bpfModuleWire](raw)
		if err != nil {
			return nil, fmt.Errorf("decode kernel_module: %w", err)
		}
		return d.module(w), nil
	default:
		return nil, fmt.Errorf("decode a change: unknown kind %d", kind)
	}
}

func process(a *bpfActor) signal.Process {
	return signal.Process{PID: a.Tgid, TID: a.Pid, Comm: probe.CString(a.Comm[:]), ParentPID: a.Ppid, Parent: probe.CString(a.Parent[:])}
}

func (d *decoder) sysctl(w *bpfSysctlWire) *signal.Record {
	b := &Sysctl{
		Name: dotted(probe.CString(w.Name[:])), Old: value(w.Old[:], w.OldLen), New: value(w.Value[:], w.ValueLen),
		Effect: unknown, Source: "hook", UID: w.By.Uid,
	}
	if strings.HasPrefix(b.Name, "net.") {
		b.NetNamespace = w.Netns
	}
	b.redact()
	p := process(&w.By)
	return &signal.Record{
		Schema: sysctlWritten, Time: d.clock(w.Ts), Suppressed: w.Suppressed, CgroupID: w.By.Cgroup, Process: p, Body: b,
		Title: fmt.Sprintf("%s (pid %d) wrote %s = %s, was %s", p.Comm, p.PID, b.Name, b.New, b.Old),
	}
}

// value makes text of what the program copied; length tells whether it is whole.
func value(b []byte, length int32) string {
	s := spaced(probe.CString(b))
	if length < 0 && s != "" {
		s += "…"
	}
	return s
}

// spaced is a value in one form: numbers with a blank between them.
func spaced(s string) string { return strings.Join(strings.Fields(s), " ") }

// dotted is a name as sysctl(8) has it, where a dot of a device's name is a slash.
func dotted(path string) string {
	return strings.NewReplacer("/", ".", ".", "/").Replace(path)
}

// secret tells whether the value of a sysctl is a key: net.ipv4.tcp_fastopen_key, net.ipv6.conf.*.stable_secret.
func secret(name string) bool {
	return strings.HasSuffix(name, "_key") || strings.HasSuffix(name, "_secret")
}

func (b *Sysctl) redact() {
	if secret(b.Name) {
		b.Old, b.New = "(not shown)", "(not shown)"
	}
}

// taints are the bits that a module can have: include/linux/panic.h.
var taints = []struct {
	bit  uint
	name string
}{{0, "proprietary"}, {1, "forced"}, {10, "staging"}, {12, "out_of_tree"}, {13, "unsigned"}, {15, "livepatch"}, {18, "test"}}

func (d *decoder) module(w *bpfModuleWire) *signal.Record {
	b := &KernelModule{Module: probe.CString(w.Name[:]), Action: "loaded", Taints: []string{}, UID: w.By.Uid}
	if w.Gone != 0 {
		b.Action = "unloaded"
	}
	for _, t := range taints {
		if w.Taints&(1<<t.bit) != 0 {
			b.Taints = append(b.Taints, t.name)
		}
	}
	p := process(&w.By)
	title := fmt.Sprintf("%s (pid %d) %s kernel module %s", p.Comm, p.PID, b.Action, b.Module)
	if len(b.Taints) > 0 {
		title += " (" + strings.Join(b.Taints, ", ") + ")"
	}
	return &signal.Record{
		Schema: moduleChanged, Time: d.clock(w.Ts), Suppressed: w.Suppressed, CgroupID: w.By.Cgroup, Process: p, Body: b, Title: title,
	}
}

// Effects of a write.
const (
	applied   = "applied"
	unchanged = "unchanged"
	unknown   = "unknown"
)

// effects looks whether a write had one: the kernel tells of it before.
type effects struct {
	dir string
	own uint32 // network namespace of the agent: whose values it reads
}

// A write that has no effect yet is waited for, 2 to 32 ms at a time: the writer
// may have been taken off its CPU meanwhile.
const (
	effectTries = 6
	effectWait  = time.Millisecond
)

func (e *effects) look(r *signal.Record) {
	b, ok := r.Body.(*Sysctl)
	if !ok || strings.HasSuffix(b.Old, "…") || strings.HasSuffix(b.New, "…") || secret(b.Name) || !e.sees(b) {
		return
	}
	file := filepath.Join(e.dir, filepath.Clean("/"+dotted(b.Name)))
	for i := range effectTries {
		if i > 0 {
			time.Sleep(effectWait << i)
		}
		now, ok := sysfs.Text(file)
		if !ok {
			return
		}
		if spaced(now) != b.Old {
			b.Effect = applied
			return
		}
	}
	b.Effect = unchanged
	r.Title += "; it is unchanged"
}

// namespaced are sysctls of IPC, UTS and user namespaces.
var namespaced = []string{"kernel.hostname", "kernel.domainname", "kernel.sem", "kernel.shm", "kernel.msg", "fs.mqueue.", "user.", "kernel.ns_last_pid"}

// sees tells whether the agent reads the value that the writer wrote.
func (e *effects) sees(b *Sysctl) bool {
	if b.NetNamespace != 0 {
		return b.NetNamespace == e.own
	}
	return !slices.ContainsFunc(namespaced, func(of string) bool { return strings.HasPrefix(b.Name, of) })
}
