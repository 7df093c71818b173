package runqueue

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/cilium/ebpf"

	"huatuo/internal/probe"
	"huatuo/internal/signal"
)

// Culprits that are no cgroup, as culprit.h has them.
const (
	idle    = uint64(0)
	quota   = ^uint64(0)
	unknown = ^uint64(1)
)

const (
	// maxPairs is how many the kernel's table has (PAIRS in culprit.h).
	maxPairs = 8192
	// minStay is how long a pair has series of its own at least: ten
	// samples in a Prometheus that scrapes once a minute.
	minStay = 10 * time.Minute
	// better is how many times a newcomer must outgrow a pair to take its
	// place then: between equals the series would change without end. Far
	// better does not wait: what is there may be no more than noise.
	better, farBetter = 2, 100
	// least growth of a pair with series of its own, in ns: less in two minutes
	// nobody notices, and groups that come and go would make series without end.
	least = 1e7
	// fading is how fast growth is forgotten in the ranking.
	fading = 2 * time.Minute
	// silence is after how long a victim's sum of the others is forgotten:
	// long after the gatherer has (10 minutes).
	silence = time.Hour
)

var culprit = &signal.Schema{
	Name: "huatuo_container_runqueue_culprit_seconds_total", Kind: signal.Metric, Type: signal.Counter, Unit: "seconds",
	Area: signal.AreaSched, Scope: signal.Workload,
	Help: "Time that tasks of the workload waited for a CPU, by who had that CPU meanwhile.",
	Read: "culprit=\"workload\": a neighbour, named by the culprit_ labels; quota: its own CPU limit; self: more tasks of its own than CPUs.",
	Fields: signal.PeerFields("culprit", "who had the CPU: another workload, the workload itself, nobody (idle), nobody because its quota was used up (quota), or who has no series of their own (other)",
		"idle", "quota"),
}

// blames follows the time that pairs of victim and culprit have in the kernel's
// table, and decides which have series of their own: the first top by growth.
// What all others of a victim have is one series, so that the sum is right. No
// series ever falls, whatever the kernel forgets and whoever comes and goes.
type blames struct {
	top    int
	pairs  map[bpfPair]*blamed
	rest   map[uint64]*sum // by victim
	before time.Time
}

// blamed is one pair.
type blamed struct {
	sum
	read  uint64  // the kernel's value, ns
	fresh uint64  // what it grew by in this round, ns
	score float64 // recent growth, ns
	since time.Time
	own   bool // has series of its own
	seen  bool // in the kernel's table, in this round
	comm  string
}

// sum is a series that begins at zero: what came before its first sample would
// show in no rate.
type sum struct {
	shown, held uint64 // ns
	begun       bool
	last        time.Time // of add
}

func (s *sum) add(ns uint64, now time.Time) { s.held, s.last = s.held+ns, now }

// next is the value to report.
func (s *sum) next() float64 {
	if s.begun {
		s.shown += s.held
		s.held = 0
	}
	s.begun = true
	return float64(s.shown) / 1e9
}

func newBlames(top int) *blames {
	return &blames{top: top, pairs: map[bpfPair]*blamed{}, rest: map[uint64]*sum{}}
}

// entry is one entry of the kernel's table.
type entry struct {
	bpfPair
	bpfBlame
}

// update takes in what the kernel has now.
func (bs *blames) update(now time.Time, table []entry) {
	fade := 1.0
	if d := now.Sub(bs.before); d > 0 && !bs.before.IsZero() {
		fade = math.Exp(-d.Seconds() / fading.Seconds())
	}
	bs.before = now
	for _, p := range bs.pairs {
		p.score *= fade
		p.fresh, p.seen = 0, false
	}
	for i := range table {
		e := &table[i]
		p := bs.pairs[e.bpfPair]
		if p == nil {
			p = &blamed{}
			bs.pairs[e.bpfPair] = p
		}
		p.seen = true
		p.fresh = e.Ns - p.read
		if e.Ns < p.read { // forgotten by the kernel meanwhile, and begun anew
			p.fresh = e.Ns
		}
		p.read = e.Ns
		p.score += float64(p.fresh)
		if name := probe.CString(e.Comm[:]); name != "" {
			p.comm = name
		}
	}
	bs.elect(now)
	bs.share()
}

