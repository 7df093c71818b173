//go:build !noprofiler

package engine

import (
	"strings"

	"huatuo/internal/profile"
	"huatuo/internal/signal"
)

// kind is what a program says that a stack is of: enum kind of bpf/take.h.
type kind int

const (
	blocked kind = iota
	runQueue
	diskWait
	idle
	futexLock
	futexOther
	blockedFile
	diskFile
	kernelLock
	blockRequest
	virtual
	inUse
	kinds

	onCPU = kind(-1)
	fault = kind(-2)
	// What the hardware counts.
	cycles       = kind(-3)
	instructions = kind(-4)
	cacheMisses  = kind(-5)
	tlbMisses    = kind(-6)
)

const kindSlots = 16 // KINDS

// types of a kind. Of futexOther its stack tells, see typesOf.
func (k kind) types() []*signal.ProfileType {
	switch k {
	case onCPU:
		return []*signal.ProfileType{profile.CPU}
	case fault:
		return []*signal.ProfileType{profile.Fault}
	case cycles:
		return []*signal.ProfileType{profile.Cycles}
	case instructions:
		return []*signal.ProfileType{profile.Instructions}
	case cacheMisses:
		return []*signal.ProfileType{profile.CacheMisses}
	case tlbMisses:
		return []*signal.ProfileType{profile.TLBMisses}
	case blocked:
		return []*signal.ProfileType{profile.Blocked}
	case runQueue:
		return []*signal.ProfileType{profile.RunQueue}
	case diskWait:
		return []*signal.ProfileType{profile.IO}
	case idle:
		return []*signal.ProfileType{profile.Idle}
	case futexLock:
		return []*signal.ProfileType{profile.UserLock, profile.Blocked}
	case futexOther:
		return []*signal.ProfileType{profile.UserLock, profile.Blocked, profile.Idle}
	case blockedFile:
		return []*signal.ProfileType{profile.FileIO, profile.Blocked}
	case diskFile:
		return []*signal.ProfileType{profile.FileIO, profile.IO}
	case kernelLock:
		return []*signal.ProfileType{profile.KernelLock}
	case blockRequest:
		return []*signal.ProfileType{profile.BlockIO}
	case virtual:
		return []*signal.ProfileType{profile.Virtual}
	case inUse:
		return []*signal.ProfileType{profile.InUse}
	}
	return nil
}

// isWait tells whether the stack ends in the scheduler.
func (k kind) isWait() bool { return k >= blocked && k <= diskFile }

// isJoined tells whether the value comes later, under a number.
func (k kind) isJoined() bool { return k == blockRequest || k == inUse }

// typesOf are the types of a sample: what a thread waits for in a futex that
// does not say that it is a lock is known by the functions that wait. What is
// not known there is a condition variable or the like, which is waited for when
// there is nothing to do.
func typesOf(k kind, s *signal.Stack) []*signal.ProfileType {
	if k != futexOther {
		return k.types()
	}
	for i := range s.Frames {
		switch f := plain(s.Frames[i].Function); {
		case isParked(f):
			return idle.types()
		case isLock(f):
			return futexLock.types()
		case isJoin(f):
			return blocked.types()
		}
	}
	return idle.types()
}

// plain is a function's name without what the C library puts around it:
// "pthread_mutex_lock" for "___pthread_mutex_lock@@GLIBC_2.2.5".
func plain(function string) string {
	function, _, _ = strings.Cut(function, "@")
	return strings.TrimLeft(strings.TrimPrefix(function, "__GI_"), "_")
}

// isParked tells whether a function is where a thread of a runtime waits for
// something to run. What stands further out is what it ran before.
func isParked(function string) bool {
	switch function {
	case "runtime.stopm", "runtime.findRunnable", "runtime.sysmon":
		return true
	}
	return strings.HasPrefix(function, "ObjectMonitor::wait") ||
		strings.HasPrefix(function, "java.util.concurrent.locks.AbstractQueuedSynchronizer$ConditionObject.await")
}

// isLock tells whether a function waits for a lock, by a futex whose word is not
// that of a plain mutex.
func isLock(function string) bool {
	switch function {
	case "take_gil", "PyThread_acquire_lock_timed", // Python
		"runtime.lock2", // Go
		"lll_lock_wait", "pthread_mutex_lock", "pthread_mutex_timedlock", "pthread_mutex_clocklock":
		return true
	}
	for _, p := range [...]string{
		"pthread_rwlock_",
		"ObjectMonitor::enter", "ObjectMonitor::reenter", "Monitor::lock", "Mutex::lock", // Java
		"java.util.concurrent.locks.AbstractQueuedSynchronizer.acquire",
		"std::sys::sync::mutex", "std::sys::sync::rwlock", "parking_lot::raw_mutex", "parking_lot::raw_rwlock", // Rust
	} {
		if strings.HasPrefix(function, p) {
			return true
		}
	}
	return false
}

// isJoin tells whether a function waits for a thread to end.
func isJoin(function string) bool {
	switch function {
	case "pthread_join", "pthread_timedjoin_np", "pthread_clockjoin_np", "pthread_clockjoin_ex":
		return true
	}
	return false
}

// reasons of losses: enum reason of bpf/take.h.
var reasons = [...]string{"nested", "rate", "full", "unseen", "clash"}

const reasonSlots = 8 // REASONS
