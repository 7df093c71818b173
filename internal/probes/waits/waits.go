// Package waits measures what threads sleep for: futexes, which are the locks
// and condition variables of programs, files and page faults.
package waits

import (
	"context"
	_ "embed"
	"fmt"
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

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -no-global-types -type cpu_state -type cgroup_waits -type fs_key -type ht_hist bpf waits.bpf.c -- -I../../../bpf/include -Wall -Werror -mcpu=v2
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -no-global-types bpfLegacy waits.bpf.c -- -I../../../bpf/include -Wall -Werror -mcpu=v2 -DHT_LEGACY

//go:embed README.md
var readme string

// Config of the probe: it has no settings.
type Config struct{}

// Spec describes the probe.
func Spec() probe.Spec {
	return probe.New(probe.Meta{
		Name:   "waits",
		Help:   "Measures what threads sleep for: futexes (locks and condition variables of programs), files and page faults.",
		Readme: readme,
		Source: "sched:sched_switch, registers of the system call",
		Since:  "4.18",
		Emits: []*signal.Schema{futexWait, fileWait, faultWait, containerFutexes, containerFutexSeconds, containerFiles, containerFileSeconds,
			containerFaults, containerFaultSeconds, unmeasured},
	}, Config{}, run)
}

// kinds of futex and operations on files, by the number that the program gives them.
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
	kinds
)

var (
	names   = [kinds]string{lock: "lock", other: "other", faultIO: "io", faultOther: "other", read: "read", write: "write", fsync: "fsync", list: "list", open: "open"}
	futexes = names[lock : other+1]
	faults  = names[faultIO : faultOther+1]
	ops     = names[read:]
)

// unknown is the type of file system where the system call names no open file.
const unknown = "unknown"

var (
	kindField = signal.Field{Name: "kind", Values: futexes,
		Help: "lock: a mutex that somebody has, by the value that the word had or because the futex inherits priority; other: a condition variable, a semaphore, a worker without work"}
	opField = signal.Field{Name: "op", Values: ops,
		Help: "system calls: read, write, fsync (and fdatasync, sync_file_range), list (of a directory), open"}
	faultField = signal.Field{Name: "wait", Values: faults,
		Help: "io: a page that is read from a file or from swap, or write-back; other: the lock of the process' memory, reclaim"}
	typeField = signal.Field{Name: "fstype", Help: "type of the file system, as in /proc/filesystems; unknown for open"}

	futexWait = schema("futex_wait_seconds", signal.Histogram, "seconds", signal.AreaSched, "Time that a thread slept in a futex, until it ran again.",
		"kind=lock is contention: milliseconds mean that the holder itself waits. kind=other is mostly idle workers and says little.", kindField)
	fileWait = schema("fs_wait_seconds", signal.Histogram, "seconds", signal.AreaBlock, "Time that a thread slept, and could not be interrupted, in a system call on a file.",
		"What reached the device or waited for a lock or the journal: calls that the page cache serves do not sleep. High with fast devices: the file system itself.", typeField, opField)
	faultWait = schema("page_fault_wait_seconds", signal.Histogram, "seconds", signal.AreaMemory, "Time that a thread slept in a page fault, until it ran again.",
		"wait=io is a major fault: text or data of a program that memory had no room for, or that was never read. wait=other: threads of a process that map and unmap memory get into each other's way.", faultField)
	containerFutexes = schema("container_futex_waits_total", signal.Counter, "1", signal.AreaSched, "Times that a thread of the workload slept in a futex.",
		"Tens of thousands a second of kind=lock: threads hand a lock to and fro, and each time costs two context switches.", kindField)
	containerFutexSeconds = schema("container_futex_wait_seconds_total", signal.Counter, "seconds", signal.AreaSched, "Time that threads of the workload slept in futexes.",
		"The rate of kind=lock is how many of its threads wait for a lock, on average. That of kind=other is how many are idle or wait for each other.", kindField)
	containerFiles = schema("container_fs_waits_total", signal.Counter, "1", signal.AreaBlock, "Times that a thread of the workload slept, and could not be interrupted, in a system call on a file.",
		"Divides huatuo_container_fs_wait_seconds_total to the mean.", opField)
	containerFileSeconds = schema("container_fs_wait_seconds_total", signal.Counter, "seconds", signal.AreaBlock, "Time that threads of the workload slept, and could not be interrupted, in system calls on files.",
		"The rate is how many of its threads wait for files, on average: 1 is one thread that does nothing else.", opField)
	containerFaults = schema("container_page_fault_waits_total", signal.Counter, "1", signal.AreaMemory, "Times that a thread of the workload slept in a page fault.",
		"Divides huatuo_container_page_fault_wait_seconds_total to the mean. Faults that did not sleep are in huatuo_container_memory_page_faults_total.", faultField)
	containerFaultSeconds = schema("container_page_fault_wait_seconds_total", signal.Counter, "seconds", signal.AreaMemory, "Time that threads of the workload slept in page faults.",
		"A rate of wait=io near the number of its threads: the workload thrashes, its memory does not hold what it works with.", faultField)
	unmeasured = schema("waits_unmeasured_total", signal.Counter, "1", signal.AreaAgent, "Sleeps that were not measured because two sleeping threads shared a slot.",
		"Grows with the number of threads that sleep in futexes; compare with huatuo_futex_wait_seconds_count.")
)

