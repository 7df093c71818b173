package cgroup

import (
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Forms of a kernfs file handle; both are 8 bytes that hold the id.
const (
	handleKernfs = 0xfe // FILEID_KERNFS: the 64-bit id, from 5.5: 33c5ac9175195 "kernfs: implement custom exportfs ops and fid type"
	handleIno    = 0x01 // FILEID_INO32_GEN: inode number and generation, the two halves of kn->id before that
)

// ID returns the id of the group whose directory is dir, as BPF programs see it
// in kn->id. On 64-bit machines it is the directory's inode number since Linux
// 5.5 (40430452fd5d4 "kernfs: use 64bit inos if ino_t is 64bit"); before, that
// is the lower half, and the file handle has the whole.
func ID(dir string) (uint64, error) {
	if onCgroupfs(dir) {
		if h, _, err := unix.NameToHandleAt(unix.AT_FDCWD, dir, 0); err == nil && h.Size() == 8 {
			return binary.NativeEndian.Uint64(h.Bytes()), nil
		}
	}
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return 0, fmt.Errorf("read id of cgroup %s: %w", dir, err)
	}
	return st.Ino, nil
}

func onCgroupfs(dir string) bool {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return false
	}
	return st.Type == unix.CGROUP_SUPER_MAGIC || st.Type == unix.CGROUP2_SUPER_MAGIC
}

// handles opens groups by their id, without a walk.
type handles struct {
	fd   int    // of the hierarchy's root; -1 when this cannot be done
	root string // path that the kernel gives for fd
	form int32
}

// openHandles tries whether groups below dir can be opened by id: it needs
// CAP_DAC_READ_SEARCH and a cgroup file system. form is set in any case.
func openHandles(dir string) (*handles, error) {
	h := &handles{fd: -1, form: handleKernfs}
	if !onCgroupfs(dir) {
		return h, fmt.Errorf("open %s by handle: %w", dir, errors.ErrUnsupported)
	}
	fh, _, err := unix.NameToHandleAt(unix.AT_FDCWD, dir, 0)
	if err != nil {
		return h, fmt.Errorf("get handle of %s: %w", dir, err)
	}
	if h.form = fh.Type(); fh.Size() != 8 || (h.form != handleKernfs && h.form != handleIno) {
		return h, fmt.Errorf("get handle of %s: form %#x is not known", dir, h.form)
	}
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return h, fmt.Errorf("open %s: %w", dir, err)
	}
	probe, err := unix.OpenByHandleAt(fd, fh, unix.O_PATH|unix.O_CLOEXEC)
	if err != nil {
		unix.Close(fd)
		return h, fmt.Errorf("open %s by handle: %w", dir, err)
	}
	unix.Close(probe)
	if h.root, err = pathOfFD(fd); err != nil {
		unix.Close(fd)
		return h, err
	}
	h.fd = fd
	return h, nil
}

var errNoGroup = errors.New("no such cgroup")

// path returns the path of the living group with that id; errNoGroup when
// there is none that can be seen from here.
func (h *handles) path(id uint64) (string, error) {
	var b [8]byte
	binary.NativeEndian.PutUint64(b[:], id)
	fd, err := unix.OpenByHandleAt(h.fd, unix.NewFileHandle(h.form, b[:]), unix.O_PATH|unix.O_CLOEXEC)
	if errors.Is(err, unix.ESTALE) || errors.Is(err, unix.ENOENT) {
		return "", errNoGroup
	}
	if err != nil {
		return "", fmt.Errorf("open cgroup %d: %w", id, err)
	}
	defer unix.Close(fd)
	p, err := pathOfFD(fd)
	if err != nil {
		return "", err
	}
	rel, ok := strings.CutPrefix(p, h.root)
	if !ok || strings.HasSuffix(p, " (deleted)") || (rel != "" && rel[0] != '/') {
		return "", errNoGroup // outside of what is mounted here, or just removed
	}
	return filepath.Join("/", rel), nil
}

func (h *handles) close() {
	if h.fd >= 0 {
		unix.Close(h.fd)
		h.fd = -1
	}
}

func pathOfFD(fd int) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlink("/proc/self/fd/"+strconv.Itoa(fd), buf)
	if err != nil {
		return "", fmt.Errorf("read path of file descriptor: %w", err)
	}
	return string(buf[:n]), nil
}
