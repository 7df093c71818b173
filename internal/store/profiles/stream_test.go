package profiles

import (
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"huatuo/internal/signal"
)

// A stream like that of a busy host of two CPUs, as docs/adr and the facts of the
// design have it: 38 samples of CPU time and 163 events of waiting a second, some
// 5,000 stacks in ten minutes, 3 new processes a second that run the same few
// programs, and more than a hundred threads that wait for ever the same things.
const (
	cpuRate   = 38.0
	waitRate  = 163.0
	birthRate = 3.0
)

var blocked = &signal.ProfileType{Name: "offcpu.blocked", Unit: "nanoseconds"}

// program is what processes run: a tree of functions.
type program struct {
	name   string
	module string
	stacks []*signal.Stack // some of those that it can have, made as they are needed
	r      *rand.Rand
	depth  int
	drawn  int
}

// stack returns one of the program's stacks, frequent ones mostly. New ones become
// rarer, and never end; they differ from an old one in their innermost frames.
func (p *program) stack() *signal.Stack {
	const variety = 35 // gives some 5,000 stacks in ten minutes; with 150 it is a host that compiles all the time
	if p.drawn++; len(p.stacks) > 0 && p.r.Float64()*float64(variety+p.drawn) > variety {
		u := p.r.Float64()
		return p.stacks[int(u*u*u*float64(len(p.stacks)))]
	}
	s := &signal.Stack{}
	outer := make([]signal.Frame, 0, 3*p.depth)
	if len(p.stacks) > 0 {
		old := p.stacks[p.r.IntN(len(p.stacks))].Frames
		outer = append(outer, old[min(p.r.IntN(8), len(old)-1):]...)
	}
	for n := p.r.IntN(8) + max(0, p.depth-len(outer)); n >= 0; n-- {
		f := p.r.IntN(1 + p.r.IntN(600))
		s.Frames = append(s.Frames, signal.Frame{
			Function: fmt.Sprintf("%s::Worker%d::method_%d(std::string const&, int)", p.name, f/20, f), Module: p.module,
			File: fmt.Sprintf("src/%s/file_%d.cc", p.name, f/20), Line: f%20*40 + p.r.IntN(1+p.r.IntN(8)),
		})
	}
	s.Frames = append(s.Frames, outer...)
	p.stacks = append(p.stacks, s)
	return s
}

// thread is one that waits again and again at its own few places.
type thread struct {
	program *program
	labels  signal.ProfileLabels
	tid     uint32
	places  []*signal.Stack
	period  float64 // seconds between waits
	long    float64 // seconds, median
	next    float64
}

// stream makes samples in the order of time.
type stream struct {
	r        *rand.Rand
	programs []*program
	threads  []*thread
	recent   []*thread // of short-lived processes
	pid      uint32
	cpuNext  float64
	born     float64
}

func newStream() *stream {
	s := &stream{r: rand.New(rand.NewPCG(1, 2)), pid: 1000}
	for i := range 60 {
		s.programs = append(s.programs, &program{name: fmt.Sprintf("program%d", i), module: fmt.Sprintf("/usr/lib/x86_64/libprogram%d.so.1", i), r: s.r, depth: 8 + s.r.IntN(14)})
	}
	for i := range 40 { // services
		s.process(s.programs[i], 1+s.r.IntN(8), &s.threads)
	}
	rate := 0.0
	for _, t := range s.threads {
		rate += 1 / t.period
	}
	for _, t := range s.threads { // what is left is for the short-lived ones
		t.period *= rate / (0.85 * waitRate)
		t.next = s.r.Float64() * t.period
	}
	return s
}

func (s *stream) process(p *program, threads int, into *[]*thread) {
	s.pid += uint32(1 + s.r.IntN(3))
	pid := s.pid
	for i := range threads {
		t := &thread{
			program: p,
			labels:  signal.ProfileLabels{PID: pid, Process: p.name, Thread: p.name, Container: "app-" + p.name, Pod: "pod-" + p.name, Namespace: "default"},
			tid:     pid + uint32(i), period: 0.05 * math.Exp(2*s.r.NormFloat64()), long: 0.02 * math.Exp(1.2*s.r.NormFloat64()),
		}
		s.pid = max(s.pid, t.tid)
		if i > 0 {
			t.labels.Thread = fmt.Sprintf("worker-%d", i)
		}
		for range 1 + s.r.IntN(4) {
			t.places = append(t.places, p.stack())
		}
		*into = append(*into, t)
	}
}

// run makes the samples of a stretch of time, in seconds since the beginning.
func (s *stream) run(from, to float64, begin time.Time, emit func(signal.LabeledSample)) {
	const step = 0.05
	at := func(sec float64) time.Time { return begin.Add(time.Duration(sec * 1e9)) }
	for now := from; now < to; now += step {
		for ; s.born <= now; s.born += 1 / birthRate {
			s.process(s.programs[40+s.r.IntN(20)], 1, &s.recent)
			if len(s.recent) > 12 {
				s.recent = s.recent[1:]
			}
		}
		for _, t := range s.threads {
			for ; t.next < now+step; t.next += t.period * (0.7 + 0.6*s.r.Float64()) {
				s.wait(t, at(t.next), emit)
			}
		}
		for n := 0.15 * waitRate * step; n > 0 && s.r.Float64() < n; n-- {
			s.wait(s.recent[s.r.IntN(len(s.recent))], at(now+step*s.r.Float64()), emit)
		}
		for ; s.cpuNext < now+step; s.cpuNext += 1 / cpuRate {
			t := s.threads[s.r.IntN(1+s.r.IntN(len(s.threads)))]
			if s.r.IntN(2) == 0 {
				t = s.recent[s.r.IntN(len(s.recent))]
			}
			emit(signal.LabeledSample{Labels: t.labels, StackSample: signal.StackSample{
				Type: cpu, Time: at(s.cpuNext), CPU: uint32(s.r.IntN(2)), PID: t.labels.PID, TID: t.tid, Value: 52_631_579, Stack: t.program.stack(),
			}})
		}
	}
}

// wait makes one event of waiting, sampled by its length as the profiler does:
// what is shorter than 20 ms stands for 20 ms.
func (s *stream) wait(t *thread, at time.Time, emit func(signal.LabeledSample)) {
	d := max(t.long*math.Exp(0.5*s.r.NormFloat64()), 0.02)
	emit(signal.LabeledSample{Labels: t.labels, StackSample: signal.StackSample{
		Type: blocked, Time: at, CPU: uint32(s.r.IntN(2)), PID: t.labels.PID, TID: t.tid, Value: int64(d * 1e9), Stack: t.places[s.r.IntN(1+s.r.IntN(len(t.places)))],
	}})
}
