package tcp

import (
	"bytes"
	"encoding/json"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unsafe"

	"huatuo/internal/probe"
	"huatuo/internal/probes/probetest"
	"huatuo/internal/signal"
)

var update = flag.Bool("update", false, "rewrite testdata")

func newDecoder() *decoder {
	return &decoder{
		clock:   func(ns uint64) time.Time { return time.Unix(1700000000, int64(ns)) },
		reasons: reasons{noReason: unknown, 7: "TCP_ABORT_ON_CLOSE"},
	}
}

// sample is a connect that was refused.
func sample() *bpfTcpWire {
	w := &bpfTcpWire{
		Ts: 5, Elapsed: 1500000, Error: 111, Pid: 101, Tgid: 100,
		Flow: bpfHtFlow{Family: 2, Sport: 40000, Dport: 443, Netns: 4026532000, State: 2,
			Saddr: [16]uint8{192, 0, 2, 1}, Daddr: [16]uint8{192, 0, 2, 2}},
	}
	copy(w.Comm[:], "curl")
	return w
}

func bytesOf(w *bpfTcpWire) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(w)), unsafe.Sizeof(*w))
}

func TestDecode(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*bpfTcpWire)
	}{
		{"refused", func(*bpfTcpWire) {}},
		{"timed_out", func(w *bpfTcpWire) { w.Error, w.Retransmits, w.Elapsed, w.Suppressed = 110, 6, 127e9, 9 }},
		{"unreachable6", func(w *bpfTcpWire) {
			w.Error, w.Flow.Family = 101, 10
			w.Flow.Saddr, w.Flow.Daddr = [16]uint8{0x20, 1, 0xd, 0xb8, 15: 1}, [16]uint8{15: 1}
		}},
		{"aborted_unknown_process", func(w *bpfTcpWire) { w.Error, w.Pid, w.Tgid, w.Comm = 0, 0, 0, [16]uint8{} }},
		{"other_mapped", func(w *bpfTcpWire) {
			w.Error, w.Flow.Family = 999, 10
			w.Flow.Daddr = [16]uint8{10: 0xff, 0xff, 192, 0, 2, 9}
		}},
		{"reset_sent", func(w *bpfTcpWire) { w.Event, w.Reason, w.Flow.State, w.SrttUs = 1, 7, 7, 8*1250 }},
		{"reset_received", func(w *bpfTcpWire) {
			w.Event, w.Reason, w.Flow.State, w.Pid, w.Tgid, w.TotalRetransmits = 2, noReason, 1, 0, 0, 3
		}},
		{"reset_odd", func(w *bpfTcpWire) { w.Event, w.Reason, w.Flow.State, w.Flow.Family = 1, 99, 77, 0 }},
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
	if _, err := newDecoder().decode(bytesOf(sample())[:64]); err == nil {
		t.Error("a short sample decodes")
	}
	w := sample()
	w.Event = 3
	if _, err := newDecoder().decode(bytesOf(w)); err == nil {
		t.Error("an unknown kind decodes")
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
	e := probetest.New(t)
	cfg := Spec().Config.(Config)
	cfg.ListenInterval = time.Millisecond
	if err := e.TryStart(Spec(), cfg); err == nil || !strings.Contains(err.Error(), "listen_interval") {
		t.Errorf("run = %v; want an error that names listen_interval", err)
	}
}

func TestParseListener(t *testing.T) {
	for _, c := range []struct {
		line, addr string
		port       uint16
		queued     uint32
		inode      uint64
		ok         bool
	}{
		{"   0: 0100007F:1F90 00000000:0000 0A 00000000:00000081 00:00000000 00000000     0        0 12345 1 ffff 100 0 0 10 0", "127.0.0.1", 8080, 129, 12345, true},
		{"  1: 00000000000000000000000001000000:0050 00000000000000000000000000000000:0000 0A 00000000:00000000 00:0 0 0 0 7 1", "::1", 80, 0, 7, true},
		{"   2: 0100007F:1F90 0100007F:9999 01 00000000:00000081 00:00000000 00000000     0        0 12345 1", "", 0, 0, 0, false},
		{"   2: 0100:1F90 0100007F:9999 0A 00000000:00000081 00:00000000 00000000     0        0 12345 1", "", 0, 0, 0, false},
		{"   2: xx00007F:1F90 0100007F:9999 0A 00000000:00000081 00:00000000 00000000     0        0 12345 1", "", 0, 0, 0, false},
		{"  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode", "", 0, 0, 0, false},
		{"", "", 0, 0, 0, false},
	} {
		l, ok := parseListener([]byte(c.line))
		if ok != c.ok || ok && (l.addr.String() != c.addr || l.port != c.port || l.queued != c.queued || l.inode != c.inode) {
			t.Errorf("%q: %+v, %v", c.line, l, ok)
		}
	}
}

func TestColumn(t *testing.T) {
	const file = "TcpExt: SyncookiesSent ListenOverflows ListenDrops\nTcpExt: 1 2 3\nIpExt: InNoRoutes ListenOverflows\nIpExt: 4 5\n"
	for _, c := range []struct {
		file, name string
		want       uint64
		ok         bool
	}{
		{file, "ListenOverflows", 2, true}, {file, "ListenDrops", 3, true}, {file, "TCPTimeouts", 0, false}, {"", "ListenDrops", 0, false},
		{"TcpExt: ListenDrops\n", "ListenDrops", 0, false}, {"TcpExt: ListenDrops\nTcpExt: -1\n", "ListenDrops", 0, false},
	} {
		if n, ok := column([]byte(c.file), "TcpExt:", c.name); n != c.want || ok != c.ok {
			t.Errorf("%s of %q: %d, %v", c.name, c.file, n, ok)
		}
	}
}

// fakeHost is a /proc with one namespace, whose listener belongs to process 20.
func fakeHost(t *testing.T) (root string, overflows func(n string)) {
	root = probetest.Unpack(t, "testdata/host.txt")
	for link, to := range map[string]string{
		"10/ns/net": "net:[4026531840]", "20/ns/net": "net:[4026531840]", "30/ns/net": "net:[4026532999]",
		"20/fd/3": "socket:[777]", "20/fd/0": "/dev/null", "30/fd/3": "socket:[777]",
	} {
		path := filepath.Join(root, "proc", link)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(to, path); err != nil {
			t.Fatal(err)
		}
	}
	return root, func(n string) {
		if err := os.WriteFile(filepath.Join(root, "proc/10/net/netstat"), []byte("TcpExt: ListenOverflows\nTcpExt: "+n+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestWatcher(t *testing.T) {
	root, overflows := fakeHost(t)
	now := time.Unix(1700000000, 0)
	var got []*signal.Record
	env := &probe.Env{Root: root, Now: func() time.Time { return now }, Emit: func(r *signal.Record) { got = append(got, r) }}
	var loss func() probe.Loss
	env.Lost = func(f func() probe.Loss) { loss = f }
	w := newWatcher(env)
	w.wrap().Lost(func() probe.Loss { return probe.Loss{Dropped: map[string]uint64{}} })

	round := func(n string, step time.Duration, want int) {
		t.Helper()
		overflows(n)
		now = now.Add(step)
		w.round()
		if len(got) != want {
			t.Fatalf("%d events, want %d", len(got), want)
		}
	}
	round("5", 0, 0)           // what was before does not count
	round("5", time.Second, 0) // nothing new
	round("9", time.Second, 1)
	golden(t, "listen_overflow", got[0])
	round("12", time.Second, 1) // within a minute: held back
	round("13", time.Hour, 2)
	if r := got[1]; r.Suppressed != 1 || r.Body.(*ListenOverflow).Overflows != 1 {
		t.Errorf("%+v of %+v: want one held back", r.Body, r)
	}
	round("1", time.Hour, 2) // another namespace with its number: it counts from there
	round("2", time.Hour, 3)

	if err := os.Remove(filepath.Join(root, "proc/20/fd/3")); err != nil {
		t.Fatal(err)
	}
	round("3", time.Hour, 4)
	if r := got[3]; r.Process.PID != 0 || r.Body.(*ListenOverflow).Port != 8080 {
		t.Errorf("the owner is gone: %+v of %+v", r.Body, r.Process)
	}
	if err := os.WriteFile(filepath.Join(root, "proc/10/net/tcp"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	round("4", time.Hour, 5)
	golden(t, "listen_overflow_drained", got[4])
	if l := loss(); l.Observed != 6 || l.Dropped["rate_limited"] != 1 {
		t.Errorf("loss %+v: want 6 seen, 1 held back", l)
	}
	if err := os.RemoveAll(filepath.Join(root, "proc/10")); err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	now = now.Add(time.Hour)
	w.round()
	now = now.Add(time.Second)
	w.round()
	if ns := w.seen[4026531840]; ns == nil || ns.pid != 20 {
		t.Errorf("process 10 is gone, 20 is in its namespace as well: %+v", ns)
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

func FuzzListener(f *testing.F) {
	b, err := os.ReadFile("testdata/host.txt")
	if err != nil {
		f.Fatal(err)
	}
	for line := range bytes.Lines(b) {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if l, ok := parseListener(b); ok && !l.addr.IsValid() {
			t.Error("a listener without an address")
		}
		column(b, "TcpExt:", "ListenOverflows")
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

// BenchmarkRound is what a look at all namespaces of this machine costs.
func BenchmarkRound(b *testing.B) {
	w := newWatcher(&probe.Env{Root: "/", Now: time.Now, Emit: func(*signal.Record) {}})
	if _, err := os.Stat("/proc/net/netstat"); err != nil {
		b.Skip("needs /proc/net: ", fs.ErrNotExist)
	}
	w.round()
	b.ReportAllocs()
	for b.Loop() {
		w.round()
	}
}
