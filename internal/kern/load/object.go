package load

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
)

// Hook is one place in the kernel that an object wants to see, and the
// programs that can see it, best first. The first that the kernel takes is
// used.
type Hook struct {
	Name     string   // of the tracepoint or function
	Programs []string // names of programs in the object
	Optional bool     // the object is useful without it
}

// TP is the Hook of a tracepoint for which the object has the two programs
// that HT_TP (bpf/include/hook.h) makes.
func TP(name string) Hook {
	return Hook{Name: name, Programs: []string{name + "_btf", name + "_raw"}}
}

// OrElse returns h with further programs to try after its own.
func (h Hook) OrElse(programs ...string) Hook {
	h.Programs = append(append([]string(nil), h.Programs...), programs...)
	return h
}

// Maybe returns h as an optional hook.
func (h Hook) Maybe() Hook {
	h.Optional = true
	return h
}

// Object is a loaded and attached BPF object.
type Object struct {
	mu     sync.RWMutex // held for reading by what Guard made, for writing by Close
	closed bool

	maps   map[string]*ebpf.Map
	progs  []*ebpf.Program
	links  []link.Link
	iterMu sync.Mutex
	iters  map[string]*link.Iter // by hook
	hooks  []HookState
}

// Loader loads one object in steps: New, constants and map sizes through
// Spec, then Attach.
type Loader struct {
	Spec   *ebpf.CollectionSpec
	kernel *Kernel
}

// New prepares spec, which it may change, for this kernel.
func (k *Kernel) New(spec *ebpf.CollectionSpec) (*Loader, error) {
	if k == nil {
		return nil, errors.New("BUG: a probe that loads BPF got no kernel")
	}
	l := &Loader{Spec: spec, kernel: k}
	if err := l.Set("ht_use_ring", k.ring); err != nil {
		return nil, err
	}
	if err := l.Set("ht_cgroup_subsys", k.subsys); err != nil {
		return nil, err
	}
	if m := spec.Maps["ht_events"]; m != nil && m.Type == ebpf.RingBuf && k.ring {
		m.MaxEntries = max(m.MaxEntries, ringBytes(runtime.NumCPU()))
	}
	if m := spec.Maps["ht_events"]; m != nil && m.Type == ebpf.RingBuf && !k.ring {
		m.Type, m.MaxEntries, m.KeySize, m.ValueSize = ebpf.PerfEventArray, 0, 4, 4
		m.Key, m.Value = nil, nil
	}
	return l, nil
}

// Set gives a constant of the object (a `const volatile` variable) its value.
// A constant that the object does not have is not an error: the compiler may
// have removed it.
func (l *Loader) Set(name string, v any) error {
	c := l.Spec.Variables[name]
	if c == nil {
		return nil
	}
	if err := c.Set(v); err != nil {
		return fmt.Errorf("set constant %s: %w", name, err)
	}
	return nil
}

// Attach makes the maps, then loads and attaches a program for each hook. An
// optional hook that cannot be had is told in Hooks. The error of a hook that
// must be there wraps errors.ErrUnsupported when no program of it suits this
// kernel.
func (l *Loader) Attach(hooks ...Hook) (*Object, error) {
	if err := l.kernel.permitted(); err != nil {
		return nil, err
	}
	o := &Object{}
	if err := InlineConstants(l.Spec); err != nil {
		return nil, err
	}
	if err := l.makeMaps(o); err != nil {
		return nil, err
	}
	for _, h := range hooks {
		st, err := l.attachHook(o, h)
		if err != nil && !h.Optional {
			o.Close()
			return nil, err
		}
		o.hooks = append(o.hooks, st)
	}
	return o, nil
}

func (l *Loader) makeMaps(o *Object) error {
	maps := *l.Spec
	maps.Programs = nil
	c, err := ebpf.NewCollectionWithOptions(&maps, l.options(nil))
	if err != nil {
		return fmt.Errorf("make maps: %w", err)
	}
	defer c.Close()
	o.maps = make(map[string]*ebpf.Map, len(c.Maps))
	for name := range c.Maps {
		o.maps[name] = c.DetachMap(name)
	}
	return nil
}

func (l *Loader) options(maps map[string]*ebpf.Map) ebpf.CollectionOptions {
	types, cache := l.kernel.typesAndCache()
	o := ebpf.CollectionOptions{MapReplacements: maps, Cache: cache}
	o.Programs.KernelTypes = types
	return o
}

