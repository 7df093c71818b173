package tcp

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"huatuo/internal/kern/cgroup"
	"huatuo/internal/kern/procfs"
	"huatuo/internal/probe"
	"huatuo/internal/signal"
)

// ListenOverflow is the body of a listen_overflow event. Its process is one that
// has the listening socket open, and so should accept.
type ListenOverflow struct {
	Address   string `json:"address" help:"of the listening socket; empty when none had anybody waiting any more"`
	Port      uint16 `json:"port" help:"of the listening socket"`
	Queued    uint32 `json:"queued" help:"connections that waited for accept a moment later"`
	Overflows uint64 `json:"overflows" help:"connections that came while a queue was full, since the namespace was looked at last"`
	Netns     uint32 `json:"netns" help:"number of the network namespace"`
	Backlog   uint32 `json:"backlog" help:"connections that may wait for accept: what was given to listen, limited by net.core.somaxconn; 0: not known"`
	State     string `json:"state" help:"of the thread that should accept: R runs or wants to, S sleeps, D waits for I/O, T is stopped"`
	Syscall   string `json:"syscall" help:"system call that it is in; empty when it runs"`
	Wait      string `json:"wait" help:"kernel function in which it waits; empty when it runs"`
	Threads   int    `json:"threads" help:"threads of the process"`
	Runnable  int    `json:"runnable" help:"of them, those that run or want to"`

	Acceptor *signal.Party  `json:"acceptor" help:"thread that should accept, with its stack: one that is in accept, else one that waits for events, else the first; null when no process has the socket open"`
	Activity []Activity     `json:"activity" help:"what the threads of the process do: state, syscall, wait, and how many; the most first"`
	Sharers  []signal.Party `json:"sharers" help:"up to eight other processes that have the socket open"`
}

var overflowed = signal.EventOf[ListenOverflow]("listen_overflow", signal.AreaNetwork, signal.Warning,
	"Connections were dropped because a listening socket's queue was full.").When(
	"The count ListenOverflows of a network namespace moved between two looks `listen_interval` (5s) apart, once a minute and namespace: each is a client that waits a second or longer.",
	"A burst after the start of a server with a short backlog, once.")

const (
	maxNamespaces = 256              // read in each round
	lookAgain     = 30 * time.Second // for new namespaces: it costs 3 µs a process
	quiet         = time.Minute      // between two events of a namespace
	maxListeners  = 4096
)

// watcher looks for full listen queues: no tracepoint tells them. The kernel
// counts them for each network namespace; when a count has moved, the socket
// with the most connections waiting is the one.
type watcher struct {
	env   *probe.Env
	fs    *procfs.FS
	proc  string
	buf   []byte
	seen  map[uint32]*namespace
	next  time.Time
	slot  chan struct{} // holds a token while /proc of a process is read, which may hang
	count atomic.Uint64 // events seen
	held  atomic.Uint64 // of them, those that the rate limit held back
}

type namespace struct {
	pid       uint32
	looked    time.Time // the last time
	overflows uint64
	known     bool
	told      time.Time
	held      uint64
}

func newWatcher(env *probe.Env) *watcher {
	return &watcher{env: env, fs: procfs.New(env.Root), proc: filepath.Join(env.Root, "proc"), seen: map[uint32]*namespace{}, slot: make(chan struct{}, 1)}
}

// wrap returns the Env for probe.Stream, whose counters include the watcher's.
func (w *watcher) wrap() *probe.Env {
	inner := *w.env
	inner.Lost = func(f func() probe.Loss) {
		w.env.Lost(func() probe.Loss {
			l := f()
			l.Observed += w.count.Load()
			l.Dropped["rate_limited"] += w.held.Load()
			return l
		})
	}
	return &inner
}

func (w *watcher) round() {
	now := w.env.Now()
	if !now.Before(w.next) {
		w.look()
		w.next = now.Add(lookAgain)
	}
	for id, ns := range w.seen {
		if in, err := w.fs.NetNS(ns.pid); err != nil || in != id {
			w.next = now // its process has ended: another may be there
			continue
		}
		var err error
		if w.buf, err = procfs.ReadInto(w.path(ns.pid, "net/netstat"), w.buf); err != nil {
			continue
		}
		n, ok := column(w.buf, "TcpExt:", "ListenOverflows")
		if !ok {
			continue
		}
		if delta := n - ns.overflows; ns.known && n > ns.overflows {
			w.tell(id, ns, delta, now)
		}
		ns.overflows, ns.known, ns.looked = n, true, now
	}
}

// look brings the list of namespaces up to date.
func (w *watcher) look() {
	found, err := w.fs.NetNamespaces(maxNamespaces)
	if err != nil {
		return
	}
	for id, pid := range found {
		if ns := w.seen[id]; ns != nil {
			ns.pid = pid
		} else {
			w.seen[id] = &namespace{pid: pid}
		}
	}
	for id := range w.seen {
		if _, ok := found[id]; !ok {
			delete(w.seen, id)
		}
	}
}

