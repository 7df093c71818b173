package runqueue

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
	"unsafe"

	"huatuo/internal/kern/load"
	"huatuo/internal/probes/probetest"
	"huatuo/internal/signal"
)

// TestWire holds the Go side to the ranges of bpf/include/hist.h.
func TestWire(t *testing.T) {
	var c bpfCpuState
	if got, want := len(c.Wait[0].Slots), signal.LatencySlots(2); got != want {
		t.Errorf("fine histograms have %d slots, signal says %d", got, want)
	}
	var h bpfHtHist
	if got, want := len(h.Slots), signal.LatencySlots(0); got != want {
		t.Errorf("coarse histograms have %d slots, signal says %d", got, want)
	}
}

func at(ns uint64) time.Time { return time.Unix(0, int64(ns)) }

// sample is a stall of 80 ms: 30 ms of it the victim's CPU was with hog A, 50 ms with hog B.
func sample() *bpfSchedStallWire {
	w := &bpfSchedStallWire{Ts: 1_000_000_000, Waited: 80_000_000, Cgroup: 42, Pid: 11, Tgid: 10, Cpu: 1, Kind: 1, VictimFrames: 16, CulpritFrames: 8, CulpritUserFrames: -14}
	copy(w.Comm[:], "victim")
	w.Victim[0], w.Victim[1], w.Culprit[0] = 0xa, 0xb, 0xc
	w.Prev = bpfRun{End: w.Ts, Ns: 50_000_000, Cgroup: 7, Pid: 21, Tgid: 20}
	copy(w.Prev.Comm[:], "hogB")
	w.Runs[0] = w.Prev
	w.Runs[1] = bpfRun{End: w.Ts - 50_000_000, Ns: 90_000_000, Cgroup: 8, Pid: 30, Tgid: 30}
	copy(w.Runs[1].Comm[:], "hogA")
	return w
}

func bytesOf(w *bpfSchedStallWire) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(w)), unsafe.Sizeof(*w))
}

