// Package cpustat reports what the CPUs of the host spend their time on, and
// the kernel's counters of switches, forks and interrupts.
package cpustat

import (
	"context"
	_ "embed"
	"fmt"
	"path/filepath"
	"strconv"

	"huatuo/internal/kern/load"
	"huatuo/internal/kern/procfs"
	"huatuo/internal/probe"
	"huatuo/internal/signal"
)

//go:embed README.md
var readme string

// Config of the probe.
type Config struct {
	PerCPUMax int `yaml:"per_cpu_max" help:"report each CPU on its own on hosts with at most this many CPUs (10 series a CPU); 0 means never"`
}

// Spec describes the probe.
func Spec() probe.Spec {
	return probe.New(probe.Meta{
		Name:   "cpustat",
		Help:   "Reports what the CPUs of the host spend their time on.",
		Readme: readme,
		Emits: []*signal.Schema{
			cpuSeconds, coreSeconds, cpuCount, contextSwitches, interrupts, softirqs, forks, running, blocked, bootTime,
		},
		Since:  "4.18",
		Source: "/proc/stat",
	}, Config{
		PerCPUMax: 64, // 640 series: as many as all other host metrics together
	}, run)
}

func run(ctx context.Context, env *probe.Env, cfg Config) error {
	p := &poller{path: filepath.Join(env.Root, "proc/stat"), cfg: cfg}
	if err := p.collect(new(signal.Batch)); err != nil {
		return err
	}
	env.Collect(p.collect)
	env.Ready(load.HookState{Hook: "/proc/stat", By: "procfs"})
	<-ctx.Done()
	return nil
}

// poller reads /proc/stat. Rounds never overlap, so it needs no lock.
type poller struct {
	path string
	cfg  Config
	buf  []byte
	stat stat
	all  steady
	core map[int]*core
}

// core is what one CPU has shown so far, and its label values.
type core struct {
	steady
	labels [nModes][]string
}

func (p *poller) collect(b *signal.Batch) error {
	var err error
	if p.buf, err = procfs.ReadInto(p.path, p.buf); err != nil {
		return fmt.Errorf("read CPU statistics: %w", err)
	}
	if err := p.stat.parse(p.buf); err != nil {
		return fmt.Errorf("parse %s: %w", p.path, err)
	}
	s := &p.stat
	p.all.take(s.all)
	for m := range s.columns {
		b.Value(cpuSeconds, seconds(p.all.seen[m]), modeLabels[m]...)
	}
	b.Value(cpuCount, float64(len(s.cores)))
	if len(s.cores) <= p.cfg.PerCPUMax {
		p.collectCores(b)
	}
	for _, c := range s.counters {
		b.Value(c.schema, float64(c.value))
	}
	for i, n := range s.softirq {
		b.Value(softirqs, float64(n), vectorLabels[i]...)
	}
	return nil
}

func (p *poller) collectCores(b *signal.Batch) {
	if p.core == nil {
		p.core = make(map[int]*core, len(p.stat.cores))
	}
	for i := range p.stat.cores {
		c := &p.stat.cores[i]
		k := p.core[c.id]
		if k == nil {
			k = new(core)
			for m := range k.labels {
				k.labels[m] = []string{strconv.Itoa(c.id), modes[m]}
			}
			p.core[c.id] = k
		}
		k.take(c.ticks)
		for m := range p.stat.columns {
			b.Value(coreSeconds, seconds(k.seen[m]), k.labels[m]...)
		}
	}
}

// steady keeps counters from going back.
type steady struct{ seen [nModes]uint64 }

// jump is the step back that still counts as noise, in ticks (3 s): idle and
// iowait of a CPU are estimates and may shrink by a little, and user is read an
// instant before guest, which is subtracted from it. A counter that went back
// would read as a reset, that is as a spike of its whole value. A larger step
// is a real reset (a CPU that went offline and came back).
const jump = 3 * userHZ

func (s *steady) take(now [nModes]uint64) {
	for m, v := range now {
		if v < s.seen[m] && s.seen[m]-v < jump {
			continue
		}
		s.seen[m] = v
	}
}

func seconds(ticks uint64) float64 { return float64(ticks) / userHZ }
