package dns

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"huatuo/internal/kern/load"
	"huatuo/internal/probes/probetest"
	"huatuo/internal/signal"
	"huatuo/test/faults/netpair"
)

const slow = 1200 * time.Millisecond // what the server lets one wait for

// TestMain is also the client that the test starts in a namespace and a cgroup:
// "ADDRESS NAME COUNT TRIES TIMEOUT" and so on, one after the other. It waits for a line first.
func TestMain(m *testing.M) {
	words := strings.Fields(os.Getenv("HUATUO_TEST_DNS"))
	if len(words) == 0 {
		os.Exit(m.Run())
	}
	bufio.NewReader(os.Stdin).ReadString('\n') // it is in its cgroup now
	for ; len(words) >= 5; words = words[5:] {
		count, _ := strconv.Atoi(words[2])
		tries, _ := strconv.Atoi(words[3])
		timeout, _ := time.ParseDuration(words[4])
		for i := range count {
			if err := ask(words[0], words[1], i, tries, timeout); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
		}
	}
}

func ask(addr, name string, id, tries int, timeout time.Duration) error {
	c, err := net.Dial("udp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	msg := []byte{byte(id >> 8), byte(id), 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}
	for label := range strings.SplitSeq(name, ".") {
		msg = append(append(msg, byte(len(label))), label...)
	}
	msg = append(msg, 0, 0, 1, 0, 1)
	if name == "short" {
		msg = msg[:5]
	}
	for range tries {
		if _, err := c.Write(msg); err != nil {
			return err
		}
		c.SetReadDeadline(time.Now().Add(timeout))
		if _, err := c.Read(make([]byte, 512)); err == nil {
			return nil
		}
	}
	return nil
}

// serve answers as the first label of the name says.
func serve(c net.PacketConn) {
	for {
		b := make([]byte, 512)
		n, from, err := c.ReadFrom(b)
		if err != nil {
			return
		}
		if n < 14 {
			continue
		}
		b[2] |= 0x80
		switch string(b[13 : 13+min(int(b[12]), n-13)]) {
		case "ok":
		case "missing":
			b[3] = 3
		case "broken":
			b[3] = 2
		case "slow":
			go func() { time.Sleep(slow); c.WriteTo(b[:n], from) }()
			continue
		default:
			continue
		}
		c.WriteTo(b[:n], from)
	}
}

func newPair(t *testing.T) *netpair.Pair {
	t.Helper()
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("needs ip: install iproute2")
	}
	p, err := netpair.New(fmt.Sprintf("htq%d", os.Getpid()%100000))
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

// client runs a client to its end.
func client(t *testing.T, s *netpair.Side, cg *probetest.Cgroup, what string) (pid int) {
	t.Helper()
	c := exec.Command("ip", "netns", "exec", s.Name, os.Args[0])
	c.Env = append(os.Environ(), "HUATUO_TEST_DNS="+what)
	c.Stderr = os.Stderr
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	cg.Add(t, c.Process.Pid)
	io.WriteString(in, "\n")
	if err := c.Wait(); err != nil {
		t.Fatal(err)
	}
	return c.Process.Pid
}

// TestKernel asks a small name server, by each kind of hook and ring.
func TestKernel(t *testing.T) {
	probetest.NeedDefaultHierarchy(t)
	for _, kind := range []string{load.TPBTF, load.RawTP} {
		for _, ring := range []string{"ringbuf", "perf"} {
			t.Run(kind+"/"+ring, func(t *testing.T) {
				testQueries(t, load.Options{Kinds: []string{kind}, Ring: ring})
			})
		}
	}
	t.Run("legacy", func(t *testing.T) {
		testQueries(t, load.Options{Kinds: []string{load.RawTP}, Flavour: load.Legacy})
	})
}

func testQueries(t *testing.T, o load.Options) {
	env := probetest.NewKernel(t, o)
	pair := newPair(t)
	cg := probetest.NewCgroup(t, fmt.Sprintf("huatuo-test-dns-%d", os.Getpid()))
	var server net.PacketConn
	err := pair.B.Do(func() (err error) { server, err = net.ListenPacket("udp", ":53"); return err })
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	go serve(server)

	env.Start(Spec(), Config{Slow: time.Second, Timeout: 2 * time.Second})
	for _, h := range env.Hooks() {
		if h.By != o.Kinds[0] {
			t.Fatalf("hook %+v: want %s", h, o.Kinds[0])
		}
	}
	v4, v6 := pair.B.Addr+":53", "["+pair.B.Addr6+"]:53"
	pid := client(t, &pair.A, cg, strings.Join([]string{
		v4 + " ok.example 30 1 5s", v6 + " ok.example 20 1 5s", v4 + " missing.example 10 1 5s", v6 + " broken.example 5 1 5s",
		v4 + " slow.example 1 1 5s", v4 + " silent.example 2 1 10ms", v6 + " silent.example 1 3 10ms",
		v4 + " short 4 1 10ms", pair.B.Addr + ":54 ok.example 4 1 10ms", // no queries
	}, " "))

	want := map[string]int{"servfail": 5, "slow": 1, "timeout": 3}
	mine := func() map[string]int {
		got := map[string]int{}
		for _, r := range env.Records() {
			if b := r.Body.(*DNSFailure); b.Netns == pair.A.Inode || b.Netns == pair.B.Inode {
				got[b.Reason]++
			}
		}
		return got
	}
	for end := time.Now().Add(10 * time.Second); mine()["timeout"] < 3 && time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
	}
	time.Sleep(700 * time.Millisecond) // another round of the sweeper
	if got := mine(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("events %v, want %v", got, want)
	}
	checkMetrics(t, env, cg)
	for _, r := range env.Records() {
		if b := r.Body.(*DNSFailure); b.Netns == pair.A.Inode {
			checkEvent(t, pair, cg, pid, r, b)
		}
	}
	if err := env.Stop(); err != nil {
		t.Fatal(err)
	}
	loss := env.Loss()
	if got := uint64(len(env.Records())); loss.Observed != got+loss.Dropped["ring_full"]+loss.Dropped["rate_limited"]+loss.Dropped["undecoded"] {
		t.Errorf("observed %d, but %d records and %v lost", loss.Observed, got, loss.Dropped)
	}
}

