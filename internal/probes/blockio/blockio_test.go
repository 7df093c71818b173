package blockio

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

	"huatuo/internal/signal"
)

var update = flag.Bool("update", false, "rewrite testdata")

func TestWire(t *testing.T) {
	var s bpfIoStats
	if got, want := len(s.Device.Slots), signal.LatencySlots(2); got != want {
		t.Errorf("fine histograms have %d slots, signal says %d", got, want)
	}
	if got, want := len(s.Queue.Slots), signal.LatencySlots(0); got != want {
		t.Errorf("coarse histograms have %d slots, signal says %d", got, want)
	}
	if len(statuses) > len(s.Errors) {
		t.Errorf("%d classes of status, the program counts %d", len(statuses), len(s.Errors))
	}
}

type fakeNames map[uint32]string

func (n fakeNames) nameOr(dev uint32) string {
	if s, ok := n[dev]; ok {
		return s
	}
	return number(dev)
}

func newDecoder() *decoder {
	return &decoder{
		clock: func(ns uint64) time.Time { return time.Unix(1700000000, int64(ns)) },
		names: fakeNames{8<<20 | 16: "sdb"},
	}
}

// sample is a read on sdb that waited 200 ms in the queue and 1 s on the device.
func sample() *bpfIoWire {
	w := &bpfIoWire{Ts: 2_200_000_000, Suppressed: 3, Known: 1, Done: 8192}
	w.Io = bpfFlight{Made: 1_000_000_000, Issued: 1_200_000_000, Sector: 2048, Dev: 8<<20 | 16, Bytes: 8192, Requeues: 1, Pid: 11, Tgid: 10}
	copy(w.Io.Comm[:], "mysqld")
	return w
}

func bytesOf(w *bpfIoWire) []byte { return unsafe.Slice((*byte)(unsafe.Pointer(w)), unsafe.Sizeof(*w)) }

func TestDecode(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*bpfIoWire)
	}{
		{"stall", func(*bpfIoWire) {}},
		{"stall_queue", func(w *bpfIoWire) { w.Io.Issued = w.Ts - 1e6 }},
		{"stall_failed", func(w *bpfIoWire) { w.Error = 2; w.Io.Flags = 3 | 1<<11 }},
		{"stall_unknown_sender", func(w *bpfIoWire) { w.Known = 0; w.Io.Issued = 0; w.Io.Dev = 7 << 20 }},
		{"error", func(w *bpfIoWire) { w.Kind = 1; w.Error = 7; w.Done = 4096; w.Io.Flags = 1 }},
		{"error_new_class", func(w *bpfIoWire) { w.Kind = 1; w.Error = 13; w.Io.Flags = 9 }},
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
	if _, err := newDecoder().decode(bytesOf(sample())[:40]); err == nil {
		t.Error("a short sample decodes")
	}
	w := sample()
	w.Kind = 9
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

func FuzzStack(f *testing.F) {
	f.Add("[<0>] submit_bio_wait+0x52/0x80\n[<0>] xfs_buf_iowait+0x27/0xc0 [xfs]\n[<0>] 0xffffffff81000000\n")
	f.Fuzz(func(t *testing.T, text string) {
		for _, fr := range parseStack(text) {
			if strings.HasPrefix(fr.Function, "0x") {
				t.Errorf("an address leaves the probe: %+v", fr)
			}
		}
	})
}

func TestStack(t *testing.T) {
	got := parseStack("[<0>] submit_bio_wait+0x52/0x80\n[<0>] xfs_buf_iowait+0x27/0xc0 [xfs]\n[<0>] 0xffffffff81000000\nrubbish\n")
	want := []signal.Frame{{Function: "submit_bio_wait"}, {Function: "xfs_buf_iowait", Module: "xfs"}, {Function: "[unknown]"}}
	if len(got) != len(want) {
		t.Fatalf("%+v", got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("frame %d: %+v, want %+v", i, got[i], want[i])
		}
	}
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

// TestBusy: a slot whose request is no more is told from one that hangs, also when
// another request of the device is under way at the first look.
func TestBusy(t *testing.T) {
	s := &scanner{names: newNames(t.TempDir())}
	const dev = 8 << 20
	dir := s.names.path(dev)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "inflight")
	write := func(text string) {
		if err := os.WriteFile(file+".new", []byte(text), 0o600); err != nil {
			t.Error(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Error(err)
		}
	}
	write("       0        1\n")
	if !s.busy(dev, &bpfFlight{}) {
		t.Error("a device that always has a request is not busy")
	}
	time.AfterFunc(3*lookGap, func() { write("       0        0\n") })
	if s.busy(dev, &bpfFlight{}) {
		t.Error("a device that has no request any more is busy")
	}
	if s.busy(9<<20, &bpfFlight{}) {
		t.Error("a device that is gone is busy")
	}
}
