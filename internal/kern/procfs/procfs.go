// Package procfs reads what the agent needs to know of single processes from
// /proc/PID, with few allocations and under a root prefix.
//
// A process may vanish between any two reads: that is an error wrapping
// fs.ErrNotExist, never a half-filled answer. Stat, Cgroup, NSPid and Exe do not
// wait for the process. Cmdline does: the kernel takes the mmap_lock of the
// process, so it hangs as long as somebody else holds that lock, a page fault on
// a dead NFS server for one. Read it where waiting hurts nobody.
package procfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// FS reads the proc file system below one root.
type FS struct {
	dir string
	buf *sync.Pool // *[]byte of bufSize
}

// bufSize holds a whole stat, status or cgroup file: 14 v1 hierarchies with
// container paths of 200 bytes are 3 KiB.
const bufSize = 8 << 10

// New returns the FS of the host whose root is seen at root: "/" in production.
func New(root string) *FS {
	return &FS{
		dir: filepath.Join(root, "proc"),
		buf: &sync.Pool{New: func() any { b := make([]byte, bufSize); return &b }},
	}
}

// Pids lists the processes (thread groups), in no order.
func (f *FS) Pids() ([]uint32, error) {
	d, err := os.Open(f.dir)
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	pids := make([]uint32, 0, len(names))
	for _, n := range names {
		if pid, err := strconv.ParseUint(n, 10, 32); err == nil {
			pids = append(pids, uint32(pid))
		}
	}
	return pids, nil
}

// Stat reads /proc/PID/stat.
func (f *FS) Stat(pid uint32) (Stat, error) {
	buf := f.buf.Get().(*[]byte)
	defer f.buf.Put(buf)
	b, err := f.read(pid, "stat", *buf)
	if err != nil {
		return Stat{}, err
	}
	st, err := ParseStat(b)
	if err != nil {
		return Stat{}, fmt.Errorf("parse stat of process %d: %w", pid, err)
	}
	return st, nil
}

// Cgroup reads /proc/PID/cgroup.
func (f *FS) Cgroup(pid uint32) (Cgroups, error) {
	buf := f.buf.Get().(*[]byte)
	defer f.buf.Put(buf)
	b, err := f.read(pid, "cgroup", *buf)
	if err != nil {
		return nil, err
	}
	return ParseCgroup(b), nil
}

// NSPid reads the ids of process pid in its pid namespaces, outermost first,
// from /proc/PID/status. Kernels before 4.1 do not tell; the answer is then empty.
func (f *FS) NSPid(pid uint32) ([]uint32, error) {
	buf := f.buf.Get().(*[]byte)
	defer f.buf.Put(buf)
	b, err := f.read(pid, "status", *buf)
	if err != nil {
		return nil, err
	}
	return ParseNSPid(b), nil
}

// Exe reads the link /proc/PID/exe: the path of the program as the process
// itself sees it. A kernel thread and a zombie have none: fs.ErrNotExist.
func (f *FS) Exe(pid uint32) (string, error) {
	buf := f.buf.Get().(*[]byte)
	defer f.buf.Put(buf)
	n, err := unix.Readlink(f.path(pid, "exe"), *buf)
	if err != nil {
		return "", gone(pid, "exe", err)
	}
	return string((*buf)[:n]), nil
}

// Cmdline reads at most limit bytes of /proc/PID/cmdline and splits them into
// arguments. It can hang: see the package's comment. A kernel thread and a zombie
// have none: nil, nil.
func (f *FS) Cmdline(pid uint32, limit int) ([]string, error) {
	// Not from the pool: the call may never return.
	b, err := f.read(pid, "cmdline", make([]byte, limit))
	if err != nil {
		return nil, err
	}
	return SplitArgs(b), nil
}

func (f *FS) path(pid uint32, file string) string {
	b := make([]byte, 0, 64)
	b = append(b, f.dir...)
	b = append(b, '/')
	b = strconv.AppendUint(b, uint64(pid), 10)
	b = append(b, '/')
	b = append(b, file...)
	return string(b)
}

// read fills buf from the file and returns the part that it filled. What does
// not fit is left out. Plain system calls, because os.Open registers each file
// with the poller, which for four bytes of proc costs more than the read.
func (f *FS) read(pid uint32, file string, buf []byte) ([]byte, error) {
	fd, err := retry(func() (int, error) {
		return unix.Open(f.path(pid, file), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return nil, gone(pid, file, err)
	}
	defer unix.Close(fd)
	n := 0
	for n < len(buf) {
		m, err := retry(func() (int, error) { return unix.Read(fd, buf[n:]) })
		if err != nil {
			return nil, gone(pid, file, err)
		}
		if m <= 0 {
			break
		}
		n += m
	}
	return buf[:n], nil
}

func retry(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// gone wraps err; ESRCH, which a read gives when the process ended after the
// open, becomes fs.ErrNotExist like the ENOENT of the open.
func gone(pid uint32, file string, err error) error {
	if errors.Is(err, unix.ESRCH) {
		err = fs.ErrNotExist
	}
	return fmt.Errorf("read %s of process %d: %w", file, pid, err)
}
