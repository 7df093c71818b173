package netdev

import (
	"bytes"
	"flag"
	"net"
	"os"
	"strings"
	"testing"

	"huatuo/internal/probes/probetest"
	"huatuo/internal/signal"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestRun(t *testing.T) {
	f := func(root, golden string, cfg any) {
		t.Run(golden, func(t *testing.T) {
			e := probetest.New(t)
			e.Root = root
			e.Start(Spec(), cfg)
			e.Gather()
			probetest.Golden(t, "testdata/"+golden+".golden", e.Gather(), nil, *update)
		})
	}
	f("testdata", "default", nil) // no veth, no cali
	f("testdata", "all", Config{})
	f("testdata", "include", Config{Include: "^(eth|docker)", Exclude: "^docker"})
	f("testdata/odd", "odd", nil)
}

func TestBadConfig(t *testing.T) {
	f := func(cfg Config, want string) {
		t.Helper()
		e := probetest.New(t)
		e.Root = "testdata"
		if err := e.TryStart(Spec(), cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("run with %+v = %v; want an error that names %s", cfg, err, want)
		}
	}
	f(Config{Include: "("}, "netdev.include")
	f(Config{Exclude: "["}, "netdev.exclude")
}

func TestForget(t *testing.T) {
	dir := t.TempDir()
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(dir+"/dev", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const counters = ": 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n"
	p, err := newPoller(dir+"/dev", Config{})
	if err != nil {
		t.Fatal(err)
	}
	write("eth0" + counters + "eth1" + counters)
	if err := p.collect(new(signal.Batch)); err != nil || len(p.devices) != 2 {
		t.Fatalf("%d devices, %v; want 2", len(p.devices), err)
	}
	write("eth1" + counters)
	if err := p.collect(new(signal.Batch)); err != nil || len(p.devices) != 1 {
		t.Errorf("%d devices are kept, %v; want the one that is left", len(p.devices), err)
	}
	write("nothing\n")
	if err := p.collect(new(signal.Batch)); err == nil {
		t.Error("collect of a file without a device gives no error")
	}
}

// TestKernel sends known bytes over the loopback device.
func TestKernel(t *testing.T) {
	if _, err := os.Stat("/proc/net/dev"); err != nil {
		t.Skip("needs /proc: ", err)
	}
	in, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Skip("needs a loopback device that is up: ", err)
	}
	defer in.Close()
	out, err := net.Dial("udp4", in.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	e := probetest.New(t)
	e.Start(Spec(), nil)
	lo := func(what string) float64 {
		v, _ := probetest.Value(e.Gather(), "huatuo_netdev_"+what+"_total", "lo")
		return v
	}
	const n, size, header = 1000, 1000, 20 + 8 // the loopback device counts from the IP header on
	packets, sent, received := lo("transmit_packets"), lo("transmit_bytes"), lo("receive_bytes")
	for range n {
		if _, err := out.Write(make([]byte, size)); err != nil {
			t.Fatal(err)
		}
	}
	// At least: others use the loopback device too.
	if d := lo("transmit_packets") - packets; d < n {
		t.Errorf("%d packets sent, transmit_packets moved by %g", n, d)
	}
	if d := lo("transmit_bytes") - sent; d < n*(size+header) {
		t.Errorf("%d bytes sent, transmit_bytes moved by %g", n*(size+header), d)
	}
	if d := lo("receive_bytes") - received; d < n*(size+header) {
		t.Errorf("%d bytes sent, receive_bytes moved by %g", n*(size+header), d)
	}
}

func FuzzParse(f *testing.F) {
	for _, p := range []string{"testdata/proc/net/dev", "testdata/odd/proc/net/dev"} {
		b, err := os.ReadFile(p)
		if err != nil {
			f.Fatal(err)
		}
		for line := range bytes.Lines(b) {
			f.Add(line)
		}
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		if name, _, ok := parse(line); ok && (len(name) == 0 || !bytes.Contains(line, name)) {
			t.Errorf("name %q, ok = %v", name, ok)
		}
	})
}

func BenchmarkCollect(b *testing.B) {
	p, err := newPoller("/proc/net/dev", Config{})
	if err != nil {
		b.Fatal(err)
	}
	batch := new(signal.Batch)
	b.ReportAllocs()
	for b.Loop() {
		batch.Samples = batch.Samples[:0]
		if err := p.collect(batch); err != nil {
			b.Fatal(err)
		}
	}
}
