package netstat

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"huatuo/internal/probes/probetest"
	"huatuo/test/faults/netpair"
)

// TestKernelLoss runs TestLoss in a network namespace of its own.
func TestKernelLoss(t *testing.T) {
	p := newPair(t)
	if _, err := exec.LookPath("iptables"); err != nil {
		t.Skip("needs iptables")
	}
	if err := p.A.Run("iptables", "-A", "INPUT", "-s", "203.0.113.1", "-m", "statistic", "--mode", "nth", "--every", "2", "--packet", "0", "-j", "DROP"); err != nil {
		t.Skipf("needs a kernel with iptables and its match statistic: %v", err)
	}
	c := exec.Command("ip", "netns", "exec", p.A.Name, os.Args[0], "-test.run=^TestLoss$", "-test.v")
	c.Env = append(os.Environ(), peerName+"="+p.B.Name, "HUATUO_NETSTAT_DEVICE="+p.B.Device)
	out, err := c.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	} else if testing.Verbose() {
		t.Logf("%s", out)
	}
}

// TestLoss loses, breaks and floods segments in known numbers.
func TestLoss(t *testing.T) {
	if os.Getenv(peerName) == "" {
		t.Skip("is run by TestKernelLoss, in a namespace")
	}
	in := &inside{t: t, env: probetest.New(t), peer: netpair.Side{Name: os.Getenv(peerName), Device: os.Getenv("HUATUO_NETSTAT_DEVICE"), Addr: "192.0.2.2"}}
	in.env.Start(Spec(), nil)
	for _, c := range []struct {
		what string
		do   func(*testing.T)
		want []moved
	}{
		{"30 connects with SYN cookies, and 10 forged ones", in.cookies, []moved{
			{"huatuo_tcp_syncookies_total", []string{"sent"}, 30, 30}, {"huatuo_tcp_syncookies_total", []string{"received"}, 30, 30},
			{"huatuo_tcp_syncookies_total", []string{"failed"}, 10, 10}, {"huatuo_tcp_opens_total", []string{"passive"}, 30, 30}}},
		{"20 SYNs for a backlog of one", in.synFlood, []moved{{"huatuo_tcp_syn_drops_total", nil, 16, 19}, {"huatuo_tcp_listen_drops_total", nil, 16, 19}}},
		{"10 half-open connections that are reset", in.halfOpen, []moved{{"huatuo_tcp_half_open_resets_total", nil, 10, 10}}},
		{"10 segments with a wrong checksum, 5 with a short header", in.broken, []moved{
			{"huatuo_tcp_checksum_errors_total", nil, 10, 10}, {"huatuo_tcp_segments_bad_total", nil, 15, 15}, {"huatuo_udp_drops_total", []string{"ipv4", "checksum"}, 12, 12}}},
		{"the last segment lost once", in.tail, []moved{
			{"huatuo_tcp_loss_probes_total", []string{"sent"}, 1, 2}, {"huatuo_tcp_loss_probes_total", []string{"repaired"}, 1, 1}, {"huatuo_tcp_segments_retransmitted_total", nil, 1, 2}}},
		{"an acknowledgement lost once", in.lostACK, []moved{{"huatuo_tcp_duplicates_reported_total", nil, 1, 2}}},
		{"one in ten segments lost on the way out", func(t *testing.T) { in.lossy(t, true) }, []moved{
			{"huatuo_tcp_fast_retransmits_total", nil, 1, 1000}, {"huatuo_tcp_lost_retransmits_total", nil, 0, 1000}, {"huatuo_tcp_segments_retransmitted_total", nil, 3, 1000}}},
		{"one in ten segments lost on the way in", func(t *testing.T) { in.lossy(t, false) }, []moved{{"huatuo_tcp_out_of_order_total", nil, 3, 10000}}},
		{"twenty segments lost for half a second", in.outage, []moved{{"huatuo_tcp_slow_start_retransmits_total", nil, 1, 100}, {"huatuo_tcp_timeouts_total", nil, 1, 5}}},
		{"retransmits that a firewall refuses", in.refusedAgain, []moved{{"huatuo_tcp_retransmits_failed_total", nil, 1, 20}}},
		{"a SYN in the middle of a connection", in.intruder, []moved{{"huatuo_tcp_challenge_acks_total", nil, 1, 1}}},
		{"10 SYNs of too short a life, 10 connects without data", in.unusable, []moved{
			{"huatuo_tcp_segments_unusable_total", []string{"min_ttl"}, 10, 12}, {"huatuo_tcp_segments_unusable_total", []string{"deferred_accept"}, 10, 30}}},
		{"30 connections closed where five may wait", in.waiting, []moved{{"huatuo_tcp_time_wait_overflows_total", nil, 25, 30}}},
		{"a reader with little room for small segments", in.pruned, []moved{{"huatuo_tcp_receive_pruned_total", []string{"called"}, 1, 1e5}}},
		{"segments marked as congested", in.congested, []moved{{"huatuo_tcp_congestion_marks_total", nil, 1, 1e5}}},
	} {
		before := in.env.Gather()
		t.Run(c.what, c.do)
		eventually(t, in.env, c.what, before, c.want...)
	}
}

