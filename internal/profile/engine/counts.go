//go:build !noprofiler

package engine

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"structs"

	"github.com/cilium/ebpf"
	"go.opentelemetry.io/ebpf-profiler/reporter/samples"
	"go.opentelemetry.io/ebpf-profiler/tracer"
	"golang.org/x/sys/unix"

	"huatuo/internal/profile"
	"huatuo/internal/signal"
)

const (
	overflowProgram = "counter_overflows"
	countersMap     = "counters"
)

// countKinds are those of what the hardware counts.
var countKinds = [...]kind{cycles, instructions, cacheMisses, tlbMisses}

// readMisses is the configuration of PERF_TYPE_HW_CACHE for reads that a cache could not answer.
func readMisses(cache uint64) uint64 {
	return cache | unix.PERF_COUNT_HW_CACHE_OP_READ<<8 | unix.PERF_COUNT_HW_CACHE_RESULT_MISS<<16
}

// pmuEvents are what counts for a type, the best first, with the names that the
// tool perf gives them. sys is where sysfs is.
func pmuEvents(t *signal.ProfileType, sys string) []perfEvent {
	switch t {
	case profile.Cycles:
		return []perfEvent{{"cycles", unix.PERF_TYPE_HARDWARE, unix.PERF_COUNT_HW_CPU_CYCLES}}
	case profile.Instructions:
		return []perfEvent{{"instructions", unix.PERF_TYPE_HARDWARE, unix.PERF_COUNT_HW_INSTRUCTIONS}}
	case profile.CacheMisses:
		e := []perfEvent{{"LLC-load-misses", unix.PERF_TYPE_HW_CACHE, readMisses(unix.PERF_COUNT_HW_CACHE_LL)}}
		if lastLevelMisses(sys) {
			e = append(e, perfEvent{"cache-misses", unix.PERF_TYPE_HARDWARE, unix.PERF_COUNT_HW_CACHE_MISSES})
		}
		return e
	case profile.TLBMisses:
		return []perfEvent{{"dTLB-load-misses", unix.PERF_TYPE_HW_CACHE, readMisses(unix.PERF_COUNT_HW_CACHE_DTLB)}}
	}
	return nil
}

// lastLevelMisses tells whether what perf calls cache misses are those of the last
// level. On Intel's CPUs they are, also in virtual machines, which have no other
// counter of them; on others they are those of the first or the second level.
func lastLevelMisses(sys string) bool {
	for _, pmu := range [...]string{"cpu", "cpu_core"} {
		b, err := os.ReadFile(filepath.Join(sys, "bus/event_source/devices", pmu, "events/cache-misses"))
		if err == nil && bytes.HasPrefix(b, []byte("event=0x2e,umask=0x41")) {
			return true
		}
	}
	return false
}

// attr asks for an event at so many overflows a second: the kernel chooses how
// many events that is, and the program looks at how many there were.
func (e perfEvent) attr(hertz int) unix.PerfEventAttr {
	return unix.PerfEventAttr{
		Type: e.kind, Config: e.config, Size: unix.PERF_ATTR_SIZE_VER1,
		Sample: uint64(hertz), Bits: unix.PerfBitDisabled | unix.PerfBitFreq,
	}
}

// counter is what one type's counters have counted on a CPU: struct counter of bpf/counts.h.
type counter struct {
	_       structs.HostLayout
	Count   uint64
	Enabled uint64
	Running uint64
	Lost    [reasonSlots]loss
}

// counted is a type that is counted, and what was lost of it.
type counted struct {
	typ    *signal.ProfileType
	m      *ebpf.Map
	before [reasonSlots]loss
}

