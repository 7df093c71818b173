package procfs

import (
	"bytes"
	"errors"
	"strconv"
	"strings"
)

// Stat is the part of /proc/PID/stat that identifies a process.
type Stat struct {
	PID        uint32
	Comm       string // as the kernel has it: at most 15 bytes, 63 for a kernel worker, any byte but NUL
	State      byte   // R, S, D, T, Z, …
	PPID       uint32
	Flags      uint64 // PF_* of include/linux/sched.h
	StartTicks uint64 // since boot, in units of clock.TickHz
}

// pfKthread is PF_KTHREAD, unchanged since it came with 2.6.27.
const pfKthread = 0x00200000

// KernelThread tells whether the process is a thread of the kernel.
func (s *Stat) KernelThread() bool { return s.Flags&pfKthread != 0 }

// Zombie tells whether the process has ended and waits for its parent.
func (s *Stat) Zombie() bool { return s.State == 'Z' || s.State == 'X' }

var errStat = errors.New("not the form of a stat file")

// ParseStat parses the content of /proc/PID/stat. The comm stands in
// parentheses and may itself hold parentheses, blanks and newlines, so it ends
// at the last ')'.
func ParseStat(b []byte) (Stat, error) {
	var st Stat
	open, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 1 || end < open {
		return st, errStat
	}
	pid, err := strconv.ParseUint(string(bytes.TrimSpace(b[:open])), 10, 32)
	if err != nil {
		return st, errStat
	}
	st.PID, st.Comm = uint32(pid), string(b[open+1:end])

	// Fields 3 (state) to 22 (start time) of proc(5).
	const state, ppid, flags, start = 3, 4, 9, 22
	rest := b[end+1:]
	for n := state; n <= start; n++ {
		var f []byte
		f, rest = nextField(rest)
		if len(f) == 0 {
			return Stat{}, errStat
		}
		switch n {
		case state:
			st.State = f[0]
		case ppid:
			var v uint64
			v, err = strconv.ParseUint(string(f), 10, 32)
			st.PPID = uint32(v)
		case flags:
			st.Flags, err = strconv.ParseUint(string(f), 10, 64)
		case start:
			st.StartTicks, err = strconv.ParseUint(string(f), 10, 64)
		}
		if err != nil {
			return Stat{}, errStat
		}
	}
	return st, nil
}

func nextField(b []byte) (field, rest []byte) {
	i := 0
	for i < len(b) && (b[i] == ' ' || b[i] == '\n') {
		i++
	}
	b = b[i:]
	if i = bytes.IndexAny(b, " \n"); i < 0 {
		return b, nil
	}
	return b[:i], b[i:]
}

// Cgroup is a process' place in one hierarchy.
type Cgroup struct {
	Hierarchy   int    // 0 is the default hierarchy, version 2
	Controllers string // v1: "cpu,cpuacct" or "name=systemd"; empty for version 2
	Path        string // below the root of the reader's cgroup namespace: may begin with /..
}

// Cgroups is a process' place in every hierarchy.
type Cgroups []Cgroup

// ParseCgroup parses the content of /proc/PID/cgroup. Lines of another form
// are left out.
func ParseCgroup(b []byte) Cgroups {
	cs := make(Cgroups, 0, bytes.Count(b, []byte{'\n'}))
	for line := range strings.SplitSeq(string(b), "\n") {
		id, rest, ok := strings.Cut(line, ":")
		if !ok {
			continue
		}
		// The path may hold ':', a v1 controller list may not, but a named
		// hierarchy's name may: "1:name=a:b:/x". The path begins with '/'.
		i := strings.Index(rest, ":/")
		n, err := strconv.Atoi(id)
		if i < 0 || err != nil || n < 0 {
			continue
		}
		path := strings.TrimSuffix(rest[i+1:], " (deleted)")
		cs = append(cs, Cgroup{Hierarchy: n, Controllers: rest[:i], Path: path})
	}
	return cs
}

// Path returns the path in the v1 hierarchy of controller, or in the default
// hierarchy when controller is empty; "" when there is no such hierarchy.
func (cs Cgroups) Path(controller string) string {
	for _, c := range cs {
		if controller == "" {
			if c.Hierarchy == 0 {
				return c.Path
			}
			continue
		}
		for name := range strings.SplitSeq(c.Controllers, ",") {
			if name == controller {
				return c.Path
			}
		}
	}
	return ""
}

// ParseNSPid finds the NSpid line of /proc/PID/status.
func ParseNSPid(b []byte) []uint32 {
	// The Name line comes before and escapes newlines, so a line can only
	// begin with "NSpid:" where the kernel says so.
	const key = "\nNSpid:"
	i := bytes.Index(b, []byte(key))
	if i < 0 {
		return nil
	}
	line, _, _ := bytes.Cut(b[i+len(key):], []byte{'\n'})
	var pids []uint32
	for f := range bytes.FieldsSeq(line) {
		pid, err := strconv.ParseUint(string(f), 10, 32)
		if err != nil {
			return nil
		}
		pids = append(pids, uint32(pid))
	}
	return pids
}

// SplitArgs splits the content of /proc/PID/cmdline into arguments. A process
// that wrote its title over them (setproctitle) gives one argument with blanks.
func SplitArgs(b []byte) []string {
	// Titles are padded with NULs to the length of what they replaced.
	b = bytes.TrimRight(b, "\x00")
	if len(b) == 0 {
		return nil
	}
	return strings.Split(string(b), "\x00")
}
