package cgroup

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// found is one group that a walk met.
type found struct {
	id   uint64
	path string
}

// walker lists all groups of a hierarchy. A directory of cgroupfs has some
// forty files, and entries carry the inode number, so it reads each directory
// that has children once and asks about no file.
type walker struct {
	root string
	// wide: an id has more bits than the inode number (before 5.5).
	wide  bool
	max   int
	buf   []byte
	out   []found
	whole bool // nothing was left out
}

// walk returns the groups, and whether these are all.
func walk(root string, wide bool, limit int) ([]found, bool, error) {
	w := &walker{root: root, wide: wide, max: limit, buf: make([]byte, 32<<10), whole: true}
	id, err := ID(root)
	if err != nil {
		return nil, false, err
	}
	w.out = append(w.out, found{id, "/"})
	// out is the queue as well: breadth first, so that a cap cuts the
	// deepest groups.
	for i := 0; i < len(w.out); i++ {
		if err := w.children(w.out[i].path); err != nil {
			if i == 0 {
				return nil, false, err
			}
			// Removed meanwhile, or not readable: then its children are not
			// known to be gone.
			if !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENODEV) {
				w.whole = false
			}
		}
	}
	return w.out, w.whole, nil
}

func (w *walker) children(path string) error {
	dir := w.root + path
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return fmt.Errorf("read cgroup %s: %w", path, err)
	}
	// kernfs counts children in nlink. Other values than 2 prove nothing:
	// file systems that do not count give 1.
	if st.Nlink == 2 {
		return nil
	}
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open cgroup %s: %w", path, err)
	}
	defer unix.Close(fd)
	for {
		n, err := unix.Getdents(fd, w.buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("list cgroup %s: %w", path, err)
		}
		if n <= 0 {
			return nil
		}
		w.entries(path, w.buf[:n])
	}
}

// entries takes the directories out of a buffer of struct linux_dirent64.
func (w *walker) entries(parent string, b []byte) {
	const header = 19 // u64 ino, s64 off, u16 reclen, u8 type
	for len(b) > header {
		ino := binary.NativeEndian.Uint64(b)
		size := int(binary.NativeEndian.Uint16(b[16:]))
		if size <= header || size > len(b) {
			return
		}
		name, kind := b[header:size], b[18]
		b = b[size:]
		if i := bytes.IndexByte(name, 0); i >= 0 {
			name = name[:i]
		}
		if kind != unix.DT_DIR || string(name) == "." || string(name) == ".." {
			continue
		}
		if len(w.out) >= w.max {
			w.whole = false
			return
		}
		path := parent + "/" + string(name)
		if parent == "/" {
			path = parent + string(name)
		}
		if w.wide {
			id, err := ID(w.root + path)
			if err != nil {
				continue // removed meanwhile
			}
			ino = id
		}
		w.out = append(w.out, found{ino, path})
	}
}
