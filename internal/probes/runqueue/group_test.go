package runqueue

import (
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"huatuo/internal/kern/load"
	"huatuo/internal/probes/probetest"
	"huatuo/internal/signal"
)

// TestKernelGroups gives the slot of a cgroup to another: it takes the slot
// over when the other is silent, and makes do with the hash when not. Nothing
// that was counted is lost either way.
func TestKernelGroups(t *testing.T) {
	probetest.Rungs(t, func(t *testing.T, o load.Options) {
		for silent, name := range map[time.Duration]string{1: "taken over", time.Hour * 1e5: "in use"} {
			t.Run(name, func(t *testing.T) { testGroups(t, o, silent) })
		}
	})
}

func testGroups(t *testing.T, o load.Options, silent time.Duration) {
	env := probetest.NewKernel(t, o)
	l, err := env.Kernel.Load(loadBpf, loadBpfLegacy)
	if err != nil {
		t.Fatal(err)
	}
	if err := configure(l, Spec().Config.(Config)); err != nil {
		t.Fatal(err)
	}
	if err := l.Set("silent_ns", uint64(silent)); err != nil {
		t.Fatal(err)
	}
	obj, err := l.Attach(load.TP("sched_wakeup"), load.TP("sched_switch"))
	if err != nil {
		t.Fatal(err)
	}
	defer obj.Close()

	cg := cgroupFor(t, "group")
	cpus := ebpf.MustPossibleCPU()
	owner := cg.ID + uint64(obj.Map("slots").MaxEntries())
	owned := make([]bpfGroup, cpus)
	for i := range owned {
		owned[i] = bpfGroup{Cgroup: owner, Hist: bpfHtHist{Zero: 1, Sum: 20, Slots: [27]uint64{2, 26: 3}}}
	}
	slot := uint32(cg.ID) % obj.Map("slots").MaxEntries()
	if err := obj.Map("slots").Update(slot, owned, ebpf.UpdateAny); err != nil {
		t.Fatal(err)
	}
	start(t, cg, "0", sleep)
	c := &collector{o: obj, blames: newBlames(0)}
	find := func(id uint64) (h *signal.Hist) {
		var b signal.Batch
		if err := c.groups(&b); err != nil {
			t.Fatal(err)
		}
		for _, s := range b.Samples {
			if s.CgroupID == id {
				h = s.Hist
			}
		}
		return h
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if h := find(cg.ID); h != nil && h.Count >= 20 {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the group's waits are not counted")
		}
	}
	n := uint64(cpus)
	if h := find(owner); h == nil || h.Count != 6*n || h.Zero != n || h.Counts[0] != 2*n || h.Counts[26] != 3*n || h.Sum != 20*float64(n)/(1<<30) {
		t.Errorf("the owner's histogram is %+v, want what it had on %d CPUs", h, n)
	}
	took, err := perCPU(obj.Map("takeovers"))
	if err != nil {
		t.Fatal(err)
	}
	if over := silent == 1; over != (took > 0) || took%2 != 0 {
		t.Errorf("%d steps of takeovers", took)
	}
}
