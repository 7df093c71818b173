package kernlog

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"huatuo/internal/signal"
)

// Limits of one report. The longest that is told whole is an RCU stall of some
// tens of CPUs; a stack of more than 64 functions has a loop.
const (
	maxRaw      = 200 // lines that are kept
	maxRawLine  = 400
	maxLine     = 4096 // of a line that is looked at
	maxSections = 32
	maxFrames   = 64
	maxReason   = 4
	maxTitle    = 300
	maxRegs     = 64
	maxList     = 64
)

// report is one report, as far as it has been read.
type report struct {
	is     kind
	caller string
	begun  time.Time // when its first line was read
	heard  time.Time // when its last line was read
	stamp  time.Duration

	lines int
	odd   int // lines in a row that are no part of a report
	raw   []string
	cut   int

	opened  bool // it has a head; before, there was only "cut here"
	died    bool // the line that ends in [#1] was seen
	rulers  int  // lines of =
	waiting bool // another CPU was asked for its stack
	done    bool

	cpu       int
	pid       uint32
	comm      string
	seconds   float64
	file      string
	line      int
	at        *signal.Frame
	reason    []string
	taint     string
	release   string
	hardware  string
	workqueue string
	flavour   string
	detected  string
	cpus      []int
	tasks     []uint32
	starved   bool
	pools     []string
	queue     string   // whose work the next lines tell
	pending   []string // work that is not begun, "queue: function"
	running   []string
	tick      time.Duration // a jiffy
	sections  []*section
	explained bool // no further lines of reason
	regs      map[string]string
	regsFrom  *section
}

// section is one stack within a report.
type section struct {
	of      string // empty: the report's own
	cpu     int
	pid     uint32
	comm    string
	idle    string
	at      *signal.Frame // where the CPU was: RIP, pc
	was     *signal.Frame // where it was interrupted, of a stack that begins in the interrupt
	atLine  int           // index among frames at which it belongs, -1 in front
	frames  []signal.Frame
	started bool
}

func newReport(now time.Time, caller string, tick time.Duration) *report {
	r := &report{begun: now, heard: now, caller: caller, cpu: -1, tick: tick}
	r.begin("", -1)
	return r
}

// begin starts another stack.
func (r *report) begin(of string, cpu int) {
	if len(r.sections) == maxSections {
		r.sections = r.sections[:maxSections-1] // the last ones are told least
	}
	r.sections = append(r.sections, &section{of: of, cpu: cpu, atLine: -1})
}

func (r *report) cur() *section { return r.sections[len(r.sections)-1] }

// main returns the stack that the report is about: its own, else that of the
// CPU that it is about, else the first.
func (r *report) main() *section {
	own := r.sections[0]
	if len(own.frames) > 0 || own.at != nil {
		return own
	}
	var first *section
	for _, s := range r.sections[1:] {
		if len(s.frames) == 0 && s.at == nil || s.cpu < 0 {
			continue
		}
		if s.cpu == r.cpu || len(r.cpus) > 0 && s.cpu == r.cpus[0] {
			return s
		}
		if first == nil {
			first = s
		}
	}
	if first != nil && r.cpu < 0 {
		return first
	}
	return own
}

func (s *section) name() string {
	if s.of == "" && s.cpu >= 0 {
		return "CPU " + strconv.Itoa(s.cpu)
	}
	return s.of
}

// stack returns the frames with where the CPU was in front, or in its place. A
// mark like <IRQ> stands before the frames of that context; one context alone
// needs none.
func (s *section) stack() []signal.Frame {
	all := make([]signal.Frame, 0, len(s.frames)+1)
	if s.at != nil && s.atLine < 0 && !s.startsWith(s.at.Function) {
		all = append(all, *s.at)
	}
	for i, f := range s.frames {
		if s.at != nil && i == s.atLine {
			all = append(all, *s.at)
		}
		all = append(all, f)
	}
	if s.at != nil && s.atLine == len(s.frames) {
		all = append(all, *s.at)
	}
	out, marks := all[:0], 0
	for i, f := range all {
		if isMark(f) {
			if i+1 == len(all) || isMark(all[i+1]) {
				continue
			}
			marks++
		}
		out = append(out, f)
	}
	if marks == 1 {
		out = slices.DeleteFunc(out, isMark)
	}
	return out
}

func isMark(f signal.Frame) bool { return strings.HasPrefix(f.Function, "<") }

// startsWith tells whether the first frame is of that function.
func (s *section) startsWith(function string) bool {
	i := slices.IndexFunc(s.frames, func(f signal.Frame) bool { return !isMark(f) })
	return i >= 0 && s.frames[i].Function == function
}

func (r *report) registers() map[string]string {
	if len(r.regs) == 0 {
		return nil
	}
	out := make(map[string]string, len(r.regs))
	for k, v := range r.regs {
		out[k] = mask(v)
	}
	return out
}

// keep keeps a line of the report's text. What is kept is masked before it is
// clipped: a part of an address tells much of it.
func (r *report) keep(s string) {
	if len(r.raw) == maxRaw {
		r.cut++
		return
	}
	r.raw = append(r.raw, clip(mask(s)))
}

// because notes a line that says what is wrong.
func (r *report) because(s string) {
	if len(r.reason) < maxReason {
		r.reason = append(r.reason, clip(mask(strings.TrimSpace(s))))
	}
}

// clip bounds a text that is kept.
func clip(s string) string {
	if len(s) > maxRawLine {
		return strings.ToValidUTF8(s[:maxRawLine], "") + "…"
	}
	return s
}

// trim takes the lines off its end that were not of the report.
func (r *report) trim() {
	if n := len(r.raw) - r.odd; r.cut == 0 && n > 0 {
		r.raw = r.raw[:n]
	}
}

// jiffies notes how long RCU has waited.
func (r *report) jiffies(s string) {
	r.seconds = max(r.seconds, (time.Duration(atoi(s)) * r.tick).Seconds())
}

// takeStalled notes a CPU ("3-...!") or a task ("P123") that RCU waits for.
func (r *report) takeStalled(s string) {
	if strings.HasPrefix(s, "P") {
		if pid := atoi(leadingDigits(s[1:])); pid > 0 && len(r.tasks) < maxList {
			r.tasks = append(r.tasks, uint32(pid))
		}
		return
	}
	if d := leadingDigits(s); d != "" && strings.HasPrefix(s[len(d):], "-") && len(r.cpus) < maxList {
		r.cpus = append(r.cpus, atoi(d))
	}
}

func leadingDigits(s string) string {
	i := 0
	for i < len(s) && s[i] >= '0' && s[i] <= '9' {
		i++
	}
	return s[:i]
}
