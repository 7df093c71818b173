package oomkill

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// report is what the kernel log says about one kill.
type report struct {
	constraint string   // as the kernel writes it, without CONSTRAINT_; empty when there is no report
	memcg      string   // path of the cgroup that was out of memory
	killed     bool     // the line that tells the victim's size was there
	comm       string   // of the victim
	anon, file uint64   // bytes of the victim
	shmem, vm  uint64   //
	scoreAdj   int32    //
	lines      []string // the whole report
}

// findReport looks for the report about pid in the lines of the kernel log,
// oldest first. Of several it takes the last: pids are used again. A process that died with
// its group (memory.oom.group) has the report of the one that was chosen.
func findReport(lines []string, pid uint32) report {
	var r report
	end := -1
	for i := len(lines) - 1; i >= 0 && end < 0; i-- {
		if r.killLine(lines[i], pid) {
			end = i
		}
	}
	chosen := -1
	for i := len(lines) - 1; i >= 0; i-- {
		if end >= 0 && i > end {
			continue
		}
		c, of, ok := chosenLine(lines[i])
		if ok && (end >= 0 || of == pid) {
			r.constraint, r.memcg, chosen = c.constraint, c.memcg, i
			break
		}
	}
	if chosen < 0 && end < 0 {
		return report{}
	}
	first, last := chosen, max(end, chosen)
	if first < 0 {
		first = end
	}
	for i := first; i >= 0; i-- {
		if strings.Contains(lines[i], "invoked oom-killer:") {
			first = i
			break
		}
		if _, _, ok := chosenLine(lines[i]); ok && i < chosen {
			break // that is another report
		}
	}
	r.lines = lines[first : last+1]
	return r
}

// chosenLine parses "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=…,oom_memcg=…,task_memcg=…,task=…,pid=…,uid=…".
// Paths and the comm may hold commas and what looks like a key, so keys are
// taken from the side that is safe.
func chosenLine(line string) (r report, pid uint32, ok bool) {
	_, s, ok := strings.Cut(line, "oom-kill:constraint=CONSTRAINT_")
	if !ok {
		return r, 0, false
	}
	r.constraint, s, _ = strings.Cut(s, ",")
	i := strings.LastIndex(s, ",pid=")
	if i < 0 {
		return r, 0, false
	}
	num, _, _ := strings.Cut(s[i+len(",pid="):], ",")
	n, err := strconv.ParseUint(num, 10, 32)
	if err != nil {
		return r, 0, false
	}
	if _, p, ok := strings.Cut(s[:i], ",oom_memcg="); ok {
		if j := strings.LastIndex(p, ",task_memcg="); j >= 0 {
			r.memcg = p[:j]
		}
	}
	return r, uint32(n), true
}

// killLine parses "…: Killed process PID (COMM) total-vm:…kB, anon-rss:…kB, …".
func (r *report) killLine(line string, pid uint32) bool {
	_, s, ok := strings.Cut(line, "Killed process ")
	if !ok {
		return false
	}
	num, s, _ := strings.Cut(s, " ")
	if num != strconv.FormatUint(uint64(pid), 10) {
		return false
	}
	open, shut := strings.IndexByte(s, '('), strings.LastIndexByte(s, ')')
	if open != 0 || shut < 0 {
		return false
	}
	r.comm, r.killed = strings.ToValidUTF8(s[1:shut], "\uFFFD"), true
	for f := range strings.FieldsFuncSeq(s[shut+1:], func(c rune) bool { return c == ' ' || c == ',' }) {
		key, val, _ := strings.Cut(f, ":")
		if key == "oom_score_adj" {
			if n, err := strconv.ParseInt(val, 10, 32); err == nil {
				r.scoreAdj = int32(n)
			}
			continue
		}
		n, err := strconv.ParseUint(strings.TrimSuffix(val, "kB"), 10, 54)
		if err != nil {
			continue
		}
		switch key {
		case "total-vm":
			r.vm = n << 10
		case "anon-rss":
			r.anon = n << 10
		case "file-rss":
			r.file = n << 10
		case "shmem-rss":
			r.shmem = n << 10
		}
	}
	return true
}

