package e2e

import (
	bits "encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"huatuo/internal/signal"
	"huatuo/test/faults/netpair"
)

// repeats is how often each packet of TestNormalDrops is lost.
const repeats = 20

// normalDrops are packets that any host drops and nobody misses; docs/guide/noise.md
// tells why. Each loses packets in a side of the pair, at least so many when it is
// done repeats times: the program has to learn places that give no reason first,
// and newer kernels do not count all of these as drops.
var normalDrops = []struct {
	name  string
	least float64
	drop  func(p *netpair.Pair, i int) error
}{
	{"a UDP socket is closed with data unread", repeats / 2, func(p *netpair.Pair, _ int) error {
		return p.B.Do(closeDatagram)
	}},
	{"a TCP connection is closed with data unread, and more under way", repeats / 2, func(p *netpair.Pair, _ int) error {
		return p.B.Do(func() error { return closeUnread("127.0.0.1:0") })
	}},
	{"multicast that nobody has joined", repeats, func(p *netpair.Pair, _ int) error {
		return p.A.Do(func() error {
			frame, err := frameTo(p, net.HardwareAddr{0x01, 0, 0x5e, 1, 2, 3}, unix.ETH_P_IP, ipv4Header(net.IPv4(239, 1, 2, 3)))
			return errors.Join(err, transmit(p.A.Device, frame))
		})
	}},
	{"multicast of IPv6 that nobody has joined", repeats, func(p *netpair.Pair, _ int) error {
		return p.A.Do(func() error {
			frame, err := frameTo(p, net.HardwareAddr{0x33, 0x33, 0, 0, 0x12, 0x34}, unix.ETH_P_IPV6, ipv6Header(net.ParseIP("ff02::1234")))
			return errors.Join(err, transmit(p.A.Device, frame))
		})
	}},
	{"a VLAN that no device here has", repeats, func(p *netpair.Pair, i int) error {
		return p.A.Do(func() error {
			tagged := append([]byte{0, byte(77 + i), 8, 0}, ipv4Header(net.ParseIP(p.B.Addr))...)
			frame, err := frameTo(p, nil, unix.ETH_P_8021Q, tagged)
			return errors.Join(err, transmit(p.A.Device, frame))
		})
	}},
	{"LLDP, which nobody here speaks", repeats, func(p *netpair.Pair, _ int) error {
		return p.A.Do(func() error {
			frame, err := frameTo(p, net.HardwareAddr{0x01, 0x80, 0xc2, 0, 0, 0x0e}, 0x88cc, make([]byte, 46))
			return errors.Join(err, transmit(p.A.Device, frame))
		})
	}},
	{"a frame for another host", repeats, func(p *netpair.Pair, _ int) error {
		return p.A.Do(func() error {
			frame, err := frameTo(p, net.HardwareAddr{2, 0, 0, 0, 0, 9}, unix.ETH_P_IP, ipv4Header(net.ParseIP(p.B.Addr)))
			return errors.Join(err, transmit(p.A.Device, frame))
		})
	}},
	{"ARP for another host", 0, func(p *netpair.Pair, _ int) error {
		return p.A.Do(func() error {
			arp := make([]byte, 46)
			copy(arp, []byte{0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 7, 192, 0, 2, 1, 0, 0, 0, 0, 0, 0, 192, 0, 2, 77})
			frame, err := frameTo(p, net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, unix.ETH_P_ARP, arp)
			return errors.Join(err, transmit(p.A.Device, frame))
		})
	}},
}

// TestNormalDrops: what is normal is counted and makes no event, however often
// it happens; what is not makes one, beside it.
func TestNormalDrops(t *testing.T) {
	a := start(t, "--set", "probes.netdrop.rate=0")
	p, err := netpair.New(fmt.Sprintf("hn%d", os.Getpid()%100000))
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Skipf("needs network namespaces and iproute2: %v", err)
	}
	reported := map[string]bool{}
	for _, tt := range normalDrops {
		before := counter(t, a, "huatuo_network_drops_total", `normal="true"`)
		for i := range repeats {
			if err := tt.drop(p, i); err != nil {
				t.Fatalf("%s: %v", tt.name, err)
			}
		}
		a.eventually(10*time.Second, tt.name, func() error {
			if n := counter(t, a, "huatuo_network_drops_total", `normal="true"`) - before; n < tt.least {
				return fmt.Errorf("%v counted as normal, want %v or more", n, tt.least)
			}
			return nil
		})
		began := time.Now()
		if err := p.B.Do(func() error { return refusal("127.0.0.1:9") }); err != nil {
			t.Fatal(err)
		}
		var seen []*signal.Document
		a.eventually(10*time.Second, "the event of a drop that is not normal", func() error {
			if seen = dropsIn(t, a, p.B.Inode); !slices.ContainsFunc(seen, func(d *signal.Document) bool { return !d.Time.Before(began) && reasonOf(t, d) == "NO_SOCKET" }) {
				return fmt.Errorf("none of %d", len(seen))
			}
			return nil
		})
		for _, d := range append(seen, dropsIn(t, a, p.A.Inode)...) {
			if r := reasonOf(t, d); r != "NO_SOCKET" && !reported[d.ID] {
				reported[d.ID] = true
				t.Errorf("%s: an event: %s (%s)", tt.name, d.Title, r)
			}
		}
	}
	a.balanced()
}

