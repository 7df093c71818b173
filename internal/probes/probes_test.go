package probes

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"huatuo/internal/config"
	"huatuo/internal/probe"
	"huatuo/internal/signal"
)

// notProbes are folders beside the probes that hold none.
var notProbes = []string{"probetest", "testdata"}

// headings of every README, in order.
var headings = []string{"What it shows", "How it works", "What it costs", "How to read it", "Limits"}

// units are the base units of Prometheus and what cannot be in one: "1" is a
// plain count.
var units = []string{"seconds", "bytes", "ratio", "hertz", "celsius", "joules", "watts", "cores", "1"}

var (
	word     = regexp.MustCompile(`^[a-z][a-z0-9]*$`)
	snake    = regexp.MustCompile(`^[a-z][a-z0-9]*(_[a-z0-9]+)*$`)
	sentence = regexp.MustCompile(`^[A-Z0-9].*\.$`)
	since    = regexp.MustCompile(`^\d+\.\d+$`)
)

// TestListed fails when a folder has no line in All, or a line no folder.
func TestListed(t *testing.T) {
	dirs, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	var folders []string
	for _, d := range dirs {
		if d.IsDir() && !slices.Contains(notProbes, d.Name()) {
			folders = append(folders, d.Name())
		}
	}
	for _, b := range checkListed(folders, All()) {
		t.Error(b)
	}
}

func TestSpecs(t *testing.T) {
	config.Default(All()) // panics when a Config lacks a tag
	seen := map[string]string{}
	for _, s := range All() {
		t.Run(s.Name, func(t *testing.T) {
			for _, b := range checkSpec(s, seen) {
				t.Error(b)
			}
		})
	}
}

func checkListed(folders []string, specs []probe.Spec) []string {
	var bad []string
	listed := map[string]bool{}
	for _, s := range specs {
		if listed[s.Name] {
			bad = append(bad, "All lists "+s.Name+" twice")
		}
		listed[s.Name] = true
		if !slices.Contains(folders, s.Name) {
			bad = append(bad, "All lists "+s.Name+" but there is no folder of that name")
		}
	}
	for _, f := range folders {
		if !listed[f] {
			bad = append(bad, "probes/"+f+" has no line in All (probes.go)")
		}
	}
	return bad
}

// checkSpec holds one probe to the naming rules. seen maps the names of the
// signals so far to their probes.
func checkSpec(s probe.Spec, seen map[string]string) (bad []string) {
	want := func(ok bool, what ...string) {
		if !ok {
			bad = append(bad, strings.Join(what, ""))
		}
	}
	want(word.MatchString(s.Name), "name is not one lower-case word")
	want(sentence.MatchString(s.Help), "Help is not a sentence: ", s.Help)
	want(s.Source != "", "Source is empty: name the hook or the file")
	want(since.MatchString(s.Since), "Since is not a kernel version: ", s.Since)
	want(len(s.Emits) > 0, "Emits nothing")
	at := 0
	for _, h := range headings {
		i := strings.Index(s.Readme[at:], "\n## "+h+"\n")
		want(i >= 0, "README.md lacks the heading ## ", h, " (in this order: ", strings.Join(headings, ", "), ")")
		at += max(i, 0)
	}
	want(!strings.Contains(s.Readme, "<!-- scaffold"), "README.md is still the scaffold's: write it and remove the marker")
	want(strings.HasPrefix(s.Readme, "# "+s.Name+"\n"), "README.md does not start with # ", s.Name)
	for _, e := range s.Emits {
		want(seen[e.Name] == "", e.Name, " is already emitted by ", seen[e.Name])
		seen[e.Name] = s.Name
		for _, b := range checkSchema(e) {
			bad = append(bad, e.Name+": "+b)
		}
	}
	return bad
}

func checkSchema(e *signal.Schema) (bad []string) {
	want := func(ok bool, what string) {
		if !ok {
			bad = append(bad, what)
		}
	}
	want(snake.MatchString(e.Name), "name is not snake_case")
	want(sentence.MatchString(e.Help), "Help is not a sentence: "+e.Help)
	want(slices.Contains(signal.Areas(), e.Area), "unknown area "+string(e.Area))
	names := map[string]bool{}
	for _, f := range e.Fields {
		want(snake.MatchString(f.Name), "field "+f.Name+" is not snake_case")
		want(f.Help != "", "field "+f.Name+" has no help")
		want(!names[f.Name], "field "+f.Name+" is there twice")
		names[f.Name] = true
	}
	switch e.Kind {
	case signal.Metric:
		return append(bad, checkMetric(e, names)...)
	case signal.Event:
		want(len(e.Fields) > 0, "an event needs a field")
		want(e.NewBody() != nil, "make an event's schema with signal.EventOf")
		want(slices.Contains([]signal.Severity{signal.Info, signal.Warning, signal.Critical}, e.Severity), "an event needs a severity")
	default:
		want(false, "unknown kind "+string(e.Kind))
	}
	return bad
}

func checkMetric(e *signal.Schema, labels map[string]bool) (bad []string) {
	want := func(ok bool, what string) {
		if !ok {
			bad = append(bad, what)
		}
	}
	want(slices.Contains(units, e.Unit), "unit "+e.Unit+" is not a base unit")
	want(strings.HasPrefix(e.Name, "huatuo_"), "a metric's name starts with huatuo_")
	base, total := strings.CutSuffix(e.Name, "_total")
	want(total == (e.Type == signal.Counter), "counters, and only counters, end in _total")
	want(e.Unit == "1" || strings.HasSuffix(base, "_"+e.Unit), "the name does not end in the unit "+e.Unit)
	want(slices.Contains([]signal.MetricType{signal.Counter, signal.Gauge, signal.Histogram}, e.Type), "unknown type "+string(e.Type))
	workload := strings.HasPrefix(e.Name, "huatuo_container_")
	want(workload == (e.Scope == signal.Workload), "workload metrics, and only those, are named huatuo_container_…")
	want(workload || e.Scope == signal.Host, "a metric needs a scope")
	for _, l := range signal.WorkloadLabels {
		want(!workload || !labels[l], "label "+l+" is added by the gatherer")
	}
	want(!labels["le"] && !labels["quantile"], "le and quantile are reserved by Prometheus")
	return bad
}
