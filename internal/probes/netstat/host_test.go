package netstat

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"huatuo/internal/probes/probetest"
	"huatuo/internal/signal"
)

// TestKernelHost does countable things on the loopback device. Others use the
// host's network too: counters move by that much or more, gauges by about that.
func TestKernelHost(t *testing.T) {
	e := probetest.New(t)
	e.Start(Spec(), nil)
	type moved struct {
		name   string
		labels []string
		by     float64
	}
	for _, c := range []struct {
		what string
		do   func(t *testing.T) (dropped int)
		want []moved
	}{
		{"100 refused connects", refused, []moved{
			{"huatuo_tcp_opens_total", []string{"active"}, 100}, {"huatuo_tcp_opens_failed_total", nil, 100}, {"huatuo_tcp_resets_transmitted_total", nil, 100},
			{"huatuo_tcp_segments_total", []string{"transmit"}, 200}, {"huatuo_tcp_segments_total", []string{"receive"}, 200},
		}},
		{"20 connections closed with data unread", func(t *testing.T) int { return aborted(t, false) }, []moved{
			{"huatuo_tcp_aborts_total", []string{"close"}, 20}, {"huatuo_tcp_established_resets_total", nil, 20}, {"huatuo_tcp_opens_total", []string{"passive"}, 20},
		}},
		{"20 connections closed without lingering", func(t *testing.T) int { return aborted(t, true) }, []moved{
			{"huatuo_tcp_aborts_total", []string{"data"}, 20}, {"huatuo_tcp_established_resets_total", nil, 20},
		}},
		{"30 datagrams to nobody", toNobody, []moved{
			{"huatuo_udp_no_ports_total", []string{"ipv4"}, 30}, {"huatuo_udp_datagrams_total", []string{"ipv4", "transmit"}, 30},
			{"huatuo_icmp_messages_total", []string{"ipv4", "transmit", "unreachable"}, 1}, // their number is limited
		}},
		{"500 datagrams of 1000 bytes to a full socket", flooded, []moved{
			{"huatuo_ip_packets_total", []string{"ipv4", "transmit"}, 500}, {"huatuo_ip_packets_total", []string{"ipv4", "deliver"}, 500},
			{"huatuo_ip_bytes_total", []string{"ipv4", "receive"}, 500 * 1028}, {"huatuo_udp_drops_total", []string{"ipv4", "receive_buffer"}, -1},
		}},
	} {
		t.Run(c.what, func(t *testing.T) {
			before := e.Gather()
			dropped := c.do(t)
			after := e.Gather()
			for _, m := range c.want {
				if m.by < 0 {
					m.by = float64(dropped)
				}
				was, _ := probetest.Value(before, m.name, m.labels...)
				is, ok := probetest.Value(after, m.name, m.labels...)
				if !ok || is-was < m.by {
					t.Errorf("%s%q moved by %g, want %g or more", m.name, m.labels, is-was, m.by)
				}
			}
			if d := softnetPackets(after) - softnetPackets(before); d < 20 {
				t.Errorf("huatuo_softnet_packets_total moved by %g", d)
			}
		})
	}
}

// softnetPackets sums the packets of all CPUs.
func softnetPackets(samples []signal.Sample) float64 {
	sum := 0.0
	for _, s := range samples {
		if s.Schema.Name == "huatuo_softnet_packets_total" {
			sum += s.Value
		}
	}
	return sum
}

// TestKernelSockets opens sockets: the gauges follow, give or take what others do.
func TestKernelSockets(t *testing.T) {
	e := probetest.New(t)
	e.Start(Spec(), nil)
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	before := e.Gather()
	for range 100 {
		c, s := pairOn(t, l)
		defer c.Close()
		defer s.Close()
		u, err := net.ListenPacket("udp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer u.Close()
	}
	after := e.Gather()
	for _, c := range []struct {
		name   string
		labels []string
		by     float64
	}{
		{"huatuo_tcp_connections", nil, 200},
		{"huatuo_sockets", nil, 300},
		{"huatuo_sockets_in_use", []string{"ipv4", "tcp"}, 200},
		{"huatuo_sockets_in_use", []string{"ipv4", "udp"}, 100},
		{"huatuo_tcp_sockets_allocated", nil, 200},
	} {
		was, _ := probetest.Value(before, c.name, c.labels...)
		is, ok := probetest.Value(after, c.name, c.labels...)
		if d := is - was; !ok || d < c.by*0.6 || d > c.by*1.4 {
			t.Errorf("%s%q moved by %g, want %g", c.name, c.labels, d, c.by)
		}
	}
}

// TestKernelDatagrams leaves 16 MiB of datagrams unread.
func TestKernelDatagrams(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root for a buffer of that size: run `make ktest` as root")
	}
	e := probetest.New(t)
	e.Start(Spec(), nil)
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	err = errors.Join(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20), unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	if err != nil {
		t.Fatal(err)
	}
	to, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	before, _ := probetest.Value(e.Gather(), "huatuo_udp_memory_bytes")
	const n, size = 8000, 2000
	for range n {
		if err := unix.Sendto(fd, make([]byte, size), 0, to); err != nil {
			t.Fatal(err)
		}
	}
	// With what the kernel has around each, and without a MiB that each CPU keeps to itself.
	if after, _ := probetest.Value(e.Gather(), "huatuo_udp_memory_bytes"); after-before < n*size/2 || after-before > 4*n*size {
		t.Errorf("huatuo_udp_memory_bytes moved by %g with %d bytes unread", after-before, n*size)
	}
}

func refused(t *testing.T) int {
	for range 100 {
		if c, err := net.Dial("tcp4", "127.0.0.1:9"); err == nil {
			c.Close()
			t.Skip("needs port 9 to be free: somebody listens there")
		}
	}
	return 0
}

// pairOn makes a connection to a listener and returns both ends.
func pairOn(t *testing.T, l net.Listener) (client, server *net.TCPConn) {
	t.Helper()
	c, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return c.(*net.TCPConn), s.(*net.TCPConn)
}

// aborted ends connections by a reset: with a byte that nobody reads, or with
// the order not to linger.
func aborted(t *testing.T, linger bool) int {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for range 20 {
		c, s := pairOn(t, l)
		if linger {
			err = s.SetLinger(0)
		} else {
			if _, err = c.Write([]byte("xx")); err == nil {
				_, err = io.ReadFull(s, make([]byte, 1)) // both have come then, and one is left
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		s.Close()
		c.Read(make([]byte, 1)) // the reset has come when this returns
		c.Close()
	}
	return 0
}

func toNobody(t *testing.T) int {
	t.Helper()
	u, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	for range 30 {
		if _, err := u.WriteTo([]byte("x"), &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9}); err != nil {
			t.Fatal(err)
		}
	}
	return 0
}

// flooded sends to a socket with the smallest buffer and returns how many
// datagrams did not find room.
func flooded(t *testing.T) int {
	t.Helper()
	const n = 500
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	err = errors.Join(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 1), unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	if err != nil {
		t.Fatal(err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	out, err := net.Dial("udp4", fmt.Sprintf("127.0.0.1:%d", name.(*unix.SockaddrInet4).Port))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	for range n {
		if _, err := out.Write(make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
	}
	got := 0
	for buf := make([]byte, 2000); ; got++ {
		if _, err := unix.Read(fd, buf); err != nil {
			break // EAGAIN: nothing is left
		}
	}
	if got > n/2 {
		t.Fatalf("%d of %d datagrams found room", got, n)
	}
	return n - got
}
