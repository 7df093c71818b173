package blockio

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/cilium/ebpf"

	"huatuo/internal/kern/cgroup"
	"huatuo/internal/kern/load"
	"huatuo/internal/signal"
)

// ops by the number the program gives them.
var ops = [...]string{"read", "write", "flush", "discard", "other"}

var (
	deviceField = signal.Field{Name: "device", Help: "whole disk, as in /sys/block"}
	opField     = signal.Field{Name: "op", Help: "operation; other: secure erase, write zeroes, zone and driver commands", Values: ops[:]}
	byDevice    = []signal.Field{deviceField, opField}

	queueSeconds = &signal.Schema{
		Name: "huatuo_block_io_queue_seconds", Kind: signal.Metric, Type: signal.Histogram, Unit: "seconds",
		Area: signal.AreaBlock, Scope: signal.Host, Fields: byDevice,
		Help: "Time from when a block request was made until it was issued to the device.",
		Read: "Long here and short in huatuo_block_io_device_seconds: more is asked of the device than its queue takes, or the scheduler holds it back.",
	}
	deviceSeconds = &signal.Schema{
		Name: "huatuo_block_io_device_seconds", Kind: signal.Metric, Type: signal.Histogram, Unit: "seconds",
		Area: signal.AreaBlock, Scope: signal.Host, Fields: byDevice,
		Help: "Time that the device took for a block request.",
		Read: "Compare with what the device is able to: 100 µs for flash, 10 ms for a disk that turns.",
	}
	totalSeconds = &signal.Schema{
		Name: "huatuo_block_io_total_seconds", Kind: signal.Metric, Type: signal.Histogram, Unit: "seconds",
		Area: signal.AreaBlock, Scope: signal.Host, Fields: byDevice,
		Help: "Time from when a block request was made until it was complete.",
		Read: "What a task that waits for its I/O feels; the other two histograms tell where the time goes.",
	}
	bytesTotal = &signal.Schema{
		Name: "huatuo_block_io_bytes_total", Kind: signal.Metric, Type: signal.Counter, Unit: "bytes",
		Area: signal.AreaBlock, Scope: signal.Host, Fields: byDevice,
		Help: "Bytes of completed block requests.",
		Read: "Divide by the rate of huatuo_block_io_total_seconds_count for the mean size of a request.",
	}
	sizeBytes = &signal.Schema{
		Name: "huatuo_block_io_size_bytes", Kind: signal.Metric, Type: signal.Histogram, Unit: "bytes",
		Area: signal.AreaBlock, Scope: signal.Host, Fields: byDevice,
		Help: "Size of completed block requests, after merging.",
		Read: "Many of 4 KiB from a program that reads in order: readahead or merging does not work. Large writes beside small reads on one disk: the reads wait.",
	}
	errorsTotal = &signal.Schema{
		Name: "huatuo_block_io_errors_total", Kind: signal.Metric, Type: signal.Counter, Unit: "1",
		Area: signal.AreaBlock, Scope: signal.Host,
		Help:   "Block requests that the device or its driver failed.",
		Read:   "medium and io: the disk; transport and timeout: the path to it; unsupported and again are answers to a caller's question, not faults.",
		Fields: []signal.Field{deviceField, opField, {Name: "status", Help: "class of the failure, after the kernel's BLK_STS_*", Values: statusNames()}},
	}
	requeues = &signal.Schema{
		Name: "huatuo_block_io_requeues_total", Kind: signal.Metric, Type: signal.Counter, Unit: "1",
		Area: signal.AreaBlock, Scope: signal.Host, Fields: byDevice,
		Help: "Block requests that went back to the queue after they had been issued.",
		Read: "Some are usual when a device is busy; many with long device times mean resets or a path that fails.",
	}
	merges = &signal.Schema{
		Name: "huatuo_block_io_merges_total", Kind: signal.Metric, Type: signal.Counter, Unit: "1",
		Area: signal.AreaBlock, Scope: signal.Host, Fields: byDevice,
		Help: "Pieces of I/O that were merged into a request that was there already.",
		Read: "Over the count of huatuo_block_io_total_seconds: how many pieces a request saves. None while small requests follow each other on the disk: they come one at a time, or merging is off (queue/nomerges).",
	}
	inflight = &signal.Schema{
		Name: "huatuo_block_io_inflight", Kind: signal.Metric, Type: signal.Gauge, Unit: "1",
		Area: signal.AreaBlock, Scope: signal.Host, Fields: []signal.Field{deviceField},
		Help: "Block requests that the device has and has not completed yet.",
		Read: "Close to the device's queue depth all the time: the device is the limit.",
	}
	unmeasured = &signal.Schema{
		Name: "huatuo_block_io_unmeasured_total", Kind: signal.Metric, Type: signal.Counter, Unit: "1",
		Area: signal.AreaAgent, Scope: signal.Host,
		Help: "Block requests that were not measured, or not followed while they were under way, for lack of room.",
		Read: "Anything but zero: more disks than when the probe started (what=device), or thousands of requests at once (what=request).",
		Fields: []signal.Field{{Name: "what", Help: "request: a hang of it would not be seen, and its sender is not known; device: it is in no histogram",
			Values: []string{"request", "device"}}},
	}
	containerOp      = []signal.Field{{Name: "op", Help: "read, or write for everything else", Values: []string{"read", "write"}}}
	containerSeconds = &signal.Schema{
		Name: "huatuo_container_block_io_total_seconds", Kind: signal.Metric, Type: signal.Histogram, Unit: "seconds",
		Area: signal.AreaBlock, Scope: signal.Workload, Fields: containerOp,
		Help: "Time from when a block request of the workload was made until it was complete.",
		Read: "With cgroup v1 a buffered write is the kernel's, not the workload's: only reads and direct or synchronous writes are told.",
	}
	containerBytes = &signal.Schema{
		Name: "huatuo_container_block_io_bytes_total", Kind: signal.Metric, Type: signal.Counter, Unit: "bytes",
		Area: signal.AreaBlock, Scope: signal.Workload, Fields: containerOp,
		Help: "Bytes of completed block requests of the workload.",
		Read: "Who uses the disk; see huatuo_container_block_io_total_seconds for buffered writes.",
	}
	containerMerges = &signal.Schema{
		Name: "huatuo_container_block_io_merges_total", Kind: signal.Metric, Type: signal.Counter, Unit: "1",
		Area: signal.AreaBlock, Scope: signal.Workload, Fields: containerOp,
		Help: "Pieces of the workload's I/O that were merged into a request that was there already.",
		Read: "Falls while bytes stay: the workload reads or writes in smaller pieces, or at more places at once, than before.",
	}
)