// shorten keeps at most limit lines of a report: its head and its end, without
// registers and code, whose bytes say nothing here and may be addresses.
func shorten(lines []string, limit int) []string {
	if limit <= 0 {
		return nil
	}
	var keep []string
	for _, l := range lines {
		if isRegisters(l) {
			continue
		}
		if len(l) > maxLine {
			l = l[:maxLine] + "…"
		}
		keep = append(keep, strings.ToValidUTF8(l, "\uFFFD"))
	}
	if len(keep) <= limit {
		return keep
	}
	tail := limit / 3
	head := max(limit-tail-1, 0)
	out := append([]string(nil), keep[:head]...)
	out = append(out, fmt.Sprintf("[%d lines left out]", len(keep)-head-tail))
	return append(out, keep[len(keep)-tail:]...)
}

// maxLine is more than any line that the kernel writes in such a report.
const maxLine = 256

// isRegisters tells lines of show_regs(): "RIP: …", "RAX: …" of x86, "x29: …" and
// "pc : …" of arm64.
func isRegisters(line string) bool {
	name, _, ok := strings.Cut(strings.TrimSpace(line), ":")
	if name = strings.TrimSpace(name); !ok || strings.Contains(name, " ") {
		return false
	}
	if n, err := strconv.Atoi(strings.TrimPrefix(name, "x")); err == nil && name[0] == 'x' {
		return n <= 30
	}
	return slices.Contains([]string{"RIP", "RSP", "RAX", "RBX", "RCX", "RDX", "RSI", "RDI", "RBP", "R08", "R10", "R13", "Code", "CS", "CR2", "FS",
		"ORIG_RAX", "EFLAGS", "DR0", "DR3", "pc", "lr", "sp", "pstate"}, name)
}

// kmsg reads the kernel log from when it was opened. A nil kmsg is one that
// cannot be read.
type kmsg struct {
	mu    sync.Mutex
	fd    int
	lines []string
}

// keepLines is how much of the log is kept to look for a report in: one report
// is up to 200 lines and one for each process of the host.
const keepLines = 4096

func openLog(root string) (*kmsg, error) {
	fd, err := unix.Open(filepath.Join(root, "dev/kmsg"), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open kernel log: %w", err)
	}
	if _, err := unix.Seek(fd, 0, unix.SEEK_END); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("go to the end of the kernel log: %w", err)
	}
	return &kmsg{fd: fd}, nil
}

func (k *kmsg) close() {
	if k != nil {
		unix.Close(k.fd)
	}
}

// read takes in what was logged since the last call and returns the latest
// lines. The slice is valid until the next call.
func (k *kmsg) read() ([]string, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	buf := make([]byte, 8192) // the kernel refuses to give a record in parts
	for {
		n, err := unix.Read(k.fd, buf)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return k.lines, nil
		case errors.Is(err, unix.EPIPE), errors.Is(err, unix.EINTR):
			continue // what we had not read yet was overwritten
		case err != nil:
			return k.lines, fmt.Errorf("read kernel log: %w", err)
		case n == 0:
			return k.lines, nil
		}
		if len(k.lines) >= keepLines {
			k.lines = append(k.lines[:0:0], k.lines[keepLines/2:]...)
		}
		k.lines = append(k.lines, recordText(buf[:n]))
	}
}

// recordText returns the text of "priority,sequence,time,flags;text\n KEY=value\n…".
func recordText(b []byte) string {
	if i := bytes.IndexByte(b, ';'); i >= 0 {
		b = b[i+1:]
	}
	if i := bytes.IndexByte(b, '\n'); i >= 0 {
		b = b[:i]
	}
	return string(b)
}
