package exhaust

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/hex"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"huatuo/internal/kern/procfs"
	"huatuo/internal/signal"
)

const (
	// maxNamespaces bounds a round to some 10 ms.
	maxNamespaces = 200
	// maxPairs bounds the memory of a count: each pair of addresses takes some 100 bytes.
	maxPairs = 50_000
	// rangeFor is how long the range of a network namespace is taken to stay: it takes a thread to ask.
	rangeFor = 5 * time.Minute
)

// namespaces reads the ports that connections took, and the tracked connections
// of the network namespaces other than the agent's.
type namespaces struct {
	proc  string
	fs    *procfs.FS
	who   *who
	now   func() time.Time
	own   uint32
	spans map[uint32]portRange
	buf   []byte
}

// portRange is net.ipv4.ip_local_port_range.
type portRange struct {
	low, high uint16
	read      time.Time
}

func (p portRange) size() uint64           { return uint64(p.high) - uint64(p.low) + 1 }
func (p portRange) has(port uint64) bool   { return port >= uint64(p.low) && port <= uint64(p.high) }
func (p portRange) many(sockets int) bool  { return float64(sockets) >= watchRatio*float64(p.size()) }
func (p portRange) old(now time.Time) bool { return now.Sub(p.read) >= rangeFor }

func (n *namespaces) read() ([]reading, error) {
	found, err := n.fs.NetNamespaces(maxNamespaces)
	if err != nil {
		return nil, err
	}
	n.ranges(found)
	limit := procfs.Uints(n.file("sys/net/netfilter/nf_conntrack_max"))
	var rs []reading
	for ns, pid := range found {
		if again, err := n.fs.NetNS(pid); err != nil || again != ns {
			continue // it has ended, and another process may have its number
		}
		rs = n.portsOf(rs, ns, pid)
		if entries, ok := parseEntries(n.file(strconv.Itoa(int(pid)) + "/net/stat/nf_conntrack")); ok && ns != n.own && len(limit) > 0 {
			rs = append(rs, n.about(reading{resource: conntrack, name: "Tracked connections", used: entries, limit: limit[0]}, ns, pid))
		}
	}
	return rs, nil
}

func (n *namespaces) file(name string) []byte {
	b, err := procfs.ReadInto(n.proc+"/"+name, n.buf)
	if err != nil {
		return nil
	}
	n.buf = b
	return b
}

// about completes a reading of a namespace: who is in it.
func (n *namespaces) about(r reading, ns, pid uint32) reading {
	r.key = fmt.Sprint(ns, " ", r.key)
	if ns == n.own {
		return r
	}
	comm := ""
	if st, err := n.fs.Stat(pid); err == nil {
		comm = st.Comm
	}
	r.instance = strings.TrimPrefix(fmt.Sprintf("%s, network namespace %d of %s (pid %d)", r.instance, ns, comm, pid), ", ")
	r.name += fmt.Sprintf(" in the network namespace of %s (pid %d)", comm, pid)
	r.process, r.cgroup = signal.Process{PID: pid, Comm: comm}, n.who.cgroup(pid)
	return r
}

// parseEntries takes the number of tracked connections out of the first row, the same in all, of net/stat/nf_conntrack.
func parseEntries(b []byte) (uint64, bool) {
	_, rest, _ := bytes.Cut(b, []byte("\n"))
	first, _, _ := bytes.Cut(rest, []byte(" "))
	v, err := strconv.ParseUint(string(first), 16, 64)
	return v, err == nil
}

// ranges reads the port range of each namespace that is new, or not asked for long.
func (n *namespaces) ranges(found map[uint32]uint32) {
	now := n.now()
	for ns := range n.spans {
		if _, there := found[ns]; !there {
			delete(n.spans, ns)
		}
	}
	for ns, pid := range found {
		if p, known := n.spans[ns]; known && !p.old(now) {
			continue
		}
		p, ok := n.rangeOf(ns, pid)
		if !ok {
			p = portRange{low: 32768, high: 60999} // the kernel's own
		}
		p.read = now
		n.spans[ns] = p
	}
}

func (n *namespaces) rangeOf(ns, pid uint32) (portRange, bool) {
	if ns == n.own || n.proc != "/proc" {
		return parseRange(n.file("sys/net/ipv4/ip_local_port_range"))
	}
	var b []byte
	aside(func() {
		fd, err := unix.Open(n.who.path(pid, "ns/net"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return
		}
		defer unix.Close(fd)
		if unix.Setns(fd, unix.CLONE_NEWNET) == nil {
			b, _ = procfs.ReadInto("/proc/sys/net/ipv4/ip_local_port_range", nil)
		}
	})
	return parseRange(b)
}

// aside calls f on a thread that ends afterwards, and that is not the first of the
// process: that one cannot end, and its namespace is what /proc/self/net shows.
func aside(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and not unlocked: the thread ends with the goroutine
		if unix.Gettid() != unix.Getpid() {
			f()
			return
		}
		aside(f) // on another one, since this is taken
		runtime.UnlockOSThread()
	}()
	<-done
}

func parseRange(b []byte) (p portRange, ok bool) {
	v := procfs.Uints(b)
	if len(v) < 2 || v[0] > v[1] || v[1] > 65535 {
		return p, false
	}
	return portRange{low: uint16(v[0]), high: uint16(v[1])}, true
}