func (w *watcher) tell(id uint32, ns *namespace, overflows uint64, now time.Time) {
	w.count.Add(1)
	if !ns.told.IsZero() && now.Sub(ns.told) < quiet {
		w.held.Add(1)
		ns.held++
		return
	}
	b := &ListenOverflow{Overflows: overflows, Netns: id}
	r := &signal.Record{Schema: overflowed, Time: now, Suppressed: ns.held, Body: b, Lasted: now.Sub(ns.looked)}
	ns.told, ns.held = now, 0
	pid := ns.pid
	if l, ok := w.fullest(ns.pid); ok {
		b.Address, b.Port, b.Queued = l.addr.String(), l.port, l.queued
		b.Backlog = w.backlog(ns.pid, l)
		r.Keys = []string{fmt.Sprintf("listen:%d:%d", id, l.port)}
		if owners := w.owners(id, l.inode); len(owners) > 0 {
			pid = owners[0]
			w.describe(r, b, owners)
		}
	}
	r.CgroupID = w.cgroup(pid)
	r.Title = b.title(r.Process.Comm)
	w.env.Emit(r)
}

func (b *ListenOverflow) title(comm string) string {
	s := "1 connection was dropped: the listen queue "
	if b.Overflows != 1 {
		s = fmt.Sprintf("%d connections were dropped: the listen queue ", b.Overflows)
	}
	if b.Address == "" {
		return s + "of a socket was full"
	}
	s += "of " + endpoint(b.Address, b.Port) + " was full"
	if comm == "" {
		return s
	}
	s += "; " + comm + " should accept"
	switch {
	case b.State == "T":
		s += ", it is stopped"
	case b.Wait != "":
		s += ", it waits in " + b.Wait
		if b.Syscall != "" {
			s += " (" + b.Syscall + ")"
		}
	}
	return s
}

type listener struct {
	addr   netip.Addr // its family is that of the socket
	port   uint16
	queued uint32
	inode  uint64
}

// fullest returns the listening socket of a process' namespace with the most
// connections that wait for accept.
func (w *watcher) fullest(pid uint32) (best listener, ok bool) {
	for _, file := range []string{"net/tcp", "net/tcp6"} {
		f, err := os.Open(w.path(pid, file))
		if err != nil {
			continue
		}
		s := bufio.NewScanner(f)
		s.Scan() // the heading
		for n := 0; n < maxListeners && s.Scan(); n++ {
			l, listens := parseListener(s.Bytes())
			if !listens {
				break // they come first
			}
			if l.queued > best.queued {
				best, ok = l, true
			}
		}
		f.Close()
	}
	return best, ok
}

// parseListener parses a line of /proc/net/tcp or tcp6; not ok for a socket that
// does not listen. For one that does the receive queue is the number of
// connections that wait (net/ipv4/tcp_ipv4.c:get_tcp4_sock).
func parseListener(line []byte) (l listener, ok bool) {
	f := bytes.Fields(line)
	if len(f) < 10 || string(f[3]) != "0A" {
		return l, false
	}
	addr, port, ok1 := bytes.Cut(f[1], []byte{':'})
	_, queue, ok2 := bytes.Cut(f[4], []byte{':'})
	if !ok1 || !ok2 {
		return l, false
	}
	p, err1 := strconv.ParseUint(string(port), 16, 16)
	q, err2 := strconv.ParseUint(string(queue), 16, 32)
	inode, err3 := strconv.ParseUint(string(f[9]), 10, 64)
	raw, err4 := hex.DecodeString(string(addr))
	if err1 != nil || err2 != nil || err3 != nil || err4 != nil || len(raw)%4 != 0 {
		return l, false
	}
	for w := range slices.Chunk(raw, 4) { // words in the order of a little-endian machine
		slices.Reverse(w)
	}
	l.addr, ok = netip.AddrFromSlice(raw)
	l.port, l.queued, l.inode = uint16(p), uint32(q), inode
	return l, ok
}

// cgroup returns the identity of a process' workload, 0 when it has none.
func (w *watcher) cgroup(pid uint32) uint64 {
	if w.env.Layout == nil {
		return 0
	}
	cs, err := w.fs.Cgroup(pid)
	if err != nil {
		return 0
	}
	id, err := cgroup.ID(w.env.Layout.IdentityRoot + w.env.Layout.ProcPath(cs.Path))
	if err != nil {
		return 0
	}
	return id
}

func (w *watcher) path(pid uint32, file string) string {
	return w.proc + "/" + strconv.Itoa(int(pid)) + "/" + file
}

// column finds a number in /proc/net/netstat: a line of names, then one of numbers.
func column(b []byte, section, name string) (uint64, bool) {
	for len(b) > 0 {
		var names, numbers []byte
		names, b, _ = bytes.Cut(b, []byte{'\n'})
		numbers, b, _ = bytes.Cut(b, []byte{'\n'})
		if !bytes.HasPrefix(names, []byte(section)) {
			continue
		}
		ns, vs := bytes.Fields(names), bytes.Fields(numbers)
		for i, n := range ns {
			if string(n) == name && i < len(vs) {
				return procfs.Uint(vs[i])
			}
		}
	}
	return 0, false
}
