package probes

import (
	"context"
	"slices"
	"strings"
	"testing"

	"huatuo/internal/probe"
	"huatuo/internal/signal"
)

type goodEvent struct {
	PID uint32 `json:"pid" help:"process that did it"`
}

func goodSpec() (probe.Meta, *signal.Schema, *signal.Schema) {
	event := signal.EventOf[goodEvent]("good_event", signal.AreaCPU, signal.Info, "Something happened.")
	metric := &signal.Schema{
		Name: "huatuo_good_wait_seconds", Kind: signal.Metric, Type: signal.Histogram, Unit: "seconds", Area: signal.AreaCPU, Scope: signal.Host,
		Help: "Time waited.", Fields: []signal.Field{{Name: "kind", Help: "what for"}},
	}
	return probe.Meta{
		Name: "good", Help: "Watches.", Since: "4.18", Source: "/proc/good", Emits: []*signal.Schema{event, metric},
		Readme: "# good\n\n## What it shows\n\n## How it works\n\n## What it costs\n\n## How to read it\n\n## Limits\n",
	}, event, metric
}

func run(context.Context, *probe.Env, struct{}) error { return nil }

// TestRules breaks one rule at a time and wants to be told.
func TestRules(t *testing.T) {
	for _, tt := range []struct {
		want  string
		spoil func(m *probe.Meta, event, metric *signal.Schema)
	}{
		{"", func(*probe.Meta, *signal.Schema, *signal.Schema) {}},
		{"one lower-case word", func(m *probe.Meta, _, _ *signal.Schema) { m.Name = "bad_name" }},
		{"Help is not a sentence", func(m *probe.Meta, _, _ *signal.Schema) { m.Help = "watches" }},
		{"Source is empty", func(m *probe.Meta, _, _ *signal.Schema) { m.Source = "" }},
		{"Since is not", func(m *probe.Meta, _, _ *signal.Schema) { m.Since = "new" }},
		{"Emits nothing", func(m *probe.Meta, _, _ *signal.Schema) { m.Emits = nil }},
		{"lacks the heading ## Limits", func(m *probe.Meta, _, _ *signal.Schema) { m.Readme = strings.Replace(m.Readme, "Limits", "Limit", 1) }},
		{"lacks the heading ## What it costs", func(m *probe.Meta, _, _ *signal.Schema) {
			m.Readme = strings.Replace(m.Readme, "## What it costs\n\n", "", 1) + "\n## What it shows\n"
		}},
		{"does not start with", func(m *probe.Meta, _, _ *signal.Schema) { m.Readme = "\n" + m.Readme }},
		{"still the scaffold's", func(m *probe.Meta, _, _ *signal.Schema) { m.Readme += "<!-- scaffold: write -->" }},
		{"already emitted by other", func(_ *probe.Meta, e, _ *signal.Schema) { e.Name = "taken" }},
		{"not snake_case", func(_ *probe.Meta, e, _ *signal.Schema) { e.Name = "Good" }},
		{"not snake_case", func(_ *probe.Meta, _, m *signal.Schema) { m.Fields[0].Name = "a__b" }},
		{"Help is not a sentence", func(_ *probe.Meta, e, _ *signal.Schema) { e.Help = "no full stop" }},
		{"unknown area", func(_ *probe.Meta, e, _ *signal.Schema) { e.Area = "moon" }},
		{"has no help", func(_ *probe.Meta, _, m *signal.Schema) { m.Fields[0].Help = "" }},
		{"is there twice", func(_ *probe.Meta, _, m *signal.Schema) { m.Fields = append(m.Fields, m.Fields[0]) }},
		{"an event needs a field", func(_ *probe.Meta, e, _ *signal.Schema) { e.Fields = nil }},
		{"needs a severity", func(_ *probe.Meta, e, _ *signal.Schema) { e.Severity = "" }},
		{"signal.EventOf", func(m *probe.Meta, e, _ *signal.Schema) {
			m.Emits[0] = &signal.Schema{Name: e.Name, Kind: e.Kind, Area: e.Area, Severity: e.Severity, Help: e.Help, Fields: e.Fields}
		}},
		{"unknown kind", func(_ *probe.Meta, e, _ *signal.Schema) { e.Kind = "rumour" }},
		{"not a base unit", func(_ *probe.Meta, _, m *signal.Schema) { m.Unit = "milliseconds" }},
		{"starts with huatuo_", func(_ *probe.Meta, _, m *signal.Schema) { m.Name = "good_wait_seconds" }},
		{"only counters, end in _total", func(_ *probe.Meta, _, m *signal.Schema) { m.Type = signal.Counter }},
		{"only counters, end in _total", func(_ *probe.Meta, _, m *signal.Schema) { m.Name = "huatuo_good_seconds_total" }},
		{"does not end in the unit", func(_ *probe.Meta, _, m *signal.Schema) { m.Unit = "bytes" }},
		{"unknown type", func(_ *probe.Meta, _, m *signal.Schema) { m.Type = "summary" }},
		{"named huatuo_container_", func(_ *probe.Meta, _, m *signal.Schema) { m.Scope = signal.Workload }},
		{"named huatuo_container_", func(_ *probe.Meta, _, m *signal.Schema) { m.Name = "huatuo_container_wait_seconds" }},
		{"needs a scope", func(_ *probe.Meta, _, m *signal.Schema) { m.Scope = "" }},
		{"added by the gatherer", func(_ *probe.Meta, _, m *signal.Schema) {
			m.Name, m.Scope, m.Fields[0].Name = "huatuo_container_wait_seconds", signal.Workload, "pod"
		}},
		{"reserved by Prometheus", func(_ *probe.Meta, _, m *signal.Schema) { m.Fields[0].Name = "le" }},
	} {
		m, event, metric := goodSpec()
		tt.spoil(&m, event, metric)
		bad := checkSpec(probe.New(m, struct{}{}, run), map[string]string{"taken": "other"})
		if tt.want == "" && len(bad) == 0 {
			continue
		}
		if tt.want == "" || !slices.ContainsFunc(bad, func(b string) bool { return strings.Contains(b, tt.want) }) {
			t.Errorf("want %q, got %q", tt.want, bad)
		}
	}
}

func TestListedRules(t *testing.T) {
	m, _, _ := goodSpec()
	s := probe.New(m, struct{}{}, run)
	for _, tt := range []struct {
		folders []string
		specs   []probe.Spec
		want    int
	}{
		{[]string{"good"}, []probe.Spec{s}, 0},
		{[]string{"good", "other"}, []probe.Spec{s}, 1},
		{nil, []probe.Spec{s}, 1},
		{[]string{"good"}, []probe.Spec{s, s}, 1},
	} {
		if got := checkListed(tt.folders, tt.specs); len(got) != tt.want {
			t.Errorf("checkListed(%q, %d specs) = %q, want %d lines", tt.folders, len(tt.specs), got, tt.want)
		}
	}
}
