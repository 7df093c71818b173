// Package vmstat reports the kernel's counters of memory management: faults,
// reclaim, swap, compaction, huge pages, NUMA.
package vmstat

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"path/filepath"

	"huatuo/internal/kern/load"
	"huatuo/internal/kern/procfs"
	"huatuo/internal/probe"
	"huatuo/internal/signal"
)

//go:embed README.md
var readme string

// Config of the probe: it has no settings.
type Config struct{}

// Spec describes the probe.
func Spec() probe.Spec {
	emits := make([]*signal.Schema, len(fields))
	for i, f := range fields {
		emits[i] = f.schema
	}
	return probe.New(probe.Meta{
		Name:   "vmstat",
		Help:   "Reports the kernel's counters of faults, reclaim, swap, compaction and huge pages.",
		Readme: readme,
		Emits:  emits,
		Since:  "4.18",
		Source: "/proc/vmstat",
	}, Config{}, run)
}

func run(ctx context.Context, env *probe.Env, _ Config) error {
	p := newPoller(filepath.Join(env.Root, "proc/vmstat"))
	if err := p.collect(new(signal.Batch)); err != nil {
		return err
	}
	env.Collect(p.collect)
	env.Ready(load.HookState{Hook: "/proc/vmstat", By: "procfs"})
	<-ctx.Done()
	return nil
}

type poller struct {
	path string
	buf  []byte
	slot map[string]int // name in the file → index of fields
	sums []sum          // by index of fields, of this round
}

type sum struct {
	value uint64
	seen  bool
}

func newPoller(path string) *poller {
	p := &poller{path: path, slot: make(map[string]int, 2*len(fields)), sums: make([]sum, len(fields))}
	for i, f := range fields {
		for _, key := range f.keys {
			p.slot[key] = i
		}
	}
	return p
}

func (p *poller) collect(b *signal.Batch) error {
	var err error
	if p.buf, err = procfs.ReadInto(p.path, p.buf); err != nil {
		return fmt.Errorf("read memory management counters: %w", err)
	}
	if !p.parse(p.buf) {
		return errors.New("parse memory management counters: no known field in " + p.path)
	}
	for i, s := range p.sums {
		if s.seen {
			b.Value(fields[i].schema, float64(s.value)*fields[i].scale)
		}
	}
	return nil
}

// parse fills p.sums; it is length-safe, passes over what it does not know and
// tells whether it knew anything.
func (p *poller) parse(file []byte) bool {
	clear(p.sums)
	known := false
	for line := range bytes.Lines(file) {
		key, rest, ok := bytes.Cut(line, []byte(" "))
		if !ok {
			continue
		}
		i, ok := p.slot[string(key)]
		if !ok {
			continue
		}
		v, ok := procfs.Uint(bytes.TrimSpace(rest))
		if !ok {
			continue
		}
		p.sums[i].value += v
		p.sums[i].seen, known = true, true
	}
	return known
}
