// Package reclaim measures how long tasks reclaim memory or compact it before
// they get some.
package reclaim

import (
	"context"
	_ "embed"
	"fmt"
	"time"

	"huatuo/internal/kern/load"
	"huatuo/internal/probe"
	"huatuo/internal/signal"
)

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -no-global-types -type stall_wire -type host_stats -type cgroup_stats -type ht_hist -type ht_hist_fine bpf reclaim.bpf.c -- -I../../../bpf/include -Wall -Werror -mcpu=v2
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -no-global-types bpfLegacy reclaim.bpf.c -- -I../../../bpf/include -Wall -Werror -mcpu=v2 -DHT_LEGACY

//go:embed README.md
var readme string

// Config of the probe.
type Config struct {
	Reclaim          time.Duration `yaml:"reclaim" help:"one reclaim of this length is a direct_reclaim_stall event; 100ms is what a request with a deadline does not survive"`
	ReclaimSum       time.Duration `yaml:"reclaim_sum" help:"a thread that spent this long in reclaim within 10s is a direct_reclaim_stall event as well: 900ms is a tenth of its time"`
	Compaction       time.Duration `yaml:"compaction" help:"compaction of one zone that takes this long, before an allocation, is a compaction_stall event"`
	probe.EventKnobs `yaml:",inline"`
}

// Spec describes the probe.
func Spec() probe.Spec {
	return probe.New(probe.Meta{
		Name:   "reclaim",
		Help:   "Measures how long tasks reclaim memory or compact it before they get some.",
		Readme: readme,
		Source: "vmscan:mm_vmscan_{direct,memcg,node}_reclaim_{begin,end}, mm_vmscan_throttled, compaction:mm_compaction_{begin,end}, mm_compaction_try_to_compact_pages",
		Since:  "4.18",
		Emits:  []*signal.Schema{seconds, pages, throttled, unmeasured, containerSeconds, containerPages, reclaimStall, compactionStall},
	}, Config{
		Reclaim:    100 * time.Millisecond,
		ReclaimSum: 900 * time.Millisecond,
		Compaction: 50 * time.Millisecond,
		EventKnobs: probe.EventKnobs{Rate: 5, Burst: 10},
	}, run)
}

func run(ctx context.Context, env *probe.Env, cfg Config) error {
	l, err := env.Kernel.Load(loadBpf, loadBpfLegacy)
	if err != nil {
		return err
	}
	for _, c := range []struct {
		key, constant string
		d             time.Duration
	}{{"reclaim", "reclaim_ns", cfg.Reclaim}, {"reclaim_sum", "reclaim_sum_ns", cfg.ReclaimSum}, {"compaction", "compaction_ns", cfg.Compaction}} {
		if c.d <= 0 {
			return fmt.Errorf("probes.reclaim.%s is %v: want a positive duration", c.key, c.d)
		}
		if err := l.Set(c.constant, uint64(c.d)); err != nil {
			return err
		}
	}
	for _, kind := range []string{"direct_reclaim_stall", "compaction_stall"} {
		if err := cfg.Set(l, kind); err != nil {
			return err
		}
	}
	o, err := l.Attach(hooks(env.Kernel.TracepointArgs)...)
	if err != nil {
		return err
	}
	defer o.Close()

	env.Collect(load.Guard(o, func(b *signal.Batch) error { return collect(b, o) }))
	env.Ready(o.Hooks()...)
	return probe.Stream(ctx, env, o, func(raw []byte) (*signal.Record, error) { return decode(raw, env.Clock) })
}

// hooks chooses the form of each program by how many arguments the kernel's
// tracepoint has: see core_fixes.h.
func hooks(args func(string) int) []load.Hook {
	form := func(name string, n int, suffix string) load.Hook {
		h := load.TP(name)
		if a := args(name); a == n || a == 0 && n > 3 { // 0: so old that its BTF does not tell
			h.Programs = []string{name + suffix + "_btf", name + suffix + "_raw"}
		}
		return h
	}
	hs := []load.Hook{form("mm_vmscan_direct_reclaim_begin", 3, "_3"), load.TP("mm_vmscan_direct_reclaim_end")}
	for _, h := range []load.Hook{ // not in every configuration of the kernel
		form("mm_vmscan_memcg_reclaim_begin", 3, "_3"), load.TP("mm_vmscan_memcg_reclaim_end"),
		load.TP("mm_vmscan_node_reclaim_begin"), load.TP("mm_vmscan_node_reclaim_end"),
		load.TP("mm_compaction_try_to_compact_pages"), form("mm_compaction_begin", 5, "_5"), form("mm_compaction_end", 6, "_6"),
		load.TP("mm_vmscan_throttled"), // 5.16
	} {
		hs = append(hs, h.Maybe())
	}
	return hs
}
