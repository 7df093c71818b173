package nic

import (
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"huatuo/internal/probe"
	"huatuo/internal/probes/probetest"
	"huatuo/internal/signal"
)

func TestBadConfig(t *testing.T) {
	good := Spec().Config.(Config)
	for _, tt := range []struct {
		change func(*Config)
		want   string
	}{
		{func(c *Config) { c.Include = "(" }, "nic.include"},
		{func(c *Config) { c.Exclude = "[" }, "nic.exclude"},
		{func(c *Config) { c.Period = 0 }, "probes.nic"},
		{func(c *Config) { c.Drivers = -1 }, "probes.nic"},
		{func(c *Config) { c.Errors = 0 }, "probes.nic"},
		{func(c *Config) { c.Rate = -1 }, "probes.nic"},
	} {
		cfg := good
		tt.change(&cfg)
		if err := probetest.New(t).TryStart(Spec(), cfg); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("run with %+v = %v; want an error that names %s", cfg, err, tt.want)
		}
	}
}

func TestFilter(t *testing.T) {
	f, err := filter(Spec().Config.(Config))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{"eth0": true, "bond0": true, "veth12ab": false, "cali1234": false, "eni0": true, "eni0123456789a": false} {
		if f(name) != want {
			t.Errorf("%s: %t", name, !want)
		}
	}
	if f, err = filter(Config{Include: "^eth", Exclude: "1$"}); err != nil || f("lo") || f("eth1") || !f("eth0") {
		t.Errorf("include and exclude: %v", err)
	}
}

const running = unix.IFF_UP | unix.IFF_RUNNING

func eth(change func(*link)) *link {
	l := &link{index: 1, name: "eth1", flags: running, carrier: true, operstate: 6}
	if change != nil {
		change(l)
	}
	return l
}

func down(change func(*link)) *link {
	return eth(func(l *link) { l.flags, l.carrier, l.operstate = unix.IFF_UP, false, 2; change(l) })
}

func bondOf(b bond) *link {
	b.is = true
	return &link{index: 3, name: "bond0", kind: "bond", flags: running, carrier: true, operstate: 6, bond: b}
}

func slaveOf(s slave) *link {
	s.is = true
	return eth(func(l *link) { l.master, l.slave = 3, s })
}

