package runqueue

import (
	"fmt"
	"math/bits"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"

	"huatuo/internal/kern/load"
	"huatuo/internal/probe"
	"huatuo/internal/signal"
)

// What a thread sleeps for, by the number that the program gives it (enum
// sleep_kind of group.h).
const (
	none = iota
	lock
	other
	faultIO
	faultOther
	read
	write
	fsync
	list
	open
	sleepKinds
)

var (
	sleepNames = [sleepKinds]string{lock: "lock", other: "other", faultIO: "io", faultOther: "other", read: "read", write: "write", fsync: "fsync", list: "list", open: "open"}
	futexes    = sleepNames[lock : other+1]
	faults     = sleepNames[faultIO : faultOther+1]
	ops        = sleepNames[read:]
)

// noType is the type of file system where the system call names no open file.
const noType = "unknown"

var (
	kindField = signal.Field{Name: "kind", Values: futexes,
		Help: "lock: a mutex that somebody has, by the value that the word had or because the futex inherits priority; other: a condition variable, a semaphore, a worker without work"}
	opField = signal.Field{Name: "op", Values: ops,
		Help: "system calls: read, write, fsync (and fdatasync, sync_file_range), list (of a directory), open"}
	faultField = signal.Field{Name: "wait", Values: faults,
		Help: "io: a page that is read from a file or from swap, or write-back; other: the lock of the process' memory, reclaim"}
	typeField = signal.Field{Name: "fstype", Help: "type of the file system, as in /proc/filesystems; unknown for open"}

	futexWait = sleepSchema("futex_wait_seconds", signal.Histogram, "seconds", signal.AreaSched, "Time that a thread slept in a futex, until it ran again.",
		"kind=lock is contention: milliseconds mean that the holder itself waits. kind=other is mostly idle workers and says little.", kindField)
	fileWait = sleepSchema("fs_wait_seconds", signal.Histogram, "seconds", signal.AreaBlock, "Time that a thread slept, and could not be interrupted, in a system call on a file.",
		"What reached the device or waited for a lock or the journal: calls that the page cache serves do not sleep. High with fast devices: the file system itself.", typeField, opField)
	faultWait = sleepSchema("page_fault_wait_seconds", signal.Histogram, "seconds", signal.AreaMemory, "Time that a thread slept in a page fault, until it ran again.",
		"wait=io is a major fault: text or data of a program that memory had no room for, or that was never read. wait=other: threads of a process that map and unmap memory get into each other's way.", faultField)
	containerFutexes = sleepSchema("container_futex_waits_total", signal.Counter, "1", signal.AreaSched, "Times that a thread of the workload slept in a futex.",
		"Tens of thousands a second of kind=lock: threads hand a lock to and fro, and each time costs two context switches.", kindField)
	containerFutexSeconds = sleepSchema("container_futex_wait_seconds_total", signal.Counter, "seconds", signal.AreaSched, "Time that threads of the workload slept in futexes.",
		"The rate of kind=lock is how many of its threads wait for a lock, on average. That of kind=other is how many are idle or wait for each other.", kindField)
	containerFiles = sleepSchema("container_fs_waits_total", signal.Counter, "1", signal.AreaBlock, "Times that a thread of the workload slept, and could not be interrupted, in a system call on a file.",
		"Divides huatuo_container_fs_wait_seconds_total to the mean.", opField)
	containerFileSeconds = sleepSchema("container_fs_wait_seconds_total", signal.Counter, "seconds", signal.AreaBlock, "Time that threads of the workload slept, and could not be interrupted, in system calls on files.",
		"The rate is how many of its threads wait for files, on average: 1 is one thread that does nothing else.", opField)
	containerFaults = sleepSchema("container_page_fault_waits_total", signal.Counter, "1", signal.AreaMemory, "Times that a thread of the workload slept in a page fault.",
		"Divides huatuo_container_page_fault_wait_seconds_total to the mean. Faults that did not sleep are in huatuo_container_memory_page_faults_total.", faultField)
	containerFaultSeconds = sleepSchema("container_page_fault_wait_seconds_total", signal.Counter, "seconds", signal.AreaMemory, "Time that threads of the workload slept in page faults.",
		"A rate of wait=io near the number of its threads: the workload thrashes, its memory does not hold what it works with.", faultField)
	unmeasured = sleepSchema("waits_unmeasured_total", signal.Counter, "1", signal.AreaAgent, "Sleeps that were not measured because two sleeping threads shared a slot.",
		"Grows with the number of threads that sleep in futexes; compare with huatuo_futex_wait_seconds_count.")
)

