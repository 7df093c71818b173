package engine

import (
	"math/bits"
	"slices"
	"sync"
	"time"

	"github.com/cilium/ebpf/btf"

	"huatuo/internal/profile"
	"huatuo/internal/signal"
)

// Entries says which stacks are taken besides those of the CPUs' clocks.
type Entries struct {
	Types []*signal.ProfileType // CPU time among them means nothing: that is Options.Hertz

	Rate       int           // stacks per second, CPU and kind of event, a quarter of it for parked threads; 0: 50
	Wait       time.Duration // waits off a CPU of that length are all kept, shorter ones in proportion; 0: 20 ms
	KernelLock time.Duration // the same for locks of the kernel; 0: 1 ms

	LeastKernelLock time.Duration // shorter ones are left out; 0: 10 µs
	LeastUserLock   time.Duration // 0: 10 µs
	LeastFile       time.Duration // of one sleep in a system call; 0: 0.5 ms
	LeastBlock      time.Duration // 0: 0.5 ms

	FaultEvery  int           // one page fault in so many; 0: 1000
	VirtualUnit int64         // bytes: requests of that size are all kept; 0: 1 MiB
	PageEvery   int           // one page in so many is followed, rounded up to a power of two; 0: 512
	Stays       time.Duration // memory in use for so long is reported; 0: 30 s
	CountHertz  int           // stacks per second and CPU of each type that the hardware counts; 0: 49

	// KernelTypes are the kernel's BTF; nil: its own.
	KernelTypes *btf.Spec
	// Account, if there is one, is told what is taken and what is lost.
	Account *Account

	events map[*signal.ProfileType][]perfEvent // instead of the hardware's, for tests on machines without
}

// perfEvent is something that perf counts.
type perfEvent struct {
	name   string
	kind   uint32 // the type, as the kernel calls it
	config uint64
}

// most bounds what chances are made of.
const most = 4 * time.Second

// withDefaults fills in what was left out.
func (e Entries) withDefaults() Entries {
	e.Types = slices.DeleteFunc(slices.Clone(e.Types), func(t *signal.ProfileType) bool { return t == profile.CPU })
	or(&e.Rate, 50)
	or(&e.Wait, 20*time.Millisecond)
	or(&e.KernelLock, time.Millisecond)
	or(&e.LeastKernelLock, 10*time.Microsecond)
	or(&e.LeastUserLock, 10*time.Microsecond)
	or(&e.LeastFile, 500*time.Microsecond)
	or(&e.LeastBlock, 500*time.Microsecond)
	or(&e.FaultEvery, 1000)
	or(&e.VirtualUnit, 1<<20)
	or(&e.PageEvery, 512)
	or(&e.Stays, 30*time.Second)
	or(&e.CountHertz, 49)
	// The programs divide sizes below 2^32 by these.
	e.Wait, e.KernelLock, e.VirtualUnit = min(e.Wait, most), min(e.KernelLock, most), min(e.VirtualUnit, int64(most))
	e.PageEvery = 1 << bits.Len(uint(e.PageEvery-1))
	return e
}

func or[T comparable](v *T, otherwise T) {
	var zero T
	if *v == zero {
		*v = otherwise
	}
}

func (e *Entries) wants(t *signal.ProfileType) bool { return slices.Contains(e.Types, t) }

// TypeStatus tells whether stacks of a type are taken.
type TypeStatus struct {
	Type   *signal.ProfileType
	On     bool
	By     string // the hooks, when it is on
	Reason string // when it is not
}

// Loss is how much of a type was dropped for one reason.
type Loss struct {
	Type    *signal.ProfileType
	Reason  string
	Samples uint64
	Value   uint64 // what they would have stood for, in the type's unit, as far as it was known
}

// Account holds what became of each type over all runs that were given it. Its
// methods may be called at any time, from any goroutine.
type Account struct {
	mu     sync.Mutex
	status []TypeStatus
	losses []Loss
}

// Types tells which types the last run takes.
func (a *Account) Types() []TypeStatus {
	if a == nil {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.status)
}

// Losses tells what was dropped since the account was made. Samples that were
// lost on the way out of the kernel are Lost's.
func (a *Account) Losses() []Loss {
	if a == nil {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.losses)
}

func (a *Account) setTypes(s []TypeStatus) {
	if a == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.status = s
}

// add counts losses.
func (a *Account) add(l Loss) {
	if a == nil || l.Samples == 0 {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for i := range a.losses {
		if have := &a.losses[i]; have.Type == l.Type && have.Reason == l.Reason {
			have.Samples += l.Samples
			have.Value += l.Value
			return
		}
	}
	a.losses = append(a.losses, l)
}
