package tcpretrans

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"huatuo/internal/kern/load"
	"huatuo/internal/probes/probetest"
	"huatuo/internal/signal"
	"huatuo/test/faults/netpair"
)

// TestMain lets the test binary be its own helper: a client in a cgroup and a
// network namespace that connects, and sends when it is told.
func TestMain(m *testing.M) {
	addr := os.Getenv("HUATUO_TEST_CONNECT")
	if addr == "" {
		os.Exit(m.Run())
	}
	in := bufio.NewReader(os.Stdin)
	in.ReadString('\n') // it is in its cgroup now
	c, err := net.Dial("tcp", addr)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(c.LocalAddr().(*net.TCPAddr).Port)
	in.ReadString('\n') // packets are lost now
	c.Write(make([]byte, 100))
	io.Copy(io.Discard, in)
}

func newPair(t testing.TB) *netpair.Pair {
	t.Helper()
	for _, tool := range []string{"ip", "iptables"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s: install iproute2 and iptables", tool)
		}
	}
	p, err := netpair.New(fmt.Sprintf("htr%d", os.Getpid()%100000))
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

// serve accepts and reads in the namespace until the test ends.
func serve(t testing.TB, s *netpair.Side, port int) {
	t.Helper()
	var l net.Listener
	err := s.Do(func() (err error) {
		l, err = net.Listen("tcp", fmt.Sprintf(":%d", port))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { defer c.Close(); io.Copy(io.Discard, c) })
		}
	})
	t.Cleanup(func() { l.Close() })
}

// client is a connection of a process in a cgroup.
type client struct {
	port  int
	stdin io.WriteCloser
}

func connect(t *testing.T, s *netpair.Side, cg *probetest.Cgroup, addr string) *client {
	t.Helper()
	c := exec.Command("ip", "netns", "exec", s.Name, os.Args[0])
	c.Env = append(os.Environ(), "HUATUO_TEST_CONNECT="+addr)
	c.Stderr = os.Stderr
	stdin, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stdin.Close(); c.Process.Kill(); c.Wait() })
	cg.Add(t, c.Process.Pid)
	fmt.Fprintln(stdin)
	cl := &client{stdin: stdin}
	if _, err := fmt.Fscan(stdout, &cl.port); err != nil {
		t.Fatalf("client does not connect: %v", err)
	}
	return cl
}

// TestKernel loses segments in namespaces of its own, by each kind of hook and ring.
func TestKernel(t *testing.T) {
	probetest.NeedDefaultHierarchy(t)
	probetest.Rungs(t, func(t *testing.T, o load.Options) { testLoss(t, o, o.Ring == "ringbuf") })
}

func testLoss(t *testing.T, o load.Options, all bool) {
	env := probetest.NewKernel(t, o)
	cfg := Spec().Config.(Config)
	cfg.Rate = 0
	env.Start(Spec(), cfg)
	for _, h := range env.Hooks() {
		if h.By != o.Kinds[0] {
			t.Fatalf("hook %+v: want it by %s", h, o.Kinds[0])
		}
	}
	p := newPair(t)
	serve(t, &p.B, 4242)
	lost(t, env, p)
	if all {
		handshake(t, env, p)
		hole(t, env, p)
	}
	if err := env.Stop(); err != nil {
		t.Fatal(err)
	}
	loss := env.Loss()
	var dropped uint64
	for _, n := range loss.Dropped {
		dropped += n
	}
	if got := uint64(len(env.Records())); loss.Observed != got+dropped {
		t.Errorf("observed %d, but %d records and %v lost", loss.Observed, got, loss.Dropped)
	}
}

