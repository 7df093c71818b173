package rules

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/promqltest"

	"huatuo/internal/signal"
)

// TestNative: with native histograms alone every rule that reads a histogram
// still has a value: Prometheus keeps no classic buckets beside native ones.
// promtool learnt to load them in tests long after the oldest that we support.
func TestNative(t *testing.T) {
	known, _ := schemas()
	p := parser.NewParser(parser.Options{})
	engine := promql.NewEngine(promql.EngineOpts{MaxSamples: 100_000, Timeout: 10 * time.Second, LookbackDelta: 5 * time.Minute, Parser: p})
	n := 0
	for _, r := range all(t) {
		if !strings.Contains(r.Expr, "histogram_") {
			continue
		}
		n++
		expr, err := p.ParseExpr(r.Expr)
		if err != nil {
			t.Fatal(err)
		}
		store := promqltest.LoadedStorage(t, "load 1m\n"+strings.Join(natives(known, expr), "\n"))
		at := time.Unix(0, 0).Add(10 * time.Minute)
		q, err := engine.NewInstantQuery(t.Context(), store, nil, r.Expr, at)
		if err != nil {
			t.Fatal(err)
		}
		res := q.Exec(t.Context())
		if v, err := res.Vector(); err != nil || len(v) == 0 || v[0].H != nil {
			t.Errorf("%s: %v, %v, want a number", r.name(), v, err)
		}
		q.Close()
		store.Close()
	}
	if n < 20 {
		t.Errorf("%d rules read histograms", n)
	}
}

var matcher = regexp.MustCompile(`^[a-z_]+$`)

// natives are series of the native histograms that an expression selects.
func natives(known map[string]*signal.Schema, expr parser.Expr) []string {
	var out []string
	parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
		v, ok := n.(*parser.VectorSelector)
		if !ok || known[v.Name] == nil || known[v.Name].Type != signal.Histogram {
			return nil
		}
		labels := []string{`instance="a:1"`, `pod="p"`, `container="c"`}
		for _, m := range v.LabelMatchers {
			if m.Name != "__name__" && m.Name != "container" && matcher.MatchString(m.Value) {
				labels = append(labels, fmt.Sprintf("%s=%q", m.Name, m.Value))
			}
		}
		out = append(out, fmt.Sprintf("  %s{%s} {{schema:0 count:10 sum:5 buckets:[5 5] offset:-3}}+{{schema:0 count:10 sum:5 buckets:[5 5] offset:-3}}x20",
			v.Name, strings.Join(labels, ", ")))
		return nil
	})
	slices.Sort(out)
	return slices.Compact(out)
}