// short is pair, whose ends are gone at the test's end: none waits for the other
// as an orphan, of which another test counts the host's.
func (in *inside) short(t *testing.T) (here, there *net.TCPConn) {
	t.Helper()
	here, there = in.pair()
	t.Cleanup(func() {
		for _, c := range []*net.TCPConn{here, there} {
			c.SetLinger(0)
			c.Close()
		}
	})
	return here, there
}

func (in *inside) iptables(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("iptables", args...).CombinedOutput(); err != nil {
		t.Fatalf("iptables %v: %v: %s", args, err, out)
	}
}

// listen returns a socket that listens here with a backlog, and its port.
func (in *inside) listen(t *testing.T, backlog int) (fd, port int) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrInet4{}), unix.Listen(fd, backlog)); err != nil {
		t.Fatal(err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return fd, name.(*unix.SockaddrInet4).Port
}

// segment is a TCP segment without options and, if asked for, with its checksum.
func segment(from, to [4]byte, sport, dport int, seq, ack uint32, flags byte, sum bool) []byte {
	b := make([]byte, 20)
	binary.BigEndian.PutUint16(b, uint16(sport))
	binary.BigEndian.PutUint16(b[2:], uint16(dport))
	binary.BigEndian.PutUint32(b[4:], seq)
	binary.BigEndian.PutUint32(b[8:], ack)
	b[12], b[13], b[14] = 5<<4, flags, 0x20
	if !sum {
		return b
	}
	pseudo := append(append(append([]byte{}, from[:]...), to[:]...), 0, unix.IPPROTO_TCP, 0, byte(len(b)))
	total := uint32(0)
	for _, p := range [][]byte{pseudo, b} {
		for i := 0; i+1 < len(p); i += 2 {
			total += uint32(p[i])<<8 | uint32(p[i+1])
		}
	}
	for total > 0xffff {
		total = total>>16 + total&0xffff
	}
	binary.BigEndian.PutUint16(b[16:], ^uint16(total))
	return b
}

const (
	flagSYN = 0x02
	flagACK = 0x10
)

var hereIP, thereIP = [4]byte{192, 0, 2, 1}, [4]byte{192, 0, 2, 2}

// raw sends n payloads of a protocol from the peer.
func (in *inside) raw(t *testing.T, protocol, n int, payload func(i int) []byte) {
	t.Helper()
	err := in.peer.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		for i := range n {
			if err := unix.Sendto(fd, payload(i), 0, &unix.SockaddrInet4{Addr: hereIP}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func setting(t *testing.T, file, value string) {
	t.Helper()
	probetest.Set(t, "/proc/sys/net/ipv4/"+file, value)
}

// dial connects the peer to a port here n times and returns the connections.
func (in *inside) dial(t *testing.T, port, n int, patience time.Duration) (out []net.Conn) {
	t.Helper()
	for range n {
		var c net.Conn
		err := in.peer.Do(func() (err error) {
			d := net.Dialer{Timeout: patience}
			c, err = d.Dial("tcp4", net.JoinHostPort("192.0.2.1", strconv.Itoa(port)))
			return err
		})
		if err == nil {
			t.Cleanup(func() { c.(*net.TCPConn).SetLinger(0); c.Close() })
			out = append(out, c)
		}
	}
	return out
}

func (in *inside) cookies(t *testing.T) {
	setting(t, "tcp_syncookies", "2")
	_, port := in.listen(t, 100)
	if got := len(in.dial(t, port, 30, time.Second)); got != 30 {
		t.Errorf("%d of 30 connects", got)
	}
	in.raw(t, unix.IPPROTO_TCP, 10, func(i int) []byte {
		return segment(thereIP, hereIP, 2000+i, port, 1, 0x12345678, flagACK, true)
	})
}

func (in *inside) synFlood(t *testing.T) {
	setting(t, "tcp_syncookies", "0")
	if err := in.peer.Run("iptables", "-A", "OUTPUT", "-p", "tcp", "--tcp-flags", "RST", "RST", "-j", "DROP"); err != nil {
		t.Fatal(err)
	}
	defer in.peer.Run("iptables", "-F", "OUTPUT")
	_, port := in.listen(t, 1)
	in.raw(t, unix.IPPROTO_TCP, 20, func(i int) []byte { return segment(thereIP, hereIP, 3000+i, port, 1, 0, flagSYN, true) })
}

func (in *inside) halfOpen(t *testing.T) {
	_, port := in.listen(t, 100)
	// The peer knows of no connection when the answer comes.
	in.raw(t, unix.IPPROTO_TCP, 10, func(i int) []byte { return segment(thereIP, hereIP, 4000+i, port, 1, 0, flagSYN, true) })
}

func (in *inside) broken(t *testing.T) {
	in.raw(t, unix.IPPROTO_TCP, 10, func(int) []byte { return segment(thereIP, hereIP, 9, 9, 1, 1, flagACK, false) })
	in.raw(t, unix.IPPROTO_TCP, 5, func(int) []byte {
		b := segment(thereIP, hereIP, 9, 9, 1, 1, flagACK, true)
		b[12] = 3 << 4
		return b
	})
	in.raw(t, unix.IPPROTO_UDP, 12, func(int) []byte { return []byte{0, 9, 0, 9, 0, 8, 0x12, 0x34} })
}

func (in *inside) tail(t *testing.T) {
	here, there := in.short(t)
	in.exchange(t, here, there)
	in.drop(t, "-p", "tcp", "-m", "length", "--length", "100:200")
	in.exchange(t, here, there)
	in.exchange(t, here, there) // what is acknowledged beyond the probe tells that it was needed
	in.exchange(t, there, here) // and that has come
}

// drop has the peer lose the first packet that matches.
func (in *inside) drop(t *testing.T, match ...string) {
	t.Helper()
	args := append([]string{"-A", "INPUT"}, match...)
	args = append(args, "-m", "statistic", "--mode", "nth", "--every", "100000", "--packet", "0", "-j", "DROP")
	if err := in.peer.Run("iptables", args...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.peer.Run("iptables", "-F", "INPUT") })
}

// exchange sends 100 bytes and waits for them.
func (in *inside) exchange(t *testing.T, from, to *net.TCPConn) {
	t.Helper()
	if _, err := from.Write(make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	to.SetReadDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.ReadFull(to, make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
}

func (in *inside) lostACK(t *testing.T) {
	here, there := in.short(t)
	for range 20 { // the peer acknowledges at once only in the beginning
		in.exchange(t, here, there)
	}
	in.iptables(t, "-A", "INPUT", "-p", "tcp", "-m", "statistic", "--mode", "nth", "--every", "100000", "--packet", "0", "-j", "DROP")
	defer in.iptables(t, "-F", "INPUT")
	in.exchange(t, here, there)
	time.Sleep(300 * time.Millisecond) // the probe, and what the peer says of it
}

// lossy sends 3 MiB past a firewall that loses every tenth segment.
func (in *inside) lossy(t *testing.T, out bool) {
	here, there := in.short(t)
	// Half a buffer is one packet until it leaves: small ones are many.
	rule := []string{"INPUT", "-p", "tcp", "-m", "length", "--length", "1000:", "-m", "statistic", "--mode", "nth", "--every", "10", "--packet", "9", "-j", "DROP"}
	from, to := there, here
	if out {
		from, to = here, there
		if err := in.peer.Run("iptables", append([]string{"-A"}, rule...)...); err != nil {
			t.Fatal(err)
		}
		defer in.peer.Run("iptables", "-F", "INPUT")
	} else {
		in.iptables(t, append([]string{"-A"}, rule...)...)
		defer in.iptables(t, "-F", "INPUT")
	}
	const size = 3 << 20
	go from.Write(make([]byte, size))
	to.SetReadDeadline(time.Now().Add(20 * time.Second))
	if n, err := io.CopyN(io.Discard, to, size); err != nil {
		t.Errorf("%d of %d bytes: %v", n, size, err)
	}
}

func (in *inside) outage(t *testing.T) {
	here, there := in.short(t)
	in.exchange(t, here, there)
	if err := in.peer.Run("iptables", "-A", "INPUT", "-p", "tcp", "-j", "DROP"); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		if _, err := here.Write(make([]byte, 2000)); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(500 * time.Millisecond)
	if err := in.peer.Run("iptables", "-F", "INPUT"); err != nil {
		t.Fatal(err)
	}
	there.SetReadDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.CopyN(io.Discard, there, 20000); err != nil {
		t.Error(err)
	}
}

func (in *inside) refusedAgain(t *testing.T) {
	here, there := in.short(t)
	in.exchange(t, here, there)
	// Lost at the peer, and then not let out.
	if err := in.peer.Run("iptables", "-A", "INPUT", "-p", "tcp", "-j", "DROP"); err != nil {
		t.Fatal(err)
	}
	defer in.peer.Run("iptables", "-F", "INPUT")
	if _, err := here.Write([]byte("lost")); err != nil {
		t.Fatal(err)
	}
	in.iptables(t, "-A", "OUTPUT", "-p", "tcp", "-j", "DROP")
	defer in.iptables(t, "-F", "OUTPUT")
	time.Sleep(time.Second)
}

func (in *inside) intruder(t *testing.T) {
	here, _ := in.short(t)
	local, remote := here.LocalAddr().(*net.TCPAddr).Port, here.RemoteAddr().(*net.TCPAddr).Port
	in.raw(t, unix.IPPROTO_TCP, 1, func(int) []byte { return segment(thereIP, hereIP, remote, local, 1, 0, flagSYN, true) })
	time.Sleep(100 * time.Millisecond)
}

func (in *inside) unusable(t *testing.T) {
	fd, port := in.listen(t, 100)
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MINTTL, 255); err != nil {
		t.Fatal(err)
	}
	if n := len(in.dial(t, port, 10, 50*time.Millisecond)); n > 0 {
		t.Errorf("%d connects in spite of their time to live", n)
	}
	fd, port = in.listen(t, 100)
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, 5); err != nil {
		t.Fatal(err)
	}
	in.dial(t, port, 10, time.Second)
}

func (in *inside) waiting(t *testing.T) {
	setting(t, "tcp_max_tw_buckets", "5")
	in.closed()
}

func (in *inside) pruned(t *testing.T) {
	here, there := in.short(t)
	if err := here.SetReadBuffer(4096); err != nil {
		t.Fatal(err)
	}
	there.SetNoDelay(true)
	there.SetWriteDeadline(time.Now().Add(500 * time.Millisecond))
	for {
		if _, err := there.Write([]byte("x")); err != nil {
			break
		}
	}
}

func (in *inside) congested(t *testing.T) {
	for _, do := range []func() error{
		func() error { return os.WriteFile("/proc/sys/net/ipv4/tcp_ecn", []byte("1"), 0) },
		func() error {
			return in.peer.Do(func() error { return os.WriteFile("/proc/sys/net/ipv4/tcp_ecn", []byte("1"), 0) })
		},
		func() error {
			return in.peer.Run("iptables", "-t", "mangle", "-A", "PREROUTING", "-p", "tcp", "-m", "length", "--length", "100:", "-j", "TOS", "--set-tos", "0x03/0x03")
		},
	} {
		if err := do(); err != nil {
			t.Fatal(err)
		}
	}
	here, there := in.short(t)
	for range 20 {
		in.exchange(t, here, there)
	}
}
