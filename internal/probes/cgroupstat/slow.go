package cgroupstat

import (
	"huatuo/internal/kern/cgroup"
	"huatuo/internal/signal"
)

// What is read with the limits, once a minute, and told in each round.

// held is a value that keeps until the limits are read again.
type held struct {
	schema *signal.Schema
	labels []string
	value  float64
}

func (l *limits) hold(s *signal.Schema, v float64, labels ...string) {
	l.held = append(l.held, held{s, labels, v})
}

// limitedBy makes the entry of a file with one limit; none gives no value.
func limitedBy(s *signal.Schema, labels ...string) func(*entry, []byte) {
	return func(e *entry, b []byte) {
		if v := parseLimit(b); v > 0 {
			e.group.limits.hold(s, float64(v), labels...)
		}
	}
}

// counted makes the entry of a line that counts what seldom happens: most
// groups would have nothing but zeros.
func counted(s *signal.Schema, labels ...string) func(*entry, uint64) {
	return func(e *entry, v uint64) {
		if v > 0 {
			e.group.limits.hold(s, float64(v), labels...)
		}
	}
}

var (
	pidsEvents = keyed{"max": func(e *entry, v uint64) { e.group.limits.hold(pidsRefused, float64(v)) }}
	swapEvents = keyed{
		"high": counted(memorySwapEvents, "high"),
		"max":  counted(memorySwapEvents, "max"),
		"fail": counted(memorySwapEvents, "fail"),
	}
)

// slowOf returns the files besides those of the limits.
func slowOf(l *cgroup.Layout) []source {
	ss := []source{{"pids", []string{"pids.events"}, pidsEvents.add}} // not for the root
	if l.IsV1("cpu") {
		ss = append(ss, source{"cpu", []string{"cpu.shares"}, addShares})
	} else {
		ss = append(ss, source{"cpu", []string{"cpu.weight"}, addWeight})
	}
	if l.IsV1("memory") {
		return append(ss,
			source{"memory", []string{"memory.max_usage_in_bytes"}, limitedBy(memoryPeak)},
			source{"memory", []string{"memory.soft_limit_in_bytes"}, limitedBy(memoryProtection, "soft")},
			source{"memory", []string{"memory.memsw.limit_in_bytes"}, addSwapLimitV1},
			source{"memory", []string{"memory.memsw.failcnt"}, func(e *entry, b []byte) {
				if v, ok := parseValue(b); ok {
					counted(memorySwapEvents, "max")(e, v)
				}
			}})
	}
	return append(ss,
		source{"memory", []string{"memory.peak"}, limitedBy(memoryPeak)}, // 5.19
		source{"memory", []string{"memory.min"}, limitedBy(memoryProtection, "min")},
		source{"memory", []string{"memory.low"}, limitedBy(memoryProtection, "low")},
		source{"memory", []string{"memory.high"}, limitedBy(memoryHigh)},
		source{"memory", []string{"memory.swap.max"}, addSwapLimit},
		source{"memory", []string{"memory.swap.events"}, swapEvents.add})
}

// addSwapLimit: here 0 is a limit, the one that a kubelet sets.
func addSwapLimit(e *entry, b []byte) {
	if v, ok := parseValue(b); ok { // not "max"
		e.group.limits.hold(memorySwapLimit, float64(v))
	}
}

// addSwapLimitV1: the file limits the sum of memory and swap.
func addSwapLimitV1(e *entry, b []byte) {
	l := &e.group.limits
	if v := parseLimit(b); v > 0 && l.memory > 0 {
		l.hold(memorySwapLimit, float64(v-min(l.memory, v)))
	}
}

func addWeight(e *entry, b []byte) {
	if v, ok := parseValue(b); ok {
		e.group.limits.hold(cpuWeight, float64(v))
	}
}

// addShares: 1024 shares are what the weight 100 is in v2, the default of both.
func addShares(e *entry, b []byte) {
	if v, ok := parseValue(b); ok {
		e.group.limits.hold(cpuWeight, float64(v)*100/1024)
	}
}

