package reclaim

import (
	"fmt"

	"huatuo/internal/kern/load"
	"huatuo/internal/signal"
)

// kinds by the number the program gives them, containerKinds likewise.
var (
	kinds          = [...]string{"direct", "memcg", "node", "compaction", "background_compaction"}
	containerKinds = [...]string{"direct", "memcg", "compaction"}
)

// reasons are VMSCAN_THROTTLE_* by number.
var reasons = [...]string{"writeback", "isolated", "noprogress", "congested"}

var (
	seconds = &signal.Schema{
		Name: "huatuo_reclaim_seconds", Kind: signal.Metric, Type: signal.Histogram, Unit: "seconds",
		Area: signal.AreaMemory, Scope: signal.Host,
		Help: "Time that a task spent to reclaim memory, or to compact a zone, before it got what it asked for.",
		Read: "direct: the host is short of memory; memcg: a workload is at its limit; compaction: memory is in pieces. Any that is frequent is felt as latency.",
		Fields: []signal.Field{{Name: "kind", Help: "direct: for an allocation; memcg: at the limit of a memory cgroup; node: before memory of another NUMA node is taken; compaction: of one zone, for an allocation or by request; background_compaction: of one zone by kcompactd, nobody waits",
			Values: kinds[:]}},
	}
	pages = &signal.Schema{
		Name: "huatuo_reclaim_pages_total", Kind: signal.Metric, Type: signal.Counter, Unit: "1",
		Area: signal.AreaMemory, Scope: signal.Host,
		Help:   "Pages that tasks reclaimed themselves.",
		Read:   "Few pages for much time in huatuo_reclaim_seconds: there is hardly anything left to reclaim.",
		Fields: []signal.Field{{Name: "kind", Help: "as in huatuo_reclaim_seconds", Values: kinds[:3]}},
	}
	throttled = &signal.Schema{
		Name: "huatuo_reclaim_throttled_seconds", Kind: signal.Metric, Type: signal.Histogram, Unit: "seconds",
		Area: signal.AreaMemory, Scope: signal.Host,
		Help: "Time that reclaim was made to sleep, as part of its time; kswapd's sleeps count as well.",
		Read: "writeback: dirty pages are not written fast enough; noprogress: nothing can be reclaimed; isolated: too many reclaim at once.",
		Fields: []signal.Field{{Name: "reason", Help: "the kernel's VMSCAN_THROTTLE_*",
			Values: reasons[:]}},
	}
	unmeasured = &signal.Schema{
		Name: "huatuo_reclaim_unmeasured_total", Kind: signal.Metric, Type: signal.Counter, Unit: "1",
		Area: signal.AreaAgent, Scope: signal.Host,
		Help: "Reclaims whose begin was not seen, or that shared a slot with another task.",
		Read: "Some when the probe starts; many mean that hundreds of tasks reclaim at once.",
	}
	containerSeconds = &signal.Schema{
		Name: "huatuo_container_reclaim_seconds", Kind: signal.Metric, Type: signal.Histogram, Unit: "seconds",
		Area: signal.AreaMemory, Scope: signal.Workload,
		Help: "Time that tasks of the workload spent to reclaim memory, or to compact a zone, before they got what they asked for.",
		Read: "memcg: it is at its own limit; direct: the host is short of memory, and it pays for that.",
		Fields: []signal.Field{{Name: "kind", Help: "direct, also for a NUMA node; memcg; compaction",
			Values: containerKinds[:]}},
	}
	containerPages = &signal.Schema{
		Name: "huatuo_container_reclaim_pages_total", Kind: signal.Metric, Type: signal.Counter, Unit: "1",
		Area: signal.AreaMemory, Scope: signal.Workload,
		Help: "Pages that tasks of the workload reclaimed themselves.",
		Read: "A workload that reclaims as fast as it reads files has a limit that is too small for its page cache.",
	}
)

func collect(b *signal.Batch, o *load.Object) error {
	var cpus []bpfHostStats
	if err := o.Map("host").Lookup(uint32(0), &cpus); err != nil {
		return fmt.Errorf("read histograms: %w", err)
	}
	var sum bpfHostStats
	for i := range cpus {
		c := &cpus[i]
		for k := range kinds {
			addFine(&sum.Seconds[k], &c.Seconds[k])
			sum.Pages[k] += c.Pages[k]
		}
		for r := range reasons {
			add(&sum.Throttled[r], &c.Throttled[r])
		}
		sum.Unmeasured += c.Unmeasured
	}
	for k, name := range kinds {
		h := &sum.Seconds[k]
		b.Hist(seconds, signal.LatencyHist(2, h.Zero, h.Sum, h.Slots[:]), name)
		if k < len(pages.Fields[0].Values) {
			b.Value(pages, float64(sum.Pages[k]), name)
		}
	}
	if o.Attached("mm_vmscan_throttled") {
		for r, name := range reasons {
			h := &sum.Throttled[r]
			b.Hist(throttled, signal.LatencyHist(0, h.Zero, h.Sum, h.Slots[:]), name)
		}
	}
	b.Value(unmeasured, float64(sum.Unmeasured))
	return collectCgroups(b, o)
}

func collectCgroups(b *signal.Batch, o *load.Object) error {
	var id uint64
	var s bpfCgroupStats
	it := o.Map("cgroups").Iterate()
	for it.Next(&id, &s) {
		for k, name := range containerKinds {
			h := &s.Seconds[k]
			b.WorkloadHist(containerSeconds, id, signal.LatencyHist(0, h.Zero, h.Sum, h.Slots[:]), name)
		}
		b.WorkloadValue(containerPages, id, float64(s.Pages))
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("read histograms of cgroups: %w", err)
	}
	return nil
}

func addFine(to, h *bpfHtHistFine) {
	to.Zero += h.Zero
	to.Sum += h.Sum
	for i, n := range h.Slots {
		to.Slots[i] += n
	}
}

func add(to, h *bpfHtHist) {
	to.Zero += h.Zero
	to.Sum += h.Sum
	for i, n := range h.Slots {
		to.Slots[i] += n
	}
}
