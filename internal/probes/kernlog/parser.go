package kernlog

import (
	"strings"
	"time"

	"huatuo/internal/kern/kmsg"
)

// When a report is over that has no last line of its own.
const (
	// quiet: the kernel writes a report at once, if its consoles are not slow.
	quiet = 500 * time.Millisecond
	// stackless: a report that has no stack yet gets longer.
	stackless = 2 * time.Second
	// asked: the kernel waits 10 s for a CPU that it has asked for its stack.
	asked = 11 * time.Second
	// longest: after that a report ends even if lines keep coming.
	longest = 30 * time.Second
	// maxLines of one report: 64 CPUs with 32 lines each.
	maxLines = 2048
	// maxOdd lines in a row that are no part of a report end it.
	maxOdd = 20
	// maxCutHere lines are between "cut here" and the head at most.
	maxCutHere = 8
	// maxOpen reports are read at once, of callers that the log tells apart.
	maxOpen = 8
)

const cutHere = "------------[ cut here ]------------"

// parser finds reports in records of the log. It is not safe for concurrent use.
type parser struct {
	tick time.Duration // a jiffy; 0: not known
	open []*report
	done []*report
}

// push takes a record that was read at now.
func (p *parser) push(rec *kmsg.Record, now time.Time) {
	if rec.Facility != 0 {
		return // a process wrote it
	}
	for i, s := range strings.Split(rec.Text, "\n") {
		s = strings.TrimRight(s, "\r \t")
		if len(s) > maxLine {
			s = s[:maxLine]
		}
		p.line(s, i == 0, rec, now)
	}
}

// due ends reports after which the log was quiet, and all that are too old.
func (p *parser) due(now time.Time) {
	for _, r := range p.open {
		r.done = r.done || !now.Before(r.deadline())
	}
	p.collect()
}

// next returns for how long due has nothing to do, negative: for ever.
func (p *parser) next(now time.Time) time.Duration {
	d := time.Duration(-1)
	for _, r := range p.open {
		if left := max(r.deadline().Sub(now), 0); d < 0 || left < d {
			d = left
		}
	}
	return d
}

// take returns the reports that are complete.
func (p *parser) take() []*report {
	done := p.done
	p.done = nil
	return done
}

// deadline is when a report is over if nothing more is read.
func (r *report) deadline() time.Time {
	d := quiet
	switch {
	case r.waiting:
		d = asked
	case len(r.main().frames) == 0:
		d = stackless
	}
	if end := r.begun.Add(longest); r.heard.Add(d).After(end) {
		return end
	}
	return r.heard.Add(d)
}

// line takes one line; first tells that it begins a record.
func (p *parser) line(s string, first bool, rec *kmsg.Record, now time.Time) {
	r := p.own(rec.Caller)
	if first && s == cutHere {
		if r != nil && r.opened && !r.fresh() {
			r.done = true
			p.collect()
			r = nil
		}
		if r == nil {
			r = p.start(rec, now)
		}
		r.keep(s)
		return
	}
	if first {
		if h, m := findHead(s); h != nil {
			p.head(r, h, m, s, rec, now)
			return
		}
	}
	if r == nil {
		r = p.asking()
	}
	if r == nil {
		return
	}
	r.heard = now
	r.lines++
	if !r.opened { // after "cut here"
		r.keep(s)
		r.because(s)
		if r.lines > maxCutHere {
			r.done = true
			p.collect()
		}
		return
	}
	r.keep(s)
	if r.add(s) {
		r.odd = 0
	} else {
		r.odd++
	}
	if r.done || r.lines >= maxLines || r.odd >= maxOdd {
		r.done = true
		p.collect()
	}
}

// head takes a line that begins a report, or goes on with one.
func (p *parser) head(r *report, h *head, m []string, s string, rec *kmsg.Record, now time.Time) {
	if r != nil && r.continues(h) {
		what := r.is
		h.take(r, m)
		r.is = what
		if !r.opened {
			r.is, r.opened = h.kind, true
		}
	} else {
		if r != nil {
			r.done = true
			p.collect()
		}
		r = p.start(rec, now)
		r.is, r.opened = h.kind, true
		h.take(r, m)
	}
	r.died = r.died || h.kind.what == "oops"
	r.heard, r.odd = now, 0
	r.lines++
	r.keep(s)
	if r.lines >= maxLines {
		r.done = true
		p.collect()
	}
}

// continues tells whether a head is one more line of r.
func (r *report) continues(h *head) bool {
	what := h.kind.what
	switch {
	case !r.opened:
		return true
	case !r.fresh():
		return false
	case r.is.what == "workqueue_lockup":
		return what == r.is.what
	case r.is.what == "list_corruption", r.is.what == "usercopy": // told before the check that fails by it
		return what == "bug" || what == "warn" || what == "oops" && !r.died
	case r.is.schema == kernelBug: // told before the oops
		return what == "oops" && !r.died
	}
	return false
}

// fresh tells that there is no stack yet.
func (r *report) fresh() bool {
	return len(r.sections) == 1 && len(r.sections[0].frames) == 0 && r.sections[0].at == nil && r.release == ""
}

// own returns the open report of that caller.
func (p *parser) own(caller string) *report {
	for _, r := range p.open {
		if r.caller == caller {
			return r
		}
	}
	return nil
}

// asking returns the report that has asked others for their stacks: what they
// write has another caller than the report.
func (p *parser) asking() *report {
	for _, r := range p.open {
		if r.waiting || len(r.sections) > 1 {
			return r
		}
	}
	return nil
}

func (p *parser) start(rec *kmsg.Record, now time.Time) *report {
	if len(p.open) == maxOpen {
		p.open[0].done = true
		p.collect()
	}
	r := newReport(now, rec.Caller, p.tick)
	r.stamp = rec.SinceBoot
	p.open = append(p.open, r)
	return r
}

// collect moves reports that are done out of the open ones.
func (p *parser) collect() {
	left := p.open[:0]
	for _, r := range p.open {
		switch {
		case !r.done:
			left = append(left, r)
		case r.opened:
			r.trim()
			p.done = append(p.done, r)
		}
	}
	clear(p.open[len(left):])
	p.open = left
}
