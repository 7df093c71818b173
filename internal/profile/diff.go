package profile

import (
	"cmp"
	"errors"
	"math"
	"slices"

	"huatuo/internal/signal"
)

// DiffOptions of Diff.
type DiffOptions struct {
	Self     bool    // rank by the samples that end in a function; otherwise by those through it
	MinShare float64 // nodes of the tree with less in both graphs are left out
}

const (
	// leastSamples a function must have where its share is larger, to be tested:
	// below, a normal distribution is a bad stand-in for the true one. Samples of
	// which a few have most of the value count as those few.
	leastSamples = 10
	// mistakes is the probability that any function at all is said to have changed
	// when nothing did: with a thousand functions, one in a thousand would always be
	// "significant" by itself.
	mistakes = 0.05
)

// ErrTypes is returned for graphs of different types.
var ErrTypes = errors.New("profiles of different types cannot be compared")

// Diff compares two graphs by shares, so that windows of different length and
// load can be compared, and ranks functions: those whose share grew or shrank
// for certain first, the largest growth at the top.
//
// The test is that of two proportions, with samples weighted by their values:
// where each sample has the same, it is the ordinary one. It takes samples to be
// independent of each other; those of one long wait are not.
func Diff(before, after *signal.FlameGraph, o DiffOptions) (*signal.ProfileDiff, error) {
	if before.Type != after.Type {
		return nil, ErrTypes
	}
	out := &signal.ProfileDiff{
		Type: after.Type, Unit: cmp.Or(after.Unit, before.Unit), Before: side(before), After: side(after),
		Functions: []signal.FunctionChange{}, Frames: []signal.Frame{}, Nodes: []signal.DiffNode{},
	}
	rank(out, functions(before), functions(after), o.Self)
	mergeTrees(out, before, after, o.MinShare)
	return out, nil
}

func side(g *signal.FlameGraph) signal.ProfileSide {
	return signal.ProfileSide{From: g.From, To: g.To, Total: g.Total, Samples: g.Samples}
}

// functionKey is a function, whatever the line in it.
type functionKey struct{ name, module string }

func keyOf(f *signal.Frame) functionKey { return functionKey{Show(f), f.Module} }

// part is what some of the samples of a graph come to.
type part struct {
	value, count int64
	squares      float64
}

// functionSum is what a function has in a graph.
type functionSum struct {
	file        string
	self, total part
}

// graphSums are the functions of a graph, and all of it.
type graphSums struct {
	all       part
	functions map[functionKey]*functionSum
}

// functions sums a graph up by function. One that calls itself is counted once
// per stack.
func functions(g *signal.FlameGraph) graphSums {
	counted := g.Squares > 0 // otherwise the graph is from a file: its samples are taken to be alike
	out := graphSums{part{g.Total, g.Samples, g.Squares}, map[functionKey]*functionSum{}}
	each := 0.0
	if g.Total > 0 {
		each = float64(g.Total) / float64(max(g.Samples, 1))
	}
	alike := func(value int64) part {
		n := 0.0
		if each > 0 {
			n = float64(value) / each
		}
		return part{value, int64(math.Round(n)), n * each * each}
	}
	if !counted {
		out.all = alike(g.Total)
	}
	keys := make([]functionKey, len(g.Frames))
	for i := range g.Frames {
		keys[i] = keyOf(&g.Frames[i])
	}
	for _, n := range g.Nodes {
		f := out.functions[keys[n.Frame]]
		if f == nil {
			f = &functionSum{file: g.Frames[n.Frame].File}
			out.functions[keys[n.Frame]] = f
		}
		self, total := part{n.Self, n.SelfCount, n.SelfSquares}, part{n.Total, n.Count, n.Squares}
		if !counted {
			self, total = alike(n.Self), alike(n.Total)
		}
		f.self.add(self)
		inner := false
		for p := n.Parent; p >= 0 && !inner; p = g.Nodes[p].Parent {
			inner = keys[g.Nodes[p].Frame] == keys[n.Frame]
		}
		if !inner {
			f.total.add(total)
		}
	}
	return out
}

func (p *part) add(q part) {
	p.value += q.value
	p.count += q.count
	p.squares += q.squares
}

// rank fills in the functions that can be tested.
func rank(out *signal.ProfileDiff, before, after graphSums, self bool) {
	none := &functionSum{}
	add := func(k functionKey, b, a *functionSum) {
		c := signal.FunctionChange{
			Function: k.name, Module: k.module, File: cmp.Or(a.file, b.file), Verdict: "unclear",
			Self: compare(before.all, after.all, b.self, a.self), Total: compare(before.all, after.all, b.total, a.total),
		}
		x, larger := ranked(&c, self), a
		if x.Before > x.After {
			larger = b
		}
		if n := larger.part(self); n.value <= 0 || effective(n) < leastSamples-0.5 {
			return
		}
		out.Tested++
		if x.Before != x.After {
			out.Functions = append(out.Functions, c)
		}
	}
	for k, a := range after.functions {
		b := before.functions[k]
		if b == nil {
			b = none
		}
		add(k, b, a)
	}
	for k, b := range before.functions {
		if after.functions[k] == nil {
			add(k, b, none)
		}
	}
	for i := range out.Functions {
		c := &out.Functions[i]
		x := ranked(c, self)
		if x.P*float64(out.Tested) >= mistakes {
			continue
		}
		out.Clear++
		c.Verdict = "regressed"
		if x.Z < 0 {
			c.Verdict = "improved"
		}
	}
	slices.SortFunc(out.Functions, func(a, b signal.FunctionChange) int {
		x, y := ranked(&a, self), ranked(&b, self)
		return cmp.Or(
			order(b.Verdict != "unclear", a.Verdict != "unclear"),
			cmp.Compare(y.After-y.Before, x.After-x.Before), cmp.Compare(a.Function, b.Function), cmp.Compare(a.Module, b.Module))
	})
}

