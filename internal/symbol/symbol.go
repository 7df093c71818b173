// Package symbol turns raw addresses into frames with names: of the kernel
// through kallsyms, of a process through its memory map and the symbol tables
// of the files that it maps.
//
// Names come from, in this order: a Go binary's function table (also when it
// is stripped), .symtab, that of the file of debug symbols that a build id or
// .gnu_debuglink leads to, .gnu_debugdata and .dynsym; for code that a runtime
// compiled, from the perf-PID.map that the runtime wrote; for the vDSO, from the
// vDSO. Where DWARF is there, inlined calls are frames of their own and frames
// have their source line. C++ and Rust names are demangled. A frame without a
// name says what it is (module, build id and offset in the file) and why it has
// none.
//
// What a process maps is remembered, and a file's symbols are kept by the
// file's identity, so the stack of a process that has just ended is named if
// the process was seen before: see [Resolver.Remember].
//
// The files belong to the processes watched and may be hostile, and the file
// systems below them may hang. So every size is bounded, nothing but regular
// files is opened, and files are read by helpers that a caller waits for only
// so long.
package symbol

import (
	"strings"
	"sync/atomic"
	"time"

	"huatuo/internal/kern/ksym"
	"huatuo/internal/signal"
)

// Unknown is the Function of a frame without a name.
const Unknown = "[unknown]"

// Options bound a Resolver. The zero value is a good one.
type Options struct {
	Kernel *ksym.Symbols // shared with others if they have one; nil: an own one
	Proc   string        // empty: /proc

	// CacheBytes bounds the symbols and process maps that are kept; 0: 32 MiB.
	// One table costs 1 MB per 20,000 functions or so: libc 0.2 MB, node 10 MB.
	CacheBytes int64
	// FileBytes bounds the table of one file; 0, or more than a half of
	// CacheBytes: that half.
	FileBytes int64
	// LineBytes bounds the source lines and inlined calls that are kept, of the
	// parts of programs that were seen in stacks; 0: a quarter of CacheBytes.
	LineBytes int64
	// DebugBytes bounds the DWARF of a file whose lines are read, which is in
	// memory for that long, one file at a time; 0: 64 MiB. A larger one has no
	// lines; its functions have names all the same.
	DebugBytes int64
	// Fetch gets the debug symbols of stripped files from servers; nil: off.
	Fetch *Fetcher
	// Count counts frames; Resolvers may share it. nil: one of its own.
	Count *Counters

	// Wait is how long User may wait for maps and files that are not in the
	// cache; 0: 100 ms, enough for nearly all files at first sight. A frame
	// that is not ready then says so, and the next one of the same file is.
	Wait time.Duration
}

// Resolver names addresses. Its methods may be called at once from several
// goroutines.
type Resolver struct {
	proc      string
	wait      time.Duration
	fileBytes int64
	kernel    *ksym.Symbols

	objects   *objects
	lines     *lines
	fetch     *Fetcher // nil: off
	processes *processes
	names     *names
	vdso      vdso
	urgent    *crew // works for callers that wait
	idle      *crew // works for Remember
	count     *Counters
	improved  atomic.Uint64
}

// New returns a Resolver. It reads nothing yet.
func New(o Options) *Resolver {
	if o.Proc == "" {
		o.Proc = "/proc"
	}
	if o.Kernel == nil {
		o.Kernel = ksym.New(o.Proc)
	}
	if o.CacheBytes <= 0 {
		o.CacheBytes = 32 << 20
	}
	objects := o.CacheBytes * 3 / 4
	if o.FileBytes <= 0 || o.FileBytes > o.CacheBytes/2 {
		o.FileBytes = o.CacheBytes / 2
	}
	if o.LineBytes <= 0 {
		o.LineBytes = o.CacheBytes / 4
	}
	if o.DebugBytes <= 0 {
		o.DebugBytes = 64 << 20
	}
	if o.Count == nil {
		o.Count = new(Counters)
	}
	if o.Wait <= 0 {
		o.Wait = 100 * time.Millisecond
	}
	return &Resolver{
		proc: o.Proc, wait: o.Wait, fileBytes: o.FileBytes, kernel: o.Kernel,
		objects:   newObjects(objects),
		lines:     newLines(o.LineBytes, o.DebugBytes),
		fetch:     o.Fetch,
		count:     o.Count,
		processes: newProcesses(o.CacheBytes - objects),
		names:     newNames(),
		urgent:    newCrew(2, 256), // two: the cores of the smallest host that is worth it
		idle:      newCrew(1, 256),
	}
}

// Kernel names the addresses of a kernel stack, innermost first, as BPF hands
// them over. The frames of the hook that took the stack are left out.
func (r *Resolver) Kernel(ips []uint64) []signal.Frame {
	if len(ips) == 0 {
		return nil
	}
	err := r.kernel.Load()
	frames := make([]signal.Frame, len(ips))
	for i, ip := range ips {
		sym, ok := r.kernel.Lookup(callSite(i, ip))
		switch {
		case ok:
			frames[i] = signal.Frame{Function: r.names.show(sym.Name), Module: r.names.show(sym.Module)}
			r.count.name()
		case err != nil:
			frames[i] = r.unknown(kernelUnreadable)
		default:
			frames[i] = r.unknown(kernelUnmapped)
		}
	}
	return frames[hookFrames(frames):]
}

