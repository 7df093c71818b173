package ras

import (
	"context"
	"path/filepath"
	"sync"
	"time"

	"huatuo/internal/kern/sysfs"
	"huatuo/internal/probe"
	"huatuo/internal/signal"
)

const (
	// edacEvery: what it counts is also seen at once, by the tracepoint.
	edacEvery = 30 * time.Second
	edacWait  = 5 * time.Second
)

// edac reads the totals of the drivers of memory controllers.
type edac struct{ dir string }

// watchEDAC reads them now and then until ctx is done or stop is called, when
// there are any: drivers are loaded when the machine starts.
func watchEDAC(ctx context.Context, env *probe.Env) (stop func()) {
	e := edac{dir: filepath.Join(env.Root, "sys/devices/system/edac/mc")}
	names := func() []string {
		var out []string
		for _, n := range sysfs.List(e.dir, "mc") {
			if n != "mc" {
				out = append(out, n)
			}
		}
		return out
	}
	if len(names()) == 0 {
		return func() {}
	}
	asker := probe.NewAsker(edacWait, e.controller)
	env.Collect(func(b *signal.Batch) error {
		for _, a := range asker.Answers() {
			v := 0.0
			if a.Hung {
				v = 1
			}
			b.Value(edacHung, v, a.Name)
			if a.Known && !a.Hung {
				b.Samples = append(b.Samples, a.Value...)
			}
		}
		return nil
	})
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		probe.Every(ctx, edacEvery, func() error { asker.Ask(ctx, names()); return nil })
	})
	return func() { cancel(); wg.Wait() }
}

func (e edac) controller(mc string) ([]signal.Sample, error) {
	b := new(signal.Batch)
	dir := filepath.Join(e.dir, mc)
	e.counts(b, dir, "ce_noinfo_count", "ue_noinfo_count", mc, "", "")
	for _, prefix := range []string{"dimm", "rank"} { // rank: controllers that do not see DIMMs
		for _, d := range sysfs.List(dir, prefix) {
			label, _ := sysfs.Text(dir, d, "dimm_label")
			e.counts(b, filepath.Join(dir, d), "dimm_ce_count", "dimm_ue_count", mc, d, label)
		}
	}
	return b.Samples, nil
}

func (e edac) counts(b *signal.Batch, dir, ce, ue string, labels ...string) {
	for _, c := range []struct{ file, severity string }{{ce, "corrected"}, {ue, "uncorrected"}} {
		if v, ok := sysfs.Uint(dir, c.file); ok {
			b.Value(edacErrors, float64(v), append(labels[:len(labels):len(labels)], c.severity)...)
		}
	}
}