// attachHook tries the programs of h in order.
func (l *Loader) attachHook(o *Object, h Hook) (HookState, error) {
	st := HookState{Hook: h.Name}
	var reasons []string
	supported := false
	for _, name := range h.Programs {
		spec := l.Spec.Programs[name]
		if spec == nil && l.kernel.legacy != "" {
			continue // it has those that old kernels know, for each hook that they have
		}
		if spec == nil {
			return st, fmt.Errorf("BUG: no program %s in the object", name)
		}
		x := kindOf(spec)
		if err := l.kernel.supports(x); err != nil {
			reasons = append(reasons, err.Error())
			continue
		}
		p, lnk, err := l.loadAndAttach(o, spec)
		if err != nil {
			supported = supported || !absent(err)
			reasons = append(reasons, x.String()+": "+firstLine(err))
			continue
		}
		o.progs = append(o.progs, p)
		o.links = append(o.links, lnk)
		if it, ok := lnk.(*link.Iter); ok {
			o.addIter(h.Name, it)
		}
		st.By, st.Program = x.String(), name
		if info, err := p.Info(); err == nil {
			if id, ok := info.ID(); ok {
				st.ID = uint32(id)
			}
		}
		st.Reason = strings.Join(reasons, "; ")
		return st, nil
	}
	if len(reasons) == 0 {
		reasons = []string{"the legacy flavour has no program for it"}
	}
	st.Reason = strings.Join(reasons, "; ")
	err := fmt.Errorf("attach %s: %s", h.Name, st.Reason)
	if !supported {
		err = fmt.Errorf("attach %s: %s: %w", h.Name, st.Reason, errors.ErrUnsupported)
	}
	return st, err
}

func (l *Loader) loadAndAttach(o *Object, spec *ebpf.ProgramSpec) (*ebpf.Program, link.Link, error) {
	if l.kernel.Types() == nil && needsTypes(spec) {
		return nil, nil, errNoBTF
	}
	one := *l.Spec
	one.Programs = map[string]*ebpf.ProgramSpec{spec.Name: spec}
	c, err := ebpf.NewCollectionWithOptions(&one, l.options(o.maps))
	if err != nil {
		return nil, nil, fmt.Errorf("load: %w", err)
	}
	defer c.Close()
	p := c.DetachProgram(spec.Name)
	lnk, err := attach(spec, p)
	if err != nil {
		p.Close()
		return nil, nil, fmt.Errorf("attach: %w", err)
	}
	return p, lnk, nil
}

var errNoBTF = errors.New("no BTF: pass --btf with the type information of this kernel")

// needsTypes tells whether a program is relocated by the kernel's types.
func needsTypes(spec *ebpf.ProgramSpec) bool {
	for i := range spec.Instructions {
		if btf.CORERelocationMetadata(&spec.Instructions[i]) != nil {
			return true
		}
	}
	return false
}

// absent tells an error that says "this kernel has no such thing" from one
// that says "the program is wrong" or "not allowed".
func absent(err error) bool {
	return errors.Is(err, errNoBTF) || errors.Is(err, btf.ErrNotFound) || errors.Is(err, ebpf.ErrNotSupported) || isNotExist(err)
}

// Map returns a map of the object by its name in C, nil when there is none.
func (o *Object) Map(name string) *ebpf.Map { return o.maps[name] }

// Hooks tells how each hook was attached.
func (o *Object) Hooks() []HookState { return append([]HookState(nil), o.hooks...) }

// Attached tells whether the named hook works.
func (o *Object) Attached(hook string) bool {
	for _, h := range o.hooks {
		if h.Hook == hook {
			return h.By != ""
		}
	}
	return false
}

// Detach ends all hooks; maps stay readable.
func (o *Object) Detach() {
	o.iterMu.Lock()
	defer o.iterMu.Unlock()
	o.iters = nil
	for _, l := range o.links {
		l.Close()
	}
	o.links = nil
}

// Guard returns a function that calls f while o is open and, once o is closed,
// does nothing: what reads maps at other times than the probe's own goroutine
// goes through it. Close waits for calls that are under way.
func Guard[T any](o *Object, f func(T) error) func(T) error {
	return func(v T) error {
		o.mu.RLock()
		defer o.mu.RUnlock()
		if o.closed {
			return nil
		}
		return f(v)
	}
}

// Close detaches and frees everything.
func (o *Object) Close() {
	o.Detach()
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	for _, p := range o.progs {
		p.Close()
	}
	for _, m := range o.maps {
		m.Close()
	}
	o.progs = nil
}

// ringBytes is the size of a ring for so many CPUs: 32 KiB for each, which is
// what the rate limits let through at once, a power of two, and 1 MiB at most.
func ringBytes(cpus int) uint32 {
	n := uint32(32 * 1024)
	for n < uint32(min(cpus, 32))*32*1024 {
		n *= 2
	}
	return n
}