func checkMetrics(t *testing.T, env *probetest.Env, cg *probetest.Cgroup) {
	t.Helper()
	missed := probetest.Missed()
	all := env.Gather()
	for code, want := range map[string]float64{"noerror": 51, "nxdomain": 10, "servfail": 5, "refused": 0} {
		if n, _ := probetest.WorkloadValue(all, containerResponses.Name, cg.ID, code); n != want && n != want-float64(missed) {
			t.Errorf("%v answers %s, want %v", n, code, want)
		}
		if n, _ := probetest.Value(all, responses.Name, code); n < want-float64(missed) {
			t.Errorf("the host has %v answers %s, its workload %v", n, code, want)
		}
	}
	if n, _ := probetest.WorkloadValue(all, containerTimeouts.Name, cg.ID); n != 3 {
		t.Errorf("%v timeouts, want 3", n)
	}
	if n, _ := probetest.Value(all, retries.Name); n < 2 {
		t.Errorf("%v retries, want 2 or, with those of others, more", n)
	}
	for _, s := range all {
		if s.Schema == containerAnswers && s.CgroupID == cg.ID && (s.Hist.Count > 66 || s.Hist.Count < 66-missed || s.Hist.Sum < slow.Seconds() || s.Hist.Sum > 5) {
			t.Errorf("%d answers in %g s, want 66 in a bit more than %v", s.Hist.Count, s.Hist.Sum, slow)
		}
	}
}

func checkEvent(t *testing.T, pair *netpair.Pair, cg *probetest.Cgroup, pid int, r *signal.Record, b *DNSFailure) {
	t.Helper()
	name := map[string]string{"servfail": "broken.example.", "slow": "slow.example.", "timeout": "silent.example."}[b.Reason]
	if b.Name != name || b.Type != "A" || b.Port == 0 || r.CgroupID != cg.ID ||
		!(b.Client == pair.A.Addr && b.Server == pair.B.Addr || b.Client == pair.A.Addr6 && b.Server == pair.B.Addr6) {
		t.Errorf("event %+v of %d, want %s", b, r.CgroupID, name)
	}
	if r.Process.PID != 0 && (int(r.Process.PID) != pid || !strings.HasPrefix(r.Process.Comm, "dns.test")) {
		t.Errorf("event of %+v, want process %d", r.Process, pid)
	}
	switch {
	case b.Reason == "slow" && (b.Elapsed < slow.Seconds() || b.Elapsed > 5),
		b.Reason == "timeout" && (b.Elapsed < 2 || b.Elapsed > 6),
		b.Reason == "timeout" && b.Server == pair.B.Addr6 && b.Retries != 2,
		b.Reason == "servfail" && (b.Elapsed <= 0 || b.Elapsed > 1 || r.Process.PID == 0):
		t.Errorf("event %+v of %+v", b, r.Process)
	}
}
