package nic

import (
	"encoding/binary"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	bpflink "github.com/cilium/ebpf/link"

	"huatuo/internal/kern/load"
	"huatuo/internal/probes/probetest"
	"huatuo/internal/signal"
	"huatuo/test/faults/netpair"
)

const patience = 20 * time.Second

// pair is two namespaces with a link, and the probe in the first.
type pair struct {
	*netpair.Pair
	*probetest.Env
	t *testing.T
}

func newPair(t *testing.T, env *probetest.Env, prepare func(p *netpair.Pair)) *pair {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to make network namespaces: run `make ktest` as root")
	}
	p, err := netpair.New("nic")
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if prepare != nil {
		prepare(p)
	}
	ns, err := os.Open("/run/netns/" + p.A.Name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	s := spec(int(ns.Fd()))
	cfg := s.Config.(Config)
	cfg.Exclude, cfg.Period, cfg.Drivers = "", 100*time.Millisecond, 100*time.Millisecond
	cfg.Errors = 1
	env.Start(s, cfg)
	return &pair{p, env, t}
}

func (p *pair) run(s *netpair.Side, name string, args ...string) {
	p.t.Helper()
	if err := s.Run(name, args...); err != nil {
		p.t.Fatal(err)
	}
}

// value is that of a metric with these labels, -1 when there is none.
func (p *pair) value(s *signal.Schema, labels ...string) float64 {
	p.t.Helper()
	if v, ok := probetest.Value(p.Gather(), s.Name, labels...); ok {
		return v
	}
	return -1
}

// becomes waits until a metric has a value.
func (p *pair) becomes(want float64, s *signal.Schema, labels ...string) {
	p.t.Helper()
	got := 0.0
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if got = p.value(s, labels...); got == want {
			return
		}
	}
	p.t.Errorf("%s%v is %g, want %g", s.Name, labels, got, want)
}

func eventually(t *testing.T, ok func() bool, otherwise string) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(otherwise)
		}
	}
}

// events are what each kind of change is to say; DEV is the device.
var events = map[string]probetest.Event{
	"link_down":          {Title: "DEV lost its link: .+", Severity: signal.Warning},
	"link_up":            {Title: `DEV has a link( again after \S+s)?`, Severity: signal.Info},
	"transmit_timeout":   {Title: "queue 3 of DEV does not send: the kernel resets it", Severity: signal.Critical},
	"driver_errors":      {Title: `the driver of DEV counts errors: \w+ \+\d+.*`, Severity: signal.Warning},
	"bond_active":        {Title: "DEV sends by .+", Severity: signal.Warning},
	"bond_slave_down":    {Title: "DEV is down for .+", Severity: signal.Warning},
	"bond_slave_up":      {Title: "DEV is up for .+", Severity: signal.Info},
	"bond_slave_removed": {Title: "DEV is no part of .+", Severity: signal.Info},
	"lacp_joined":        {Title: "DEV joined the aggregate of .+", Severity: signal.Info},
	"lacp_left":          {Title: "DEV left the aggregate of .+", Severity: signal.Warning},
}

// happens waits for an event that is not among the first n.
func (p *pair) happens(n int, what, device string) *NIC {
	p.t.Helper()
	old := p.Records()[:n]
	r := p.WaitRecord(func(r *signal.Record) bool {
		b := r.Body.(*NIC)
		return b.What == what && b.Device == device && !slices.Contains(old, r)
	})
	w, ok := events[what]
	if !ok {
		p.t.Fatalf("what is the event of %s to be?", what)
	}
	w.Title, w.NoProcess = strings.ReplaceAll(w.Title, "DEV", device), true
	w.Check(p.t, r)
	return r.Body.(*NIC)
}

