package console

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"html/template"
	"slices"
	"strings"
	"time"

	"huatuo/internal/signal"
)

//go:embed report.html
var reportHTML string

// report is one event as a page that needs nothing else: no script, no request.
// html/template escapes what events and labels say.
type report struct {
	Node       Node
	Doc        *signal.Document
	Schema     CatalogEntry
	Made       time.Time
	Fields     []member
	Nested     []member // of the body: what needs more room than a cell
	Process    []member
	Workload   []member
	Host       []usage // what there was of everything
	Of         []usage // of the workload
	Registers  []member
	Neighbours neighbourList
	Charts     []figure
	JSON       string
}

// reportNear is how many neighbours of each relation, before and after, a page has.
const reportNear = 6

// report makes the page of d. Neighbours and charts that cannot be read are
// left out, and the page says so: the event itself is worth keeping.
func (s *Server) report(ctx context.Context, d *signal.Document, in exportIn) ([]byte, error) {
	r := report{Node: s.opt.Agent.Node(), Doc: d, Made: time.Now().UTC()}
	r.Schema, _ = s.kind(d.Kind)
	for _, m := range bodyOf(d, r.Schema) {
		if m.Value.Members != nil || m.Value.Stack != nil || m.Value.Items != nil {
			r.Nested = append(r.Nested, m)
			continue
		}
		r.Fields = append(r.Fields, m)
	}
	r.Process, r.Workload = processOf(d.Process), containerOf(d.Container)
	r.Registers = registersOf(d.Registers)
	if d.Resources != nil {
		r.Host, r.Of = hostUsage(d.Resources.Host), workloadUsage(d.Resources.Workload)
	}
	text, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode event %s: %w", d.ID, err)
	}
	r.JSON = string(text)
	if r.Neighbours, err = s.neighbours(ctx, d, in.window, reportNear); err != nil {
		return nil, err
	}
	if r.Charts, err = s.figures(ctx, d); err != nil {
		return nil, err
	}
	return render(r, in.lang)
}

func render(r report, lang string) ([]byte, error) {
	t, err := template.New("report").Funcs(template.FuncMap{
		"t":      func(text string) string { return translate(text, lang) },
		"lang":   func() string { return map[string]string{"en": "en", "zh": "zh-CN"}[lang] },
		"format": formatValue,
		"away":   func(at time.Time) string { return fmt.Sprintf("%+.3f s", at.Sub(r.Doc.Time).Seconds()) },
		"stamp":  func(at time.Time) string { return at.UTC().Format("2006-01-02 15:04:05.000000 UTC") },
		"who":    who,
		"place":  frameText,
		"pct":    func(share float64) string { return fmt.Sprintf("%.1f", 100*max(0, min(1, share))) },
	}).Parse(reportHTML)
	if err != nil {
		return nil, fmt.Errorf("parse report: %w", err)
	}
	var b bytes.Buffer
	if err := t.Execute(&b, r); err != nil {
		return nil, fmt.Errorf("write report: %w", err)
	}
	return b.Bytes(), nil
}

// who names an event's process and workload in few words.
func who(d *signal.Document) string {
	var parts []string
	if p := d.Process; p != nil {
		parts = append(parts, fmt.Sprintf("%s[%d]", p.Comm, p.PID))
	}
	if c := d.Container; c != nil {
		names := slices.DeleteFunc([]string{c.Namespace, c.Pod, c.Name}, func(s string) bool { return s == "" })
		if len(names) == 0 {
			names = []string{c.Unit}
		}
		parts = append(parts, strings.Join(names, "/"))
	}
	return strings.Join(parts, " ")
}

// member is a name and what it stands for.
type member struct {
	Name, Help string
	Value      value
}

// value is a part of a body, in one of the forms that the page knows.
type value struct {
	Text    string
	Stack   []signal.Frame
	Members []member
	Items   []value
}

func textMember(name, text string) member { return member{Name: name, Value: value{Text: text}} }

// filled leaves out members without a value.
func filled(list ...member) []member {
	return slices.DeleteFunc(list, func(m member) bool { return m.Value.Text == "" })
}

func processOf(p *signal.Process) []member {
	if p == nil {
		return nil
	}
	id := func(n uint32) string {
		if n == 0 {
			return ""
		}
		return fmt.Sprint(n)
	}
	start, parent := "", ""
	if p.StartTime != nil {
		start = p.StartTime.UTC().Format(time.RFC3339)
	}
	if p.ParentPID != 0 {
		parent = fmt.Sprintf("%s[%d]", p.Parent, p.ParentPID)
	}
	return filled(textMember("comm", p.Comm), textMember("pid", id(p.PID)), textMember("tid", id(p.TID)), textMember("exe", p.Exe),
		textMember("cmdline", p.Cmdline), textMember("start", start), textMember("parent", parent))
}

