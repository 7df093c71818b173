package reclaim

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf/btf"

	"huatuo/internal/kern/load"
	"huatuo/internal/probes/probetest"
	"huatuo/internal/signal"
)

var update = flag.Bool("update", false, "rewrite testdata")

// TestWire holds the Go side to bpf/include/hist.h and to the program's enums.
func TestWire(t *testing.T) {
	var h bpfHostStats
	if got, want := len(h.Seconds[0].Slots), signal.LatencySlots(2); got != want {
		t.Errorf("fine histograms have %d slots, signal says %d", got, want)
	}
	if got, want := len(h.Throttled[0].Slots), signal.LatencySlots(0); got != want {
		t.Errorf("coarse histograms have %d slots, signal says %d", got, want)
	}
	if len(h.Seconds) != len(kinds) || len(h.Throttled) != len(reasons) || len(bpfCgroupStats{}.Seconds) != len(containerKinds) {
		t.Error("the kernel's part has other kinds")
	}
}

func at(ns uint64) time.Time { return time.Unix(0, int64(ns)).UTC() }

func sample() *bpfStallWire {
	w := &bpfStallWire{
		Ts: 1_000_000_000, Ns: 120_000_000, Suppressed: 3, Cgroup: 42, Pages: 32, Kind: 1, Order: 0, Gfp: 0x100cca, // GFP_HIGHUSER_MOVABLE
		Pid: 11, Tgid: 10, Frames: 16, UserFrames: 8,
	}
	copy(w.Comm[:], "python3")
	w.Stack[0], w.Stack[1], w.User[0] = 0xa, 0xb, 0xc
	return w
}

func bytesOf(w *bpfStallWire) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(w)), unsafe.Sizeof(*w))
}

// TestGolden compares the document of each kind of event with what is kept in testdata.
func TestGolden(t *testing.T) {
	for name, change := range map[string]func(*bpfStallWire){
		"memcg":  func(*bpfStallWire) {},
		"direct": func(w *bpfStallWire) { w.Kind, w.Order = 0, 3 },
		"node":   func(w *bpfStallWire) { w.Kind = 2 },
		"sum": func(w *bpfStallWire) {
			w.Ns, w.Sum, w.Window, w.Calls = 3_000_000, 910_000_000, 4_500_000_000, 300
		},
		"compaction": func(w *bpfStallWire) { w.Kind, w.Order, w.Status, w.Pages = 3, 9, 5, 0 },
	} {
		t.Run(name, func(t *testing.T) {
			w := sample()
			change(w)
			r, err := decode(bytesOf(w), at)
			if err != nil {
				t.Fatal(err)
			}
			if r.CgroupID != 42 || len(r.KernelIPs) != 2 || len(r.UserIPs) != 1 {
				t.Errorf("record %+v", r)
			}
			for _, m := range r.Measures {
				if !slices.Contains(m.Schema.Fields[0].Values, m.Labels[0]) {
					t.Errorf("%s{%s} is no series", m.Schema.Name, m.Labels[0])
				}
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
	if _, err := decode(bytesOf(sample())[:100], at); err == nil {
		t.Error("a short sample decodes")
	}
	w := sample()
	w.Kind = 4
	if _, err := decode(bytesOf(w), at); err == nil {
		t.Error("background compaction, which nobody waits for, decodes")
	}
}

// TestHooks chooses the form for the numbers of arguments that kernels have had.
func TestHooks(t *testing.T) {
	for _, tt := range []struct {
		kernel string
		args   map[string]int
		want   []string
	}{
		{"6.18", map[string]int{"mm_vmscan_direct_reclaim_begin": 2, "mm_vmscan_memcg_reclaim_begin": 2, "mm_compaction_begin": 4, "mm_compaction_end": 5}, nil},
		{"5.10", map[string]int{"mm_vmscan_direct_reclaim_begin": 2, "mm_compaction_begin": 5, "mm_compaction_end": 6},
			[]string{"mm_compaction_begin_5_btf", "mm_compaction_end_6_btf"}},
		{"7.3", map[string]int{"mm_vmscan_direct_reclaim_begin": 3, "mm_vmscan_memcg_reclaim_begin": 3, "mm_compaction_begin": 4, "mm_compaction_end": 5},
			[]string{"mm_vmscan_direct_reclaim_begin_3_btf", "mm_vmscan_memcg_reclaim_begin_3_btf"}},
	} {
		var got []string
		for _, h := range hooks(func(name string) int { return tt.args[name] }) {
			if p := h.Programs[0]; p != h.Name+"_btf" {
				got = append(got, p)
			}
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: other forms %q, want %q", tt.kernel, got, tt.want)
		}
	}
}

// TestNames holds the tables to the running kernel's own names.
func TestNames(t *testing.T) {
	if got := gfpNames(0x100cca); got != "HIGHMEM|MOVABLE|IO|FS|DIRECT_RECLAIM|KSWAPD_RECLAIM|HARDWALL" {
		t.Errorf("flags %q", got)
	}
	if got := statusName(99); got != "status 99" {
		t.Errorf("status %q", got)
	}
	types, err := btf.LoadKernelSpec()
	if err != nil {
		t.Skipf("needs a kernel with BTF: %v", err)
	}
	for enum, names := range map[string][]string{"compact_result": statuses[:], "vmscan_throttle_state": reasons[:]} {
		var e *btf.Enum
		if err := types.TypeByName(enum, &e); err != nil {
			continue // vmscan_throttle_state: 5.16
		}
		for _, v := range e.Values {
			_, name, _ := strings.Cut(strings.ToLower(v.Name), "_")
			name = strings.TrimPrefix(name, "throttle_")
			if int(v.Value) < len(names) && names[v.Value] != name {
				t.Errorf("%s %d is %s, not %s", enum, v.Value, name, names[v.Value])
			}
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(bytesOf(sample()))
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
	raw := bytesOf(sample())
	b.ReportAllocs()
	for b.Loop() {
		if _, err := decode(raw, at); err != nil {
			b.Fatal(err)
		}
	}
}

func TestKernelRefuses(t *testing.T) {
	for _, cfg := range []Config{{ReclaimSum: 1, Compaction: 1}, {Reclaim: 1, Compaction: 1}, {Reclaim: 1, ReclaimSum: 1}} {
		err := probetest.NewKernel(t, load.Options{}).TryStart(Spec(), cfg)
		if err == nil || !strings.Contains(err.Error(), "want a positive duration") {
			t.Errorf("%+v: %v", cfg, err)
		}
	}
}
