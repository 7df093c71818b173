package netrx

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"huatuo/internal/kern/load"
	"huatuo/internal/probes/probetest"
	"huatuo/internal/signal"
	"huatuo/test/faults/netpair"
)

const (
	late    = 1200 * time.Millisecond // what the reader waits
	allowed = 900 * time.Millisecond  // what the probe is told to bear: a busy machine has delayed a reader by 0.43 s
	size    = 20000                   // of a message; datagrams of less than a page are copied where no tracepoint sees it
)

// TestMain is also the reader that the tests start in a namespace and a cgroup:
// "tcp ADDRESS" or "udp ADDRESS". It waits for a line, says its port, and then
// reads messages; for each line that it gets it waits that long before the next.
func TestMain(m *testing.M) {
	words := strings.Fields(os.Getenv("HUATUO_TEST_NETRX"))
	if len(words) == 0 {
		os.Exit(m.Run())
	}
	in := bufio.NewReader(os.Stdin)
	in.ReadString('\n') // it is in its cgroup now
	var c io.Reader
	if words[0] == "tcp" {
		l, err := net.Listen("tcp", words[1])
		if err != nil {
			panic(err)
		}
		fmt.Println(l.Addr().(*net.TCPAddr).Port)
		if c, err = l.Accept(); err != nil {
			panic(err)
		}
	} else {
		u, err := net.ListenPacket("udp", words[1])
		if err != nil {
			panic(err)
		}
		fmt.Println(u.LocalAddr().(*net.UDPAddr).Port)
		c = u.(io.Reader)
	}
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		wait, _ := time.ParseDuration(strings.TrimSpace(line))
		time.Sleep(wait)
		for n, buf := 0, make([]byte, 2*size); n < size; {
			k, err := c.Read(buf)
			if err != nil {
				panic(err)
			}
			n += k
		}
		fmt.Println("read")
	}
}

type reader struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func start(t *testing.T, s *netpair.Side, cg *probetest.Cgroup, proto, addr string) (r *reader, port string) {
	t.Helper()
	r = &reader{cmd: exec.Command("ip", "netns", "exec", s.Name, os.Args[0])}
	r.cmd.Env = append(os.Environ(), "HUATUO_TEST_NETRX="+proto+" "+net.JoinHostPort(addr, "0"))
	r.cmd.Stderr = os.Stderr
	var err error
	if r.in, err = r.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := r.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	r.out = bufio.NewReader(out)
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.in.Close(); r.cmd.Wait() })
	cg.Add(t, r.cmd.Process.Pid)
	io.WriteString(r.in, "\n")
	return r, r.line(t)
}

func (r *reader) line(t *testing.T) string {
	t.Helper()
	s, err := r.out.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(s)
}

func newPair(t *testing.T) *netpair.Pair {
	t.Helper()
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("needs ip: install iproute2")
	}
	p, err := netpair.New(fmt.Sprintf("htx%d", os.Getpid()%100000))
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

// TestKernel sends messages to a reader that is late, by each kind of hook and ring.
func TestKernel(t *testing.T) {
	probetest.NeedDefaultHierarchy(t)
	for _, kind := range []string{load.TPBTF, load.RawTP} {
		for _, ring := range []string{"ringbuf", "perf"} {
			t.Run(kind+"/"+ring, func(t *testing.T) {
				testLate(t, load.Options{Kinds: []string{kind}, Ring: ring})
			})
		}
	}
	t.Run("legacy", func(t *testing.T) {
		testLate(t, load.Options{Kinds: []string{load.RawTP}, Flavour: load.Legacy})
	})
}

