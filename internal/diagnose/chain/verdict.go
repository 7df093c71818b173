package chain

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"huatuo/internal/signal"
)

const (
	countEvery = 2 * time.Second
	// maxCounts covers the longest window, and a look more.
	maxCounts = int(maxWindow/countEvery) + 2
)

// count is how many drops had gone unseen at a time.
type count struct {
	at time.Time
	Unseen
	known bool
}

// unseenSince is what went unseen in a time.
type unseenSince struct {
	since time.Time
	Unseen
	known bool
}

func (c *Chains) count() {
	u, ok := c.o.Unseen() // reads BPF maps: not under the lock
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counts = append(c.counts, count{c.o.Now(), u, ok})
	if n := len(c.counts) - maxCounts; n > 0 {
		c.counts = append(c.counts[:0], c.counts[n:]...)
	}
}

// since tells what of now went unseen since at, or since the last look before
// it. A count that began anew with its probe has no part of before.
func (c *Chains) since(at time.Time, now Unseen, watched bool) unseenSince {
	out := unseenSince{known: watched, Unseen: now}
	if !watched {
		return out
	}
	for i := len(c.counts) - 1; i >= 0; i-- {
		k := c.counts[i]
		if !k.known || k.Lost > now.Lost || k.LeftOut > now.LeftOut {
			break
		}
		out.since = k.at
		out.Unseen = Unseen{Lost: now.Lost - k.Lost, LeftOut: now.LeftOut - k.LeftOut}
		if !k.at.After(at) {
			break
		}
	}
	return out
}

// verdicts by kind. own is what the probe says, fs what belongs to the event, unseen what drops went unseen
// in the time in which its cause may have been.
var verdicts = map[string]func(own string, s *seen, fs []found, unseen unseenSince) string{
	"tcp_retransmit":  lost,
	"connect_failure": lost,
	"dns_failure":     lost,
	"hung_task":       hung,
}

func lost(own string, s *seen, fs []found, unseen unseenSince) string {
	if own != "" || !slices.ContainsFunc(s.keys, func(k string) bool { return strings.HasPrefix(k, byFlow) }) {
		return own
	}
	for _, f := range fs {
		if f.kind != "packet_drop" || f.relation != signal.Cause {
			continue
		}
		what := "a packet of the connection"
		if sameSegment(s, f.seen) {
			what = "this segment"
		}
		return fmt.Sprintf("dropped on this host: %s, reason %s, %s before", what, f.brief, round(s.time.Sub(f.time)))
	}
	return unseen.verdict(s.time)
}

func (u *unseenSince) verdict(at time.Time) string {
	switch {
	case !u.known:
		return "not known: packet drops are not watched, for the probe netdrop does not run"
	case u.since.IsZero():
		return "not known: no local drop seen, but drops have not been watched for long enough"
	}
	took := round(at.Sub(u.since))
	if u.Lost > 0 {
		return fmt.Sprintf("not known: no local drop seen, but %d drop events were rate-limited or lost since %s before it", u.Lost, took)
	}
	s := fmt.Sprintf("no local drop seen since %s before it: the loss is outside this host", took)
	if u.LeftOut > 0 {
		s += fmt.Sprintf("; not looked at: %d packets dropped for reasons that are normal or that the configuration leaves out", u.LeftOut)
	}
	return s
}

func hung(own string, _ *seen, fs []found, _ unseenSince) string {
	for _, f := range fs {
		if f.kind == "io_stall" {
			if own != "" {
				own += "; "
			}
			return own + "the device does not answer: " + f.title
		}
	}
	return own
}

func round(d time.Duration) time.Duration {
	switch {
	case d > 10*time.Second:
		return d.Round(time.Second)
	case d > time.Second:
		return d.Round(100 * time.Millisecond)
	}
	return d.Round(time.Millisecond)
}
