package irq

import (
	_ "embed"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
	"unsafe"

	"bytes"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"huatuo/internal/kern/load"
	"huatuo/internal/probes/probetest"
	"huatuo/internal/signal"
)

//go:generate clang-19 -target bpf -g -O2 -mcpu=v3 -fdebug-compilation-dir=. -fno-ident -I../../../bpf/include -Wall -Werror -c testdata/irqoff.c -o testdata/irqoff.o
//go:generate llvm-strip-19 -g testdata/irqoff.o

//go:embed testdata/irqoff.o
var irqoffObject []byte

func at(ns uint64) time.Time { return time.Unix(0, int64(ns)) }

// newDecoder has a /proc/stat in which CPU 1 was stolen for that long.
func newDecoder(t testing.TB, stolen string) *decoder {
	t.Helper()
	root := t.TempDir()
	write := func(ticks string) {
		if err := os.MkdirAll(filepath.Join(root, "proc"), 0o755); err != nil {
			t.Fatal(err)
		}
		text := "cpu  1 1 1 1 1 1 1 9 0 0\ncpu0 1 1 1 1 1 1 1 0 0 0\ncpu1 1 1 1 1 1 1 1 " + ticks + " 0 0\nintr 1\n"
		if err := os.WriteFile(filepath.Join(root, "proc/stat"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("100")
	d := &decoder{clock: at, steal: newSteal(root), gap: 10 * time.Millisecond}
	write(stolen)
	return d
}

// sample is a gap of 35 ms on CPU 1.
func sample() *bpfTickGapWire {
	w := &bpfTickGapWire{Ts: 1_000_000_000, Gap: 35_000_000, Suppressed: 2, Cgroup: 42, Cpu: 1, Pid: 11, Tgid: 10, Frames: 8}
	copy(w.Comm[:], "hog")
	w.Stack[0] = 0xa
	return w
}

func bytesOf(w *bpfTickGapWire) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(w)), unsafe.Sizeof(*w))
}

func TestDecode(t *testing.T) {
	for _, tt := range []struct {
		name, stolen string
		title        string
		severity     signal.Severity
		steal        float64
	}{
		{"kept off", "100", "CPU 1 took no timer interrupt for 35ms; hog (pid 10) had it at the end", "", 0},
		{"some stolen", "102", "CPU 1 took no timer interrupt for 35ms; hog (pid 10) had it at the end", "", 0.02},
		{"stolen", "103", "CPU 1 took no timer interrupt for 35ms: the hypervisor had it", signal.Info, 0.03},
		{"stolen before as well", "200", "CPU 1 took no timer interrupt for 35ms: the hypervisor had it", signal.Info, 0.035},
		{"steal goes back", "90", "CPU 1 took no timer interrupt for 35ms; hog (pid 10) had it at the end", "", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, err := newDecoder(t, tt.stolen).decode(bytesOf(sample()))
			if err != nil {
				t.Fatal(err)
			}
			if b := *r.Body.(*TickGap); r.Title != tt.title || r.Severity != tt.severity || b != (TickGap{1, 0.035, tt.steal}) {
				t.Errorf("%q, %q, %+v", r.Title, r.Severity, b)
			}
			if r.Process.PID != 10 || r.CgroupID != 42 || len(r.KernelIPs) != 1 || r.Suppressed != 2 {
				t.Errorf("record %+v", r)
			}
		})
	}
	if _, err := newDecoder(t, "100").decode(bytesOf(sample())[:40]); err == nil {
		t.Error("a short sample decodes")
	}
}

func FuzzDecode(f *testing.F) {
	d := newDecoder(f, "100")
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
	raw, d := bytesOf(sample()), newDecoder(b, "100")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := d.decode(raw); err != nil {
			b.Fatal(err)
		}
	}
}

func TestRefuses(t *testing.T) {
	env := probetest.New(t)
	if err := env.TryStart(Spec(), Config{}); err == nil || !strings.Contains(err.Error(), "probes.irq.gap") {
		t.Errorf("a threshold of zero: %v", err)
	}
}

