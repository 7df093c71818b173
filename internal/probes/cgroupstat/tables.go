package cgroupstat

import "huatuo/internal/signal"

// emit makes the entry of a line that is a sample; per is how many of its
// units make one of the metric's.
func emit(s *signal.Schema, per float64, labels ...string) func(*entry, uint64) {
	return func(e *entry, v uint64) { e.value(s, float64(v)/per, labels...) }
}

// throttling is only told of a group that has, or had, a quota: all others
// would be three series of zeros each.
func throttling(s *signal.Schema, per float64) func(*entry, uint64) {
	return func(e *entry, v uint64) {
		if e.periods > 0 {
			e.value(s, float64(v)/per)
		}
	}
}

// cpuStat is cpu.stat of both versions: the names differ, but never clash. The
// kernel prints nr_periods before what depends on it.
var cpuStat = keyed{
	"usage_usec":  emit(cpuUsage, 1e6),
	"user_usec":   emit(cpuSeconds, 1e6, "user"),
	"system_usec": emit(cpuSeconds, 1e6, "system"),
	"nr_periods": func(e *entry, v uint64) {
		if e.periods = v; v > 0 {
			e.value(cpuPeriods, float64(v))
		}
	},
	"nr_throttled":   throttling(cpuThrottledPeriods, 1),
	"throttled_usec": throttling(cpuThrottled, 1e6),
	"throttled_time": throttling(cpuThrottled, 1e9),
	"burst_usec":     throttling(cpuBurst, 1e6),
	"burst_time":     throttling(cpuBurst, 1e9),
}

// cpuacctStat is in ticks of USER_HZ, which is 100 on every architecture that
// huatuo runs on.
var cpuacctStat = keyed{
	"user":   emit(cpuSeconds, 100, "user"),
	"system": emit(cpuSeconds, 100, "system"),
}

func inactiveFile(e *entry, v uint64) { e.inactiveFile, e.hasInactiveFile = v, true }

// memoryStatV2 is memory.stat of v2, whose numbers include the groups below.
var memoryStatV2 = keyed{
	"inactive_file":           inactiveFile,
	"anon":                    emit(memoryAnon, 1),
	"file":                    emit(memoryFile, 1),
	"kernel":                  emit(memoryKernel, 1), // 5.18
	"shmem":                   emit(memoryShmem, 1),
	"file_mapped":             emit(memoryMapped, 1),
	"file_dirty":              emit(memoryDirty, 1),
	"file_writeback":          emit(memoryWriteback, 1),
	"slab":                    emit(memorySlab, 1),
	"sock":                    emit(memorySocket, 1),
	"pgfault":                 emit(memoryFaults, 1),
	"pgmajfault":              emit(memoryMajorFaults, 1),
	"pgscan":                  emit(memoryScanned, 1),
	"pgsteal":                 emit(memoryReclaimed, 1),
	"workingset_refault":      emit(memoryRefaults, 1, "file"), // before 5.9 only files were tracked
	"workingset_refault_anon": emit(memoryRefaults, 1, "anon"),
	"workingset_refault_file": emit(memoryRefaults, 1, "file"),
	"anon_thp":                nonzero(memoryHuge, 1, "anon"),
	"file_thp":                nonzero(memoryHuge, 1, "file"),
	"shmem_thp":               nonzero(memoryHuge, 1, "shmem"),
	"thp_fault_alloc":         nonzero(memoryHugeAllocations, 1, "fault"),
	"thp_collapse_alloc":      nonzero(memoryHugeAllocations, 1, "collapse"),
	"unevictable":             nonzero(memoryUnevictable, 1),
	"pagetables":              emit(memoryPageTables, 1),
	"zswap":                   nonzero(memoryZswap, 1),
	"zswapped":                nonzero(memoryZswapped, 1),
	"pswpin":                  nonzero(memorySwapped, 1, "in", "disk"),
	"pswpout":                 nonzero(memorySwapped, 1, "out", "disk"),
	"zswpin":                  nonzero(memorySwapped, 1, "in", "zswap"),
	"zswpout":                 nonzero(memorySwapped, 1, "out", "zswap"),
}

// memoryStatV1 takes the lines that include the groups below.
var memoryStatV1 = keyed{
	"total_inactive_file":           inactiveFile,
	"total_rss":                     emit(memoryAnon, 1),
	"total_cache":                   emit(memoryFile, 1),
	"total_shmem":                   emit(memoryShmem, 1),
	"total_mapped_file":             emit(memoryMapped, 1),
	"total_dirty":                   emit(memoryDirty, 1),
	"total_writeback":               emit(memoryWriteback, 1),
	"total_swap":                    emit(memorySwap, 1),
	"total_rss_huge":                nonzero(memoryHuge, 1, "anon"),
	"total_unevictable":             nonzero(memoryUnevictable, 1),
	"total_pgfault":                 emit(memoryFaults, 1),
	"total_pgmajfault":              emit(memoryMajorFaults, 1),
	"total_workingset_refault":      emit(memoryRefaults, 1, "file"),
	"total_workingset_refault_anon": emit(memoryRefaults, 1, "anon"),
	"total_workingset_refault_file": emit(memoryRefaults, 1, "file"),
}

var memoryEvents = keyed{
	"low":            emit(memoryEventsTotal, 1, "low"),
	"high":           emit(memoryEventsTotal, 1, "high"),
	"max":            emit(memoryEventsTotal, 1, eventMax...),
	"oom":            emit(memoryEventsTotal, 1, "oom"),
	"oom_kill":       emit(memoryEventsTotal, 1, "oom_kill"),
	"oom_group_kill": emit(memoryEventsTotal, 1, "oom_group_kill"),
}

var memoryOOMV1 = keyed{
	"oom_kill": emit(memoryEventsTotal, 1, "oom_kill"), // 4.13
}

// Label values, made once: a gathering round allocates none.
var (
	eventMax  = []string{"max"}
	ops       = [...]string{"read", "write", "discard"}
	opLabels  = [len(ops)][]string{{"read"}, {"write"}, {"discard"}}
	resources = [...]string{"cpu", "memory", "io"}

	pressureLabels = [len(resources)]struct{ some, full []string }{
		{[]string{"cpu", "some"}, []string{"cpu", "full"}},
		{[]string{"memory", "some"}, []string{"memory", "full"}},
		{[]string{"io", "some"}, []string{"io", "full"}},
	}
)