// lost cuts a connection off: a loss probe and timeouts follow.
func lost(t *testing.T, env *probetest.Env, p *netpair.Pair) {
	cg := probetest.NewCgroup(t, fmt.Sprintf("huatuo-test-tcpretrans-%d", os.Getpid()))
	c := connect(t, &p.A, cg, p.B.Addr+":4242")
	if err := p.B.Run("iptables", "-A", "INPUT", "-p", "tcp", "--sport", fmt.Sprint(c.port), "-j", "DROP"); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(c.stdin)
	r := env.WaitRecord(func(r *signal.Record) bool {
		b := r.Body.(*TCPRetransmit)
		return b.Netns == p.A.Inode && int(b.SourcePort) == c.port
	})
	b := r.Body.(*TCPRetransmit)
	if b.RetransmitKind != "tlp" || b.Source != p.A.Addr || b.Destination != p.B.Addr || b.DestinationPort != 4242 || b.SocketState != "ESTABLISHED" ||
		b.Length != 100 || b.TCPSeq == 0 || b.Error != "" || b.RTTSeconds <= 0 || b.RTTSeconds > 1 || b.Cwnd == 0 || b.MSS < 500 || b.PacketsOut != 1 {
		t.Errorf("first %+v", b)
	}
	if r.CgroupID != cg.ID {
		t.Errorf("cgroup %d, want %d", r.CgroupID, cg.ID)
	}
	if d := time.Since(r.Time); d < 0 || d > 30*time.Second {
		t.Errorf("the event is %v old", d)
	}
	// The timeouts of the first second make no event of their own: this one tells of them.
	next := env.WaitRecord(func(o *signal.Record) bool {
		b := o.Body.(*TCPRetransmit)
		return b.Netns == p.A.Inode && int(b.SourcePort) == c.port && o.Time.After(r.Time)
	})
	if b := next.Body.(*TCPRetransmit); b.RetransmitKind != "rto" || b.Timeouts == 0 || next.Severity != signal.Warning || next.Suppressed == 0 ||
		next.Time.Sub(r.Time) < time.Second {
		t.Errorf("next, %v later: %+v", next.Time.Sub(r.Time), b)
	}
	samples := env.Gather()
	if n, _ := probetest.WorkloadValue(samples, containerRetransmits.Name, cg.ID); n < 3 {
		t.Errorf("%v retransmissions of the cgroup, want 3 at least", n)
	}
	for _, kind := range []string{"tlp", "rto"} {
		if n, _ := probetest.Value(samples, retransmits.Name, kind); n < 1 {
			t.Errorf("%v of kind %s", n, kind)
		}
	}
	c.stdin.Close()
}