func containerOf(c *signal.Container) []member {
	if c == nil {
		return nil
	}
	gone := ""
	if c.Gone {
		gone = "true"
	}
	list := filled(textMember("container", c.Name), textMember("pod", c.Pod), textMember("namespace", c.Namespace), textMember("unit", c.Unit),
		textMember("runtime", c.Runtime), textMember("qos", c.QoS), textMember("id", c.ID), textMember("image", c.Image),
		textMember("cgroup", c.Cgroup), textMember("gone", gone))
	return append(list, registersOf(c.Labels)...)
}

// registersOf lists a map by its names.
func registersOf(m map[string]string) []member {
	list := make([]member, 0, len(m))
	for k, v := range m {
		list = append(list, textMember(k, v))
	}
	slices.SortFunc(list, func(a, b member) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// frameText is where a frame is.
func frameText(f signal.Frame) string {
	var parts []string
	if f.Module != "" {
		parts = append(parts, f.Module)
	}
	if f.Offset != 0 {
		parts = append(parts, fmt.Sprintf("+%#x", f.Offset))
	}
	if f.File != "" {
		parts = append(parts, fmt.Sprintf("%s:%d", f.File, f.Line))
	}
	if f.Missing != "" {
		parts = append(parts, "("+f.Missing+")")
	}
	return strings.Join(parts, " ")
}

// usage is an amount, and its share of the limit where there is one.
type usage struct {
	Name, Text string
	Share      float64
	Limited    bool
}

func hostUsage(h *signal.HostResources) []usage {
	if h == nil {
		return nil
	}
	list := []usage{{Name: "load (1 min)", Text: formatValue(h.Load1, "")}, {Name: "runnable tasks", Text: fmt.Sprint(h.Runnable)}}
	if h.MemoryTotal > 0 && h.MemoryAvailable <= h.MemoryTotal {
		list = append(list, limited("memory", h.MemoryTotal-h.MemoryAvailable, h.MemoryTotal, "bytes"))
	}
	list = append(list, amounts("bytes", "swap", h.Swap, "dirty pages", h.Dirty)...)
	return append(list, pressureUsage(h.Pressure)...)
}

func workloadUsage(w *signal.WorkloadResources) []usage {
	if w == nil {
		return nil
	}
	var list []usage
	if w.MemoryUsed > 0 || w.MemoryLimit > 0 {
		list = append(list, limited("memory", w.MemoryUsed, w.MemoryLimit, "bytes"))
	}
	list = append(list, amounts("bytes", "swap", w.Swap)...)
	if w.CPULimit > 0 {
		list = append(list, usage{Name: "CPU limit", Text: formatValue(w.CPULimit, "cores")})
	}
	for _, v := range []struct {
		name string
		of   float64
	}{{"CPU time", w.CPUSeconds}, {"throttled", w.Throttled}} {
		if v.of > 0 {
			list = append(list, usage{Name: v.name, Text: formatValue(v.of, "seconds")})
		}
	}
	if w.Pids > 0 || w.PidsLimit > 0 {
		list = append(list, limited("tasks", w.Pids, w.PidsLimit, ""))
	}
	list = append(list, amounts("", "throttled periods", w.ThrottledRuns, "OOM kills", w.OOMKills)...)
	return append(list, pressureUsage(w.Pressure)...)
}

func limited(name string, used, limit uint64, unit string) usage {
	u := usage{Name: name, Text: formatValue(float64(used), unit)}
	if limit > 0 {
		u.Share, u.Limited = float64(used)/float64(limit), true
		u.Text += " / " + formatValue(float64(limit), unit)
	}
	return u
}

// amounts makes a usage of each name and number that is not 0.
func amounts(unit string, pairs ...any) []usage {
	var list []usage
	for i := 0; i+1 < len(pairs); i += 2 {
		if n := pairs[i+1].(uint64); n > 0 {
			list = append(list, usage{Name: pairs[i].(string), Text: formatValue(float64(n), unit)})
		}
	}
	return list
}

func pressureUsage(p *signal.Pressure) []usage {
	if p == nil {
		return nil
	}
	share := func(name string, v float64) usage {
		return usage{Name: name, Text: formatValue(v, "ratio"), Share: v, Limited: true}
	}
	return []usage{
		share("pressure: CPU", p.CPUSome), share("pressure: memory", p.MemorySome), share("pressure: memory, all", p.MemoryFull),
		share("pressure: I/O", p.IOSome), share("pressure: I/O, all", p.IOFull),
	}
}