func TestDecode(t *testing.T) {
	r, err := decode(bytesOf(sample()), at)
	if err != nil {
		t.Fatal(err)
	}
	b := r.Body.(*SchedStall)
	if want := "victim (pid 10) waited 80ms for CPU 1 while hogB (pid 20) had it for 50ms"; r.Title != want {
		t.Errorf("title %q, want %q", r.Title, want)
	}
	if len(b.Ran) != 2 || b.Ran[1].Comm != "hogA" || b.Ran[1].Seconds != 0.03 {
		t.Errorf("ran %+v: want hogB 50 ms, then hogA the 30 ms that overlap the wait", b.Ran)
	}
	if b.Culprit.CgroupID != 7 || len(b.Culprit.KernelIPs) != 1 || b.Culprit.UserIPs != nil {
		t.Errorf("culprit %+v", b.Culprit)
	}
	if len(r.KernelIPs) != 2 || r.CgroupID != 42 || r.Process.TID != 11 || b.Wait != "preempt" {
		t.Errorf("record %+v", r)
	}
	if _, err := decode(bytesOf(sample())[:100], at); err == nil {
		t.Error("a short sample decodes")
	}

	turns := sample()
	turns.Prev.Ns, turns.Runs[0].Ns = 3_000_000, 3_000_000
	turns.Runs[1] = bpfRun{}
	if r, _ := decode(bytesOf(turns), at); !strings.Contains(r.Title, "short turns, hogB (pid 20) the longest") {
		t.Errorf("many short turns: %q", r.Title)
	}

	idle := sample()
	idle.Prev = bpfRun{End: idle.Ts, Ns: 70_000_000}
	idle.Runs = [8]bpfRun{idle.Prev}
	if r, _ := decode(bytesOf(idle), at); !strings.Contains(r.Title, "was idle") || r.Body.(*SchedStall).Culprit.Process.PID != 0 {
		t.Errorf("idle CPU: %q", r.Title)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(bytesOf(sample()))
	f.Add(bytesOfFault(slowFault()))
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

// TestKernel puts real-time-like pressure on one CPU and expects the waits in
// the cgroup's histogram and a stall with victim, culprit and stacks, by each
// kind of hook that this kernel has.
func TestKernel(t *testing.T) {
	probetest.Rungs(t, testStall)
}

func testStall(t *testing.T, o load.Options) {
	env := probetest.NewKernel(t, o)
	cfg := Spec().Config.(Config)
	cfg.Stall = 10 * time.Millisecond
	env.Start(Spec(), cfg)
	for _, h := range env.Hooks() {
		if h.Hook != "page_faults_maj" && h.By != o.Kinds[0] {
			t.Fatalf("hook %+v: want it by %s", h, o.Kinds[0])
		}
	}
	cg := probetest.NewCgroup(t, fmt.Sprintf("huatuo-test-runqueue-%d", os.Getpid()))
	// Busy loops share one CPU in the scheduler's slices, of 1 ms or more: each waits eleven slices for its turn.
	for range 12 {
		hog := exec.Command("taskset", "-c", "0", "sh", "-c", "while :; do :; done")
		if err := hog.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { hog.Process.Kill(); hog.Wait() })
		cg.Add(t, hog.Process.Pid)
	}
	r := env.WaitRecord(func(r *signal.Record) bool {
		b, ok := r.Body.(*SchedStall)
		return ok && r.CgroupID == cg.ID && r.Process.Comm == "sh" && b.Culprit.CgroupID != 0 && len(b.Culprit.KernelIPs) > 0
	})
	b := r.Body.(*SchedStall)
	if b.WaitSeconds < 0.01 || b.WaitSeconds > 5 || b.Wait != "preempt" {
		t.Errorf("stall %+v of %+v", b, r.Process)
	}
	if d := time.Since(r.Time); d < 0 || d > 30*time.Second {
		t.Errorf("the event is %v old", d)
	}
	if o.Kinds[0] == load.TPBTF && len(r.KernelIPs) == 0 {
		t.Error("no stack of the victim")
	}
	if waitsOf(env.Gather(), cg.ID) == 0 {
		t.Error("no waits in the cgroup's histogram")
	}
	if err := env.Stop(); err != nil {
		t.Fatal(err)
	}
	// The conservation law, once the probe is at rest.
	loss := env.Loss()
	var dropped uint64
	for _, n := range loss.Dropped {
		dropped += n
	}
	if got := uint64(len(env.Records())); loss.Observed != got+dropped {
		t.Errorf("observed %d, but %d records and %v lost", loss.Observed, got, loss.Dropped)
	}
}

// TestKernelNear puts the same pressure on a CPU, below the threshold: waits are
// counted, and none is an event.
func TestKernelNear(t *testing.T) {
	env := probetest.NewKernel(t, load.Options{})
	cfg := Spec().Config.(Config)
	cfg.Stall = time.Minute // no machine is so busy
	env.Start(Spec(), cfg)
	cg := cgroupFor(t, "near")
	for range 4 {
		start(t, cg, "0", spin)
	}
	until(t, env, "a hundred waits", func(s []signal.Sample) bool { return waitsOf(s, cg.ID) >= 100 })
	for _, r := range env.Records() {
		if r.Schema == stalled {
			t.Errorf("an event: %s", r.Title)
		}
	}
	if loss := env.Loss(); loss.Observed != uint64(len(env.Records())) {
		t.Errorf("observed %d, records %d", loss.Observed, len(env.Records()))
	}
}

func waitsOf(samples []signal.Sample, group uint64) uint64 {
	for _, s := range samples {
		if s.Schema == containerWait && s.CgroupID == group {
			return s.Hist.Count
		}
	}
	return 0
}

// TestKernelAwake: without sleeps there is nothing of them, and waits are measured as ever.
func TestKernelAwake(t *testing.T) {
	env := probetest.NewKernel(t, load.Options{})
	spec := Spec()
	cfg := spec.Lean(spec.Config, len(spec.Leans)).(Config)
	if cfg.Sleeps {
		t.Fatal("the leanest configuration watches sleeps")
	}
	env.Start(spec, cfg)
	cg := cgroupFor(t, "awake")
	start(t, cg, "0", sleep)
	until(t, env, "twenty waits", func(s []signal.Sample) bool { return waitsOf(s, cg.ID) >= 20 })
	for _, s := range env.Gather() {
		switch s.Schema {
		case futexWait, fileWait, faultWait, containerFutexes, containerFutexSeconds, containerFiles, containerFileSeconds, containerFaults, containerFaultSeconds, unmeasured:
			t.Errorf("%s of sleeps that nobody watches", s.Schema.Name)
		}
	}
	for _, h := range env.Hooks() {
		if h.Hook == "page_faults_maj" {
			t.Errorf("hook %+v", h)
		}
	}
}
