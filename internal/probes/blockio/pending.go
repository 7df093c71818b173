package blockio

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"huatuo/internal/kern/cgroup"
	"huatuo/internal/kern/clock"
	"huatuo/internal/probe"
	"huatuo/internal/signal"
)

// flightTable is the programs' table of requests under way, mapped into this
// process: to read it costs a copy of 320 KB and no system call. The legacy
// flavour cannot map it, and makes a system call for each of 1024 sets, 1 ms.
type flightTable struct {
	mu   sync.Mutex
	m    *ebpf.Map
	mem  *ebpf.Memory // nil: not mapped
	ways int          // slots in a set
	buf  []bpfFlight
}

func openFlights(m *ebpf.Map) (*flightTable, error) {
	ways := int(m.ValueSize()) / int(unsafe.Sizeof(bpfFlight{}))
	t := &flightTable{m: m, ways: ways, buf: make([]bpfFlight, int(m.MaxEntries())*ways)}
	if m.Flags()&unix.BPF_F_MMAPABLE == 0 {
		return t, nil
	}
	var err error
	if t.mem, err = m.Memory(); err != nil {
		return nil, fmt.Errorf("map the requests under way: %w", err)
	}
	return t, nil
}

// every is how often to look for requests that are older than stall.
func (t *flightTable) every(stall time.Duration) time.Duration {
	if t.mem == nil {
		return time.Second // a look costs 1 ms
	}
	return max(stall/4, min(stall, time.Second))
}

// each calls f with a copy of every slot that is taken. Programs write while it
// copies, so a slot may be half of one request and half of the next: ask still.
func (t *flightTable) each(f func(slot int, f *bpfFlight)) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for set := 0; t.mem == nil && set < len(t.buf); set += t.ways {
		if err := t.lookup(t.buf[set:set+t.ways], set); err != nil {
			return err
		}
	}
	if t.mem != nil {
		if err := t.read(t.buf, 0); err != nil {
			return err
		}
	}
	for i := range t.buf {
		if t.buf[i].Rq != 0 {
			f(i, &t.buf[i])
		}
	}
	return nil
}

// still tells whether slot holds the same request in the same state as f.
func (t *flightTable) still(slot int, f *bpfFlight) bool {
	one := make([]bpfFlight, 1)
	if t.mem != nil {
		return t.read(one, slot) == nil && one[0] == *f
	}
	set := make([]bpfFlight, t.ways)
	first := slot - slot%t.ways
	return t.lookup(set, first) == nil && set[slot-first] == *f
}

// lookup reads the set that begins with slot.
func (t *flightTable) lookup(to []bpfFlight, slot int) error {
	if err := t.m.Lookup(uint32(slot/t.ways), to); err != nil {
		return fmt.Errorf("read requests under way: %w", err)
	}
	return nil
}

func (t *flightTable) read(to []bpfFlight, slot int) error {
	b := unsafe.Slice((*byte)(unsafe.Pointer(&to[0])), len(to)*int(unsafe.Sizeof(to[0])))
	if _, err := t.mem.ReadAt(b, int64(slot)*int64(unsafe.Sizeof(to[0]))); err != nil {
		return fmt.Errorf("read requests under way: %w", err)
	}
	return nil
}

// scanner looks for requests that hang: their completion, which the programs
// would report, may never come.
type scanner struct {
	env     *probe.Env
	names   *names
	groups  *cgroup.Translator
	flights *flightTable
	stall   time.Duration
	queued  bool // merges are seen, so that a request that was not issued is not one that is no more

	emitted atomic.Uint64
	told    map[uint32]reported // by device
}

// reported is the last event about a device.
type reported struct {
	rq, made uint64
	age      time.Duration
}

// again is by which factor an oldest request must have aged to be reported
// again: at 1 s, 4 s, 16 s, …, so that an hour's hang is seven events.
const again = 4

// critical is the age from which a hang is no longer a delay: half of the
// kernel's own I/O timeout.
const critical = 15 * time.Second

func (s *scanner) run(ctx context.Context) {
	s.told = make(map[uint32]reported)
	every := s.flights.every(s.stall)
	t := time.NewTimer(clock.Until(every))
	defer t.Stop()
	for ; ; t.Reset(clock.Until(every)) {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		if err := s.scan(); err != nil {
			s.env.Log.Error("cannot look for hanging requests", "err", err)
			return
		}
	}
}

// hang is what one look found about a device.
type hang struct {
	slot    int
	oldest  bpfFlight
	pending int
}

func (s *scanner) scan() error {
	now := monotonic()
	hangs := make(map[uint32]*hang)
	err := s.flights.each(func(slot int, f *bpfFlight) {
		if now < f.Made || now-f.Made < uint64(s.stall) || (f.Issued == 0 && !s.queued) {
			return
		}
		h := hangs[f.Dev]
		if h == nil {
			h = &hang{slot: slot, oldest: *f}
			hangs[f.Dev] = h
		}
		h.pending++
		if f.Made < h.oldest.Made {
			h.slot, h.oldest = slot, *f
		}
	})
	if err != nil {
		return err
	}
	for dev := range s.told {
		if hangs[dev] == nil {
			delete(s.told, dev)
		}
	}
	for dev, h := range hangs {
		s.consider(dev, h, now)
	}
	return nil
}

