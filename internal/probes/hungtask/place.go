package hungtask

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"huatuo/internal/kern/procfs"
)

// WaitsFor is what a task waits for: the device or file system of the file that
// it uses.
type WaitsFor struct {
	Kind    string `json:"kind"`              // device, server, fuse, frozen, memory
	Device  string `json:"device,omitempty"`  // block device
	Mount   string `json:"mount,omitempty"`   // as the task sees it
	FSType  string `json:"fs_type,omitempty"` //
	Source  string `json:"source,omitempty"`  // of the mount: a device, server:/export
	Path    string `json:"path,omitempty"`    // of the file, as the task sees it
	Syscall string `json:"syscall,omitempty"` // that it is in

	numbers []string // of the device and those below it
	fuse    uint32   // number of the connection
}

// key is the same for tasks that wait for the same thing.
func (w *WaitsFor) key() string {
	if w == nil {
		return ""
	}
	return w.Kind + "|" + w.Device + "|" + w.Mount + "|" + w.Source
}

// Kinds of WaitsFor.
const (
	onDevice = "device"
	onServer = "server"
	onFUSE   = "fuse"
	onFrozen = "frozen"
	onMemory = "memory" // the file system is in memory alone: tmpfs, proc, …
)

// networkFS are the types of file systems whose files a server has.
var networkFS = []string{"nfs", "nfs4", "cifs", "smb3", "ceph", "9p", "afs", "lustre", "gfs2", "ocfs2", "beegfs", "gpfs", "glusterfs"}

// finder finds what a task waits for. It reads /proc and sysfs only and never
// touches a mount; but /proc of a task that hangs may hang, so it runs aside.
type finder struct {
	proc  string
	disks disks
}

func newFinder(root string) *finder {
	return &finder{proc: filepath.Join(root, "proc"), disks: disks{filepath.Join(root, "sys")}}
}

// find returns nil when it cannot be told.
func (f *finder) find(tgid, tid uint32, comm string, functions []string) *WaitsFor {
	if w := f.ofWorker(comm); w != nil {
		return w
	}
	dir := f.proc + "/" + strconv.FormatUint(uint64(tgid), 10)
	thread := dir + "/task/" + strconv.FormatUint(uint64(tid), 10)
	c, args, ok := f.syscall(thread)
	if !ok {
		return nil
	}
	w := &WaitsFor{Syscall: c.name}
	mounts, err := os.ReadFile(dir + "/mountinfo")
	if err != nil {
		return nil
	}
	ms := parseMounts(mounts)
	m, found := f.mount(w, c, args, dir, ms)
	if !found {
		return nil
	}
	w.Mount, w.FSType, w.Source = m.dir, m.fsType, m.source
	f.sort(w, m, functions)
	return w
}

// syscall returns what system call a thread is in, and with what.
func (f *finder) syscall(thread string) (c call, args []uint64, ok bool) {
	b, err := os.ReadFile(thread + "/syscall")
	if err != nil {
		return call{}, nil, false
	}
	s, ok := procfs.ParseSyscall(b)
	if !ok {
		return call{}, nil, false
	}
	c, ok = callOf(s.Number)
	return c, s.Args[:], ok
}

// mount finds the file of a call and the mount that it is on.
func (f *finder) mount(w *WaitsFor, c call, args []uint64, dir string, ms []mount) (mount, bool) {
	fd, path, ok := c.file()
	if !ok {
		return mount{}, false
	}
	if fd >= 0 {
		n := strconv.FormatInt(int64(int32(args[fd])), 10)
		w.Path, _ = os.Readlink(dir + "/fd/" + n)
		return byFD(dir, n, ms)
	}
	w.Path = f.path(dir, c, args, args[path])
	if w.Path == "" {
		return mount{}, false
	}
	return mountOf(ms, w.Path)
}

// byFD returns the mount of an open file; fdinfo has its number.
func byFD(dir, fd string, ms []mount) (mount, bool) {
	b, err := os.ReadFile(dir + "/fdinfo/" + fd)
	if err != nil {
		return mount{}, false
	}
	for line := range bytes.Lines(b) {
		if v, ok := bytes.CutPrefix(line, []byte("mnt_id:")); ok {
			id, ok := procfs.Uint(bytes.TrimSpace(v))
			for _, m := range ms {
				if ok && m.id == int(id) {
					return m, true
				}
			}
		}
	}
	return mount{}, false
}

// atCWD is AT_FDCWD.
const atCWD = -100

