package locks

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unsafe"

	"huatuo/internal/kern/load"
	"huatuo/internal/probes/probetest"
	"huatuo/internal/signal"
)

// TestWire holds the Go side to the C side.
func TestWire(t *testing.T) {
	var c bpfCpuState
	if got, want := len(c.Wait[0].Slots), signal.LatencySlots(2); got != want {
		t.Errorf("histograms have %d slots, signal says %d", got, want)
	}
	var g bpfCgroupWaits
	if len(c.Wait) != len(types) || len(g.ByType) != sleeping {
		t.Errorf("%d types in the kernel part, %d names; %d sleep, %d here", len(c.Wait), len(types), len(g.ByType), sleeping)
	}
}

func at(ns uint64) time.Time { return time.Unix(0, int64(ns)) }

// fake knows a few symbols: code of locks at 0x100, data at 0x1000.
func fake(t testing.TB) *names {
	t.Helper()
	root := t.TempDir()
	if err := os.Mkdir(filepath.Join(root, "proc"), 0o755); err != nil {
		t.Fatal(err)
	}
	const symbols = `0000000000000000 A percpu
0000000000000100 T __sched_text_start
0000000000000110 T mutex_lock
0000000000000180 T __sched_text_end
0000000000000200 T __lock_text_start
0000000000000280 T __lock_text_end
0000000000001000 D _sdata
0000000000001100 d first_lock
0000000000001140 d second_lock
0000000000001148 d module_lock	[mod]
0000000000002000 B _end
`
	if err := os.WriteFile(filepath.Join(root, "proc/kallsyms"), []byte(symbols), 0o644); err != nil {
		t.Fatal(err)
	}
	code := map[uint64]string{0xa: "do_work.constprop.0"}
	return newNames(root, func(ip uint64) string { return code[ip] })
}

func TestNames(t *testing.T) {
	n := fake(t)
	n.want([]uint64{0x1108, 0x1148, 0x5000})
	for addr, want := range map[uint64]string{
		0: unknown, 0xa: "do_work", 0xb: unknown, 0x1108: "first_lock", 0x1148: "second_lock", 0x5000: unknown,
		0x1180: unknown, // not asked for before, and the symbols were read just now
	} {
		if got := n.of(addr); got != want {
			t.Errorf("%#x is %q, want %q", addr, got, want)
		}
	}
	n.read = time.Time{}
	if got := n.of(0x1180); got != "second_lock" {
		t.Errorf("a minute later it is %q", got)
	}
	for ip, want := range map[uint64]bool{0xff: false, 0x100: true, 0x180: false, 0x27f: true, 0x280: false} {
		if n.isLock(ip) != want {
			t.Errorf("%#x is code of locks: %v", ip, !want)
		}
	}
	none := newNames(t.TempDir(), nil)
	if none.lock != [2]uint64{} || none.isLock(0) || none.of(0x1108) != unknown {
		t.Errorf("without symbols: %+v", none)
	}
}

// sample is a task that waited 25 ms for a mutex that another one had.
func sample() *bpfLockContentionWire {
	w := &bpfLockContentionWire{
		Ts: 1_000_000_000, Waited: 25_000_000, Suppressed: 3, Cgroup: 42, Site: 0xa, OwnerCgroup: 43, OwnerPid: 21, OwnerTgid: 20,
		Pid: 11, Tgid: 10, Cpu: 1, Frames: 32, UserFrames: 8,
	}
	copy(w.Comm[:], "waiter")
	copy(w.OwnerComm[:], "owner")
	w.Stack[0], w.Stack[1], w.Stack[2], w.Stack[3] = 0x8, 0x9, 0x110, 0xa
	w.UserStack[0] = 0x400000
	return w
}

func bytesOf(w *bpfLockContentionWire) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(w)), unsafe.Sizeof(*w))
}

