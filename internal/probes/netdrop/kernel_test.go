package netdrop

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"huatuo/internal/kern/ksym"
	"huatuo/internal/kern/load"
	"huatuo/internal/probes/probetest"
	"huatuo/internal/signal"
	"huatuo/test/faults/netpair"
)

// TestMain lets the test binary be its own helper: a process that has a UDP
// socket with a tiny buffer and does not read it.
func TestMain(m *testing.M) {
	if os.Getenv("HUATUO_TEST_LAZY_READER") == "" {
		os.Exit(m.Run())
	}
	in := bufio.NewReader(os.Stdin)
	in.ReadString('\n') // it is in its cgroup now
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	c.SetReadBuffer(2048)
	fmt.Println(c.LocalAddr().(*net.UDPAddr).Port)
	io.Copy(io.Discard, in)
}

func newPair(t *testing.T) *netpair.Pair {
	t.Helper()
	for _, tool := range []string{"ip", "iptables"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s: install iproute2 and iptables", tool)
		}
	}
	p, err := netpair.New(fmt.Sprintf("htd%d", os.Getpid()%100000))
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

// TestKernel loses packets in namespaces of its own, by each kind of hook and ring.
func TestKernel(t *testing.T) {
	probetest.NeedDefaultHierarchy(t)
	probetest.Rungs(t, testDrops)
}