func TestCompare(t *testing.T) {
	names := func(i int) string { return map[int]string{1: "eth1", 2: "eth2", 3: "bond0"}[i] }
	partner := [6]byte{0, 0x1b, 0x21, 1, 2, 3}
	for _, tt := range []struct {
		name          string
		was, now      *link
		what, title   string
		sev           signal.Severity
		before, after string
	}{
		{"nothing", eth(nil), eth(nil), "", "", "", "", ""},
		{"another mtu", eth(nil), eth(func(l *link) { l.mtu = 9000 }), "", "", "", "", ""},
		{"no carrier", eth(nil), down(func(*link) {}), "link_down", "eth1 lost its link: no carrier", signal.Warning, "up", "down"},
		{"below", eth(nil), down(func(l *link) { l.operstate = 3 }), "link_down", "eth1 lost its link: the device below, or the other end, is down", signal.Warning, "up", "lowerlayerdown"},
		{"dormant", eth(nil), down(func(l *link) { l.operstate, l.carrier = 5, true }), "link_down", "eth1 lost its link: waits for a protocol", signal.Warning, "up", "dormant"},
		{"protocol", eth(nil), down(func(l *link) { l.protoDown = true }), "link_down", "eth1 lost its link: held down by a protocol", signal.Warning, "up", "down"},
		{"reason", eth(nil), down(func(l *link) { l.protoDown, l.protoReason = true, 2 }), "link_down", "eth1 lost its link: held down by a protocol (reason bits 0x2)", signal.Warning, "up", "down"},
		{"set down", eth(nil), down(func(l *link) { l.flags = 0 }), "link_down", "eth1 was set down", signal.Info, "up", "down"},
		{"up", down(func(*link) {}), eth(nil), "link_up", "eth1 has a link again after 1.5s", signal.Info, "down", "up"},
		{"gone", eth(nil), nil, "link_down", "eth1 is gone", signal.Info, "up", "gone"},
		{"gone after it was down", down(func(*link) {}), nil, "", "", "", "", ""},
		{"failover", bondOf(bond{active: 1}), bondOf(bond{active: 2}), "bond_active", "bond0 sends by eth2, not by eth1 any more", signal.Warning, "eth1", "eth2"},
		{"none left", bondOf(bond{active: 1}), bondOf(bond{}), "bond_active", "bond0 sends by no device, not by eth1 any more", signal.Warning, "eth1", ""},
		{"first", bondOf(bond{}), bondOf(bond{active: 2}), "bond_active", "bond0 sends by eth2", signal.Info, "", "eth2"},
		{"partner", bondOf(bond{}), bondOf(bond{partner: partner}), "lacp_partner", "the other end of bond0 is 00:1b:21:01:02:03", signal.Info, "", "00:1b:21:01:02:03"},
		{"no partner", bondOf(bond{partner: partner}), bondOf(bond{}), "lacp_partner", "bond0 lost the other end of its aggregate", signal.Warning, "00:1b:21:01:02:03", ""},
		{"slave down", slaveOf(slave{}), slaveOf(slave{mii: 2}), "bond_slave_down", "eth1 is down for bond0", signal.Warning, "", ""},
		{"slave up", slaveOf(slave{mii: 2}), slaveOf(slave{}), "bond_slave_up", "eth1 is up for bond0", signal.Info, "", ""},
		{"slave between", slaveOf(slave{mii: 2}), slaveOf(slave{mii: 1}), "", "", "", "", ""},
		{"removed", slaveOf(slave{}), eth(nil), "bond_slave_removed", "eth1 is no part of bond0 any more", signal.Info, "", ""},
		{"joined", slaveOf(slave{actor: 0x3f, partner: 0x07}), slaveOf(slave{actor: 0x3f, partner: 0x3f}), "lacp_joined", "eth1 joined the aggregate of bond0", signal.Info, "", ""},
		{"left", slaveOf(slave{actor: 0x3f, partner: 0x3f}), slaveOf(slave{actor: 0x0f, partner: 0x3f}), "lacp_left", "eth1 left the aggregate of bond0", signal.Warning, "", ""},
	} {
		rs := compare(tt.was, tt.now, names, 1500*time.Millisecond)
		if tt.what == "" {
			if len(rs) > 0 {
				t.Errorf("%s: %+v", tt.name, rs[0])
			}
			continue
		}
		if len(rs) != 1 {
			t.Errorf("%s: %d events", tt.name, len(rs))
			continue
		}
		rs[0].port = &port{driver: "ice", speed: 1.25e9}
		r := rs[0].record(time.Now(), 3)
		b := r.Body.(*NIC)
		if b.What != tt.what || r.Title != tt.title || r.Severity != tt.sev || b.Before != tt.before || b.After != tt.after || b.Driver != "ice" || b.SpeedBytes != 1.25e9 || r.Suppressed != 3 {
			t.Errorf("%s: %q, %s, %+v", tt.name, r.Title, r.Severity, b)
		}
		if (b.Bond != "") != (strings.Contains(b.What, "bond") || strings.Contains(b.What, "lacp")) {
			t.Errorf("%s: bond %q", tt.name, b.Bond)
		}
	}
}

// newTracker returns one at the clock that *now is, and what it emits.
func newTracker(now *time.Time, knobs probe.EventKnobs) (*tracker, *[]*signal.Record) {
	var out []*signal.Record
	return &tracker{now: func() time.Time { return *now }, knobs: knobs, seed: maphash.MakeSeed(), links: map[int]*tracked{},
		wants: func(device string) bool { return !strings.HasPrefix(device, "veth") }, changed: func() {},
		port: func(string) *port { return nil }, emit: func(r *signal.Record) { out = append(out, r) }}, &out
}

func newlink(t *testing.T, index uint32, name string, flags uint32) []byte {
	t.Helper()
	b := make([]byte, sizeofIfinfomsg)
	binary.NativeEndian.PutUint32(b[4:], index)
	binary.NativeEndian.PutUint32(b[8:], flags)
	attrs, err := netlink.MarshalAttributes([]netlink.Attribute{{Type: unix.IFLA_IFNAME, Data: append([]byte(name), 0)}})
	if err != nil {
		t.Fatal(err)
	}
	return append(b, attrs...)
}

