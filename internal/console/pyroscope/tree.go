package pyroscope

import (
	"cmp"
	"slices"
	"strings"

	querierv1 "github.com/grafana/pyroscope/api/gen/proto/go/querier/v1"
	typesv1 "github.com/grafana/pyroscope/api/gen/proto/go/types/v1"

	"huatuo/internal/signal"
)

const (
	// defaultNodes and maxNodes bound a flame graph: what Pyroscope does when it
	// is not told, and what a browser still draws.
	defaultNodes = 8192
	maxNodes     = 1 << 17
	// other is what stands for nodes that were left out.
	other = "other"
)

// byName merges nodes whose functions have the same name, whatever their file
// and line.
func byName(g *signal.FlameGraph) *signal.FlameGraph {
	if g == nil {
		return nil
	}
	out := &signal.FlameGraph{Type: g.Type, Unit: g.Unit, From: g.From, To: g.To, Total: g.Total, Samples: g.Samples}
	t := grower{g: out, frames: map[string]int{}, nodes: map[[2]int]int{}}
	at := make([]int, len(g.Nodes))
	for i, n := range g.Nodes {
		parent := -1
		if n.Parent >= 0 {
			parent = at[n.Parent]
		}
		at[i] = t.child(parent, g.Frames[n.Frame].Title())
		out.Nodes[at[i]].Self += n.Self
		out.Nodes[at[i]].Total += n.Total
	}
	return out
}

// grower adds nodes to a graph, one for each parent and name.
type grower struct {
	g      *signal.FlameGraph
	frames map[string]int
	nodes  map[[2]int]int
}

func (t *grower) child(parent int, name string) int {
	f, ok := t.frames[name]
	if !ok {
		f = len(t.g.Frames)
		t.frames[name] = f
		t.g.Frames = append(t.g.Frames, signal.Frame{Function: name})
	}
	k := [2]int{parent, f}
	n, ok := t.nodes[k]
	if !ok {
		n = len(t.g.Nodes)
		t.nodes[k] = n
		t.g.Nodes = append(t.g.Nodes, signal.FlameNode{Frame: f, Parent: parent})
	}
	return n
}

// narrow keeps the stacks that begin, from the outermost frame, with those
// functions.
func narrow(g *signal.FlameGraph, site []*typesv1.Location) *signal.FlameGraph {
	out := *g
	out.Nodes, out.Total = nil, 0
	depth := make([]int, len(g.Nodes)) // how many functions of the site a node and its callers match; -1: they do not
	for i, n := range g.Nodes {
		d := 0
		if n.Parent >= 0 {
			d = depth[n.Parent]
		}
		switch {
		case d < 0 || d == len(site):
		case g.Frames[n.Frame].Title() == site[d].GetName():
			d++
		default:
			d = -1
		}
		depth[i] = d
	}
	index := make([]int, len(g.Nodes))
	for i, n := range g.Nodes {
		index[i] = -1
		if depth[i] < 0 {
			continue
		}
		if depth[i] < len(site) {
			n.Self = 0
		}
		if n.Parent >= 0 {
			n.Parent = index[n.Parent]
		}
		n.Total = n.Self
		index[i] = len(out.Nodes)
		out.Nodes = append(out.Nodes, n)
	}
	for i := len(out.Nodes) - 1; i >= 0; i-- {
		if p := out.Nodes[i].Parent; p >= 0 {
			out.Nodes[p].Total += out.Nodes[i].Total
		} else {
			out.Total += out.Nodes[i].Total
		}
	}
	return &out
}

// prune leaves the smallest nodes out until there are no more than most; one
// node beside those that stay has their value. Zero or less: as many as usual.
func prune(g *signal.FlameGraph, most int64) *signal.FlameGraph {
	if g == nil {
		return nil
	}
	totals := make([]int64, len(g.Nodes))
	for i, n := range g.Nodes {
		totals[i] = n.Total
	}
	return pruneBy(g, totals, most)
}

// pruneBy is prune by other values than the nodes' own.
func pruneBy(g *signal.FlameGraph, totals []int64, most int64) *signal.FlameGraph {
	if most <= 0 {
		most = defaultNodes
	}
	least := threshold(totals, int(min(most, maxNodes)))
	if least == 0 {
		return g
	}
	out := *g
	out.Nodes = nil
	out.Frames = append(slices.Clone(g.Frames), signal.Frame{Function: other})
	index := make([]int, len(g.Nodes))
	rest := map[int]int{} // of a node that stays: the one that stands for those left out
	for i, n := range g.Nodes {
		parent := -1
		if n.Parent >= 0 {
			if parent = index[n.Parent]; parent == gone {
				index[i] = gone
				continue
			}
		}
		n.Parent = parent
		if totals[i] < least {
			index[i] = gone
			r, ok := rest[parent]
			if !ok {
				r = len(out.Nodes)
				rest[parent] = r
				out.Nodes = append(out.Nodes, signal.FlameNode{Frame: len(out.Frames) - 1, Parent: parent})
			}
			out.Nodes[r].Self += n.Total
			out.Nodes[r].Total += n.Total
			continue
		}
		index[i] = len(out.Nodes)
		out.Nodes = append(out.Nodes, n)
	}
	return &out
}

// gone is the index of a node that was left out.
const gone = -2

// threshold is the value from which on there are no more than most; 0 when there
// are no more at all.
func threshold(values []int64, most int) int64 {
	if len(values) <= most {
		return 0
	}
	sorted := slices.Clone(values)
	slices.SortFunc(sorted, func(a, b int64) int { return cmp.Compare(b, a) })
	least := sorted[most-1]
	if sorted[most] == least {
		least++ // those that are equal go together
	}
	return least
}

// children lists the nodes below each, by name; those of no parent stand last.
func children(g *signal.FlameGraph) [][]int {
	out := make([][]int, len(g.Nodes)+1)
	for i, n := range g.Nodes {
		p := n.Parent
		if p < 0 {
			p = len(g.Nodes)
		}
		out[p] = append(out[p], i)
	}
	title := names(g)
	for _, c := range out {
		slices.SortFunc(c, func(a, b int) int { return strings.Compare(title[g.Nodes[a].Frame], title[g.Nodes[b].Frame]) })
	}
	return out
}

// box is a node on its level.
type box struct {
	left        int64 // where it begins; in the answer, the gap before it
	total, self int64
	name        int
	node        int
}

// boxes lays a graph out.
type boxes struct {
	g        *signal.FlameGraph
	children [][]int
}

// levels calls values for each box, level by level, and returns what it gives.
// Below a box its own value comes first, then its children.
func (b *boxes) levels(values func(*box) []int64) []*querierv1.Level {
	row := []box{{total: b.g.Total, node: len(b.g.Nodes)}}
	var out []*querierv1.Level
	for len(row) > 0 {
		level := &querierv1.Level{}
		var next []box
		var end int64
		for _, x := range row {
			at := x.left + x.self
			for _, c := range b.children[x.node] {
				n := b.g.Nodes[c]
				next = append(next, box{at, n.Total, n.Self, n.Frame + 1, c})
				at += n.Total
			}
			x.left, end = x.left-end, x.left+x.total
			level.Values = append(level.Values, values(&x)...)
		}
		out = append(out, level)
		row = next
	}
	return out
}
