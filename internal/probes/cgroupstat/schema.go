package cgroupstat

import "huatuo/internal/signal"

func schema(area signal.Area, typ signal.MetricType, name, unit, help, read string, fields ...signal.Field) *signal.Schema {
	return &signal.Schema{
		Name: "huatuo_container_" + name, Kind: signal.Metric, Type: typ, Unit: unit, Area: area,
		Scope: signal.Workload, Help: help, Read: read, Fields: fields,
	}
}

func cpuCounter(name, unit, help, read string, fields ...signal.Field) *signal.Schema {
	return schema(signal.AreaCPU, signal.Counter, "cpu_"+name, unit, help, read, fields...)
}

func memoryGauge(name, help, read string) *signal.Schema {
	return schema(signal.AreaMemory, signal.Gauge, "memory_"+name+"_bytes", "bytes", help, read)
}

func memoryCounter(name, help, read string, fields ...signal.Field) *signal.Schema {
	return schema(signal.AreaMemory, signal.Counter, "memory_"+name+"_total", "1", help, read, fields...)
}

var (
	cpuUsage = cpuCounter("usage_seconds_total", "seconds", "CPU time that the workload used.",
		"rate() is CPUs; near huatuo_container_cpu_limit_cores it will be throttled.")
	cpuSeconds = cpuCounter("seconds_total", "seconds", "CPU time that the workload used in user and in kernel mode.",
		"Mostly system: system calls, page faults, reclaim on its behalf; take a profile.",
		signal.Field{Name: "mode", Help: "user or system.", Values: []string{"user", "system"}})
	cpuPeriods = cpuCounter("periods_total", "1", "Quota periods in which the workload wanted to run.",
		"The divisor for throttled periods. Absent without a CPU limit.")
	cpuThrottledPeriods = cpuCounter("throttled_periods_total", "1", "Quota periods in which the workload was stopped because its quota was used up.",
		"throttled/periods above 0.1: requests wait up to a period (100 ms); raise the limit or use fewer threads.")
	cpuThrottled = cpuCounter("throttled_seconds_total", "seconds", "Time that the workload's run queues stood still because its quota was used up.",
		"Summed over CPUs. Throttled at low mean use: many threads use up the quota at once.")
	cpuBurst = cpuCounter("burst_seconds_total", "seconds", "CPU time that the workload used beyond its quota from what it had saved.",
		"Only with cpu.max.burst; it is throttling that did not happen.")
	cpuLimit = schema(signal.AreaCPU, signal.Gauge, "cpu_limit_cores", "cores", "CPUs that the workload may use on average: quota divided by period.",
		"Absent without a limit. The limit of a pod or slice above it is not considered.")

	memoryUsage = memoryGauge("usage", "Memory charged to the workload: its own, page cache and kernel memory.",
		"Includes cache that can be dropped: it fills up to the limit and that is fine. Watch working_set.")
	memoryWorkingSet = memoryGauge("working_set", "Memory charged to the workload without page cache that was not used for long.",
		"What the kubelet evicts by, and close to what an OOM kill is decided on. Above 0.9 of the limit: act.")
	memoryLimit = memoryGauge("limit", "Memory that the workload may use.",
		"Absent without a limit. The limit of a pod or slice above it is not considered.")
	memorySwap = memoryGauge("swap", "Swap that the workload occupies.",
		"Growing while memory pressure is felt: it is being pushed out.")
	memoryAnon = memoryGauge("anon", "Anonymous memory of the workload: heaps and stacks.",
		"A steady climb is a leak. It can only be swapped, never dropped.")
	memoryFile = memoryGauge("file", "Page cache of the workload, with tmpfs and shared memory.",
		"Subtract shmem for what can be dropped.")
	memoryKernel = memoryGauge("kernel", "Kernel memory charged to the workload: slab, stacks, page tables, sockets.",
		"Climbs with files, connections and threads. On v2 from Linux 5.18.")
	memoryShmem = memoryGauge("shmem", "Shared memory and tmpfs of the workload.",
		"An emptyDir in memory or /dev/shm: counts against the limit and cannot be dropped.")
	memoryMapped = memoryGauge("mapped", "Files and shared memory that the workload has mapped.",
		"Program text and libraries mostly.")
	memoryDirty = memoryGauge("dirty", "Changed page cache of the workload that waits to be written.",
		"High: its writes outrun the disk, and it will be throttled.")
	memoryWriteback = memoryGauge("writeback", "Page cache of the workload that is being written.",
		"High for long: the device is slow.")
	memorySlab = memoryGauge("slab", "Kernel objects charged to the workload.",
		"Directory entries and inodes mostly. v2 only.")
	memorySocket = memoryGauge("socket", "Network buffers charged to the workload.",
		"High: receivers do not read. v2 only.")
	memoryFaults = memoryCounter("page_faults", "Page faults of the workload, minor and major.",
		"High at little work: memory is mapped and unmapped in a loop.")
	memoryMajorFaults = memoryCounter("major_page_faults", "Page faults of the workload that had to read from a device.",
		"Each costs a disk access: its working set does not fit.")
	memoryScanned = memoryCounter("reclaim_scanned_pages", "Pages of the workload that reclaim looked at.",
		"The limit is felt. v2 only.")
	memoryReclaimed = memoryCounter("reclaimed_pages", "Pages of the workload that reclaim freed.",
		"Divided by scanned: the efficiency. v2 only.")
	memoryRefaults = memoryCounter("refaults", "Pages that the workload needed again soon after reclaim had taken them.",
		"Steadily high: it thrashes. More memory, or less cache.",
		signal.Field{Name: "type", Help: "anon: from swap; file: from a file.", Values: []string{"anon", "file"}})
	memoryEventsTotal = memoryCounter("events", "Events at the workload's memory limits.",
		"max: it ran into its limit and had to reclaim; oom_kill: a process of it was killed.",
		signal.Field{Name: "event", Values: []string{"low", "high", "max", "oom", "oom_kill", "oom_group_kill"},
			Help: "low: reclaimed below its protection; high: throttled above its soft limit; max: at its limit; oom: nothing left to reclaim; oom_kill, oom_group_kill: processes, whole groups killed. v1 tells max and oom_kill."})

	pids = schema(signal.AreaProcess, signal.Gauge, "pids", "1", "Tasks (processes and threads) of the workload.",
		"A steady climb is a leak of threads or of zombies.")
	pidsLimit = schema(signal.AreaProcess, signal.Gauge, "pids_limit", "1", "Tasks that the workload may have.",
		"Absent without a limit. At the limit fork fails with EAGAIN.")

	opField = signal.Field{Name: "op", Help: "read, write or discard.", Values: ops[:]}
	ioBytes = schema(signal.AreaBlock, signal.Counter, "io_bytes_total", "bytes", "Bytes that the workload read from and wrote to disks.",
		"Page cache hits are not in it; buffered writes are on v2 only, when they reach the disk.", opField)
	ioOperations = schema(signal.AreaBlock, signal.Counter, "io_operations_total", "1", "Requests that the workload sent to disks.",
		"bytes/operations is the mean size.", opField)

	pressureStall = schema(signal.AreaSystem, signal.Counter, "pressure_stall_seconds_total", "seconds",
		"Time in which tasks of the workload stood still because a resource was short.",
		"rate() is the share of time lost (0 to 1): the best single measure of whether a workload suffers.",
		signal.Field{Name: "resource", Help: "What was short; cpu includes being throttled.", Values: resources[:]},
		signal.Field{Name: "kind", Help: "some: at least one task waited; full: all tasks that were not idle waited.", Values: []string{"some", "full"}})
)

// emits lists every schema in the order of the docs.
func emits() []*signal.Schema {
	return []*signal.Schema{
		cpuUsage, cpuSeconds, cpuPeriods, cpuThrottledPeriods, cpuThrottled, cpuBurst, cpuLimit, cpuWeight,
		memoryUsage, memoryWorkingSet, memoryLimit, memorySwap, memoryAnon, memoryFile, memoryKernel, memoryShmem, memoryMapped,
		memoryDirty, memoryWriteback, memorySlab, memorySocket, memoryFaults, memoryMajorFaults, memoryScanned, memoryReclaimed,
		memoryRefaults, memoryEventsTotal, memoryPeak, memoryHigh, memoryProtection, memorySwapLimit, memorySwapEvents, memorySwapped,
		memoryZswap, memoryZswapped, memoryHuge, memoryHugeAllocations, memoryUnevictable, memoryPageTables,
		pids, pidsLimit, pidsRefused, ioBytes, ioOperations, pressureStall,
	}
}