// Function names the kernel function at an address, "" when none is known. The
// name does not hold on to the table that it comes from.
func (r *Resolver) Function(ip uint64) string {
	sym, _ := r.kernel.Lookup(ip)
	return r.names.plain(sym.Name)
}

// callSite returns the address to look up for entry i of a stack. All but the
// innermost are return addresses, which point behind the call: after a call
// that never returns, that is the next function already.
func callSite(i int, ip uint64) uint64 {
	if i > 0 && ip > 0 {
		return ip - 1
	}
	return ip
}

// hookFrames returns how many frames on top of a kernel stack are those of a
// BPF program and of the tracepoint that ran it. A program on top of something
// else, as in a CPU sample, is part of the stack.
func hookFrames(frames []signal.Frame) int {
	n := 0
	for n < len(frames) && (frames[n].Module == "bpf" || strings.HasPrefix(frames[n].Function, "bpf_get_stack")) {
		n++
	}
	programs := n
	for n < len(frames) && isHook(frames[n].Function) {
		n++
	}
	if n == programs || n == len(frames) {
		return 0
	}
	return n
}

func isHook(function string) bool {
	for _, p := range [...]string{
		"bpf_trace_run", "__bpf_trace_", "__traceiter_", "trace_call_bpf", "perf_trace_", "bpf_trampoline_",
		"perf_syscall_enter", "perf_syscall_exit", "perf_call_bpf_", "kprobe_perf_func", "kretprobe_perf_func",
		"kprobe_dispatcher", "kretprobe_dispatcher", "kprobe_ftrace_handler", "__probestub_",
	} {
		if strings.HasPrefix(function, p) {
			return true
		}
	}
	return false
}

// User names the addresses of a user stack, innermost first, of the process
// with the given id in the host's pid namespace. start is its start time as
// /proc/PID/stat has it (field 22, clock ticks since boot), which tells it from
// an earlier or later process of the same id; 0 if it is not known.
func (r *Resolver) User(pid uint32, start uint64, ips []uint64) []signal.Frame {
	if len(ips) == 0 {
		return nil
	}
	frames := make([]signal.Frame, 0, len(ips))
	w := patience{limit: r.wait}
	defer w.stop()
	p, s, why := r.space(pid, start, ips, &w)
	if s == nil {
		for range ips {
			frames = append(frames, r.unknown(why))
		}
		return frames
	}
	ready := r.prepare(p, s, ips, &w)
	for i, ip := range ips {
		frames = r.frame(frames, p, s, callSite(i, ip), ready, &w)
	}
	return frames
}

// frame appends what stands at one address of a process whose files are ready:
// one frame, and one for each call that was inlined there.
func (r *Resolver) frame(frames []signal.Frame, p *process, s *space, pc uint64, ready map[*image]result, w *patience) []signal.Frame {
	m := s.find(pc)
	if m == nil {
		return append(frames, r.unknown(unmapped))
	}
	if m.image.kind.compiled() {
		return append(frames, r.compiled(p, m, pc))
	}
	f := signal.Frame{Function: Unknown, Module: m.image.module(), Offset: pc - m.start + m.offset}
	res := ready[m.image]
	if res.object == nil {
		return append(frames, r.missing(f, res.why))
	}
	vaddr, ok := res.object.vaddr(f.Offset)
	if !ok {
		return append(frames, r.missing(f, unmapped))
	}
	var calls []call
	if res.object.lines != nowhere {
		open := r.opener(p, m)
		var t *ticket
		calls, t, _ = r.calls(res.object, res.key, vaddr, open)
		for n := 0; t != nil && n < 2 && w.await(t.done); n++ { // the index, then the unit
			calls, t, _ = r.calls(res.object, res.key, vaddr, open)
		}
	}
	return r.named(frames, f, res.object, vaddr, calls)
}

// named appends the frames of a linked address, all with the module of f. f is
// the frame when the address has no name.
func (r *Resolver) named(frames []signal.Frame, f signal.Frame, obj *object, vaddr uint64, calls []call) []signal.Frame {
	name, file, line, ok := obj.find(vaddr)
	if len(calls) == 0 {
		calls = append(make([]call, 0, 1), call{file: file, line: line})
	}
	for _, c := range calls {
		if c.name == "" { // the outermost
			if !ok {
				f.Offset, f.BuildID = vaddr, obj.buildID
				return append(frames, r.missing(f, obj.why))
			}
			c.name = name
		}
		r.count.name()
		frames = append(frames, signal.Frame{Function: r.names.show(c.name), Module: f.Module, File: r.names.plain(c.file), Line: c.line})
	}
	return frames
}

// compiled names an address in memory that no file backs.
func (r *Resolver) compiled(p *process, m *mapping, pc uint64) signal.Frame {
	f := signal.Frame{Function: Unknown, Module: m.image.module()}
	name, why := p.perf.find(pc)
	if why != named {
		return r.missing(f, why)
	}
	r.count.name()
	f.Function = r.names.plain(name)
	if m.image.kind == anonymous {
		f.Module = "[jit]"
	}
	return f
}

func (r *Resolver) unknown(why reason) signal.Frame {
	return r.missing(signal.Frame{Function: Unknown}, why)
}

func (r *Resolver) missing(f signal.Frame, why reason) signal.Frame {
	r.count.miss(why)
	f.Missing = why.String()
	return f
}