// dropsIn are the events of a network namespace.
func dropsIn(t *testing.T, a *agent, netns uint32) []*signal.Document {
	t.Helper()
	var page signal.EventPage
	a.json(fmt.Sprintf("/api/v1/events?limit=500&kind=packet_drop&field.netns=%d", netns), &page)
	return page.Events
}

func reasonOf(t *testing.T, d *signal.Document) string {
	t.Helper()
	var f struct {
		Reason string `json:"reason"`
	}
	if err := json.Unmarshal(d.Fields, &f); err != nil {
		t.Fatal(err)
	}
	return f.Reason
}

// refusal sends a datagram to a closed port.
func refusal(addr string) error {
	c, err := net.Dial("udp", addr)
	if err != nil {
		return err
	}
	_, err = c.Write([]byte("x"))
	return errors.Join(err, c.Close())
}

// closeDatagram closes a socket with a datagram in its queue.
func closeDatagram() error {
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.WriteTo([]byte("unread"), c.LocalAddr()); err != nil {
		return err
	}
	return arrived(c)
}

// arrived waits until there is something to read, and leaves it there.
func arrived(c syscall.Conn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Read(func(fd uintptr) bool {
		_, _, err := unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT)
		return err == nil
	})
}

// closeUnread ends two connections on their server: one with data unread, and
// one whose client goes on sending. The kernel drops what comes then.
func closeUnread(addr string) error {
	l, err := net.Listen("tcp4", addr)
	if err != nil {
		return err
	}
	defer l.Close()
	for _, unread := range []bool{true, false} {
		if err := closeServed(l, unread); err != nil {
			return err
		}
	}
	return nil
}

func closeServed(l net.Listener, unread bool) error {
	c, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		return err
	}
	defer c.Close()
	s, err := l.Accept()
	if err != nil {
		return err
	}
	defer s.Close()
	if unread {
		if _, err := c.Write([]byte("unread")); err != nil {
			return err
		}
		if err := arrived(s.(*net.TCPConn)); err != nil {
			return err
		}
		return s.Close()
	}
	if err := s.Close(); err != nil {
		return err
	}
	if _, err := c.Read(make([]byte, 1)); err != io.EOF { // its end has come
		return fmt.Errorf("read: %v, want the end", err)
	}
	_, err = c.Write([]byte("late"))
	return err
}

// frameTo is an Ethernet frame from side A, to side B when dst is nil.
func frameTo(p *netpair.Pair, dst net.HardwareAddr, kind uint16, payload []byte) ([]byte, error) {
	i, err := net.InterfaceByName(p.A.Device)
	if err != nil {
		return nil, err
	}
	if dst == nil {
		err := p.B.Do(func() error {
			b, err := net.InterfaceByName(p.B.Device)
			if err == nil {
				dst = b.HardwareAddr
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	f := append(append([]byte(nil), dst...), i.HardwareAddr...)
	return append(bits.BigEndian.AppendUint16(f, kind), payload...), nil
}

// ipv4Header is a UDP datagram of 8 bytes without data.
func ipv4Header(dst net.IP) []byte {
	b := make([]byte, 46)
	copy(b, []byte{0x45, 0, 0, 28, 0, 0, 0, 0, 1, 17, 0, 0, 192, 0, 2, 1})
	copy(b[16:], dst.To4())
	var sum uint32
	for i := 0; i < 20; i += 2 {
		sum += uint32(bits.BigEndian.Uint16(b[i:]))
	}
	sum = sum&0xffff + sum>>16
	bits.BigEndian.PutUint16(b[10:], ^uint16(sum+sum>>16))
	copy(b[20:], []byte{0x30, 0x39, 0, 9, 0, 8, 0, 0})
	return b
}

func ipv6Header(dst net.IP) []byte {
	b := make([]byte, 48)
	copy(b, []byte{0x60, 0, 0, 0, 0, 8, 17, 1})
	copy(b[8:], net.ParseIP("2001:db8::1"))
	copy(b[24:], dst)
	copy(b[40:], []byte{0x30, 0x39, 0, 9, 0, 8, 0xff, 0xff})
	return b
}

// transmit sends a frame as it is.
func transmit(device string, frame []byte) error {
	i, err := net.InterfaceByName(device)
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: i.Index})
}
