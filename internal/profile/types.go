// Package profile says what is profiled, and turns stacks into the forms that
// people and tools read.
package profile

import "huatuo/internal/signal"

// The types of profile. A wait that has several sides has a place in the
// profile of each: one for a lock is in offcpu.blocked and in lock.user.
var (
	CPU = &signal.ProfileType{
		Name: "cpu", Unit: "nanoseconds",
		Help: "Time on a CPU, by sampling each CPU's clock.",
		Read: "The widest frames are where the CPUs' time goes; a wide one with nothing on top does the work itself.",
	}
	Blocked = &signal.ProfileType{
		Name: "offcpu.blocked", Unit: "nanoseconds",
		Help: "Time that threads slept for something that was to come in the middle of their work: a lock, a pipe, an answer, another process.",
		Read: "The widest frames are what requests wait for. Waits of threads that have nothing to do are in offcpu.idle, those for disks in offcpu.io.",
	}
	RunQueue = &signal.ProfileType{
		Name: "offcpu.runqueue", Unit: "nanoseconds",
		Help: "Time that threads could have run and had no CPU.",
		Read: "Who wants more CPU than there is, and what it was about to do: the load is elsewhere, in the cpu profile.",
	}
	IO = &signal.ProfileType{
		Name: "offcpu.io", Unit: "nanoseconds",
		Help: "Time that threads slept for a block device, as the kernel's own I/O wait counts it.",
		Read: "The widest frames are the code that waits for disks, page faults of mapped files included.",
	}
	Idle = &signal.ProfileType{
		Name: "offcpu.idle", Unit: "nanoseconds",
		Help: "Time that threads slept for work or for a clock: epoll, poll, select, accept, nanosleep, signals, condition variables of parked workers.",
		Read: "How many threads wait for work, and where. It is not a loss.",
	}
	UserLockCount = &signal.ProfileType{
		Name: "lock.user.contentions", Unit: "count",
		Help: "How many times threads slept for a program's locks, for as long as lock.user counts.",
		Read: "Many where lock.user has little time is a lock that is held for a short while and wanted too often; few with much time is one that is held too long.",
	}
	KernelLock = &signal.ProfileType{
		Name: "lock.kernel", Unit: "nanoseconds",
		Help: "Time that threads waited for the kernel's mutexes, read-write semaphores and other locks that are slept for.",
		Read: "The frame below the lock's is who wanted it. Locks that spin are in the cpu profile, below native_queued_spin_lock_slowpath.",
	}
	UserLock = &signal.ProfileType{
		Name: "lock.user", Unit: "nanoseconds",
		Help: "Time that threads slept for a program's locks: mutexes of C, C++, Rust and Go's runtime, Java's monitors, Python's global lock.",
		Read: "The widest frames are the code that waits for a lock that somebody else has.",
	}
	KernelLockCount = &signal.ProfileType{
		Name: "lock.kernel.contentions", Unit: "count",
		Help: "How many times threads waited for the kernel's locks, for as long as lock.kernel counts.",
		Read: "Read it beside lock.kernel: many short waits, or few long ones.",
	}
	FileIO = &signal.ProfileType{
		Name: "io.file", Unit: "nanoseconds",
		Help: "Time that threads slept in system calls on files: read, write, fsync, open, rename and others.",
		Read: "The widest frames are the code that waits for a file system. Copying of cached pages is not in it: that is CPU time.",
	}
	FileBytes = &signal.ProfileType{
		Name: "io.file.bytes", Unit: "bytes",
		Help: "Bytes of the read and write calls that are in io.file, as asked for and up to the end of the file; fsync and other calls move none, nor do maps of files.",
		Read: "The code that moves much and waits; what the cache has, or takes, is not in it. A write that fails half way counts whole, and of vectors the first eight parts.",
	}
	BlockIO = &signal.ProfileType{
		Name: "io.block", Unit: "nanoseconds",
		Help: "Latency of requests to block devices, by the stack of the thread that made them.",
		Read: "Who makes the requests that take long; requests in parallel add up.",
	}
	BlockBytes = &signal.ProfileType{
		Name: "io.block.bytes", Unit: "bytes",
		Help: "Bytes of the reads and writes of block devices that are in io.block.",
		Read: "Who makes the slow requests large. Data of others that a request was merged with counts for who made it; discards and flushes move none.",
	}
	Fault = &signal.ProfileType{
		Name: "mem.fault", Unit: "bytes",
		Help: "Pages that programs touched and that were not mapped yet, by their size.",
		Read: "Who grows, or reads mapped files. A fault counts as one small page, also when it brings a huge one.",
	}
	Virtual = &signal.ProfileType{
		Name: "mem.virtual", Unit: "bytes",
		Help: "Address space that programs asked for by mmap, mremap and brk.",
		Read: "Who reserves memory; whether it is used is in mem.fault.",
	}
	InUse = &signal.ProfileType{
		Name: "mem.inuse", Unit: "bytes",
		Help: "Pages of memory that were given out and not given back for half a minute, or until the end of the recording.",
		Read: "Where memory that stays was first touched: a leak is what grows here. Memory that an allocator keeps and gives to others counts where it was touched first.",
	}
	Cycles = &signal.ProfileType{
		Name: "hw.cycles", Unit: "count",
		Help: "Clock cycles of the CPUs while they worked, by the counters of the hardware.",
		Read: "As the cpu profile, weighted by how fast the CPU ran. Beside hw.instructions it tells where the CPU waits instead of working.",
	}
	Instructions = &signal.ProfileType{
		Name: "hw.instructions", Unit: "count",
		Help: "Instructions that the CPUs completed.",
		Read: "Who does the work. A function with a large part of hw.cycles and a small one of this waits for memory, or for branches that were foretold wrongly.",
	}
	CacheMisses = &signal.ProfileType{
		Name: "hw.llc_misses", Unit: "count",
		Help: "Reads that no cache could answer, so that they went to memory.",
		Read: "The widest frames are the code that waits for memory: data that is larger than the cache, or spread over it.",
	}
	TLBMisses = &signal.ProfileType{
		Name: "hw.dtlb_misses", Unit: "count",
		Help: "Reads of data whose page's address the CPU did not have at hand.",
		Read: "The widest frames touch many pages: fewer and larger ones (huge pages) help there.",
	}
)

