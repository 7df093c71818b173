package process

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
	"unsafe"

	"encoding/json"
)

var update = flag.Bool("update", false, "rewrite testdata")

func at(ns uint64) time.Time { return time.Unix(0, int64(ns)).UTC() }

func crash() *bpfCrashWire {
	w := &bpfCrashWire{Sig: sigsegv, Ts: 1_000_000_000, Suppressed: 1, Cgroup: 42, Addr: 0x18, Pid: 11, Tgid: 10, Code: 1, Frames: 16}
	copy(w.Comm[:], "server")
	w.Stack[0], w.Stack[1] = 0x401000, 0x402000
	w.Regs.Kind, w.Regs.Pc, w.Regs.Sp, w.Regs.General[0] = 1, 0x401000, 0x7ffd0000, 7
	w.Place.Offset = 0x1000
	copy(w.Place.File[:], "libserver.so")
	return w
}

func execution() *bpfExecWire {
	w := &bpfExecWire{Kind: 1, Uid: 1000, Ts: 2_000_000_000, Cgroup: 43, Pid: 20, Tgid: 20, Ppid: 10}
	copy(w.Comm[:], "psql")
	copy(w.Parent[:], "sh")
	copy(w.File[:], "/usr/bin/psql")
	w.ArgsLen = int32(copy(w.Args[:], "psql\x00--password=x\x00-h\x00db\x00"))
	return w
}

func bytesOf[T any](w *T) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(w)), unsafe.Sizeof(*w))
}

// TestGolden compares the document of each kind of event with what is kept in testdata.
func TestGolden(t *testing.T) {
	change := func(f func(*bpfCrashWire)) []byte { w := crash(); f(w); return bytesOf(w) }
	for name, raw := range map[string][]byte{
		"fault": bytesOf(crash()),
		"gpf":   change(func(w *bpfCrashWire) { w.Code, w.Addr = 0x80, 0 }),
		"abort": change(func(w *bpfCrashWire) {
			w.Sig, w.Code, w.Addr = 6, -6, 0
			w.From = bpfSender{Ts: 9, Pid: 11, Tgid: 10}
			w.Place = bpfHtPlace{}
		}),
		"sent": change(func(w *bpfCrashWire) {
			w.Sig, w.Code, w.Addr = 3, 0, 0
			w.From = bpfSender{Ts: 9, Pid: 77, Tgid: 77, Cgroup: 5}
			copy(w.From.Comm[:], "bash")
			w.Regs.Kind = 2
		}),
		"unseen":  change(func(w *bpfCrashWire) { w.Sig, w.Code, w.Addr = 6, -1, 0 }),
		"seccomp": change(func(w *bpfCrashWire) { w.Sig, w.Code, w.Syscall, w.Regs.Kind = sigsys, 1, 101, 0 }),
		"divide":  change(func(w *bpfCrashWire) { w.Sig, w.Code, w.Addr = sigfpe, 1, 0x401000 }),
		"exec":    bytesOf(execution()),
	} {
		t.Run(name, func(t *testing.T) {
			r, err := decode(raw, at)
			if err != nil {
				t.Fatal(err)
			}
			if r.CgroupID == 0 || (r.Schema == crashed && len(r.UserIPs) != 2) || len(r.Parties) != map[bool]int{true: 1}[name == "sent"] {
				t.Errorf("record %+v", r)
			}
			d, err := r.Document()
			if err != nil {
				t.Fatal(err)
			}
			got, err := json.MarshalIndent(d, "", "  ")
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
			if string(want) != string(got)+"\n" {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

func TestArguments(t *testing.T) {
	r, err := decode(bytesOf(execution()), at)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"psql", "--password=x", "-h", "db"}; !slices.Equal(r.Args, want) || r.Process.Cmdline != "" {
		t.Errorf("arguments %q, want %q for enrichment alone", r.Args, want)
	}
	w := execution()
	for i := range w.Args {
		w.Args[i] = 'x'
	}
	w.ArgsLen = int32(len(w.Args))
	if r, _ := decode(bytesOf(w), at); len(r.Args) != 1 || len(r.Args[0]) != len(w.Args)+len("…") {
		t.Errorf("a long line: %q", r.Args)
	}
	for _, n := range []int32{0, -14} {
		w.ArgsLen = n
		if r, _ := decode(bytesOf(w), at); r.Args != nil {
			t.Errorf("%d bytes of arguments: %q", n, r.Args)
		}
	}
}

func TestShort(t *testing.T) {
	for _, raw := range [][]byte{nil, {0}, bytesOf(crash())[:100], bytesOf(execution())[:100], {9, 0, 0, 0}} {
		if _, err := decode(raw, at); err == nil {
			t.Errorf("%d bytes decode", len(raw))
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(bytesOf(crash()))
	f.Add(bytesOf(execution()))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := decode(raw, at)
		if err == nil {
			if _, err := r.Document(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	raw := bytesOf(crash())
	b.ReportAllocs()
	for b.Loop() {
		if _, err := decode(raw, at); err != nil {
			b.Fatal(err)
		}
	}
}

// TestValues holds the values that the metrics declare to those that they can have.
func TestValues(t *testing.T) {
	seen := map[string]bool{}
	for _, v := range exits.Fields[0].Values {
		if seen[v] || v == "" {
			t.Errorf("value %q", v)
		}
		seen[v] = true
	}
	if !seen[signalName(sigsegv)] || signalName(64) != "SIG64" || signalName(0) != "SIG0" {
		t.Error("names of signals")
	}
	var h bpfHostCounts
	if len(h.Signaled) <= len(signals) {
		t.Errorf("%d signals are counted, %d have names", len(h.Signaled), len(signals))
	}
}
