package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// dirLock is the claim of one process on a data directory. The kernel drops it
// when the process dies, so a lock is never left behind.
type dirLock struct{ f *os.File }

// inUseError names the process that holds a data directory.
type inUseError struct {
	pid  int
	comm string
}

func (e *inUseError) Error() string {
	if e.pid == 0 {
		return "in use by another process"
	}
	if e.comm == "" {
		return fmt.Sprintf("in use by process %d", e.pid)
	}
	return fmt.Sprintf("in use by process %d (%s)", e.pid, e.comm)
}

func lockDir(dir string) (*dirLock, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o640)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = holder(f)
		}
		return nil, errors.Join(err, f.Close())
	}
	// The pid is for people and for the error above; a disk too full to take
	// it must not keep the agent from starting.
	if f.Truncate(0) == nil {
		_, _ = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	return &dirLock{f}, nil
}

func holder(f *os.File) error {
	var buf [32]byte
	n, _ := f.ReadAt(buf[:], 0)
	pid, _ := strconv.Atoi(strings.TrimSpace(string(buf[:n])))
	comm, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/comm")
	return &inUseError{pid: pid, comm: strings.TrimSpace(string(comm))}
}

// release gives the directory back. The file stays: removing it would let two
// processes lock two files of that name.
func (l *dirLock) release() error { return l.f.Close() }

// dirError says what to do about a data directory that cannot be opened.
func dirError(dir string, err error) error {
	hint := ""
	var used *inUseError
	switch {
	case errors.As(err, &used):
		hint = "; stop it, or give this one its own directory with --data"
	case errors.Is(err, fs.ErrPermission):
		hint = "; run as root, choose a writable directory with --data, or keep nothing with --store none"
	case errors.Is(err, unix.EROFS):
		hint = "; choose a directory on a writable file system with --data, or keep nothing with --store none"
	case errors.Is(err, unix.ENOTDIR), errors.Is(err, fs.ErrExist):
		hint = "; choose a directory with --data"
	case errors.Is(err, unix.ENOSPC), errors.Is(err, ErrDiskFull):
		hint = "; free some space, or choose another directory with --data"
	}
	return fmt.Errorf("open data directory %s: %w%s", dir, err, hint)
}