// nonzero is emit for what most groups have never had.
func nonzero(s *signal.Schema, per float64, labels ...string) func(*entry, uint64) {
	return func(e *entry, v uint64) {
		if v > 0 {
			e.value(s, float64(v)/per, labels...)
		}
	}
}

var (
	cpuWeight = schema(signal.AreaCPU, signal.Gauge, "cpu_weight", "1", "Share of CPU time that the workload gets when others want it too, relative to their weights.",
		"100 is the default. On v1 cpu.shares times 100/1024, on v2 cpu.weight. It matters only while CPUs are short.")

	memoryPeak = memoryGauge("peak", "Most memory that was ever charged to the workload.",
		"What the limit has to be for, cache included. At the limit: it has been reclaimed from or worse. On v2 from Linux 5.19.")
	memoryProtection = schema(signal.AreaMemory, signal.Gauge, "memory_protection_bytes", "bytes", "Memory of the workload that reclaim spares.",
		"Absent without. Usage below it is safe from the needs of others: min always, low and soft while there is something else to take.",
		signal.Field{Name: "kind", Help: "min: memory.min; low: memory.low; soft: memory.soft_limit_in_bytes of v1", Values: []string{"min", "low", "soft"}})
	memoryHigh = memoryGauge("high", "Memory above which the workload is throttled.",
		"Absent without. Above it the workload reclaims for itself and is slowed down, but not killed: see huatuo_container_memory_events_total{event=\"high\"}.")
	memorySwapLimit = memoryGauge("swap_limit", "Swap that the workload may use.",
		"0: none, its anonymous memory can leave memory only by an OOM kill. Absent without a limit.")
	memorySwapEvents = memoryCounter("swap_events", "Times that the workload could not swap.",
		"Read once a minute. Absent until it happens.",
		signal.Field{Name: "event", Help: "high: throttled above its swap threshold; max: at its limit; fail: at its limit, or swap was full. v1 tells max, for memory and swap together.", Values: []string{"high", "max", "fail"}})
	memoryHuge = schema(signal.AreaMemory, signal.Gauge, "memory_huge_bytes", "bytes", "Memory of the workload in transparent huge pages.",
		"Absent without. Its share of anon tells whether huge pages help the workload; a workload that frees parts of them pays for the whole.",
		signal.Field{Name: "type", Help: "anon, file or shmem; v1 tells anon only", Values: []string{"anon", "file", "shmem"}})
	memoryHugeAllocations = memoryCounter("huge_page_allocations", "Transparent huge pages that the workload got.",
		"Absent until it got one. v2 only.",
		signal.Field{Name: "by", Help: "fault: at a page fault; collapse: made of small pages by khugepaged", Values: []string{"fault", "collapse"}})
	memoryZswap = memoryGauge("zswap", "Memory that compressed swapped pages of the workload occupy.",
		"Absent without. Divide huatuo_container_memory_zswapped_bytes by it for the compression.")
	memoryZswapped = memoryGauge("zswapped", "Memory of the workload, as it was before compression, that is in the compressed swap cache.",
		"Absent without. It comes back without a disk access.")
	memorySwapped = memoryCounter("swapped_pages", "Pages of the workload that were swapped.",
		"Absent until it happens. A steady rate of in is a workload that waits for its own memory. v2 only: disk from Linux 6.13, zswap from 5.19.",
		signal.Field{Name: "direction", Help: "in or out", Values: []string{"in", "out"}},
		signal.Field{Name: "to", Help: "disk or zswap", Values: []string{"disk", "zswap"}})
	memoryUnevictable = memoryGauge("unevictable", "Memory of the workload that reclaim may not touch: mlock and the like.",
		"Absent without. It counts against the limit for good.")
	memoryPageTables = memoryGauge("page_tables", "Page tables of the workload.",
		"Large beside little anon: many processes map a large shared memory with small pages. v2 only.")

	pidsRefused = schema(signal.AreaProcess, signal.Counter, "pids_refused_total", "1", "Forks that failed because the workload had as many tasks as it may have.",
		"Any step: programs of it get EAGAIN from fork or pthread_create. Read once a minute.")
)
