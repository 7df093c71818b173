package app

import (
	"huatuo/internal/diagnose/chain"
	"huatuo/internal/probe"
)

// dropsProbe is the probe that reports dropped packets.
const dropsProbe = "netdrop"

// unseenDrops counts the packet drops that made no event; false when the probe
// that watches them does not run.
func (e *Engine) unseenDrops() (chain.Unseen, bool) {
	l, counts := e.pipe.Loss(dropsProbe)
	if !counts || !e.super.runs(dropsProbe) {
		return chain.Unseen{}, false
	}
	return unseen(l), true
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