func schema(name string, typ signal.MetricType, unit string, area signal.Area, help, read string, fields ...signal.Field) *signal.Schema {
	s := &signal.Schema{
		Name: "huatuo_" + name, Kind: signal.Metric, Type: typ, Unit: unit, Area: area,
		Scope: signal.Host, Help: help, Read: read, Fields: fields,
	}
	if strings.HasPrefix(name, "container_") {
		s.Scope = signal.Workload
	}
	return s
}

func run(ctx context.Context, env *probe.Env, _ Config) error {
	l, err := env.Kernel.Load(loadBpf, loadBpfLegacy)
	if err != nil {
		return err
	}
	if err := l.Set("regs_at", registersAt(env.Kernel.Types(), runtime.GOARCH, os.Getpagesize())); err != nil {
		return err
	}
	o, err := l.Attach(load.TP("sched_switch"))
	if err != nil {
		return err
	}
	defer o.Close()
	for nr, kind := range calls(runtime.GOARCH) {
		if err := o.Map("calls").Put(uint32(nr), kind); err != nil {
			return fmt.Errorf("tell the numbers of system calls: %w", err)
		}
	}
	env.Collect(load.Guard(o, func(b *signal.Batch) error { return collect(b, o) }))
	env.Ready(o.Hooks()...)
	<-ctx.Done()
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

func collect(b *signal.Batch, o *load.Object) error {
	var cpus []bpfCpuState
	if err := o.Map("cpus").Lookup(uint32(0), &cpus); err != nil {
		return fmt.Errorf("read histograms: %w", err)
	}
	sum := &cpus[0]
	for i := range cpus[1:] {
		x := &cpus[1+i]
		sum.Collisions += x.Collisions
		for k := range sum.Wait {
			sum.Wait[k].Zero += x.Wait[k].Zero
			sum.Wait[k].Sum += x.Wait[k].Sum
			for j, n := range x.Wait[k].Slots {
				sum.Wait[k].Slots[j] += n
			}
		}
	}
	for k := range sum.Wait {
		s := futexWait
		if lock+k >= faultIO {
			s = faultWait
		}
		b.Hist(s, hist(&sum.Wait[k]), names[lock+k])
	}
	b.Value(unmeasured, float64(sum.Collisions))
	if err := collectFiles(b, o.Map("files")); err != nil {
		return err
	}
	return collectCgroups(b, o.Map("cgroups"))
}

func hist(h *bpfHtHist) *signal.Hist { return signal.LatencyHist(0, h.Zero, h.Sum, h.Slots[:]) }

func collectFiles(b *signal.Batch, m *ebpf.Map) error {
	var key bpfFsKey
	var h bpfHtHist
	it := m.Iterate()
	for it.Next(&key, &h) {
		if key.Kind < read || key.Kind >= kinds {
			continue
		}
		fstype := probe.CString(key.Fstype[:])
		if fstype == "" {
			fstype = unknown
		}
		b.Hist(fileWait, hist(&h), fstype, names[key.Kind])
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("read waits for files: %w", err)
	}
	return nil
}

func collectCgroups(b *signal.Batch, m *ebpf.Map) error {
	var id uint64
	var g bpfCgroupWaits
	it := m.Iterate()
	for it.Next(&id, &g) {
		for k, n := range g.Waits {
			waits, seconds := containerFutexes, containerFutexSeconds
			switch {
			case k >= read:
				waits, seconds = containerFiles, containerFileSeconds
			case k >= faultIO:
				waits, seconds = containerFaults, containerFaultSeconds
			}
			if n > 0 {
				b.WorkloadValue(waits, id, float64(n), names[k])
				b.WorkloadValue(seconds, id, time.Duration(g.Ns[k]).Seconds(), names[k])
			}
		}
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("read waits of cgroups: %w", err)
	}
	return nil
}
