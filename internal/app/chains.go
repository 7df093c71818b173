package app

import (
	"sync"
	"time"

	"huatuo/internal/diagnose/chain"
	"huatuo/internal/probe"
)

// dropsProbe is the probe that reports dropped packets.
const dropsProbe = "netdrop"

// dropsAge is how old the count of drops may be: it is read from maps of the
// kernel, and a storm of retransmissions asks a hundred times a second. One is
// judged when it is older than that by far (chain.Grace), so that what dropped it
// is in the count.
const dropsAge = 100 * time.Millisecond

// dropCount remembers what unseenDrops read last.
type dropCount struct {
	mu   sync.Mutex
	at   time.Time
	last chain.Unseen
	ok   bool
}

// unseenDrops counts the packet drops that made no event; false when the probe
// that watches them does not run.
func (e *Engine) unseenDrops() (chain.Unseen, bool) {
	d := &e.drops
	d.mu.Lock()
	defer d.mu.Unlock()
	if time.Since(d.at) < dropsAge {
		return d.last, d.ok
	}
	l, counts := e.pipe.Loss(dropsProbe)
	d.at, d.last, d.ok = time.Now(), chain.Unseen{}, counts && e.super.runs(dropsProbe)
	if d.ok {
		d.last = unseen(l)
	}
	return d.last, d.ok
}

// unseen sorts what a probe did not tell: what the configuration, a known issue
// or the place says is not to be told was left out, all else was lost.
func unseen(l probe.Loss) chain.Unseen {
	u := chain.Unseen{LeftOut: l.LeftOut}
	for why, n := range l.Dropped {
		switch why {
		case "normal_place", "filtered", "known_issue":
			u.LeftOut += n
		default:
			u.Lost += n
		}
	}
	return u
}
