package rules

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"go.yaml.in/yaml/v3"

	"huatuo/internal/app"
	"huatuo/internal/probe"
	"huatuo/internal/probes"
	"huatuo/internal/signal"
)

const dir = "../../deploy/prometheus-rules"

// rule is a recording or an alerting rule.
type rule struct {
	Record, Alert, Expr string
	For                 string
	Labels, Annotations map[string]string
	file                string
}

func (r rule) name() string { return r.file + ": " + r.Record + r.Alert }

func files(t *testing.T, sub string) []string {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(dir, sub, "*.yaml"))
	if err != nil || len(list) < 7 {
		t.Fatalf("rule files %v, %v", list, err)
	}
	return list
}

func all(t *testing.T) []rule {
	t.Helper()
	var out []rule
	for _, f := range files(t, "") {
		var doc struct{ Groups []struct{ Rules []rule } }
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if err := yaml.Unmarshal(b, &doc); err != nil {
			t.Fatalf("%s: %v", f, err)
		}
		for _, g := range doc.Groups {
			for _, r := range g.Rules {
				r.file = filepath.Base(f)
				out = append(out, r)
			}
		}
	}
	return out
}

// schemas are the metrics that the agent can make, by name.
func schemas() (metrics map[string]*signal.Schema, events map[string]bool) {
	metrics, events = map[string]*signal.Schema{}, map[string]bool{}
	add := func(list []*signal.Schema) {
		for _, s := range list {
			if s.Kind == signal.Metric {
				metrics[s.Name] = s
			} else {
				events[s.Name] = true
			}
		}
	}
	for _, p := range probes.All() {
		add(p.Emits)
	}
	add(app.SelfSchemas())
	return metrics, events
}

// TestMetrics: what a rule selects exists, with those labels and values, or is
// recorded by a rule of the same file.
func TestMetrics(t *testing.T) {
	known, _ := schemas()
	rules := all(t)
	recorded := map[string]bool{}
	for _, r := range rules {
		recorded[r.file+r.Record] = true
	}
	for _, r := range rules {
		expr, err := parser.NewParser(parser.Options{}).ParseExpr(r.Expr)
		if err != nil {
			t.Errorf("%s: %v", r.name(), err)
			continue
		}
		parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
			v, ok := n.(*parser.VectorSelector)
			if !ok || v.Name == "up" || recorded[r.file+v.Name] {
				return nil
			}
			s := find(known, v.Name)
			if s == nil {
				t.Errorf("%s: nobody makes %s", r.name(), v.Name)
				return nil
			}
			for _, m := range v.LabelMatchers {
				if why := refuse(s, v.Name, m); why != "" {
					t.Errorf("%s: %s: %s", r.name(), v, why)
				}
			}
			return nil
		})
	}
}

// find returns the metric of a series: a histogram's series have a suffix in
// their classic form and none in their native one.
func find(known map[string]*signal.Schema, series string) *signal.Schema {
	if s := known[series]; s != nil {
		return s
	}
	for _, suffix := range []string{"_bucket", "_count", "_sum"} {
		if base, ok := strings.CutSuffix(series, suffix); ok && known[base] != nil && known[base].Type == signal.Histogram {
			return known[base]
		}
	}
	return nil
}

// refuse tells what is wrong with a matcher.
func refuse(s *signal.Schema, series string, m *labels.Matcher) string {
	switch {
	case m.Name == "__name__", m.Name == "job", m.Name == "instance":
		return ""
	case m.Name == "le" && strings.HasSuffix(series, "_bucket"):
		return ""
	case s.Scope == signal.Workload && slices.Contains(signal.WorkloadLabels[:], m.Name):
		return ""
	}
	i := slices.IndexFunc(s.Fields, func(f signal.Field) bool { return f.Name == m.Name })
	if i < 0 {
		return "no label " + m.Name
	}
	legal := s.Fields[i].Values
	if len(legal) == 0 {
		return ""
	}
	values := []string{m.Value}
	if m.Type == labels.MatchRegexp || m.Type == labels.MatchNotRegexp {
		values = strings.Split(m.Value, "|")
	}
	for _, v := range values {
		if !slices.Contains(legal, v) {
			return m.Name + " is never " + v
		}
	}
	return ""
}

var (
	eventsWord = regexp.MustCompile(`\b([a-z]+(?:_[a-z]+)+) events\b`)
	seriesWord = regexp.MustCompile(`\bhuatuo_[a-z0-9_]+\b`)
	labelWord  = regexp.MustCompile(`\$labels\.([a-z_]+)`)
)

