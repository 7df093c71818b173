package pyroscope

import (
	"context"
	"slices"

	"connectrpc.com/connect"
	querierv1 "github.com/grafana/pyroscope/api/gen/proto/go/querier/v1"

	"huatuo/internal/signal"
)

// Diff merges the stacks of two queries into one tree that has both values.
func (s *server) Diff(ctx context.Context, r *connect.Request[querierv1.DiffRequest]) (*connect.Response[querierv1.DiffResponse], error) {
	sides := [2]*signal.FlameGraph{}
	var unit string
	var most int64
	for i, m := range []*querierv1.SelectMergeStacktracesRequest{r.Msg.Left, r.Msg.Right} {
		if m == nil {
			return nil, invalid("want a left and a right query")
		}
		if err := stacksOnly(m); err != nil {
			return nil, err
		}
		t, g, err := s.merged(ctx, m.ProfileTypeID, m.LabelSelector, m.Start, m.End, m.StackTraceSelector)
		if err != nil {
			return nil, err
		}
		if t == nil {
			g = &signal.FlameGraph{}
		} else if unit != "" && unit != t.Unit {
			return nil, invalid("%s cannot be compared with %s", unit, t.Unit)
		} else {
			unit = t.Unit
		}
		sides[i] = g
		most = max(most, m.GetMaxNodes())
	}
	return connect.NewResponse(&querierv1.DiffResponse{Flamegraph: compare(sides[0], sides[1], most)}), nil
}

// union gives two graphs the same nodes, those of either, by name.
func union(a, b *signal.FlameGraph) (left, right *signal.FlameGraph) {
	left = &signal.FlameGraph{Total: a.Total}
	right = &signal.FlameGraph{Total: b.Total}
	t := grower{g: left, frames: map[string]int{}, nodes: map[[2]int]int{}}
	place := func(g *signal.FlameGraph) []int {
		at := make([]int, len(g.Nodes))
		for i, n := range g.Nodes {
			parent := -1
			if n.Parent >= 0 {
				parent = at[n.Parent]
			}
			at[i] = t.child(parent, g.Frames[n.Frame].Title())
		}
		return at
	}
	inLeft, inRight := place(a), place(b)
	right.Frames = left.Frames
	right.Nodes = make([]signal.FlameNode, len(left.Nodes))
	copy(right.Nodes, left.Nodes)
	for i, n := range a.Nodes {
		left.Nodes[inLeft[i]].Self += n.Self
		left.Nodes[inLeft[i]].Total += n.Total
	}
	for i, n := range b.Nodes {
		right.Nodes[inRight[i]].Self += n.Self
		right.Nodes[inRight[i]].Total += n.Total
	}
	return left, right
}

// compare lays two graphs out over each other: a box has the gap, the total and
// the own value on either side, and the number of its name.
func compare(a, b *signal.FlameGraph, most int64) *querierv1.FlameGraphDiff {
	left, right := union(a, b)
	sums := make([]int64, len(left.Nodes))
	for i := range sums {
		sums[i] = left.Nodes[i].Total + right.Nodes[i].Total
	}
	left, right = pruneBy(left, sums, most), pruneBy(right, sums, most)
	out := &querierv1.FlameGraphDiff{
		Names: append([]string{"total"}, names(left)...),
		Total: left.Total + right.Total, LeftTicks: left.Total, RightTicks: right.Total,
	}
	below := children(left)
	for i, c := range below {
		below[i] = slices.DeleteFunc(c, func(n int) bool { return left.Nodes[n].Total <= 0 && right.Nodes[n].Total <= 0 })
	}
	// The same tree twice: its levels have the same boxes in the same order.
	l := boxes{left, below}
	r := boxes{right, below}
	four := func(x *box) []int64 { return []int64{x.left, x.total, x.self, int64(x.name)} }
	rights := r.levels(four)
	for i, level := range l.levels(four) {
		both := &querierv1.Level{}
		for j := 0; j < len(level.Values); j += 4 {
			x, y := level.Values[j:j+4], rights[i].Values[j:j+4]
			both.Values = append(both.Values, x[0], x[1], x[2], y[0], y[1], y[2], x[3])
			out.MaxSelf = max(out.MaxSelf, x[2], y[2])
		}
		out.Levels = append(out.Levels, both)
	}
	return out
}
