package netstat

import (
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"huatuo/internal/probes/probetest"
	"huatuo/test/faults/netpair"
)

// TestKernelDrops runs TestDrops in a network namespace of its own.
func TestKernelDrops(t *testing.T) {
	p := newPair(t)
	c := exec.Command("ip", "netns", "exec", p.A.Name, os.Args[0], "-test.run=^TestDrops$", "-test.v")
	c.Env = append(os.Environ(), peerName+"="+p.B.Name, "HUATUO_NETSTAT_DEVICE="+p.B.Device, "HUATUO_NETSTAT_OWN="+p.A.Device)
	out, err := c.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	} else if testing.Verbose() {
		t.Logf("%s", out)
	}
}

// TestDrops has IP packets come that cannot be delivered, each sort in a known number.
func TestDrops(t *testing.T) {
	if os.Getenv(peerName) == "" {
		t.Skip("is run by TestKernelDrops, in a namespace")
	}
	in := &inside{t: t, env: probetest.New(t), peer: netpair.Side{Name: os.Getenv(peerName), Device: os.Getenv("HUATUO_NETSTAT_DEVICE"), Addr: "192.0.2.2"}}
	in.env.Start(Spec(), nil)
	own, err := net.InterfaceByName(os.Getenv("HUATUO_NETSTAT_OWN"))
	if err != nil {
		t.Fatal(err)
	}
	mac := own.HardwareAddr
	const name = "huatuo_ip_drops_total"
	for _, c := range []struct {
		what string
		do   func(*testing.T)
		want []moved
	}{
		{"10 packets with a wrong checksum", func(t *testing.T) {
			in.frames(t, mac, 10, func(b []byte) []byte { b[10]++; return b })
		}, []moved{{name, []string{"ipv4", "in_header"}, 10, 10}}},
		{"11 packets of an unknown protocol", func(t *testing.T) {
			in.frames(t, mac, 11, func(b []byte) []byte { b[9] = 253; return checked(b) })
		}, []moved{{name, []string{"ipv4", "in_protocol"}, 11, 11}}},
		{"12 packets that end early", func(t *testing.T) {
			in.frames(t, mac, 12, func(b []byte) []byte { b[2] = 1; return checked(b) }) // 256 bytes more than there are
		}, []moved{{name, []string{"ipv4", "in_truncated"}, 12, 12}}},
		{"13 packets for somebody else, where nothing is forwarded and there is a route", func(t *testing.T) {
			in.ip("route", "add", "198.51.100.0/24", "dev", own.Name)
			in.frames(t, mac, 13, func(b []byte) []byte { copy(b[16:], []byte{198, 51, 100, 9}); return checked(b) })
		}, []moved{{name, []string{"ipv4", "in_address"}, 13, 13}}},
		{"14 packets for an address without a route, where packets are forwarded", func(t *testing.T) {
			setting(t, "ip_forward", "1")
			in.frames(t, mac, 14, func(b []byte) []byte { copy(b[16:], []byte{203, 0, 113, 9}); return checked(b) })
		}, []moved{{name, []string{"ipv4", "in_no_route"}, 14, 14}}},
		{"15 datagrams to an address without a route", func(t *testing.T) {
			fd := datagrams(t)
			for range 15 {
				if err := unix.Sendto(fd, []byte("x"), 0, &unix.SockaddrInet4{Port: 9, Addr: [4]byte{203, 0, 113, 9}}); err != unix.ENETUNREACH {
					t.Errorf("sendto: %v, want ENETUNREACH", err)
				}
			}
		}, []moved{{name, []string{"ipv4", "out_no_route"}, 15, 15}}},
		{"16 large packets that may not be cut, for a link of small ones", func(t *testing.T) { in.tooLarge(t, own) }, []moved{
			{name, []string{"ipv4", "fragmentation"}, 16, 16}, {"huatuo_icmp_messages_total", []string{"ipv4", "transmit", "unreachable"}, 1, 16}}},
		{"17 first fragments without the others", func(t *testing.T) { in.fragments(t, mac) }, []moved{
			{name, []string{"ipv4", "reassembly"}, 17, 17}, {"huatuo_ip_fragments_memory_bytes", []string{"ipv4"}, 0, 0}}},
		{"40 datagrams for a queue with room for few", func(t *testing.T) { in.queueFull(t, own.Name) }, []moved{
			{name, []string{"ipv4", "out_discard"}, 20, 40}, {"huatuo_udp_drops_total", []string{"ipv4", "send_buffer"}, 20, 40}}},
	} {
		before := in.env.Gather()
		t.Run(c.what, c.do)
		eventually(t, in.env, c.what, before, c.want...)
	}
}

