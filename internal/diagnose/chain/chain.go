// Package chain tells which events have to do with each other: the dropped
// packet behind a retransmission, the request that a hung task waits for.
//
// Two events belong together by identity only: the same conversation, process,
// device, CPU at the same time, listening socket. Events come from the probes'
// own queues and so out of order by some hundred milliseconds: Grace says how
// long one has to wait for those that explain it, and a cause that comes later
// still is told its effect.
package chain

import (
	"context"
	"strconv"
	"strings"
	"sync"
	"time"

	"huatuo/internal/signal"
)

const (
	// maxAge is how long an event is remembered: a task that hangs is reported
	// after 10 s and again after 100 s.
	maxAge = 10 * time.Minute
	// maxSeen bounds the events remembered, at some 400 bytes each.
	maxSeen = 4096
	// maxLinks of an event: a CPU that stalls for a second stalls dozens.
	maxLinks = 8
	// settle is the age at which all that happened before an event has come:
	// rings are drained every 250 ms, and the rest is for a busy machine.
	settle = 400 * time.Millisecond
)

// Options of New.
type Options struct {
	Now func() time.Time // nil means time.Now
	// Unseen tells how many packet drops made no event since the agent began;
	// false: nobody watches them. Nil: likewise.
	Unseen func() (Unseen, bool)
}

// Unseen counts packet drops that made no event.
type Unseen struct {
	Lost    uint64 // they should have: the rate limit held them back, or the ring was full
	LeftOut uint64 // their reason is normal, or the configuration leaves them out
}

// Chains remembers recent events. It is safe for concurrent use.
type Chains struct {
	o Options

	mu     sync.Mutex
	seen   []*seen // oldest first
	index  map[string][]*seen
	counts []count // of unseen drops, oldest first
}

// seen is what is remembered of an event.
type seen struct {
	id, kind, title, brief string
	time                   time.Time
	lasted                 time.Duration
	keys                   []string
	netns                  uint32
	tid                    uint32
	start                  time.Time // of the process; zero: not known
}

func (s *seen) began() time.Time { return s.time.Add(-s.lasted) }

// New returns Chains that remember nothing.
func New(o Options) *Chains {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Unseen == nil {
		o.Unseen = func() (Unseen, bool) { return Unseen{}, false }
	}
	return &Chains{o: o, index: map[string][]*seen{}}
}

// Run notes every two seconds how many drops went unseen, until ctx is done.
func (c *Chains) Run(ctx context.Context) {
	t := time.NewTicker(countEvery)
	defer t.Stop()
	for {
		c.count()
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// Grace is how long r should wait for the events that explain it.
func (c *Chains) Grace(r *signal.Record) time.Duration {
	if _, ok := verdicts[r.Schema.Name]; !ok || r.Flow == nil {
		return 0
	}
	return min(max(settle-c.o.Now().Sub(r.Time), 0), settle)
}

// Relate links r, which has its id, with earlier events, gives it a verdict
// where they tell one, and remembers it.
func (c *Chains) Relate(r *signal.Record) {
	s := describe(r)
	if len(s.keys) == 0 || !concerned(s.kind) {
		return
	}
	verdict := verdicts[s.kind]
	now, watched := Unseen{}, false
	if verdict != nil && r.Flow != nil {
		now, watched = c.o.Unseen() // reads BPF maps: not under the lock
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.expire()
	found := c.find(s)
	for _, f := range found {
		r.Links = append(r.Links, f.link())
	}
	c.add(s)
	if verdict != nil {
		r.Verdict = verdict(r.Verdict, s, found, c.since(s.time.Add(-window(s)), now, watched))
	}
}

// describe takes from r what the rules look at.
func describe(r *signal.Record) *seen {
	s := &seen{
		id: r.ID, kind: r.Schema.Name, title: r.Title, brief: r.Brief, time: r.Time, lasted: r.Lasted, tid: r.Process.TID, keys: r.Keys[:len(r.Keys):len(r.Keys)],
	}
	if f := r.Flow; f != nil {
		s.netns = f.NetNamespace
		s.keys = append(s.keys, byFlow+f.Protocol+"|"+f.A+"|"+f.B)
	}
	if r.Process.PID != 0 {
		s.keys = append(s.keys, byPID+strconv.FormatUint(uint64(r.Process.PID), 10))
	}
	if t := r.Process.StartTime; t != nil {
		s.start = *t
	}
	return s
}

// found is an event that belongs to another, and how.
type found struct {
	*seen
	relation string
}

func (f found) link() signal.Link {
	return signal.Link{ID: f.id, Kind: f.kind, Relation: f.relation, Title: f.title}
}

// find returns the events that belong to s, the latest first.
func (c *Chains) find(s *seen) (out []found) {
	done := map[*seen]bool{}
	for i := range rules {
		u := &rules[i]
		if s.kind == u.of {
			c.match(s, u.by, u.other, done, &out, u.relation, func(o *seen) bool { return u.match(s, o) })
		}
		if s.kind == u.other {
			c.match(s, u.by, u.of, done, &out, inverse(u.relation), func(o *seen) bool { return u.match(o, s) })
		}
	}
	return out
}

func (c *Chains) match(s *seen, by, kind string, done map[*seen]bool, out *[]found, relation string, match func(*seen) bool) {
	for _, k := range s.keys {
		if !strings.HasPrefix(k, by) {
			continue
		}
		list := c.index[k]
		for i := len(list) - 1; i >= 0 && len(*out) < maxLinks; i-- {
			if o := list[i]; o.kind == kind && !done[o] && match(o) {
				done[o] = true
				*out = append(*out, found{o, relation})
			}
		}
	}
}

func inverse(relation string) string {
	switch relation {
	case signal.Cause:
		return signal.Effect
	case signal.Effect:
		return signal.Cause
	}
	return relation
}

func (c *Chains) add(s *seen) {
	if len(c.seen) >= maxSeen {
		c.drop()
	}
	c.seen = append(c.seen, s)
	for _, k := range s.keys {
		c.index[k] = append(c.index[k], s)
	}
}

// expire forgets what is old by the time at which it came.
func (c *Chains) expire() {
	for limit := c.o.Now().Add(-maxAge); len(c.seen) > 0 && c.seen[0].time.Before(limit); {
		c.drop()
	}
}

// drop forgets the oldest event, which is the first of each of its keys.
func (c *Chains) drop() {
	s := c.seen[0]
	c.seen[0] = nil
	c.seen = c.seen[1:]
	for _, k := range s.keys {
		list := c.index[k]
		if len(list) <= 1 {
			delete(c.index, k)
			continue
		}
		list[0] = nil
		c.index[k] = list[1:]
	}
}