func TestDecode(t *testing.T) {
	d := &decoder{clock: at, names: fake(t)}
	for _, tt := range []struct {
		name   string
		change func(*bpfLockContentionWire)
		title  string
		pid    uint32
		frames int
		check  func(b *LockContention) bool
	}{
		{"mutex", func(*bpfLockContentionWire) {}, "waiter (pid 10) waited 25ms for mutex do_work while owner (pid 20) had it", 10, 2,
			func(b *LockContention) bool { return b.Acquired && b.Owner.CgroupID == 43 && b.Owner.Process.TID == 21 }},
		{"owner unknown", func(w *bpfLockContentionWire) { w.OwnerPid = 0 }, "waiter (pid 10) waited 25ms for mutex do_work", 10, 2,
			func(b *LockContention) bool { return b.Owner == nil }},
		{"interrupted", func(w *bpfLockContentionWire) { w.Ret, w.OwnerPid, w.Type = -4, 0, 2 }, "waiter (pid 10) waited 25ms for rwsem_write do_work in vain", 10, 2,
			func(b *LockContention) bool { return !b.Acquired }},
		{"spin lock", func(w *bpfLockContentionWire) { w.Type, w.OwnerPid, w.Site = 7, 0, 0 }, "CPU 1 waited 25ms for spinlock unknown", 0, 2,
			func(b *LockContention) bool { return b.Running == "waiter (pid 10)" }},
		{"spin lock, idle", func(w *bpfLockContentionWire) { w.Type, w.OwnerPid, w.Tgid, w.Pid = 9, 0, 0, 0 }, "CPU 1 waited 25ms for rwlock_write do_work", 0, 2,
			func(b *LockContention) bool { return b.Running == "idle" }},
		{"no stack", func(w *bpfLockContentionWire) { w.Frames = -14 }, "waiter (pid 10) waited 25ms for mutex do_work while owner (pid 20) had it", 10, 0,
			func(*LockContention) bool { return true }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := sample()
			tt.change(w)
			r, err := d.decode(bytesOf(w))
			if err != nil {
				t.Fatal(err)
			}
			b := r.Body.(*LockContention)
			if r.Title != tt.title || r.Process.PID != tt.pid || len(r.KernelIPs) != tt.frames || !tt.check(b) {
				t.Errorf("%q, process %+v, %d frames, %+v", r.Title, r.Process, len(r.KernelIPs), b)
			}
			if (r.CgroupID == 42) != (tt.pid != 0) || r.Suppressed != 3 || r.Measures[0].Labels[0] != b.Type || b.WaitSeconds != 0.025 {
				t.Errorf("record %+v", r)
			}
		})
	}
	if _, err := d.decode(bytesOf(sample())[:100]); err == nil {
		t.Error("a short sample decodes")
	}
	w := sample()
	w.Type = uint32(len(types))
	if _, err := d.decode(bytesOf(w)); err == nil {
		t.Error("a type that there is not decodes")
	}
}

func FuzzDecode(f *testing.F) {
	d := &decoder{clock: at, names: fake(f)}
	f.Add(bytesOf(sample()))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := d.decode(raw)
		if err == nil {
			if _, err := r.Document(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	raw, d := bytesOf(sample()), &decoder{clock: at, names: fake(b)}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := d.decode(raw); err != nil {
			b.Fatal(err)
		}
	}
}

// TestSeries: no counter ever goes back, the sum over the locks is the sum by
// type, and their number has a bound.
func TestSeries(t *testing.T) {
	c := &collector{}
	locks := map[lockKey]bpfSiteWaits{}
	last := map[string]float64{}
	round := func(total bpfSiteWaits) (series int) {
		b := &signal.Batch{}
		c.emit(b, locks, map[string]bpfSiteWaits{"mutex": total})
		sum := 0.0
		for _, s := range b.Samples {
			key := fmt.Sprint(s.Schema.Name, s.Labels)
			if s.Value < last[key] {
				t.Errorf("%s went from %g to %g", key, last[key], s.Value)
			}
			last[key] = s.Value
			if s.Schema == longWaits {
				sum += s.Value
				series++
			}
		}
		if sum != float64(total.Waits) {
			t.Errorf("%g waits in all series, want %d", sum, total.Waits)
		}
		return series
	}
	set := func(name string, waits, ns uint64) {
		locks[lockKey{"mutex", name}] = bpfSiteWaits{Waits: waits, Ns: ns}
	}
	set("a", 2, 5*minWait)
	set("small", 1, minWait/2)
	if n := round(bpfSiteWaits{Waits: 4, Ns: 6 * minWait}); n != 2 { // a and other, which has a wait without a place too
		t.Errorf("%d series, want a and other", n)
	}
	set("small", 3, 2*minWait) // gets a series, but what other had of it stays there
	if n := round(bpfSiteWaits{Waits: 6, Ns: 8 * minWait}); n != 3 {
		t.Errorf("%d series, want a, small and other", n)
	}
	for i := range 200 {
		set(fmt.Sprint("l", i), 1, minWait)
	}
	if n := round(bpfSiteWaits{Waits: 206, Ns: 208 * minWait}); n != maxSeries+1 {
		t.Errorf("%d series, want %d and other", n, maxSeries)
	}
	set("l3", 9, 90*minWait)
	delete(locks, lockKey{"mutex", "a"}) // the place has another name now
	round(bpfSiteWaits{Waits: 300, Ns: 400 * minWait})
}

func TestRefuses(t *testing.T) {
	env := probetest.New(t)
	if err := env.TryStart(Spec(), Config{}); err == nil || !strings.Contains(err.Error(), "probes.locks.stall") {
		t.Errorf("a threshold of zero: %v", err)
	}
}

// TestKernelWithout: where the tracepoints are missing the probe says so.
func TestKernelWithout(t *testing.T) {
	k, err := load.Open(load.Options{})
	if err != nil || k.TracepointArgs("contention_begin") != 0 {
		t.Skip("needs a kernel before 5.19: `make vmtest` boots some")
	}
	env := probetest.NewKernel(t, load.Options{})
	if err := env.TryStart(Spec(), nil); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("no tracepoint: %v, want unsupported", err)
	}
}
