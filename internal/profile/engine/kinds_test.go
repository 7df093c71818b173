//go:build !noprofiler

package engine

import (
	"errors"
	"slices"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf/btf"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"huatuo/internal/profile"
	"huatuo/internal/profile/engine/bpf"
	"huatuo/internal/signal"
)

// TestLayout compares what is read from the programs' maps with how they write it.
func TestLayout(t *testing.T) {
	spec, err := bpf.LoadEntries()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := spec.Maps[cpusMap].ValueSize, uint32(unsafe.Sizeof(cpu{})); got != want {
		t.Errorf("struct cpu has %d bytes, read as %d", got, want)
	}
	if kinds > kindSlots || len(reasons) > reasonSlots {
		t.Errorf("%d kinds and %d reasons do not fit", kinds, len(reasons))
	}
	for k := range kinds {
		if len(k.types()) == 0 {
			t.Errorf("kind %d has no type", k)
		}
	}
	if got := spec.Maps["calls"].MaxEntries; got != callSlots {
		t.Errorf("the table of calls has %d entries, filled with %d", got, callSlots)
	}
}

// TestTypes: each type but CPU time is of some kind.
func TestTypes(t *testing.T) {
	have := map[*signal.ProfileType]bool{}
	for k := tlbMisses; k < kinds; k++ {
		for _, typ := range k.all() {
			have[typ] = true
		}
	}
	for _, typ := range Types() {
		if !have[typ] {
			t.Errorf("nothing makes %s", typ.Name)
		}
	}
	for _, typ := range profile.Defaults() {
		if !slices.Contains(Types(), typ) {
			t.Errorf("%s is a default and no type", typ.Name)
		}
	}
}

func TestFutex(t *testing.T) {
	lock, wait, block := futexLock.types(), idle.types(), blocked.types()
	for name, c := range map[string]struct {
		frames []string
		want   []*signal.ProfileType
	}{
		"condition variable": {[]string{"futex_do_wait", "__futex_abstimed_wait_common", "pthread_cond_wait@@GLIBC_2.3.2", "worker"}, wait},
		"nothing known":      {[]string{"futex_do_wait", "[unknown]"}, wait},
		"python's lock":      {[]string{"futex_do_wait", "pthread_cond_timedwait@@GLIBC_2.3.2", "take_gil", "PyEval_RestoreThread"}, lock},
		"read-write lock":    {[]string{"___pthread_rwlock_rdlock@GLIBC_2.2.5", "lookup"}, lock},
		"robust mutex":       {[]string{"__GI___lll_lock_wait", "___pthread_mutex_lock"}, lock},
		"java monitor":       {[]string{"pthread_cond_wait", "PlatformEvent::park", "ObjectMonitor::enter", "Work.locked"}, lock},
		"java notify":        {[]string{"pthread_cond_wait", "PlatformEvent::park", "ObjectMonitor::wait", "ObjectMonitor::enter"}, wait},
		"java lock": {[]string{"Unsafe_Park", "jdk.internal.misc.Unsafe.park",
			"java.util.concurrent.locks.AbstractQueuedSynchronizer.acquire(Node, int)"}, lock},
		"java queue": {[]string{"Unsafe_Park", "java.util.concurrent.locks.AbstractQueuedSynchronizer$ConditionObject.await()",
			"java.util.concurrent.locks.AbstractQueuedSynchronizer.acquire"}, wait},
		"go's idle thread": {[]string{"runtime.futex", "runtime.notesleep", "runtime.stopm", "runtime.lock2"}, wait},
		"go's lock":        {[]string{"runtime.futex", "runtime.futexsleep", "runtime.lock2", "runtime.mallocgc"}, lock},
		"join":             {[]string{"__futex_abstimed_wait_common", "__pthread_clockjoin_ex", "main"}, block},
	} {
		s := &signal.Stack{}
		for _, f := range c.frames {
			s.Frames = append(s.Frames, signal.Frame{Function: f})
		}
		if got := typesOf(futexOther, s); !slices.Equal(got, c.want) {
			t.Errorf("%s: %s, want %s", name, got[0].Name, c.want[0].Name)
		}
	}
	if got := typesOf(diskFile, &signal.Stack{}); len(got) != 2 || got[0] != profile.FileIO || got[1] != profile.IO {
		t.Errorf("a file on a disk: %v", got)
	}
}

// TestCalls: no call is of two classes, and the tables are those of the machine.
func TestCalls(t *testing.T) {
	for arch, classes := range callNumbers {
		seen := map[int]uint32{}
		for _, m := range []map[uint32][]int{commonCalls, classes} {
			for what, numbers := range m {
				for _, n := range numbers {
					if other, ok := seen[n]; ok {
						t.Errorf("%s: call %d is of class %d and of %d", arch, n, other, what)
					}
					seen[n] = what
				}
			}
		}
	}
	table := calls("amd64")
	if unix.SYS_FUTEX == 98 {
		table = calls("arm64")
	}
	for n, want := range map[int]uint32{
		unix.SYS_FUTEX: futexCall, unix.SYS_READ: fdCall, unix.SYS_PWRITE64: fdCall, unix.SYS_FSYNC: fileCall, unix.SYS_OPENAT: fileCall,
		unix.SYS_PPOLL: idleCall, unix.SYS_EPOLL_PWAIT: idleCall, unix.SYS_CLOCK_NANOSLEEP: idleCall, unix.SYS_ACCEPT4: idleCall,
		unix.SYS_EPOLL_PWAIT2: idleCall, unix.SYS_OPENAT2: fileCall, unix.SYS_GETDENTS64: fileCall, unix.SYS_RENAMEAT2: fileCall,
		unix.SYS_RECVFROM: otherCall, unix.SYS_WAITID: otherCall, unix.SYS_MMAP: otherCall,
	} {
		if got := table[n] & callClass; got != want {
			t.Errorf("call %d is of class %d, want %d", n, got, want)
		}
	}
}

