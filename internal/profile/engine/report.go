//go:build !noprofiler

package engine

import (
	"fmt"
	"hash/maphash"
	"math"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
	"unique"

	"go.opentelemetry.io/ebpf-profiler/libpf"
	otel "go.opentelemetry.io/ebpf-profiler/reporter"
	"go.opentelemetry.io/ebpf-profiler/reporter/samples"

	"huatuo/internal/profile"
	"huatuo/internal/signal"
	"huatuo/internal/symbol"
)

const (
	// maxStacks is how many different stacks are kept with their names, in each
	// of two generations. A busy host of two CPUs has some 5,000 in ten minutes.
	maxStacks = 8192
	// maxFrames is the same for single frames of native code.
	maxFrames = 32768
	// maxFiles is the same for executable files.
	maxFiles = 2048
	// patience is how long a sample waits for the names of a file that is being
	// read: as long as all but the largest take on a busy machine.
	patience = 3 * time.Second
	// maxLate bounds the samples that wait.
	maxLate = 8192
)

// reporter turns what the unwinder reports into samples with names. All but
// files belong to the goroutine that handles traces.
type reporter struct {
	o      Options
	hooks  *hooks
	seed   maphash.Seed
	stacks *generations[uint64, stackEntry]
	frames *generations[unique.Handle[libpf.Frame], []signal.Frame] // inlined calls are frames of their own
	better uint64                                                   // symbol.Resolver.Improved of them all

	late []lateSample // oldest first

	mu    sync.Mutex
	files *generations[libpf.FileID, *file]
}

// lateSample is one whose names are not there yet.
type lateSample struct {
	kind   kind
	sample signal.StackSample
	other  int64 // what it is worth in the type beside its own
	frames libpf.Frames
	since  time.Time
}

// stackEntry is a stack that was named, with what it was made from: hashes
// collide.
type stackEntry struct {
	frames libpf.Frames
	isWait bool
	stack  *signal.Stack
}

// file is an executable file that somebody maps.
type file struct {
	path    string // as the process sees it
	program *symbol.Program
}

func newReporter(o Options, h *hooks) *reporter {
	part := 1
	if o.Small {
		part = 16
	}
	return &reporter{
		o: o, hooks: h, seed: maphash.MakeSeed(),
		stacks: newGenerations[uint64, stackEntry](maxStacks / part),
		frames: newGenerations[unique.Handle[libpf.Frame], []signal.Frame](maxFrames / part),
		files:  newGenerations[libpf.FileID, *file](maxFiles / part),
	}
}

// ReportExecutable is called when a file is mapped that the unwinder has not
// seen for a while, from whichever goroutine found it.
func (r *reporter) ReportExecutable(m *otel.ExecutableMetadata) {
	if m.Mapping == nil || m.Process == nil {
		return
	}
	pid := uint32(m.Process.PID())
	path := strings.Clone(m.Mapping.Path) // it is in a buffer of the caller
	at := symbol.Place{PID: pid, Start: m.Mapping.Vaddr, End: m.Mapping.Vaddr + m.Mapping.Length, Path: path}
	id := m.MappingFile.Value().FileID
	r.mu.Lock()
	defer r.mu.Unlock()
	if f, ok := r.files.get(id); ok {
		f.program.Add(at)
		return
	}
	r.files.put(id, &file{path: path, program: r.o.Symbols.Program(m.Mapping.Inode, at)})
}

// ReportTraceEvent is called for each stack, in the goroutine of Run.
func (r *reporter) ReportTraceEvent(t *libpf.Trace, m *samples.TraceEventMeta) error {
	k, typ, scale := r.typeOf(m)
	if typ == nil || len(t.Frames) == 0 {
		return nil
	}
	value, other := m.Value, int64(0)
	if k.isPair() {
		value, other = halves(value)
	}
	value *= scale
	if value <= 0 {
		value = scale
	}
	s := signal.StackSample{
		Type: typ, Time: time.Unix(0, int64(m.Timestamp)), CPU: m.CPU,
		PID: uint32(m.PID), TID: uint32(m.TID), Thread: m.Comm.String(), Exe: m.ExecutablePath.String(), Value: value,
	}
	if r.o.Want != nil && !r.o.Want(&s) {
		return nil
	}
	stack, final := r.stack(t.Frames, k.isWait())
	if !final && len(r.late) < maxLate {
		r.late = append(r.late, lateSample{k, s, other, slices.Clone(t.Frames), time.Now()})
		return nil
	}
	s.Stack = stack
	r.hand(k, &s, other)
	return nil
}

