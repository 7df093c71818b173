package tcp

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"huatuo/internal/kern/load"
	"huatuo/internal/kern/ring"
	"huatuo/internal/probes/probetest"
	"huatuo/internal/signal"
	"huatuo/test/faults/netpair"
)

// TestMain is also the processes that the tests start in a namespace and a
// cgroup: they wait for a line, do what the variable says, and end.
func TestMain(m *testing.M) {
	words := strings.Fields(os.Getenv("HUATUO_TEST_TCP"))
	if len(words) == 0 {
		os.Exit(m.Run())
	}
	in := bufio.NewReader(os.Stdin)
	in.ReadString('\n') // it is in its cgroup now
	var err error
	switch words[0] {
	case "dial":
		dial(words[1:])
	case "serve":
		err = serve(in, words[1])
	case "hold":
		err = hold(in, words[1])
	case "sleep":
		err = sleep(words[1])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// dial ADDRESS COUNT TIMEOUT USER_TIMEOUT HOW: how a connection ends is close,
// reset, or a number of bytes to send before.
func dial(args []string) {
	count, _ := strconv.Atoi(args[1])
	timeout, _ := time.ParseDuration(args[2])
	user, _ := time.ParseDuration(args[3])
	d := net.Dialer{Timeout: timeout, FallbackDelay: -1, Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) {
			unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(user.Milliseconds()))
		})
	}}
	for range count {
		c, err := d.Dial("tcp", args[0])
		if err != nil {
			continue
		}
		switch args[4] {
		case "reset":
			time.Sleep(10 * time.Millisecond) // the peer has accepted
			c.(*net.TCPConn).SetLinger(0)
		case "close":
		default:
			n, _ := strconv.Atoi(args[4])
			c.Write(make([]byte, n))
			c.(*net.TCPConn).CloseWrite()
			io.Copy(io.Discard, c)
		}
		c.Close()
	}
}

// serve accepts and reads until it is told to end.
func serve(in *bufio.Reader, addr string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	fmt.Println(l.Addr().(*net.TCPAddr).Port)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { io.Copy(io.Discard, c); c.Close() }()
		}
	}()
	io.Copy(io.Discard, in)
	return nil
}

// hold listens and does not accept.
func hold(in *bufio.Reader, addr string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	sa := &unix.SockaddrInet4{}
	copy(sa.Addr[:], net.ParseIP(addr).To4())
	if err := unix.Bind(fd, sa); err != nil {
		return err
	}
	if err := unix.Listen(fd, 1); err != nil {
		return err
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		return err
	}
	fmt.Println(name.(*unix.SockaddrInet4).Port)
	io.Copy(io.Discard, in)
	return nil
}

// helper is one of those processes.
type helper struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func start(t *testing.T, s *netpair.Side, cg *probetest.Cgroup, what string) *helper {
	t.Helper()
	h := &helper{cmd: exec.Command("ip", "netns", "exec", s.Name, os.Args[0])}
	h.cmd.Env = append(os.Environ(), "HUATUO_TEST_TCP="+what)
	h.cmd.Stderr = os.Stderr
	var err error
	if h.in, err = h.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := h.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	h.out = bufio.NewReader(out)
	if err := h.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.end() })
	cg.Add(t, h.cmd.Process.Pid)
	io.WriteString(h.in, "\n")
	return h
}

func (h *helper) port(t *testing.T) string {
	t.Helper()
	line, err := h.out.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(line)
}

func (h *helper) end() error {
	h.in.Close()
	return h.cmd.Wait()
}

func newPair(t *testing.T) *netpair.Pair {
	t.Helper()
	for _, tool := range []string{"ip", "iptables", "tc"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s: install iproute2 and iptables", tool)
		}
	}
	p, err := netpair.New(fmt.Sprintf("htt%d", os.Getpid()%100000))
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

// TestKernel opens, breaks and delays connections between namespaces of its
// own, by each kind of hook and ring.
func TestKernel(t *testing.T) {
	probetest.NeedDefaultHierarchy(t)
	probetest.Rungs(t, testTCP)
}

// world is what the parts of the test share.
type world struct {
	*testing.T
	env            *probetest.Env
	pair           *netpair.Pair
	client, server *probetest.Cgroup
}