// checked gives an IPv4 header the right checksum.
func checked(b []byte) []byte {
	b[10], b[11] = 0, 0
	sum := uint32(0)
	for i := 0; i < 20; i += 2 {
		sum += uint32(b[i])<<8 | uint32(b[i+1])
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(b[10:], ^uint16(sum))
	return b
}

// frames sends n frames from the peer, with an IPv4 packet of 60 bytes that change
// may change: a datagram to port 9.
func (in *inside) frames(t *testing.T, to net.HardwareAddr, n int, change func([]byte) []byte) {
	t.Helper()
	err := in.peer.Do(func() error {
		i, err := net.InterfaceByName(in.peer.Device)
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		for k := range n {
			b := make([]byte, 60)
			copy(b, []byte{0x45, 0, 0, 60, 1, byte(k), 0, 0, 64, unix.IPPROTO_UDP})
			copy(b[12:], thereIP[:])
			copy(b[16:], hereIP[:])
			copy(b[20:], []byte{0, 9, 0, 9, 0, 40})
			frame := append(append(append([]byte{}, to...), i.HardwareAddr...), 0x08, 0x00)
			frame = append(frame, change(checked(b))...)
			if err := unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: i.Index}); err != nil {
				return fmt.Errorf("send frame: %w", err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func datagrams(t *testing.T) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// tooLarge has packets of 1000 bytes come for a bridge that takes 600.
func (in *inside) tooLarge(t *testing.T, own *net.Interface) {
	setting(t, "ip_forward", "1")
	in.ip("link", "add", "hbr0", "type", "veth", "peer", "name", "hbr1")
	in.ip("addr", "add", "10.77.0.1/24", "dev", "hbr0")
	in.ip("link", "set", "hbr0", "up", "mtu", "600")
	in.ip("link", "set", "hbr1", "up")
	t.Cleanup(func() { in.ip("link", "del", "hbr0") })
	in.ip("neigh", "add", "10.77.0.9", "lladdr", "02:00:00:00:00:09", "dev", "hbr0")
	in.frames(t, own.HardwareAddr, 16, func(b []byte) []byte {
		b = append(b, make([]byte, 940)...)
		binary.BigEndian.PutUint16(b[2:], 1000)
		b[6] = 0x40 // do not fragment
		copy(b[16:], []byte{10, 77, 0, 9})
		return checked(b)
	})
}

// fragments waits until they are no longer waited for, after a second.
func (in *inside) fragments(t *testing.T, mac net.HardwareAddr) {
	setting(t, "ipfrag_time", "1")
	in.frames(t, mac, 17, func(b []byte) []byte { b[6] = 0x20; return checked(b) }) // more follow
	if v, _ := probetest.Value(in.env.Gather(), fragmentMemory.Name, "ipv4"); v < 17*60 {
		t.Errorf("%s is %g while 17 packets wait", fragmentMemory.Name, v)
	}
	time.Sleep(1100 * time.Millisecond)
}

// queueFull sends more than a queueing discipline takes.
func (in *inside) queueFull(t *testing.T, device string) {
	out, err := exec.Command("tc", "qdisc", "add", "dev", device, "root", "tbf", "rate", "8kbit", "burst", "1600", "limit", "5000").CombinedOutput()
	if err != nil {
		t.Fatalf("tc: %v: %s", err, out)
	}
	t.Cleanup(func() { exec.Command("tc", "qdisc", "del", "dev", device, "root").Run() })
	in.ip("neigh", "replace", in.peer.Addr, "lladdr", "02:00:00:00:00:01", "dev", device)
	fd := datagrams(t)
	for range 40 {
		unix.Sendto(fd, make([]byte, 1200), 0, &unix.SockaddrInet4{Port: 9, Addr: thereIP})
	}
}

// TestKernelLimits compares what the host may have with the kernel's settings, and
// lowers one of them: TCP is under pressure at once.
func TestKernelLimits(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: run `make ktest` as root")
	}
	e := probetest.New(t)
	e.Start(Spec(), nil)
	s := e.Gather()
	for _, c := range []struct {
		name   string
		file   string
		place  int
		scale  float64
		labels []string
	}{
		{"huatuo_tcp_memory_limit_bytes", "ipv4/tcp_mem", 2, float64(os.Getpagesize()), nil},
		{"huatuo_tcp_orphans_limit", "ipv4/tcp_max_orphans", 0, 1, nil},
		{"huatuo_neighbor_limit", "ipv4/neigh/default/gc_thresh3", 0, 1, []string{"ipv4"}},
		{"huatuo_neighbor_limit", "ipv6/neigh/default/gc_thresh3", 0, 1, []string{"ipv6"}},
	} {
		b, err := os.ReadFile("/proc/sys/net/" + c.file)
		if err != nil {
			t.Fatal(err)
		}
		var want float64
		fmt.Sscan(strings.Fields(string(b))[c.place], &want)
		if v, ok := probetest.Value(s, c.name, c.labels...); !ok || v != want*c.scale {
			t.Errorf("%s%q is %g, %v; want %g", c.name, c.labels, v, ok, want*c.scale)
		}
	}
	pressed(t, e)
}

// pressed fills buffers of the host while little of them is thought to be much. The
// maximum stays: nobody fails for that.
func pressed(t *testing.T, e *probetest.Env) {
	b, err := os.ReadFile("/proc/sys/net/ipv4/tcp_mem")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	full := func(t *testing.T) func() {
		c, s := pairOn(t, l)
		fill(t, c)
		return func() { c.SetLinger(0); c.Close(); s.Close() }
	}
	before := e.Gather()
	pressures := func() float64 {
		v, _ := probetest.Value(e.Gather(), "huatuo_tcp_memory_pressures_total")
		return v
	}
	seconds := func() float64 {
		v, _ := probetest.Value(e.Gather(), "huatuo_tcp_memory_pressure_seconds_total")
		return v
	}
	was, since := pressures(), seconds()
	// A socket of another namespace may be first to come under pressure, or to leave it, and counts there.
	for try := 0; try < 10 && (pressures() == was || seconds() == since); try++ {
		full(t)() // with the limits as they are nobody is under pressure after this
		t.Run("low", func(t *testing.T) {
			probetest.Set(t, "/proc/sys/net/ipv4/tcp_mem", "1 2 "+strings.Fields(string(b))[2])
			for range 8 { // each CPU keeps a MiB that is not in the sum
				defer full(t)()
				if pressures() > was {
					break
				}
			}
			if v, _ := probetest.Value(e.Gather(), "huatuo_tcp_memory_bytes"); v < 64<<10 {
				t.Errorf("huatuo_tcp_memory_bytes is %g while buffers are full", v)
			}
		})
		full(t)()
	}
	eventually(t, e, "TCP with less memory than it uses", before, moved{"huatuo_tcp_memory_pressures_total", nil, 1, 0}, moved{"huatuo_tcp_memory_pressure_seconds_total", nil, 0.001, 60})
}

// fill writes until nothing more fits.
func fill(t *testing.T, c *net.TCPConn) {
	t.Helper()
	if err := c.SetWriteDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	for buf := make([]byte, 64<<10); ; {
		if _, err := c.Write(buf); err != nil {
			return
		}
	}
}
