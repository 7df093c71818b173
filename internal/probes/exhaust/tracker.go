package exhaust

import (
	"time"
)

// Shares of a limit.
const (
	watchRatio    = 0.5  // below nothing is remembered: what is to fill up within minutes passes here in time
	sinceRatio    = 0.7  // from here on growth counts
	criticalRatio = 0.98 // calls fail already, or with the next burst
	rearmBelow    = 0.05 // below the threshold: what hovers about it is one event
)

// Times between events of one instance.
const (
	quiet     = 10 * time.Minute // at least, from one episode to the next
	firstWait = time.Hour        // while it lasts; then twice as long
	lastWait  = 24 * time.Hour
)

// Growth is that of a line through the last readings.
const (
	maxSamples = 30
	minSamples = 6   // the first few readings of anything lie on a line
	goodFit    = 0.8 // r²: a saw tooth has less
)

// keepRounds is how long an instance is remembered that no round has: of many
// processes each round has a part, and a file system may not answer for a while.
const keepRounds = 8

// maxReports bounds the events of one round: a node has some 250 pods, and
// something that makes all of them run out at once is not told better by 250 events.
const maxReports = 20

type sample struct {
	at   time.Time
	used uint64
}

// state is what is known of one instance.
type state struct {
	samples  []sample
	limit    uint64
	since    time.Time
	fired    bool
	critical bool
	last     time.Time     // event
	wait     time.Duration // until the next while it lasts
	reports  int           // since it was armed
	held     uint64        // events that were due and were not made, since the last
	round    uint64
}

// report is an event that is due.
type report struct {
	reading   *reading
	since     time.Time
	slope     float64
	grows     bool
	left      time.Duration
	predicted bool
	before    int
	held      uint64
}

// tracker decides which readings of a source are events.
type tracker struct {
	threshold float64
	horizon   time.Duration
	states    map[string]*state
	round     uint64
	held      uint64 // in all
}

func newTracker(cfg Config) *tracker {
	return &tracker{threshold: cfg.Threshold, horizon: cfg.Horizon, states: map[string]*state{}}
}

// look takes all readings of a round and returns the events. What is not among
// those of some rounds is forgotten.
func (t *tracker) look(rs []reading, now time.Time) []*report {
	t.round++
	var out []*report
	for i := range rs {
		r := &rs[i]
		s := t.states[r.resource+"\x00"+r.key]
		if s == nil {
			if r.ratio() < watchRatio {
				continue
			}
			s = &state{}
			t.states[r.resource+"\x00"+r.key] = s
		}
		s.round = t.round
		p := t.step(s, r, now)
		if p == nil {
			continue
		}
		if len(out) == maxReports {
			s.hold()
			t.held++
			continue
		}
		p.before, p.held = s.reports, s.held
		s.told(now)
		out = append(out, p)
	}
	for k, s := range t.states {
		if t.round-s.round > keepRounds {
			delete(t.states, k)
		}
	}
	return out
}

// step takes one reading and returns an event that is due.
func (t *tracker) step(s *state, r *reading, now time.Time) *report {
	s.add(r, now)
	ratio := r.ratio()
	switch {
	case ratio < sinceRatio:
		s.since = time.Time{}
	case s.since.IsZero():
		s.since = now
	}
	p := &report{reading: r, since: s.since}
	var left time.Duration
	p.slope, left = s.growth()
	p.left, p.grows = left, left > 0
	near := ratio >= t.threshold
	p.predicted = !near && ratio >= sinceRatio && p.grows && left <= t.horizon
	critical := ratio >= criticalRatio
	if !s.fired {
		if !near && !p.predicted {
			return nil
		}
		s.fired, s.critical, s.reports, s.wait = true, critical, 0, firstWait
		if !s.last.IsZero() && now.Sub(s.last) < quiet {
			s.hold()
			t.held++
			return nil
		}
		return p
	}
	if ratio < t.threshold-rearmBelow && !(ratio >= sinceRatio && p.grows && left <= 2*t.horizon) {
		s.fired, s.critical = false, false
		return nil
	}
	if critical && !s.critical {
		s.critical = true
		return p
	}
	if now.Sub(s.last) >= s.wait {
		return p
	}
	return nil
}

// hold notes an event that is not made now: it is due again after the quiet time.
func (s *state) hold() {
	s.held++
	s.wait = quiet
}

func (s *state) told(now time.Time) {
	if s.reports > 0 {
		s.wait = min(2*s.wait, lastWait)
	} else {
		s.wait = firstWait
	}
	s.last, s.held = now, 0
	s.reports++
}

// add keeps the last readings. With another limit the old ones tell nothing of
// the time that is left.
func (s *state) add(r *reading, now time.Time) {
	if r.limit != s.limit {
		s.samples, s.limit = s.samples[:0], r.limit
	}
	if len(s.samples) == maxSamples {
		copy(s.samples, s.samples[1:])
		s.samples = s.samples[:maxSamples-1]
	}
	s.samples = append(s.samples, sample{now, r.used})
}

// growth fits a line through the readings, by least squares. left is how long it
// takes to the limit, 0 when it does not grow or not along a line.
func (s *state) growth() (slope float64, left time.Duration) {
	n := float64(len(s.samples))
	if len(s.samples) < minSamples {
		return 0, 0
	}
	first := s.samples[0]
	var st, su, stt, stu, suu float64
	for _, x := range s.samples {
		t, u := x.at.Sub(first.at).Seconds(), float64(x.used)-float64(first.used)
		st, su, stt, stu, suu = st+t, su+u, stt+t*t, stu+t*u, suu+u*u
	}
	vt, vu, cov := n*stt-st*st, n*suu-su*su, n*stu-st*su
	if vt <= 0 || vu <= 0 {
		return 0, 0
	}
	slope = cov / vt
	if last := s.samples[len(s.samples)-1]; slope > 0 && cov*cov/(vt*vu) >= goodFit && last.used < s.limit {
		secs := float64(s.limit-last.used) / slope
		if secs < float64(30*24*time.Hour/time.Second) {
			left = max(time.Duration(secs*float64(time.Second)), 1)
		}
	}
	return slope, left
}
