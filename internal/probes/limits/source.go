package limits

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"

	"huatuo/internal/kern/cgroup"
	"huatuo/internal/kern/load"
	"huatuo/internal/kern/procfs"
	"huatuo/internal/kern/ring"
)

// iterSource has the kernel walk its tasks: a row for each process.
type iterSource struct {
	o    *load.Object
	proc *procSource
	buf  []byte
}

const rowBytes = int(unsafe.Sizeof(bpfProcessRow{}))

// unknown stands for a table of files that is too large to be counted in the kernel.
const unknown = 1<<32 - 1

func (s *iterSource) walk() (all []process, states []uint64, err error) {
	counts := s.o.Map("states")
	if err := counts.Put(uint32(0), &bpfStateCounts{}); err != nil {
		return nil, nil, fmt.Errorf("reset counts of states: %w", err)
	}
	if all, err = s.processes(); err != nil {
		return nil, nil, err
	}
	var n bpfStateCounts
	if err := counts.Lookup(uint32(0), &n); err != nil {
		return nil, nil, fmt.Errorf("read counts of states: %w", err)
	}
	return all, n.Tasks[:], nil
}

func (s *iterSource) processes() ([]process, error) {
	it, err := s.o.Iterate(walkHook)
	if err != nil {
		return nil, err
	}
	defer it.Close()
	if s.buf == nil {
		s.buf = make([]byte, 128*rowBytes)
	}
	var all []process
	fill := 0
	for {
		n, err := it.Read(s.buf[fill:])
		fill += n
		done := 0
		for ; fill-done >= rowBytes; done += rowBytes {
			r, err := ring.View[bpfProcessRow](s.buf[done:])
			if err != nil {
				return nil, fmt.Errorf("decode a process: %w", err)
			}
			all = append(all, process{cgroup: r.Cgroup, tgid: r.Tgid, files: uint64(r.Files), limit: r.Limit, zombie: r.Zombie != 0})
		}
		fill = copy(s.buf, s.buf[done:fill])
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("walk the processes: %w", err)
		}
	}
	for i := range all {
		if all[i].files == unknown {
			all[i].files = s.proc.files(all[i].tgid)
		}
	}
	return all, nil
}

// maxProcesses bounds a walk over /proc to some 100 ms of CPU time.
const maxProcesses = 4000

// procSource reads /proc/PID.
type procSource struct {
	proc   string
	layout *cgroup.Layout
	buf    []byte
}

func (s *procSource) walk() (all []process, states []uint64, err error) {
	d, err := os.Open(s.proc)
	if err != nil {
		return nil, nil, fmt.Errorf("list processes: %w", err)
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, nil, fmt.Errorf("list processes: %w", err)
	}
	for _, name := range names {
		pid, err := strconv.ParseUint(name, 10, 32)
		if err != nil || len(all) == maxProcesses {
			continue
		}
		dir := filepath.Join(s.proc, name)
		b, err := procfs.ReadInto(dir+"/limits", s.buf)
		if err != nil {
			continue // it has ended
		}
		p := process{tgid: uint32(pid), limit: openFilesLimit(b)}
		p.files = s.files(p.tgid)
		if p.files > 0 { // a kernel thread has none
			p.cgroup = s.cgroup(dir)
			all = append(all, p)
		}
	}
	return all, nil, nil
}

// files counts the open files of a process; 0 when it has ended.
func (s *procSource) files(tgid uint32) uint64 {
	dir := filepath.Join(s.proc, strconv.Itoa(int(tgid)), "fd")
	// f1f1f2569901 ("proc: report open files as size in stat() for /proc/pid/fd"), v6.2
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return 0
	}
	if st.Size > 0 {
		return uint64(st.Size)
	}
	d, err := os.Open(dir)
	if err != nil {
		return 0
	}
	defer d.Close()
	var n uint64
	for {
		names, err := d.Readdirnames(1024)
		n += uint64(len(names))
		if err != nil { // io.EOF, or it has ended
			return n
		}
	}
}

// openFilesLimit reads "Max open files            1024                 524288               files".
func openFilesLimit(b []byte) uint64 {
	for line := range bytes.Lines(b) {
		rest, ok := bytes.CutPrefix(line, []byte("Max open files"))
		if !ok {
			continue
		}
		for f := range bytes.FieldsSeq(rest) {
			v, _ := procfs.Uint(f) // "unlimited" is none
			return v
		}
	}
	return 0
}

// cgroup returns the id of the process' group, 0 when it cannot be told.
func (s *procSource) cgroup(dir string) uint64 {
	if s.layout == nil {
		return 0
	}
	b, err := procfs.ReadInto(dir+"/cgroup", s.buf)
	if err != nil {
		return 0
	}
	path := s.layout.ProcPath(procfs.ParseCgroup(b).Path)
	if path == "" {
		return 0
	}
	id, err := cgroup.ID(s.layout.IdentityRoot + path)
	if err != nil {
		return 0
	}
	return id
}
