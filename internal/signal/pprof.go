package signal

import (
	"fmt"
	"strings"
)

// PprofType is what a type of profile is called in pprof files, and where they
// are kept.
type PprofType struct {
	Name                   string // of the profile
	SampleType, SampleUnit string
	PeriodType, PeriodUnit string
}

// Pprof returns what t is called in pprof files. On-CPU time has the name that
// all profilers give it; any other type is named by its first part and measures
// the rest: lock.user is lock:user, which Grafana shows as "lock - user".
func (t *ProfileType) Pprof() PprofType {
	if t.Name == "cpu" {
		return PprofType{"process_cpu", "cpu", t.Unit, "cpu", t.Unit}
	}
	name, sample, ok := strings.Cut(t.Name, ".")
	if !ok {
		sample = name
	}
	return PprofType{name, sample, t.Unit, name, t.Unit}
}

// String returns the id of a type, name:sample type:unit:period type:unit.
func (p PprofType) String() string {
	return strings.Join([]string{p.Name, p.SampleType, p.SampleUnit, p.PeriodType, p.PeriodUnit}, ":")
}

// Service names the workload as profiles are looked for by service_name: the
// container, behind its namespace if that has one, else the systemd unit or the
// cgroup, else, on the host itself, the program.
func (l *ProfileLabels) Service() string {
	switch {
	case l.Container != "" && l.Namespace != "":
		return l.Namespace + "/" + l.Container
	case l.Container != "":
		return l.Container
	case l.Unit != "" && l.Unit != "/":
		return l.Unit
	}
	return l.Process
}

// Title is what a frame is called where there is one line for it: an unknown one
// by its file and where in it, or else by why it is unknown.
func (f *Frame) Title() string {
	switch {
	case f.Missing == "":
		return f.Function
	case f.Offset == 0:
		return "[unknown: " + f.Missing + "]"
	}
	return fmt.Sprintf("%s+0x%x", f.Module[strings.LastIndexByte(f.Module, '/')+1:], f.Offset)
}
