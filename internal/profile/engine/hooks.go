//go:build !noprofiler

package engine

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
	"go.opentelemetry.io/ebpf-profiler/reporter/samples"
	"go.opentelemetry.io/ebpf-profiler/tracer"

	"huatuo/internal/profile"
	"huatuo/internal/profile/engine/bpf"
	"huatuo/internal/signal"
)

// hooks are the entries of one run.
type hooks struct {
	o      Entries
	kernel *btf.Spec
	kinds  map[*samples.TypeMetadata]kind // of the unwinder's origins
	ids    [kindSlots]uint16              // the unwinder's number of each kind, 0: nobody wants it

	raw, probe *chain // made when the first hook of their type is
	shared     map[string]*ebpf.Map
	open       []interface{ Close() error }

	status  []TypeStatus
	counted []*counted                   // by the hardware
	before  [kindSlots][reasonSlots]loss // what was counted as lost
	blind   error                        // why nobody tells when a process becomes another program; nil: somebody does
	joins   *joins
}

// newHooks makes entries that the unwinder is to load.
func newHooks(o Entries) *hooks {
	return &hooks{o: o.withDefaults(), kinds: map[*samples.TypeMetadata]kind{}, shared: map[string]*ebpf.Map{}}
}

// Load is called by the unwinder, which hands out what programs need. A type
// whose hooks are not to be had is off, and that is no error.
func (h *hooks) Load(_ context.Context, reg tracer.ProbeRegistrar, pc *tracer.ProbeContext) (link.Link, error) {
	if err := rlimit.RemoveMemlock(); err != nil {
		return nil, fmt.Errorf("lift the limit of locked memory: %w", err)
	}
	if h.kernel = h.o.KernelTypes; h.kernel == nil {
		var err error
		if h.kernel, err = btf.LoadKernelSpec(); err != nil {
			others := slices.DeleteFunc(slices.Clone(h.o.Types), func(t *signal.ProfileType) bool { return t == profile.Fault })
			h.blind = err
			h.off(others, fmt.Errorf("the kernel's types are not known: %w", err))
			return nil, h.beginFaults(reg, pc)
		}
	}
	h.withoutUnknown()
	if err := h.register(reg); err != nil {
		return nil, err
	}
	h.blind = h.load(pc, group{hooks: []hook{{program: "executed", tracepoint: "sched_process_exec"}}})
	for _, g := range h.groups() {
		h.begin(pc, g)
	}
	if err := h.beginCounts(reg, pc); err != nil {
		return nil, err
	}
	return nil, h.beginFaults(reg, pc)
}

// register gets a number for each kind that somebody wants.
func (h *hooks) register(reg tracer.ProbeRegistrar) (err error) {
	for k := range kinds {
		if !slices.ContainsFunc(k.all(), h.o.wants) {
			continue
		}
		m := &samples.TypeMetadata{SampleType: k.types()[0].Name, SampleUnit: k.types()[0].Unit}
		if h.ids[k], err = reg.Register(m); err != nil {
			return err
		}
		h.kinds[m] = k
	}
	return nil
}

// begin loads and attaches a group.
func (h *hooks) begin(pc *tracer.ProbeContext, g group) {
	var types []*signal.ProfileType
	for _, k := range g.kinds {
		for _, t := range k.all() {
			if h.o.wants(t) && !slices.Contains(types, t) {
				types = append(types, t)
			}
		}
	}
	if len(types) == 0 {
		return
	}
	if err := h.load(pc, g); err != nil {
		h.off(types, err)
		return
	}
	var by []string
	for _, k := range g.hooks {
		by = append(by, k.name())
	}
	for _, t := range types {
		h.status = append(h.status, TypeStatus{Type: t, On: true, By: strings.Join(by, ", ")})
	}
}

func (h *hooks) off(types []*signal.ProfileType, why error) {
	for _, t := range types {
		h.status = append(h.status, TypeStatus{Type: t, Reason: reason(why)})
	}
}

// reason is an error in one line: the verifier has thousands.
func reason(err error) string {
	var v *ebpf.VerifierError
	if errors.As(err, &v) {
		return fmt.Sprintf("the kernel refuses the program: %v", v)
	}
	s, _, _ := strings.Cut(err.Error(), "\n")
	return s
}