// portsOf counts the ports to each destination, when there are sockets enough.
func (n *namespaces) portsOf(rs []reading, ns, pid uint32) []reading {
	dir := n.who.path(pid, "net")
	tcp, udp := parseSockets(n.file(strconv.Itoa(int(pid)) + "/net/sockstat"))
	tcp6, udp6 := parseSockets(n.file(strconv.Itoa(int(pid)) + "/net/sockstat6"))
	span := n.spans[ns]
	if span.many(tcp + tcp6) {
		for _, d := range countPairs(span, dir+"/tcp", dir+"/tcp6") {
			if !span.many(d.count) {
				break
			}
			to := d.pair.to.String()
			rs = append(rs, n.about(reading{
				resource: ports, key: d.pair.from.String() + " " + to, instance: "tcp to " + to, name: "Ports for connections to " + to,
				used: uint64(d.count), limit: span.size(), users: func() []*User { return n.holders(ns, d.pair, dir+"/tcp", dir+"/tcp6") },
			}, ns, pid))
		}
	}
	if span.many(udp + udp6) {
		used := countBound(span, dir+"/udp", dir+"/udp6")
		rs = append(rs, n.about(reading{resource: ports, key: "udp", instance: "udp", name: "Ports of UDP", used: used, limit: span.size()}, ns, pid))
	}
	return rs
}

// parseSockets sums the sockets of TCP, those in TIME_WAIT too, and of UDP in sockstat or sockstat6.
func parseSockets(b []byte) (tcp, udp int) {
	for line := range bytes.Lines(b) {
		f := strings.Fields(string(line))
		if len(f) < 3 {
			continue
		}
		sum := 0
		for i := 1; i+1 < len(f); i += 2 {
			if f[i] == "inuse" || f[i] == "tw" {
				v, _ := strconv.Atoi(f[i+1])
				sum += v
			}
		}
		switch f[0] {
		case "TCP:", "TCP6:":
			tcp += sum
		case "UDP:", "UDP6:":
			udp += sum
		}
	}
	return tcp, udp
}

// pair is where connections come from and go to: only among those of one pair
// each needs a port of its own.
type pair struct {
	from netip.Addr
	to   netip.AddrPort
}

type pairCount struct {
	pair  pair
	count int
}

// countPairs counts the sockets with a port of the range by pair, most first.
func countPairs(span portRange, files ...string) []pairCount {
	count := map[pair]int{}
	eachSocket(files, func(s *socket) {
		if !span.has(uint64(s.local.Port())) || s.remote.Port() == 0 {
			return
		}
		k := pair{s.local.Addr(), s.remote}
		if _, known := count[k]; known || len(count) < maxPairs {
			count[k]++
		}
	})
	var all []pairCount
	for k, n := range count {
		if span.many(n) {
			all = append(all, pairCount{k, n})
		}
	}
	slices.SortFunc(all, func(a, b pairCount) int { return cmp.Compare(b.count, a.count) })
	return all
}

// countBound counts the ports of the range that sockets are bound to.
func countBound(span portRange, files ...string) uint64 {
	seen := map[uint16]bool{}
	eachSocket(files, func(s *socket) {
		if p := s.local.Port(); span.has(uint64(p)) {
			seen[p] = true
		}
	})
	return uint64(len(seen))
}

// holders finds the processes that have the sockets of a pair.
func (n *namespaces) holders(ns uint32, k pair, files ...string) []*User {
	inodes := map[string]bool{}
	eachSocket(files, func(s *socket) {
		if s.remote == k.to && s.local.Addr() == k.from && s.inode != "0" { // one in TIME_WAIT is nobody's
			inodes["socket:["+s.inode+"]"] = true
		}
	})
	pids, err := n.fs.Pids()
	if err != nil {
		return nil
	}
	slices.Sort(pids)
	left := maxLinks
	return n.who.most(pids, func(pid uint32) (sum uint64) {
		if in, err := n.fs.NetNS(pid); err != nil || in != ns {
			return 0
		}
		n.who.links(pid, &left, func(_, target string) {
			if inodes[target] {
				sum++
			}
		})
		return sum
	})
}

type socket struct {
	local, remote netip.AddrPort
	inode         string
}

// eachSocket reads files of the form of /proc/net/tcp; one that is not there has no sockets.
func eachSocket(files []string, f func(*socket)) {
	for _, name := range files {
		r, err := os.Open(filepath.Clean(name))
		if err != nil {
			continue
		}
		parseTable(r, f)
		r.Close()
	}
}

func parseTable(r io.Reader, f func(*socket)) {
	for s := bufio.NewScanner(r); s.Scan(); {
		if x, ok := parseSocket(s.Text()); ok {
			f(x)
		}
	}
}

// parseSocket reads "  0: 0100007F:1F90 0200007F:C350 01 00000000:00000000 00:00000000 00000000  0  0 4711 …".
func parseSocket(line string) (*socket, bool) {
	f := strings.Fields(line)
	if len(f) < 10 {
		return nil, false
	}
	local, ok := parseAddr(f[1])
	remote, ok2 := parseAddr(f[2])
	return &socket{local, remote, f[9]}, ok && ok2
}

// parseAddr reads an address as words of 32 bits in the machine's order, and a port.
func parseAddr(s string) (netip.AddrPort, bool) {
	a, p, _ := strings.Cut(s, ":")
	b, err := hex.DecodeString(a)
	port, err2 := strconv.ParseUint(p, 16, 16)
	if err != nil || err2 != nil || len(b) != 4 && len(b) != 16 {
		return netip.AddrPort{}, false
	}
	if littleEndian {
		for i := 0; i < len(b); i += 4 {
			b[i], b[i+1], b[i+2], b[i+3] = b[i+3], b[i+2], b[i+1], b[i]
		}
	}
	addr, _ := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(addr.Unmap(), uint16(port)), true
}

// littleEndian: the objects of the agent's BPF programs are for no others.
const littleEndian = true
