package netstat

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"huatuo/internal/probes/probetest"
	"huatuo/internal/signal"
	"huatuo/test/faults/netpair"
)

// eventually waits until the host's counters have moved so far since before: at
// least, for others use the host's network too.
func eventually(t *testing.T, e *probetest.Env, what string, before []signal.Sample, want ...moved) {
	t.Helper()
	var wrong []string
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		wrong = wrong[:0]
		after := e.Gather()
		for _, m := range want {
			was, _ := probetest.Value(before, m.name, m.labels...)
			is, ok := probetest.Value(after, m.name, m.labels...)
			if d := is - was; !ok || d < m.lo || m.hi > 0 && d > m.hi {
				wrong = append(wrong, fmt.Sprintf("%s: %s%q moved by %g, %v; want %g to %g", what, m.name, m.labels, d, ok, m.lo, m.hi))
			}
		}
		if len(wrong) == 0 {
			return
		}
		if time.Now().After(end) {
			t.Error(strings.Join(wrong, "\n"))
			return
		}
	}
}

// set writes to a file of /proc/sys on a thread that is in the namespace.
func set(t *testing.T, s *netpair.Side, file, value string) {
	t.Helper()
	err := s.Do(func() error { return os.WriteFile("/proc/sys/net/"+file, []byte(value), 0) })
	if err != nil {
		t.Fatal(err)
	}
}