// hand hands a sample on that has its names.
func (r *reporter) hand(k kind, s *signal.StackSample, other int64) {
	if k.isJoined() {
		r.hooks.joins.begin(k, s, time.Now())
		return
	}
	r.emit(k, s, other)
}

// emit gives a sample out, once for each type of its that is wanted; with the
// other value for those beside them.
func (r *reporter) emit(k kind, s *signal.StackSample, other int64) {
	give := func(t *signal.ProfileType, value int64) {
		sample := *s
		sample.Type, sample.Value = t, value
		r.o.Emit(&sample)
	}
	for _, t := range typesOf(k, s.Stack) {
		if k == onCPU || r.hooks.o.wants(t) {
			give(t, s.Value)
		}
		if b := profile.Beside(t); b != nil && r.hooks.o.wants(b) {
			if v := inUnit(k, other); v > 0 {
				give(b, v)
			}
		}
	}
}

// again hands on the samples that have waited for names and have them now, or
// have waited long enough.
func (r *reporter) again(longest time.Duration) {
	kept := r.late[:0]
	for _, l := range r.late {
		stack, final := r.stack(l.frames, l.kind.isWait())
		if !final && time.Since(l.since) < longest {
			kept = append(kept, l)
			continue
		}
		l.sample.Stack = stack
		r.hand(l.kind, &l.sample, l.other)
	}
	clear(r.late[len(kept):])
	r.late = kept
}

// finish hands on all that wait, within a second: the agent has five to stop.
func (r *reporter) finish() {
	for end := time.Now().Add(time.Second); len(r.late) > 0; time.Sleep(20 * time.Millisecond) {
		r.again(time.Until(end))
	}
}

// typeOf returns what kind of sample it is, the first of its types, and what one
// of its values is worth in the type's unit.
func (r *reporter) typeOf(m *samples.TraceEventMeta) (kind, *signal.ProfileType, int64) {
	if m.ProfileType == nil {
		return 0, nil, 0
	}
	if m.ProfileType.SampleType == "samples" { // the library's own: time on a CPU
		return onCPU, profile.CPU, int64(math.Round(1e9 / float64(r.o.Rate.at(time.Unix(0, int64(m.Timestamp))))))
	}
	k, ok := r.hooks.kinds[m.ProfileType]
	switch {
	case !ok:
		return 0, nil, 0
	case k == fault:
		return k, profile.Fault, int64(r.hooks.o.FaultEvery * os.Getpagesize())
	}
	return k, r.hooks.typeOf(k), 1
}

// stack returns the frames with names; final is false when some are still being
// read.
func (r *reporter) stack(frames libpf.Frames, isWait bool) (s *signal.Stack, final bool) {
	var h maphash.Hash
	h.SetSeed(r.seed)
	maphash.WriteComparable(&h, isWait)
	for _, f := range frames {
		maphash.WriteComparable(&h, f)
	}
	key := h.Sum64()
	if n := r.o.Symbols.Improved(); n != r.better { // files were found that tell more
		r.better = n
		r.stacks.clear()
		r.frames.clear()
	}
	if e, ok := r.stacks.get(key); ok && e.isWait == isWait && slices.Equal(e.frames, frames) {
		return e.stack, true
	}
	s, final = r.name(frames, isWait)
	if final {
		r.stacks.put(key, stackEntry{slices.Clone(frames), isWait, s})
	}
	return s, final
}

// name names frames; final is false when some names are not there yet.
func (r *reporter) name(frames libpf.Frames, isWait bool) (s *signal.Stack, final bool) {
	s, final = &signal.Stack{Frames: make([]signal.Frame, 0, len(frames))}, true
	kernel := true
	for _, h := range frames {
		f := h.Value()
		if f.Type != libpf.KernelFrame {
			kernel = false
		}
		out, ok := r.frame(h, &f)
		final = final && ok
		if isTruncation(&f) {
			s.Truncated = true
			out = []signal.Frame{{Function: "[truncated]"}}
		}
		s.Frames = append(s.Frames, out...)
		if kernel {
			s.Kernel = len(s.Frames)
		}
	}
	if n := hookFrames(s.Frames[:s.Kernel], isWait); n > 0 {
		s.Frames = s.Frames[n:]
		s.Kernel -= n
	}
	return s, final
}

