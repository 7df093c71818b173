package main

import (
	"fmt"
	"maps"
	"math"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"huatuo/internal/signal"
)

// warm is what of the run is not judged, if that leaves half of it: the agent
// remembers processes, control groups and their counters for ten minutes, and
// only then has everything that it may have.
const warm = 12 * time.Minute

// quantity is something that must not grow.
type quantity struct {
	name  string
	of    func(point) float64
	scale float64 // of the numbers shown
	unit  string
	slack float64 // growth over the judged part that passes for none
	line  line
	grown float64 // over the judged part, by the line
}

func (q *quantity) flat() bool { return q.grown <= q.slack }

// report is the result of a run.
type report struct {
	d, from    time.Duration // how long, and from when on it is judged
	points     []point
	final      [3]point
	trouble    []string
	quantities []*quantity
	more       int64 // series at the end than when it began to be judged
}

// perSeries is what the store holds in memory of each series, for two hours
// after its last sample: by design, so that it is no leak when there are more.
const perSeries = 4096

func newReport(d time.Duration, points []point, final [3]point, trouble []string) *report {
	r := &report{d: d, points: points, final: final, trouble: trouble, quantities: []*quantity{
		// Go returns memory to the kernel in its own time: the noise of this is
		// 6 MB, so that the rise of a flat line may be as much as this.
		{name: "resident memory", of: func(p point) float64 { return p.rss }, scale: 1e6, unit: "MB", slack: 10e6},
		{name: "goroutines", of: func(p point) float64 { return p.goroutines }, scale: 1, slack: 5},
		{name: "file descriptors", of: func(p point) float64 { return p.fds }, scale: 1, slack: 5},
		{name: "threads", of: func(p point) float64 { return p.threads }, scale: 1, slack: 4},
	}}
	judged := points
	for len(judged) > len(points)/2 && judged[0].at < warm {
		judged = judged[1:]
	}
	r.from = judged[0].at
	for _, q := range r.quantities {
		var t, y []float64
		for _, p := range judged {
			t, y = append(t, p.at.Seconds()), append(y, q.of(p))
		}
		q.line = fit(t, y)
		if len(t) > 1 {
			q.grown = q.line.slope * (t[len(t)-1] - t[0])
		}
	}
	if more := int64(judged[len(judged)-1].series) - int64(judged[0].series); more > 0 {
		r.more = more
		r.quantities[0].slack += float64(perSeries * more)
	}
	return r
}

func (r *report) ok() bool {
	for _, q := range r.quantities {
		if !q.flat() {
			return false
		}
	}
	return lawful(r.final)
}

func (r *report) page() string {
	var b strings.Builder
	r.head(&b)
	r.verdict(&b)
	r.course(&b)
	r.accounts(&b)
	if len(r.trouble) > 0 {
		b.WriteString("\n## Warnings and errors in the agent's log\n\n```\n" + strings.Join(r.trouble, "\n") + "\n```\n")
	}
	return b.String()
}

func (r *report) head(b *strings.Builder) {
	var u unix.Utsname
	unix.Uname(&u)
	fmt.Fprintf(b, "# Soak\n\nWritten by `make soak D=%s`: the agent, with its defaults, under mild mixed load for %v, on Linux %s, %s, %d CPUs, %s.\n"+
		"The machine had other work as well; CPU time is the agent's own.\n\nThe load, all at the same time:\n\n",
		short(r.d), short(r.d), unix.ByteSliceToString(u.Release[:]), runtime.GOARCH, runtime.NumCPU(), runtime.Version())
	for _, l := range loads("") {
		fmt.Fprintf(b, "- %s, each %v\n", l.what, l.every)
	}
}

func short(d time.Duration) string {
	return strings.NewReplacer("h0m0s", "h", "m0s", "m").Replace(d.String())
}

func (r *report) verdict(b *strings.Builder) {
	said := "**Passed**: nothing grows, and every event is accounted for."
	if !r.ok() {
		said = "**Failed.**"
	}
	fmt.Fprintf(b, "\n## Verdict\n\n%s A straight line is fitted to what was seen from %v on; what it rises in that time must be no more than the slack. The slack of the memory has %d KiB for each series that the store had more at the end (%d); it keeps each for two hours.\n\n",
		said, r.from.Round(time.Second), perSeries/1024, r.more)
	b.WriteString("| | mean | noise (σ) | rise | slack | |\n|---|---|---|---|---|---|\n")
	for _, q := range r.quantities {
		v := "flat"
		if !q.flat() {
			v = "**grows**"
		}
		u := strings.TrimRight(" "+q.unit, " ")
		fmt.Fprintf(b, "| %s | %.1f%s | %.1f%s | %+.1f%s | %.0f%s | %s |\n", q.name, q.line.mean/q.scale, u, q.line.noise/q.scale, u, zero(q.grown/q.scale), u, q.slack/q.scale, u, v)
	}
	law := "holds"
	if !lawful(r.final) {
		law = "**does not hold**"
	}
	fmt.Fprintf(b, "\nThe conservation law (observed = dropped + routed, and routed = delivered + dropped + failed in each sink) %s.\n", law)
}

// zero keeps a minus sign from what is shown as 0.
func zero(v float64) float64 {
	if math.Abs(v) < 0.05 {
		return 0
	}
	return v
}

// course shows some twenty points.
func (r *report) course(b *strings.Builder) {
	b.WriteString("\n## Course\n\n| time | resident MB | CPU | goroutines | descriptors | threads | store MB | series | events observed | dropped |\n|---|---|---|---|---|---|---|---|---|---|\n")
	step := max(1, len(r.points)/20)
	var last point
	for i, p := range r.points {
		if i%step != step-1 && i != len(r.points)-1 {
			continue
		}
		observed, dropped := totals(p.accounts)
		fmt.Fprintf(b, "| %v | %.1f | %.2f %% | %.0f | %.0f | %.0f | %.1f | %d | %d | %d |\n", p.at.Round(time.Second), p.rss/1e6,
			100*(p.cpu-last.cpu).Seconds()/(p.at-last.at).Seconds(), p.goroutines, p.fds, p.threads, float64(p.store)/1e6, p.series, observed, dropped)
		last = p
	}
	b.WriteString("\nCPU is the share of one core since the row before. The store grows until its retention; its series are those of the last hours, with those of the control groups that came and went.\n")
}

func totals(accounts []signal.Account) (observed, dropped uint64) {
	for _, a := range accounts {
		observed += a.Observed
		for _, n := range a.Dropped {
			dropped += n
		}
		for _, s := range a.Sinks {
			dropped += s.Dropped + s.Failed
		}
	}
	return observed, dropped
}

func (r *report) accounts(b *strings.Builder) {
	b.WriteString("\n## Accounts at the end\n\n| probe | observed | dropped, by reason | routed | kept in the store | dropped or failed there |\n|---|---|---|---|---|---|\n")
	for _, a := range r.final[2].accounts {
		var why []string
		for _, k := range slices.Sorted(maps.Keys(a.Dropped)) {
			if a.Dropped[k] > 0 {
				why = append(why, fmt.Sprintf("%s %d", k, a.Dropped[k]))
			}
		}
		if len(why) == 0 {
			why = []string{"–"}
		}
		var kept, lost uint64
		for _, s := range a.Sinks {
			if s.Sink == "store" {
				kept, lost = s.Delivered, s.Dropped+s.Failed
			}
		}
		fmt.Fprintf(b, "| %s | %d | %s | %d | %d | %d |\n", a.Probe, a.Observed, strings.Join(why, ", "), a.Routed, kept, lost)
	}
}
