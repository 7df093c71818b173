package console

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"huatuo/internal/signal"
)

// EventChart is one chart that tells about the time around an event: a metric
// and the labels that select its series.
type EventChart struct {
	Metric string            `json:"metric"`
	Match  map[string]string `json:"match" doc:"labels; an empty value selects the series without that label"`
}

type chartList struct {
	From   time.Time    `json:"from"`
	To     time.Time    `json:"to"`
	Charts []EventChart `json:"charts" doc:"the most telling first"`
}

// chartWindow is how long before and after an event its charts show.
const chartWindow = 5 * time.Minute

// maxCharts is what a person takes in at one look; the rate of the event's own
// kind comes on top.
const maxCharts = 6

// perProbe keeps one probe from taking all places.
const perProbe = 3

func (s *Server) listCharts(ctx context.Context, in *idParam) (chartList, error) {
	d, err := s.getEvent(ctx, in)
	if err != nil {
		return chartList{}, err
	}
	return s.charts(ctx, d)
}

// charts chooses the metrics for d by what their schemas say, so that a new
// kind of event has charts without anybody naming them.
func (s *Server) charts(ctx context.Context, d *signal.Document) (chartList, error) {
	out := chartList{From: d.Time.Add(-chartWindow), To: d.Time.Add(chartWindow), Charts: []EventChart{}}
	kind, ok := s.kind(d.Kind)
	if !ok || s.opt.Metrics == nil {
		return out, nil // of a former version, whose schema is not known any more
	}
	work := workloadLabels(d.Container)
	err := s.readMetrics(ctx, func(ctx context.Context) error {
		host, err := s.present(ctx, out, nil)
		if err != nil {
			return err
		}
		of := map[string]bool{}
		if work != nil {
			if of, err = s.present(ctx, out, work); err != nil {
				return err
			}
		}
		metrics := s.catalog(signal.Metric)
		metrics = slices.DeleteFunc(metrics, func(m CatalogEntry) bool {
			return m.Scope == signal.Workload && !of[m.Name] || !host[m.Name]
		})
		out.Charts = s.narrowed(ctx, out, d, choose(metrics, kind, work))
		return nil
	})
	return out, err
}

func (s *Server) kind(name string) (CatalogEntry, bool) {
	for _, k := range s.catalog(signal.Event) {
		if k.Name == name {
			return k, true
		}
	}
	return CatalogEntry{}, false
}

// workloadLabels are the labels that the series of c have; nil when it has none.
func workloadLabels(c *signal.Container) map[string]string {
	if c == nil || c.Name == "" && (c.Unit == "" || c.Unit == "/") {
		return nil
	}
	l := map[string]string{"namespace": c.Namespace, "pod": c.Pod, "container": c.Name, "unit": ""}
	if c.Name == "" {
		l["unit"] = c.Unit
	}
	return l
}

// present tells which metrics have series with these labels in the window.
func (s *Server) present(ctx context.Context, w chartList, match map[string]string) (map[string]bool, error) {
	all := map[string]string{}
	for k, v := range match {
		all[k] = v
	}
	names, _, err := s.opt.Metrics.LabelValues(ctx, "__name__", Selection{
		Match: []string{selector(`__name__=~"huatuo_.+"`, all)}, From: w.From, To: w.To,
	})
	found := map[string]bool{}
	for _, n := range names {
		found[n] = true
	}
	return found, err
}

// selector writes {first,a="b",…}, sorted.
func selector(first string, match map[string]string) string {
	parts := make([]string, 0, len(match)+1)
	for k, v := range match {
		parts = append(parts, fmt.Sprintf("%s=%q", k, v))
	}
	slices.Sort(parts)
	if first != "" {
		parts = append([]string{first}, parts...)
	}
	return "{" + strings.Join(parts, ",") + "}"
}

// kindRate is the counter of events; its label name has the kind.
const kindRate = "huatuo_signals_total"

