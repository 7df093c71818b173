package console

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"

	"huatuo/internal/signal"
)

// figure is a chart drawn as inline SVG: lines in its own coordinates.
type figure struct {
	Title, Help, Unit string
	Rate              bool
	Lines             []line
	Top               string // value at the upper end
	Half              string
	Moment            float64 // x of the event
	From, To          string
}

// line is one series: the points of its unbroken parts, and its last word for
// those who do not see colours.
type line struct {
	Name, Colour string
	Parts        []string
	Peak         string
}

// The drawing's own units; the page scales it.
const (
	figureWidth  = 600.0
	figureHeight = 120.0
)

// figureLines is how many lines are told apart.
const figureLines = 6

// figures draws the charts of d. A metric whose query fails has none.
func (s *Server) figures(ctx context.Context, d *signal.Document) ([]figure, error) {
	list, err := s.charts(ctx, d)
	if err != nil {
		return nil, err
	}
	metrics := map[string]CatalogEntry{}
	for _, m := range s.catalog(signal.Metric) {
		metrics[m.Name] = m
	}
	step := max(time.Duration(s.opt.Agent.Node().StoreInterval*float64(time.Second)), time.Second)
	var out []figure
	err = s.readMetrics(ctx, func(ctx context.Context) error {
		for _, c := range list.Charts {
			f := newFigure(metrics[c.Metric], c, list, d.Time)
			for _, q := range figureQueries(metrics[c.Metric], c, step) {
				res, err := s.opt.Metrics.Range(ctx, q.expr, list.From, list.To, step)
				if err != nil {
					return err
				}
				m, _ := res.Value.(promql.Matrix)
				f.series = append(f.series, q.named(m)...)
			}
			if f.draw() {
				out = append(out, f.figure)
			}
		}
		return nil
	})
	return out, err
}

// figureQuery is one question of a figure; name is that of its series, which
// otherwise go by their labels.
type figureQuery struct{ name, expr string }

// figureQueries are the PromQL of a metric: quantiles of histograms, rates of
// counters, gauges as they are, of the series with the largest averages.
func figureQueries(m CatalogEntry, c EventChart, step time.Duration) []figureQuery {
	sel := c.Metric + selector("", c.Match)
	rate := func(of string) string { return fmt.Sprintf("rate(%s[%ds])", of, int64(max(4*step.Seconds(), 1))) }
	if m.Type == signal.Histogram {
		var qs []figureQuery
		for _, q := range []int{50, 90, 99} {
			qs = append(qs, figureQuery{fmt.Sprintf("p%d", q), fmt.Sprintf("histogram_quantile(0.%d, sum(%s))", q, rate(sel))})
		}
		return qs
	}
	own := make([]string, 0, len(m.Fields))
	for _, f := range m.Fields {
		own = append(own, f.Name)
	}
	by := strings.Join(own, ", ")
	expr := sel
	if m.Type == signal.Counter {
		expr = rate(sel)
	}
	return []figureQuery{{"", fmt.Sprintf("sum by (%s) (%s)", by, expr)}}
}

// curve is a series with its name.
type curve struct {
	name   string
	points []promql.FPoint
}

func (q figureQuery) named(m promql.Matrix) []curve {
	var out []curve
	for _, s := range m {
		name := q.name
		if name == "" {
			var parts []string
			s.Metric.Range(func(l labels.Label) { parts = append(parts, l.Value) })
			name = strings.Join(parts, " ")
		}
		out = append(out, curve{name, s.Floats})
	}
	return out
}

// plan is a figure on its way.
type plan struct {
	figure
	unit     string
	from, to time.Time
	series   []curve
}

func newFigure(m CatalogEntry, c EventChart, w chartList, at time.Time) *plan {
	p := &plan{unit: m.Unit, from: w.From, to: w.To}
	title := strings.TrimPrefix(m.Name, "huatuo_")
	var match []string
	for k, v := range c.Match {
		if v != "" {
			match = append(match, k+"="+v)
		}
	}
	slices.Sort(match)
	if len(match) > 0 {
		title += " {" + strings.Join(match, ", ") + "}"
	}
	p.Title, p.Help, p.Unit, p.Rate = title, m.Help, m.Unit, m.Type == signal.Counter
	p.Moment = p.x(at)
	p.From, p.To = clockText(w.From), clockText(w.To)
	return p
}

func (p *plan) x(t time.Time) float64 {
	return figureWidth * t.Sub(p.from).Seconds() / p.to.Sub(p.from).Seconds()
}

// draw makes lines of the series; false when there is nothing to see.
func (p *plan) draw() bool {
	mean := func(c curve) float64 {
		sum := 0.0
		for _, pt := range c.points {
			if finite(pt.F) {
				sum += pt.F
			}
		}
		return sum
	}
	slices.SortStableFunc(p.series, func(a, b curve) int { return cmp.Compare(mean(b), mean(a)) })
	p.series = p.series[:min(len(p.series), figureLines)]
	top := 0.0
	for _, c := range p.series {
		for _, pt := range c.points {
			if finite(pt.F) {
				top = max(top, pt.F)
			}
		}
	}
	if len(p.series) == 0 {
		return false
	}
	if top == 0 {
		top = 1 // a line along the bottom: it was measured, and nothing happened
	}
	p.Top, p.Half = p.word(top), p.word(top/2)
	for i, c := range p.series {
		if parts := p.parts(c.points, top); len(parts) > 0 {
			p.Lines = append(p.Lines, line{c.name, colours()[i%len(colours())], parts, p.word(peak(c.points))})
		}
	}
	return len(p.Lines) > 0
}

func (p *plan) word(v float64) string {
	text := formatValue(v, p.unit)
	if p.Rate {
		text += "/s"
	}
	return text
}

func peak(points []promql.FPoint) float64 {
	top := 0.0
	for _, pt := range points {
		if finite(pt.F) {
			top = max(top, pt.F)
		}
	}
	return top
}

func finite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }

// parts writes points as the points of polylines, which a missing value ends.
func (p *plan) parts(points []promql.FPoint, top float64) []string {
	var out []string
	var b strings.Builder
	end := func() {
		if b.Len() > 0 {
			out = append(out, strings.TrimSpace(b.String()))
			b.Reset()
		}
	}
	for _, pt := range points {
		if !finite(pt.F) {
			end()
			continue
		}
		fmt.Fprintf(&b, "%.1f,%.1f ", p.x(time.UnixMilli(pt.T)), figureHeight*(1-max(0, pt.F)/top))
	}
	end()
	return out
}

// colours are told apart on white and on black, and by those who do not see
// red and green as others do.
func colours() []string {
	return []string{"#3b7dd8", "#d9822b", "#2a9d6f", "#c2459b", "#8a6fd1", "#7a7f8a"}
}