// newOff returns a function that keeps interrupts off on this thread's CPU for that long.
func newOff(t *testing.T) func(time.Duration) {
	t.Helper()
	spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(irqoffObject))
	if err != nil {
		t.Fatal(err)
	}
	c, err := ebpf.NewCollection(spec)
	if errors.Is(err, ebpf.ErrNotSupported) {
		t.Skipf("needs bpf_local_irq_save (6.14): %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return func(d time.Duration) {
		args := struct{ NS uint64 }{uint64(d)}
		if _, err := c.Programs["irqoff"].Run(&ebpf.RunOptions{Context: args}); err != nil {
			t.Fatal(err)
		}
	}
}

// TestKernelGap keeps interrupts off for 60 ms, and for a time that is below the
// threshold, by each kind of hook and ring.
func TestKernelGap(t *testing.T) { probetest.Rungs(t, testGap) }

func testGap(t *testing.T, o load.Options) {
	env := probetest.NewKernel(t, o)
	if !watchTicks(env.Env) {
		t.Skip("needs x86 without nohz_full")
	}
	off := newOff(t)
	cfg := Spec().Config.(Config)
	cfg.Gap, cfg.Rate = 40*time.Millisecond, 0 // a virtual machine has gaps of its own
	env.Start(Spec(), cfg)

	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var old, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &old); err != nil {
		t.Fatal(err)
	}
	defer unix.SchedSetaffinity(0, &old)
	one.Set(0)
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		t.Fatal(err)
	}
	mine := func(r *signal.Record) bool {
		return int(r.Process.PID) == os.Getpid() && int(r.Process.TID) == unix.Gettid()
	}
	off(15 * time.Millisecond)
	time.Sleep(300 * time.Millisecond)
	for _, r := range env.Records() {
		if mine(r) && r.Severity != signal.Info {
			t.Errorf("an event of 15 ms: %s", r.Title)
		}
	}
	off(80 * time.Millisecond)
	r := env.WaitRecord(func(r *signal.Record) bool { return mine(r) && r.Body.(*TickGap).GapSeconds >= 0.075 })
	if b := r.Body.(*TickGap); b.CPU != 0 || b.GapSeconds > 5 || len(r.KernelIPs) == 0 || r.CgroupID == 0 {
		t.Errorf("%+v with %d frames", b, len(r.KernelIPs))
	}
	severity, title := signal.Warning, `; \S+ \(pid \d+\) had it at the end`
	if r.Body.(*TickGap).StealSeconds > 0.04 {
		severity, title = signal.Info, ": the hypervisor had it"
	}
	probetest.Event{Title: `CPU 0 took no timer interrupt for \S+s` + title, Severity: severity, Kernel: true, PID: os.Getpid()}.Check(t, r)
	if s := find(env.Gather(), gaps, ""); s == nil || s.Hist.Count == 0 || s.Hist.Sum < 0.075 {
		t.Errorf("histogram %+v", s)
	}
	if err := env.Stop(); err != nil {
		t.Fatal(err)
	}
	loss := env.Loss()
	var dropped uint64
	for _, n := range loss.Dropped {
		dropped += n
	}
	if got := uint64(len(env.Records())); loss.Observed != got+dropped {
		t.Errorf("observed %d, but %d records and %v lost", loss.Observed, got, loss.Dropped)
	}
}

// TestKernelIdle: CPUs that are idle or busy have no gaps worth a second.
func TestKernelIdle(t *testing.T) {
	env := probetest.NewKernel(t, load.Options{})
	cfg := Spec().Config.(Config)
	cfg.Gap = time.Second
	env.Start(Spec(), cfg)
	time.Sleep(3 * time.Second)
	for _, r := range env.Records() {
		t.Errorf("on a machine that is left alone: %s", r.Title)
	}
}
