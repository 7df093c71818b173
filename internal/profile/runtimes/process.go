package runtimes

import (
	"bufio"
	"bytes"
	"debug/buildinfo"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// process is one process: that which had the pid when it was opened, whatever has
// it later. Files of its /proc directory end with it.
type process struct {
	pid uint32
	dir *os.File
}

func openProcess(proc string, pid uint32) (*process, error) {
	dir, err := os.Open(fmt.Sprintf("%s/%d", proc, pid))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errorOf(notFound, "there is no process %d", pid)
	}
	if err != nil {
		return nil, fmt.Errorf("open process %d: %w", pid, err)
	}
	p := &process{pid, dir}
	if err := p.alive(); err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

func (p *process) close() { p.dir.Close() }

// path of a file below the process' directory.
func (p *process) path(file string) string {
	return fmt.Sprintf("/proc/self/fd/%d/%s", p.dir.Fd(), file)
}

// alive tells whether it is a process that runs.
func (p *process) alive() error {
	st, err := p.status()
	switch {
	case err != nil:
		return errorOf(notFound, "there is no process %d", p.pid)
	case st.leader != p.pid:
		return errorOf(notFound, "%d is a thread of process %d", p.pid, st.leader)
	case st.state == "Z", st.state == "X":
		return errorOf(notFound, "process %d has ended", p.pid)
	}
	return nil
}

// status is what is used of /proc/PID/status.
type status struct {
	leader   uint32
	inner    uint32 // pid as the process itself knows it
	uid, gid uint32
	state    string
	caught   uint64 // signals, one bit each
}

func (p *process) status() (status, error) {
	text, err := os.ReadFile(p.path("status"))
	if err != nil {
		return status{}, err
	}
	return parseStatus(text)
}

func parseStatus(text []byte) (st status, err error) {
	number := func(s string) uint32 {
		n, bad := strconv.ParseUint(s, 10, 32)
		if bad != nil && err == nil {
			err = fmt.Errorf("parse status: %w", bad)
		}
		return uint32(n)
	}
	seen := 0
	for line := range strings.Lines(string(text)) {
		name, rest, _ := strings.Cut(line, ":")
		f := strings.Fields(rest)
		if len(f) == 0 {
			continue
		}
		seen++
		switch {
		case name == "State":
			st.state = f[0]
		case name == "Tgid":
			st.leader = number(f[0])
			st.inner = st.leader // before Linux 4.1 there is no NSpid
		case name == "NSpid":
			st.inner = number(f[len(f)-1])
		case name == "Uid" && len(f) > 1:
			st.uid = number(f[1])
		case name == "Gid" && len(f) > 1:
			st.gid = number(f[1])
		case name == "SigCgt":
			n, bad := strconv.ParseUint(f[0], 16, 64)
			if bad != nil {
				return st, fmt.Errorf("parse status: %w", bad)
			}
			st.caught = n
		default:
			seen--
		}
	}
	if err == nil && seen < 5 {
		err = errors.New("parse status: members are missing")
	}
	return st, err
}

// catches tells whether a handler of the process gets a signal.
func (s *status) catches(sig syscall.Signal) bool { return s.caught&(1<<(sig-1)) != 0 }

// name is what the process is called.
func (p *process) name() string {
	if exe, err := os.Readlink(p.path("exe")); err == nil {
		return strings.TrimSuffix(path.Base(exe), " (deleted)")
	}
	comm, err := os.ReadFile(p.path("comm"))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(comm))
}

// goPrograms remembers which files are Go programs, and of which version.
type goPrograms map[[2]uint64]string

// version returns the version of Go that a program was built with, "" when it is
// no Go program.
func (g goPrograms) version(exe string) (string, error) {
	var st unix.Stat_t
	if err := unix.Stat(exe, &st); err != nil {
		return "", &fs.PathError{Op: "stat", Path: "exe", Err: err}
	}
	key := [2]uint64{uint64(st.Dev), st.Ino}
	if v, ok := g[key]; ok {
		return v, nil
	}
	v := ""
	if info, err := buildinfo.ReadFile(exe); err == nil { // else it is none
		v = info.GoVersion
	}
	g[key] = v
	return v, nil
}

const hotSpot = "HotSpot"

// machine tells which Java virtual machine a process has mapped, "" for none.
func (p *process) machine() (string, error) {
	f, err := os.Open(p.path("maps"))
	if err != nil {
		return "", err
	}
	defer f.Close()
	found := ""
	s := bufio.NewScanner(f)
	for s.Scan() {
		_, file, ok := bytes.Cut(s.Bytes(), []byte{'/'})
		if !ok {
			continue
		}
		switch name := path.Base(strings.TrimSuffix(string(file), " (deleted)")); {
		case strings.HasPrefix(name, "libj9vm"): // it has a libjvm.so too
			return "OpenJ9", nil
		case name == "libjvm.so":
			found = hotSpot
		}
	}
	return found, s.Err()
}

// hasThread tells whether a thread of the process has that name.
func (p *process) hasThread(name string) bool {
	tasks, err := os.ReadDir(p.path("task"))
	if err != nil {
		return false
	}
	for _, t := range tasks {
		comm, err := os.ReadFile(p.path("task/" + t.Name() + "/comm"))
		if err == nil && strings.TrimSpace(string(comm)) == name {
			return true
		}
	}
	return false
}
