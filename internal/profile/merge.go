package profile

import "huatuo/internal/signal"

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
		out.Dropped += g.Dropped
		out.Truncated += g.Truncated
		root := len(out.Nodes)
		out.Nodes = append(out.Nodes, signal.FlameNode{Frame: frame(signal.Frame{Function: g.Type}), Parent: -1, Total: g.Total})
		for _, x := range g.Nodes { // parents stand before their children
			parent := root
			if x.Parent >= 0 {
				parent = root + 1 + x.Parent
			}
			out.Nodes = append(out.Nodes, signal.FlameNode{Frame: frame(g.Frames[x.Frame]), Parent: parent, Self: x.Self, Total: x.Total})
		}
	}
	return out
}