func TestTracker(t *testing.T) {
	now := time.Unix(1000, 0)
	tr, out := newTracker(&now, probe.EventKnobs{Rate: 1, Burst: 2})
	tell := func(index uint32, name string, flags uint32) {
		tr.message(unix.RTM_NEWLINK, 0, newlink(t, index, name, flags))
	}

	tell(1, "eth0", running)
	tell(2, "veth0", running)
	if len(*out) != 0 {
		t.Fatalf("events of devices that were there: %v", (*out)[0].Title)
	}
	tell(1, "eth0", unix.IFF_UP)
	tell(2, "veth0", unix.IFF_UP)
	now = now.Add(3 * time.Second)
	tell(1, "eth0", running)
	if len(*out) != 2 || (*out)[1].Body.(*NIC).DownSeconds != 3 || (*out)[1].Body.(*NIC).What != "link_up" {
		t.Fatalf("%d events, want a link that went and came again after 3 s, and none of veth0", len(*out))
	}

	// Of 10 at once so many pass as the burst allows; the next after a while tells of the others.
	for i := range 10 {
		tell(1, "eth0", []uint32{unix.IFF_UP, running}[i%2])
	}
	passed := len(*out)
	now = now.Add(time.Minute)
	tell(1, "eth0", unix.IFF_UP)
	last := (*out)[len(*out)-1]
	loss := tr.loss()
	if passed >= 12 || last.Suppressed != uint64(12-passed) || loss.Dropped["rate_limited"] != uint64(12-passed) || loss.Observed != 13 {
		t.Errorf("%d events passed, the last tells of %d more, losses %+v", passed, last.Suppressed, loss)
	}

	// A port of a bridge in the bridge's own words is not news, and what cannot be read is counted.
	m := newlink(t, 1, "eth0", running)
	m[0] = unix.AF_BRIDGE
	tr.message(unix.RTM_NEWLINK, 0, m)
	tr.message(unix.RTM_NEWLINK, 0, m[:8])
	tr.overflow()
	if l := tr.loss(); l.Observed != 15 || l.Dropped["undecoded"] != 1 || l.Dropped["socket_overflow"] != 1 || len(*out) != passed+1 {
		t.Errorf("losses %+v, %d events", l, len(*out)-passed-1)
	}
}

// TestTrackerDump: what a dump does not have is gone once the next has begun, and
// what one that was broken does not have is not.
func TestTrackerDump(t *testing.T) {
	now := time.Unix(1000, 0)
	tr, out := newTracker(&now, probe.EventKnobs{})
	dump := func(sequence uint32, names ...string) {
		for i, n := range names {
			if n != "" {
				tr.message(unix.RTM_NEWLINK, sequence, newlink(t, uint32(i+1), n, running))
			}
		}
	}
	has := func(want int) {
		t.Helper()
		if n := len(tr.all()); n != want {
			t.Errorf("%d devices, want %d", n, want)
		}
	}
	dump(1, "eth0", "eth1")
	dump(2, "eth0")
	has(2) // the dump may not be at its end
	dump(2, "", "eth1")
	dump(4, "eth0")
	has(2) // it had both
	tr.overflow()
	dump(5, "eth0")
	has(2) // the one before was broken
	dump(6, "eth0")
	has(2) // and that may have been as well
	tr.message(unix.RTM_NEWLINK, 0, newlink(t, 7, "eth7", running))
	dump(7, "eth0")
	has(2) // eth0, and eth7, which came when the dump had passed its place
	dump(8, "eth0")
	has(1)
	if len(*out) != 2 || (*out)[0].Title != "eth1 is gone" || (*out)[1].Title != "eth7 is gone" {
		t.Errorf("%d events", len(*out))
	}
	dump(9, "lan0")
	if l, _ := tr.reported(); len(l) != 1 || l[0].name != "lan0" {
		t.Errorf("a device that was renamed: %+v", l)
	}
	tr.message(unix.RTM_DELLINK, 0, newlink(t, 1, "lan0", running))
	has(0)
}