type collector struct {
	o       *load.Object
	names   *names
	groups  *cgroup.Translator
	flights *flightTable
}

func (c *collector) collect(b *signal.Batch) error {
	under, err := c.underWay()
	if err != nil {
		return err
	}
	if err := c.devices(b, under); err != nil {
		return err
	}
	for i, what := range []string{"request", "device"} {
		var per []uint64
		if err := c.o.Map("missed").Lookup(uint32(i), &per); err != nil {
			return fmt.Errorf("read missed: %w", err)
		}
		var n uint64
		for _, x := range per {
			n += x
		}
		b.Value(unmeasured, float64(n), what)
	}
	if c.groups == nil {
		return nil
	}
	return c.cgroups(b)
}

// underWay counts the requests that each device has.
func (c *collector) underWay() (map[uint32]int, error) {
	n := make(map[uint32]int)
	return n, c.flights.each(func(_ int, f *bpfFlight) {
		if f.Issued != 0 {
			n[f.Dev]++
		}
	})
}

func (c *collector) devices(b *signal.Batch, under map[uint32]int) error {
	m := c.o.Map("devices")
	var k bpfIoKey
	var per []bpfIoStats
	var gone []bpfIoKey
	seen := make(map[uint32]bool)
	it := m.Iterate()
	for it.Next(&k, &per) {
		dev, ok := c.names.device(k.Dev)
		if !ok {
			gone = append(gone, k)
			continue
		}
		if !seen[k.Dev] {
			seen[k.Dev] = true
			b.Value(inflight, float64(under[k.Dev]), dev)
		}
		device(b, sumStats(per), dev, ops[min(int(k.Op), len(ops)-1)])
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("read devices: %w", err)
	}
	for i := range gone { // its place is for the next one that is plugged in
		if err := m.Delete(&gone[i]); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("forget device: %w", err)
		}
	}
	return nil
}

func device(b *signal.Batch, s *bpfIoStats, dev, op string) {
	b.Hist(queueSeconds, signal.LatencyHist(0, s.Queue.Zero, s.Queue.Sum, s.Queue.Slots[:]), dev, op)
	b.Hist(deviceSeconds, signal.LatencyHist(2, s.Device.Zero, s.Device.Sum, s.Device.Slots[:]), dev, op)
	b.Hist(totalSeconds, signal.LatencyHist(2, s.Total.Zero, s.Total.Sum, s.Total.Slots[:]), dev, op)
	b.Value(bytesTotal, float64(s.Bytes), dev, op)
	if op != ops[2] { // a flush has no size
		b.Hist(sizeBytes, sizes(&s.Size), dev, op)
	}
	b.Value(requeues, float64(s.Requeues), dev, op)
	b.Value(merges, float64(s.Merges), dev, op)
	for class, n := range s.Errors {
		if n > 0 {
			b.Value(errorsTotal, float64(n), dev, op, statusOf(class).name)
		}
	}
}