func testDrops(t *testing.T, o load.Options) {
	env := probetest.NewKernel(t, o)
	syms := ksym.New("")
	env.Symbol = func(ip uint64) string { s, _ := syms.Lookup(ip); return s.Name }
	cfg := Spec().Config.(Config)
	cfg.Rate = 0 // all of them
	env.Start(Spec(), cfg)
	if h := env.Hooks(); len(h) != 1 || h[0].By != o.Kinds[0] {
		t.Fatalf("hooks %+v: want %s", h, o.Kinds[0])
	}

	p := newPair(t)
	refused(t, env, &p.B)
	filtered(t, env, p)
	ipv6(t, env, p)
	overrun(t, env)
	harmless(t, env, &p.B)

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

// toldReason is what the probe can say of one: nothing before kernels told (5.17).
func toldReason(env *probetest.Env, name string) string {
	if env.Kernel.TracepointArgs("kfree_skb") < 3 {
		return "UNKNOWN"
	}
	return name
}

// toldNormal is the label of an abnormal drop: without a reason the place has to tell.
func toldNormal(env *probetest.Env) string {
	if env.Kernel.TracepointArgs("kfree_skb") < 3 {
		return "unknown"
	}
	return "false"
}

// refusals returns the events of a namespace about port 9.
func refusals(env *probetest.Env, s *netpair.Side) []*signal.Record {
	var rs []*signal.Record
	for _, r := range env.Records() {
		if b := r.Body.(*PacketDrop); b.Netns == s.Inode && b.Reason == toldReason(env, "NO_SOCKET") && b.DestinationPort == 9 {
			rs = append(rs, r)
		}
	}
	return rs
}

// refused connects to a closed port 20 times: that is 20 drops, not 19 or 21.
func refused(t *testing.T, env *probetest.Env, s *netpair.Side) {
	err := s.Do(func() error {
		for range 20 {
			if c, err := net.DialTimeout("tcp4", "127.0.0.1:9", time.Second); err == nil {
				c.Close()
				return fmt.Errorf("somebody listens on port 9")
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(5 * time.Second); len(refusals(env, s)) < 20 && time.Now().Before(end); {
		time.Sleep(20 * time.Millisecond)
	}
	time.Sleep(400 * time.Millisecond) // one more would come now
	got := refusals(env, s)
	if len(got) != 20 {
		t.Fatalf("%d drops, want 20", len(got))
	}
	b := got[0].Body.(*PacketDrop)
	if b.Protocol != "tcp" || b.TCPFlags != "SYN" || b.TCPSeq == 0 || b.Source != "127.0.0.1" || b.DestinationPort != 9 || b.SourcePort == 0 ||
		b.Location != "tcp_v4_rcv" || b.Context != inSoftirq || b.Length < 40 {
		t.Errorf("drop %+v", b)
	}
	// Under load softirqs are a thread's: of 20 drops not all are told so.
	if !slices.ContainsFunc(got, func(r *signal.Record) bool {
		return r.Process.PID == 0 && strings.Contains(r.Body.(*PacketDrop).Interrupted, strconv.Itoa(os.Getpid()))
	}) {
		t.Errorf("process %+v, interrupted %q: want the softirq that interrupted this test", got[0].Process, b.Interrupted)
	}
	if len(got[0].KernelIPs) < 5 {
		t.Errorf("a stack of %d frames", len(got[0].KernelIPs))
	}
	if n, _ := probetest.Value(env.Gather(), drops.Name, toldReason(env, "NO_SOCKET"), "tcp", toldNormal(env)); n < 20 {
		t.Errorf("%v counted, want 20 or, with what else this host does, more", n)
	}
}

// filtered sends a datagram through the pair into a firewall.
func filtered(t *testing.T, env *probetest.Env, p *netpair.Pair) {
	if err := p.B.Run("iptables", "-A", "INPUT", "-p", "udp", "--dport", "4242", "-j", "DROP"); err != nil {
		t.Fatal(err)
	}
	var port int
	err := p.A.Do(func() error {
		c, err := net.Dial("udp4", p.B.Addr+":4242")
		if err != nil {
			return err
		}
		defer c.Close()
		port = c.LocalAddr().(*net.UDPAddr).Port
		_, err = c.Write(make([]byte, 100))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	r := env.WaitRecord(func(r *signal.Record) bool {
		b := r.Body.(*PacketDrop)
		return b.Netns == p.B.Inode && b.DestinationPort == 4242
	})
	b := r.Body.(*PacketDrop)
	if b.Reason != toldReason(env, "NETFILTER_DROP") || b.Protocol != "udp" || b.Source != p.A.Addr || b.Destination != p.B.Addr || int(b.SourcePort) != port ||
		b.Device != p.B.Device || b.Length != 128 || !strings.Contains(b.Location, "nf") {
		t.Errorf("drop %+v, want it from port %d", b, port)
	}
}

// ipv6 sends a datagram to a port that nobody has.
func ipv6(t *testing.T, env *probetest.Env, p *netpair.Pair) {
	err := p.A.Do(func() error {
		c, err := net.Dial("udp6", "["+p.B.Addr6+"]:4343")
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write([]byte("x"))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	r := env.WaitRecord(func(r *signal.Record) bool {
		b := r.Body.(*PacketDrop)
		return b.Netns == p.B.Inode && b.DestinationPort == 4343
	})
	if b := r.Body.(*PacketDrop); b.Reason != toldReason(env, "NO_SOCKET") || b.Source != p.A.Addr6 || b.Destination != p.B.Addr6 {
		t.Errorf("drop %+v", b)
	}
}

// overrun fills the receive buffer of a process in a cgroup.
func overrun(t *testing.T, env *probetest.Env) {
	cg := probetest.NewCgroup(t, fmt.Sprintf("huatuo-test-netdrop-%d", os.Getpid()))
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), "HUATUO_TEST_LAZY_READER=1")
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
	defer func() { stdin.Close(); c.Wait() }()
	cg.Add(t, c.Process.Pid)
	io.WriteString(stdin, "\n")
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	u, err := net.Dial("udp4", "127.0.0.1:"+strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	for range 50 {
		u.Write(make([]byte, 1000))
	}
	told := env.Kernel.TracepointArgs("kfree_skb") >= 4 // the receiving socket, and with it the group
	r := env.WaitRecord(func(r *signal.Record) bool {
		b := r.Body.(*PacketDrop)
		return b.Reason == toldReason(env, "SOCKET_RCVBUFF") && fmt.Sprint(b.DestinationPort) == strings.TrimSpace(line)
	})
	if b := r.Body.(*PacketDrop); b.Protocol != "udp" || told && r.CgroupID != cg.ID || !told && r.CgroupID != 0 {
		t.Errorf("drop %+v in %d", b, r.CgroupID)
	}
	if n, _ := probetest.WorkloadValue(env.Gather(), containerDrops.Name, cg.ID); told && (n < 40 || n > 50) {
		t.Errorf("%v drops of the cgroup, want nearly 50", n)
	}
}

// harmless closes sockets with data unread: counted as normal, and no event. The
// kernel gives no reason, so that the probe has to learn the place by the first.
func harmless(t *testing.T, env *probetest.Env, s *netpair.Side) {
	counted := func() (n float64) {
		for _, x := range env.Gather() {
			if x.Schema == drops && x.Labels[1] == "udp" && x.Labels[2] == "true" {
				n += x.Value
			}
		}
		return n
	}
	unread := func() (port uint16) {
		err := s.Do(func() error {
			c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
			if err != nil {
				return err
			}
			port = uint16(c.LocalAddr().(*net.UDPAddr).Port)
			for range 5 {
				if _, err := c.WriteTo([]byte("unread"), c.LocalAddr()); err != nil {
					return err
				}
			}
			return c.Close()
		})
		if err != nil {
			t.Fatal(err)
		}
		return port
	}
	ports := []uint16{unread()}
	before := counted()
	for end := time.Now().Add(5 * time.Second); counted() < before+5 && time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		ports = append(ports, unread())
	}
	if n := counted() - before; n < 5 {
		t.Errorf("%v normal drops counted, want 5 or more", n)
	}
	for _, r := range env.Records() {
		if b := r.Body.(*PacketDrop); b.Source == "127.0.0.1" && slices.Contains(ports, b.DestinationPort) &&
			b.Location != "__udp4_lib_rcv" { // which a busy machine brought after the close: a real drop
			t.Errorf("event of a normal drop: %s", r.Title)
		}
	}
}

// TestForms loads the programs for kernels whose kfree_skb has fewer arguments,
// which this kernel takes as well, and loses a packet in front of each.
func TestForms(t *testing.T) {
	env := probetest.NewKernel(t, load.Options{})
	for _, form := range []string{"kfree_skb_3", "kfree_skb_2"} {
		for _, kind := range []string{"btf", "raw"} {
			spec, err := loadBpf()
			if err != nil {
				t.Fatal(err)
			}
			l, err := env.Kernel.New(spec)
			if err != nil {
				t.Fatal(err)
			}
			o, err := l.Attach(load.Hook{Name: "kfree_skb", Programs: []string{form + "_" + kind}})
			if err != nil {
				t.Errorf("%s_%s: %v", form, kind, err)
				continue
			}
			if c, err := net.Dial("tcp4", "127.0.0.1:9"); err == nil {
				c.Close()
			}
			rs := newReasons(env.Kernel.Types())
			b := &signal.Batch{}
			if err := collect(b, o, rs, nil); err != nil {
				t.Error(err)
			}
			want := []string{"NO_SOCKET", "tcp", "false"}
			if form == "kfree_skb_2" {
				want = []string{"UNKNOWN", "tcp", "unknown"}
			}
			if n, _ := probetest.Value(b.Samples, drops.Name, want...); n < 1 {
				t.Errorf("%s_%s: %v drops %v", form, kind, n, want)
			}
			o.Close()
		}
	}
}
