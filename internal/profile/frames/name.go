package frames

import (
	"bytes"
	"fmt"
	"hash/maphash"
	"os"
	"path"
	"strconv"
	"strings"
	"time"

	"huatuo/internal/profile"
	"huatuo/internal/signal"
	"huatuo/internal/symbol"
)

const (
	// maxStacks is how many different stacks are kept with their names, in each
	// of two generations, of some 2 KB each.
	maxStacks = 2048
	// stackAge is for how long the addresses of a process are believed to have
	// the names that they had: a library may be unloaded, and a runtime writes
	// its code anew.
	stackAge = 30 * time.Second
	// unnamedAge is the same for one with a frame that has no name: it may get
	// one, since files are read and other files give way to them.
	unnamedAge = 2 * time.Second
	// sharedAge is for how long a stack that nobody has any more is kept.
	sharedAge = 10 * time.Minute
	// maxProcs is the same for processes, whose id another may have after procAge.
	maxProcs = 4096
	procAge  = time.Second
	// patience is how long a sample waits for the names of a file that is being
	// read, as with the unwinder.
	patience = 3 * time.Second
	maxLate  = 4096
	// again is how often those that wait are looked at, and atOnce for how long.
	again  = 500 * time.Millisecond
	atOnce = 100 * time.Millisecond
	// lastNames is how long what is on its way at the end is named: an agent has
	// five seconds to stop.
	lastNames = time.Second
)

// namer turns samples of addresses into samples of names. All of it belongs to
// one goroutine.
type namer struct {
	o      Options
	mono   func(uint64) time.Time
	now    func() time.Time
	deep   int // frames after which the kernel cuts a stack off
	seed   [2]maphash.Seed
	procs  *cache[uint32, process]
	known  *cache[key, named]         // by addresses
	shared *cache[key, *signal.Stack] // by names
	late   []lateSample               // oldest first
}

// key stands for a stack; two hashes of unlike seeds do not collide.
type key [2]uint64

// named is a stack of some addresses, and until when they are believed to have it.
type named struct {
	stack *signal.Stack
	until time.Time
}

// process is who has a pid.
type process struct {
	start uint64 // 0: it had ended when it was first seen
	exe   string
	at    time.Time
}

// lateSample is one whose names are not there yet.
type lateSample struct {
	sample
	process
	since time.Time
}

func newNamer(o Options, mono func(uint64) time.Time) *namer {
	return &namer{
		o: o, mono: mono, now: time.Now, deep: maxDepth(o.Proc),
		seed:   [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()},
		procs:  newCache[uint32, process](maxProcs, sharedAge),
		known:  newCache[key, named](maxStacks, stackAge),
		shared: newCache[key, *signal.Stack](maxStacks, sharedAge),
	}
}

