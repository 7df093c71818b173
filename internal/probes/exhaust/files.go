package exhaust

import (
	"bytes"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"huatuo/internal/kern/procfs"
	"huatuo/internal/signal"
)

const (
	// maxProcesses bounds a walk to some 20 ms. Where there are more, each round goes on where the last one ended.
	maxProcesses = 4000
	// smallest is the least limit that is watched: a sandbox has a few files and may have no more.
	smallest = 64
)

// processes reads how near each process is to its own limit of open files.
type processes struct {
	proc string
	fs   *procfs.FS
	who  *who
	buf  []byte
	next uint32 // place in the list where the next round begins
}

func (p *processes) read() ([]reading, error) {
	pids, err := p.fs.Pids()
	if err != nil {
		return nil, err
	}
	var rs []reading
	for _, pid := range p.portion(pids) {
		if r, ok := p.one(pid); ok {
			rs = append(rs, r)
		}
	}
	return rs, nil
}

// portion is what one round looks at.
func (p *processes) portion(pids []uint32) []uint32 {
	if len(pids) <= maxProcesses {
		return pids
	}
	from := int(p.next) % len(pids)
	p.next = uint32((from + maxProcesses) % len(pids))
	if end := from + maxProcesses; end <= len(pids) {
		return pids[from:end]
	}
	return append(pids[from:len(pids):len(pids)], pids[:p.next]...)
}

// one tells whether a process uses enough of its limit to be worth a reading.
func (p *processes) one(pid uint32) (reading, bool) {
	limit := p.limit(pid)
	if limit < smallest || limit >= endless {
		return reading{}, false
	}
	used, ok := p.who.openFiles(pid, uint64(watchRatio*float64(limit)))
	// More than the limit: the process has lowered it to what it has.
	if !ok || used > limit || float64(used) < watchRatio*float64(limit) {
		return reading{}, false
	}
	st, err := p.fs.Stat(pid)
	if err != nil || st.Zombie() {
		return reading{}, false
	}
	return reading{
		resource: processFiles, key: fmt.Sprintf("%d %d", pid, st.StartTicks), instance: fmt.Sprintf("%s (pid %d)", st.Comm, pid),
		name: fmt.Sprintf("Open files of %s (pid %d)", st.Comm, pid), used: used, limit: limit,
		process: signal.Process{PID: pid, Comm: st.Comm}, cgroup: p.who.cgroup(pid),
		files: func() []FileCount { return p.who.kinds(pid) },
	}, true
}

// limit returns RLIMIT_NOFILE of a process, 0 when it cannot be told.
func (p *processes) limit(pid uint32) uint64 {
	var l unix.Rlimit
	// Needs no file, but CAP_SYS_RESOURCE for the processes of others. Under another root the numbers are not ours.
	if p.proc == "/proc" && unix.Prlimit(int(pid), unix.RLIMIT_NOFILE, nil, &l) == nil {
		return l.Cur
	}
	b, err := procfs.ReadInto(p.proc+"/"+strconv.Itoa(int(pid))+"/limits", p.buf)
	if err != nil {
		return 0
	}
	p.buf = b
	return parseLimit(b)
}

// parseLimit reads "Max open files            1024                 524288               files".
func parseLimit(b []byte) uint64 {
	for line := range bytes.Lines(b) {
		if rest, ok := bytes.CutPrefix(line, []byte("Max open files")); ok {
			if n := procfs.Uints(rest); len(n) > 0 { // "unlimited" is none
				return n[0]
			}
		}
	}
	return 0
}

// openFiles counts the open files of a process. Kernels before 6.2 have them
// listed, unless there cannot be atLeast so many.
func (w *who) openFiles(pid uint32, atLeast uint64) (uint64, bool) {
	dir := w.path(pid, "fd")
	// f1f1f2569901 ("proc: report open files as size in stat() for /proc/pid/fd"), v6.2
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return 0, false
	}
	if st.Size > 0 || w.sized {
		return uint64(st.Size), st.Size > 0 // a kernel thread has none
	}
	if w.status(pid, "FDSize:") < max(atLeast, 1) {
		return 0, false
	}
	d, err := os.Open(dir)
	if err != nil {
		return 0, false
	}
	defer d.Close()
	var n uint64
	for {
		names, err := d.Readdirnames(1024)
		n += uint64(len(names))
		if err != nil { // io.EOF, or it has ended
			return n, n > 0
		}
	}
}
