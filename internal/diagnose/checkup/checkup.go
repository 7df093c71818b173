// Package checkup looks at what was measured for half a minute and says what is
// wrong with the machine, what was looked at and is fine, and what could not be
// looked at.
//
// What is wrong is decided by rules, which are data: each says what it measures,
// from which value on and why from there, and what to do. A rule whose metrics are
// not measured on this kernel is told as such, never as fine.
package checkup

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"huatuo/internal/diagnose/window"
	"huatuo/internal/probe"
	"huatuo/internal/signal"
)

// Rule is one thing that is looked at.
type Rule struct {
	Name      string
	Area      signal.Area
	What      string   // what is measured
	Threshold string   // from when it is a finding, and why from there
	Next      string   // what to do
	Metrics   []string // that it needs, each
	Kinds     []string // of events that it looks at
	// Nothing says why a metric may be absent although it is measured:
	// "no workload has a CPU limit". Empty: it may not.
	Nothing string
	check   func(f *Facts) verdict
}

// verdict is what a rule finds: nothing, and then fine tells the numbers.
type verdict struct {
	findings []Finding
	fine     string
}

// Finding is something wrong.
type Finding struct {
	Rule     string           `json:"rule"`
	Area     signal.Area      `json:"area"`
	Severity signal.Severity  `json:"severity" enum:"warning,critical"`
	Subject  string           `json:"subject"`            // who or what it is about: a workload, a device, host
	Workload *window.Workload `json:"workload,omitempty"` // when it is about one
	Sentence string           `json:"sentence"`
	Next     string           `json:"next"`
	Excess   float64          `json:"excess"` // by how much the threshold is passed: 2 is twice
	Events   []string         `json:"events,omitempty"`
}

// Note is a rule that found nothing, or that could not be applied, and why.
type Note struct {
	Rule string `json:"rule"`
	Text string `json:"text"`
}

// Report is the result.
type Report struct {
	Host        string    `json:"host"`
	Kernel      string    `json:"kernel"`
	Time        time.Time `json:"time"`
	Seconds     float64   `json:"seconds"`
	Verdict     string    `json:"verdict" enum:"healthy,warning,critical"`
	Findings    []Finding `json:"findings"`     // worst first
	Fine        []Note    `json:"fine"`         // looked at, and in order
	NotMeasured []Note    `json:"not_measured"` // not looked at, and why
}

// Facts is what rules look at.
type Facts struct {
	*window.Window
	Events []*signal.Document
	CPUs   int
	Probes []probe.Status
	// Disk tells what kind of device a disk is.
	Disk func(name string) Class
}

// Class of a disk: how long a healthy one takes for a request.
type Class string

// Classes of disks.
const (
	Fast    Class = "nvme"    // flash on PCIe
	Flash   Class = "flash"   // flash behind SATA or SAS
	Spindle Class = "spindle" // it turns
	Virtual Class = "virtual" // of a virtual machine, or on the network: anything
)

// perRule is how many findings of one rule are told: when everybody is slow, the
// slowest five explain it.
const perRule = 5

// Run applies the rules.
func Run(f *Facts, rules []Rule) Report {
	r := Report{Seconds: f.Seconds, Verdict: "healthy", Findings: []Finding{}, Fine: []Note{}, NotMeasured: []Note{}}
	for _, rule := range rules {
		why, measured := f.measured(&rule)
		if !measured {
			r.NotMeasured = append(r.NotMeasured, Note{rule.Name, sentence(why)})
			continue
		}
		if why != "" {
			r.Fine = append(r.Fine, Note{rule.Name, sentence(why)})
			continue
		}
		v := rule.check(f)
		if len(v.findings) == 0 {
			r.Fine = append(r.Fine, Note{rule.Name, sentence(v.fine)})
			continue
		}
		r.Findings = append(r.Findings, rule.finish(v.findings)...)
	}
	rank(r.Findings)
	for _, x := range r.Findings {
		if x.Severity == signal.Critical || r.Verdict == "healthy" {
			r.Verdict = string(x.Severity)
		}
	}
	return r
}

