package exhaust

import (
	"bytes"
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"huatuo/internal/kern/cgroup"
	"huatuo/internal/kern/procfs"
)

const (
	maxUsers = 5
	maxKinds = 5
	// maxLinks bounds the descriptors that are looked at for one event: some 100 ms.
	maxLinks = 20_000
)

// who finds out who uses a resource. It is asked when there is an event, not
// each round.
type who struct {
	proc   string
	fs     *procfs.FS
	layout *cgroup.Layout // nil: none
	index  *cgroup.Index  // nil: none
	sized  bool           // /proc/PID/fd has a size
	buf    []byte
}

func newWho(root string, l *cgroup.Layout, x *cgroup.Index) *who {
	w := &who{proc: filepath.Join(root, "proc"), fs: procfs.New(root), layout: l, index: x}
	var st unix.Stat_t
	w.sized = unix.Stat(w.proc+"/self/fd", &st) == nil && st.Size > 0
	return w
}

// read returns a file of a process until the next call, nil when the process has ended.
func (w *who) read(pid uint32, file string) []byte {
	b, err := procfs.ReadInto(w.path(pid, file), w.buf)
	w.buf = b
	if err != nil {
		return nil
	}
	return b
}

func (w *who) path(pid uint32, file string) string {
	return w.proc + "/" + strconv.Itoa(int(pid)) + "/" + file
}

// most returns the processes with the largest amounts.
func (w *who) most(pids []uint32, amount func(pid uint32) uint64) []*User {
	type one struct {
		pid    uint32
		amount uint64
	}
	var all []one
	for _, pid := range pids[:min(len(pids), maxProcesses)] {
		if n := amount(pid); n > 0 {
			all = append(all, one{pid, n})
		}
	}
	slices.SortFunc(all, func(a, b one) int { return cmp.Or(cmp.Compare(b.amount, a.amount), cmp.Compare(a.pid, b.pid)) })
	var out []*User
	for _, x := range all[:min(len(all), maxUsers)] {
		out = append(out, w.user(x.pid, x.amount))
	}
	return out
}

func (w *who) user(pid uint32, amount uint64) *User {
	u := &User{Amount: amount}
	u.Process.PID, u.CgroupID = pid, w.cgroup(pid)
	if st, err := w.fs.Stat(pid); err == nil {
		u.Process.Comm, u.Process.ParentPID = st.Comm, st.PPID
	}
	return u
}

// cgroup returns the id of the process' group, 0 when it cannot be told.
func (w *who) cgroup(pid uint32) uint64 {
	if w.layout == nil {
		return 0
	}
	cs, err := w.fs.Cgroup(pid)
	if err != nil {
		return 0
	}
	path := w.layout.ProcPath(cs.Path)
	if path == "" {
		return 0
	}
	id, err := cgroup.ID(w.layout.IdentityRoot + path)
	if err != nil {
		return 0
	}
	return id
}

func (w *who) everywhere(amount func(pid uint32) uint64) []*User {
	pids, err := w.fs.Pids()
	if err != nil {
		return nil
	}
	slices.Sort(pids)
	return w.most(pids, amount)
}

func (w *who) byThreads() []*User { return w.everywhere(w.threads) }

func (w *who) bySwap() []*User {
	return w.everywhere(func(pid uint32) uint64 { return w.status(pid, "VmSwap:") << 10 })
}

func (w *who) byFiles() []*User {
	return w.everywhere(func(pid uint32) uint64 {
		n, _ := w.openFiles(pid, 1)
		return n
	})
}

// inGroup looks at the processes of a group and those below it.
func (w *who) inGroup(path, controller string, amount func(pid uint32) uint64) []*User {
	var pids []uint32
	for _, e := range w.index.Live() {
		if e.Path != path && !strings.HasPrefix(e.Path, path+"/") {
			continue
		}
		b, err := os.ReadFile(w.layout.FileIn(controller, e.Path, "cgroup.procs"))
		if err != nil {
			continue
		}
		for _, n := range procfs.Uints(b) {
			pids = append(pids, uint32(n))
		}
	}
	return w.most(pids, amount)
}

// threads counts those of a process: /proc/PID/task has a link for each.
func (w *who) threads(pid uint32) uint64 {
	var st unix.Stat_t
	if unix.Stat(w.path(pid, "task"), &st) != nil || st.Nlink < 2 {
		return 0
	}
	return uint64(st.Nlink) - 2
}

