package netstat

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"testing"
	"time"

	"huatuo/internal/probes/probetest"
	"huatuo/internal/signal"
	"huatuo/test/faults/netpair"
)

// peerName, in the environment, is the namespace on the other side.
const peerName = "HUATUO_NETSTAT_PEER"

// TestKernelInside runs TestInside in a network namespace of its own: nobody
// else moves its counters.
func TestKernelInside(t *testing.T) {
	p := newPair(t)
	c := exec.Command("ip", "netns", "exec", p.A.Name, os.Args[0], "-test.run=^TestInside$", "-test.v")
	c.Env = append(os.Environ(), peerName+"="+p.B.Name, "HUATUO_NETSTAT_DEVICE="+p.B.Device)
	out, err := c.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// inside is the state of TestInside.
type inside struct {
	t    *testing.T
	env  *probetest.Env
	peer netpair.Side
}

// TestInside makes connections slow, lost and stuck in a known number.
func TestInside(t *testing.T) {
	if os.Getenv(peerName) == "" {
		t.Skip("is run by TestKernelInside, in a namespace")
	}
	in := &inside{t: t, env: probetest.New(t), peer: netpair.Side{Name: os.Getenv(peerName), Device: os.Getenv("HUATUO_NETSTAT_DEVICE"), Addr: "192.0.2.2"}}
	in.env.Start(Spec(), nil)
	in.ip("route", "add", "198.51.100.0/24", "via", in.peer.Addr) // which does not forward
	for _, c := range []struct {
		what string
		do   func()
		want []moved
	}{
		{"a SYN that nobody answers, for 3.5 s", in.unanswered, []moved{
			{"huatuo_tcp_syn_retransmits_total", nil, 2, 3}, {"huatuo_tcp_timeouts_total", nil, 2, 3}, {"huatuo_tcp_opens_total", []string{"active"}, 1, 1},
			{"huatuo_tcp_segments_retransmitted_total", nil, 2, 3},
		}},
		{"30 connections closed from here", in.closed, []moved{
			{"huatuo_tcp_time_wait", nil, 30, 30}, {"huatuo_tcp_opens_total", []string{"active"}, 30, 30}, {"huatuo_tcp_established_resets_total", nil, 0, 0},
		}},
		{"a reader that does not read, and then does", in.stuck, []moved{
			{"huatuo_tcp_zero_windows_total", []string{"closed"}, 1, 100}, {"huatuo_tcp_zero_windows_total", []string{"opened"}, 1, 100},
		}},
		{"a peer that does not read", in.probing, []moved{{"huatuo_tcp_window_probes_total", nil, 1, 10}}},
		{"an idle connection with probes each second", in.idle, []moved{{"huatuo_tcp_keepalives_total", nil, 1, 3}}},
		{"an accept queue of two that six want", func() {
			if err := overflow("127.0.0.1"); err != nil {
				t.Fatal(err)
			}
		}, []moved{{"huatuo_tcp_listen_overflows_total", nil, 1, 20}, {"huatuo_tcp_listen_drops_total", nil, 1, 20}}},
		{"a peer that is gone", in.gone, []moved{
			{"huatuo_tcp_timeouts_total", nil, 1, 6}, {"huatuo_tcp_segments_retransmitted_total", nil, 1, 8},
		}},
	} {
		before := in.env.Gather()
		c.do()
		in.check(c.what, before, c.want)
	}
}

// moved says how far a metric is to move.
type moved struct {
	name   string
	labels []string
	lo, hi float64
}

func (in *inside) check(what string, before []signal.Sample, want []moved) {
	in.t.Helper()
	after := in.env.Gather()
	for _, m := range want {
		was, _ := probetest.Value(before, m.name, m.labels...)
		is, ok := probetest.Value(after, m.name, m.labels...)
		if d := is - was; !ok || d < m.lo || d > m.hi {
			in.t.Errorf("%s: %s%q moved by %g, want %g to %g", what, m.name, m.labels, d, m.lo, m.hi)
		}
	}
}

func (in *inside) ip(args ...string) {
	in.t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		in.t.Fatalf("ip %v: %v: %s", args, err, out)
	}
}

// pair connects this side and the peer, whose end listened.
func (in *inside) pair() (here, there *net.TCPConn) {
	in.t.Helper()
	var l net.Listener
	err := in.peer.Do(func() (err error) {
		l, err = net.Listen("tcp4", in.peer.Addr+":0")
		return err
	})
	if err != nil {
		in.t.Fatal(err)
	}
	defer l.Close()
	return pairOn(in.t, l)
}

func (in *inside) unanswered() {
	if c, err := net.DialTimeout("tcp4", "198.51.100.1:80", 3500*time.Millisecond); err == nil {
		c.Close()
		in.t.Fatal("somebody answered")
	}
}

func (in *inside) closed() {
	for range 30 {
		here, there := in.pair()
		here.Close() // first: the side that waits
		if _, err := there.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			in.t.Fatal(err)
		}
		there.Close()
	}
	time.Sleep(100 * time.Millisecond) // the last acknowledgement
}

// fill writes until nothing more fits.
func (in *inside) fill(c *net.TCPConn) (n int) {
	in.t.Helper()
	buf := make([]byte, 64<<10)
	for {
		if err := c.SetWriteDeadline(time.Now().Add(300 * time.Millisecond)); err != nil {
			in.t.Fatal(err)
		}
		k, err := c.Write(buf)
		if n += k; err != nil {
			return n
		}
	}
}

func (in *inside) stuck() {
	here, there := in.pair()
	defer here.Close()
	defer there.Close()
	if _, err := io.CopyN(io.Discard, here, int64(in.fill(there))); err != nil {
		in.t.Fatal(err)
	}
}

func (in *inside) probing() {
	here, there := in.pair()
	defer here.Close()
	defer there.Close()
	in.fill(here)
	time.Sleep(time.Second) // the first probe comes after one timeout, 0.2 s
}

func (in *inside) idle() {
	here, there := in.pair()
	defer here.Close()
	defer there.Close()
	if err := here.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: time.Second, Interval: time.Second, Count: 9}); err != nil {
		in.t.Fatal(err)
	}
	time.Sleep(2500 * time.Millisecond)
}

func (in *inside) gone() {
	here, there := in.pair()
	defer there.Close()
	in.ip("-n", in.peer.Name, "addr", "del", in.peer.Addr+"/24", "dev", in.peer.Device)
	if _, err := fmt.Fprint(here, "lost"); err != nil {
		in.t.Fatal(err)
	}
	time.Sleep(1500 * time.Millisecond) // timeouts after 0.2, 0.6, 1.4 s
	here.Close()                        // with data that nobody has acknowledged
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if v, _ := probetest.Value(in.env.Gather(), "huatuo_tcp_orphans"); v >= 1 { // of all namespaces
			return
		}
		if time.Now().After(end) {
			in.t.Error("huatuo_tcp_orphans is 0 after a close with data unacknowledged")
			return
		}
	}
}