// choose ranks metrics for a kind of event and takes the best.
func choose(metrics []CatalogEntry, kind CatalogEntry, work map[string]string) []EventChart {
	type candidate struct {
		EventChart
		probe string
		score int
	}
	var list []candidate
	var rate []EventChart
	for _, m := range metrics {
		if m.Name == kindRate {
			rate = append(rate, EventChart{m.Name, map[string]string{"name": kind.Name}})
			continue
		}
		c := EventChart{m.Name, map[string]string{}}
		n := score(m, kind)
		if r := resourceOf(m, kind.Area); r != "" {
			c.Match["resource"] = r
			n = 7
		}
		if n <= 0 {
			continue
		}
		if m.Scope == signal.Workload {
			n += 3 // closer to the event than the host's sum
			for k, v := range work {
				c.Match[k] = v
			}
		}
		list = append(list, candidate{c, m.Probe, n})
	}
	slices.SortStableFunc(list, func(a, b candidate) int { return cmp.Compare(b.score, a.score) })
	var out []EventChart
	taken := map[string]int{}
	for _, c := range list {
		if len(out) < maxCharts && taken[c.probe] < perProbe {
			taken[c.probe]++
			out = append(out, c.EventChart)
		}
	}
	return append(out, rate...)
}

// pain are parts of the names of metrics that count delay, loss and want,
// which say more about a bad moment than amounts of work.
var pain = []string{"throttle", "stall", "wait", "drop", "error", "overflow", "retransmit", "failure", "timeout", "reset", "refuse", "oom", "latency"}

// score tells how much m says about a kind of event; 0 is nothing.
func score(m, kind CatalogEntry) int {
	n := 0
	switch {
	case m.Area == signal.AreaAgent:
		return 0
	case near(m.Area) != near(kind.Area):
		if m.Probe != kind.Probe {
			return 0
		}
		n = -1 // one probe may watch things that have little to do with each other
	case m.Probe == kind.Probe:
		n = 4
	default:
		n = 1
	}
	if m.Type == signal.Histogram {
		n += 3
	}
	if slices.ContainsFunc(pain, func(p string) bool { return strings.Contains(m.Name, p) }) {
		n += 2
	}
	if m.Unit == "seconds" && m.Type == signal.Counter {
		n++ // time lost says more than how often
	}
	for word := range strings.SplitSeq(kind.Name, "_") {
		if len(word) > 3 && strings.Contains(m.Name, word) {
			n += 2
		}
	}
	return n
}

// near makes one of the areas that belong together: the CPU is where scheduling happens.
func near(a signal.Area) signal.Area {
	if a == signal.AreaSched {
		return signal.AreaCPU
	}
	return a
}

// resourceOf is the value of a label "resource" that stands for an area, as
// pressure metrics have it; empty when m has none.
func resourceOf(m CatalogEntry, a signal.Area) string {
	r := string(near(a))
	if a == signal.AreaBlock {
		r = "io"
	}
	for _, f := range m.Fields {
		if f.Name == "resource" && slices.Contains(f.Values, r) {
			return r
		}
	}
	return ""
}

// narrowed selects of each chart the series that have the same device, vector
// or the like as the event, where there are any.
func (s *Server) narrowed(ctx context.Context, w chartList, d *signal.Document, charts []EventChart) []EventChart {
	var fields map[string]any
	if json.Unmarshal(d.Fields, &fields) != nil {
		return charts
	}
	metrics := map[string]CatalogEntry{}
	for _, m := range s.catalog(signal.Metric) {
		metrics[m.Name] = m
	}
	for i, c := range charts {
		more := map[string]string{}
		for _, f := range metrics[c.Metric].Fields {
			v, _ := fields[f.Name].(string)
			if v != "" && c.Match[f.Name] == "" && (f.Name == "device" || slices.Contains(f.Values, v)) {
				more[f.Name] = v
			}
		}
		if len(more) == 0 {
			continue
		}
		for k, v := range c.Match {
			more[k] = v
		}
		sets, _, err := s.opt.Metrics.Series(ctx, Selection{Match: []string{c.Metric + selector("", more)}, From: w.From, To: w.To, Limit: 1})
		if err == nil && len(sets) > 0 {
			charts[i].Match = more
		}
	}
	return charts
}
