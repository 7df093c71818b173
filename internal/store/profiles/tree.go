package profiles

import (
	"context"
	"slices"

	"huatuo/internal/signal"
)

// Flame merges the stacks of a query into one tree. Nodes with less than least
// of the total are left out, their value stays in their parents' totals; least
// is a share, 0 to 1.
func (s *Store) Flame(ctx context.Context, q signal.ProfileQuery, least float64) (*signal.FlameGraph, error) {
	t := newTree()
	unit := ""
	var sums nodeSums
	err := s.visit(ctx, q, visitor{
		begin: func(*dict) { sums.reset() },
		row: func(d *dict, b *block, x *row) {
			sums.at(d, x.pair.node).add(x)
			unit = b.unit
		},
		end: func(d *dict) { t.add(d, &sums) },
	})
	if err != nil {
		return nil, err
	}
	g := t.graph(least)
	g.Type, g.Unit, g.From, g.To = q.Type, unit, q.From, q.To
	return g, nil
}

// nodeSums are what some of a file's nodes come to: few of its nodes are in one
// query.
type nodeSums struct {
	place []uint32 // by node: 1 + where it is in sums; 0: nothing
	sums  []sum
}

func (n *nodeSums) reset() {
	clear(n.place)
	n.sums = n.sums[:0]
}

func (n *nodeSums) at(d *dict, node uint32) *sum {
	if len(n.place) < len(d.nodes) {
		fresh := len(d.nodes) - len(n.place)
		n.place = room(n.place, fresh)
		clear(n.place[len(n.place) : len(n.place)+fresh])
		n.place = n.place[:len(n.place)+fresh]
	}
	if n.place[node] == 0 {
		n.sums = append(n.sums, sum{})
		n.place[node] = uint32(len(n.sums))
	}
	return &n.sums[n.place[node]-1]
}

// tree is stacks merged by their frames.
type tree struct {
	strings *index[string]
	frames  *index[frameKey]
	nodes   *index[nodeKey]
	sums    []sum // by node
	count   int64
	more    bool // there was a file before: what is in the next may be known
}

func newTree() *tree {
	return &tree{strings: newStrings(), frames: newFrames(), nodes: newNodes()}
}

// add adds what the nodes of a file come to.
func (t *tree) add(d *dict, sums *nodeSums) {
	own, used := usedNodes(d, sums)
	if t.more {
		t.nodes.reserve(used)
		t.frames.reserve(min(used, d.frames.len()))
	} else {
		t.nodes.keys = room(t.nodes.keys, used)
	}
	t.sums = room(t.sums, used)
	known := &known{d: d, t: t, strings: make([]uint32, len(d.strings)), frames: make([]uint32, d.frames.len())}
	for i := 1; i < len(own); i++ {
		if own[i] == 0 {
			continue
		}
		n := d.nodes[i]
		id := number(t, t.nodes, nodeKey{own[n.parent], known.frame(n.frame)})
		if int(id) > len(t.sums) {
			t.sums = append(t.sums, sum{})
		}
		own[i] = id
		if at := sums.place[i]; at != 0 {
			e, x := &t.sums[id-1], &sums.sums[at-1]
			e.value += x.value
			e.count += x.count
			e.squares += x.squares
		}
	}
	for i := range sums.sums {
		t.count += sums.sums[i].count
	}
	t.more = true
}

// number gives a thing of a file its number. A file has nothing twice.
func number[K comparable](t *tree, x *index[K], k K) uint32 {
	if !t.more {
		return x.push(k)
	}
	id, _ := x.add(k)
	return id
}

// usedNodes marks the nodes that have samples, and those that they were called
// from.
func usedNodes(d *dict, sums *nodeSums) (used []uint32, n int) {
	used = make([]uint32, len(sums.place))
	for i := len(used) - 1; i > 0; i-- {
		if sums.place[i] != 0 || used[i] != 0 {
			used[i], used[d.nodes[i].parent] = 1, 1
			n++
		}
	}
	if len(used) > 0 {
		used[0] = 0
	}
	return used, n
}

// known gives what a file's dictionary has its numbers in the tree.
type known struct {
	d               *dict
	t               *tree
	strings, frames []uint32
}

func (k *known) frame(id uint32) uint32 {
	if k.frames[id] == 0 {
		f := k.d.frames.at(id)
		f.function, f.module, f.file = k.str(f.function), k.str(f.module), k.str(f.file)
		f.missing, f.build = k.str(f.missing), k.str(f.build)
		k.frames[id] = number(k.t, k.t.frames, f)
	}
	return k.frames[id]
}

func (k *known) str(id uint32) uint32 {
	if id == 0 {
		return 0
	}
	if k.strings[id] == 0 {
		k.strings[id] = number(k.t, k.t.strings, k.d.strings[id])
	}
	return k.strings[id]
}

// name returns a frame of the tree with its names.
func (t *tree) name(id uint32) signal.Frame {
	f := &t.frames.keys[id-1]
	str := func(id uint32) string {
		if id == 0 {
			return ""
		}
		return t.strings.keys[id-1]
	}
	return signal.Frame{
		Function: str(f.function), Module: str(f.module), File: str(f.file), Line: int(f.line), Offset: f.offset,
		Missing: str(f.missing), BuildID: str(f.build),
	}
}

// graph computes totals and leaves small nodes out. Parents come before their
// children, as they did when they were made.
func (t *tree) graph(least float64) *signal.FlameGraph {
	g := &signal.FlameGraph{Frames: []signal.Frame{}, Nodes: []signal.FlameNode{}, Samples: t.count}
	totals := slices.Clone(t.sums)
	for i := len(totals) - 1; i >= 0; i-- {
		e := &totals[i]
		p := t.nodes.keys[i].parent
		if p == 0 {
			g.Total += e.value
			g.Squares += e.squares
			continue
		}
		up := &totals[p-1]
		up.value += e.value
		up.count += e.count
		up.squares += e.squares
	}
	t.prune(g, totals, int64(least*float64(g.Total)))
	return g
}

// prune takes over the nodes that are large enough, and their frames.
func (t *tree) prune(g *signal.FlameGraph, totals []sum, floor int64) {
	place := make([]uint32, len(totals)+1) // 1 + where a node is in the graph
	frames := make([]uint32, t.frames.len()+1)
	for i := range totals {
		k, self, total := t.nodes.keys[i], &t.sums[i], &totals[i]
		if total.value < floor || k.parent != 0 && place[k.parent] == 0 {
			g.Dropped++
			continue
		}
		if frames[k.frame] == 0 {
			g.Frames = append(g.Frames, t.name(k.frame))
			frames[k.frame] = uint32(len(g.Frames))
		}
		n := signal.FlameNode{
			Frame: int(frames[k.frame]) - 1, Parent: int(place[k.parent]) - 1, Self: self.value, Total: total.value,
			SelfCount: self.count, Count: total.count, SelfSquares: self.squares, Squares: total.squares,
		}
		if k.parent == 0 && g.Frames[n.Frame].Function == truncated {
			g.Truncated += n.Total
		}
		g.Nodes = append(g.Nodes, n)
		place[i+1] = uint32(len(g.Nodes))
	}
}

// truncated is the outermost frame of stacks whose outer frames are missing.
const truncated = "[truncated]"