func (w *who) rss(pid uint32) uint64 {
	n := procfs.Uints(w.read(pid, "statm"))
	if len(n) < 2 {
		return 0
	}
	return n[1] * uint64(os.Getpagesize())
}

// status returns the number that follows key in the status of a process.
func (w *who) status(pid uint32, key string) uint64 {
	return parseStatus(w.read(pid, "status"), key)
}

func parseStatus(b []byte, key string) uint64 {
	for line := range bytes.Lines(b) {
		if rest, ok := bytes.CutPrefix(line, []byte(key)); ok {
			if n := procfs.Uints(rest); len(n) > 0 {
				return n[0]
			}
		}
	}
	return 0
}

// links calls f with the number and target of each descriptor of a process until left is used up.
func (w *who) links(pid uint32, left *int, f func(fd, target string)) {
	dir := w.path(pid, "fd")
	d, err := os.Open(dir)
	if err != nil {
		return
	}
	defer d.Close()
	for *left > 0 {
		names, err := d.Readdirnames(1024)
		for _, n := range names {
			if *left--; *left < 0 {
				return
			}
			if target, err := os.Readlink(filepath.Join(dir, n)); err == nil {
				f(n, target)
			}
		}
		if err != nil {
			return
		}
	}
}

// kinds counts what the descriptors of a process are of: a leak is of one kind.
func (w *who) kinds(pid uint32) []FileCount {
	count := map[string]int{}
	left := maxLinks
	w.links(pid, &left, func(_, target string) { count[kindOf(target)]++ })
	all := make([]FileCount, 0, len(count))
	for what, n := range count {
		all = append(all, FileCount{what, n})
	}
	slices.SortFunc(all, func(a, b FileCount) int { return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.What, b.What)) })
	return all[:min(len(all), maxKinds)]
}

// kindOf makes "socket" of "socket:[123]", "eventpoll" of "anon_inode:[eventpoll]", and leaves paths.
func kindOf(target string) string {
	target = strings.ToValidUTF8(target, "\uFFFD")
	if strings.HasPrefix(target, "/") {
		return target
	}
	kind, rest, _ := strings.Cut(target, ":")
	if kind == "anon_inode" {
		return strings.Trim(rest, "[]")
	}
	return kind
}

// smallFile is what does not fill a disk.
const smallFile = 1 << 20

// writers finds the processes with the largest files open for writing on a file
// system, deleted ones among them. It asks no server: statx gives what is known.
func (w *who) writers(device string) []*User {
	pids, err := w.fs.Pids()
	if err != nil {
		return nil
	}
	slices.Sort(pids)
	left := maxLinks
	largest := map[uint32]string{}
	users := w.most(pids, func(pid uint32) (sum uint64) {
		var top uint64
		w.links(pid, &left, func(fd, target string) {
			n := w.blocksOn(device, pid, fd, target)
			if sum += n; n > top {
				top, largest[pid] = n, strings.ToValidUTF8(target, "\uFFFD")
			}
		})
		return sum
	})
	for _, u := range users {
		u.What = largest[u.Process.PID]
	}
	return users
}

// blocksOn returns what a file takes on a device, when it may be written.
func (w *who) blocksOn(device string, pid uint32, fd, target string) uint64 {
	if !strings.HasPrefix(target, "/") || strings.HasPrefix(target, "/dev/") && !strings.HasPrefix(target, "/dev/shm/") {
		return 0
	}
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, w.path(pid, "fd/"+fd), unix.AT_STATX_DONT_SYNC, unix.STATX_TYPE|unix.STATX_BLOCKS, &st)
	if err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG || st.Blocks*512 < smallFile {
		return 0
	}
	if fmt.Sprintf("%d:%d", st.Dev_major, st.Dev_minor) != device {
		return 0
	}
	if !writable(w.read(pid, "fdinfo/"+fd)) {
		return 0
	}
	return st.Blocks * 512
}

// writable reads "flags:	0100001" of fdinfo.
func writable(b []byte) bool {
	for line := range bytes.Lines(b) {
		if rest, ok := bytes.CutPrefix(line, []byte("flags:")); ok {
			flags, err := strconv.ParseUint(string(bytes.TrimSpace(rest)), 8, 64)
			return err == nil && flags&unix.O_ACCMODE != unix.O_RDONLY
		}
	}
	return false
}