// finish completes the findings of a rule, and keeps the worst of them.
func (rule *Rule) finish(found []Finding) []Finding {
	for i := range found {
		x := &found[i]
		x.Rule, x.Area = rule.Name, rule.Area
		if x.Next == "" {
			x.Next = rule.Next
		}
		if x.Subject == "" {
			x.Subject = "host"
		}
	}
	rank(found)
	if more := len(found) - perRule; more > 0 {
		found = found[:perRule]
		found[perRule-1].Sentence += fmt.Sprintf(" So it is with %d more.", more)
	}
	return found
}

// rank puts the worst first.
func rank(found []Finding) {
	slices.SortStableFunc(found, func(a, b Finding) int {
		critical := func(x Finding) int {
			if x.Severity == signal.Critical {
				return 0
			}
			return 1
		}
		return cmp.Or(critical(a)-critical(b), cmp.Compare(b.Excess, a.Excess))
	})
}

// measured tells whether a rule can be applied, and if not why; a reason beside
// true says that there is nothing to apply it to.
func (f *Facts) measured(rule *Rule) (why string, ok bool) {
	nothing := false
	for _, m := range append(slices.Clone(rule.Metrics), rule.Kinds...) {
		i := slices.IndexFunc(f.Probes, func(p probe.Status) bool { return slices.Contains(p.Signals, m) })
		if i < 0 {
			return "no probe tells of " + m, false
		}
		p := f.Probes[i]
		if p.State != probe.Running && p.State != probe.Degraded {
			return fmt.Sprintf("the probe %s is %s%s", p.Name, p.State, colon(p.Reason)), false
		}
		if slices.Contains(rule.Metrics, m) && !f.Measured(m) {
			if rule.Nothing == "" {
				return fmt.Sprintf("the kernel does not tell %s", m), false
			}
			nothing = true
		}
	}
	if nothing {
		return rule.Nothing, true
	}
	return "", true
}

// sentence begins with a capital and ends with a stop.
func sentence(s string) string {
	if s == "" {
		return s
	}
	r := []rune(s)
	r[0] = unicode.ToUpper(r[0])
	if s = string(r); !strings.HasSuffix(s, ".") {
		s += "."
	}
	return s
}

func colon(s string) string {
	if s == "" {
		return ""
	}
	return ": " + s
}

// one makes the verdict of a rule with at most one finding: that value against a
// warning and a critical threshold, 0 for none. More is worse.
func one(value, warn, crit float64, sentence string) verdict {
	x, bad := judge(value, warn, crit)
	if !bad {
		return verdict{fine: sentence}
	}
	x.Sentence = sentence
	return verdict{findings: []Finding{x}}
}

// judge holds a value to thresholds.
func judge(value, warn, crit float64) (x Finding, bad bool) {
	switch {
	case crit > 0 && value >= crit:
		x.Severity = signal.Critical
	case value >= warn:
		x.Severity = signal.Warning
	default:
		return x, false
	}
	x.Excess = value / warn
	return x, true
}

// about makes a finding one about a workload.
func about(x Finding, w window.Workload) Finding {
	x.Subject, x.Workload = w.String(), &w
	return x
}

// of returns the events of these kinds.
func (f *Facts) of(kinds ...string) []*signal.Document {
	var out []*signal.Document
	for _, d := range f.Events {
		if slices.Contains(kinds, d.Kind) {
			out = append(out, d)
		}
	}
	return out
}

// tell is a finding about events: the first is quoted, and all are named.
func tell(docs []*signal.Document, severity signal.Severity) Finding {
	x := Finding{Severity: severity, Excess: float64(len(docs))}
	known := map[string]bool{}
	for _, d := range docs {
		x.Events = append(x.Events, d.ID)
		for _, k := range d.Known {
			known[k] = true
		}
	}
	x.Sentence = strings.TrimSuffix(docs[0].Title, ".")
	if n := len(docs); n > 1 {
		x.Sentence += fmt.Sprintf("; %d such events in all", n)
	}
	x.Sentence += "."
	for k := range known {
		x.Sentence += fmt.Sprintf(" It is a known issue: %s.", k)
	}
	if c := docs[0].Container; c != nil {
		x = about(x, window.Of(c))
	}
	return x
}
