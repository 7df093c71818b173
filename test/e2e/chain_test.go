package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"huatuo/internal/signal"
	"huatuo/test/faults/netpair"
	"huatuo/test/faults/slowdisk"
)

// chainPair is two network namespaces with a cable.
func chainPair(t *testing.T) *netpair.Pair {
	t.Helper()
	for _, tool := range []string{"ip", "iptables"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s: apt-get install iproute2 iptables", tool)
		}
	}
	p, err := netpair.New(fmt.Sprintf("ech%d", os.Getpid()%100000))
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

// linked follows the only link of an event to another kind.
func linked(t *testing.T, a *agent, d *signal.Document, kind, relation string) *signal.Document {
	t.Helper()
	i := slices.IndexFunc(d.Links, func(l signal.Link) bool { return l.Kind == kind && l.Relation == relation })
	if i < 0 {
		t.Fatalf("%s %q has no link to a %s that is its %s: %+v", d.Kind, d.Title, kind, relation, d.Links)
	}
	var other signal.Document
	a.json("/api/v1/events/"+d.Links[i].ID, &other)
	if other.Kind != kind || other.Title != d.Links[i].Title {
		t.Errorf("link %+v leads to %s %q", d.Links[i], other.Kind, other.Title)
	}
	return &other
}

// talk connects to a server in B and sends some bytes once before has been called.
func talk(t *testing.T, p *netpair.Pair, before func(port int)) {
	t.Helper()
	var l net.Listener
	if err := p.B.Do(func() (err error) { l, err = net.Listen("tcp4", p.B.Addr+":0"); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	var c net.Conn
	if err := p.A.Do(func() (err error) { c, err = net.Dial("tcp4", l.Addr().String()); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	before(c.LocalAddr().(*net.TCPAddr).Port)
	if _, err := c.Write(make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
}

func ofPort(port int, name string) func(*signal.Document) bool {
	return func(d *signal.Document) bool {
		var f map[string]any
		return json.Unmarshal(d.Fields, &f) == nil && f[name] == float64(port)
	}
}

// TestRetransmitDropped: a firewall of this host drops a segment, and TCP sends it again.
func TestRetransmitDropped(t *testing.T) {
	a := start(t, "--set", "probes.netdrop.rate=0")
	p := chainPair(t)
	for _, side := range []struct {
		name, what, field string
		drop              func(port int) error
	}{
		{"its acknowledgement on the way in", "a packet of the connection", "destination_port", func(port int) error {
			return p.A.Run("iptables", "-A", "INPUT", "-p", "tcp", "--dport", fmt.Sprint(port), "-j", "DROP")
		}},
		{"in another namespace of the host", "this segment", "source_port", func(port int) error {
			return p.B.Run("iptables", "-A", "INPUT", "-p", "tcp", "--sport", fmt.Sprint(port), "-j", "DROP")
		}},
	} {
		t.Run(side.name, func(t *testing.T) {
			port := 0
			talk(t, p, func(n int) {
				port = n
				if err := side.drop(n); err != nil {
					t.Fatal(err)
				}
			})
			d := a.event("tcp_retransmit", 15*time.Second, func(d *signal.Document) bool { // a SYN may have waited for the neighbour
				return ofPort(port, "source_port")(d) && strings.Contains(string(d.Fields), `"socket_state":"ESTABLISHED"`)
			})
			drop := linked(t, a, d, "packet_drop", signal.Cause)
			if !ofPort(port, side.field)(drop) || !strings.Contains(string(drop.Fields), `"NETFILTER_DROP"`) {
				t.Errorf("the drop %s", drop.Fields)
			}
			if !strings.HasPrefix(d.Verdict, "dropped on this host: "+side.what+", reason NETFILTER_DROP in nf") {
				t.Errorf("verdict %q", d.Verdict)
			}
			t.Log(d.Title, "|", d.Verdict)
		})
	}
}

// TestRetransmitOutside: the neighbour that has the address does not exist, so this host drops nothing.
func TestRetransmitOutside(t *testing.T) {
	a := start(t, "--set", "probes.netdrop.rate=0")
	p := chainPair(t)
	const nobody = "192.0.2.77"
	if err := p.A.Run("ip", "neigh", "add", nobody, "lladdr", "02:00:00:00:00:77", "dev", p.A.Device); err != nil {
		t.Fatal(err)
	}
	time.Sleep(3 * time.Second) // drops have to have been watched for the time that the verdict is about
	port := silentConnect(t, &p.A, nobody, 4243)
	d := a.event("tcp_retransmit", 15*time.Second, ofPort(port, "source_port"))
	if len(d.Links) != 0 || !strings.Contains(d.Verdict, "no local drop seen since ") || !strings.Contains(d.Verdict, "the loss is outside this host") {
		t.Errorf("verdict %q, links %+v", d.Verdict, d.Links)
	}
	t.Log(d.Title, "|", d.Verdict)
}

// silentConnect begins to connect to an address that does not answer, and returns the local port.
func silentConnect(t *testing.T, s *netpair.Side, addr string, to int) (port int) {
	t.Helper()
	var fd int
	err := s.Do(func() (err error) {
		if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		if err := unix.Connect(fd, &unix.SockaddrInet4{Port: to, Addr: [4]byte(net.ParseIP(addr).To4())}); err != unix.EINPROGRESS {
			return err
		}
		name, err := unix.Getsockname(fd)
		if err != nil {
			return err
		}
		port = name.(*unix.SockaddrInet4).Port
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return port
}

// TestRetransmitNotKnown: the drop is one of many, and the rate limit holds its event back.
func TestRetransmitNotKnown(t *testing.T) {
	a := start(t, "--set", "probes.netdrop.rate=1", "--set", "probes.netdrop.burst=1")
	p := chainPair(t)
	stop := make(chan struct{})
	flood := make(chan error, 1)
	if err := p.A.Run("iptables", "-A", "OUTPUT", "-p", "udp", "--dport", "4244", "-j", "DROP"); err != nil {
		t.Fatal(err)
	}
	go func() {
		flood <- p.A.Do(func() error {
			c, err := net.Dial("udp4", p.B.Addr+":4244")
			if err != nil {
				return err
			}
			defer c.Close()
			for {
				select {
				case <-stop:
					return nil
				case <-time.After(time.Millisecond):
					c.Write([]byte("x")) // EPERM: the firewall
				}
			}
		})
	}()
	t.Cleanup(func() {
		close(stop)
		if err := <-flood; err != nil {
			t.Error(err)
		}
	})
	time.Sleep(4 * time.Second)
	port := 0
	talk(t, p, func(n int) {
		port = n
		if err := p.A.Run("iptables", "-A", "INPUT", "-p", "tcp", "--dport", fmt.Sprint(n), "-j", "DROP"); err != nil {
			t.Fatal(err)
		}
	})
	// One of its drops may get through: not of each the drop is seen.
	d := a.event("tcp_retransmit", 30*time.Second, func(d *signal.Document) bool {
		return ofPort(port, "source_port")(d) && len(d.Links) == 0 && strings.Contains(string(d.Fields), `"socket_state":"ESTABLISHED"`)
	})
	var n int
	if _, err := fmt.Sscanf(d.Verdict, "not known: no local drop seen, but %d drop events were rate-limited or lost", &n); err != nil || n < 100 {
		t.Errorf("verdict %q: %v", d.Verdict, err)
	}
	t.Log(d.Title, "|", d.Verdict)
}

// TestListenOverflowDrops: the packets that a full listen queue dropped belong to its event.
func TestListenOverflowDrops(t *testing.T) {
	needRoot(t)
	p := chainPair(t)
	const backlog = 3
	var fd, port int
	err := p.B.Do(func() (err error) {
		if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte(net.ParseIP(p.B.Addr).To4())}); err != nil {
			return err
		}
		name, err := unix.Getsockname(fd)
		if err != nil {
			return err
		}
		port = name.(*unix.SockaddrInet4).Port
		return unix.Listen(fd, backlog)
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	// A namespace is found by a process in it; this one is in none but the host's.
	c := exec.Command("ip", "netns", "exec", p.B.Name, "sleep", "600")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Process.Kill(); c.Wait() })
	a := start(t, "--set", "probes.netdrop.rate=0", "--set", "probes.tcp.listen_interval=1s")
	// A backlog of 3 has room for four. Two are there; of three more that are in the handshake at
	// once, the last finds it full. Who comes later is turned away without a word.
	for range 2 {
		silentConnect(t, &p.A, p.B.Addr, port)
	}
	time.Sleep(200 * time.Millisecond)
	rule := []string{"INPUT", "-p", "tcp", "--sport", fmt.Sprint(port), "-j", "DROP"}
	if err := p.A.Run("iptables", append([]string{"-A"}, rule...)...); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		silentConnect(t, &p.A, p.B.Addr, port)
	}
	time.Sleep(1500 * time.Millisecond)
	if err := p.A.Run("iptables", append([]string{"-D"}, rule...)...); err != nil {
		t.Fatal(err)
	}
	d := a.event("listen_overflow", 30*time.Second, ofPort(port, "port"))
	var f struct{ Backlog int }
	if err := json.Unmarshal(d.Fields, &f); err != nil || f.Backlog != backlog {
		t.Errorf("backlog %d, %v", f.Backlog, err)
	}
	if !reasonKnown("TCP_LISTEN_OVERFLOW") {
		t.Skip("needs a kernel that gives the reason TCP_LISTEN_OVERFLOW")
	}
	drop := linked(t, a, d, "packet_drop", signal.Same)
	if !ofPort(port, "destination_port")(drop) || !strings.Contains(string(drop.Fields), `"TCP_LISTEN_OVERFLOW"`) {
		t.Errorf("the drop %s", drop.Fields)
	}
	t.Log(d.Title, "|", drop.Title)
}

// reasonKnown tells whether the kernel has a reason for drops, by its own list.
func reasonKnown(name string) bool {
	b, err := os.ReadFile("/sys/kernel/tracing/events/skb/kfree_skb/format")
	return err != nil || strings.Contains(string(b), name)
}

// TestHungDevice: a device does not answer; the request and the task that waits for it belong together.
func TestHungDevice(t *testing.T) {
	needRoot(t)
	a := start(t, "--set", "probes.hungtask.threshold=3s")
	d, err := slowdisk.Mount(t.TempDir(), 1<<20)
	if err != nil {
		t.Skipf("needs /dev/fuse: %v", err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	l, err := slowdisk.Attach(d.Path)
	if err != nil {
		t.Fatal(err)
	}
	d.Hold()
	c := exec.Command("dd", "if="+l.Dev, "of=/dev/null", "bs=4096", "count=1", "iflag=direct")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		d.Release()
		c.Process.Kill()
		c.Wait()
		l.Detach()
	})
	t.Cleanup(func() {
		if t.Failed() {
			_, b := a.get("/api/v1/events?limit=10&kind=hung_task")
			t.Log(b, c.Process.Pid)
		}
	})
	h := a.event("hung_task", 30*time.Second, func(d *signal.Document) bool { return d.Process != nil && int(d.Process.PID) == c.Process.Pid })
	var f struct {
		WaitsFor struct{ Kind, Device, Path string } `json:"waits_for"`
	}
	if err := json.Unmarshal(h.Fields, &f); err != nil || f.WaitsFor.Kind != "device" || f.WaitsFor.Device != filepath.Base(l.Dev) || f.WaitsFor.Path != l.Dev {
		t.Errorf("waits for %+v, %v", f.WaitsFor, err)
	}
	stall := linked(t, a, h, "io_stall", signal.Cause)
	if !strings.Contains(string(stall.Fields), `"device":"`+filepath.Base(l.Dev)+`"`) {
		t.Errorf("the request %s", stall.Fields)
	}
	if !strings.Contains(h.Verdict, "the device does not answer: "+stall.Title) {
		t.Errorf("verdict %q", h.Verdict)
	}
	t.Log(h.Title, "|", h.Verdict)
}
