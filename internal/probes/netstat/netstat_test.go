package netstat

import (
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"huatuo/internal/probes/probetest"
	"huatuo/internal/signal"
	"huatuo/test/faults/netpair"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestRun(t *testing.T) {
	for _, name := range []string{"v6.18", "old", "odd"} {
		t.Run(name, func(t *testing.T) {
			e := probetest.New(t)
			e.Root = probetest.Unpack(t, "testdata/"+name+".txt")
			e.Start(Spec(), nil)
			e.Gather()
			probetest.Golden(t, "testdata/"+name+".golden", e.Gather(), nil, *update)
		})
	}
}

func TestRefuses(t *testing.T) {
	e := probetest.New(t)
	e.Root = t.TempDir()
	if err := e.TryStart(Spec(), nil); err == nil || !os.IsNotExist(err) && !strings.Contains(err.Error(), "no such file") {
		t.Errorf("run without /proc/net = %v; want not exist", err)
	}
	e = probetest.New(t)
	if err := e.TryStart(Spec(), Config{MaxNamespaces: -1}); err == nil || !strings.Contains(err.Error(), "max_namespaces") {
		t.Errorf("run with a negative limit = %v", err)
	}
	e = probetest.New(t)
	e.Root = probetest.Unpack(t, "testdata/odd.txt")
	if err := os.WriteFile(e.Root+"/proc/net/snmp", []byte("nothing\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	os.Remove(e.Root + "/proc/net/sockstat")
	if err := e.TryStart(Spec(), nil); err == nil || !strings.Contains(err.Error(), "none is known") {
		t.Errorf("run with a file of another form = %v", err)
	}
}

// TestTable holds the table to this kernel: it must know most of what it is asked for.
func TestTable(t *testing.T) {
	if _, err := os.Stat("/proc/net/netstat"); err != nil {
		t.Skip("needs /proc/net: ", err)
	}
	p := newPoller(probetest.New(t).Env, Config{})
	if err := p.readNet("proc/net"); err != nil {
		t.Fatal(err)
	}
	known, missing := 0, []string{}
	for i, f := range numbers.fields {
		if _, ok := p.reading.value(i); ok {
			known++
		} else {
			missing = append(missing, fmt.Sprint(f.keys))
		}
	}
	t.Logf("not in this kernel: %s", missing)
	if known < len(numbers.fields)*8/10 {
		t.Errorf("this kernel has %d of %d numbers", known, len(numbers.fields))
	}
}

func newPair(t *testing.T) *netpair.Pair {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to make network namespaces: run `make ktest` as root")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("needs ip: install iproute2")
	}
	p, err := netpair.New(fmt.Sprintf("htn%d", os.Getpid()%100000))
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestKernel makes known traffic in the network namespace of a process in a
// cgroup, and on the host.
func TestKernel(t *testing.T) {
	pair := newPair(t)
	cg := probetest.NewCgroup(t, fmt.Sprintf("huatuo-test-netstat-%d", os.Getpid()))
	holder := exec.Command("ip", "netns", "exec", pair.B.Name, "sleep", "60")
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { holder.Process.Kill(); holder.Wait() })
	cg.Add(t, holder.Process.Pid)
	waitNamespace(t, holder.Process.Pid, pair.B.Inode)

	e := probetest.New(t)
	e.Start(Spec(), nil)
	value := func(s []signal.Sample, name string, labels ...string) float64 {
		v, ok := probetest.WorkloadValue(s, name, cg.ID, labels...)
		if !ok {
			t.Fatalf("no %s%q of the workload", name, labels)
		}
		return v
	}
	before := e.Gather()
	if err := pair.B.Do(func() error { return traffic(pair.B.Addr) }); err != nil {
		t.Fatal(err)
	}
	if err := pair.B.Do(func() error { connections(t); return nil }); err != nil {
		t.Fatal(err)
	}
	after := e.Gather()
	for _, c := range ofWorkload() {
		if d := value(after, c.name, c.labels...) - value(before, c.name, c.labels...); d < c.lo || d > c.hi {
			t.Errorf("%s%q moved by %g, want %g to %g", c.name, c.labels, d, c.lo, c.hi)
		}
	}
	if c, err := net.Dial("tcp4", "127.0.0.1:9"); err == nil { // a SYN and a reset on the host, whoever listens
		c.Close()
	}
	if host, _ := probetest.Value(e.Gather(), "huatuo_tcp_segments_total", "receive"); host < 2 {
		t.Errorf("the host received %v segments, want 2 or more", host)
	}
	holder.Process.Kill()
	holder.Wait()
	if _, ok := probetest.WorkloadValue(e.Gather(), "huatuo_container_sockets", cg.ID); ok {
		t.Error("a namespace whose process has ended still has numbers")
	}
}

// ofWorkload is how far traffic and connections move the workload's counters.
func ofWorkload() []moved {
	return []moved{
		{"huatuo_container_udp_datagrams_total", []string{"ipv4", "receive"}, 30, 30 + 250}, // and those of 500 that found room
		{"huatuo_container_udp_datagrams_total", []string{"ipv4", "transmit"}, 50 + 500, 50 + 500},
		{"huatuo_container_udp_no_ports_total", []string{"ipv4"}, 20, 20},
		{"huatuo_container_udp_no_ports_total", []string{"ipv6"}, 0, 0},
		{"huatuo_container_tcp_resets_transmitted_total", nil, 10 + 5, 13 + 5}, // and those that wait for accept when the listener closes,
		{"huatuo_container_tcp_listen_overflows_total", nil, 1, 1000},
		{"huatuo_container_tcp_listen_drops_total", nil, 1, 1000},
		{"huatuo_container_tcp_segments_retransmitted_total", nil, 0, 100},
		{"huatuo_container_tcp_segments_total", []string{"receive"}, 10 * 2, 2000},
		{"huatuo_container_tcp_segments_total", []string{"transmit"}, 10 * 2, 2000},
		{"huatuo_container_tcp_established_resets_total", nil, 5, 2*5 + 6}, // either side counts
		{"huatuo_container_tcp_connections", nil, 2 * 7, 2*7 + 6},
		{"huatuo_container_tcp_time_wait", nil, 8, 8 + 6},
		{"huatuo_container_sockets", nil, 7, 2*7 + 12}, // of what was accepted not all are in it
		{"huatuo_container_udp_drops_total", []string{"ipv4", "receive_buffer"}, 250, 499},
	}
}

// connections: five that are reset, eight that wait after their end, seven that
// stay until the test's end; and 500 datagrams for a socket without room.
func connections(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Error(err)
		return
	}
	t.Cleanup(func() { l.Close() })
	for i := range 5 + 8 + 7 {
		c, s := pairOn(t, l)
		switch {
		case i < 5:
			s.SetLinger(0)
			s.Close()
			c.Read(make([]byte, 1)) // the reset has come when this returns
			c.Close()
		case i < 5+8:
			s.Close()
			c.Read(make([]byte, 1))
			c.Close()
		default:
			t.Cleanup(func() { c.Close(); s.Close() })
		}
	}
	flooded(t)
}

// waitNamespace waits until ip has entered the namespace.
func waitNamespace(t *testing.T, pid int, inode uint32) {
	t.Helper()
	for range 200 {
		if l, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pid)); l == fmt.Sprintf("net:[%d]", inode) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("the process does not enter its namespace")
}

