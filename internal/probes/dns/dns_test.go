package dns

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

func newDecoder() *decoder {
	return &decoder{clock: func(ns uint64) time.Time { return time.Unix(1700000000, int64(ns)) }}
}

const exampleA = "\x07example\x03com\x00\x00\x01\x00\x01"

// sample is a query whose server failed.
func sample() *bpfDnsWire {
	w := &bpfDnsWire{
		Ts: 2e9, Rcode: 2,
		Key:   bpfQueryKey{Family: 2, Client: [16]uint8{192, 0, 2, 1}, Server: [16]uint8{192, 0, 2, 53}, Port: 40000, Id: 7, Netns: 4026532000},
		Query: bpfQuery{Ts: 2e9 - 1500000, Pid: 101, Tgid: 100, Len: uint32(len(exampleA))},
	}
	copy(w.Query.Comm[:], "curl")
	copy(w.Query.Question[:], exampleA)
	return w
}

func bytesOf(w *bpfDnsWire) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(w)), unsafe.Sizeof(*w))
}

func TestDecode(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*bpfDnsWire)
	}{
		{"servfail", func(*bpfDnsWire) {}},
		{"slow6", func(w *bpfDnsWire) {
			w.Rcode, w.Key.Family, w.Query.Ts, w.Query.Retries, w.Suppressed = 0, 10, 100, 1, 3
			w.Key.Client, w.Key.Server = [16]uint8{0x20, 1, 0xd, 0xb8, 15: 1}, [16]uint8{15: 1}
		}},
		{"refused_unknown_process", func(w *bpfDnsWire) { w.Rcode, w.Query.Pid, w.Query.Tgid, w.Query.Comm = 5, 0, 0, [16]uint8{} }},
		{"other_without_question", func(w *bpfDnsWire) { w.Rcode, w.Query.Len = 9, 0 }},
		{"clock", func(w *bpfDnsWire) { w.Query.Ts = 3e9 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := sample()
			c.change(w)
			r, err := newDecoder().decode(bytesOf(w))
			if err != nil {
				t.Fatal(err)
			}
			golden(t, c.name, r)
		})
	}
	w := sample()
	golden(t, "timeout", newDecoder().record(&w.Key, &w.Query, 7e9, "timeout"))
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

func TestQuestion(t *testing.T) {
	long := strings.Repeat("\x1f"+strings.Repeat("a", 31), 3)
	for _, c := range []struct{ in, name, typ string }{
		{exampleA, "example.com.", "A"},
		{"\x04_dns\x02x-\x00\x00\x21\x00\x01", "_dns.x-.", "SRV"},
		{"\x00\x00\x02\x00\x01", ".", "NS"},
		{"\x03a.b\x00\x01\x00\x00\x01", `a\046b.`, "TYPE256"},
		{"\x02\xff\n\x00\x00\x1c", `\255\010.`, "AAAA"},
		{long, strings.Repeat(strings.Repeat("a", 31)+".", 3) + "…", ""},
		{"\x07exam", "exam…", ""},
		{"\xc0\x0c", "…", ""},
		{"\x01a\x00\x00", "a.", ""},
		{"", "…", ""},
	} {
		if name, typ := question([]byte(c.in)); name != c.name || typ != c.typ {
			t.Errorf("%q is %q %q, want %q %q", c.in, name, typ, c.name, c.typ)
		}
	}
}

func TestBadConfig(t *testing.T) {
	for _, c := range []func(*Config){func(c *Config) { c.Slow = 0 }, func(c *Config) { c.Timeout = time.Millisecond }} {
		cfg := Spec().Config.(Config)
		c(&cfg)
		if err := probetest.New(t).TryStart(Spec(), cfg); err == nil || !strings.Contains(err.Error(), "probes.dns") {
			t.Errorf("run with %+v = %v", cfg, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(bytesOf(sample()))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		if r, err := newDecoder().decode(raw); err == nil {
			if _, err := r.Document(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func FuzzQuestion(f *testing.F) {
	f.Add([]byte(exampleA))
	f.Add([]byte("\x3fshort"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if name, _ := question(b); name == "" || strings.ContainsAny(name, "\n\x00 ") {
			t.Errorf("%q is %q", b, name)
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
