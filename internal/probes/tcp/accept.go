package tcp

import (
	"cmp"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"huatuo/internal/kern/procfs"
	"huatuo/internal/signal"
)

// Activity is what some threads of a process do.
type Activity struct {
	State   string `json:"state"`
	Syscall string `json:"syscall,omitempty"`
	Wait    string `json:"wait,omitempty"`
	Threads int    `json:"threads"`
}

const (
	maxThreads = 256 // looked at in the owner: 20 µs each
	maxSharers = 8
	maxSearch  = 200 * time.Millisecond // for who has the socket open
	// maxLook is how long an event waits for /proc of the process, which may
	// hang while that executes another program.
	maxLook = 500 * time.Millisecond
)

// thread is one that may be the one that should accept.
type thread struct {
	tid uint32
	Activity
	rank int // how likely it is the one
}

// Ranks of a thread by what it does.
const (
	rankOther = iota
	rankFirst
	rankEvents
	rankAccept
)

// call is a system call, and how likely who waits in it is to accept.
type call struct {
	name string
	rank int
}

// waits are the system calls in which servers wait, by number.
func waits() map[int64]call {
	m := map[int64]call{
		unix.SYS_ACCEPT: {"accept", rankAccept}, unix.SYS_ACCEPT4: {"accept4", rankAccept},
		unix.SYS_EPOLL_PWAIT: {"epoll_pwait", rankEvents}, unix.SYS_EPOLL_PWAIT2: {"epoll_pwait2", rankEvents}, unix.SYS_PPOLL: {"ppoll", rankEvents},
		unix.SYS_PSELECT6: {"pselect6", rankEvents}, unix.SYS_IO_URING_ENTER: {"io_uring_enter", rankEvents},
	}
	for n, name := range map[int64]string{
		unix.SYS_FUTEX: "futex", unix.SYS_NANOSLEEP: "nanosleep", unix.SYS_CLOCK_NANOSLEEP: "clock_nanosleep", unix.SYS_READ: "read", unix.SYS_WRITE: "write",
		unix.SYS_RECVFROM: "recvfrom", unix.SYS_RECVMSG: "recvmsg", unix.SYS_SENDTO: "sendto", unix.SYS_SENDMSG: "sendmsg", unix.SYS_CONNECT: "connect",
		unix.SYS_WAIT4: "wait4", unix.SYS_WAITID: "waitid", unix.SYS_FSYNC: "fsync", unix.SYS_FDATASYNC: "fdatasync", unix.SYS_OPENAT: "openat",
		unix.SYS_FLOCK: "flock", unix.SYS_RT_SIGTIMEDWAIT: "rt_sigtimedwait", unix.SYS_RT_SIGSUSPEND: "rt_sigsuspend", unix.SYS_IOCTL: "ioctl",
		unix.SYS_READV: "readv", unix.SYS_WRITEV: "writev", unix.SYS_PREAD64: "pread64", unix.SYS_PWRITE64: "pwrite64", unix.SYS_MMAP: "mmap", unix.SYS_MUNMAP: "munmap",
		unix.SYS_MADVISE: "madvise",
	} {
		m[n] = call{name, rankOther}
	}
	for n, name := range oldWaits() {
		m[n] = call{name, rankEvents}
	}
	return m
}

// owners finds the processes of the namespace that have the socket open, the
// oldest first. It gives up after a while.
func (w *watcher) owners(netns uint32, inode uint64) (owners []uint32) {
	pids, err := w.fs.Pids()
	if err != nil {
		return nil
	}
	want := "socket:[" + strconv.FormatUint(inode, 10) + "]"
	for end := time.Now().Add(maxSearch); len(pids) > 0 && len(owners) <= maxSharers && time.Now().Before(end); pids = pids[1:] {
		if ns, err := w.fs.NetNS(pids[0]); err == nil && ns == netns && w.has(pids[0], want) {
			owners = append(owners, pids[0])
		}
	}
	return owners
}

// has tells whether a process has a file of that name open.
func (w *watcher) has(pid uint32, want string) bool {
	dir, err := os.Open(w.path(pid, "fd"))
	if err != nil {
		return false
	}
	defer dir.Close()
	fds, _ := dir.Readdirnames(-1)
	for _, fd := range fds {
		if to, err := os.Readlink(w.path(pid, "fd/"+fd)); err == nil && to == want {
			return true
		}
	}
	return false
}

// look is what a process does.
type look struct {
	threads []thread
	stack   []string // of the one that should accept
	all     int
}

