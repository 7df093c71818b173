package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// ErrDiskFull says that the file system has less space than the store leaves free.
var ErrDiskFull = errors.New("disk nearly full")

// space answers whether there is room to write.
type space struct {
	dir string
	min int64

	mu   sync.Mutex
	at   time.Time
	last error
}

func newSpace(dir string, minFree int64) *space { return &space{dir: dir, min: minFree} }

// check returns an error that wraps ErrDiskFull when too little space is free.
// The answer is kept for a fraction of a second: appends may come in bursts.
func (s *space) check() error {
	if s.min < 0 {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Since(s.at) > 200*time.Millisecond {
		s.at, s.last = time.Now(), s.require(s.min)
	}
	return s.last
}

// require is check for so many bytes, also when the check is off.
func (s *space) require(n int64) error {
	var st unix.Statfs_t
	if err := unix.Statfs(s.dir, &st); err != nil {
		return nil // the write itself will tell
	}
	free := int64(st.Bavail) * st.Bsize
	if n = max(n, s.min); free >= n {
		return nil
	}
	return fmt.Errorf("%w: %d MiB free at %s, and %d MiB must be; nothing is kept until there is more",
		ErrDiskFull, free>>20, s.dir, n>>20)
}

// dirSize returns the bytes of all files below dir. Files that vanish
// meanwhile do not count.
func dirSize(dir string) int64 {
	var n int64
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil
		}
		if i, err := d.Info(); err == nil {
			n += i.Size()
		}
		return nil
	})
	return n
}

func fileSize(path string) int64 {
	i, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return i.Size()
}

// newestFile returns the regular file in dir whose name sorts last, as WAL
// segments do by age.
func newestFile(dir string) string {
	es, err := os.ReadDir(dir)
	if err != nil {
		return ""
	}
	for i := len(es) - 1; i >= 0; i-- {
		// The TSDB's segments are numbers; checkpoints and state files are not.
		if c := es[i].Name()[0]; es[i].Type().IsRegular() && c >= '0' && c <= '9' {
			return filepath.Join(dir, es[i].Name())
		}
	}
	return ""
}

// syncFile brings the data of the file to the disk. It must not be given a file
// on which SQLite holds POSIX locks (the database, -shm): closing any
// descriptor of it would drop them.
func syncFile(path string) error {
	if path == "" {
		return nil
	}
	f, err := os.Open(path)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	err = unix.Fdatasync(int(f.Fd()))
	return errors.Join(err, f.Close())
}

// largestFile returns the size of the largest file in dir.
func largestFile(dir string) (n int64) {
	es, _ := os.ReadDir(dir)
	for _, e := range es {
		if i, err := e.Info(); err == nil {
			n = max(n, i.Size())
		}
	}
	return n
}

// full tells whether err is about space on the disk.
func full(err error) bool {
	return errors.Is(err, ErrDiskFull) || errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
}

// environmental tells whether err is about the machine (space, rights, limits)
// and says nothing about the content of our files.
func environmental(err error) bool {
	for _, e := range []error{unix.ENOSPC, unix.EDQUOT, unix.EROFS, unix.EACCES, unix.EPERM, unix.EMFILE, unix.ENFILE,
		unix.ENOMEM, unix.EIO, ErrDiskFull} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
