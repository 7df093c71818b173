package profile

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/google/pprof/profile"

	"huatuo/internal/profile/otlp"
	"huatuo/internal/signal"
)

// Formats are those that Encode writes.
func Formats() []string { return []string{"pprof", "folded", "speedscope", "svg", "otlp"} }

// Encode writes a graph in a format that other tools read: pprof (gzipped
// profile.proto, for go tool pprof and Pyroscope), folded (Brendan Gregg's
// stackcollapse lines), speedscope (its file format, "sampled"), svg (a flame
// graph to look at), or otlp (OTLP profiles, a protobuf ProfilesData).
func Encode(w io.Writer, g *signal.FlameGraph, format string) error {
	switch format {
	case "pprof":
		return writePprof(w, g)
	case "folded":
		return writeFolded(w, g)
	case "speedscope":
		return writeSpeedscope(w, g)
	case "svg":
		return writeSVG(w, g)
	case "otlp":
		return writeOTLP(w, g)
	}
	return fmt.Errorf("no format %q: want one of %s", format, strings.Join(Formats(), ", "))
}

// Show is what a frame is called in a graph.
func Show(f *signal.Frame) string { return f.Title() }

// kernelModule stands for the kernel itself in files, which want a name.
const kernelModule = "[kernel]"

// moduleOf is what a file says a frame is of.
func moduleOf(f *signal.Frame) string {
	if f.Module == "" && IsKernel(f) {
		return kernelModule
	}
	return f.Module
}

// writePprof writes the type of the graph last, which readers take unless told
// otherwise. The number of samples comes before it, where the graph has it:
// comparing two files needs it.
func writePprof(w io.Writer, g *signal.FlameGraph) error {
	p := &profile.Profile{
		SampleType:    []*profile.ValueType{{Type: g.Type, Unit: g.Unit}},
		TimeNanos:     g.From.UnixNano(),
		DurationNanos: g.To.Sub(g.From).Nanoseconds(),
	}
	counted := g.Squares > 0
	if counted {
		p.SampleType = append([]*profile.ValueType{{Type: "samples", Unit: "count"}}, p.SampleType...)
	}
	locations := make([]*profile.Location, len(g.Frames))
	mappings := map[string]*profile.Mapping{}
	for i := range g.Frames {
		f := &g.Frames[i]
		fn := &profile.Function{ID: uint64(i + 1), Name: Show(f), SystemName: f.Function, Filename: f.File}
		p.Function = append(p.Function, fn)
		module := moduleOf(f)
		m := mappings[module]
		if m == nil {
			m = &profile.Mapping{ID: uint64(len(mappings) + 1), File: module, HasFunctions: true, HasFilenames: true, HasLineNumbers: true}
			mappings[module] = m
			p.Mapping = append(p.Mapping, m)
		}
		locations[i] = &profile.Location{ID: uint64(i + 1), Mapping: m, Line: []profile.Line{{Function: fn, Line: int64(f.Line)}}}
	}
	p.Location = locations
	for i, n := range g.Nodes {
		if n.Self == 0 {
			continue
		}
		s := &profile.Sample{Value: []int64{n.Self}}
		if counted {
			s.Value = []int64{n.SelfCount, n.Self}
		}
		for j := i; j >= 0; j = g.Nodes[j].Parent {
			s.Location = append(s.Location, locations[g.Nodes[j].Frame])
		}
		p.Sample = append(p.Sample, s)
	}
	if err := p.CheckValid(); err != nil {
		return fmt.Errorf("BUG: pprof: %w", err)
	}
	return p.Write(w)
}

// writeOTLP writes one profile. Whose stacks they are is not said: they may be
// of everybody, which OpenTelemetry has this name for.
func writeOTLP(w io.Writer, g *signal.FlameGraph) error {
	e := otlp.New()
	locations := make([]int32, len(g.Frames))
	for i := range g.Frames {
		f := &g.Frames[i]
		locations[i] = e.Location(f, IsKernel(f))
	}
	p := otlp.Profile{
		Type: g.Type, Unit: g.Unit, PeriodType: g.Type, PeriodUnit: g.Unit, Period: 1,
		Begin: g.From.UnixNano(), Nanoseconds: g.To.Sub(g.From).Nanoseconds(),
	}
	for i, n := range g.Nodes {
		if n.Self == 0 {
			continue
		}
		var stack []int32
		for j := i; j >= 0; j = g.Nodes[j].Parent {
			stack = append(stack, locations[g.Nodes[j].Frame])
		}
		p.Samples = append(p.Samples, otlp.Sample{Stack: e.Stack(stack), Value: n.Self})
	}
	e.Add([]otlp.Attribute{{Name: "service.name", Value: "unknown_service"}}, p)
	raw, err := e.Marshal()
	if err != nil {
		return err
	}
	_, err = w.Write(raw)
	return err
}

