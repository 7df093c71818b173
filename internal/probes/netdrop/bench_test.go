package netdrop

import (
	"net"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"huatuo/internal/kern/load"
	"huatuo/internal/probes/probetest"
)

// BenchmarkKernelDrop is what a lost packet costs in the program: a datagram to
// a closed port, which makes an event, or is held back, or is left out.
func BenchmarkKernelDrop(b *testing.B) {
	for _, c := range []struct {
		name   string
		filter string
		ignore []string
		rate   int
	}{
		{"counted", "", []string{"NO_SOCKET"}, 5},
		{"event", "", nil, 0},
		{"limited", "", nil, 5},
		{"filter/arp", "arp", nil, 0},
		{"filter/port", "tcp port 443", nil, 0},
		{"filter/both", "udp port 53 and net 10.0.0.0/8", nil, 0},
		{"filter/flags", "tcp[tcpflags] & tcp-syn != 0", nil, 0},
		{"filter/link", "ether host 02:00:00:00:00:01 and udp", nil, 0},
		{"filter/payload", "udp[(udp[4:2]-1):1] = 1", nil, 0},
	} {
		b.Run(c.name, func(b *testing.B) {
			env := probetest.NewKernel(b, load.Options{})
			cfg := Spec().Config.(Config)
			cfg.Filter, cfg.Ignore, cfg.Rate = c.filter, c.ignore, c.rate
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
			conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
			if err != nil {
				b.Fatal(err)
			}
			defer conn.Close()
			to := &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9}
			payload := make([]byte, 64)
			before, err := p.Stats()
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				if _, err := conn.WriteTo(payload, to); err != nil {
					b.Fatal(err)
				}
			}
			after, err := p.Stats()
			if err != nil {
				b.Fatal(err)
			}
			if n := after.RunCount - before.RunCount; n > 0 {
				b.ReportMetric(float64((after.Runtime-before.Runtime).Nanoseconds())/float64(n), "ns/drop")
			}
		})
	}
}