// Types lists all types in the order in which they are shown.
func Types() []*signal.ProfileType {
	return []*signal.ProfileType{
		CPU, Blocked, RunQueue, IO, Idle, UserLock, UserLockCount, KernelLock, KernelLockCount, FileIO, FileBytes, BlockIO, BlockBytes,
		Fault, Virtual, InUse, Cycles, Instructions, CacheMisses, TLBMisses,
	}
}

// Hardware lists the types that the CPUs' own counters make.
func Hardware() []*signal.ProfileType {
	return []*signal.ProfileType{Cycles, Instructions, CacheMisses, TLBMisses}
}

// Defaults lists the types that are taken unless told otherwise.
func Defaults() []*signal.ProfileType {
	return []*signal.ProfileType{
		CPU, Blocked, RunQueue, IO, UserLock, UserLockCount, KernelLock, KernelLockCount, FileIO, FileBytes, BlockIO, BlockBytes, Fault,
	}
}

// Beside returns the type that the stacks of another one are weighted with, too:
// how many there were, or how much was moved. nil: there is none.
func Beside(t *signal.ProfileType) *signal.ProfileType {
	switch t {
	case UserLock:
		return UserLockCount
	case KernelLock:
		return KernelLockCount
	case FileIO:
		return FileBytes
	case BlockIO:
		return BlockBytes
	}
	return nil
}

// BesideOf returns the type that another is beside; nil: it is beside none.
func BesideOf(t *signal.ProfileType) *signal.ProfileType {
	for _, of := range Types() {
		if Beside(of) == t {
			return of
		}
	}
	return nil
}

// ByName returns the type of that name, nil when there is none.
func ByName(name string) *signal.ProfileType {
	for _, t := range Types() {
		if t.Name == name {
			return t
		}
	}
	return nil
}