// path reads the path that a task gave to its system call, from its memory. An
// empty one is the directory itself (AT_EMPTY_PATH).
func (f *finder) path(dir string, c call, args []uint64, addr uint64) string {
	s := readString(dir+"/mem", addr)
	if strings.HasPrefix(s, "/") {
		return filepath.Clean(s)
	}
	from := dir + "/cwd"
	if c.dir >= 0 && int32(args[c.dir]) != atCWD {
		from = dir + "/fd/" + strconv.FormatInt(int64(int32(args[c.dir])), 10)
	}
	base, err := os.Readlink(from)
	if err != nil {
		return ""
	}
	return filepath.Join(base, s)
}

// readString reads a string of another process that ends within the page after its
// own, "" when it cannot.
func readString(mem string, addr uint64) string {
	file, err := os.Open(mem)
	if err != nil || addr == 0 || addr > 1<<62 {
		return ""
	}
	defer file.Close()
	const page = 4096
	buf := make([]byte, page)
	n, _ := file.ReadAt(buf[:page-addr%page], int64(addr)) // a short read ends at a page that is not there
	if s, _, ok := bytes.Cut(buf[:n], []byte{0}); ok {
		return string(s)
	}
	more, _ := file.ReadAt(buf[n:], int64(addr)+int64(n))
	s, _, ok := bytes.Cut(buf[:n+more], []byte{0})
	if !ok {
		return ""
	}
	return string(s)
}

// sort tells what kind of thing it waits for by the mount's type.
func (f *finder) sort(w *WaitsFor, m mount, functions []string) {
	server := strings.Contains(m.source, ":/") || strings.HasPrefix(m.source, "//")
	switch {
	case strings.HasPrefix(m.fsType, "fuse") && m.fsType != "fuseblk" || m.fsType == "virtiofs":
		w.Kind, w.fuse = onFUSE, m.minor
	case slices.Contains(networkFS, m.fsType) || server && m.major == 0:
		w.Kind = onServer
	default:
		w.Kind = onMemory
		w.Device = f.device(w.Path, m)
		if w.Device != "" {
			w.Kind, w.numbers = onDevice, f.disks.below(w.Device)
		}
		if w.Path == "/dev/"+w.Device { // the device itself: where its name is matters to nobody
			w.Mount, w.FSType, w.Source = "", "", ""
		}
		if isFrozen(functions) {
			w.Kind = onFrozen
		}
		if m.fsType == "fuseblk" {
			w.Kind, w.fuse = onFUSE, m.minor
		}
	}
}

// isFrozen: a writer waits for the file system to be thawed.
func isFrozen(functions []string) bool {
	return slices.Contains(functions, "percpu_rwsem_wait") &&
		!slices.ContainsFunc(functions, func(f string) bool { return strings.HasPrefix(f, "cgroup_") || strings.HasPrefix(f, "cpus_read") })
}

// device is the one that a mount is on, or that is the file itself.
func (f *finder) device(path string, m mount) string {
	if rest, ok := strings.CutPrefix(path, "/dev/"); ok && f.disks.number(filepath.Base(rest)) != "" {
		return filepath.Base(rest)
	}
	if m.major != 0 {
		return f.disks.name(m.major, m.minor)
	}
	// btrfs and overlay have a number of their own; the first names its device.
	if rest, ok := strings.CutPrefix(m.source, "/dev/"); ok {
		if to, err := os.Readlink(m.source); err == nil { // /dev/mapper/x -> ../dm-0
			rest = filepath.Base(to)
		}
		if f.disks.number(rest) != "" {
			return rest
		}
	}
	return ""
}

// ofWorker tells the device of a kernel thread by its name, nil for any other task.
func (f *finder) ofWorker(comm string) *WaitsFor {
	name := ""
	switch {
	case strings.HasPrefix(comm, "jbd2/"): // jbd2/sda1-8
		name = strings.TrimPrefix(comm, "jbd2/")
		name = name[:max(0, strings.LastIndexByte(name, '-'))]
	case strings.HasPrefix(comm, "xfsaild/"):
		name = strings.TrimPrefix(comm, "xfsaild/")
	case strings.HasPrefix(comm, "loop"):
		name = comm
	default:
		_, number, ok := strings.Cut(comm, "flush-") // kworker/u8:3+flush-8:0
		major, minor, _ := strings.Cut(number, ":")
		a, ok1 := procfs.Uint([]byte(major))
		b, ok2 := procfs.Uint([]byte(minor))
		if ok && ok1 && ok2 {
			name = f.disks.name(uint32(a), uint32(b))
		}
	}
	if numbers := f.disks.below(name); len(numbers) > 0 {
		return &WaitsFor{Kind: onDevice, Device: name, numbers: numbers}
	}
	return nil
}
