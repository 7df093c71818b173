package cgroup

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// maxWatches bounds what the kernel keeps for us: about 1 KB for each directory.
// Groups beyond it are found by walking.
const maxWatches = 8192

// watchMask is what is asked of each directory. cgroup v1 can rename a group.
const watchMask = unix.IN_CREATE | unix.IN_DELETE | unix.IN_MOVED_FROM | unix.IN_MOVED_TO |
	unix.IN_ONLYDIR | unix.IN_DONT_FOLLOW

// change is what the kernel told about a group.
type change struct {
	path string
	gone bool
	// lost: the kernel's queue was full, or groups were renamed; only a walk
	// tells what there is.
	lost bool
}

// watcher tells of groups the moment they are made and removed. Control groups
// are made by mkdir, and inotify sees that on every kernel and without
// privileges. Its methods are for one goroutine, read and close apart.
type watcher struct {
	root  string
	fd    int      // of file, whose Fd method would make it blocking
	file  *os.File // for reads that close can end
	paths map[int]string
	wds   map[string]int
	full  bool
	told  bool   // of full: once in a life is enough
	buf   []byte // for lists of directories
}

func newWatcher(root string) (*watcher, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("watch cgroups: %w", err)
	}
	return &watcher{root: root, fd: fd, file: os.NewFile(uintptr(fd), "inotify"), paths: map[int]string{}, wds: map[string]int{}, buf: make([]byte, 32<<10)}, nil
}

// close ends read, and gives the watches back.
func (w *watcher) close() { w.file.Close() }

// add watches the group at p, unless it is watched.
func (w *watcher) add(p string) error {
	if _, ok := w.wds[p]; ok || w.full {
		return nil
	}
	if len(w.wds) >= maxWatches {
		return w.isFull(fmt.Errorf("watch cgroup %s: more than %d groups", p, maxWatches))
	}
	wd, err := unix.InotifyAddWatch(w.fd, w.root+p, watchMask)
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil // removed meanwhile
	case errors.Is(err, unix.ENOSPC):
		return w.isFull(fmt.Errorf("watch cgroup %s: fs.inotify.max_user_watches is used up", p))
	case err != nil:
		return fmt.Errorf("watch cgroup %s: %w", p, err)
	}
	w.paths[wd], w.wds[p] = p, wd
	return nil
}

// isFull notes that there can be no more watches for now, and gives err once.
func (w *watcher) isFull(err error) error {
	w.full = true
	if w.told {
		return nil
	}
	w.told = true
	return err
}

// remove gives the watch of a group back that has gone. The kernel does not do
// it: kernfs keeps the link count of a removed directory, and the watch keeps
// its inode.
func (w *watcher) remove(p string) {
	if wd, ok := w.wds[p]; ok {
		_, _ = unix.InotifyRmWatch(w.fd, uint32(wd)) // fails on file systems that did
		w.drop(wd)
	}
}

// drop forgets the group that wd stands for.
func (w *watcher) drop(wd int) {
	if p, ok := w.paths[wd]; ok {
		delete(w.paths, wd)
		delete(w.wds, p)
		w.full = false
	}
}

// reset gives every watch back: after a rename their paths are not true.
func (w *watcher) reset() {
	for wd := range w.paths {
		_, _ = unix.InotifyRmWatch(w.fd, uint32(wd)) // fails when the group is gone
	}
	clear(w.paths)
	clear(w.wds)
	w.full = false
}

// read hands raw events to out until close or a failure. A slice belongs to
// who gets it.
func (w *watcher) read(out chan<- []byte, done <-chan struct{}) error {
	buf := make([]byte, 64<<10)
	for {
		n, err := w.file.Read(buf)
		if errors.Is(err, os.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read cgroup changes: %w", err)
		}
		select {
		case out <- append([]byte(nil), buf[:n]...):
		case <-done:
			return nil
		}
	}
}

// decode turns raw events into changes, keeping the watches in step.
func (w *watcher) decode(b []byte) []change {
	const header = unix.SizeofInotifyEvent
	var cs []change
	for len(b) >= header {
		wd := int(int32(binary.NativeEndian.Uint32(b)))
		mask := binary.NativeEndian.Uint32(b[4:])
		size := header + int(binary.NativeEndian.Uint32(b[12:]))
		if size > len(b) {
			break
		}
		name, _, _ := strings.Cut(string(b[header:size]), "\x00")
		b = b[size:]
		parent, known := w.paths[wd]
		switch {
		case mask&unix.IN_Q_OVERFLOW != 0:
			cs = append(cs, change{lost: true})
		case mask&unix.IN_IGNORED != 0:
			w.drop(wd)
		case mask&unix.IN_ISDIR == 0 || !known:
		case mask&(unix.IN_MOVED_FROM|unix.IN_MOVED_TO) != 0:
			cs = append(cs, change{lost: true})
		case mask&(unix.IN_CREATE|unix.IN_DELETE) != 0:
			cs = append(cs, change{path: path.Join(parent, name), gone: mask&unix.IN_DELETE != 0})
		}
	}
	return cs
}