// handshake loses the answers of two connections: over IPv4 the peer's segments on
// their way, so that both ends send again, and over IPv6 there is no way back
// at all.
func handshake(t *testing.T, env *probetest.Env, p *netpair.Pair) {
	serve(t, &p.B, 4244)
	if err := p.A.Run("iptables", "-A", "INPUT", "-p", "tcp", "--sport", "4244", "-j", "DROP"); err != nil {
		t.Error(err)
		return
	}
	if err := p.B.Run("ip", "-6", "route", "add", "blackhole", p.A.Addr6+"/128"); err != nil {
		t.Error(err)
		return
	}
	var wg sync.WaitGroup
	for _, addr := range []string{p.B.Addr + ":4244", "[" + p.B.Addr6 + "]:4244"} {
		wg.Go(func() {
			err := p.A.Do(func() error {
				c, err := net.DialTimeout("tcp", addr, 2500*time.Millisecond)
				if err == nil {
					c.Close()
					return errors.New("connected, but the way back is closed")
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, want := range []struct {
		kind      string
		netns     uint32
		src, dest string
	}{
		{"syn", p.A.Inode, p.A.Addr, p.B.Addr}, {"syn", p.A.Inode, p.A.Addr6, p.B.Addr6}, {"synack", p.B.Inode, p.B.Addr, p.A.Addr},
	} {
		r := env.WaitRecord(func(r *signal.Record) bool {
			b := r.Body.(*TCPRetransmit)
			return b.RetransmitKind == want.kind && b.Netns == want.netns && b.Source == want.src && b.Destination == want.dest
		})
		if b := r.Body.(*TCPRetransmit); b.SourcePort != 4244 && b.DestinationPort != 4244 || r.Severity != signal.Warning || b.SocketState == "" {
			t.Errorf("%s: %+v", want.kind, b)
		}
	}
}

// hole loses one segment among others: acknowledgements show it. It is the one
// that is marked as urgent, which the simplest of filters can tell.
func hole(t *testing.T, env *probetest.Env, p *netpair.Pair) {
	serve(t, &p.B, 4243)
	time.Sleep(1100 * time.Millisecond) // the kernel may give the new socket the place of one that just had its event
	if err := p.B.Run("iptables", "-A", "INPUT", "-p", "tcp", "--dport", "4243", "--tcp-flags", "URG", "URG", "-j", "DROP"); err != nil {
		t.Error(err)
		return
	}
	var conn *net.TCPConn
	err := p.A.Do(func() error {
		c, err := net.DialTimeout("tcp4", p.B.Addr+":4243", 5*time.Second)
		if err == nil {
			conn = c.(*net.TCPConn)
		}
		return err
	})
	if err != nil {
		t.Error(err)
		return
	}
	defer conn.Close()
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Error(err)
		return
	}
	msg := make([]byte, 100)
	for n := range 20 { // each a segment of its own
		if n == 5 {
			raw.Control(func(fd uintptr) { _, err = unix.SendmsgN(int(fd), msg[:1], nil, nil, unix.MSG_OOB) })
		} else {
			_, err = conn.Write(msg)
		}
		if err != nil {
			t.Error(err)
			return
		}
		time.Sleep(2 * time.Millisecond)
	}
	r := env.WaitRecord(func(r *signal.Record) bool {
		b := r.Body.(*TCPRetransmit)
		return b.Netns == p.A.Inode && b.DestinationPort == 4243
	})
	if b := r.Body.(*TCPRetransmit); b.RetransmitKind != "fast" || b.Length != 1 || b.LostOut == 0 {
		t.Errorf("retransmission %+v, want the one byte", b)
	}
}

// TestKernelQuiet sends over a pair that loses nothing.
func TestKernelQuiet(t *testing.T) {
	env := probetest.NewKernel(t, load.Options{})
	env.Start(Spec(), nil)
	p := newPair(t)
	serve(t, &p.B, 4242)
	err := p.A.Do(func() error {
		c, err := net.DialTimeout("tcp4", p.B.Addr+":4242", 5*time.Second)
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write(make([]byte, 100<<10))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(300 * time.Millisecond)
	if err := env.Stop(); err != nil {
		t.Fatal(err)
	}
	for _, r := range env.Records() {
		b := r.Body.(*TCPRetransmit)
		if b.RetransmitKind == "tlp" { // on a machine that is slow the answer may be late
			continue
		}
		if b.Netns == p.A.Inode || b.Netns == p.B.Inode {
			t.Errorf("event without a loss: %s", r.Title)
		}
	}
}

// TestKernelForms loads the program for kernels that tell no error, which this
// kernel takes as well.
func TestKernelForms(t *testing.T) {
	env := probetest.NewKernel(t, load.Options{})
	for _, kind := range []string{"btf", "raw"} {
		spec, err := loadBpf()
		if err != nil {
			t.Fatal(err)
		}
		l, err := env.Kernel.New(spec)
		if err != nil {
			t.Fatal(err)
		}
		o, err := l.Attach(load.Hook{Name: "tcp_retransmit_skb", Programs: []string{"tcp_retransmit_skb_2_" + kind}})
		if err != nil {
			t.Errorf("%s: %v", kind, err)
			continue
		}
		b := &signal.Batch{}
		if err := collect(b, o, nil, false); err != nil || len(b.Samples) != len(kinds) {
			t.Errorf("%s: %d samples, %v: want one for each kind and none of failures", kind, len(b.Samples), err)
		}
		o.Close()
	}
}
