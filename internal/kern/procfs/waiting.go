package procfs

import (
	"bytes"
	"strconv"
	"strings"
)

// ParseStack takes the functions from /proc/PID/stack, innermost first:
// "[<0>] percpu_rwsem_wait+0x10c/0x130", and for a module "f+0x1/0x2 [nfs]".
func ParseStack(b []byte) []string {
	var out []string
	for line := range bytes.Lines(b) {
		_, f, ok := bytes.Cut(line, []byte("] "))
		if !ok {
			continue
		}
		name, _, _ := bytes.Cut(bytes.TrimSpace(f), []byte{'+'})
		if len(name) > 0 && !bytes.HasPrefix(name, []byte("0x")) {
			out = append(out, strings.ToValidUTF8(string(name), "\uFFFD"))
		}
	}
	return out
}

// Syscall is what /proc/PID/syscall tells of a thread that waits.
type Syscall struct {
	Number int64
	Args   [6]uint64
}

// ParseSyscall parses /proc/PID/syscall, "0 0x3 0x7f… … sp pc". It is not ok for a
// thread that runs, or that waits outside of a system call, as in a page fault.
func ParseSyscall(b []byte) (s Syscall, ok bool) {
	fields := bytes.Fields(b)
	if len(fields) < 1+len(s.Args) {
		return s, false
	}
	n, err := strconv.ParseInt(string(fields[0]), 10, 64)
	if err != nil {
		return s, false
	}
	s.Number = n
	for i := range s.Args {
		digits, hex := bytes.CutPrefix(fields[i+1], []byte("0x"))
		if s.Args[i], err = strconv.ParseUint(string(digits), 16, 64); err != nil || !hex {
			return Syscall{}, false
		}
	}
	return s, true
}
