package reclaim

import (
	"fmt"
	"strings"
	"time"

	"huatuo/internal/kern/ring"
	"huatuo/internal/probe"
	"huatuo/internal/signal"
)

// ReclaimStall is the body of a direct_reclaim_stall event. The record's
// process is the one that reclaimed, its stacks are those of the allocation.
type ReclaimStall struct {
	ReclaimKind   string  `json:"reclaim_kind" help:"direct (the host is short of memory), memcg (at the limit of a memory cgroup) or node (of one NUMA node)"`
	StallSeconds  float64 `json:"stall_seconds" unit:"seconds" help:"length of this reclaim"`
	SumSeconds    float64 `json:"sum_seconds" unit:"seconds" help:"when the sum of several made the event: how long they took"`
	WindowSeconds float64 `json:"window_seconds" unit:"seconds" help:"when the sum of several made the event: in how much time"`
	Calls         uint32  `json:"calls" help:"when the sum of several made the event: how many"`
	Order         int32   `json:"order" help:"2^order pages in a row were wanted"`
	GFP           string  `json:"gfp" help:"flags of the allocation, without __GFP_"`
	Pages         uint64  `json:"pages" help:"pages that this reclaim gave"`
}

// CompactionStall is the body of a compaction_stall event. The record's process
// is the one that compacted, its stacks are those of the allocation.
type CompactionStall struct {
	StallSeconds float64 `json:"stall_seconds" unit:"seconds" help:"how long the zone was compacted"`
	Order        int32   `json:"order" help:"2^order pages in a row were wanted; -1: as many as can be, by request of the administrator"`
	GFP          string  `json:"gfp" help:"flags of the allocation, without __GFP_"`
	Status       string  `json:"status" help:"outcome, the kernel's COMPACT_*: success, complete (all was looked at, in vain), contended (it gave up), …"`
}

var (
	reclaimStall = signal.EventOf[ReclaimStall]("direct_reclaim_stall", signal.AreaMemory, signal.Warning,
		"A task reclaimed memory itself for longer than the threshold.").When(
		"One reclaim of `reclaim` (100ms), which a request with a deadline does not survive, or `reclaim_sum` (900ms) of a thread within 10 s, a tenth of its time.",
		"A workload that reads more files than its memory limit holds reclaims page cache all the time, in microseconds each. kswapd makes none: nobody waits for it.")
	compactionStall = signal.EventOf[CompactionStall]("compaction_stall", signal.AreaMemory, signal.Warning,
		"A task compacted memory itself for longer than the threshold.").When(
		"Compaction of one zone for `compaction` (50ms) before an allocation: the program stands meanwhile.",
		"What kcompactd does, for nobody waits for it. Huge pages on a machine that has run long take some.")
)

// Kinds as the program numbers them.
const kindCompaction = 3

// decode is pure: golden and fuzz tests call it.
func decode(raw []byte, clock func(uint64) time.Time) (*signal.Record, error) {
	w, err := ring.View[bpfStallWire](raw)
	if err != nil {
		return nil, fmt.Errorf("decode reclaim: %w", err)
	}
	if w.Kind > kindCompaction {
		return nil, fmt.Errorf("decode reclaim: unknown kind %d", w.Kind)
	}
	p := signal.Process{PID: w.Tgid, TID: w.Pid, Comm: probe.CString(w.Comm[:])}
	r := &signal.Record{
		Time: clock(w.Ts), Suppressed: w.Suppressed, CgroupID: w.Cgroup, Process: p,
		KernelIPs: probe.Stack(w.Frames, w.Stack[:]), UserIPs: probe.Stack(w.UserFrames, w.User[:]),
	}
	secs := time.Duration(w.Ns).Seconds()
	kind := kinds[w.Kind : w.Kind+1]
	r.Measures = []signal.Measure{{Schema: seconds, Labels: kind, Value: secs}}
	if kind[0] != "node" {
		r.Measures = append(r.Measures, signal.Measure{Schema: containerSeconds, Labels: kind, CgroupID: w.Cgroup, Value: secs})
	}
	if w.Kind == kindCompaction {
		b := &CompactionStall{StallSeconds: secs, Order: w.Order, GFP: gfpNames(w.Gfp), Status: statusName(w.Status)}
		r.Schema, r.Body = compactionStall, b
		r.Title = fmt.Sprintf("%s (pid %d) compacted memory for %s: %s", p.Comm, p.PID, round(secs), b.Status)
		return r, nil
	}
	b := &ReclaimStall{ReclaimKind: kind[0], StallSeconds: secs, Order: w.Order, GFP: gfpNames(w.Gfp), Pages: w.Pages}
	r.Schema, r.Body = reclaimStall, b
	if w.Sum == 0 {
		r.Title = fmt.Sprintf("%s (pid %d) reclaimed memory for %s%s and got %d pages", p.Comm, p.PID, round(secs), why[b.ReclaimKind], b.Pages)
		return r, nil
	}
	b.SumSeconds, b.WindowSeconds, b.Calls = time.Duration(w.Sum).Seconds(), time.Duration(w.Window).Seconds(), w.Calls
	r.Title = fmt.Sprintf("%s (pid %d) reclaimed memory %d times for %s in %s%s", p.Comm, p.PID, b.Calls, round(b.SumSeconds), round(b.WindowSeconds), why[b.ReclaimKind])
	return r, nil
}

// why memory was reclaimed, for the title.
var why = map[string]string{"direct": "", "memcg": " at the limit of its memory cgroup", "node": " of one NUMA node"}

func round(secs float64) time.Duration {
	return time.Duration(secs * float64(time.Second)).Round(100 * time.Microsecond)
}

// gfp are the bits of an allocation's flags, as they are since v5.8; bit 9 has been
// ATOMIC until v6.3 and nothing since, later ones than ACCOUNT depend on the configuration.
var gfp = [...]string{"DMA", "HIGHMEM", "DMA32", "MOVABLE", "RECLAIMABLE", "HIGH", "IO", "FS", "ZERO", "", "DIRECT_RECLAIM", "KSWAPD_RECLAIM",
	"WRITE", "NOWARN", "RETRY_MAYFAIL", "NOFAIL", "NORETRY", "MEMALLOC", "COMP", "NOMEMALLOC", "HARDWALL", "THISNODE", "ACCOUNT"}

func gfpNames(flags uint32) string {
	var on []string
	for i, n := range gfp {
		if flags>>i&1 != 0 && n != "" {
			on = append(on, n)
		}
	}
	return strings.Join(on, "|")
}

// statuses are enum compact_result by number, unchanged since v5.8.
var statuses = [...]string{"not_suitable_zone", "skipped", "deferred", "no_suitable_page", "continue", "complete", "partial_skipped", "contended", "success"}

func statusName(n int32) string {
	if n >= 0 && int(n) < len(statuses) {
		return statuses[n]
	}
	return fmt.Sprintf("status %d", n)
}