// TestAlerts: an alert says what happened, why it may be, what to do, and where
// to read on; what it names is there.
func TestAlerts(t *testing.T) {
	known, events := schemas()
	names := map[string]bool{}
	for _, r := range all(t) {
		if r.Alert == "" {
			continue
		}
		if names[r.Alert] || !strings.HasPrefix(r.Alert, "Huatuo") {
			t.Errorf("%s: the name is taken, or not one of ours", r.name())
		}
		names[r.Alert] = true
		if s := r.Labels["severity"]; s != "warning" && s != "critical" {
			t.Errorf("%s: severity %q", r.name(), s)
		}
		summary, description, runbook := r.Annotations["summary"], r.Annotations["description"], r.Annotations["runbook"]
		if !strings.Contains(summary, "$labels.instance") || !strings.HasSuffix(summary, ".") || len(description) < 40 || len(r.Annotations) != 3 {
			t.Errorf("%s: annotations %v", r.name(), r.Annotations)
		}
		if !isPage(runbook) {
			t.Errorf("%s: there is no page %q", r.name(), runbook)
		}
		for _, m := range eventsWord.FindAllStringSubmatch(description, -1) {
			if !events[m[1]] {
				t.Errorf("%s: there is no event %s", r.name(), m[1])
			}
		}
		for _, m := range seriesWord.FindAllString(description, -1) {
			if find(known, m) == nil {
				t.Errorf("%s: there is no metric %s", r.name(), m)
			}
		}
	}
}

// isPage tells whether a page of the documentation exists. The one of a probe
// does: `make gen` writes it.
func isPage(file string) bool {
	if name, ok := strings.CutPrefix(file, "docs/reference/probes/"); ok {
		return slices.ContainsFunc(probes.All(), func(p probe.Spec) bool { return p.Name+".md" == name })
	}
	_, err := os.Stat(filepath.Join("../..", file))
	return err == nil && strings.HasPrefix(file, "docs/")
}

// TestReasons: each alert has a comment above that says why its threshold is
// what it is.
func TestReasons(t *testing.T) {
	for _, f := range files(t, "") {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(string(b), "\n")
		for i, l := range lines {
			if strings.HasPrefix(l, "      - alert: ") && !strings.HasPrefix(lines[i-1], "      # ") {
				t.Errorf("%s: no reason above %s", f, l)
			}
		}
	}
}

// TestLabels: what an annotation shows is a label that the alert has.
func TestLabels(t *testing.T) {
	known, _ := schemas()
	rules := all(t)
	byRecord := map[string]string{}
	for _, r := range rules {
		byRecord[r.file+r.Record] = r.Expr
	}
	for _, r := range rules {
		if r.Alert == "" {
			continue
		}
		have := map[string]bool{"instance": true, "job": true, "severity": true}
		collect(t, known, byRecord, r.file, r.Expr, have)
		for k, a := range r.Annotations {
			for _, m := range labelWord.FindAllStringSubmatch(a, -1) {
				if !have[m[1]] {
					t.Errorf("%s: the %s shows the label %s, which no part of %s has", r.name(), k, m[1], r.Expr)
				}
			}
		}
	}
}

// collect adds the labels that the metrics of an expression have, less those
// that it sums away.
func collect(t *testing.T, known map[string]*signal.Schema, byRecord map[string]string, file, text string, have map[string]bool) {
	t.Helper()
	expr, err := parser.NewParser(parser.Options{}).ParseExpr(text)
	if err != nil {
		t.Fatal(err)
	}
	var gone []string
	parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
		switch v := n.(type) {
		case *parser.AggregateExpr:
			if v.Without {
				gone = append(gone, v.Grouping...)
			}
		case *parser.VectorSelector:
			if inner, ok := byRecord[file+v.Name]; ok {
				collect(t, known, byRecord, file, inner, have)
			} else if s := find(known, v.Name); s != nil {
				for _, f := range s.Fields {
					have[f.Name] = true
				}
				if s.Scope == signal.Workload {
					for _, l := range signal.WorkloadLabels {
						have[l] = true
					}
				}
			}
		}
		return nil
	})
	for _, l := range gone {
		delete(have, l)
	}
}

// TestCovered: in promtool's tests each alert fires once, and in each file
// there is a host on which none does.
func TestCovered(t *testing.T) {
	fires := map[string]bool{}
	for _, f := range files(t, "tests") {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		text := string(b)
		for _, m := range regexp.MustCompile(`\{alertname="(\w+)"\}', value: 1\}`).FindAllStringSubmatch(text, -1) {
			fires[m[1]] = true
		}
		if strings.Contains(text, "alertname") && (!strings.Contains(text, "name: none fires") || !strings.Contains(text, "exp_samples: []")) {
			t.Errorf("%s lacks a host on which nothing is wrong", f)
		}
	}
	for _, r := range all(t) {
		if r.Alert != "" && !fires[r.Alert] {
			t.Errorf("%s never fires in a test", r.name())
		}
	}
}

// TestPromtool runs its checks and unit tests.
func TestPromtool(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("needs promtool: apt-get install prometheus")
	}
	for _, args := range [][]string{append([]string{"check", "rules"}, files(t, "")...), append([]string{"test", "rules"}, files(t, "tests")...)} {
		if out, err := exec.Command(promtool, args...).CombinedOutput(); err != nil || strings.Contains(string(out), "FAILED") {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args[:2], " "), err, out)
		}
	}
}