func order(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

func (f *functionSum) part(self bool) part {
	if self {
		return f.self
	}
	return f.total
}

func ranked(c *signal.FunctionChange, self bool) *signal.ShareChange {
	if self {
		return &c.Self
	}
	return &c.Total
}

// compare tests whether two shares are the same.
func compare(allBefore, allAfter, before, after part) signal.ShareChange {
	c := signal.ShareChange{
		BeforeValue: before.value, AfterValue: after.value, BeforeSamples: before.count, AfterSamples: after.count, P: 1,
	}
	if allBefore.value > 0 {
		c.Before = float64(before.value) / float64(allBefore.value)
	}
	if allAfter.value > 0 {
		c.After = float64(after.value) / float64(allAfter.value)
	}
	if allBefore.value <= 0 || allAfter.value <= 0 {
		return c
	}
	// The share if both were the same: each side counts by how much it tells.
	m, n := effective(allBefore), effective(allAfter)
	p := (c.Before*m + c.After*n) / (m + n)
	if v := variance(p, allBefore, before) + variance(p, allAfter, after); v > 0 {
		c.Z = (c.After - c.Before) / math.Sqrt(v)
		c.P = math.Erfc(math.Abs(c.Z) / math.Sqrt2)
	}
	return c
}

// effective is of how many equal samples a sum tells as much as of its own.
func effective(p part) float64 { return float64(p.value) * float64(p.value) / p.squares }

// variance of the share of a part when the true share is p. Values of samples
// within the part may be larger than the others, and fewer for the same sum: then
// the share is less certain. Where no sample is in the part, those of all stand
// in for them. With equal samples it is p(1-p)/n.
func variance(p float64, all, of part) float64 {
	total := float64(all.value)
	in, out := all.squares/total, all.squares/total // sum of squares for each unit of value
	if of.value > 0 {
		in = max(of.squares/float64(of.value), 0)
	}
	if rest := total - float64(of.value); rest > 0 {
		out = max(all.squares-of.squares, 0) / rest
	}
	return ((1-p)*(1-p)*p*in + p*p*(1-p)*out) / total
}

// treeKey is a frame under a node of the merged tree.
type treeKey struct {
	parent   int
	function functionKey
}

// mergeTrees puts both trees over one another. Frames of one function in
// different lines become one.
func mergeTrees(out *signal.ProfileDiff, before, after *signal.FlameGraph, least float64) {
	var nodes []signal.DiffNode
	var frames []signal.Frame
	ids, frameIDs := map[treeKey]int{}, map[functionKey]int{}
	add := func(g *signal.FlameGraph, each func(n *signal.DiffNode, self, total int64)) {
		own := make([]int, len(g.Nodes))
		for i, n := range g.Nodes {
			k := treeKey{-1, keyOf(&g.Frames[n.Frame])}
			if n.Parent >= 0 {
				k.parent = own[n.Parent]
			}
			id, ok := ids[k]
			if !ok {
				f, ok := frameIDs[k.function]
				if !ok {
					f = len(frames)
					frameIDs[k.function] = f
					frames = append(frames, g.Frames[n.Frame])
				}
				id = len(nodes)
				ids[k] = id
				nodes = append(nodes, signal.DiffNode{Frame: f, Parent: k.parent})
			}
			own[i] = id
			each(&nodes[id], n.Self, n.Total)
		}
	}
	add(after, func(n *signal.DiffNode, self, total int64) { n.Self += self; n.Total += total })
	add(before, func(n *signal.DiffNode, self, total int64) { n.SelfBefore += self; n.TotalBefore += total })
	small := func(n signal.DiffNode) bool {
		return float64(n.Total) < least*float64(after.Total) && float64(n.TotalBefore) < least*float64(before.Total)
	}
	out.Frames, out.Nodes, out.Dropped = keepNodes(frames, nodes, small)
}

// keepNodes leaves out small nodes and what is below them, and the frames that
// only they have.
func keepNodes(frames []signal.Frame, nodes []signal.DiffNode, small func(signal.DiffNode) bool) (f []signal.Frame, kept []signal.DiffNode, dropped int) {
	f, kept = []signal.Frame{}, []signal.DiffNode{}
	place, frameOf := make([]int, len(nodes)), make([]int, len(frames))
	for i, n := range nodes {
		place[i] = -1
		if small(n) || n.Parent >= 0 && place[n.Parent] < 0 {
			dropped++
			continue
		}
		if frameOf[n.Frame] == 0 {
			f = append(f, frames[n.Frame])
			frameOf[n.Frame] = len(f)
		}
		n.Frame = frameOf[n.Frame] - 1
		if n.Parent >= 0 {
			n.Parent = place[n.Parent]
		}
		place[i] = len(kept)
		kept = append(kept, n)
	}
	return f, kept, dropped
}
