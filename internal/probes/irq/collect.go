package irq

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"huatuo/internal/kern/load"
	"huatuo/internal/probe"
	"huatuo/internal/signal"
)

const other = "other"

type collector struct {
	o     *load.Object
	names names
}

func (c *collector) collect(b *signal.Batch) error {
	var cpus []bpfIrqCpu
	if err := c.o.Map("cpus").Lookup(uint32(0), &cpus); err != nil {
		return fmt.Errorf("read histogram: %w", err)
	}
	var served, gap bpfHtHist
	for i := range cpus {
		add(&served, &cpus[i].Service)
		add(&gap, &cpus[i].Gap)
	}
	b.Hist(service, hist(&served))
	if c.o.Attached("local_timer_entry") && c.o.Attached("cpu_idle") {
		b.Hist(gaps, hist(&gap))
	}
	if err := c.lines(b); err != nil {
		return err
	}
	return c.queues(b)
}

func add(to, h *bpfHtHist) {
	to.Zero += h.Zero
	to.Sum += h.Sum
	for i, n := range h.Slots {
		to.Slots[i] += n
	}
}

func hist(h *bpfHtHist) *signal.Hist { return signal.LatencyHist(0, h.Zero, h.Sum, h.Slots[:]) }

func (c *collector) lines(b *signal.Batch) error {
	all := map[uint32]bpfIrqLine{}
	var per []bpfIrqLine
	m := c.o.Map("lines")
	for _, irq := range requested(c.names.root) {
		if err := m.Lookup(irq, &per); err != nil {
			return fmt.Errorf("read line %d: %w", irq, err)
		}
		var l bpfIrqLine
		for _, x := range per {
			l.Handled += x.Handled
			l.Ns += x.Ns
		}
		if l.Handled > 0 {
			all[irq] = l
		}
	}
	c.names.assign(all)
	byName := map[string]bpfIrqLine{}
	for irq, l := range all {
		s := byName[c.names.series[irq]]
		s.Handled += l.Handled
		s.Ns += l.Ns
		byName[c.names.series[irq]] = s
	}
	for name, l := range byName {
		b.Value(handled, float64(l.Handled), name)
		b.Value(handledSeconds, time.Duration(l.Ns).Seconds(), name)
	}
	return nil
}

// requested returns the lines that the machine has, and the last one: a look at
// each of a thousand costs more than all other collectors together. A line that
// was given up since is gone from the kernel's list, and its series end.
func requested(root string) []uint32 {
	out := []uint32{lastLine}
	d, err := os.Open(filepath.Join(root, "proc/irq"))
	var names []string
	if err == nil {
		names, err = d.Readdirnames(-1)
		d.Close()
	}
	if err != nil { // no list: all
		for irq := range uint32(lastLine) {
			out = append(out, irq)
		}
		return out
	}
	for _, n := range names {
		if irq, err := strconv.ParseUint(n, 10, 32); err == nil && irq < lastLine {
			out = append(out, uint32(irq))
		}
	}
	return out
}

func (c *collector) queues(b *signal.Batch) error {
	if !c.o.Attached("workqueue_execute_start") || !c.o.Attached("workqueue_queue_work") {
		return nil
	}
	var name bpfWqName
	var h bpfWqHists
	seen := map[string]bool{} // a queue may be called other, or have a name that is not UTF-8
	it := c.o.Map("queues").Iterate()
	for it.Next(&name, &h) {
		s := cmp.Or(probe.CString(name.Name[:]), other)
		if seen[s] || h.Wait.Zero+h.Wait.Sum == 0 {
			continue
		}
		seen[s] = true
		b.Hist(workWait, hist(&h.Wait), s)
		b.Hist(workService, hist(&h.Service), s)
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("read work queues: %w", err)
	}
	var per []uint64
	if err := c.o.Map("collisions").Lookup(uint32(0), &per); err != nil {
		return fmt.Errorf("read collisions: %w", err)
	}
	var n uint64
	for _, x := range per {
		n += x
	}
	b.Value(unmeasured, float64(n))
	return nil
}

const (
	maxSeries = 64
	lastLine  = 1023 // sums the lines beyond, which have no name
)

// names gives each line the series that it counts in, once and for all: a
// counter must not go back.
type names struct {
	root   string
	series map[uint32]string
	used   int
}

// assign names the lines that are new, the busiest first.
func (n *names) assign(all map[uint32]bpfIrqLine) {
	var fresh []uint32
	for irq := range all {
		if _, ok := n.series[irq]; !ok {
			fresh = append(fresh, irq)
		}
	}
	if len(fresh) == 0 {
		return
	}
	slices.SortFunc(fresh, func(a, b uint32) int { return cmp.Or(cmp.Compare(all[b].Ns, all[a].Ns), cmp.Compare(a, b)) })
	known := map[uint32]string{}
	if f, err := os.Open(filepath.Join(n.root, "proc/interrupts")); err == nil {
		known = parseInterrupts(f)
		f.Close()
	}
	taken := map[string]bool{}
	for _, s := range n.series {
		taken[s] = true
	}
	for _, irq := range fresh {
		name := cmp.Or(known[irq], "irq"+strconv.FormatUint(uint64(irq), 10))
		switch {
		case irq == lastLine:
			name = other
		case taken[name]: // two lines of one name are one series
		case n.used >= maxSeries:
			name = other
		default:
			taken[name] = true
			n.used++
		}
		n.series[irq] = name
	}
}

// parseInterrupts returns who handles each line: what comes after the counts,
// the chip and the chip's own number, as "eth0, usb1" for a line that is shared.
func parseInterrupts(r io.Reader) map[uint32]string {
	m := map[uint32]string{}
	s := bufio.NewScanner(r)
	s.Buffer(nil, 1<<20) // 11 bytes for each CPU
	if !s.Scan() {
		return m
	}
	cpus := len(strings.Fields(s.Text()))
	for s.Scan() {
		head, rest, ok := strings.Cut(s.Text(), ":")
		irq, err := strconv.ParseUint(strings.TrimSpace(head), 10, 32)
		f := strings.Fields(rest)
		if !ok || err != nil || len(f) <= cpus {
			continue
		}
		f = f[cpus:]
		// The chip, its number and the trigger are one to three words; the names of those that handle it are joined by ", ".
		i := len(f) - 1
		for i > 0 && strings.HasSuffix(f[i-1], ",") {
			i--
		}
		m[uint32(irq)] = strings.ToValidUTF8(strings.Join(f[i:], " "), "\uFFFD")
	}
	return m
}
