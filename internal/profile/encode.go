package profile

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strings"

	"huatuo/internal/profile/otlp"
	"huatuo/internal/signal"
)

// Formats are those that Encode writes.
func Formats() []string { return []string{"pprof", "folded", "speedscope", "svg", "otlp"} }

// Encode writes graphs of one recording, each of another unit, in a format that
// other tools read: pprof (gzipped profile.proto, for go tool pprof and Pyroscope;
// each graph is a sample type), speedscope (its file format, "sampled"; each is a
// profile), otlp (OTLP profiles, a protobuf ProfilesData; likewise), folded (Brendan
// Gregg's stackcollapse lines) or svg (a flame graph to look at), which have the
// first alone.
func Encode(w io.Writer, format string, graphs ...*signal.FlameGraph) error {
	switch format {
	case "pprof":
		return writePprof(w, graphs)
	case "folded":
		return writeFolded(w, graphs[0])
	case "speedscope":
		return writeSpeedscope(w, graphs)
	case "svg":
		return writeSVG(w, graphs[0])
	case "otlp":
		return writeOTLP(w, graphs)
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

// writeOTLP writes a profile of each graph. Whose stacks they are is not said: they
// may be of everybody, which OpenTelemetry has this name for.
func writeOTLP(w io.Writer, graphs []*signal.FlameGraph) error {
	e := otlp.New()
	var profiles []otlp.Profile
	for _, g := range graphs {
		profiles = append(profiles, otlpOf(e, g))
	}
	e.Add([]otlp.Attribute{{Name: "service.name", Value: "unknown_service"}}, profiles...)
	raw, err := e.Marshal()
	if err != nil {
		return err
	}
	_, err = w.Write(raw)
	return err
}

func otlpOf(e *otlp.Encoder, g *signal.FlameGraph) otlp.Profile {
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
	return p
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
