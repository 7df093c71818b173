// Package pressure reports the host's pressure stall information: the time
// that tasks stood still because CPU, memory or I/O was short.
package pressure

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"huatuo/internal/kern/load"
	"huatuo/internal/kern/procfs"
	"huatuo/internal/probe"
	"huatuo/internal/signal"
)

//go:embed README.md
var readme string

var stall = &signal.Schema{
	Name: "huatuo_pressure_stall_seconds_total", Kind: signal.Metric, Type: signal.Counter, Unit: "seconds", Area: signal.AreaSystem, Scope: signal.Host,
	Help: "Time in which tasks of the host stood still because a resource was short.",
	Read: "rate() is the share of time lost (0 to 1). some above 0.1: work is delayed. full above 0.05: for that share of time nothing useful ran at all.",
	Fields: []signal.Field{
		{Name: "resource", Help: "What was short; irq is time taken by interrupts, on kernels that account for it.", Values: []string{"cpu", "memory", "io", "irq"}},
		{Name: "kind", Help: "some: at least one task waited; full: all tasks that were not idle waited.", Values: []string{"some", "full"}},
	},
}

// resource is one file of /proc/pressure, with its label values made once.
type resource struct {
	name       string
	some, full []string // nil: not reported
}

// resources leaves out cpu full: for a whole host it has no meaning, and newer
// kernels print a line of zeros only to keep the format.
var resources = []resource{
	{"cpu", []string{"cpu", "some"}, nil},
	{"memory", []string{"memory", "some"}, []string{"memory", "full"}},
	{"io", []string{"io", "some"}, []string{"io", "full"}},
	{"irq", nil, []string{"irq", "full"}}, // 6.1, with CONFIG_IRQ_TIME_ACCOUNTING
}

// Config of the probe: it has no settings.
type Config struct{}

// Spec describes the probe.
func Spec() probe.Spec {
	return probe.New(probe.Meta{
		Name:   "pressure",
		Help:   "Reports the time that the host's tasks stood still for want of CPU, memory or I/O.",
		Readme: readme,
		Emits:  []*signal.Schema{stall},
		Since:  "4.20",
		Source: "/proc/pressure",
	}, Config{}, run)
}

func run(ctx context.Context, env *probe.Env, _ Config) error {
	dir := filepath.Join(env.Root, "proc/pressure")
	found, err := present(dir)
	if err != nil {
		return err
	}
	var buf []byte
	env.Collect(func(b *signal.Batch) error {
		for _, r := range found {
			if buf, err = procfs.ReadInto(filepath.Join(dir, r.name), buf); err != nil {
				return fmt.Errorf("read pressure: %w", err)
			}
			add(b, r, procfs.ParsePressure(buf))
		}
		return nil
	})
	hooks := make([]load.HookState, len(found))
	for i, r := range found {
		hooks[i] = load.HookState{Hook: "/proc/pressure/" + r.name, By: "procfs"}
	}
	env.Ready(hooks...)
	<-ctx.Done()
	return nil
}

// present returns the resources that this kernel tells of. A kernel with PSI
// switched off has no such files, or has them and refuses to read (before 5.14).
func present(dir string) ([]resource, error) {
	var found []resource
	var buf []byte
	for _, r := range resources {
		var err error
		buf, err = procfs.ReadInto(filepath.Join(dir, r.name), buf)
		switch {
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, errors.ErrUnsupported):
		case err != nil:
			return nil, fmt.Errorf("read pressure: %w", err)
		default:
			found = append(found, r)
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("no pressure stall information: boot with psi=1 (needs Linux 4.20 and CONFIG_PSI): %w", errors.ErrUnsupported)
	}
	return found, nil
}

func add(b *signal.Batch, r resource, p procfs.Pressure) {
	if p.HasSome && r.some != nil {
		b.Value(stall, float64(p.Some)/1e6, r.some...)
	}
	if p.HasFull && r.full != nil {
		b.Value(stall, float64(p.Full)/1e6, r.full...)
	}
}
