// Package buddy reports how fragmented free memory is: the free blocks of the
// buddy allocator by node, zone and order.
package buddy

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
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

var zoneFields = []signal.Field{
	{Name: "node", Help: "NUMA node"},
	{Name: "zone", Help: "zone of the node: DMA, DMA32, Normal, Movable, …"},
	{Name: "order", Help: "the block is 2^order pages: 0 is a page, 9 a huge page of 2 MiB where pages are 4 KiB"},
}

var freeBlocks = &signal.Schema{
	Name: "huatuo_memory_free_blocks", Kind: signal.Metric, Type: signal.Gauge, Unit: "1", Area: signal.AreaMemory, Scope: signal.Host,
	Help:   "Free blocks of memory by size, as the buddy allocator keeps them.",
	Read:   "A block counts once, at its size. Many small ones and no large ones beside plenty of free memory: it is fragmented.",
	Fields: zoneFields,
}

var unusable = &signal.Schema{
	Name: "huatuo_memory_free_unusable_ratio", Kind: signal.Metric, Type: signal.Gauge, Unit: "ratio", Area: signal.AreaMemory, Scope: signal.Host,
	Help:   "Share of the zone's free memory that is in blocks too small for an allocation of that order.",
	Read:   "Near 1 at order 9: no huge page without compaction. Near 1 at order 2 or 3: kernel stacks, network buffers and slabs wait for compaction, see huatuo_vmstat_compact_stall_total.",
	Fields: zoneFields,
}

// Config of the probe: it has no settings.
type Config struct{}

// Spec describes the probe.
func Spec() probe.Spec {
	return probe.New(probe.Meta{
		Name:   "buddy",
		Help:   "Reports how fragmented free memory is.",
		Readme: readme,
		Emits:  []*signal.Schema{freeBlocks, unusable},
		Since:  "4.18",
		Source: "/proc/buddyinfo",
	}, Config{}, run)
}

func run(ctx context.Context, env *probe.Env, _ Config) error {
	p := &poller{path: filepath.Join(env.Root, "proc/buddyinfo")}
	if err := p.collect(new(signal.Batch)); err != nil {
		return err
	}
	env.Collect(p.collect)
	env.Ready(load.HookState{Hook: "/proc/buddyinfo", By: "procfs"})
	<-ctx.Done()
	return nil
}

type poller struct {
	path string
	buf  []byte
}

func (p *poller) collect(b *signal.Batch) error {
	var err error
	if p.buf, err = procfs.ReadInto(p.path, p.buf); err != nil {
		return fmt.Errorf("read free blocks: %w", err)
	}
	zones := 0
	for line := range bytes.Lines(p.buf) {
		if z, ok := parse(line); ok {
			z.add(b)
			zones++
		}
	}
	if zones == 0 {
		return errors.New("parse free blocks: no zone in " + p.path)
	}
	return nil
}

// maxOrders is how many orders a zone may have: 11 (MAX_ORDER) unless the kernel
// was built for huge pages of other sizes; arm64 with pages of 64 KiB has 14.
const maxOrders = 24

// zone is one line: the number of free blocks of each order.
type zone struct {
	node, name string
	free       []uint64
}

// parse reads "Node 0, zone   Normal   4381   1093 …".
func parse(line []byte) (zone, bool) {
	head, rest, ok := bytes.Cut(line, []byte(","))
	node, isNode := bytes.CutPrefix(head, []byte("Node "))
	if _, number := procfs.Uint(node); !ok || !isNode || !number {
		return zone{}, false
	}
	z := zone{node: string(node)}
	n := 0
	for f := range bytes.FieldsSeq(rest) {
		switch n++; n {
		case 1:
			if string(f) != "zone" {
				return zone{}, false
			}
		case 2:
			z.name = string(f)
		default:
			v, ok := procfs.Uint(f)
			if !ok || v > 1<<32 || len(z.free) == maxOrders { // 16 TB in single pages; sums cannot overflow
				return zone{}, false
			}
			z.free = append(z.free, v)
		}
	}
	return z, len(z.free) > 0
}

// add gives the zone's samples. The ratio is the kernel's unusable free space
// index (unusable_free_index in mm/vmstat.c); a zone without any free memory has none.
func (z *zone) add(b *signal.Batch) {
	var pages uint64
	for order, n := range z.free {
		pages += n << order
	}
	usable := pages
	for order, n := range z.free {
		label := strconv.Itoa(order)
		b.Value(freeBlocks, float64(n), z.node, z.name, label)
		if pages > 0 && order > 0 { // a page is always enough for order 0
			b.Value(unusable, float64(pages-usable)/float64(pages), z.node, z.name, label)
		}
		usable -= n << order
	}
}
