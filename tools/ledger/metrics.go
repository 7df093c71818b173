package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"huatuo/internal/app"
	"huatuo/internal/probes"
	"huatuo/internal/signal"
)

// metrics lists what /metrics may have: whoever has a dashboard or an alert on
// a name, a type or a label sees here that it changes.
func metrics() (string, error) {
	var all []*signal.Schema
	for _, p := range probes.All() {
		all = append(all, p.Emits...)
	}
	all = append(all, app.SelfSchemas()...)
	all = slices.DeleteFunc(all, func(s *signal.Schema) bool { return s.Kind != signal.Metric })
	slices.SortFunc(all, func(a, b *signal.Schema) int { return cmp.Compare(a.Name, b.Name) })
	var b strings.Builder
	b.WriteString("# Every metric that /metrics may have: name, type, label names.\n")
	for _, s := range all {
		b.WriteString(metricLine(s))
	}
	return b.String(), nil
}

func metricLine(s *signal.Schema) string {
	var labels []string
	for _, f := range s.Fields {
		labels = append(labels, f.Name)
	}
	if s.Scope == signal.Workload {
		labels = append(labels, signal.WorkloadLabels[:]...)
	}
	return strings.TrimRight(fmt.Sprintf("%s %s %s", s.Name, s.Type, strings.Join(labels, ",")), " ") + "\n"
}
