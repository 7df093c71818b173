package profile

import (
	"slices"
	"strings"

	"huatuo/internal/signal"
)

// typeModule is the module of the frames that stand for types in a graph of several.
const typeModule = "type"

// Merge puts graphs of several types beside each other in one: the type of each
// is the outermost frame of its stacks. Graphs without a sample are left out. The
// units must be the same; the window is that of the first.
func Merge(name string, graphs ...*signal.FlameGraph) *signal.FlameGraph {
	out := &signal.FlameGraph{Type: name}
	frames := map[signal.Frame]int{}
	frame := func(f signal.Frame) int {
		i, ok := frames[f]
		if !ok {
			i = len(out.Frames)
			frames[f] = i
			out.Frames = append(out.Frames, f)
		}
		return i
	}
	for n, g := range graphs {
		if n == 0 {
			out.Unit, out.From, out.To = g.Unit, g.From, g.To
		}
		if g.Samples == 0 {
			continue
		}
		out.Total += g.Total
		out.Samples += g.Samples
		out.Squares += g.Squares
		out.Dropped += g.Dropped
		out.Truncated += g.Truncated
		root := len(out.Nodes)
		out.Nodes = append(out.Nodes, signal.FlameNode{
			Frame: frame(signal.Frame{Function: g.Type, Module: typeModule}), Parent: -1, Total: g.Total, Count: g.Samples, Squares: g.Squares,
		})
		for _, x := range g.Nodes { // parents stand before their children
			x.Frame, x.Parent = frame(g.Frames[x.Frame]), max(root+1+x.Parent, root)
			out.Nodes = append(out.Nodes, x)
		}
	}
	return out
}

// runtimes are the names that the unwinder gives to interpreters and the like;
// any other module that is no file is the kernel's.
var runtimes = []string{"cpython", "python", "php", "jvm", "ruby", "perl", "v8js", "dotnet", "beam", "luajit", "apm-integration", "unknown", "[jit]", "go", typeModule}

// IsKernel tells whether a frame is the kernel's.
func IsKernel(f *signal.Frame) bool {
	return f.Missing == "" && !strings.ContainsAny(f.Module, "/[.:") && !slices.Contains(runtimes, f.Module)
}

// Userland leaves out what the kernel did for a program: its value is then that
// of the program's own function which called the kernel. Stacks without a frame
// of a program stay as they are.
func Userland(g *signal.FlameGraph) *signal.FlameGraph {
	out := *g
	out.Nodes = make([]signal.FlameNode, 0, len(g.Nodes))
	moved := make([]int, len(g.Nodes)) // where a node is now, or whose value it has become
	for i, n := range g.Nodes {
		if n.Parent >= 0 {
			n.Parent = moved[n.Parent]
			caller := &g.Frames[out.Nodes[n.Parent].Frame]
			if IsKernel(&g.Frames[n.Frame]) && !IsKernel(caller) && caller.Module != typeModule {
				to := &out.Nodes[n.Parent]
				to.Self += n.Self
				to.SelfCount += n.SelfCount
				to.SelfSquares += n.SelfSquares
				moved[i] = n.Parent
				continue
			}
		}
		moved[i] = len(out.Nodes)
		out.Nodes = append(out.Nodes, n)
	}
	return &out
}
