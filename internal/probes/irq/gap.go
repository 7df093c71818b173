package irq

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"huatuo/internal/kern/ring"
	"huatuo/internal/probe"
	"huatuo/internal/signal"
)

// period is the longest that a tick has, with HZ=100.
const period = 10 * time.Millisecond

// TickGap is the body of a tick_gap event. The record's process and kernel
// stack are those that the timer interrupt found when it came at last.
type TickGap struct {
	CPU          uint32  `json:"cpu" help:"CPU that did not take its timer interrupt"`
	GapSeconds   float64 `json:"gap_seconds" unit:"seconds" help:"how long it took none"`
	StealSeconds float64 `json:"steal_seconds" unit:"seconds" help:"how much of it the hypervisor may have had the CPU, by /proc/stat; most of it makes the event an info"`
}

// decoder turns samples into records.
type decoder struct {
	clock func(uint64) time.Time
	steal *steal
	gap   time.Duration
}

func (d *decoder) decode(raw []byte) (*signal.Record, error) {
	w, err := ring.View[bpfTickGapWire](raw)
	if err != nil {
		return nil, fmt.Errorf("decode tick_gap: %w", err)
	}
	p := signal.Process{PID: w.Tgid, TID: w.Pid, Comm: probe.CString(w.Comm[:])}
	gap := time.Duration(w.Gap)
	stolen := max(0, min(d.steal.since(w.Cpu), gap))
	b := &TickGap{CPU: w.Cpu, GapSeconds: gap.Seconds(), StealSeconds: stolen.Seconds()}
	r := &signal.Record{
		Schema: gapped, Time: d.clock(w.Ts), Suppressed: w.Suppressed, CgroupID: w.Cgroup, Process: p, Body: b,
		KernelIPs: probe.Stack(w.Frames, w.Stack[:]),
		Title:     fmt.Sprintf("CPU %d took no timer interrupt for %s; %s (pid %d) had it at the end", w.Cpu, gap.Round(100*time.Microsecond), p.Comm, p.PID),
		Measures:  []signal.Measure{{Schema: gaps, Value: b.GapSeconds}},
		Keys:      []string{fmt.Sprintf("cpu:%d", w.Cpu)}, Lasted: gap,
	}
	if gap-stolen < d.gap {
		r.Severity = signal.Info
		r.Title = fmt.Sprintf("CPU %d took no timer interrupt for %s: the hypervisor had it", w.Cpu, gap.Round(100*time.Microsecond))
	}
	return r, nil
}

// watchTicks tells whether a CPU without a tick means something: not where the
// kernel lets busy CPUs go without (nohz_full), nor where idleness is not told.
func watchTicks(env *probe.Env) bool {
	b, err := os.ReadFile(filepath.Join(env.Root, "sys/devices/system/cpu/nohz_full"))
	if s := strings.TrimSpace(string(b)); err == nil && s != "" && s != "(null)" {
		env.Log.Info("gaps of the tick are not watched: the kernel runs with nohz_full", "cpus", s)
		return false
	}
	return env.Kernel.TracepointArgs("cpu_idle") != 0 && env.Kernel.TracepointArgs("local_timer_entry") != 0
}

// stealEvery is how far back the answer of steal.since goes at least.
const stealEvery = time.Second

// steal follows the time that the hypervisor took from each CPU.
type steal struct {
	file string

	mu     sync.Mutex
	before [2]map[uint32]time.Duration // of the two last looks, the older first
}

func newSteal(root string) *steal {
	s := &steal{file: filepath.Join(root, "proc/stat")}
	s.look()
	return s
}

func (s *steal) follow(ctx context.Context) {
	probe.Every(ctx, stealEvery, func() error { s.look(); return nil })
}

func (s *steal) look() {
	now := s.read()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.before[0], s.before[1] = s.before[1], now
}

// since returns how much was taken from a CPU since the look before the last
// one, or since the last where there was no other.
func (s *steal) since(cpu uint32) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	from := s.before[0]
	if from == nil {
		from = s.before[1]
	}
	before, ok := from[cpu]
	if !ok {
		return 0
	}
	return s.read()[cpu] - before
}

// read returns the steal column, in USER_HZ, which is 100 on all we run on.
func (s *steal) read() map[uint32]time.Duration {
	text, err := os.ReadFile(s.file)
	if err != nil {
		return nil
	}
	m := map[uint32]time.Duration{}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) < 9 || !strings.HasPrefix(f[0], "cpu") {
			continue
		}
		cpu, err := strconv.ParseUint(f[0][3:], 10, 32)
		ticks, err2 := strconv.ParseUint(f[8], 10, 32)
		if err == nil && err2 == nil {
			m[uint32(cpu)] = time.Duration(ticks) * (time.Second / 100)
		}
	}
	return m
}