// maxDepth is how deep the kernel walks.
func maxDepth(proc string) int {
	b, err := os.ReadFile(proc + "/sys/kernel/perf_event_max_stack")
	if err != nil {
		return most
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || n <= 0 {
		return most
	}
	return min(n, most)
}

// loop names what comes until done is closed, and then what is still on its way
// as far as time allows. It returns how many samples were left over.
func (n *namer) loop(in <-chan sample, done <-chan struct{}) (left int) {
	t := time.NewTimer(again) // runs while samples wait: an idle host is not woken for none
	defer t.Stop()
	for runs := true; ; {
		if !runs && len(n.late) > 0 {
			t.Reset(again)
			runs = true
		}
		select {
		case s := <-in:
			n.take(s)
		case <-t.C:
			n.again(patience)
			runs = false
		case <-done:
			end := time.Now().Add(lastNames)
			for len(in) > 0 && time.Now().Before(end) {
				n.take(<-in)
			}
			for len(n.late) > 0 && time.Now().Before(end) {
				time.Sleep(20 * time.Millisecond)
				n.again(time.Until(end) / 2)
			}
			return len(in) + len(n.late)
		}
	}
}

// take names a sample and hands it on, or has it wait.
func (n *namer) take(s sample) {
	p := n.process(s.pid)
	if n.o.Want != nil && !n.o.Want(n.sample(&s, &p, nil)) {
		return
	}
	stack, final := n.stack(&s, &p)
	if !final && len(n.late) < maxLate {
		n.late = append(n.late, lateSample{s, p, n.now()})
		return
	}
	n.emit(&s, &p, stack)
}

// again looks at those that wait: for some time only, since each that has to
// wait once more may take a while.
func (n *namer) again(longest time.Duration) {
	began := n.now()
	kept := n.late[:0]
	for i := range n.late {
		l := &n.late[i]
		now := n.now()
		old := now.Sub(l.since) >= longest
		if now.Sub(began) > atOnce && !old {
			kept = append(kept, *l)
			continue
		}
		stack, final := n.stack(&l.sample, &l.process)
		if !final && !old {
			kept = append(kept, *l)
			continue
		}
		n.emit(&l.sample, &l.process, stack)
	}
	clear(n.late[len(kept):])
	n.late = kept
}

func (n *namer) emit(s *sample, p *process, stack *signal.Stack) {
	if len(stack.Frames) == 0 {
		stack = &signal.Stack{Frames: []signal.Frame{{Function: symbol.Unknown, Missing: "neither stack could be walked"}}}
	}
	n.o.Emit(n.sample(s, p, stack))
}

func (n *namer) sample(s *sample, p *process, stack *signal.Stack) *signal.StackSample {
	at := n.mono(s.mono)
	return &signal.StackSample{
		Type: profile.CPU, Time: at, CPU: s.cpu, PID: s.pid, TID: s.tid, Thread: s.comm, Exe: p.exe,
		Value: int64(time.Second) / int64(n.o.Rate.At(at)), Stack: stack,
	}
}

// process tells who has a pid: who had it last, when nobody has it now.
func (n *namer) process(pid uint32) process {
	now := n.now()
	old, ok := n.procs.keep(pid, now)
	if ok && now.Sub(old.at) < procAge {
		return old
	}
	dir := fmt.Sprintf("%s/%d/", n.o.Proc, pid)
	p := old
	if start := startTime(dir); start != 0 {
		exe, _ := os.Readlink(dir + "exe") // of a kernel thread there is none
		p = process{start: start, exe: strings.TrimSuffix(exe, " (deleted)")}
	}
	p.at = now
	n.procs.put(pid, p, now)
	return p
}

// startTime reads when a process began, in clock ticks since boot; 0 when there
// is none.
func startTime(dir string) uint64 {
	b, err := os.ReadFile(dir + "stat")
	if err != nil {
		return 0
	}
	const field = 22 - 3 // the name, field 2, may hold blanks and parentheses
	f := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(f) <= field {
		return 0
	}
	start, err := strconv.ParseUint(string(f[field]), 10, 64)
	if err != nil {
		return 0
	}
	return start
}

// stack names the addresses of a sample; final is false when some names are not
// there yet.
func (n *namer) stack(s *sample, p *process) (stack *signal.Stack, final bool) {
	now := n.now()
	k := n.addresses(s, p)
	old, ok := n.known.get(k)
	if ok && now.Before(old.until) {
		return old.stack, true
	}
	stack, final = n.name(s, p)
	if ok && unnamed(stack) > unnamed(old.stack) { // the file's symbols had to go for others
		stack, final = old.stack, true
	}
	if !final {
		return stack, false
	}
	x := named{n.share(stack, now), now.Add(stackAge)}
	if unnamed(stack) > 0 || ok && stack == old.stack {
		x.until = now.Add(unnamedAge)
	}
	n.known.put(k, x, now)
	return x.stack, true
}

// unnamed is how many frames have no name.
func unnamed(s *signal.Stack) (n int) {
	for i := range s.Frames {
		if s.Frames[i].Function == symbol.Unknown {
			n++
		}
	}
	return n
}

// name names frames.
func (n *namer) name(s *sample, p *process) (stack *signal.Stack, final bool) {
	stack = &signal.Stack{Frames: n.o.Symbols.Kernel(s.kernel)}
	stack.Kernel = len(stack.Frames)
	final = true
	if len(s.user) > 0 {
		var user []signal.Frame
		user, final = n.user(s, p)
		whole := code(user)
		stack.Frames = append(stack.Frames, whole...)
		stack.Truncated = len(whole) < len(user) || !beginsThread(whole)
	}
	stack.Truncated = stack.Truncated || len(s.kernel) >= n.deep || len(s.user) >= n.deep
	if stack.Truncated {
		stack.Frames = append(stack.Frames, signal.Frame{Function: truncated})
	}
	return stack, final
}

// truncated is the root of stacks whose outer frames are missing, as with the
// unwinder.
const truncated = "[truncated]"

// code is a stack without the outermost entries that are no code: where frame
// pointers end, the register may hold anything.
func code(user []signal.Frame) []signal.Frame {
	n := len(user)
	for n > 1 && user[0].Module != "" && user[n-1].Module == "" && user[n-1].Function == symbol.Unknown {
		n--
	}
	return user[:n]
}

// beginsThread tells whether the outermost frame is one that threads begin with.
// Of libc's there may be no name: its callers keep none.
func beginsThread(user []signal.Frame) bool {
	f := &user[len(user)-1]
	switch name := strings.TrimLeft(f.Function, "_"); {
	case f.Function == symbol.Unknown:
		return len(user) > 1 && isLibc(f.Module) && !isLibc(user[len(user)-2].Module)
	case name == "start", name == "start_thread", name == "clone", name == "clone3", name == "main",
		strings.HasPrefix(name, "libc_start_"), // _main, _call_main
		name == "runtime.goexit", strings.HasPrefix(name, "runtime.goexit."), strings.HasPrefix(name, "runtime.mstart"),
		strings.HasPrefix(name, "runtime.rt0_go"), name == "runtime.main", name == "runtime.mcall", name == "runtime.systemstack",
		name == "runtime.morestack":
		return true
	}
	return false
}

// isLibc tells libc and the thread library, which was one of its own before glibc 2.34.
func isLibc(module string) bool {
	b := path.Base(module)
	return strings.HasPrefix(b, "libc.so") || strings.HasPrefix(b, "libc-") || strings.HasPrefix(b, "libpthread") || strings.HasPrefix(b, "ld-musl")
}

// addresses is the key of a stack by addresses, which mean something in one
// process only.
func (n *namer) addresses(s *sample, p *process) (k key) {
	for i := range k {
		var h maphash.Hash
		h.SetSeed(n.seed[i])
		maphash.WriteComparable(&h, [4]uint64{uint64(s.pid), p.start, uint64(len(s.kernel)), uint64(len(s.user))})
		maphash.WriteComparable(&h, p.exe) // it may run another program now
		for _, ip := range s.kernel {
			maphash.WriteComparable(&h, ip)
		}
		for _, ip := range s.user {
			maphash.WriteComparable(&h, ip)
		}
		k[i] = h.Sum64()
	}
	return k
}

// share returns the stack that has the same names already, if there is one.
func (n *namer) share(s *signal.Stack, now time.Time) *signal.Stack {
	var k key
	for i := range k {
		var h maphash.Hash
		h.SetSeed(n.seed[i])
		maphash.WriteComparable(&h, [2]int{s.Kernel, len(s.Frames)})
		for _, f := range s.Frames {
			maphash.WriteComparable(&h, f)
		}
		k[i] = h.Sum64()
	}
	if same, ok := n.shared.keep(k, now); ok {
		return same
	}
	n.shared.put(k, s, now)
	return s
}
