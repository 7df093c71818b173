package cgroupstat

import (
	"huatuo/internal/kern/cgroup"
	"huatuo/internal/kern/procfs"
	"huatuo/internal/signal"
)

// source is one file of a group. The first of files that exists is read.
type source struct {
	controller string
	files      []string
	add        func(*entry, []byte)
}

// sourcesOf returns the files to read on a host, in the form that each
// controller has there. What needs another file's value comes after it.
func sourcesOf(l *cgroup.Layout) []source {
	ss := []source{{"cpu", []string{"cpu.stat"}, cpuStat.add}}
	if l.IsV1("cpuacct") {
		ss = append(ss,
			source{"cpuacct", []string{"cpuacct.usage"}, addCPUUsageV1},
			source{"cpuacct", []string{"cpuacct.stat"}, cpuacctStat.add})
	} else if l.IsV1("cpu") {
		// The v1 cpu.stat tells of throttling only.
		ss = append(ss, source{"", []string{"cpu.stat"}, cpuStat.add})
	}
	if l.IsV1("memory") {
		ss = append(ss,
			source{"memory", []string{"memory.usage_in_bytes"}, addMemoryUsage},
			source{"memory", []string{"memory.stat"}, memoryStatV1.add},
			source{"memory", []string{"memory.kmem.usage_in_bytes"}, addMemoryKernelV1},
			source{"memory", []string{"memory.failcnt"}, addMemoryFailV1},
			source{"memory", []string{"memory.oom_control"}, memoryOOMV1.add})
	} else {
		ss = append(ss,
			source{"memory", []string{"memory.current"}, addMemoryUsage},
			source{"memory", []string{"memory.stat"}, memoryStatV2.add},
			source{"memory", []string{"memory.swap.current"}, addMemorySwap},
			source{"memory", []string{"memory.events"}, memoryEvents.add})
	}
	ss = append(ss, source{"pids", []string{"pids.current"}, addPids})
	if l.IsV1("blkio") {
		ss = append(ss,
			source{"blkio", []string{"blkio.throttle.io_service_bytes_recursive", "blkio.throttle.io_service_bytes"}, addIOBytesV1},
			source{"blkio", []string{"blkio.throttle.io_serviced_recursive", "blkio.throttle.io_serviced"}, addIOOperationsV1})
	} else {
		ss = append(ss, source{"io", []string{"io.stat"}, addIOStat})
	}
	for i, resource := range resources {
		ss = append(ss, source{"", []string{resource + ".pressure"}, func(e *entry, b []byte) { e.pressure(i, procfs.ParsePressure(b)) }})
	}
	return ss
}

// limitsOf returns the files that hold the limits.
func limitsOf(l *cgroup.Layout) []source {
	ss := []source{{"pids", []string{"pids.max"}, func(e *entry, b []byte) { e.group.limits.pids = parseLimit(b) }}}
	if l.IsV1("cpu") {
		ss = append(ss,
			source{"cpu", []string{"cpu.cfs_quota_us"}, func(e *entry, b []byte) { e.group.limits.quota = parseLimit(b) }},
			source{"cpu", []string{"cpu.cfs_period_us"}, func(e *entry, b []byte) { e.group.limits.period = parseLimit(b) }})
	} else {
		ss = append(ss, source{"cpu", []string{"cpu.max"}, func(e *entry, b []byte) { e.group.limits.quota, e.group.limits.period = parseCPUMax(b) }})
	}
	name := "memory.max"
	if l.IsV1("memory") {
		name = "memory.limit_in_bytes"
	}
	ss = append(ss, source{"memory", []string{name}, func(e *entry, b []byte) { e.group.limits.memory = parseLimit(b) }})
	return append(ss, slowOf(l)...)
}

// limits of a group; 0 means none.
type limits struct {
	quota, period, memory, pids uint64
	held                        []held
}

// entry is what one round learns of one group.
type entry struct {
	b       *signal.Batch
	group   *group
	devices *devices

	usage, inactiveFile       uint64
	hasUsage, hasInactiveFile bool
	periods                   uint64
}

func (e *entry) value(s *signal.Schema, v float64, labels ...string) {
	e.b.WorkloadValue(s, e.group.id, v, labels...)
}

// finish adds what comes of more than one file.
func (e *entry) finish() {
	if e.hasUsage && e.hasInactiveFile {
		e.value(memoryWorkingSet, float64(e.usage-min(e.usage, e.inactiveFile)))
	}
	l := &e.group.limits
	if l.quota > 0 && l.period > 0 {
		e.value(cpuLimit, float64(l.quota)/float64(l.period))
	}
	if l.memory > 0 {
		e.value(memoryLimit, float64(l.memory))
	}
	if l.pids > 0 {
		e.value(pidsLimit, float64(l.pids))
	}
	for _, h := range l.held {
		e.value(h.schema, h.value, h.labels...)
	}
}

func (e *entry) pressure(resource int, p procfs.Pressure) {
	l := pressureLabels[resource]
	if p.HasSome {
		e.value(pressureStall, float64(p.Some)/1e6, l.some...)
	}
	if p.HasFull {
		e.value(pressureStall, float64(p.Full)/1e6, l.full...)
	}
}

func addCPUUsageV1(e *entry, b []byte) {
	if v, ok := parseValue(b); ok {
		e.value(cpuUsage, float64(v)/1e9)
	}
}

func addMemoryUsage(e *entry, b []byte) {
	if v, ok := parseValue(b); ok {
		e.usage, e.hasUsage = v, true
		e.value(memoryUsage, float64(v))
	}
}

func addMemorySwap(e *entry, b []byte) {
	if v, ok := parseValue(b); ok {
		e.value(memorySwap, float64(v))
	}
}

func addMemoryKernelV1(e *entry, b []byte) {
	if v, ok := parseValue(b); ok {
		e.value(memoryKernel, float64(v))
	}
}

func addMemoryFailV1(e *entry, b []byte) {
	if v, ok := parseValue(b); ok {
		e.value(memoryEventsTotal, float64(v), eventMax...)
	}
}

func addPids(e *entry, b []byte) {
	if v, ok := parseValue(b); ok {
		e.value(pids, float64(v))
	}
}

func addIOStat(e *entry, b []byte) {
	e.io(ioBytes, parseIOStat(b, e.devices, "rbytes", "wbytes", "dbytes"))
	e.io(ioOperations, parseIOStat(b, e.devices, "rios", "wios", "dios"))
}

func addIOBytesV1(e *entry, b []byte)      { e.io(ioBytes, parseBlkio(b, e.devices)) }
func addIOOperationsV1(e *entry, b []byte) { e.io(ioOperations, parseBlkio(b, e.devices)) }

func (e *entry) io(s *signal.Schema, sum ioSum) {
	for op, v := range sum.value {
		if sum.seen[op] {
			e.value(s, float64(v), opLabels[op]...)
		}
	}
}
