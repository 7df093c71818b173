package docgen

import (
	"fmt"
	"strings"

	"huatuo/internal/probe"
	"huatuo/internal/signal"
)

// emitted is a signal with the probe that makes it; probe is empty for the
// agent's own.
type emitted struct {
	*signal.Schema
	probe string
}

func all(in In, kind signal.Kind) []emitted {
	var es []emitted
	for _, s := range in.Probes {
		for _, e := range s.Emits {
			if e.Kind == kind {
				es = append(es, emitted{e, s.Name})
			}
		}
	}
	for _, e := range in.Agent {
		if e.Kind == kind {
			es = append(es, emitted{e, ""})
		}
	}
	return es
}

// byArea calls f for each area that has signals.
func byArea(es []emitted, f func(signal.Area, []emitted)) {
	for _, a := range signal.Areas() {
		var in []emitted
		for _, e := range es {
			if e.Area == a {
				in = append(in, e)
			}
		}
		if len(in) > 0 {
			f(a, in)
		}
	}
}

func metricsPage(in In) []byte {
	p := newPage("Metrics")
	es := all(in, signal.Metric)
	p.line(fmt.Sprintf("Every metric that the agent makes: %d, by area. Names and units follow the conventions of Prometheus; a metric that this kernel "+
		"cannot give is absent, never 0.", len(es)))
	p.line(fmt.Sprintf("Metrics named `huatuo_container_…` also have the labels %s: those of the container, or of the systemd unit when there is no container.",
		codes(signal.WorkloadLabels[:])))
	byArea(es, func(a signal.Area, es []emitted) {
		p.line("## " + title(string(a)))
		var rows [][]string
		for _, e := range es {
			rows = append(rows, metricRow(e.Schema, probeLink("probes/", e.probe)))
		}
		p.table(metricHead, rows)
	})
	return p.bytes()
}

var metricHead = []string{"metric", "type", "unit", "labels", "meaning", "how to read it", "probe"}

func metricRow(e *signal.Schema, probe string) []string {
	unit := e.Unit
	if unit == "1" {
		unit = ""
	}
	return []string{code(e.Name), string(e.Type), unit, labels(e.Fields), e.Help, e.Read, probe}
}

func labels(fs []signal.Field) string {
	var out []string
	for _, f := range fs {
		s := code(f.Name)
		if len(f.Values) > 0 {
			s += " (" + strings.Join(f.Values, ", ") + ")"
		}
		out = append(out, s)
	}
	return strings.Join(out, ", ")
}

func probeLink(dir, name string) string {
	if name == "" {
		return ""
	}
	return fmt.Sprintf("[%s](%s%s.md)", name, dir, name)
}

var fieldHead = []string{"field", "type", "unit", "meaning"}

func fieldRows(fs []signal.Field) [][]string {
	var rows [][]string
	for _, f := range fs {
		rows = append(rows, []string{code(f.Name), f.Type, f.Unit, f.Help})
	}
	return rows
}

func probePage(s probe.Spec, options []Option) []byte {
	p := &page{}
	p.WriteString(header)
	p.line(strings.TrimSpace(s.Readme))
	p.line("## Reference")
	p.table([]string{"", ""}, [][]string{
		{"Source", s.Source},
		{"Oldest kernel", s.Since},
	})
	var metrics [][]string
	for _, e := range s.Emits {
		if e.Kind == signal.Metric {
			metrics = append(metrics, metricRow(e, ""))
		}
	}
	if len(metrics) > 0 {
		p.line("### Metrics")
		p.table(metricHead, metrics)
	}
	for _, e := range s.Emits {
		if e.Kind == signal.Event {
			p.line("### Event " + code(e.Name))
			p.line(strings.TrimSpace(e.Help + " Severity " + string(e.Severity) + ". " + e.Trigger))
			if e.Normal != "" {
				p.line("Normal: " + e.Normal)
			}
			p.line("[An example](../events.md#" + e.Name + ").")
			p.table(fieldHead, fieldRows(e.Fields))
		}
	}
	var keys []Option
	for _, o := range options {
		if o.Probe == s.Name {
			keys = append(keys, o)
		}
	}
	if len(keys) > 0 {
		p.line("### Configuration")
		p.options(keys)
	}
	return p.bytes()
}

func title(s string) string {
	if s == string(signal.AreaCPU) {
		return "CPU"
	}
	return strings.ToUpper(s[:1]) + s[1:]
}
