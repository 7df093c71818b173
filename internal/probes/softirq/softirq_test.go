package softirq

import (
	"errors"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"huatuo/internal/kern/ksym"
	"huatuo/internal/kern/load"
	"huatuo/internal/probes/probetest"
	"huatuo/internal/signal"
	"huatuo/test/faults/stuckcpu"
)

// TestWire holds the Go side to bpf/include/hist.h.
func TestWire(t *testing.T) {
	var c bpfCpuState
	if got, want := len(c.Wait[0].Slots), signal.LatencySlots(2); got != want {
		t.Errorf("histograms have %d slots, signal says %d", got, want)
	}
	if len(c.Wait) != len(vectors) {
		t.Errorf("%d vectors in the kernel part, %d names", len(c.Wait), len(vectors))
	}
}

func at(ns uint64) time.Time { return time.Unix(0, int64(ns)) }

// sample is a wait of 12 ms of net_rx with a task on the CPU.
func sample() *bpfSoftirqStallWire {
	w := &bpfSoftirqStallWire{Ts: 1_000_000_000, Ns: 12_000_000, Suppressed: 2, Cgroup: 42, Vec: 3, Cpu: 1, Pid: 11, Tgid: 10, Frames: 16}
	copy(w.Comm[:], "hog")
	w.Stack[0], w.Stack[1] = 0xa, 0xb
	return w
}

func bytesOf(w *bpfSoftirqStallWire) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(w)), unsafe.Sizeof(*w))
}

// newDecoder knows two functions: those that lead to a handler.
func newDecoder() *decoder {
	names := map[uint64]string{0xb: "__local_bh_enable_ip", 0xc: "irq_exit_rcu"}
	return &decoder{clock: at, symbol: func(ip uint64) string { return names[ip] }}
}