// frame names one frame; calls that were inlined in it are frames in front of it.
func (r *reporter) frame(h unique.Handle[libpf.Frame], f *libpf.Frame) ([]signal.Frame, bool) {
	switch {
	case f.Type.IsError():
		return []signal.Frame{{Function: symbol.Unknown, Module: unwinder, Missing: whyNot(f)}}, true
	case f.Type == libpf.NativeFrame && f.FunctionName.String() == "":
		if out, ok := r.frames.get(h); ok {
			return out, true
		}
		out, ok := r.native(f)
		if ok {
			r.frames.put(h, out)
		}
		return out, ok
	}
	out := signal.Frame{
		Function: f.FunctionName.String(), File: f.SourceFile.String(), Line: int(min(f.SourceLine, math.MaxInt32)),
	}
	if f.Type == libpf.KernelFrame {
		out.Module = kernelModule(f)
	} else {
		out.Module = f.Type.String()
	}
	if out.Function == "" {
		out = signal.Frame{Function: symbol.Unknown, Module: out.Module, Missing: "the unwinder does not know"}
	}
	return []signal.Frame{out}, true
}

// native names a frame of compiled code by its file.
func (r *reporter) native(f *libpf.Frame) ([]signal.Frame, bool) {
	if !f.Mapping.Valid() {
		return []signal.Frame{{Function: symbol.Unknown, Missing: "not in a file"}}, true
	}
	m := f.Mapping.Value().File.Value()
	r.mu.Lock()
	known, ok := r.files.get(m.FileID)
	r.mu.Unlock()
	if !ok {
		return []signal.Frame{{
			Function: symbol.Unknown, Module: m.FileName.String(), Offset: uint64(f.AddressOrLineno), Missing: "file not known any more",
		}}, true
	}
	frames, ready := known.program.Find(uint64(f.AddressOrLineno))
	for i := range frames {
		frames[i].Module = known.path
	}
	return frames, ready
}

// unwinder is the module of frames that stand for what it could not do.
const unwinder = "unwinder"

// isTruncation tells whether a frame stands for the outer ones that are missing.
func isTruncation(f *libpf.Frame) bool {
	return f.Type.IsError() && (f.AddressOrLineno == 2 || f.AddressOrLineno == 5) // stack_length_exceeded, max_tail_calls
}

// notKnownYet is why the first samples of a new process have no callers.
const notKnownYet = "the process was not known yet"

// whyNot says what an error frame stands for. The numbers are those of the
// unwinder's tools/errors-codegen/errors.json.
func whyNot(f *libpf.Frame) string {
	n := uint64(f.AddressOrLineno)
	switch n {
	case 4000, 4012, 4019: // native_lookup_text_section, _no_pid_page_mapping, _no_vma
		return notKnownYet
	case 4001, 4002, 4003, 4004, 4005: // of the table of stack deltas
		return "the file's unwind table does not cover it"
	case 4007: // native_pc_read
		return "the stack could not be read"
	case 4016, 4017: // native_aarch64_32bit_compat_mode, _x64_
		return "code of a 32-bit program"
	case 4018: // native_unsupported_mapping
		return "generated code of an unknown runtime"
	}
	return fmt.Sprintf("cannot unwind (%s error %d)", f.Type, n)
}

// kernelModule is the module of a kernel frame, "" for the kernel itself.
func kernelModule(f *libpf.Frame) string {
	if !f.Mapping.Valid() {
		return ""
	}
	if n := f.Mapping.Value().File.Value().FileName.String(); n != "kernel" && n != "vmlinux" && n != "[kernel.kallsyms]" {
		return n
	}
	return ""
}

// hookFrames is how many of the innermost kernel frames are those of the hook that
// took the stack, and of the scheduler when the thread has waited.
func hookFrames(frames []signal.Frame, isWait bool) int {
	n := 0
	for n < len(frames) && (isHook(frames[n].Function) || isWait && isScheduler(frames[n].Function)) {
		n++
	}
	if n == len(frames) {
		return 0
	}
	return n
}

func isHook(function string) bool {
	for _, p := range [...]string{"bpf_trace_run", "__bpf_trace_", "__traceiter_", "bpf_prog_", "bpf_get_stack", "__probestub_", "trace_call_bpf"} {
		if strings.HasPrefix(function, p) {
			return true
		}
	}
	return false
}

// isScheduler tells whether a function is in every stack that ends in the
// scheduler. Those that say what for, as io_schedule, stay.
func isScheduler(function string) bool {
	switch base, _, _ := strings.Cut(function, "."); base {
	case "__schedule", "schedule", "__schedule_loop", "finish_task_switch", "preempt_schedule_common",
		"kprobe_ftrace_handler", "arch_ftrace_ops_list_func", "ftrace_call", "ftrace_regs_call", "kprobe_perf_func", "aggr_pre_handler",
		"opt_pre_handler", "optimized_callback", "kprobe_dispatcher", "kprobe_int3_handler", "exc_int3", "asm_exc_int3":
		return true
	}
	return false
}
