package profile

import "huatuo/internal/signal"

// Regroup puts together what has become the same: frames that got a name after
// they were kept, one for each address of a function, are that function now.
func Regroup(g *signal.FlameGraph) {
	frames := make(map[signal.Frame]int, len(g.Frames))
	to := make([]int, len(g.Frames))
	kept := g.Frames[:0]
	for i, f := range g.Frames {
		at, ok := frames[f]
		if !ok {
			at = len(kept)
			frames[f] = at
			kept = append(kept, f)
		}
		to[i] = at
	}
	g.Frames = kept
	type place struct{ parent, frame int }
	nodes := make(map[place]int, len(g.Nodes))
	moved := make([]int, len(g.Nodes))
	out := g.Nodes[:0]
	for i, n := range g.Nodes { // parents stand before their children
		n.Frame = to[n.Frame]
		if n.Parent >= 0 {
			n.Parent = moved[n.Parent]
		}
		at, ok := nodes[place{n.Parent, n.Frame}]
		if !ok {
			at = len(out)
			nodes[place{n.Parent, n.Frame}] = at
			out = append(out, n)
		} else {
			to := &out[at]
			to.Self += n.Self
			to.Total += n.Total
			to.SelfCount += n.SelfCount
			to.Count += n.Count
			to.SelfSquares += n.SelfSquares
			to.Squares += n.Squares
		}
		moved[i] = at
	}
	g.Nodes = out
}