// load loads the programs of a group and attaches them.
func (h *hooks) load(pc *tracer.ProbeContext, g group) (err error) {
	if g.needs != nil {
		if err := g.needs(); err != nil {
			return err
		}
	}
	for _, k := range g.hooks {
		if err := h.has(k); err != nil {
			return err
		}
	}
	spec, err := h.spec(pc, g)
	if err != nil {
		return err
	}
	coll, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{
		MapReplacements: h.sharedOf(spec), Programs: ebpf.ProgramOptions{KernelTypes: h.kernel},
	})
	if err != nil {
		return fmt.Errorf("load: %w", err)
	}
	h.open = append(h.open, collection{coll}) // which is also how the engine's cost is known
	mark := len(h.open)
	for _, k := range g.hooks {
		links, err := k.attach(coll.Programs[k.program])
		h.open = append(h.open, links...)
		if err != nil {
			for _, l := range h.open[mark-1:] {
				l.Close()
			}
			h.open = h.open[:mark-1]
			return err
		}
	}
	return nil
}

// spec makes the specification of a group's programs, with constants set and
// the unwinder's maps in place.
func (h *hooks) spec(pc *tracer.ProbeContext, g group) (*ebpf.CollectionSpec, error) {
	spec, err := bpf.LoadEntries()
	if err != nil {
		return nil, err
	}
	wanted := map[string]hook{}
	for _, k := range g.hooks {
		wanted[k.program] = k
	}
	for name, p := range spec.Programs {
		k, ok := wanted[name]
		if !ok {
			delete(spec.Programs, name)
			continue
		}
		if !k.unwinds {
			continue
		}
		c, err := h.chainFor(pc, p.Type)
		if err != nil {
			return nil, err
		}
		if err := c.bind(p); err != nil {
			return nil, err
		}
	}
	if err := h.constants(pc, spec); err != nil {
		return nil, err
	}
	if g.set != nil {
		if err := g.set(spec); err != nil {
			return nil, err
		}
	}
	if err := h.share(spec); err != nil {
		return nil, err
	}
	if err := pc.RewriteMaps(spec, nil); err != nil {
		return nil, err
	}
	dropUnused(spec)
	return spec, set(spec, "ring_most", ringBytes(spec)/2)
}

// ringHertz is what the other types need of the unwinder's ring, as ring counts: a
// second of the usual 1 kB from six kinds, in a third of it, and of what the
// hardware counts as of the CPUs' clocks.
func (h *hooks) ringHertz() int {
	if len(h.o.Types) == 0 {
		return 0
	}
	n := h.o.Rate / 3
	for _, t := range profile.Hardware() {
		if h.o.wants(t) {
			n += h.o.CountHertz / 4
		}
	}
	return n
}

// ringBytes is the size of the buffer on the way to user space.
func ringBytes(spec *ebpf.CollectionSpec) uint64 {
	for _, p := range spec.Programs {
		for i := range p.Instructions {
			if m, ok := p.Instructions[i].Map().(*ebpf.Map); ok && m.Type() == ebpf.RingBuf {
				return uint64(m.MaxEntries())
			}
		}
	}
	return 0
}

// dropUnused takes maps out that no program names.
func dropUnused(spec *ebpf.CollectionSpec) {
	used := map[string]bool{}
	for _, p := range spec.Programs {
		for i := range p.Instructions {
			if name := p.Instructions[i].Reference(); name != "" {
				used[name] = true
			}
		}
	}
	for name := range spec.Maps {
		if !used[name] {
			delete(spec.Maps, name)
		}
	}
}

// chainFor returns the chain for programs of a type.
func (h *hooks) chainFor(pc *tracer.ProbeContext, t ebpf.ProgramType) (c *chain, err error) {
	at := &h.raw
	if t == ebpf.Kprobe {
		at = &h.probe
	}
	if *at == nil {
		*at, err = newChain(pc, t)
	}
	return *at, err
}

// set gives a constant its value.
func set(spec *ebpf.CollectionSpec, name string, value any) error {
	v, ok := spec.Variables[name]
	if !ok {
		return fmt.Errorf("BUG: no constant %s", name)
	}
	if err := v.Set(value); err != nil {
		return fmt.Errorf("set %s: %w", name, err)
	}
	return nil
}

