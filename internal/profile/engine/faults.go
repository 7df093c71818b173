//go:build !noprofiler

package engine

import (
	"fmt"

	"github.com/cilium/ebpf"
	"go.opentelemetry.io/ebpf-profiler/reporter/samples"
	"go.opentelemetry.io/ebpf-profiler/tracer"
	"golang.org/x/sys/unix"

	"huatuo/internal/profile"
)

const (
	entryVariable = "origin_id_sampling"
	idleVariable  = "filter_idle_frames"
)

// beginFaults takes a stack of one page fault in so many. An event of perf's
// runs the unwinder's own entry, once more with another origin: perf lets one
// program of its run on a CPU at a time.
func (h *hooks) beginFaults(reg tracer.ProbeRegistrar, pc *tracer.ProbeContext) error {
	if !h.o.wants(profile.Fault) {
		return nil
	}
	m := &samples.TypeMetadata{SampleType: profile.Fault.Name, SampleUnit: profile.Fault.Unit}
	id, err := reg.Register(m)
	if err != nil {
		return err
	}
	h.kinds[m] = fault
	if err := h.loadFaults(pc, id); err != nil {
		h.status = append(h.status, TypeStatus{Type: profile.Fault, Reason: reason(err)})
		return nil
	}
	h.status = append(h.status, TypeStatus{Type: profile.Fault, On: true, By: "perf page faults"})
	return nil
}

func (h *hooks) loadFaults(pc *tracer.ProbeContext, id uint16) error {
	spec, err := pc.CollectionSpecWith(nil, []string{entryName}, []string{entryVariable, idleVariable})
	if err != nil {
		return err
	}
	if err := set(spec, entryVariable, id); err != nil {
		return err
	}
	if err := pc.RewriteMaps(spec, nil); err != nil {
		return err
	}
	coll, err := ebpf.NewCollection(spec)
	if err != nil {
		return fmt.Errorf("load: %w", err)
	}
	h.open = append(h.open, collection{coll})
	stop, err := onEachCPU(coll.Programs[entryName], unix.PerfEventAttr{
		Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_PAGE_FAULTS, Size: unix.PERF_ATTR_SIZE_VER1,
		Sample: uint64(h.o.FaultEvery), Bits: unix.PerfBitDisabled,
	})
	if err != nil {
		return err
	}
	h.open = append(h.open, closer(stop))
	return nil
}

// closer is a function that ends something.
type closer func()

// Close calls it.
func (f closer) Close() error {
	f()
	return nil
}