// TestKernelLink takes the other end of a veth pair down and up, then the
// device itself, then removes it.
func TestKernelLink(t *testing.T) {
	p := newPair(t, probetest.New(t), nil)
	dev := p.A.Device
	p.becomes(1, up, dev)
	p.becomes(1, carrier, dev)
	p.becomes(1, state, dev, "up")
	p.becomes(1500, mtu, dev)
	downs, ups := p.value(changes, dev, "down"), p.value(changes, dev, "up")

	p.run(&p.A, "ip", "link", "set", dev, "mtu", "1400", "txqueuelen", "77")
	p.becomes(1400, mtu, dev)
	p.becomes(77, length, dev)

	n := len(p.Records()) // the device may have come up when the probe was there
	p.run(&p.B, "ip", "link", "set", p.B.Device, "down")
	if b := p.happens(n, "link_down", dev); b.Reason != "no carrier" || b.Before != "up" || b.After != "down" || b.Kind != "veth" || b.Queue != -1 {
		t.Errorf("event %+v", b)
	}
	p.becomes(0, carrier, dev)
	p.becomes(1, up, dev)
	p.becomes(1, state, dev, "down")
	p.becomes(downs+1, changes, dev, "down")

	p.run(&p.B, "ip", "link", "set", p.B.Device, "up")
	if b := p.happens(n, "link_up", dev); b.DownSeconds <= 0 || b.DownSeconds > 60 || b.After != "up" {
		t.Errorf("event %+v", b)
	}
	p.becomes(1, carrier, dev)
	p.becomes(ups+1, changes, dev, "up")

	n = len(p.Records())
	p.run(&p.A, "ip", "link", "set", dev, "down")
	r := p.WaitRecord(func(r *signal.Record) bool { return r.Title == dev+" was set down" })
	if b := r.Body.(*NIC); b.What != "link_down" || r.Severity != signal.Info || len(p.Records()) != n+1 {
		t.Errorf("%d events, the last %+v", len(p.Records())-n, r)
	}
	p.becomes(0, up, dev)

	p.run(&p.A, "ip", "link", "set", dev, "up")
	p.becomes(1, carrier, dev)
	p.run(&p.A, "ip", "link", "del", dev)
	p.becomes(-1, up, dev)
	if b := p.Records()[len(p.Records())-1].Body.(*NIC); b.What != "link_down" || len(p.Records()) != n+3 {
		t.Errorf("%d events since the device was set down, the last %+v", len(p.Records())-n, b) // down, up, and down for it is removed
	}

	if err := p.Stop(); err != nil {
		t.Fatal(err)
	}
	if loss := p.Loss(); loss.Observed != uint64(len(p.Records())) {
		t.Errorf("observed %d, but %d records and %v lost", loss.Observed, len(p.Records()), loss.Dropped)
	}
}

// TestKernelQdisc sends 20 packets at once to a queue with room for four.
func TestKernelQdisc(t *testing.T) {
	p := newPair(t, probetest.New(t), func(p *netpair.Pair) {
		if err := p.A.Run("tc", "qdisc", "add", "dev", p.A.Device, "root", "tbf", "rate", "8kbit", "burst", "1600", "limit", "5000"); err != nil {
			t.Fatal(err)
		}
		// Nobody is to be asked for the address of the other end, through the same queue.
		if err := p.A.Run("ip", "neigh", "add", p.B.Addr, "lladdr", "02:00:00:00:00:01", "dev", p.A.Device); err != nil {
			t.Fatal(err)
		}
	})
	var out net.Conn
	if err := p.A.Do(func() (err error) { out, err = net.Dial("udp4", p.B.Addr+":9"); return err }); err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	dev := p.A.Device
	p.becomes(0, qdiscDrops, dev, "tbf")
	const n, size = 20, 1250
	before := p.Gather()
	for range n {
		out.Write(make([]byte, size-14-20-8)) // refused with ENOBUFS when it is dropped
	}
	var drops, passed, length, backlog float64
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		s := p.Gather()
		delta := func(m *signal.Schema) float64 {
			a, _ := probetest.Value(s, m.Name, dev, "tbf")
			b, _ := probetest.Value(before, m.Name, dev, "tbf")
			return a - b
		}
		drops, passed = delta(qdiscDrops), delta(qdiscPackets)
		length, backlog = delta(qdiscLength), delta(qdiscBacklog)
		if drops+passed+length >= n && drops > 0 && length > 0 {
			if delta(qdiscBytes) < passed*60 || delta(qdiscOverlimits) < 1 || delta(qdiscRequeues) != 0 {
				t.Errorf("%g bytes, %g overlimits, %g requeues", delta(qdiscBytes), delta(qdiscOverlimits), delta(qdiscRequeues))
			}
			break
		}
	}
	// Neighbour discovery of IPv6 may be among them.
	if drops < n-8 || length < 1 || length > 5 || backlog < size || backlog > 5000 || drops+passed+length > n+5 {
		t.Errorf("of %d packets %g were dropped, %g passed, %g wait with %g bytes", n, drops, passed, length, backlog)
	}
}