// traffic: 30 datagrams that arrive, 20 to a closed port, 10 refused connects, and a
// listener that does not accept.
func traffic(addr string) error {
	in, err := net.ListenPacket("udp4", addr+":0")
	if err != nil {
		return err
	}
	defer in.Close()
	for range 30 {
		if _, err := in.WriteTo([]byte("x"), in.LocalAddr()); err != nil {
			return err
		}
		if _, _, err := in.ReadFrom(make([]byte, 8)); err != nil {
			return err
		}
	}
	closed := &net.UDPAddr{IP: net.ParseIP(addr), Port: 9}
	for range 20 {
		if _, err := in.WriteTo([]byte("x"), closed); err != nil {
			return err
		}
	}
	for range 10 {
		if c, err := net.DialTimeout("tcp4", addr+":9", time.Second); err == nil {
			c.Close()
			return fmt.Errorf("somebody listens on port 9")
		}
	}
	return overflow(addr)
}

// overflow connects to a listener with a backlog of one until it is full.
func overflow(addr string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	sa := &unix.SockaddrInet4{}
	copy(sa.Addr[:], net.ParseIP(addr).To4())
	if err := unix.Bind(fd, sa); err != nil {
		return err
	}
	if err := unix.Listen(fd, 1); err != nil {
		return err
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		return err
	}
	for range 6 {
		if c, err := net.DialTimeout("tcp4", fmt.Sprintf("%s:%d", addr, name.(*unix.SockaddrInet4).Port), 200*time.Millisecond); err == nil {
			defer c.Close()
		}
	}
	return nil
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("Tcp: InSegs OutSegs\nTcp: 1 2\nUdp: A\nUdp: 3\n"))
	f.Add([]byte("TCP: inuse 1 orphan\nsockets: used 3\n"))
	f.Add([]byte("entries drop\n00000001 0000000a\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := newReading(numbers)
		r.pairs(b)
		r.lines(b)
		r.sockets(b)
		rows(b, func(name string, sum, first uint64) {
			if name == "" {
				t.Error("a column without a name")
			}
		})
		p := &poller{buf: b}
		p.softnet(new(signal.Batch))
	})
}

func BenchmarkCollect(b *testing.B) {
	p := newPoller(probetest.New(b).Env, Config{})
	batch := new(signal.Batch)
	b.ReportAllocs()
	for b.Loop() {
		batch.Samples = batch.Samples[:0]
		if err := p.collect(batch); err != nil {
			b.Fatal(err)
		}
	}
}