func TestDecode(t *testing.T) {
	comm := func(s string) func(*bpfSoftirqStallWire) {
		return func(w *bpfSoftirqStallWire) { w.Comm = [16]uint8{}; copy(w.Comm[:], s) }
	}
	for _, tt := range []struct {
		name    string
		change  func(*bpfSoftirqStallWire)
		title   string
		pid     uint32
		body    SoftirqStall
		measure *signal.Schema
	}{
		{"kept off", func(*bpfSoftirqStallWire) {}, "soft interrupt net_rx waited 12ms on CPU 1 while hog (pid 10) kept soft interrupts off", 10,
			SoftirqStall{Vector: "net_rx", Phase: "wait", StallSeconds: 0.012, CPU: 1, Began: byEnable}, wait},
		{"interrupt", func(w *bpfSoftirqStallWire) { w.Stack[1] = 0xc }, "soft interrupt net_rx waited 12ms on CPU 1 while hog (pid 10) was there", 0,
			SoftirqStall{Vector: "net_rx", Phase: "wait", StallSeconds: 0.012, CPU: 1, Began: byInterrupt, Interrupted: "hog (pid 10)"}, wait},
		{"no stack", func(w *bpfSoftirqStallWire) { w.Frames = -14 }, "soft interrupt net_rx waited 12ms on CPU 1 while hog (pid 10) was there", 0,
			SoftirqStall{Vector: "net_rx", Phase: "wait", StallSeconds: 0.012, CPU: 1, Interrupted: "hog (pid 10)"}, wait},
		{"ksoftirqd", comm("ksoftirqd/1"), "soft interrupt net_rx waited 12ms on CPU 1 for ksoftirqd", 0,
			SoftirqStall{Vector: "net_rx", Phase: "wait", StallSeconds: 0.012, CPU: 1, Began: byKsoftirqd, Interrupted: "ksoftirqd/1 (pid 10)"}, wait},
		{"behind another", func(w *bpfSoftirqStallWire) { w.AfterNs, w.AfterVec = 11_000_000, 1 }, "soft interrupt net_rx waited 12ms on CPU 1 behind timer", 0,
			SoftirqStall{Vector: "net_rx", Phase: "wait", StallSeconds: 0.012, CPU: 1, Began: byEnable, Interrupted: "hog (pid 10)", AfterVector: "timer", AfterSeconds: 0.011}, wait},
		{"after a short one", func(w *bpfSoftirqStallWire) { w.AfterNs, w.AfterVec = 5_000_000, 1 },
			"soft interrupt net_rx waited 12ms on CPU 1 while hog (pid 10) kept soft interrupts off", 10,
			SoftirqStall{Vector: "net_rx", Phase: "wait", StallSeconds: 0.012, CPU: 1, Began: byEnable, AfterVector: "timer", AfterSeconds: 0.005}, wait},
		{"idle", func(w *bpfSoftirqStallWire) { w.Pid, w.Tgid, w.Stack[1] = 0, 0, 0xc }, "soft interrupt net_rx waited 12ms on CPU 1 while idle was there", 0,
			SoftirqStall{Vector: "net_rx", Phase: "wait", StallSeconds: 0.012, CPU: 1, Began: byInterrupt, Interrupted: "idle"}, wait},
		{"service", func(w *bpfSoftirqStallWire) { w.Phase, w.Vec = 1, 9 }, "soft interrupt rcu ran 12ms on CPU 1", 0,
			SoftirqStall{Vector: "rcu", Phase: "service", StallSeconds: 0.012, CPU: 1, Began: byEnable, Interrupted: "hog (pid 10)"}, service},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := sample()
			tt.change(w)
			r, err := newDecoder().decode(bytesOf(w))
			if err != nil {
				t.Fatal(err)
			}
			if r.Title != tt.title || r.Process.PID != tt.pid || *r.Body.(*SoftirqStall) != tt.body {
				t.Errorf("%q, process %+v, %+v", r.Title, r.Process, r.Body)
			}
			if (r.CgroupID != 0) != (tt.pid != 0) || (len(r.KernelIPs) == 2) == (tt.name == "no stack") || r.Suppressed != 2 || r.Measures[0].Schema != tt.measure {
				t.Errorf("record %+v", r)
			}
		})
	}
	if _, err := newDecoder().decode(bytesOf(sample())[:40]); err == nil {
		t.Error("a short sample decodes")
	}
	w := sample()
	w.Vec = 10
	if _, err := newDecoder().decode(bytesOf(w)); err == nil {
		t.Error("a vector that there is not decodes")
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

// flood sends datagrams over the loopback device until stop is called: each is
// a net_rx soft interrupt.
func flood(t *testing.T) (stop func()) {
	t.Helper()
	c, err := net.Dial("udp4", "127.0.0.1:9")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		msg := make([]byte, 64)
		for {
			select {
			case <-done:
				return
			default:
				c.Write(msg) // refused: nobody is there, and nobody minds
			}
		}
	})
	stop = sync.OnceFunc(func() { close(done); wg.Wait(); c.Close() })
	t.Cleanup(stop)
	return stop
}

// TestKernel floods the loopback device and lowers the threshold to what every
// handler passes, by each kind of hook and of ring.
func TestKernel(t *testing.T) {
	probetest.Rungs(t, testStall)
}

func testStall(t *testing.T, o load.Options) {
	env := probetest.NewKernel(t, o)
	syms := ksym.New("")
	env.Symbol = func(ip uint64) string { s, _ := syms.Lookup(ip); return s.Name }
	cfg := Spec().Config.(Config)
	cfg.Stall = 2 * time.Microsecond
	env.Start(Spec(), cfg)
	for _, h := range env.Hooks() {
		if h.By != o.Kinds[0] {
			t.Fatalf("hook %+v: want it by %s", h, o.Kinds[0])
		}
	}
	stop := flood(t)
	for _, phase := range phases {
		r := env.WaitRecord(func(r *signal.Record) bool {
			b := r.Body.(*SoftirqStall)
			return b.Phase == phase && b.Vector == "net_rx"
		})
		b := r.Body.(*SoftirqStall)
		if b.StallSeconds < cfg.Stall.Seconds() || b.StallSeconds > 10 || len(r.KernelIPs) == 0 || b.Began == "" {
			t.Errorf("stall %+v with %d frames", b, len(r.KernelIPs))
		}
		if d := time.Since(r.Time); d < 0 || d > 30*time.Second {
			t.Errorf("the event is %v old", d)
		}
	}
	stop()
	want := []string{wait.Name + " net_rx", service.Name + " net_rx", service.Name + " timer", service.Name + " rcu"}
	var missing []string
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) { // RCU lets its callbacks wait
		counts := map[string]uint64{}
		for _, s := range env.Gather() {
			counts[s.Schema.Name+" "+s.Labels[0]] = s.Hist.Count
		}
		missing = slices.DeleteFunc(slices.Clone(want), func(k string) bool { return counts[k] > 0 })
		if len(missing) == 0 || time.Now().After(end) {
			break
		}
	}
	if len(missing) > 0 {
		t.Errorf("nothing counted in %v", missing)
	}
	if err := env.Stop(); err != nil {
		t.Fatal(err)
	}
	loss := env.Loss()
	var dropped uint64
	for _, n := range loss.Dropped {
		dropped += n
	}
	if got := uint64(len(env.Records())); loss.Observed != got+dropped || loss.Dropped["rate_limited"] == 0 {
		t.Errorf("observed %d, but %d records and %v lost", loss.Observed, got, loss.Dropped)
	}
}