// TestKernelDriver drops packets in the driver, by XDP: it counts each.
func TestKernelDriver(t *testing.T) {
	env := probetest.NewKernel(t, load.Options{})
	p := newPair(t, env, nil)
	dev := p.A.Device
	p.becomes(1e10/8, speed, dev)
	p.becomes(1, info, dev, "veth", "veth", "", "")
	drop, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "drop", Type: ebpf.XDP, License: "GPL", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 1), asm.Return()}})
	if err != nil {
		t.Fatal(err)
	}
	defer drop.Close()
	var out net.Conn
	if err := p.A.Do(func() error {
		i, err := net.InterfaceByName(dev)
		if err != nil {
			return err
		}
		l, err := bpflink.AttachXDP(bpflink.XDPOptions{Program: drop, Interface: i.Index, Flags: bpflink.XDPDriverMode})
		if err == nil {
			t.Cleanup(func() { l.Close() })
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if err := p.B.Run("ip", "neigh", "add", p.A.Addr, "lladdr", "02:00:00:00:00:01", "dev", p.B.Device); err != nil {
		t.Fatal(err)
	}
	if err := p.B.Do(func() (err error) { out, err = net.Dial("udp4", p.A.Addr+":9"); return err }); err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	const name, n = "rx_queue_xdp_drops", 30
	p.becomes(1, up, dev)
	before := p.value(driverErrors, dev, name)
	for range n {
		if _, err := out.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
	}
	got := 0.0
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if got = p.value(driverErrors, dev, name) - before; got >= n {
			break
		}
	}
	b := p.happens(0, "driver_errors", dev)
	if !strings.HasPrefix(b.Reason, name+" +") || b.Driver != "veth" || b.Kind != "veth" {
		t.Errorf("event %+v", b)
	}
	if got < n || got > n+10 { // neighbour discovery
		t.Errorf("%d packets dropped, %g counted: %v", n, got, errorNames(p.Gather()))
	}
}

func errorNames(samples []signal.Sample) (out []string) {
	for _, s := range samples {
		if s.Schema == driverErrors {
			out = append(out, strings.Join(s.Labels, ":"))
		}
	}
	return out
}

// TestKernelTimeout runs the program as the watchdog of the kernel would, with a
// device of the kernel: no device here can be made to hang.
func TestKernelTimeout(t *testing.T) {
	for _, o := range []load.Options{
		{Kinds: []string{load.RawTP}}, {Kinds: []string{load.RawTP}, Ring: "perf"}, {Kinds: []string{load.RawTP}, Flavour: load.Legacy},
	} {
		t.Run(o.Flavour+o.Ring, func(t *testing.T) { testTimeout(t, o) })
	}
}

func testTimeout(t *testing.T, o load.Options) {
	env := probetest.NewKernel(t, o)
	p := newPair(t, env, nil)
	hooks := env.Hooks()
	i := slices.IndexFunc(hooks, func(h load.HookState) bool { return h.Hook == "net_dev_xmit_timeout" })
	if i < 0 || hooks[i].By != load.RawTP || len(hooks) != 4 {
		t.Fatalf("hooks %+v", hooks)
	}
	prog, err := ebpf.NewProgramFromID(ebpf.ProgramID(hooks[i].ID))
	if err != nil {
		t.Fatal(err)
	}
	defer prog.Close()
	p.becomes(0, timeouts, p.A.Device)
	ctx := binary.NativeEndian.AppendUint64(nil, deviceOf(t, p))
	ctx = binary.NativeEndian.AppendUint64(ctx, 3)
	for range 5 {
		if _, err := prog.Run(&ebpf.RunOptions{Context: ctx}); err != nil {
			t.Skipf("needs a kernel that runs programs of tracepoints by itself (5.10): %v", err)
		}
	}
	b := p.happens(0, "transmit_timeout", p.A.Device)
	if b.Queue != 3 || b.Netns != p.A.Inode || b.Driver != "veth" && b.Driver != "" {
		t.Errorf("event %+v", b)
	}
	p.becomes(5, timeouts, p.A.Device)
}

// deviceOf returns where the kernel has the pair's first device.
func deviceOf(t *testing.T, p *pair) uint64 {
	t.Helper()
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	note, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "note", Type: ebpf.RawTracepoint, License: "GPL", Instructions: asm.Instructions{
		asm.LoadMem(asm.R6, asm.R1, 8, asm.DWord), // the device, of net_dev_start_xmit
		// Its name is in its first bytes in no kernel alike: the sender's process tells instead.
		asm.FnGetCurrentPidTgid.Call(),
		asm.RSh.Imm(asm.R0, 32),
		asm.JNE.Imm(asm.R0, int32(os.Getpid()), "out"),
		asm.StoreImm(asm.RFP, -4, 0, asm.Word),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -4),
		asm.LoadMapPtr(asm.R1, m.FD()),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "out"),
		asm.StoreMem(asm.R0, 0, asm.R6, asm.DWord),
		asm.Mov.Imm(asm.R0, 0).WithSymbol("out"),
		asm.Return(),
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer note.Close()
	l, err := bpflink.AttachRawTracepoint(bpflink.RawTracepointOptions{Name: "net_dev_start_xmit", Program: note})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := p.A.Run("ip", "neigh", "add", p.B.Addr, "lladdr", "02:00:00:00:00:01", "dev", p.A.Device); err != nil {
		t.Fatal(err)
	}
	if err := p.A.Do(func() error {
		c, err := net.Dial("udp4", p.B.Addr+":9")
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write([]byte("hello"))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	var dev uint64
	if err := m.Lookup(uint32(0), &dev); err != nil || dev == 0 {
		t.Fatalf("no packet was seen: %v", err)
	}
	return dev
}
