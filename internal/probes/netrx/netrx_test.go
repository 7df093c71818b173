package netrx

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unsafe"

	"huatuo/internal/probes/probetest"
	"huatuo/internal/signal"
)

var update = flag.Bool("update", false, "rewrite testdata")

func clock(ns uint64) time.Time { return time.Unix(1700000000, int64(ns)) }

// sample is a segment that a program read late.
func sample() *bpfNetrxWire {
	w := &bpfNetrxWire{
		Ts: 5, Waited: 150e6, Cgroup: 42, Stage: 2, Len: 1500, Netns: 4026532000, Pid: 101, Tgid: 100, Frames: 2 * 8,
		Packet: bpfHtPacket{Version: 4, Eth: 0x0800, Proto: 6, Ports: 2, Sport: 40000, Dport: 443,
			Saddr: [16]uint8{192, 0, 2, 1}, Daddr: [16]uint8{192, 0, 2, 2}},
	}
	copy(w.Comm[:], "nginx")
	copy(w.Stack[:], []uint64{0x10, 0x20})
	return w
}

func bytesOf(w *bpfNetrxWire) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(w)), unsafe.Sizeof(*w))
}

func TestDecode(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*bpfNetrxWire)
	}{
		{"user_tcp", func(*bpfNetrxWire) {}},
		{"user_udp6", func(w *bpfNetrxWire) {
			w.Stage, w.Suppressed = 3, 4
			w.Packet = bpfHtPacket{Version: 6, Eth: 0x86dd, Proto: 17, Ports: 1, Sport: 5, Dport: 53, Saddr: [16]uint8{0x20, 1, 0xd, 0xb8, 15: 1}, Daddr: [16]uint8{15: 1}}
		}},
		{"stack", func(w *bpfNetrxWire) {
			w.Stage, w.Pid, w.Tgid, w.Cgroup, w.Frames, w.Comm = 0, 0, 0, 0, -95, [16]uint8{}
			copy(w.Dev[:], "eth0")
			w.Packet.Proto, w.Packet.Ports = 50, 0
		}},
		{"tcp", func(w *bpfNetrxWire) { w.Stage, w.Pid, w.Tgid, w.Cgroup, w.Frames = 1, 0, 0, 0, -95 }},
		{"stack_arp", func(w *bpfNetrxWire) { w.Stage, w.Packet = 0, bpfHtPacket{Eth: 0x0806} }},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := sample()
			c.change(w)
			r, err := decode(bytesOf(w), clock)
			if err != nil {
				t.Fatal(err)
			}
			if want := max(int(w.Frames)/8, 0); len(r.UserIPs) != want {
				t.Errorf("%d frames, want %d", len(r.UserIPs), want)
			}
			golden(t, c.name, r)
		})
	}
	if _, err := decode(bytesOf(sample())[:64], clock); err == nil {
		t.Error("a short sample decodes")
	}
	w := sample()
	w.Stage = 4
	if _, err := decode(bytesOf(w), clock); err == nil {
		t.Error("an unknown stage decodes")
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

func TestBadConfig(t *testing.T) {
	for _, c := range []func(*Config){
		func(c *Config) { c.Every = 0 }, func(c *Config) { c.Stack = 0 }, func(c *Config) { c.TCP = -1 }, func(c *Config) { c.User = 0 },
	} {
		cfg := Spec().Config.(Config)
		c(&cfg)
		if err := probetest.New(t).TryStart(Spec(), cfg); err == nil || !strings.Contains(err.Error(), "probes.netrx") {
			t.Errorf("run with %+v = %v", cfg, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(bytesOf(sample()))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		if r, err := decode(raw, clock); err == nil {
			if _, err := r.Document(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	raw := bytesOf(sample())
	b.ReportAllocs()
	for b.Loop() {
		if _, err := decode(raw, clock); err != nil {
			b.Fatal(err)
		}
	}
}