// elect gives series of their own to the pairs that grow most. Who has them
// keeps them for a while.
func (bs *blames) elect(now time.Time) {
	var in, out []*blamed
	for pair, p := range bs.pairs {
		switch {
		case p.own:
			in = append(in, p)
		case p.score > 0 && pair.Culprit != unknown: // which is the rest whatever its size
			out = append(out, p)
		}
	}
	byScore := func(a, b *blamed) int { return cmp.Compare(b.score, a.score) }
	slices.SortFunc(in, byScore)
	slices.SortFunc(out, byScore)
	for _, p := range out {
		if p.score < least {
			return
		}
		if len(in) >= bs.top {
			i := outgrown(in, p, now)
			if i < 0 {
				return
			}
			in[i].own = false
			in = slices.Delete(in, i, i+1)
		}
		p.own, p.since = true, now
		in = append([]*blamed{p}, in...)
	}
}

// outgrown is the last of those that p may take the place of, -1 for none.
func outgrown(in []*blamed, p *blamed, now time.Time) int {
	for i, x := range slices.Backward(in) {
		if now.Sub(x.since) >= minStay && p.score >= better*x.score || p.score >= farBetter*max(x.score, least) {
			return i
		}
	}
	return -1
}

// share adds what is new to the series, and forgets what nobody needs.
func (bs *blames) share() {
	for pair, p := range bs.pairs {
		if p.own {
			p.add(p.fresh, bs.before)
			continue
		}
		if p.fresh > 0 {
			r := bs.rest[pair.Victim]
			if r == nil {
				r = &sum{}
				bs.rest[pair.Victim] = r
			}
			r.add(p.fresh, bs.before)
		}
		if !p.seen {
			delete(bs.pairs, pair)
		}
	}
	maps.DeleteFunc(bs.rest, func(_ uint64, r *sum) bool { return bs.before.Sub(r.last) > silence })
}

// collect adds the series to b.
func (bs *blames) collect(b *signal.Batch) {
	for pair, p := range bs.pairs {
		if !p.own {
			continue
		}
		switch pair.Culprit {
		case idle:
			b.WorkloadValue(culprit, pair.Victim, p.next(), signal.NoPeer("idle")...)
		case quota:
			b.WorkloadValue(culprit, pair.Victim, p.next(), signal.NoPeer("quota")...)
		default:
			b.WorkloadPair(culprit, pair.Victim, pair.Culprit, p.next(), p.comm)
		}
	}
	for victim, r := range bs.rest {
		b.WorkloadValue(culprit, victim, r.next(), signal.NoPeer(signal.PeerOther)...)
	}
}

// readPairs reads the kernel's table: in one go where the kernel can do that.
func readPairs(m *ebpf.Map) ([]entry, error) {
	keys := make([]bpfPair, 1024) // no bucket of the hash has as many
	values := make([]bpfBlame, len(keys))
	var out []entry
	var at ebpf.MapBatchCursor
	for {
		n, err := m.BatchLookup(&at, keys, values, nil)
		for i := range n {
			out = append(out, entry{keys[i], values[i]})
		}
		switch {
		case errors.Is(err, ebpf.ErrKeyNotExist):
			return out, nil
		case errors.Is(err, ebpf.ErrNotSupported) && len(out) == 0: // Linux 5.5 and before
			return iteratePairs(m)
		case err != nil:
			return nil, fmt.Errorf("read pairs of victim and culprit: %w", err)
		}
	}
}

func iteratePairs(m *ebpf.Map) ([]entry, error) {
	var out []entry
	var e entry
	it := m.Iterate()
	for it.Next(&e.bpfPair, &e.bpfBlame) {
		out = append(out, e)
	}
	// The kernel forgets pairs while they are read: then some are missing until the next round.
	if err := it.Err(); err != nil && !errors.Is(err, ebpf.ErrIterationAborted) {
		return nil, fmt.Errorf("read pairs of victim and culprit: %w", err)
	}
	return out, nil
}
