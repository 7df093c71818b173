package netdrop

import (
	"net"
	"slices"
	"testing"
	"time"

	"huatuo/internal/kern/load"
	"huatuo/internal/probes/probetest"
	"huatuo/internal/signal"
)

// TestIdentify: by what others know the packet.
func TestIdentify(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*bpfDropWire)
		flow   *signal.Flow
		keys   []string
		brief  string
	}{
		{"SYN", func(*bpfDropWire) {}, &signal.Flow{Protocol: "tcp", A: "192.0.2.1:40000", B: "192.0.2.2:443", NetNamespace: 4026532000}, []string{"seq:7"}, "NETFILTER_DROP in nf_hook_slow"},
		{"the other direction", func(w *bpfDropWire) {
			p := &w.Packet
			p.Saddr, p.Daddr, p.Sport, p.Dport = p.Daddr, p.Saddr, p.Dport, p.Sport
		}, &signal.Flow{Protocol: "tcp", A: "192.0.2.1:40000", B: "192.0.2.2:443", NetNamespace: 4026532000}, []string{"seq:7"}, "NETFILTER_DROP in nf_hook_slow"},
		{"headers that could not be read", func(w *bpfDropWire) { w.Packet.Version = 0 }, nil, nil, "NETFILTER_DROP in nf_hook_slow"},
		{"no ports", func(w *bpfDropWire) { w.Packet.Ports, w.Packet.Proto = 0, 1 }, nil, nil, "NETFILTER_DROP in nf_hook_slow"},
		{"a place without a name", func(w *bpfDropWire) { w.Location = 0x99 }, &signal.Flow{Protocol: "tcp", A: "192.0.2.1:40000", B: "192.0.2.2:443", NetNamespace: 4026532000}, []string{"seq:7"}, "NETFILTER_DROP"},
	} {
		w := sample()
		tt.change(w)
		r, err := newDecoder().decode(bytesOf(w))
		if err != nil {
			t.Fatal(err)
		}
		if (r.Flow == nil) != (tt.flow == nil) || r.Flow != nil && *r.Flow != *tt.flow || !slices.Equal(r.Keys, tt.keys) || r.Brief != tt.brief {
			t.Errorf("%s: flow %+v, keys %q, brief %q", tt.name, r.Flow, r.Keys, r.Brief)
		}
	}
	b := &PacketDrop{Reason: listenOverflow, Protocol: "tcp", Source: "192.0.2.1", SourcePort: 1, Destination: "192.0.2.2", DestinationPort: 80, Netns: 5}
	r := &signal.Record{}
	b.identify(r)
	if !slices.Equal(r.Keys, []string{"listen:5:80"}) {
		t.Errorf("keys %q of a listen queue that is full", r.Keys)
	}
}

// TestKernelLeftOut: what is not to be told is counted as that, not as lost.
func TestKernelLeftOut(t *testing.T) {
	env := probetest.NewKernel(t, load.Options{})
	cfg := Spec().Config.(Config)
	cfg.Ignore = []string{"NO_SOCKET"}
	env.Start(Spec(), cfg)
	if _, ok := newReasons(env.Kernel.Types()).number("NO_SOCKET"); !ok {
		t.Skip("needs Linux 5.17: a kernel that gives reasons")
	}
	before := env.Loss()
	l, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	addr := l.LocalAddr().(*net.UDPAddr)
	l.Close() // nobody listens there any more
	c, err := net.DialUDP("udp4", nil, addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	const n = 50
	for range n {
		c.Write([]byte("x")) // every second one is told of the one before
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if now := env.Loss(); now.LeftOut-before.LeftOut >= n/2 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("left out %d, before %d", env.Loss().LeftOut, before.LeftOut)
		}
	}
	for _, r := range env.Records() {
		if b := r.Body.(*PacketDrop); b.Reason == "NO_SOCKET" {
			t.Errorf("an event of a reason that is ignored: %s", r.Title)
		}
	}
	if err := env.Stop(); err != nil {
		t.Fatal(err)
	}
	if l := env.Loss(); l.LeftOut < n/2 {
		t.Errorf("%d left out after the end", l.LeftOut)
	}
}