func testLate(t *testing.T, o load.Options) {
	env := probetest.NewKernel(t, o)
	pair := newPair(t)
	// A datagram in one packet: one that comes in fragments is copied where no tracepoint sees it.
	for _, s := range []*netpair.Side{&pair.A, &pair.B} {
		if err := s.Run("ip", "link", "set", s.Device, "mtu", "65000"); err != nil {
			t.Fatal(err)
		}
	}
	cfg := Config{Every: 1, Stack: time.Second, TCP: time.Second, User: allowed}
	env.Start(Spec(), cfg)
	for _, h := range env.Hooks() {
		if h.By != o.Kinds[0] {
			t.Fatalf("hook %+v: want %s", h, o.Kinds[0])
		}
	}
	for i, c := range []struct{ proto, from, to string }{
		{"tcp", pair.A.Addr, pair.B.Addr}, {"tcp", pair.A.Addr6, pair.B.Addr6},
		{"udp", pair.A.Addr, pair.B.Addr}, {"udp", pair.A.Addr6, pair.B.Addr6},
	} {
		cg := probetest.NewCgroup(t, fmt.Sprintf("huatuo-test-netrx-%d-%d", os.Getpid(), i))
		r, port := start(t, &pair.B, cg, c.proto, c.to)
		var out net.Conn
		err := pair.A.Do(func() (err error) {
			out, err = net.Dial(c.proto, net.JoinHostPort(c.to, port))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		defer out.Close()
		check(t, env, pair, cg, r, out, c.proto, c.from)
	}
	var stack, tcp uint64
	for _, s := range env.Gather() {
		if s.Schema == delay && s.Labels[0] == "stack" {
			stack = s.Hist.Count
		} else if s.Schema == delay && s.Labels[0] == "tcp" {
			tcp = s.Hist.Count
		}
	}
	if stack < 4 || tcp < 4 {
		t.Errorf("%d packets at the stack, %d at TCP", stack, tcp)
	}
	if err := env.Stop(); err != nil {
		t.Fatal(err)
	}
	loss := env.Loss()
	if got := uint64(len(env.Records())); loss.Observed != got+loss.Dropped["ring_full"]+loss.Dropped["rate_limited"]+loss.Dropped["undecoded"] {
		t.Errorf("observed %d, but %d records and %v lost", loss.Observed, got, loss.Dropped)
	}
}

// check sends a message to a reader in time, one to the same late, and wants to
// see the second only.
func check(t *testing.T, env *probetest.Env, pair *netpair.Pair, cg *probetest.Cgroup, r *reader, out net.Conn, proto, from string) {
	t.Helper()
	send := func(wait time.Duration) {
		t.Helper()
		if wait > 0 {
			if _, err := out.Write(make([]byte, size)); err != nil {
				t.Fatal(err)
			}
			fmt.Fprintln(r.in, wait)
		} else {
			fmt.Fprintln(r.in, wait)
			time.Sleep(20 * time.Millisecond) // it reads before there is anything
			if _, err := out.Write(make([]byte, size)); err != nil {
				t.Fatal(err)
			}
		}
		r.line(t)
	}
	stage := "user_" + proto
	mine := func() (rs []*signal.Record) {
		for _, x := range env.Records() {
			if x.CgroupID == cg.ID {
				rs = append(rs, x)
			}
		}
		return rs
	}
	send(0)
	time.Sleep(150 * time.Millisecond) // an event would come now
	if rs := mine(); len(rs) != 0 {
		t.Fatalf("%s: event of what was read in time: %s", stage, rs[0].Title)
	}
	send(late)
	x := env.WaitRecord(func(x *signal.Record) bool { return x.CgroupID == cg.ID })
	b := x.Body.(*RxLatency)
	if b.Stage != stage || b.Protocol != proto || b.Source != from || b.SourcePort == 0 || b.DestinationPort == 0 || b.Netns != pair.B.Inode ||
		b.Waited < late.Seconds() || b.Waited > 5 || int(x.Process.PID) != r.cmd.Process.Pid || len(x.UserIPs) == 0 {
		t.Errorf("%s: event %+v of %+v with %d frames", stage, b, x.Process, len(x.UserIPs))
	}
	for _, s := range env.Gather() {
		if s.Schema != containerDelay || s.CgroupID != cg.ID {
			continue
		}
		if s.Labels[0] != stage && s.Hist.Count != 0 {
			t.Errorf("%s: %d at %s", stage, s.Hist.Count, s.Labels[0])
		}
		if s.Labels[0] == stage && (s.Hist.Count < 2 || s.Hist.Sum < late.Seconds()) {
			t.Errorf("%s: %d reads, %g s, want two or more of over %v", stage, s.Hist.Count, s.Hist.Sum, late)
		}
	}
}
