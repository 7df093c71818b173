package chain

import (
	"slices"
	"time"

	"huatuo/internal/signal"
)

// What two events have in common, as it begins a key.
const (
	byFlow   = "flow:"
	byPID    = "pid:"
	byCPU    = "cpu:"
	byDevice = "dev:"
	byListen = "listen:"
)

// rule says that an event of one kind belongs to an earlier or later one of
// another that has a key in common with it.
type rule struct {
	of, other string
	by        string // prefix of the key
	relation  string // what other is to of
	match     func(of, other *seen) bool
}

var rules = []rule{
	{"tcp_retransmit", "packet_drop", byFlow, signal.Cause, droppedBefore},
	{"connect_failure", "packet_drop", byFlow, signal.Cause, droppedBefore},
	{"connect_failure", "tcp_reset", byFlow, signal.Cause, resetBefore},
	{"connect_failure", "tcp_retransmit", byFlow, signal.Same, resetBefore},
	{"dns_failure", "packet_drop", byFlow, signal.Cause, droppedBefore},
	{"listen_overflow", "packet_drop", byListen, signal.Same, during},

	{"sched_stall", "tick_gap", byCPU, signal.Cause, mostOf},
	{"softirq_stall", "tick_gap", byCPU, signal.Cause, mostOf},
	{"sched_stall", "tick_gap", byCPU, signal.Same, overlap},
	{"softirq_stall", "tick_gap", byCPU, signal.Same, overlap},
	{"sched_stall", "softirq_stall", byCPU, signal.Same, overlap},

	{"hung_task", "io_stall", byDevice, signal.Cause, overlap},
	{"hung_task", "hung_task", byPID, signal.Same, sameThread},
	{"oom_kill", "process_crash", byPID, signal.Effect, endedBy},
}

// concerned tells whether a rule looks at a kind.
func concerned(kind string) bool {
	return slices.ContainsFunc(rules, func(u rule) bool { return u.of == kind || u.other == kind })
}

// Windows of network events: a segment is sent again after 0.2 s to some
// seconds, and each time in a row after twice the time.
const (
	minWindow = 3 * time.Second
	maxWindow = 2 * time.Minute
)

// window is how long before a network event its cause may have been.
func window(s *seen) time.Duration {
	return min(max(minWindow, s.lasted+s.lasted/4), maxWindow)
}

// droppedBefore: a drop of the conversation, in either direction. Ends say which
// it is inside a network namespace; in another one, through which the packet
// may have gone, the sequence number has to be the same as well.
func droppedBefore(r, drop *seen) bool {
	if drop.time.After(r.time) || r.time.Sub(drop.time) > window(r) {
		return false
	}
	return r.netns == 0 || drop.netns == 0 || r.netns == drop.netns || sameSegment(r, drop)
}

// sameSegment: TCP's sequence number is the same, which says that it is the
// very data that were sent again.
func sameSegment(a, b *seen) bool {
	return slices.ContainsFunc(a.keys, func(k string) bool { return isSegment(k) && slices.Contains(b.keys, k) })
}

func isSegment(key string) bool { return len(key) > 4 && key[:4] == "seq:" }

func resetBefore(r, other *seen) bool {
	return r.netns == other.netns && !other.time.After(r.time) && r.time.Sub(other.time) <= window(r)
}

// during: a moment in the time that of is about.
func during(of, other *seen) bool {
	const slack = time.Second // the count is read a moment after the look began
	return !other.time.Before(of.began().Add(-slack)) && !other.time.After(of.time.Add(slack))
}

func overlap(a, b *seen) bool {
	return common(a, b) > 0 || a.lasted == 0 && b.lasted == 0 && a.time.Equal(b.time)
}

// common is how long both went on.
func common(a, b *seen) time.Duration {
	from, to := a.began(), a.time
	if b.began().After(from) {
		from = b.began()
	}
	if b.time.Before(to) {
		to = b.time
	}
	return to.Sub(from)
}

// mostOf: the other went on for half of it or more, and so is why.
func mostOf(of, other *seen) bool { return of.lasted > 0 && common(of, other) >= of.lasted/2 }

func sameProcess(a, b *seen) bool {
	// Start times of one process differ by how the clock was read.
	return a.start.IsZero() || b.start.IsZero() || a.start.Sub(b.start).Abs() < time.Second
}

// sameThread: one wait that was reported twice. It is another one when the task
// has run in between, which the later event's time tells.
func sameThread(a, b *seen) bool {
	const slack = 5 * time.Second // the agent sees a wait only when it looks
	first, last := a, b
	if b.time.Before(a.time) {
		first, last = b, a
	}
	return a.tid == b.tid && sameProcess(a, b) && !last.began().After(first.time.Add(slack))
}

// endedBy: the process ended soon after it was chosen.
func endedBy(kill, end *seen) bool {
	const soon = 30 * time.Second // the victim may wait for what cannot be interrupted
	d := end.time.Sub(kill.time)
	return sameProcess(kill, end) && d >= -time.Second && d <= soon
}
