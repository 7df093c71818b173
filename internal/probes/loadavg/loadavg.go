// Package loadavg reports the kernel's load averages and the number of tasks.
package loadavg

import (
	"bytes"
	"context"
	_ "embed"
	"fmt"
	"path/filepath"

	"huatuo/internal/kern/load"
	"huatuo/internal/kern/procfs"
	"huatuo/internal/probe"
	"huatuo/internal/signal"
)

//go:embed README.md
var readme string

var average = &signal.Schema{
	Name: "huatuo_load_average", Kind: signal.Metric, Type: signal.Gauge, Unit: "1", Area: signal.AreaCPU, Scope: signal.Host,
	Help: "Load average of the host: tasks running, waiting for a CPU or in uninterruptible sleep, averaged.",
	Read: "Compare with huatuo_cpus; when it is far above, see huatuo_processes_blocked for whether the tasks want CPU or wait for a device.",
	Fields: []signal.Field{
		{Name: "window", Help: "Averaging window.", Values: []string{"1m", "5m", "15m"}},
	},
}

var tasks = &signal.Schema{
	Name: "huatuo_tasks", Kind: signal.Metric, Type: signal.Gauge, Unit: "1", Area: signal.AreaProcess, Scope: signal.Host,
	Help: "Tasks (threads of user processes and of the kernel) that exist on the host.",
	Read: "A steady climb is a leak of threads; the limits are kernel.threads-max and kernel.pid_max.",
}

// windows holds the label values of average, made once: a gathering round allocates none.
var windows = [3][]string{{"1m"}, {"5m"}, {"15m"}}

// Config of the probe: it has no settings.
type Config struct{}

// Spec describes the probe.
func Spec() probe.Spec {
	return probe.New(probe.Meta{
		Name:   "loadavg",
		Help:   "Reports the kernel's load averages and the number of tasks.",
		Readme: readme,
		Emits:  []*signal.Schema{average, tasks},
		Since:  "4.18",
		Source: "/proc/loadavg",
	}, Config{}, run)
}

func run(ctx context.Context, env *probe.Env, _ Config) error {
	path := filepath.Join(env.Root, "proc/loadavg")
	var buf []byte
	collect := func(b *signal.Batch) error {
		var err error
		if buf, err = procfs.ReadInto(path, buf); err != nil {
			return fmt.Errorf("read load averages: %w", err)
		}
		l, err := parse(buf)
		if err != nil {
			return err
		}
		for i, v := range l.average {
			b.Value(average, v, windows[i]...)
		}
		b.Value(tasks, float64(l.tasks))
		return nil
	}
	if err := collect(new(signal.Batch)); err != nil {
		return err
	}
	env.Collect(collect)
	env.Ready(load.HookState{Hook: "/proc/loadavg", By: "procfs"})
	<-ctx.Done()
	return nil
}

type loads struct {
	average [3]float64
	tasks   uint64
}

func parse(b []byte) (loads, error) {
	var l loads
	n := 0
	for f := range bytes.FieldsSeq(b) {
		ok := true
		switch n {
		case 0, 1, 2:
			l.average[n], ok = procfs.Float(f)
		case 3: // running/existing
			_, all, _ := bytes.Cut(f, []byte("/"))
			l.tasks, ok = procfs.Uint(all)
		}
		if !ok {
			return loads{}, fmt.Errorf("parse load averages: bad token %q", f)
		}
		n++
	}
	if n < 4 {
		return loads{}, fmt.Errorf("parse load averages: %d tokens, want 5", n)
	}
	return l, nil
}