// firstSize is the native index of the first bucket: 512 bytes to 1 KiB.
const firstSize = 10

// sizes makes the histogram of what the program counted in half bytes.
func sizes(z *bpfIoSizes) *signal.Hist {
	h := &signal.Hist{First: firstSize, Counts: append([]uint64(nil), z.Slots[:]...), Zero: z.Zero, Count: z.Zero, Sum: float64(z.Sum) / 2}
	for _, n := range z.Slots {
		h.Count += n
	}
	return h
}

func sumStats(per []bpfIoStats) *bpfIoStats {
	var s bpfIoStats
	for i := range per {
		p := &per[i]
		s.Bytes += p.Bytes
		s.Size.Zero += p.Size.Zero
		s.Size.Sum += p.Size.Sum
		for j, n := range p.Size.Slots {
			s.Size.Slots[j] += n
		}
		s.Requeues += p.Requeues
		s.Merges += p.Merges
		for j, n := range p.Errors {
			s.Errors[min(j, len(statuses)-1)] += n
		}
		addHist(&s.Queue, &p.Queue)
		addFine(&s.Device, &p.Device)
		addFine(&s.Total, &p.Total)
	}
	return &s
}

func addHist(to, h *bpfHtHist) {
	to.Zero += h.Zero
	to.Sum += h.Sum
	for i, n := range h.Slots {
		to.Slots[i] += n
	}
}

func addFine(to, h *bpfHtHistFine) {
	to.Zero += h.Zero
	to.Sum += h.Sum
	for i, n := range h.Slots {
		to.Slots[i] += n
	}
}

// cgroups sums by identity: several groups of the blkio hierarchy may have none, which is 0.
func (c *collector) cgroups(b *signal.Batch) error {
	sums := make(map[uint64]*bpfIoCgroup)
	var id uint64
	var per []bpfIoCgroup
	it := c.o.Map("cgroups").Iterate()
	for it.Next(&id, &per) {
		who := c.groups.ID(id)
		s := sums[who]
		if s == nil {
			s = new(bpfIoCgroup)
			sums[who] = s
		}
		for i := range per {
			for op := range s.Total {
				addHist(&s.Total[op], &per[i].Total[op])
				s.Bytes[op] += per[i].Bytes[op]
				s.Merges[op] += per[i].Merges[op]
			}
		}
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("read cgroups: %w", err)
	}
	for who, s := range sums {
		for op, name := range containerOp[0].Values {
			h := &s.Total[op]
			b.WorkloadHist(containerSeconds, who, signal.LatencyHist(0, h.Zero, h.Sum, h.Slots[:]), name)
			b.WorkloadValue(containerBytes, who, float64(s.Bytes[op]), name)
			b.WorkloadValue(containerMerges, who, float64(s.Merges[op]), name)
		}
	}
	return nil
}

// names gives devices their names. sysfs answers from memory, whatever the
// device does.
type names struct {
	root string

	mu    sync.Mutex
	known map[uint32]string // "" for a device that is gone
	since time.Time
}

// namesFor bounds how long a device that took a dead one's number has its name.
const namesFor = time.Minute

func newNames(root string) *names { return &names{root: root, known: make(map[uint32]string)} }

// device returns the name of a disk, and whether there is such a disk.
func (n *names) device(dev uint32) (string, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if now := time.Now(); now.Sub(n.since) > namesFor {
		clear(n.known)
		n.since = now
	}
	name, ok := n.known[dev]
	if !ok {
		to, err := os.Readlink(n.path(dev))
		if err == nil {
			name = filepath.Base(to)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return number(dev), true
		}
		n.known[dev] = name
	}
	return name, name != ""
}

// nameOr returns the name of a disk, or its number when it is gone.
func (n *names) nameOr(dev uint32) string {
	if name, ok := n.device(dev); ok {
		return name
	}
	return number(dev)
}

func (n *names) path(dev uint32) string {
	return filepath.Join(n.root, "sys/dev/block", number(dev))
}

func number(dev uint32) string {
	return strconv.Itoa(int(dev>>20)) + ":" + strconv.Itoa(int(dev&(1<<20-1)))
}
