package netdev

import (
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"huatuo/internal/probes/probetest"
	"huatuo/internal/signal"
	"huatuo/test/faults/netpair"
)

// peerName, in the environment, is the namespace on the other side.
const peerName = "HUATUO_NETDEV_PEER"

// TestKernelInside runs TestInside in a network namespace of its own: nobody
// else moves its counters.
func TestKernelInside(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to make network namespaces: run `make ktest` as root")
	}
	p, err := netpair.New(fmt.Sprintf("hnd%d", os.Getpid()%100000))
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command("ip", "netns", "exec", p.A.Name, os.Args[0], "-test.run=^TestInside$", "-test.v")
	c.Env = append(os.Environ(), peerName+"="+p.B.Name, "HUATUO_NETDEV_DEVICES="+p.A.Device+" "+p.B.Device)
	out, err := c.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	} else if testing.Verbose() {
		t.Logf("%s", out)
	}
}

// inside is the state of TestInside.
type inside struct {
	t       *testing.T
	env     *probetest.Env
	device  string
	ifindex int
	peer    netpair.Side
}

// moved says how far a counter of a device is to move.
type moved struct {
	what   string
	device string
	lo, hi float64
}

// TestInside sends known numbers of packets that come, do not come, and are broken.
func TestInside(t *testing.T) {
	if os.Getenv(peerName) == "" {
		t.Skip("is run by TestKernelInside, in a namespace")
	}
	device, peer, _ := strings.Cut(os.Getenv("HUATUO_NETDEV_DEVICES"), " ")
	in := &inside{t: t, env: probetest.New(t), device: device, peer: netpair.Side{Name: os.Getenv(peerName), Device: peer, Addr: "192.0.2.2"}}
	if i, err := net.InterfaceByName(device); err != nil {
		t.Fatal(err)
	} else {
		in.ifindex = i.Index
	}
	in.env.Start(Spec(), Config{})
	const n = 40
	in.frames(n, func() { in.send(in.peer.Device, 0x0800, "ff:ff:ff:ff:ff:ff", 1000, n, true) })
	t.Run("unknown", func(t *testing.T) { in.unknown(t, n) })
	t.Run("large", func(t *testing.T) { in.large(t, n) })
	t.Run("multicast", func(t *testing.T) { in.multicast(t, n) })
	t.Run("tunnel", func(t *testing.T) { in.tunnel(t, n) })
	t.Run("tun", func(t *testing.T) { in.tun(t, n) })
}