func testTCP(t *testing.T, o load.Options) {
	w := &world{T: t, env: probetest.NewKernel(t, o), pair: newPair(t)}
	w.client = probetest.NewCgroup(t, fmt.Sprintf("huatuo-test-tcp-client-%d", os.Getpid()))
	w.server = probetest.NewCgroup(t, fmt.Sprintf("huatuo-test-tcp-server-%d", os.Getpid()))
	server := start(t, &w.pair.B, w.server, "serve :0")
	port := server.port(t)
	idle := start(t, &w.pair.B, w.server, "hold "+w.pair.B.Addr)
	idlePort := idle.port(t)
	cfg := Config{RTTEvery: 1, ListenInterval: time.Second}
	w.env.Start(Spec(), cfg)
	for _, h := range w.env.Hooks() {
		if h.By != o.Kinds[0] {
			t.Fatalf("hook %+v: want %s", h, o.Kinds[0])
		}
	}
	w.connects(port)
	w.fails()
	w.resets(port)
	if o.Ring == "ringbuf" { // no program has a part in it: not for each rung
		w.overflow(idle.cmd.Process.Pid, idlePort)
	}
	w.delay(port)
	server.end()
	idle.end()
	w.losses()
}

// run starts a client and waits for its end.
func (w *world) run(what string) {
	w.Helper()
	if err := start(w.T, &w.pair.A, w.client, what).cmd.Wait(); err != nil {
		w.Fatal(err)
	}
}

func (w *world) hist(name string, cg *probetest.Cgroup, labels ...string) *signal.Hist {
	w.Helper()
	for _, s := range w.env.Gather() {
		if s.Schema.Name == name && s.CgroupID == cg.ID && fmt.Sprint(s.Labels) == fmt.Sprint(labels) {
			return s.Hist
		}
	}
	return &signal.Hist{}
}

// connects opens 20 connections: the histograms have these and no other.
func (w *world) connects(port string) {
	w.run("dial " + net.JoinHostPort(w.pair.B.Addr, port) + " 15 5s 0s close")
	w.run("dial " + net.JoinHostPort(w.pair.B.Addr6, port) + " 5 5s 0s close")
	c := w.hist(containerHandshake.Name, w.client, "connect")
	a := w.hist(containerHandshake.Name, w.server, "accept")
	if c.Count != 20 || c.Sum <= 0 || c.Sum > 20 {
		w.Errorf("%d connects in %g s, want 20", c.Count, c.Sum)
	}
	if a.Count != 20 || a.Sum <= 0 || a.Sum > 20 {
		w.Errorf("%d accepted in %g s, want 20", a.Count, a.Sum)
	}
	if n := w.hist(containerHandshake.Name, w.client, "accept").Count; n != 0 {
		w.Errorf("the client accepted %d", n)
	}
	if n := len(w.events("", "")); n != 0 {
		w.Errorf("%d events of connections that went well: %s", n, w.events("", "")[0].Title)
	}
}

// events returns those of the client's namespace: connect_failure by reason, or
// tcp_reset by direction; empty for all of both.
func (w *world) events(failure, direction string) (rs []*signal.Record) {
	for _, r := range w.env.Records() {
		switch b := r.Body.(type) {
		case *ConnectFailure:
			if b.Netns == w.pair.A.Inode && direction == "" && (failure == "" || b.Reason == failure) {
				rs = append(rs, r)
			}
		case *TCPReset:
			if (b.Netns == w.pair.A.Inode || b.Netns == w.pair.B.Inode) && failure == "" && (direction == "" || b.Direction == direction) {
				rs = append(rs, r)
			}
		}
	}
	return rs
}

func (w *world) wait(n int, failure, direction string) []*signal.Record {
	w.Helper()
	for end := time.Now().Add(10 * time.Second); len(w.events(failure, direction)) < n && time.Now().Before(end); {
		time.Sleep(20 * time.Millisecond)
	}
	time.Sleep(150 * time.Millisecond) // one more would come now
	rs := w.events(failure, direction)
	if len(rs) != n {
		counted, _ := probetest.WorkloadValue(w.env.Gather(), containerFailures.Name, w.client.ID, failure)
		w.Fatalf("%d events %s%s, want %d; %v are counted; lost: %+v", len(rs), failure, direction, n, counted, w.env.Loss())
	}
	return rs
}