// TestKernelNeighbours asks for 20 neighbours that are not there, with more
// packets than may wait for each. The kernel has one table for all namespaces,
// whose counters only the host sees.
func TestKernelNeighbours(t *testing.T) {
	pair := newPair(t)
	e := probetest.New(t)
	e.Start(Spec(), nil)
	const n, each = 20, 10
	set(t, &pair.A, "ipv4/neigh/"+pair.A.Device+"/unres_qlen_bytes", "1") // the last packet waits, whatever its size
	set(t, &pair.A, "ipv4/neigh/"+pair.A.Device+"/retrans_time_ms", "50")
	before := e.Gather()
	err := pair.A.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		for i := range n {
			for range each {
				err := unix.Sendto(fd, make([]byte, 100), 0, &unix.SockaddrInet4{Port: 9, Addr: [4]byte{192, 0, 2, byte(100 + i)}})
				if err != nil && err != unix.EHOSTUNREACH {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	const name = "huatuo_neighbor_failures_total"
	eventually(t, e, "10 packets for each of 20 neighbours that are not there", before, moved{name, []string{"ipv4", "unresolved"}, n, 0},
		moved{name, []string{"ipv4", "discarded"}, n * (each - 1), 0}, moved{"huatuo_neighbor_entries", []string{"ipv4"}, n, 0})
	tableFull(t, e, pair)
}

// tableFull lowers the limit of the table to what it has and room for 100 more,
// which others on the host may need meanwhile, and wants 200.
func tableFull(t *testing.T, e *probetest.Env, pair *netpair.Pair) {
	before := e.Gather()
	entries, _ := probetest.Value(before, "huatuo_neighbor_entries", "ipv4")
	const more, n = 100, 200
	batch := filepath.Join(t.TempDir(), "batch")
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "neigh add 192.0.2.%d lladdr 02:00:00:00:01:%02x nud reachable dev %s\n", i+20, i, pair.B.Device)
	}
	if err := os.WriteFile(batch, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	probetest.Set(t, "/proc/sys/net/ipv4/neigh/default/gc_thresh3", fmt.Sprint(entries+more))
	if v, _ := probetest.Value(e.Gather(), "huatuo_neighbor_limit", "ipv4"); v != entries+more {
		t.Errorf("huatuo_neighbor_limit is %g, want %g", v, entries+more)
	}
	exec.Command("ip", "-n", pair.B.Name, "-force", "-batch", batch).Run() // fails for those that have no room
	eventually(t, e, "200 neighbours in a table that has room for 100", before,
		moved{"huatuo_neighbor_failures_total", []string{"ipv4", "table_full"}, 1, 0}, moved{"huatuo_neighbor_entries", []string{"ipv4"}, more / 2, more + 50})
}

// tracking makes the namespace follow its connections.
func tracking(t *testing.T, pair *netpair.Pair) {
	t.Helper()
	if _, err := exec.LookPath("iptables"); err != nil {
		t.Skip("needs iptables")
	}
	if err := pair.B.Run("iptables", "-A", "INPUT", "-m", "conntrack", "--ctstate", "INVALID", "-j", "DROP"); err != nil {
		t.Skipf("needs a kernel with connection tracking: %v", err)
	}
}

// TestKernelConntrack runs TestConntrack in a namespace that tracks connections.
func TestKernelConntrack(t *testing.T) {
	pair := newPair(t)
	tracking(t, pair)
	c := exec.Command("ip", "netns", "exec", pair.B.Name, os.Args[0], "-test.run=^TestConntrack$", "-test.v")
	c.Env = append(os.Environ(), peerName+"="+pair.A.Name)
	out, err := c.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	// The limit is the host's for all. Where the host itself tracks nothing, nobody is
	// harmed when it is low for a moment.
	e := probetest.New(t)
	e.Start(Spec(), nil)
	s := e.Gather()
	if v, ok := probetest.Value(s, "huatuo_conntrack_limit"); !ok || v < 100 {
		t.Errorf("huatuo_conntrack_limit is %g, %v", v, ok)
	}
	if v, _ := probetest.Value(s, "huatuo_conntrack_entries"); v != 0 {
		t.Logf("the host tracks %g connections: its table is left as it is", v)
		return
	}
	probetest.Set(t, "/proc/sys/net/netfilter/nf_conntrack_max", "16")
	c = exec.Command("ip", "netns", "exec", pair.B.Name, os.Args[0], "-test.run=^TestConntrackFull$", "-test.v")
	c.Env = append(os.Environ(), peerName+"="+pair.A.Name)
	if out, err := c.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// knock sends datagrams to so many ports of an address.
func knock(n int, addr [4]byte) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for i := range n {
		err := unix.Sendto(fd, []byte("x"), 0, &unix.SockaddrInet4{Port: 10000 + i, Addr: addr})
		if err != nil && err != unix.ECONNREFUSED && err != unix.EPERM {
			return err
		}
	}
	return nil
}

// TestConntrack sends to 50 ports, and segments of no connection.
func TestConntrack(t *testing.T) {
	if os.Getenv(peerName) == "" {
		t.Skip("is run by TestKernelConntrack, in a namespace")
	}
	e := probetest.New(t)
	e.Start(Spec(), nil)
	before := e.Gather()
	peer := netpair.Side{Name: os.Getenv(peerName)}
	if err := peer.Do(func() error { return knock(50, [4]byte{192, 0, 2, 2}) }); err != nil {
		t.Fatal(err)
	}
	eventually(t, e, "datagrams to 50 ports", before, moved{"huatuo_conntrack_entries", nil, 50, 60})

	before = e.Gather()
	// A segment without any flag belongs to no connection and begins none.
	b := make([]byte, 20)
	b[1], b[3], b[12] = 77, 88, 5<<4
	err := peer.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		for range 30 {
			if err := unix.Sendto(fd, b, 0, &unix.SockaddrInet4{Addr: [4]byte{192, 0, 2, 2}}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, e, "30 segments of no connection", before, moved{"huatuo_conntrack_events_total", []string{"invalid"}, 30, 30})
}

// TestConntrackFull sends to 100 ports, where 16 connections may be tracked.
func TestConntrackFull(t *testing.T) {
	if os.Getenv(peerName) == "" {
		t.Skip("is run by TestKernelConntrack, in a namespace")
	}
	e := probetest.New(t)
	e.Start(Spec(), nil)
	before := e.Gather()
	if v, _ := probetest.Value(before, "huatuo_conntrack_limit"); v != 16 {
		t.Errorf("huatuo_conntrack_limit is %g, want 16", v)
	}
	peer := netpair.Side{Name: os.Getenv(peerName)}
	if err := peer.Do(func() error { return knock(100, [4]byte{192, 0, 2, 2}) }); err != nil {
		t.Fatal(err)
	}
	after := e.Gather()
	sum := 0.0 // a connection without an answer makes room for a new one, if the kernel finds one soon
	for _, event := range []string{"drop", "early_drop"} {
		was, _ := probetest.Value(before, "huatuo_conntrack_events_total", event)
		is, _ := probetest.Value(after, "huatuo_conntrack_events_total", event)
		sum += is - was
	}
	if sum < 80 || sum > 100 {
		t.Errorf("%g connections were dropped, want 84 of 100", sum)
	}
}

// TestKernelBacklog sends faster than a CPU takes packets, which has a slow
// firewall to pass: what its backlog has no room for is dropped, and is missing.
func TestKernelBacklog(t *testing.T) {
	if runtime.NumCPU() < 2 {
		t.Skip("needs two CPUs: one to send, and one to fall behind")
	}
	pair := newPair(t)
	if _, err := exec.LookPath("iptables-restore"); err != nil {
		t.Skip("needs iptables")
	}
	slow(t, &pair.B)
	if err := pair.B.Run("sh", "-c", "echo 2 > /sys/class/net/"+pair.B.Device+"/queues/rx-0/rps_cpus"); err != nil {
		t.Skipf("needs a kernel with CONFIG_RPS: %v", err)
	}
	if err := pair.A.Run("ip", "neigh", "replace", pair.B.Addr, "lladdr", address(t, &pair.B), "dev", pair.A.Device); err != nil {
		t.Fatal(err)
	}
	// What a CPU takes from its backlog at once is all that it may: it is squeezed each time.
	const weight = 64
	probetest.Set(t, "/proc/sys/net/core/netdev_budget", fmt.Sprint(weight))
	e := probetest.New(t)
	e.Start(Spec(), nil)
	before, came := e.Gather(), received(t, &pair.B)
	const n = 10000
	if err := pair.A.Do(func() error { return burst(n) }); err != nil {
		t.Fatal(err)
	}
	// When nothing more comes all are through.
	last := -1.0
	for got := received(t, &pair.B); got != last; got = received(t, &pair.B) {
		last = got
		time.Sleep(100 * time.Millisecond)
	}
	dropped := n - (last - came)
	t.Logf("of %d packets %g were dropped", n, dropped)
	if dropped < 100 {
		t.Fatalf("of %d packets %g were dropped: the firewall is too fast", n, dropped)
	}
	eventually(t, e, "packets for a CPU that is behind", before, moved{"huatuo_softnet_drops_total", []string{"1"}, dropped - 10, dropped + 1000},
		moved{"huatuo_softnet_packets_total", []string{"1"}, n - dropped - 10, 0}, moved{"huatuo_softnet_squeezed_total", []string{"1"}, (n - dropped) / weight / 2, 0})
}

// slow gives the namespace a firewall of two thousand rules that match nothing.
func slow(t *testing.T, s *netpair.Side) {
	t.Helper()
	var b strings.Builder
	b.WriteString("*filter\n")
	for i := range 2000 {
		fmt.Fprintf(&b, "-A INPUT -s 203.0.113.%d -p udp --dport %d -j ACCEPT\n", i%250, i+1)
	}
	b.WriteString("COMMIT\n")
	c := exec.Command("ip", "netns", "exec", s.Name, "iptables-restore")
	c.Stdin = strings.NewReader(b.String())
	if out, err := c.CombinedOutput(); err != nil {
		t.Skipf("needs a kernel with iptables: %v: %s", err, out)
	}
}

func address(t *testing.T, s *netpair.Side) (mac string) {
	t.Helper()
	err := s.Do(func() error {
		i, err := net.InterfaceByName(s.Device)
		if err == nil {
			mac = i.HardwareAddr.String()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return mac
}

// received is how many IPv4 packets came to a namespace.
func received(t *testing.T, s *netpair.Side) (n float64) {
	t.Helper()
	err := s.Do(func() error {
		p := newPoller(probetest.New(t).Env, Config{})
		// Not the main thread's, which /proc/net is.
		if err := p.readNet(fmt.Sprintf("proc/self/task/%d/net", unix.Gettid())); err != nil {
			return err
		}
		for i, f := range numbers.fields {
			if f.schema.Name == "huatuo_ip_packets_total" && f.labels[0] == "ipv4" && f.labels[1] == "receive" {
				n, _ = p.reading.value(i)
				return nil
			}
		}
		return errors.New("no count of packets")
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// burst sends n datagrams from the first CPU.
func burst(n int) error {
	var one unix.CPUSet
	one.Set(0)
	if err := unix.SchedSetaffinity(0, &one); err != nil { // the thread ends with this
		return err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: 9, Addr: [4]byte{192, 0, 2, 2}}); err != nil {
		return err
	}
	// A packet counts against its sender until the receiver has it: all at once may.
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 256<<20); err != nil {
		return err
	}
	b := make([]byte, 20)
	for range n {
		// A port that nobody listens on: the answer is an error of the next call.
		if _, err := unix.Write(fd, b); err != nil && err != unix.ECONNREFUSED {
			return err
		}
	}
	return nil
}
