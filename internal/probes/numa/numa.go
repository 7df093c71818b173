// Package numa reports how memory is used and handed out on each NUMA node.
package numa

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

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
	emits := make([]*signal.Schema, 0, len(fields)+2)
	for _, f := range fields {
		emits = append(emits, f.schema)
	}
	return probe.New(probe.Meta{
		Name:   "numa",
		Help:   "Reports how memory is used and handed out on each NUMA node.",
		Readme: readme,
		Emits:  append(emits, hugePages, allocations),
		Since:  "4.18",
		Source: "/sys/devices/system/node/node*/meminfo, numastat",
	}, Config{}, run)
}

func run(ctx context.Context, env *probe.Env, _ Config) error {
	p := newPoller(filepath.Join(env.Root, "sys/devices/system/node"))
	if _, err := os.Stat(p.dir); errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("no %s: the kernel has no NUMA (CONFIG_NUMA): %w", p.dir, errors.ErrUnsupported)
	}
	if err := p.collect(new(signal.Batch)); err != nil {
		return err
	}
	env.Collect(p.collect)
	env.Ready(load.HookState{Hook: "/sys/devices/system/node", By: "sysfs"})
	<-ctx.Done()
	return nil
}

// poller reads the nodes that have memory or had it in the round before.
type poller struct {
	dir   string
	buf   []byte
	table map[string]field
	round int
	nodes []string // numbers
}

// lookEvery is how often nodes are listed, in rounds: memory is seldom plugged.
const lookEvery = 12

func newPoller(dir string) *poller {
	t := make(map[string]field, len(fields)+len(hugePageStates))
	for _, f := range fields {
		t[f.key] = f
	}
	for i, key := range hugePageKeys {
		t[key] = field{key: key, schema: hugePages, label: hugePageStates[i]}
	}
	return &poller{dir: dir, table: t}
}

func (p *poller) collect(b *signal.Batch) error {
	if p.round%lookEvery == 0 {
		if err := p.look(); err != nil {
			return err
		}
	}
	p.round++
	before := len(b.Samples)
	for _, node := range p.nodes {
		dir := filepath.Join(p.dir, "node"+node)
		if b1, err := procfs.ReadInto(dir+"/meminfo", p.buf); err == nil { // else the node was just taken away
			p.buf = b1
			p.parseMeminfo(b1, node, b)
		}
		if b1, err := procfs.ReadInto(dir+"/numastat", p.buf); err == nil {
			p.buf = b1
			parseNumastat(b1, node, b)
		}
	}
	if len(b.Samples) == before {
		return errors.New("read NUMA nodes: no known field below " + p.dir)
	}
	return nil
}

func (p *poller) look() error {
	entries, err := os.ReadDir(p.dir)
	if err != nil {
		return fmt.Errorf("list NUMA nodes: %w", err)
	}
	p.nodes = p.nodes[:0]
	for _, e := range entries {
		if number, ok := strings.CutPrefix(e.Name(), "node"); ok {
			if _, ok := procfs.Uint([]byte(number)); ok {
				p.nodes = append(p.nodes, number)
			}
		}
	}
	return nil
}

// parseMeminfo reads lines as "Node 0 MemFree: 17354492 kB"; it passes over what it does not know.
func (p *poller) parseMeminfo(file []byte, node string, b *signal.Batch) {
	for line := range bytes.Lines(file) {
		head, rest, ok := bytes.Cut(line, []byte(":"))
		if !ok {
			continue
		}
		f, ok := p.table[string(head[bytes.LastIndexByte(head, ' ')+1:])]
		if !ok {
			continue
		}
		number, unit, _ := bytes.Cut(bytes.TrimSpace(rest), []byte(" "))
		v, ok := procfs.Uint(number)
		switch {
		case !ok:
		case f.label != "":
			b.Value(f.schema, float64(v), node, f.label)
		case string(unit) == "kB":
			b.Value(f.schema, float64(v)*1024, node)
		}
	}
}

// parseNumastat reads lines as "numa_hit 419457484".
func parseNumastat(file []byte, node string, b *signal.Batch) {
	for line := range bytes.Lines(file) {
		key, rest, _ := bytes.Cut(line, []byte(" "))
		for i, k := range allocationKeys {
			if string(key) != k {
				continue
			}
			if v, ok := procfs.Uint(bytes.TrimSpace(rest)); ok {
				b.Value(allocations, float64(v), node, allocationResults[i])
			}
		}
	}
}