// fails is refused 100 times, and fails once for each other reason.
func (w *world) fails() {
	b := w.pair.B.Addr
	if err := w.pair.B.Run("iptables", "-A", "INPUT", "-p", "tcp", "--dport", "4242", "-j", "DROP"); err != nil {
		w.Fatal(err)
	}
	slow := []*helper{
		start(w.T, &w.pair.A, w.client, "dial 192.0.2.77:80 1 30s 0s close"),          // no such neighbour
		start(w.T, &w.pair.A, w.client, "dial "+b+":4242 1 30s 700ms close"),          // the kernel gives up
		start(w.T, &w.pair.A, w.client, "dial "+b+":4242 1 1200ms 0s close"),          // the program gives up
		start(w.T, &w.pair.A, w.client, "dial "+b+":4242 3 400ms 0s close"),           // so soon that it makes no event
		start(w.T, &w.pair.A, w.client, "dial ["+w.pair.B.Addr6+"]:9 20 5s 0s close"), //
	}
	for range 4 { // a perf buffer holds 90 events, and is read each 250 ms
		w.run("dial " + b + ":9 20 5s 0s close")
		time.Sleep(2 * ring.DrainEvery)
	}
	for _, h := range slow {
		if err := h.cmd.Wait(); err != nil {
			w.Fatal(err)
		}
	}
	refused := w.wait(100, "refused", "")
	r := refused[0]
	f := r.Body.(*ConnectFailure)
	if f.RemotePort != 9 || f.LocalPort == 0 || f.Error != "ECONNREFUSED" || f.Elapsed <= 0 || f.Retransmits != 0 ||
		r.Process.PID == 0 || !strings.HasPrefix(r.Process.Comm, "tcp.test") || r.CgroupID != w.client.ID {
		w.Errorf("event %+v of %+v in %d", f, r.Process, r.CgroupID)
	}
	v6 := 0
	for _, r := range refused {
		if b := r.Body.(*ConnectFailure); b.Local == w.pair.A.Addr6 && b.Remote == w.pair.B.Addr6 {
			v6++
		}
	}
	if v6 != 20 {
		w.Errorf("%d of them on IPv6, want 20", v6)
	}
	if f := w.wait(1, "unreachable", "")[0].Body.(*ConnectFailure); f.Error != "EHOSTUNREACH" || f.Remote != "192.0.2.77" {
		w.Errorf("event %+v", f)
	}
	if f := w.wait(1, "timed_out", "")[0].Body.(*ConnectFailure); f.Error != "ETIMEDOUT" || f.RemotePort != 4242 || f.Elapsed < 0.5 {
		w.Errorf("event %+v", f)
	}
	if f := w.wait(1, "aborted", "")[0].Body.(*ConnectFailure); f.Error != "" || f.Elapsed < 1 || f.Elapsed > 5 || f.Retransmits == 0 {
		w.Errorf("event %+v", f)
	}
	for reason, want := range map[string]float64{"refused": 100, "unreachable": 1, "timed_out": 1, "aborted": 4, "other": 0} {
		if n, _ := probetest.WorkloadValue(w.env.Gather(), containerFailures.Name, w.client.ID, reason); n != want {
			w.Errorf("%v failures %s, want %v", n, reason, want)
		}
	}
	if n := len(w.events("", "sent")) + len(w.events("", "received")); n != 0 {
		w.Errorf("%d tcp_reset events of connections that never stood", n)
	}
}

// resets ends five connections the hard way.
func (w *world) resets(port string) {
	w.run("dial " + net.JoinHostPort(w.pair.B.Addr, port) + " 5 5s 0s reset")
	sent := w.wait(5, "", "sent")[0]
	s := sent.Body.(*TCPReset)
	if s.State != "close" || s.Local != w.pair.A.Addr || strconv.Itoa(int(s.RemotePort)) != port || s.LocalPort == 0 || s.RTT <= 0 ||
		sent.CgroupID != w.client.ID || !strings.HasPrefix(sent.Process.Comm, "tcp.test") {
		w.Errorf("event %+v of %+v", s, sent.Process)
	}
	if _, named := reasonNames(w.env.Kernel.Types())[1]; named && (s.Reason == unknown || strings.HasPrefix(s.Reason, "REASON_")) {
		w.Errorf("reason %s: this kernel has a word for it", s.Reason)
	}
	got := w.wait(5, "", "received")[0]
	r := got.Body.(*TCPReset)
	if r.State != "established" || r.Remote != w.pair.A.Addr || r.Reason != unknown || got.CgroupID != w.server.ID || got.Process.PID != 0 {
		w.Errorf("event %+v of %+v", r, got.Process)
	}
	for cg, direction := range map[*probetest.Cgroup]string{w.client: "sent", w.server: "received"} {
		if n, _ := probetest.WorkloadValue(w.env.Gather(), containerResets.Name, cg.ID, direction); n != 5 {
			w.Errorf("%v resets %s, want 5", n, direction)
		}
	}
	var toNobody float64
	for _, x := range w.env.Gather() {
		if x.Schema == resets && x.Labels[0] == "sent" && x.Labels[1] == "none" {
			toNobody += x.Value
		}
	}
	if w.env.Kernel.TracepointArgs("tcp_send_reset") == 3 && toNobody < 100 {
		w.Errorf("%v resets without a socket, want 100 or more", toNobody)
	}
}