func sleepSchema(name string, typ signal.MetricType, unit string, area signal.Area, help, read string, fields ...signal.Field) *signal.Schema {
	s := &signal.Schema{
		Name: "huatuo_" + name, Kind: signal.Metric, Type: typ, Unit: unit, Area: area,
		Scope: signal.Host, Help: help, Read: read, Fields: fields,
	}
	if strings.HasPrefix(name, "container_") {
		s.Scope = signal.Workload
	}
	return s
}

// watchSleeps tells the program how to see what threads sleep for.
func watchSleeps(l *load.Loader, env *probe.Env) error {
	if err := l.Set("page_shift", uint32(bits.TrailingZeros(uint(os.Getpagesize())))); err != nil {
		return err
	}
	return l.Set("regs_at", registersAt(env.Kernel.Types(), runtime.GOARCH, os.Getpagesize()))
}

// tellCalls fills the program's table of system calls.
func tellCalls(o *load.Object) error {
	for nr, kind := range calls(runtime.GOARCH) {
		if err := o.Map("calls").Put(uint32(nr), kind); err != nil {
			return fmt.Errorf("tell the numbers of system calls: %w", err)
		}
	}
	return nil
}

// registersAt returns where a thread's registers on entry to the kernel lie
// from the start of its stack, for kernels that do not tell (bpf_task_pt_regs,
// 5.15): at its end, whose place the architecture gives. 0 when it is not known.
// A kernel built with KASAN has larger stacks; the program sees that what it
// finds is none. One built for FRED (6.9) leaves 16 bytes more at the end.
func registersAt(types *btf.Spec, arch string, page int) uint32 {
	var regs *btf.Struct
	if types == nil || types.TypeByName("pt_regs", &regs) != nil {
		return 0
	}
	size := map[string]int{"amd64": 16 << 10, "arm64": max(16<<10, page)}[arch]
	var fred *btf.Struct
	if types.TypeByName("fred_info", &fred) == nil {
		size -= 16
	}
	return uint32(max(size-int(regs.Size), 0))
}

// collectSleeps adds the histograms of the host; sum are those of all CPUs.
func collectSleeps(b *signal.Batch, sum *bpfCpuState, files *ebpf.Map) error {
	for k := range sum.Slept {
		s := futexWait
		if lock+k >= faultIO {
			s = faultWait
		}
		b.Hist(s, coarse(&sum.Slept[k]), sleepNames[lock+k])
	}
	b.Value(unmeasured, float64(sum.SleepCollisions))
	return collectFiles(b, files)
}

func coarse(h *bpfHtHist) *signal.Hist { return signal.LatencyHist(0, h.Zero, h.Sum, h.Slots[:]) }

func collectFiles(b *signal.Batch, m *ebpf.Map) error {
	var key bpfFsKey
	var h bpfHtHist
	it := m.Iterate()
	for it.Next(&key, &h) {
		if key.Kind < read || key.Kind >= sleepKinds {
			continue
		}
		fstype := probe.CString(key.Fstype[:])
		if fstype == "" {
			fstype = noType
		}
		b.Hist(fileWait, coarse(&h), fstype, sleepNames[key.Kind])
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("read waits for files: %w", err)
	}
	return nil
}

// collectGroupSleeps adds what a workload's threads slept for.
func collectGroupSleeps(b *signal.Batch, id uint64, g *bpfGroupSleeps) {
	for k, sum := range g.By {
		waits, seconds := containerFutexes, containerFutexSeconds
		switch {
		case k >= read:
			waits, seconds = containerFiles, containerFileSeconds
		case k >= faultIO:
			waits, seconds = containerFaults, containerFaultSeconds
		}
		if sum.Count > 0 {
			b.WorkloadValue(waits, id, float64(sum.Count), sleepNames[k])
			b.WorkloadValue(seconds, id, time.Duration(sum.Ns).Seconds(), sleepNames[k])
		}
	}
}
