package tcpretrans

import (
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"huatuo/internal/kern/load"
	"huatuo/internal/probes/probetest"
	"huatuo/test/faults/netpair"
)

// TestKernelFilter loses segments of which a filter takes some: those make
// events, and all are counted.
func TestKernelFilter(t *testing.T) {
	probetest.Rungs(t, testFilter)
}

func testFilter(t *testing.T, o load.Options) {
	p := newPair(t)
	env := probetest.NewKernel(t, o)
	cfg := Spec().Config.(Config)
	cfg.Rate = 0
	cfg.Filter = strings.Join([]string{
		"(tcp dst port 4242 and dst host " + p.B.Addr + " and len = 154 and tcp[tcpflags] & tcp-syn = 0)",
		"(ip6 and tcp src port 4246)",
		"(src port 4245 and tcp[tcpflags] = tcp-syn|tcp-ack)",
		"(port 4247 and src host 10.0.0.1)",
	}, " or ")
	env.Start(Spec(), cfg)
	for _, port := range []int{4242, 4243, 4245, 4246} {
		serve(t, &p.B, port)
	}
	cut(t, p, p.B.Addr+":4242", 100)
	cut(t, p, p.B.Addr+":4242", 101) // not as long as the filter says
	cut(t, p, p.B.Addr+":4243", 100)
	unanswered(t, p, p.B.Addr+":4245", "["+p.B.Addr6+"]:4246")

	want := map[string]bool{"fast|rto|tlp|other to 4242": true, "synack from 4245": true, "synack from 4246": true}
	got := map[string]bool{}
	all := func() (n float64) {
		for _, x := range env.Gather() {
			if x.Schema == retransmits {
				n += x.Value
			}
		}
		return n
	}
	for end := time.Now().Add(15 * time.Second); time.Now().Before(end) && (fmt.Sprint(got) != fmt.Sprint(want) || env.Loss().Dropped["filtered"] < 4); time.Sleep(50 * time.Millisecond) {
		clear(got)
		for _, r := range env.Records() {
			b := r.Body.(*TCPRetransmit)
			switch {
			case b.Netns != p.A.Inode && b.Netns != p.B.Inode:
			case b.RetransmitKind == "synack":
				got[fmt.Sprintf("synack from %d", b.SourcePort)] = true
			case b.RetransmitKind == "syn" || b.Length != 100:
				got[fmt.Sprintf("%s to %d of %d bytes", b.RetransmitKind, b.DestinationPort, b.Length)] = true
			default:
				got[fmt.Sprintf("fast|rto|tlp|other to %d", b.DestinationPort)] = true
			}
		}
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("events %v, want %v", got, want)
	}
	filtered := env.Loss().Dropped["filtered"]
	if filtered < 4 { // two connections and two SYNs
		t.Errorf("%d are told as filtered, want 4 at least", filtered)
	}
	if n := all(); n < float64(filtered)+3 {
		t.Errorf("%v counted, of which %d are filtered", n, filtered)
	}
	if err := env.Stop(); err != nil {
		t.Fatal(err)
	}
	loss := env.Loss()
	var lost uint64
	for _, n := range loss.Dropped {
		lost += n
	}
	if n := uint64(len(env.Records())); loss.Observed != n+lost {
		t.Errorf("observed %d, but %d records and %v lost", loss.Observed, n, loss.Dropped)
	}
}

// cut connects, closes the way back, and sends n bytes.
func cut(t *testing.T, p *netpair.Pair, to string, n int) {
	t.Helper()
	var c net.Conn
	err := p.A.Do(func() (err error) {
		c, err = net.DialTimeout("tcp", to, 5*time.Second)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	port := fmt.Sprint(c.LocalAddr().(*net.TCPAddr).Port)
	if err := p.B.Run("iptables", "-A", "INPUT", "-p", "tcp", "--sport", port, "-j", "DROP"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(make([]byte, n)); err != nil {
		t.Fatal(err)
	}
}

// unanswered connects where the answers are lost: SYN and SYN-ACK are sent again.
func unanswered(t *testing.T, p *netpair.Pair, addrs ...string) {
	t.Helper()
	for _, tool := range []string{"iptables", "ip6tables"} {
		if err := p.A.Run(tool, "-A", "INPUT", "-p", "tcp", "--sport", "4245:4246", "-j", "DROP"); err != nil {
			t.Fatal(err)
		}
	}
	var wg sync.WaitGroup
	for _, addr := range addrs {
		wg.Go(func() {
			_ = p.A.Do(func() error {
				if c, err := net.DialTimeout("tcp", addr, 1500*time.Millisecond); err == nil {
					c.Close()
					t.Errorf("connected to %s, but the way back is closed", addr)
				}
				return nil
			})
		})
	}
	wg.Wait()
}