func TestJoins(t *testing.T) {
	at := time.Unix(1000, 0)
	after := func(d time.Duration) time.Time { return at.Add(d) }
	type out struct {
		ID    uint32 // the sample's pid here
		Value int64
		Bytes int64
	}
	for name, c := range map[string]struct {
		kind kind
		ends []end
		age  time.Duration
		last bool
		want []out
		left int // that still wait
	}{
		"request":              {blockRequest, []end{{1, 9_000_000, 3_000_000, 0}}, 0, false, []out{{1, 9_000_000, 0}}, 0},
		"bytes of a request":   {blockRequest, []end{{1, 9_000_000, 3_000_000, 4096}}, 0, false, []out{{1, 9_000_000, 4096}}, 0},
		"short request":        {blockRequest, []end{{1, 400_000, 400_000, 0}}, 0, false, nil, 0},
		"request under way":    {blockRequest, nil, time.Minute, false, nil, 1},
		"request without end":  {blockRequest, nil, time.Hour, false, nil, 0},
		"young page":           {inUse, []end{{1, 4096, 0, 0}}, time.Second, false, nil, 1},
		"page that stays":      {inUse, []end{{1, 4096, 0, 0}}, time.Minute, false, []out{{1, 4096, 0}}, 0},
		"page at the end":      {inUse, []end{{1, 4096, 0, 0}}, time.Second, true, []out{{1, 4096, 0}}, 0},
		"page given back":      {inUse, []end{{1, 4096, 0, 0}, {1, 0, 0, 0}}, time.Minute, true, nil, 0},
		"page of unknown size": {inUse, nil, time.Minute, true, nil, 0},
		"of another":           {inUse, []end{{2, 4096, 0, 0}}, time.Second, true, nil, 1},
	} {
		j := &joins{o: Entries{}.withDefaults(), begun: map[uint64]begun{}, ended: map[uint64]ended{}}
		for _, e := range c.ends {
			j.end(e, at)
		}
		j.begin(c.kind, &signal.StackSample{Value: 1, PID: 1}, at)
		var got []out
		j.emit(after(c.age), c.last, func(_ kind, s *signal.StackSample, bytes int64) { got = append(got, out{s.PID, s.Value, bytes}) })
		if d := cmp.Diff(c.want, got); d != "" || len(j.begun) != c.left {
			t.Errorf("%s: %d wait, want %d; samples: %s", name, len(j.begun), c.left, d)
		}
		if j.emit(after(3*time.Hour), false, func(kind, *signal.StackSample, int64) {}); len(j.ended) > 0 {
			t.Errorf("%s: %d ends are kept for ever", name, len(j.ended))
		}
	}
}

func TestAccount(t *testing.T) {
	a := &Account{}
	a.add(Loss{Type: profile.IO, Reason: "rate", Samples: 2, Value: 10})
	a.add(Loss{Type: profile.IO, Reason: "rate", Samples: 1, Value: 5})
	a.add(Loss{Type: profile.IO, Reason: "full", Samples: 1})
	a.add(Loss{Type: profile.IO, Reason: "clash"})
	want := []Loss{{profile.IO, "rate", 3, 15}, {profile.IO, "full", 1, 0}}
	if d := cmp.Diff(want, a.Losses()); d != "" {
		t.Error(d)
	}
	var none *Account
	none.add(want[0])
	if none.setTypes(nil); none.Losses() != nil || none.Types() != nil {
		t.Error("no account has something in it")
	}
}

// TestOff: what a kernel lacks switches off the types that need it, and says so.
func TestOff(t *testing.T) {
	kernel, err := btf.LoadKernelSpec()
	if err != nil {
		t.Skip("needs a kernel with BTF")
	}
	h := newHooks(Entries{Types: []*signal.ProfileType{profile.CPU, profile.KernelLock, profile.InUse}})
	h.kernel = kernel
	h.begin(nil, group{kinds: []kind{kernelLock}, hooks: []hook{{tracepoint: "no_such_tracepoint"}}})
	h.begin(nil, group{kinds: []kind{inUse}, needs: func() error { return errors.New("no pages\nat all") }})
	h.begin(nil, group{kinds: []kind{virtual}, needs: func() error { t.Error("asked for what nobody wants"); return nil }})
	want := []TypeStatus{
		{Type: profile.KernelLock, Reason: "the kernel has no tracepoint no_such_tracepoint"}, {Type: profile.InUse, Reason: "no pages"},
	}
	if d := cmp.Diff(want, h.status); d != "" {
		t.Error(d)
	}
	if err := h.has(hook{tracepoint: "sched_switch", arguments: []int{17}}); err == nil {
		t.Error("a tracepoint with other arguments is taken")
	}
	if err := h.has(hook{tracepoint: "sched_switch", arguments: []int{3, 4}}); err != nil {
		t.Error(err)
	}
}