// overflow fills the queue of a listener that does not accept.
func (w *world) overflow(pid int, port string) {
	w.run("dial " + net.JoinHostPort(w.pair.B.Addr, port) + " 1 5s 0s close") // room for that: no event
	time.Sleep(1200 * time.Millisecond)
	// Those that wait must not end, or they leave the queue as well.
	var hs []*helper
	for range 6 {
		hs = append(hs, start(w.T, &w.pair.A, w.client, "dial "+net.JoinHostPort(w.pair.B.Addr, port)+" 1 1500ms 0s 100"))
	}
	r := w.env.WaitRecord(func(r *signal.Record) bool {
		b, ok := r.Body.(*ListenOverflow)
		return ok && b.Netns == w.pair.B.Inode
	})
	b := r.Body.(*ListenOverflow)
	if strconv.Itoa(int(b.Port)) != port || b.Address != w.pair.B.Addr || b.Queued == 0 || b.Overflows == 0 || int(r.Process.PID) != pid ||
		r.CgroupID != w.server.ID || b.State != "S" || b.Threads == 0 {
		w.Errorf("event %+v of %+v; want port %s of process %d", b, r.Process, port, pid)
	}
	w.Log(r.Title)
	for _, h := range hs {
		h.cmd.Process.Kill()
		h.cmd.Wait()
	}
}

// delay puts a queue of 30 ms before the client's device and fills it.
func (w *world) delay(port string) {
	before := w.hist(containerRTT.Name, w.client)
	a := &w.pair.A
	atLeast := 0.004
	if err := a.Run("tc", "qdisc", "add", "dev", a.Device, "root", "tbf", "rate", "8mbit", "burst", "3000", "limit", "30000"); err != nil {
		w.Log("the delay needs sch_tbf in the kernel, without it round trips are short: ", err)
		atLeast = 0
	}
	w.run("dial " + net.JoinHostPort(w.pair.B.Addr, port) + " 1 5s 0s 1000000")
	after := w.hist(containerRTT.Name, w.client)
	n, sum := after.Count-before.Count, after.Sum-before.Sum
	if mean := sum / float64(n); n < 5 || mean <= atLeast || mean > 0.2 {
		w.Errorf("%d samples of %g s, want some of 10 to 40 ms", n, mean)
	}
	for _, s := range w.env.Gather() {
		if s.Schema == variation && s.Hist.Count < n {
			w.Errorf("%d samples of the variation, %d of the workload's RTT", s.Hist.Count, n)
		}
	}
}

// losses: what was observed is what came and what was lost, and no more.
func (w *world) losses() {
	if err := w.env.Stop(); err != nil {
		w.Fatal(err)
	}
	loss := w.env.Loss()
	var dropped uint64
	for _, n := range loss.Dropped {
		dropped += n
	}
	if got := uint64(len(w.env.Records())); loss.Observed != got+dropped {
		w.Errorf("observed %d, but %d records and %v lost", loss.Observed, got, loss.Dropped)
	}
}

// TestForms loads the program for kernels whose tcp_send_reset has no reason,
// which this kernel takes as well, and is refused in front of it.
func TestForms(t *testing.T) {
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
		o, err := l.Attach(load.Hook{Name: "tcp_send_reset", Programs: []string{"tcp_send_reset_2_" + kind}})
		if err != nil {
			t.Errorf("%s: %v", kind, err)
			continue
		}
		if c, err := net.Dial("tcp4", "127.0.0.1:9"); err == nil {
			c.Close()
		}
		b := &signal.Batch{}
		if err := collectResets(b, o, reasonNames(env.Kernel.Types())); err != nil {
			t.Error(err)
		}
		if n, _ := probetest.Value(b.Samples, resets.Name, "sent", "none", unknown); n < 1 && env.Kernel.TracepointArgs("tcp_send_reset") == 3 {
			t.Errorf("%s: %v resets", kind, n)
		}
		o.Close()
	}
}