// TestKernelQuiet floods the loopback device as well: what stays below the
// threshold makes no event.
func TestKernelQuiet(t *testing.T) {
	env := probetest.NewKernel(t, load.Options{})
	cfg := Spec().Config.(Config)
	cfg.Stall = 10 * time.Second
	env.Start(Spec(), cfg)
	stop := flood(t)
	time.Sleep(500 * time.Millisecond)
	stop()
	if err := env.Stop(); err != nil {
		t.Fatal(err)
	}
	if rs := env.Records(); len(rs) != 0 {
		t.Errorf("%d events below the threshold, the first: %s", len(rs), rs[0].Title)
	}
	if loss := env.Loss(); loss.Observed != 0 {
		t.Errorf("observed %d", loss.Observed)
	}
}

// TestKernelKept keeps soft interrupts off on a CPU for 60 ms: those that its tick
// raises meanwhile wait, and the event tells for whom. 5 ms are below the threshold.
func TestKernelKept(t *testing.T) {
	env := probetest.NewKernel(t, load.Options{})
	syms := ksym.New("")
	env.Symbol = func(ip uint64) string { s, _ := syms.Lookup(ip); return s.Name }
	cfg := Spec().Config.(Config)
	cfg.Rate = 0 // a busy machine has stalls of its own
	cfg.Stall = 30 * time.Millisecond
	env.Start(Spec(), cfg)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	mine := func(r *signal.Record) bool { return int(r.Process.TID) == unix.Gettid() }
	hold := func(d time.Duration) {
		if err := stuckcpu.HoldSoft(d); errors.Is(err, errors.ErrUnsupported) {
			t.Skip(err)
		} else if err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	hold(5 * time.Millisecond)
	took := time.Since(began) // a hypervisor may have made more of it
	time.Sleep(300 * time.Millisecond)
	for _, r := range env.Records() {
		if mine(r) && took < cfg.Stall {
			t.Errorf("an event of 5 ms: %s", r.Title)
		}
	}
	// Where ksoftirqd is at work already what waits is left to it, and no fault of this.
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end) && !slices.ContainsFunc(env.Records(), mine); time.Sleep(300 * time.Millisecond) {
		hold(60 * time.Millisecond)
	}
	r := env.WaitRecord(mine)
	probetest.Event{
		Title:    `soft interrupt \w+ waited [0-9.]+ms on CPU \d+ while \S+ \(pid \d+\) kept soft interrupts off`,
		Severity: signal.Warning, Kernel: true, PID: os.Getpid(),
	}.Check(t, r)
	// The first tick comes within 10 ms, with HZ=100; a hypervisor may take the CPU away meanwhile.
	if b := r.Body.(*SoftirqStall); b.Phase != "wait" || b.Began != byEnable || b.StallSeconds < 0.03 || b.StallSeconds > 5 || r.CgroupID == 0 {
		t.Errorf("%+v of cgroup %d", b, r.CgroupID)
	}
}

func TestRefuses(t *testing.T) {
	env := probetest.New(t)
	err := env.TryStart(Spec(), Config{})
	if err == nil || !strings.Contains(err.Error(), "probes.softirq.stall") {
		t.Errorf("a threshold of zero: %v", err)
	}
}
