package tcpretrans

import (
	"net"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"huatuo/internal/kern/load"
	"huatuo/internal/probes/probetest"
)

// BenchmarkKernelRetransmit is what a segment that is sent again costs in the
// program: one of a connection that had its event, or that a filter leaves out.
func BenchmarkKernelRetransmit(b *testing.B) {
	for _, c := range []struct{ name, filter string }{
		{"limited", ""}, {"filter/arp", "arp"}, {"filter/port", "tcp port 443"}, {"filter/flags", "tcp[tcpflags] & tcp-syn != 0"},
	} {
		b.Run(c.name, func(b *testing.B) {
			env := probetest.NewKernel(b, load.Options{})
			cfg := Spec().Config.(Config)
			cfg.Filter = c.filter
			env.Start(Spec(), cfg)
			stats, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
			if err != nil {
				b.Skipf("needs a kernel that times programs (5.8): %v", err)
			}
			defer stats.Close()
			p, err := ebpf.NewProgramFromID(ebpf.ProgramID(env.Hooks()[0].ID))
			if err != nil {
				b.Fatal(err)
			}
			defer p.Close()
			pair := newPair(b)
			serve(b, &pair.B, 4242)
			if err := pair.B.Run("iptables", "-A", "INPUT", "-p", "tcp", "--dport", "4242", "-m", "statistic", "--mode", "random", "--probability", "0.03", "-j", "DROP"); err != nil {
				b.Skipf("needs iptables' module statistic: %v", err)
			}
			if err := pair.A.Run("ip", "link", "set", pair.A.Device, "gso_max_segs", "1"); err != nil { // else few segments are lost, and large ones
				b.Fatal(err)
			}
			var conn net.Conn
			err = pair.A.Do(func() (err error) {
				conn, err = net.DialTimeout("tcp4", pair.B.Addr+":4242", 10*time.Second)
				return err
			})
			if err != nil {
				b.Fatal(err)
			}
			defer conn.Close()
			before, err := p.Stats()
			if err != nil {
				b.Fatal(err)
			}
			payload := make([]byte, 64<<10)
			for b.Loop() {
				if _, err := conn.Write(payload); err != nil {
					b.Fatal(err)
				}
			}
			after, err := p.Stats()
			if err != nil {
				b.Fatal(err)
			}
			if n := after.RunCount - before.RunCount; n > 0 {
				b.ReportMetric(float64((after.Runtime-before.Runtime).Nanoseconds())/float64(n), "ns/segment")
				b.ReportMetric(float64(n), "segments")
			}
		})
	}
}
