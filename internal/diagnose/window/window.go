// Package window tells what happened between two gathering rounds: how much each
// counter and histogram grew, and what each gauge is now.
package window

import (
	"cmp"
	"math"
	"slices"
	"strings"

	"huatuo/internal/signal"
)

// Workload is what the series of a workload are called.
type Workload struct {
	Namespace string `json:"namespace,omitempty"`
	Pod       string `json:"pod,omitempty"`
	Container string `json:"container,omitempty"`
	Unit      string `json:"unit,omitempty"`
}

// String is the shortest name that a person would use.
func (w Workload) String() string {
	var parts []string
	for _, p := range []string{w.Namespace, w.Pod, w.Container} {
		if p != "" {
			parts = append(parts, p)
		}
	}
	switch {
	case len(parts) > 0:
		return strings.Join(parts, "/")
	case w.Unit == "/":
		return "host"
	default:
		return w.Unit
	}
}

// Of returns the workload of a container that an event has.
func Of(c *signal.Container) Workload {
	if c == nil {
		return Workload{}
	}
	w := Workload{Namespace: c.Namespace, Pod: c.Pod, Container: c.Name}
	if w == (Workload{}) {
		w.Unit = c.Unit
	}
	return w
}

// Series is one series in the window.
type Series struct {
	Value    float64      // by how much a counter grew, or the value of a gauge
	Hist     *signal.Hist // by how much a histogram grew
	Workload Workload     // of a Workload metric
	Note     string       // what the collector says beside the value

	schema *signal.Schema
	labels []string
}

// Label returns the value of a label of the metric's own, "" when it has none.
func (s *Series) Label(name string) string {
	i := slices.IndexFunc(s.schema.Fields, func(f signal.Field) bool { return f.Name == name })
	if i < 0 || i >= len(s.labels) {
		return ""
	}
	return s.labels[i]
}

// Window is what lies between two rounds.
type Window struct {
	Seconds float64
	series  map[string][]Series
}

// New makes the window between two rounds that lie that many seconds apart. A
// counter that the first round does not have began in between.
func New(first, last []signal.Sample, seconds float64) *Window {
	type key struct {
		schema *signal.Schema
		labels string
	}
	before := make(map[key]*signal.Sample, len(first))
	for i := range first {
		s := &first[i]
		if s.Schema.Type != signal.Gauge {
			before[key{s.Schema, strings.Join(s.Labels, "\x00")}] = s
		}
	}
	w := &Window{Seconds: seconds, series: map[string][]Series{}}
	for i := range last {
		s := &last[i]
		out := Series{Value: s.Value, Hist: s.Hist, Note: s.Note, schema: s.Schema, labels: s.Labels}
		if old := before[key{s.Schema, strings.Join(s.Labels, "\x00")}]; old != nil {
			out.Value, out.Hist = grown(old, s)
		}
		if n := len(s.Schema.Fields); s.Schema.Scope == signal.Workload && len(s.Labels) == n+len(signal.WorkloadLabels) {
			l := s.Labels[n:]
			out.Workload = Workload{l[0], l[1], l[2], l[3]}
		}
		w.series[s.Schema.Name] = append(w.series[s.Schema.Name], out)
	}
	return w
}

// grown is what cur has more than old; all of cur when it began anew.
func grown(old, cur *signal.Sample) (float64, *signal.Hist) {
	if cur.Hist == nil || old.Hist == nil {
		if d := cur.Value - old.Value; d >= 0 {
			return d, cur.Hist
		}
		return cur.Value, cur.Hist
	}
	a, b := old.Hist, cur.Hist
	if b.Count < a.Count || b.Resolution != a.Resolution || b.First != a.First || len(b.Counts) < len(a.Counts) {
		return 0, b
	}
	d := b.Clone()
	for i, n := range a.Counts {
		d.Counts[i] -= min(n, d.Counts[i])
	}
	d.Zero, d.Count, d.Sum = b.Zero-min(a.Zero, b.Zero), b.Count-a.Count, max(0, b.Sum-a.Sum)
	return 0, d
}

// Measured tells whether the last round has a metric of that name.
func (w *Window) Measured(name string) bool { return len(w.series[name]) > 0 }

// Series returns the series of a metric whose labels have these values, each
// given as name=value.
func (w *Window) Series(name string, want ...string) []Series {
	all := w.series[name]
	if len(want) == 0 {
		return all
	}
	var out []Series
	for i := range all {
		if all[i].has(want) {
			out = append(out, all[i])
		}
	}
	return out
}

func (s *Series) has(want []string) bool {
	for _, l := range want {
		name, value, _ := strings.Cut(l, "=")
		if s.Label(name) != value {
			return false
		}
	}
	return true
}

// Sum adds up series, as Series selects them.
func (w *Window) Sum(name string, want ...string) float64 {
	var sum float64
	for _, s := range w.Series(name, want...) {
		sum += s.Value
	}
	return sum
}

// Rate is Sum per second.
func (w *Window) Rate(name string, want ...string) float64 { return w.Sum(name, want...) / w.Seconds }

// Max returns the largest of series, 0 without any.
func (w *Window) Max(name string, want ...string) float64 {
	var m float64
	for _, s := range w.Series(name, want...) {
		m = max(m, s.Value)
	}
	return m
}

// Hist adds up histograms; nil when nothing was observed.
func (w *Window) Hist(name string, want ...string) *signal.Hist {
	var sum *signal.Hist
	for _, s := range w.Series(name, want...) {
		switch {
		case s.Hist == nil || s.Hist.Count == 0:
		case sum == nil:
			sum = s.Hist.Clone()
		default:
			sum.Add(s.Hist)
		}
	}
	return sum
}

// By adds up series by one label.
func (w *Window) By(name, label string, want ...string) []Amount {
	sums := map[string]float64{}
	for _, s := range w.Series(name, want...) {
		sums[s.Label(label)] += s.Value
	}
	out := make([]Amount, 0, len(sums))
	for n, v := range sums {
		out = append(out, Amount{n, v})
	}
	slices.SortFunc(out, func(a, b Amount) int {
		return cmp.Or(cmp.Compare(b.Value, a.Value), cmp.Compare(a.Name, b.Name))
	})
	return out
}

// Amount is a value with a name, the largest first in what By returns.
type Amount struct {
	Name  string
	Value float64
}

// Workloads lists every workload that has a series of one of these metrics.
func (w *Window) Workloads(metrics ...string) []Workload {
	seen := map[Workload]bool{}
	var out []Workload
	for _, name := range metrics {
		for _, s := range w.series[name] {
			if s.Workload != (Workload{}) && !seen[s.Workload] {
				seen[s.Workload] = true
				out = append(out, s.Workload)
			}
		}
	}
	return out
}

// Quantile returns what the q-th part of all observations does not exceed, as
// Prometheus' histogram_quantile estimates it: within a bucket, observations are
// taken to be spread evenly on a logarithmic scale. 0 for what is below the lowest
// bound, and without observations.
func Quantile(h *signal.Hist, q float64) float64 {
	if h == nil || h.Count == 0 {
		return 0
	}
	rank := q * float64(h.Count)
	seen := float64(h.Zero)
	if seen >= rank {
		return 0
	}
	bound := func(i float64) float64 {
		return math.Exp2((float64(h.First-1) + i) / math.Exp2(float64(h.Resolution)))
	}
	for i, n := range h.Counts {
		if n > 0 && seen+float64(n) >= rank {
			return bound(float64(i) + (rank-seen)/float64(n))
		}
		seen += float64(n)
	}
	return bound(float64(len(h.Counts)))
}
