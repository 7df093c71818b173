package hungtask

import (
	"cmp"
	"slices"
	"time"

	"huatuo/internal/signal"
)

const (
	// samples is how often a task must have been seen, so that a slow walk
	// and a task that waits often for a short time do not make an event.
	samples = 3
	// again is by which factor the time must have grown before a task that
	// still hangs is reported once more: 10 s, 100 s, 1000 s.
	again = 10
	// maxOthers bounds the tasks besides the first that an event describes.
	maxOthers = 8
)

// tracker finds the tasks that wait on and on. It does no I/O.
type tracker struct {
	threshold time.Duration
	known     map[taskKey]*wait
	hung      int // tasks that are beyond the threshold
}

type taskKey struct {
	pid   uint32
	start uint64
}

// wait is a task that was seen waiting.
type wait struct {
	since    time.Time // the first time
	switches uint64
	seen     int
	next     time.Duration // age at which it is reported
}

// group is tasks that hang in the same place, longest first.
type group struct {
	tasks []task
	ages  []time.Duration
}

// observe takes the tasks that wait now, and returns those that have come
// beyond the threshold since, in groups.
func (t *tracker) observe(now time.Time, tasks []task) []*group {
	before := t.known
	t.known = make(map[taskKey]*wait, len(tasks))
	t.hung = 0
	groups := make(map[string]*group)
	for _, x := range tasks {
		k := taskKey{x.pid, x.start}
		w := before[k]
		if w == nil || w.switches != x.switches { // it has run in between
			w = &wait{since: now, switches: x.switches, next: t.threshold}
		}
		w.seen++
		t.known[k] = w
		age := now.Sub(w.since)
		if w.seen < samples || age < t.threshold {
			continue
		}
		t.hung++
		if age < w.next {
			continue
		}
		for w.next <= age {
			w.next *= again
		}
		g := groups[x.wait]
		if g == nil {
			g = &group{}
			groups[x.wait] = g
		}
		g.add(x, age)
	}
	out := make([]*group, 0, len(groups))
	for _, g := range groups {
		out = append(out, g)
	}
	slices.SortFunc(out, func(a, b *group) int { return cmp.Compare(a.tasks[0].wait, b.tasks[0].wait) })
	return out
}

// add keeps the group sorted by age, longest first.
func (g *group) add(x task, age time.Duration) {
	i, _ := slices.BinarySearchFunc(g.ages, age, func(a, b time.Duration) int { return cmp.Compare(b, a) })
	g.tasks = slices.Insert(g.tasks, i, x)
	g.ages = slices.Insert(g.ages, i, age)
}

// record makes the event of a group.
func (g *group) record(now time.Time) *signal.Record {
	first := &g.tasks[0]
	b := &HungTask{
		Source: bySampling, BlockedSeconds: g.ages[0].Seconds(), Wait: first.wait, WaitClass: first.class, Killable: first.killable, Tasks: len(g.tasks),
		Others: make([]signal.Party, min(len(g.tasks)-1, maxOthers)),
	}
	r := &signal.Record{Schema: hungTask, Time: now, CgroupID: first.cgroup, Process: first.process(), KernelIPs: first.stack, KernelStack: first.frames, Body: b, Lasted: g.ages[0]}
	for i := range b.Others {
		x := &g.tasks[i+1]
		b.Others[i] = signal.Party{Process: x.process(), CgroupID: x.cgroup}
		if !slices.Equal(x.stack, first.stack) { // the same stack need not be told twice
			b.Others[i].KernelIPs = x.stack
		}
		if !slices.Equal(x.frames, first.frames) {
			b.Others[i].KernelStack = x.frames
		}
		r.Parties = append(r.Parties, &b.Others[i])
	}
	b.lock(first, r)
	r.Title = b.title(r.Process)
	return r
}

func (t *task) process() signal.Process {
	return signal.Process{PID: t.tgid, TID: t.pid, Comm: t.comm}
}