// beginCounts takes stacks at overflows of the CPUs' counters.
func (h *hooks) beginCounts(reg tracer.ProbeRegistrar, pc *tracer.ProbeContext) error {
	for _, k := range countKinds {
		t := k.types()[0]
		if !h.o.wants(t) {
			continue
		}
		m := &samples.TypeMetadata{SampleType: t.Name, SampleUnit: t.Unit}
		id, err := reg.Register(m)
		if err != nil {
			return err
		}
		h.kinds[m] = k
		events := h.o.events[t]
		if events == nil {
			events = pmuEvents(t, "/sys")
		}
		by, err := h.loadCount(pc, t, id, events)
		if err != nil {
			h.off([]*signal.ProfileType{t}, err)
			continue
		}
		h.status = append(h.status, TypeStatus{Type: t, On: true, By: "perf " + by})
	}
	return nil
}

// loadCount loads the program of a type, and starts the first of the events that
// the CPUs have.
func (h *hooks) loadCount(pc *tracer.ProbeContext, t *signal.ProfileType, id uint16, events []perfEvent) (by string, err error) {
	spec, err := h.spec(pc, group{
		hooks: []hook{{program: overflowProgram}},
		set:   func(spec *ebpf.CollectionSpec) error { return set(spec, "counter_origin", id) },
	})
	if err != nil {
		return "", err
	}
	coll, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: h.sharedOf(spec)})
	if err != nil {
		return "", fmt.Errorf("load: %w", err)
	}
	for i, e := range events {
		stop, refused := onEachCPU(coll.Programs[overflowProgram], e.attr(h.o.CountHertz))
		if refused != nil {
			if i == 0 { // the best one
				err = whyUncounted(e.name, refused, hasPMU())
			}
			continue
		}
		h.open = append(h.open, collection{coll}, closer(stop))
		h.counted = append(h.counted, &counted{typ: t, m: coll.Maps[countersMap]})
		return e.name, nil
	}
	coll.Close()
	return "", err
}

// hasPMU tells whether the CPUs have counters that interrupt.
func hasPMU() bool {
	attr := perfEvent{"cycles", unix.PERF_TYPE_HARDWARE, unix.PERF_COUNT_HW_CPU_CYCLES}.attr(1)
	fd, err := unix.PerfEventOpen(&attr, 0, -1, -1, unix.PERF_FLAG_FD_CLOEXEC)
	if err != nil {
		return errors.Is(err, unix.EBUSY)
	}
	unix.Close(fd)
	return true
}

// whyUncounted says what it means that the kernel refuses an event.
func whyUncounted(event string, err error, hasPMU bool) error {
	is := func(all ...error) bool {
		for _, e := range all {
			if errors.Is(err, e) {
				return true
			}
		}
		return false
	}
	switch {
	case is(unix.ENOENT, unix.EOPNOTSUPP, unix.EINVAL, unix.ENXIO, unix.ENODEV) && !hasPMU:
		return errors.New("this machine has no PMU that interrupts (a virtual machine without one of its own?)")
	case is(unix.ENOENT, unix.EOPNOTSUPP, unix.EINVAL, unix.ENXIO, unix.ENODEV):
		return errors.New("the CPU does not count " + event)
	case is(unix.EBUSY):
		return fmt.Errorf("somebody else has the PMU: %w", err)
	case is(unix.EACCES, unix.EPERM):
		return fmt.Errorf("the kernel does not allow it (sysctl kernel.perf_event_paranoid, CAP_PERFMON): %w", err)
	}
	return err
}

// account adds to the account what was lost since the last time.
func (c *counted) account(a *Account) error {
	var cpus []counter
	if err := c.m.Lookup(uint32(0), &cpus); err != nil {
		return fmt.Errorf("read what was lost of %s: %w", c.typ.Name, err)
	}
	for why, name := range reasons {
		var now loss
		for i := range cpus {
			now.Samples += cpus[i].Lost[why].Samples
			now.Value += cpus[i].Lost[why].Value
		}
		was := c.before[why]
		c.before[why] = now
		a.add(Loss{Type: c.typ, Reason: name, Samples: now.Samples - was.Samples, Value: now.Value - was.Value})
	}
	return nil
}