// within does something and waits until the counters have moved so far.
func (in *inside) within(t *testing.T, what string, do func(), want ...moved) {
	t.Helper()
	before := in.env.Gather()
	do()
	var wrong []string
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		wrong = wrong[:0]
		after := in.env.Gather()
		for _, w := range want {
			if d := delta(before, after, w); d < w.lo || d > w.hi {
				wrong = append(wrong, fmt.Sprintf("%s: %s of %s moved by %g, want %g to %g", what, w.what, w.device, d, w.lo, w.hi))
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

func delta(before, after []signal.Sample, w moved) float64 {
	was, _ := probetest.Value(before, "huatuo_netdev_"+w.what+"_total", w.device)
	is, _ := probetest.Value(after, "huatuo_netdev_"+w.what+"_total", w.device)
	return is - was
}

// noise is how many packets of their own the devices may send meanwhile:
// neighbour and multicast listener discovery of IPv6.
const noise = 20

// frames counts what arrives whole.
func (in *inside) frames(n float64, do func()) {
	in.within(in.t, "40 frames of 1000 bytes from the peer", do,
		moved{"receive_packets", in.device, n, n + noise}, moved{"receive_bytes", in.device, 1000 * n, 1000*n + 200*noise}, moved{"receive_errors", in.device, 0, 0})
}

// unknown has frames of a protocol that nobody handles.
func (in *inside) unknown(t *testing.T, n float64) {
	in.within(t, "40 frames that nobody handles", func() { in.send(in.peer.Device, 0x88b5, "ff:ff:ff:ff:ff:ff", 100, int(n), true) },
		moved{"receive_drops", in.device, n, n + noise}, moved{"receive_packets", in.device, n, n + noise})
}

// large has frames that the other end does not take: it is of a smaller size.
func (in *inside) large(t *testing.T, n float64) {
	in.ip("-n", in.peer.Name, "link", "set", in.peer.Device, "mtu", "1280")
	defer in.ip("-n", in.peer.Name, "link", "set", in.peer.Device, "mtu", "1500")
	in.within(t, "40 frames too large for the peer", func() { in.send(in.device, 0x88b5, "ff:ff:ff:ff:ff:ff", 1400, int(n), false) },
		moved{"transmit_drops", in.device, n, n})
}

// multicast has frames to a group that come to a bridge.
func (in *inside) multicast(t *testing.T, n float64) {
	if err := in.try("link", "add", "hbr0", "type", "bridge", "mcast_snooping", "0"); err != nil {
		t.Skipf("needs bridges: a kernel with CONFIG_BRIDGE: %v", err)
	}
	defer in.ip("link", "del", "hbr0")
	in.ip("link", "set", "hbr0", "up")
	in.ip("link", "set", in.device, "master", "hbr0")
	defer in.ip("link", "set", in.device, "nomaster")
	in.within(t, "40 frames to a group", func() {
		in.send(in.peer.Device, 0x88b5, "01:00:5e:01:02:03", 100, int(n), true)
	}, moved{"receive_multicast", "hbr0", n, n + noise})
}

// tunnel has packets for a tunnel whose other end cannot be reached, and some
// from one that is broken.
func (in *inside) tunnel(t *testing.T, n float64) {
	if err := in.try("link", "add", "hvx0", "type", "vxlan", "id", "42", "remote", "198.51.100.1", "local", "192.0.2.1", "dstport", "4789"); err != nil {
		t.Skipf("needs VXLAN: a kernel with CONFIG_VXLAN: %v", err)
	}
	defer in.ip("link", "del", "hvx0")
	in.ip("link", "set", "hvx0", "up", "addrgenmode", "none")
	in.within(t, "40 frames for a tunnel without a route", func() {
		in.send("hvx0", 0x88b5, "02:00:00:00:00:01", 100, int(n), false)
	}, moved{"transmit_errors", "hvx0", n, n + noise}, moved{"transmit_carrier_errors", "hvx0", n, n + noise})

	in.ip("route", "add", "198.51.100.1/32", "dev", "hvx0")
	in.within(t, "40 frames for a tunnel that leads into itself", func() {
		in.send("hvx0", 0x88b5, "02:00:00:00:00:01", 100, int(n), false)
	}, moved{"transmit_errors", "hvx0", n, n + noise}, moved{"transmit_collisions", "hvx0", n, n + noise})

	// Marked as congested on the way, by a sender whose packets must not be.
	in.within(t, "40 packets of a tunnel with a mark of congestion that cannot be", func() { in.marked(t, int(n)) },
		moved{"receive_errors", "hvx0", n, n}, moved{"receive_frame_errors", "hvx0", n, n})
}

// marked sends packets to the tunnel's port with congestion experienced outside
// and no support for it inside.
func (in *inside) marked(t *testing.T, n int) {
	t.Helper()
	err := in.peer.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		const experienced = 3
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_TOS, experienced); err != nil {
			return err
		}
		b := make([]byte, 8+14+20+8)
		b[0], b[6] = 0x08, 42 // the VNI is there, and its last byte
		copy(b[8:], []byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00})
		copy(b[22:], []byte{0x45, 0, 0, 28, 0, 0, 0, 0, 64, unix.IPPROTO_UDP, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2})
		for range n {
			if err := unix.Sendto(fd, b, 0, &unix.SockaddrInet4{Port: 4789, Addr: [4]byte{192, 0, 2, 1}}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// tun has frames whose header is wrong from a device of this process's own.
func (in *inside) tun(t *testing.T, n float64) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skipf("needs /dev/net/tun: a kernel with CONFIG_TUN: %v", err)
	}
	defer unix.Close(fd)
	var r struct {
		name  [unix.IFNAMSIZ]byte
		flags uint16
		_     [22]byte
	}
	copy(r.name[:], "htun0")
	r.flags = unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TUNSETIFF, uintptr(unsafe.Pointer(&r))); errno != 0 {
		t.Fatal(errno)
	}
	in.ip("link", "set", "htun0", "up", "addrgenmode", "none", "txqueuelen", "10")
	b := make([]byte, 10+40)
	b[1] = 0x77 // of no kind of segmentation that there is
	b[10] = 0x45
	in.within(t, "40 frames with a broken header", func() {
		for range int(n) {
			if _, err := unix.Write(fd, b); err != unix.EINVAL {
				t.Fatalf("write: %v, want EINVAL", err)
			}
		}
	}, moved{"receive_frame_errors", "htun0", n, n})
	// Ten wait for a reader that does not come.
	in.within(t, "40 frames for a reader that does not read ten", func() { in.send("htun0", 0x0800, "", 100, int(n), false) },
		moved{"transmit_drops", "htun0", n - 10 - 2, n - 10 + 2})
}

func (in *inside) try(args ...string) error {
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("ip %v: %w: %s", args, err, out)
	}
	return nil
}

func (in *inside) ip(args ...string) {
	in.t.Helper()
	if err := in.try(args...); err != nil {
		in.t.Fatal(err)
	}
}

// send sends frames of a protocol by a device, here or at the peer. Without an
// address of their destination they are packets.
func (in *inside) send(device string, protocol uint16, to string, size, n int, there bool) {
	in.t.Helper()
	f := func() error {
		i, err := net.InterfaceByName(device)
		if err != nil {
			return err
		}
		kind := unix.SOCK_RAW
		frame := make([]byte, size)
		if to == "" {
			kind = unix.SOCK_DGRAM
			frame[0] = 0x45
		} else {
			mac, err := net.ParseMAC(to)
			if err != nil {
				return err
			}
			copy(frame, mac)
			copy(frame[6:], []byte{2, 0, 0, 0, 0, 9})
			binary.BigEndian.PutUint16(frame[12:], protocol)
		}
		fd, err := unix.Socket(unix.AF_PACKET, kind|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		for range n {
			big := protocol<<8 | protocol>>8
			err := unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: i.Index, Protocol: big})
			if err != nil && err != unix.ENOBUFS {
				return fmt.Errorf("send by %s: %w", device, err)
			}
		}
		return nil
	}
	if !there {
		if err := f(); err != nil {
			in.t.Fatal(err)
		}
		return
	}
	if err := in.peer.Do(f); err != nil {
		in.t.Fatal(err)
	}
}
