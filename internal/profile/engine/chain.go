//go:build !noprofiler

package engine

import (
	"fmt"

	"github.com/cilium/ebpf"
	"go.opentelemetry.io/ebpf-profiler/support"
	"go.opentelemetry.io/ebpf-profiler/tracer"
)

// The unwinder's programs call each other through an array of programs, which
// takes programs of one type only, and keep their state in a record per CPU.
// Hooks of another type than the CPUs' clocks need a copy of the programs, the
// array and the record.

const (
	programsMap = "perf_progs"
	recordsMap  = "per_cpu_records"
)

// links of the chain: those that the library loads for the CPUs' clocks.
var links = map[uint32]string{
	uint32(support.ProgUnwindStop):     "kprobe_unwind_stop",
	uint32(support.ProgUnwindNative):   "kprobe_unwind_native",
	uint32(support.ProgUnwindHotspot):  "kprobe_unwind_hotspot",
	uint32(support.ProgUnwindPerl):     "kprobe_unwind_perl",
	uint32(support.ProgUnwindPHP):      "kprobe_unwind_php",
	uint32(support.ProgUnwindPython):   "kprobe_unwind_python",
	uint32(support.ProgUnwindRuby):     "kprobe_unwind_ruby",
	uint32(support.ProgUnwindV8):       "kprobe_unwind_v8",
	uint32(support.ProgUnwindDotnet):   "kprobe_unwind_dotnet",
	uint32(support.ProgUnwindDotnet10): "kprobe_unwind_dotnet10",
	uint32(support.ProgGoLabels):       "kprobe_go_labels",
	uint32(support.ProgUnwindBEAM):     "kprobe_unwind_beam",
}

// chain is a copy of the unwinder for hooks of one type. It works for as long as
// its maps are open: the kernel empties an array of programs when the last user
// of it has gone.
type chain struct {
	programs *ebpf.Map
	records  *ebpf.Map
	loaded   *ebpf.Collection
}

func (c *chain) close() {
	if c == nil {
		return
	}
	c.programs.Close()
	c.records.Close()
	if c.loaded != nil {
		c.loaded.Close()
	}
}

// bind puts the chain's maps in the place of those that a program names. It comes
// before those of the unwinder are put in the place of the others.
func (c *chain) bind(p *ebpf.ProgramSpec) error {
	for i := range p.Instructions {
		ins := &p.Instructions[i]
		var m *ebpf.Map
		switch ins.Reference() {
		case programsMap:
			m = c.programs
		case recordsMap:
			m = c.records
		default:
			continue
		}
		if err := ins.AssociateMap(m); err != nil {
			return fmt.Errorf("bind %s: %w", p.Name, err)
		}
	}
	return nil
}

// newChain loads a copy of the unwinder as programs of a type.
func newChain(pc *tracer.ProbeContext, as ebpf.ProgramType) (c *chain, err error) {
	var names []string
	for _, name := range links {
		names = append(names, name)
	}
	spec, err := pc.CollectionSpecWith([]string{programsMap, recordsMap}, names, nil)
	if err != nil {
		return nil, err
	}
	c = &chain{}
	if c.programs, err = ebpf.NewMap(spec.Maps[programsMap]); err != nil {
		return nil, fmt.Errorf("make an array of programs: %w", err)
	}
	if c.records, err = ebpf.NewMap(spec.Maps[recordsMap]); err != nil {
		c.programs.Close()
		return nil, fmt.Errorf("make records: %w", err)
	}
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	delete(spec.Maps, programsMap)
	delete(spec.Maps, recordsMap)
	for _, p := range spec.Programs {
		p.Type = as // they only hand their context on
		if err := c.bind(p); err != nil {
			return nil, err
		}
	}
	if err := pc.RewriteMaps(spec, nil); err != nil {
		return nil, err
	}
	if c.loaded, err = ebpf.NewCollection(spec); err != nil {
		return nil, fmt.Errorf("load the unwinder once more: %w", err)
	}
	for n, name := range links {
		if err := c.programs.Update(n, uint32(c.loaded.Programs[name].FD()), ebpf.UpdateAny); err != nil {
			return nil, fmt.Errorf("link %s: %w", name, err)
		}
	}
	return c, nil
}
