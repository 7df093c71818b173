package netdrop

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"huatuo/internal/kern/load"
	"huatuo/internal/kern/packetfilter"
	"huatuo/internal/probes/probetest"
	"huatuo/internal/signal"
	"huatuo/test/faults/netpair"
)

// TestKernelFilter loses packets of which a filter takes some, wherever in the
// stack they are lost: those make events, and all are counted.
func TestKernelFilter(t *testing.T) {
	probetest.Rungs(t, testFilter)
}

// send writes n bytes of UDP from a namespace.
func send(t *testing.T, s *netpair.Side, to string, n int) {
	t.Helper()
	err := s.Do(func() error {
		c, err := net.Dial("udp", to)
		if err != nil {
			return err
		}
		defer c.Close()
		_, _ = c.Write(make([]byte, n)) // EPERM where the firewall is on the way out
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// knock connects to a closed port.
func knock(t *testing.T, s *netpair.Side, to string) {
	t.Helper()
	err := s.Do(func() error {
		c, err := net.DialTimeout("tcp", to, time.Second)
		if err == nil {
			c.Close()
			return errors.New("somebody listens on " + to)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func testFilter(t *testing.T, o load.Options) {
	p := newPair(t)
	mac := linkAddress(t, &p.B)
	env := probetest.NewKernel(t, o)
	cfg := Spec().Config.(Config)
	cfg.Rate = 0
	// A condition on the length tells whether it is that of the whole frame,
	// although the packet is lost at another layer each time.
	cfg.Filter = strings.Join([]string{
		"(udp dst port 4242 and src net 192.0.2.0/24 and len = 142 and ether dst " + mac + ")",
		"(ip6 and udp dst port 4343 and len = 63)",
		"(dst port 9 and tcp[tcpflags] & tcp-syn != 0 and len = 74)",
		"(udp[2:2] = 4247 and len = 52)",
	}, " or ")
	env.Start(Spec(), cfg)
	for _, port := range []string{"4242", "4243"} {
		if err := p.B.Run("iptables", "-A", "INPUT", "-p", "udp", "--dport", port, "-j", "DROP"); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.A.Run("iptables", "-A", "OUTPUT", "-p", "udp", "--dport", "4246:4247", "-j", "DROP"); err != nil {
		t.Fatal(err)
	}
	counted := func() (n float64) {
		for _, x := range env.Gather() {
			if x.Schema == drops && x.Labels[2] != "true" {
				n += x.Value
			}
		}
		return n
	}
	before := counted()
	for range 2 {
		for _, to := range []string{":4243", ":4242"} { // the firewall, on the way in
			send(t, &p.A, p.B.Addr+to, 100)
		}
		send(t, &p.A, p.B.Addr+":4242", 99)
		for _, to := range []string{":4344", ":4343"} { // nobody there
			send(t, &p.A, "["+p.B.Addr6+"]"+to, 1)
		}
		for _, to := range []string{":10", ":9"} {
			knock(t, &p.A, p.B.Addr+to)
		}
		for _, to := range []string{":4246", ":4247"} { // the firewall, on the way out
			send(t, &p.A, p.B.Addr+to, 10)
		}
	}
	want := map[string]int{"udp 4242": 2, "udp 4343": 2, "tcp 9": 2, "udp 4247": 2}
	got := map[string]int{}
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end) && fmt.Sprint(got) != fmt.Sprint(want); time.Sleep(50 * time.Millisecond) {
		clear(got)
		for _, r := range env.Records() {
			if b := r.Body.(*PacketDrop); b.Netns == p.A.Inode || b.Netns == p.B.Inode {
				got[fmt.Sprintf("%s %d", b.Protocol, b.DestinationPort)]++
			}
		}
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("events %v, want %v", got, want)
	}
	if n := counted() - before; n < 18 {
		t.Errorf("%v drops counted, want 18 or, with what else this host does, more", n)
	}
	if err := env.Stop(); err != nil {
		t.Fatal(err)
	}
	loss := env.Loss()
	if n := loss.Dropped["filtered"]; n < 10 {
		t.Errorf("%d are told as filtered, want 10 at least", n)
	}
	var lost uint64
	for _, n := range loss.Dropped {
		lost += n
	}
	if n := uint64(len(env.Records())); loss.Observed != n+lost {
		t.Errorf("observed %d, but %d records and %v lost", loss.Observed, n, loss.Dropped)
	}
	for _, r := range env.Records() {
		if r.Suppressed > 0 {
			t.Errorf("%d told as suppressed: %s", r.Suppressed, r.Title)
		}
	}
}

func linkAddress(t *testing.T, s *netpair.Side) (mac string) {
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

// TestKernelFilterSocket: a segment that is lost before it has an IP header is
// judged by its socket.
func TestKernelFilterSocket(t *testing.T) {
	probetest.Rungs(t, func(t *testing.T, o load.Options) {
		p := newPair(t)
		env := probetest.NewKernel(t, o)
		cfg := Spec().Config.(Config)
		cfg.Rate = 0
		cfg.Filter = "tcp dst port 4252 and host " + p.A.Addr + " and dst host " + p.B.Addr
		env.Start(Spec(), cfg)
		other, conn := established(t, p, 4251), established(t, p, 4252)
		if err := p.A.Run("ip", "route", "flush", "dev", p.A.Device); err != nil {
			t.Fatal(err)
		}
		for _, c := range []net.Conn{other, conn} {
			if _, err := c.Write([]byte("lost")); err != nil {
				t.Fatal(err)
			}
		}
		r := env.WaitRecord(func(r *signal.Record) bool { return r.Body.(*PacketDrop).Netns == p.A.Inode })
		if b := r.Body.(*PacketDrop); b.DestinationPort != 4252 || b.TCPFlags != "" || b.Reason != toldReason(env, "IP_OUTNOROUTES") {
			t.Errorf("drop %+v: want that of port 4252 without a header", b)
		}
		if n := env.Loss().Dropped["filtered"]; n == 0 {
			t.Error("nothing is told as filtered")
		}
		for _, r := range env.Records() {
			if b := r.Body.(*PacketDrop); b.DestinationPort != 4252 {
				t.Errorf("the filter takes %s", r.Title)
			}
		}
	})
}

// established connects to a port of B.
func established(t *testing.T, p *netpair.Pair, port int) net.Conn {
	t.Helper()
	var l net.Listener
	var c net.Conn
	err := p.B.Do(func() (err error) {
		l, err = net.Listen("tcp4", fmt.Sprintf("%s:%d", p.B.Addr, port))
		return err
	})
	if err == nil {
		t.Cleanup(func() { l.Close() })
		err = p.A.Do(func() (err error) {
			c, err = net.DialTimeout("tcp4", l.Addr().String(), 5*time.Second)
			return err
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// TestFilterError: a wrong filter ends the probe with what is wrong.
func TestFilterError(t *testing.T) {
	env := probetest.NewKernel(t, load.Options{})
	cfg := Spec().Config.(Config)
	cfg.Filter = "tcp prt 443"
	var e *packetfilter.Error
	if err := env.TryStart(Spec(), cfg); !errors.As(err, &e) || e.Offset != 4 {
		t.Errorf("the probe says %v", err)
	}
}
