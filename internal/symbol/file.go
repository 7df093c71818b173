package symbol

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// fileKey is the identity of a file's content.
type fileKey struct {
	dev, inode   uint64
	size         int64
	mtime, ctime int64 // nanoseconds
}

func keyOf(s *unix.Stat_t) fileKey {
	return fileKey{s.Dev, s.Ino, s.Size, s.Mtim.Nano(), s.Ctim.Nano()}
}

// open opens the file of a mapping: through the mapping itself, which finds
// deleted files and those of containers; else, where that is not allowed, by
// its path below the root of the process; else, when the process has ended, by
// its path on the host.
func (r *Resolver) open(p *process, m *mapping) (*os.File, fileKey, reason) {
	link := r.path(p.key.pid, fmt.Sprintf("map_files/%x-%x", m.start, m.end))
	f, key, why := openLink(link)
	if why == fileGone && !m.deleted {
		f, key, why = openBelow(r.path(p.key.pid, "root"), m.image.key, false)
	}
	if start, err := r.startTime(p.key.pid); err == nil && start == p.key.start {
		return f, key, why // it was the root, and the mapping, of this process
	}
	if f != nil {
		f.Close()
	}
	if m.deleted {
		return nil, fileKey{}, fileGone
	}
	return openBelow(filepath.Dir(r.proc), m.image.key, true) // the host's root, also where it is mounted elsewhere
}

func openLink(link string) (*os.File, fileKey, reason) {
	var st unix.Stat_t
	if err := unix.Stat(link, &st); err != nil {
		return nil, fileKey{}, fileGone
	}
	return reopen(link, &st)
}

// openBelow opens a path without ever following a link: the paths in maps have
// none, and a link in a container may point out of it. The file must have the
// inode of the maps. Some file systems (btrfs, overlayfs) show another device
// there than in stat, and other inodes with it; unless exact is set, a file of
// another device passes.
func openBelow(root string, k imageKey, exact bool) (*os.File, fileKey, reason) {
	fd, err := walk(root, k.path.Value())
	if err != nil {
		return nil, fileKey{}, fileGone
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, fileKey{}, fileGone
	}
	if (exact && st.Dev != k.dev) || (st.Dev == k.dev && st.Ino != k.inode) {
		return nil, fileKey{}, fileGone
	}
	return reopen(fmt.Sprintf("/proc/self/fd/%d", fd), &st)
}

// walk returns an O_PATH descriptor of a path below root.
func walk(root, path string) (int, error) {
	fd, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	for name := range strings.SplitSeq(filepath.Clean("/"+path), "/") {
		if name == "" {
			continue
		}
		next, err := unix.Openat(fd, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		unix.Close(fd)
		if err != nil {
			return -1, err
		}
		fd = next
	}
	return fd, nil
}

// reopen opens what a link in /proc stands for, if it is a regular file:
// opening a device may do something.
func reopen(link string, want *unix.Stat_t) (*os.File, fileKey, reason) {
	if want.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, fileKey{}, notRegular
	}
	fd, err := unix.Open(link, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, fileKey{}, fileGone
	}
	f := os.NewFile(uintptr(fd), link)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Ino != want.Ino || st.Dev != want.Dev {
		f.Close()
		return nil, fileKey{}, fileGone
	}
	return f, keyOf(&st), named
}