// describe tells what the process does that should accept.
func (w *watcher) describe(r *signal.Record, b *ListenOverflow, owners []uint32) {
	pid := owners[0]
	r.Process = signal.Process{PID: pid}
	if st, err := w.fs.Stat(pid); err == nil {
		r.Process.Comm = st.Comm
	}
	for _, other := range owners[1:] {
		p := signal.Party{Process: signal.Process{PID: other}, CgroupID: w.cgroup(other)}
		if st, err := w.fs.Stat(other); err == nil {
			p.Process.Comm = st.Comm
		}
		b.Sharers = append(b.Sharers, p)
	}
	for i := range b.Sharers {
		r.Parties = append(r.Parties, &b.Sharers[i])
	}
	done := make(chan look, 1)
	select {
	case w.slot <- struct{}{}:
	default:
		return // the last look hangs still
	}
	go func() {
		defer func() { <-w.slot }()
		done <- w.threads(pid)
	}()
	timer := time.NewTimer(maxLook)
	defer timer.Stop()
	select {
	case l := <-done:
		b.fill(r, l, w.cgroup(pid))
	case <-timer.C:
	}
}

// fill takes over what was seen.
func (b *ListenOverflow) fill(r *signal.Record, l look, cgroup uint64) {
	b.Threads = l.all
	if len(l.threads) == 0 {
		return
	}
	best := l.threads[0]
	b.State, b.Syscall, b.Wait = best.State, best.Syscall, best.Wait
	b.Acceptor = &signal.Party{Process: signal.Process{PID: r.Process.PID, TID: best.tid}, CgroupID: cgroup}
	b.Acceptor.Process.Comm = r.Process.Comm
	for _, f := range l.stack {
		b.Acceptor.KernelStack = append(b.Acceptor.KernelStack, signal.Frame{Function: f})
	}
	r.Parties = append(r.Parties, b.Acceptor)
	for _, t := range l.threads {
		if t.State == "R" {
			b.Runnable++
		}
		i := slices.IndexFunc(b.Activity, func(a Activity) bool {
			return a.State == t.State && a.Syscall == t.Syscall && a.Wait == t.Wait
		})
		if i < 0 {
			i = len(b.Activity)
			b.Activity = append(b.Activity, t.Activity)
		}
		b.Activity[i].Threads++
	}
	slices.SortStableFunc(b.Activity, func(a, c Activity) int { return cmp.Compare(c.Threads, a.Threads) })
}

// threads reads what the threads of a process do; that which most likely should
// accept is the first.
func (w *watcher) threads(pid uint32) (l look) {
	dir, err := os.Open(w.path(pid, "task"))
	if err != nil {
		return l
	}
	defer dir.Close()
	tids, _ := dir.Readdirnames(-1)
	l.all = len(tids)
	calls := waits()
	for _, name := range tids[:min(len(tids), maxThreads)] {
		tid, err := strconv.ParseUint(name, 10, 32)
		if err != nil {
			continue
		}
		if t, ok := w.thread(pid, uint32(tid), calls); ok {
			l.threads = append(l.threads, t)
		}
	}
	slices.SortStableFunc(l.threads, func(a, b thread) int {
		return cmp.Or(cmp.Compare(b.rank, a.rank), cmp.Compare(a.tid, b.tid))
	})
	if len(l.threads) > 0 {
		if b, err := os.ReadFile(w.path(pid, "task/"+strconv.Itoa(int(l.threads[0].tid))+"/stack")); err == nil {
			l.stack = procfs.ParseStack(b)
		}
	}
	return l
}

// thread reads what one thread does; false when it has ended.
func (w *watcher) thread(pid, tid uint32, calls map[int64]call) (t thread, ok bool) {
	dir := w.path(pid, "task/"+strconv.Itoa(int(tid)))
	raw, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return t, false
	}
	st, err := procfs.ParseStat(raw)
	if err != nil {
		return t, false
	}
	t.tid, t.State = tid, string(st.State)
	if tid == pid {
		t.rank = rankFirst
	}
	if st.State == 'R' {
		return t, true
	}
	if wait, err := os.ReadFile(dir + "/wchan"); err == nil && string(wait) != "0" {
		t.Wait = strings.TrimSpace(string(wait))
	}
	if raw, err := os.ReadFile(dir + "/syscall"); err == nil {
		if s, ok := procfs.ParseSyscall(raw); ok {
			c, known := calls[s.Number]
			if !known {
				c.name = strconv.FormatInt(s.Number, 10)
			}
			t.Syscall, t.rank = c.name, max(t.rank, c.rank)
		}
	}
	return t, true
}
