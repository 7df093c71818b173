package netdrop

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf/btf"

	"huatuo/internal/signal"
)

var update = flag.Bool("update", false, "rewrite testdata")

// fakeReasons are few and not numbered as any kernel does it.
func fakeReasons() *reasons {
	r := newReasons(nil)
	for n, name := range []string{"NOT_DROPPED_YET", "CONSUMED", "NOT_SPECIFIED", "NO_SOCKET", "SOCKET_CLOSE", "NETFILTER_DROP"} {
		r.by[uint32(n)] = reason{name: name, normal: isNormal(name)}
	}
	return r
}

func newDecoder() *decoder {
	names := map[uint64]string{0x10: "kfree_skb_reason", 0x20: "nf_hook_slow", 0x30: "ip_rcv", 0x40: "handle_softirqs"}
	return &decoder{
		clock:   func(ns uint64) time.Time { return time.Unix(1700000000, int64(ns)) },
		reasons: fakeReasons(),
		symbol:  func(ip uint64) string { return names[ip] },
	}
}

// sample is a SYN that the firewall drops on its way in.
func sample() *bpfDropWire {
	w := &bpfDropWire{
		Ts: 5, Location: 0x20, Reason: 5, Len: 60, Netns: 4026532000, Ifindex: 2, Queue: 1, Pid: 101, Tgid: 100, Frames: 4 * 8,
		Packet: bpfHtPacket{Version: 4, Eth: 0x0800, Proto: 6, Ports: 2, Flags: 2, Seq: 7, Sport: 40000, Dport: 443,
			Saddr: [16]uint8{192, 0, 2, 1}, Daddr: [16]uint8{192, 0, 2, 2}},
	}
	copy(w.Dev[:], "eth0")
	copy(w.Comm[:], "stress")
	copy(w.Stack[:], []uint64{0x10, 0x20, 0x30, 0x40})
	return w
}

func bytesOf(w *bpfDropWire) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(w)), unsafe.Sizeof(*w))
}

func TestDecode(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*bpfDropWire)
	}{
		{"tcp_softirq", func(*bpfDropWire) {}},
		{"udp6_process", func(w *bpfDropWire) {
			w.Packet = bpfHtPacket{Version: 6, Eth: 0x86dd, Proto: 17, Ports: 1, Sport: 5, Dport: 53, Saddr: [16]uint8{0x20, 1, 0xd, 0xb8, 15: 1}, Daddr: [16]uint8{15: 1}}
			w.Frames = 3 * 8
		}},
		{"icmp_idle", func(w *bpfDropWire) {
			w.Packet.Proto, w.Packet.Ports, w.Packet.Icmp = 1, 0, [2]uint8{3, 1}
			w.Pid, w.Tgid, w.Frames = 0, 0, -14
		}},
		{"arp_kthread", func(w *bpfDropWire) {
			w.Packet, w.Kthread, w.Frames, w.Location = bpfHtPacket{Eth: 0x0806}, 1, 3*8, 0x50
		}},
		{"lldp_no_reason", func(w *bpfDropWire) { w.Packet, w.Reason = bpfHtPacket{Eth: 0x88cc}, noReason }},
		{"tcp_of_socket", func(w *bpfDropWire) {
			w.Packet.Eth, w.Packet.Ports, w.State, w.Reason, w.Suppressed = 0, 1, 4, 3<<16|9, 12
		}},
		{"fragment", func(w *bpfDropWire) { w.Packet.Ports, w.Packet.Proto, w.Reason = 0, 50, 300 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := sample()
			c.change(w)
			r, err := newDecoder().decode(bytesOf(w))
			if err != nil {
				t.Fatal(err)
			}
			if r.KernelIPs[0] != w.Location {
				t.Errorf("the stack begins at %#x, not at the place of the drop", r.KernelIPs[0])
			}
			golden(t, c.name, r)
		})
	}
	if _, err := newDecoder().decode(bytesOf(sample())[:64]); err == nil {
		t.Error("a short sample decodes")
	}
}

func golden(t *testing.T, name string, r *signal.Record) {
	t.Helper()
	d, err := r.Document()
	if err != nil {
		t.Fatal(err)
	}
	got, err := json.MarshalIndent(d, "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join("testdata", name+".json")
	if *update {
		if err := os.WriteFile(path, append(got, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(bytes.TrimSpace(want), got) {
		t.Errorf("%s differs (rewrite with -update):\n%s", path, got)
	}
}

func TestReasons(t *testing.T) {
	r := fakeReasons()
	for _, c := range []struct {
		n               uint32
		name, normality string
	}{
		{3, "NO_SOCKET", "false"}, {4, "SOCKET_CLOSE", "true"}, {noReason, "UNKNOWN", "unknown"},
		{200, "REASON_200", "false"}, {9<<16 | 3, "SUBSYSTEM_9_3", "false"}, {2<<16 | 999, "OVS_999", "false"},
	} {
		if got := r.of(c.n); got.name != c.name || got.normality() != c.normality {
			t.Errorf("reason %#x is %q, normal %s; want %q, %s", c.n, got.name, got.normality(), c.name, c.normality)
		}
	}
	set, unknown := r.quiet([]string{"NETFILTER_DROP", "NO_SUCH"})
	if want := uint64(1<<0 | 1<<1 | 1<<4 | 1<<5); set[0] != want {
		t.Errorf("quiet %b, want %b", set[0], want)
	}
	if !slices.Equal(unknown, []string{"NO_SUCH"}) {
		t.Errorf("unknown %v", unknown)
	}
}

// TestNames holds the table of normal reasons to the running kernel's own names.
func TestNames(t *testing.T) {
	types, err := btf.LoadKernelSpec()
	if err != nil {
		t.Skipf("needs a kernel with BTF: %v", err)
	}
	r := newReasons(types)
	if len(r.by) < 20 {
		t.Skip("needs a kernel that gives drop reasons (5.17)")
	}
	found := 0
	for _, n := range normal {
		for _, x := range r.by {
			if x.name == n.name {
				found++
			}
		}
	}
	// Kernels lack some, but not most.
	if found < len(normal)*2/3 {
		t.Errorf("the kernel knows %d of %d normal reasons", found, len(normal))
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(bytesOf(sample()))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := newDecoder().decode(raw)
		if err == nil {
			if _, err := r.Document(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	raw, d := bytesOf(sample()), newDecoder()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := d.decode(raw); err != nil {
			b.Fatal(err)
		}
	}
}
