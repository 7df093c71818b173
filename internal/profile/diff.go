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
	Absolute bool    // rank and test by values; otherwise by shares
	Few      bool    // list functions with too few samples too, untested
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
//
// Values are compared as they are when that is asked for: of windows of the same
// length. A window has as many samples as happen to fall into it.
func Diff(before, after *signal.FlameGraph, o DiffOptions) (*signal.ProfileDiff, error) {
	if before.Type != after.Type {
		return nil, ErrTypes
	}
	out := &signal.ProfileDiff{
		Type: after.Type, Unit: cmp.Or(after.Unit, before.Unit), Before: side(before), After: side(after),
		Absolute: o.Absolute, Functions: []signal.FunctionChange{}, Frames: []signal.Frame{}, Nodes: []signal.DiffNode{},
	}
	(&ranking{DiffOptions: o, out: out}).rank(functions(before), functions(after))
	mergeTrees(out, before, after, o.MinShare)
	return out, nil
}

func side(g *signal.FlameGraph) signal.ProfileSide {
	return signal.ProfileSide{From: g.From, To: g.To, Total: g.Total, Samples: g.Samples, Truncated: g.Truncated}
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

// ranking fills in the functions of a comparison.
type ranking struct {
	DiffOptions
	out *signal.ProfileDiff
}

func (r *ranking) rank(before, after graphSums) {
	none := &functionSum{}
	for k, a := range after.functions {
		b := before.functions[k]
		if b == nil {
			b = none
		}
		r.add(k, before.all, after.all, b, a)
	}
	for k, b := range before.functions {
		if after.functions[k] == nil {
			r.add(k, before.all, after.all, b, none)
		}
	}
	for i := range r.out.Functions {
		c := &r.out.Functions[i]
		x := r.of(c)
		if c.Verdict == untested || x.P*float64(r.out.Tested) >= mistakes {
			continue
		}
		r.out.Clear++
		c.Verdict = "regressed"
		if x.Z < 0 {
			c.Verdict = "improved"
		}
	}
	slices.SortFunc(r.out.Functions, func(a, b signal.FunctionChange) int {
		return cmp.Or(
			cmp.Compare(certainty(a.Verdict), certainty(b.Verdict)), cmp.Compare(r.change(&b), r.change(&a)),
			cmp.Compare(a.Function, b.Function), cmp.Compare(a.Module, b.Module))
	})
}

const (
	unclear  = "unclear"
	untested = "untested"
)

// certainty orders verdicts.
func certainty(verdict string) int {
	switch verdict {
	case untested:
		return 2
	case unclear:
		return 1
	}
	return 0
}

// add lists a function, if it can be tested or is asked for all the same.
func (r *ranking) add(k functionKey, allBefore, allAfter part, b, a *functionSum) {
	c := signal.FunctionChange{
		Function: k.name, Module: k.module, File: cmp.Or(a.file, b.file), Verdict: unclear,
		Self: r.compare(allBefore, allAfter, b.self, a.self), Total: r.compare(allBefore, allAfter, b.total, a.total),
	}
	larger := a
	if r.change(&c) < 0 {
		larger = b
	}
	n := larger.part(r.Self)
	if n.value <= 0 || effective(n) < leastSamples-0.5 {
		if !r.Few {
			return
		}
		c.Verdict = untested
	} else {
		r.out.Tested++
	}
	if r.change(&c) != 0 {
		r.out.Functions = append(r.out.Functions, c)
	}
}

// of is what functions are ranked by.
func (r *ranking) of(c *signal.FunctionChange) *signal.ShareChange {
	if r.Self {
		return &c.Self
	}
	return &c.Total
}

// change is how much larger a function became.
func (r *ranking) change(c *signal.FunctionChange) float64 {
	x := r.of(c)
	if r.Absolute {
		return float64(x.AfterValue - x.BeforeValue)
	}
	return x.After - x.Before
}

func (f *functionSum) part(self bool) part {
	if self {
		return f.self
	}
	return f.total
}

// compare tests whether two shares, or two values, are the same.
func (r *ranking) compare(allBefore, allAfter, before, after part) signal.ShareChange {
	c := signal.ShareChange{
		BeforeValue: before.value, AfterValue: after.value, BeforeSamples: before.count, AfterSamples: after.count, P: 1,
	}
	if allBefore.value > 0 {
		c.Before = float64(before.value) / float64(allBefore.value)
	}
	if allAfter.value > 0 {
		c.After = float64(after.value) / float64(allAfter.value)
	}
	if r.Absolute { // the variance of a sum of as many values as happened to come is that of their squares
		test(&c, float64(after.value-before.value), before.squares+after.squares)
		return c
	}
	if allBefore.value <= 0 || allAfter.value <= 0 {
		return c
	}
	// The share if both were the same: each side counts by how much it tells.
	m, n := effective(allBefore), effective(allAfter)
	p := (c.Before*m + c.After*n) / (m + n)
	test(&c, c.After-c.Before, variance(p, allBefore, before)+variance(p, allAfter, after))
	return c
}

// test fills in how likely a difference is by chance.
func test(c *signal.ShareChange, difference, variance float64) {
	if variance > 0 {
		c.Z = difference / math.Sqrt(variance)
		c.P = math.Erfc(math.Abs(c.Z) / math.Sqrt2)
	}
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