// constants sets those that all groups have.
func (h *hooks) constants(pc *tracer.ProbeContext, spec *ebpf.CollectionSpec) error {
	theirs, err := pc.CollectionSpecWith(nil, nil, nil)
	if err != nil {
		return err
	}
	for name, v := range theirs.Variables {
		if ours, ok := spec.Variables[name]; ok {
			ours.Value = slices.Clone(v.Value)
		}
	}
	values := map[string]any{
		"origins": h.ids, "interval_ns": uint64(1e9 / h.o.Rate), "wait_unit_ns": uint64(h.o.Wait),
		"user_lock_ns": uint64(h.o.LeastUserLock), "file_ns": uint64(h.o.LeastFile),
		"kernel_lock_ns": uint64(h.o.LeastKernelLock), "kernel_lock_unit_ns": uint64(h.o.KernelLock),
		"virtual_unit": uint64(h.o.VirtualUnit), "page_shift": uint32(pageShift()),
		"page_every": uint32(h.o.PageEvery), "page_first": rand.Uint32N(uint32(h.o.PageEvery)),
		"wants_file_bytes": h.o.wants(profile.FileBytes),
	}
	for name, v := range values {
		if err := set(spec, name, v); err != nil {
			return err
		}
	}
	return nil
}

func pageShift() (n int) {
	for size := os.Getpagesize(); size > 1; size >>= 1 {
		n++
	}
	return n
}

// share makes the maps that the groups have in common.
func (h *hooks) share(spec *ebpf.CollectionSpec) error {
	for _, name := range []string{cpusMap, endsMap} {
		if h.shared[name] != nil {
			continue
		}
		m, err := ebpf.NewMap(spec.Maps[name])
		if err != nil {
			return fmt.Errorf("make the map %s: %w", name, err)
		}
		h.shared[name] = m
	}
	if h.joins == nil {
		var err error
		if h.joins, err = newJoins(h.o, h.shared[endsMap]); err != nil {
			return err
		}
	}
	return nil
}

func (h *hooks) sharedOf(spec *ebpf.CollectionSpec) map[string]*ebpf.Map {
	out := map[string]*ebpf.Map{}
	for name, m := range h.shared {
		if _, ok := spec.Maps[name]; ok {
			out[name] = m
		}
	}
	return out
}

// collection is one that is closed without an error.
type collection struct{ *ebpf.Collection }

// Close closes it.
func (c collection) Close() error {
	c.Collection.Close()
	return nil
}

func (h *hooks) close() {
	for _, l := range h.open {
		l.Close()
	}
	h.open = nil
	h.joins.close()
	for _, m := range h.shared {
		m.Close()
	}
	h.raw.close()
	h.probe.close()
}

// attachHooks loads and attaches what takes the other types.
func (e *Engine) attachHooks(ctx context.Context) error {
	h := e.hooks
	if err := e.tracer.Enable(ctx, h); err != nil {
		return fmt.Errorf("take stacks of other types: %w", err)
	}
	if h.blind != nil {
		e.o.Log.Warn("a program that another replaces at the same address is taken for that one", "because", reason(h.blind))
	}
	h.o.Account.setTypes(h.status)
	h.kernel, h.o.KernelTypes = nil, nil // 20 MB that only a start needs
	e.o.Entries.KernelTypes, e.report.o.Entries.KernelTypes = nil, nil
	return nil
}

// tickEvery is how often ends are read, whose buffer has room for 6,000, and
// lossesEvery how often losses are when there are none.
const tickEvery, lossesEvery = 500 * time.Millisecond, 5 * time.Second

// ticker tells when tick is due: never, if there is nothing to read.
func (h *hooks) ticker() (tick <-chan time.Time, stop func()) {
	if h.joins == nil {
		return nil, func() {}
	}
	every := lossesEvery
	if h.ids[blockRequest] != 0 || h.ids[inUse] != 0 {
		every = tickEvery
	}
	t := time.NewTicker(every)
	return t.C, t.Stop
}

// tick reads ends and losses, and gives out what is complete.
func (h *hooks) tick(now time.Time, f func(kind, *signal.StackSample, int64)) error {
	if err := h.joins.read(now); err != nil {
		return err
	}
	h.joins.emit(now, false, f)
	return h.account()
}

// finish does so for the last time; what is in use is given out, too.
func (h *hooks) finish(f func(kind, *signal.StackSample, int64)) {
	if h.joins == nil {
		return
	}
	now := time.Now()
	if h.joins.read(now) == nil {
		h.joins.emit(now, true, f)
	}
	if err := h.account(); err != nil {
		return // nobody is left to be told
	}
}