// TestHung lets the kernel stop to answer: values that would be old vanish, and
// the age tells.
func TestHung(t *testing.T) {
	now := time.Unix(1000, 0)
	tr, _ := newTracker(&now, probe.EventKnobs{})
	r := &reader{cfg: Spec().Config.(Config), log: probetest.New(t).Log, now: tr.now, tracker: tr}
	tr.message(unix.RTM_NEWLINK, 0, newlink(t, 1, "eth0", running))
	r.qdiscs.last, r.qdiscs.at = []*qdisc{{index: 1, kind: "fq", drops: 5}, {index: 1, kind: "noqueue"}, {index: 9, kind: "fq"}}, now
	r.ports.last, r.ports.at = map[string]*port{"eth0": {driver: "ice", speed: 1.25e9}}, now
	r.devices.last, r.devices.at = devices{traps: []trap{{device: "pci/0", name: "x", group: "y", kind: "drop"}}}, now
	gather := func() []signal.Sample {
		b := new(signal.Batch)
		if err := r.collect(b); err != nil {
			t.Fatal(err)
		}
		return b.Samples
	}
	for _, tt := range []struct {
		after                time.Duration
		link, qdisc, drivers bool
	}{
		{0, true, true, true},
		{20 * time.Second, true, true, true},
		{26 * time.Second, false, false, true},
		{3*time.Minute + 11*time.Second, false, false, false},
	} {
		now = time.Unix(1000, 0).Add(tt.after)
		s := gather()
		_, hasLink := probetest.Value(s, up.Name, "eth0")
		drops, hasQdisc := probetest.Value(s, qdiscDrops.Name, "eth0", "fq")
		_, hasDriver := probetest.Value(s, speed.Name, "eth0")
		_, hasTrap := probetest.Value(s, trapPackets.Name, "pci/0", "x", "y", "drop")
		if hasTrap != tt.drivers || hasLink != tt.link || hasQdisc != tt.qdisc || hasDriver != tt.drivers || hasQdisc && drops != 5 {
			t.Errorf("after %v: link %t, qdisc %t, driver %t", tt.after, hasLink, hasQdisc, hasDriver)
		}
		for _, source := range sources {
			if v, _ := probetest.Value(s, age.Name, source); v != tt.after.Seconds() {
				t.Errorf("%s is %g s old, want %v", source, v, tt.after)
			}
		}
	}
	tr.message(unix.RTM_NEWLINK, 0, newlink(t, 1, "eth0", running))
	if _, ok := probetest.Value(gather(), up.Name, "eth0"); !ok {
		t.Error("the kernel answers again, and nothing is shown")
	}
}

// BenchmarkMessage is a message of a dump that says what the one before said.
func BenchmarkMessage(b *testing.B) {
	now := time.Unix(1000, 0)
	tr, _ := newTracker(&now, probe.EventKnobs{})
	m := recorded(b, "lacp")[3]
	b.ReportAllocs()
	for b.Loop() {
		tr.message(unix.RTM_NEWLINK, 0, m)
	}
}

func sample() *bpfNicTimeoutWire {
	w := &bpfNicTimeoutWire{Ts: 1e9, Suppressed: 2, Ifindex: 2, Queue: 5, Netns: 4026531840}
	copy(w.Device.Name[:], "eth0")
	copy(w.Driver[:], "mlx5_core")
	return w
}

func bytesOf(w *bpfNicTimeoutWire) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(w)), unsafe.Sizeof(*w))
}

func newDecoder(p *port) *decoder {
	return &decoder{clock: func(ns uint64) time.Time { return time.Unix(0, int64(ns)) }, port: func(string) *port { return p }}
}

func TestDecode(t *testing.T) {
	for _, tt := range []struct {
		port   *port
		driver string
	}{{nil, "mlx5_core"}, {&port{driver: "mlx5e", firmware: "16.35", bus: "0000:3b:00.0", speed: 3e9}, "mlx5e"}} {
		r, err := newDecoder(tt.port).decode(bytesOf(sample()))
		if err != nil {
			t.Fatal(err)
		}
		b := r.Body.(*NIC)
		if r.Title != "queue 5 of eth0 does not send: the kernel resets it" || r.Severity != signal.Critical || r.Suppressed != 2 ||
			b.What != "transmit_timeout" || b.Queue != 5 || b.Driver != tt.driver || b.Netns != 4026531840 || fmt.Sprint(r.Measures[0].Labels) != "[eth0]" {
			t.Errorf("%+v, %+v", r, b)
		}
	}
	if _, err := newDecoder(nil).decode(bytesOf(sample())[:20]); err == nil {
		t.Error("a short sample decodes")
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(bytesOf(sample()))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		if r, err := newDecoder(nil).decode(raw); err == nil {
			if _, err := r.Document(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	raw, d := bytesOf(sample()), newDecoder(nil)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := d.decode(raw); err != nil {
			b.Fatal(err)
		}
	}
}
