// Package blockio measures how long block requests wait and take, and reports
// those that stall, hang or fail.
package blockio

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"huatuo/internal/kern/cgroup"
	"huatuo/internal/kern/load"
	"huatuo/internal/probe"
	"huatuo/internal/signal"
)

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -no-global-types -type io_wire -type io_key -type io_stats -type io_sizes -type io_cgroup -type flight -type ht_hist -type ht_hist_fine bpf blockio.bpf.c -- -I../../../bpf/include -Wall -Werror -mcpu=v2
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -no-global-types bpfLegacy blockio.bpf.c -- -I../../../bpf/include -Wall -Werror -mcpu=v2 -DHT_LEGACY

//go:embed README.md
var readme string

// Config of the probe.
type Config struct {
	Stall            time.Duration `yaml:"stall" help:"a request that takes this long from when it was made is an io_stall event, while it still hangs and when it completes; 1s is beyond any healthy device and far below the kernel's own 30s timeout"`
	probe.EventKnobs `yaml:",inline"`
}

// Spec describes the probe.
func Spec() probe.Spec {
	return probe.New(probe.Meta{
		Name:   "blockio",
		Help:   "Measures how long block requests wait and take, and reports those that stall, hang or fail.",
		Readme: readme,
		Source: "block:block_rq_insert, block_rq_issue, block_rq_complete, block_rq_requeue, block_rq_merge, block_bio_backmerge, block_bio_frontmerge",
		Since:  "4.18",
		Emits: []*signal.Schema{queueSeconds, deviceSeconds, totalSeconds, sizeBytes, bytesTotal, errorsTotal, requeues, merges, inflight, unmeasured,
			containerSeconds, containerBytes, containerMerges, stalled, failed},
	}, Config{
		Stall:      time.Second,
		EventKnobs: probe.EventKnobs{Rate: 1, Burst: 10},
	}, run)
}

// minStall keeps the scanner's period sane.
const minStall = 10 * time.Millisecond

func run(ctx context.Context, env *probe.Env, cfg Config) error {
	if cfg.Stall < minStall {
		return fmt.Errorf("probes.blockio.stall is %v: want at least %v", cfg.Stall, minStall)
	}
	o, err := attach(env, cfg)
	if err != nil {
		return err
	}
	defer o.Close()

	n := newNames(env.Root)
	groups := workloads(env)
	if groups != nil {
		defer groups.Close()
	}
	table, err := openFlights(o.Map("flights"))
	if err != nil {
		return err
	}
	c := &collector{o: o, names: n, groups: groups, flights: table}
	env.Collect(c.collect)

	// Events of the scanner are counted besides those that the programs count.
	s := &scanner{env: env, names: n, groups: groups, flights: table, stall: cfg.Stall, queued: o.Attached("block_rq_merge")}
	inner := *env
	inner.Lost = func(f func() probe.Loss) {
		env.Lost(func() probe.Loss {
			l := f()
			l.Observed += s.emitted.Load()
			return l
		})
	}
	done := make(chan struct{})
	go func() { defer close(done); s.run(ctx) }()
	d := &decoder{clock: env.Clock, names: n, groups: groups}
	err = probe.Stream(ctx, &inner, o, d.decode)
	<-done
	return err
}

// attach loads the programs in the form that this kernel's tracepoints have.
func attach(env *probe.Env, cfg Config) (*load.Object, error) {
	l, err := env.Kernel.Load(loadBpf, loadBpfLegacy)
	if err != nil {
		return nil, err
	}
	l.Spec.Maps["devices"].MaxEntries = devicesMax(env.Root)
	if err := l.Set("stall_ns", uint64(cfg.Stall)); err != nil {
		return nil, err
	}
	for _, kind := range []string{"io_stall", "io_error"} {
		if err := cfg.Set(l, kind); err != nil {
			return nil, err
		}
	}
	hooks := []load.Hook{
		form(env.Kernel, "block_rq_issue"), load.TP("block_rq_complete"),
		form(env.Kernel, "block_rq_insert").Maybe(), form(env.Kernel, "block_rq_requeue").Maybe(), load.TP("block_rq_merge").Maybe(),
		form(env.Kernel, "block_bio_backmerge").Maybe(), form(env.Kernel, "block_bio_frontmerge").Maybe(),
	}
	o, err := l.Attach(hooks...)
	if err != nil || !mixed(o.Hooks()) {
		return o, err
	}
	o.Close()
	for i := range hooks {
		hooks[i].Programs = hooks[i].Programs[1:] // the raw ones
	}
	return l.Attach(hooks...)
}

// form is the hook of a tracepoint whose first argument was the queue once: see
// bpf/include/core_fixes.h.
func form(k *load.Kernel, name string) load.Hook {
	h := load.TP(name)
	if n := k.TracepointArgs(name); n != 1 {
		h.Programs = []string{name + "_q_btf", name + "_q_raw"}
	}
	return h
}

// mixed tells whether the kernel took programs of both kinds: they key the
// requests under way differently, so all must be of one.
func mixed(hooks []load.HookState) bool {
	kind := ""
	for _, h := range hooks {
		if h.By != "" && kind != "" && h.By != kind {
			return true
		}
		if h.By != "" {
			kind = h.By
		}
	}
	return false
}

// devicesMax sizes the map of device × operation, whose values are 2 KB per
// CPU, for the disks of this host and some that may be plugged in.
func devicesMax(root string) uint32 {
	const spare, most = 8, 400
	ds, err := os.ReadDir(filepath.Join(root, "sys/block"))
	if err != nil {
		return 256
	}
	return uint32(min(len(ds)+spare, most)) * 4 // of the five operations a disk sees four at most, as a rule
}

// workloads returns what tells a workload by the cgroup of a request; nil, and
// the reason in the log, when that is not possible.
func workloads(env *probe.Env) *cgroup.Translator {
	l, err := env.Layout, error(nil)
	if l == nil {
		l, err = cgroup.Detect(env.Root)
	}
	if err == nil {
		var t *cgroup.Translator
		if t, err = l.Translator("blkio"); err == nil {
			return t
		}
	}
	if errors.Is(err, errors.ErrUnsupported) {
		env.Log.Info("block I/O is not told by workload", "reason", err)
	} else {
		env.Log.Warn("block I/O is not told by workload", "reason", err)
	}
	return nil
}