func writeFolded(w io.Writer, g *signal.FlameGraph) error {
	out := bufio.NewWriter(w)
	clean := strings.NewReplacer(";", ":", "\n", " ")
	for i, n := range g.Nodes {
		if n.Self == 0 {
			continue
		}
		var path []string
		for j := i; j >= 0; j = g.Nodes[j].Parent {
			path = append(path, clean.Replace(Show(&g.Frames[g.Nodes[j].Frame])))
		}
		slices.Reverse(path)
		fmt.Fprintf(out, "%s %d\n", strings.Join(path, ";"), n.Self)
	}
	return out.Flush()
}

// writeSpeedscope writes https://www.speedscope.app/file-format-schema.json.
func writeSpeedscope(w io.Writer, g *signal.FlameGraph) error {
	type frame struct {
		Name string `json:"name"`
		File string `json:"file,omitempty"`
		Line int    `json:"line,omitempty"`
	}
	type sampled struct {
		Type       string  `json:"type"`
		Name       string  `json:"name"`
		Unit       string  `json:"unit"`
		StartValue int64   `json:"startValue"`
		EndValue   int64   `json:"endValue"`
		Samples    [][]int `json:"samples"`
		Weights    []int64 `json:"weights"`
	}
	p := sampled{Type: "sampled", Name: g.Type, Unit: g.Unit, Samples: [][]int{}, Weights: []int64{}}
	if p.Unit == "count" {
		p.Unit = "none"
	}
	frames := make([]frame, len(g.Frames))
	for i := range g.Frames {
		f := &g.Frames[i]
		frames[i] = frame{Show(f), f.File, f.Line}
		if f.File == "" {
			frames[i].File = f.Module
		}
	}
	for i, n := range g.Nodes {
		if n.Self == 0 {
			continue
		}
		var path []int
		for j := i; j >= 0; j = g.Nodes[j].Parent {
			path = append(path, g.Nodes[j].Frame)
		}
		slices.Reverse(path)
		p.Samples = append(p.Samples, path)
		p.Weights = append(p.Weights, n.Self)
		p.EndValue += n.Self
	}
	doc := map[string]any{
		"$schema":  "https://www.speedscope.app/file-format-schema.json",
		"name":     "huatuo " + g.Type,
		"exporter": "huatuo",
		"shared":   map[string]any{"frames": frames},
		"profiles": []any{p},
	}
	return json.NewEncoder(w).Encode(doc)
}

// Row is a function in a table: what it takes itself, and with all it calls.
type Row struct {
	Function string
	Module   string
	Self     int64
	Total    int64
}

// Top lists the functions of a graph, those that take most themselves first. A
// function that calls itself is counted once per stack.
func Top(g *signal.FlameGraph) []Row {
	rows := map[string]*Row{}
	keys := make([]string, len(g.Nodes))
	for i, n := range g.Nodes {
		f := &g.Frames[n.Frame]
		keys[i] = f.Module + "\x00" + Show(f)
		r := rows[keys[i]]
		if r == nil {
			r = &Row{Function: Show(f), Module: f.Module}
			rows[keys[i]] = r
		}
		r.Self += n.Self
		again := false
		for j := n.Parent; j >= 0 && !again; j = g.Nodes[j].Parent {
			again = keys[j] == keys[i]
		}
		if !again {
			r.Total += n.Total
		}
	}
	out := make([]Row, 0, len(rows))
	for _, r := range rows {
		out = append(out, *r)
	}
	slices.SortFunc(out, func(a, b Row) int {
		switch {
		case a.Self != b.Self && a.Self > b.Self:
			return -1
		case a.Self != b.Self:
			return 1
		case a.Total != b.Total && a.Total > b.Total:
			return -1
		case a.Total != b.Total:
			return 1
		}
		return strings.Compare(a.Function, b.Function)
	})
	return out
}