func (s *scanner) consider(dev uint32, h *hang, now uint64) {
	age := time.Duration(now - h.oldest.Made)
	last := s.told[dev]
	if last.rq == h.oldest.Rq && last.made == h.oldest.Made && age < again*last.age {
		return
	}
	if !s.flights.still(h.slot, &h.oldest) || !s.busy(dev, &h.oldest) {
		return
	}
	s.told[dev] = reported{h.oldest.Rq, h.oldest.Made, age}
	s.emitted.Add(1)
	s.env.Emit(s.record(h, now))
}

// A device that is asked so often, and has a request each time, is busy: of
// requests that come and go one look may see another than the one that hangs.
const (
	looks   = 10
	lookGap = 20 * time.Millisecond
)

// busy asks the kernel whether the device has requests at all, so that a slot
// whose request went a way that the programs do not see makes no false alarm.
// It does not count flushes.
func (s *scanner) busy(dev uint32, f *bpfFlight) bool {
	if opOf(f.Flags) == "flush" || opOf(f.Flags) == "other" {
		return true
	}
	for i := range looks {
		if i > 0 {
			time.Sleep(lookGap)
		}
		if !s.underWay(dev) {
			return false
		}
	}
	return true
}

// underWay tells whether the device has a request now.
func (s *scanner) underWay(dev uint32) bool {
	b, err := os.ReadFile(filepath.Join(s.names.path(dev), "inflight"))
	if err != nil {
		return false // the device is gone, and its requests with it
	}
	for n := range strings.FieldsSeq(string(b)) {
		if n != "0" {
			return true
		}
	}
	return false
}

func (s *scanner) record(h *hang, now uint64) *signal.Record {
	f := &h.oldest
	b := &IOStall{
		Device: s.names.nameOr(f.Dev), Op: opOf(f.Flags), Sector: f.Sector, Bytes: f.Bytes,
		State: onDevice, Requeues: f.Requeues, Pending: h.pending,
	}
	if f.Issued == 0 {
		b.State = queued
	}
	b.times(f, now)
	r := &signal.Record{
		Schema: stalled, Time: s.env.Clock(now), Process: sender(f), Body: b,
		KernelStack: blockedStack(s.env.Root, f.Pid),
		Title:       fmt.Sprintf("%s of %d bytes on %s has been under way for %s, %s", b.Op, b.Bytes, b.Device, round(b.TotalSeconds), where(b)),
		Keys:        []string{deviceKey(f.Dev)}, Lasted: time.Duration(now - min(f.Made, now)),
	}
	if s.groups != nil {
		r.CgroupID = s.groups.ID(f.Cgroup)
	}
	if time.Duration(now-f.Made) >= critical {
		r.Severity = signal.Critical
	}
	return r
}

func where(b *IOStall) string {
	s := "on the device"
	if b.State == queued {
		s = "in the queue"
	}
	if b.Pending > 1 {
		s += fmt.Sprintf("; %d requests do", b.Pending)
	}
	return s
}

// blockedStack returns what a thread in uninterruptible sleep waits in, nil
// for any other: who goes on after it sent a request does something else now.
func blockedStack(root string, tid uint32) []signal.Frame {
	dir := filepath.Join(root, "proc", strconv.Itoa(int(tid)))
	stat, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return nil
	}
	if _, after, ok := strings.Cut(string(stat[max(0, strings.LastIndexByte(string(stat), ')')):]), ") "); !ok || !strings.HasPrefix(after, "D") {
		return nil
	}
	text, err := os.ReadFile(filepath.Join(dir, "stack"))
	if err != nil {
		return nil
	}
	return parseStack(string(text))
}

// parseStack reads the lines of /proc/PID/stack: "[<0>] function+0x1/0x2 [module]".
func parseStack(text string) []signal.Frame {
	var fs []signal.Frame
	for line := range strings.Lines(text) {
		_, sym, ok := strings.Cut(strings.TrimSpace(line), "] ")
		if !ok {
			continue
		}
		name, rest, _ := strings.Cut(sym, "+")
		f := signal.Frame{Function: name}
		if _, mod, ok := strings.Cut(rest, " ["); ok {
			f.Module = strings.TrimSuffix(mod, "]")
		}
		if strings.HasPrefix(name, "0x") { // an address: it stays here
			f.Function = "[unknown]"
		}
		fs = append(fs, f)
	}
	return fs
}

func monotonic() uint64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic("BUG: no monotonic clock: " + err.Error())
	}
	return uint64(ts.Nano())
}
