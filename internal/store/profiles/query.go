package profiles

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"time"

	"huatuo/internal/signal"
)

// ErrType is returned for a query without a type.
var ErrType = errors.New("a query of profiles needs a type")

// visit calls begin for each segment that touches the window, and row for each
// sample of the query in it.
func (s *Store) visit(ctx context.Context, q signal.ProfileQuery, begin func(), each func(d *dict, x row)) error {
	if q.Type == "" {
		return ErrType
	}
	files, err := s.files()
	if err != nil {
		return err
	}
	for i, f := range files {
		if f.begin.After(q.To.Add(segmentAge)) || f.mtime.Before(q.From.Add(-flushEvery)) && i < len(files)-1 {
			continue
		}
		begin()
		if err := s.visitSegment(ctx, f.path, q, each); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) visitSegment(ctx context.Context, path string, q signal.ProfileQuery, each func(d *dict, x row)) error {
	var wanted []int8 // by label set: 0 unknown, 1 yes, -1 no
	w := wants{from: q.From.UnixMilli(), to: q.To.UnixMilli()}
	n := 0
	w.rows = func(typ, _ string, d *dict) func(row) bool {
		if typ != q.Type || ctx.Err() != nil {
			return nil
		}
		for len(wanted) < len(d.labels) {
			wanted = append(wanted, 0)
		}
		return func(x row) bool {
			if n++; n&0xffff == 0 && ctx.Err() != nil {
				return false
			}
			if wanted[x.labels] == 0 {
				wanted[x.labels] = -1
				if matches(&d.labels[x.labels], q) {
					wanted[x.labels] = 1
				}
			}
			if wanted[x.labels] > 0 && inColumns(x.ms, q.Columns) {
				each(d, x)
			}
			return true
		}
	}
	_, err := readSegment(path, w)
	if err != nil && (errors.Is(err, errDamaged) || errors.Is(err, fs.ErrNotExist)) {
		// The tail of a segment that is being written, or that a crash cut off;
		// or retention was faster.
		err = nil
	}
	if err == nil {
		err = ctx.Err()
	}
	return err
}

func matches(l *signal.ProfileLabels, q signal.ProfileQuery) bool {
	if q.PID != 0 && l.PID != q.PID {
		return false
	}
	for name, values := range q.Labels {
		v, ok := l.Get(name)
		if !ok || !slices.Contains(values, v) {
			return false
		}
	}
	return true
}

func inColumns(ms int64, cols []signal.Range) bool {
	if len(cols) == 0 {
		return true
	}
	for _, c := range cols {
		if ms >= c.From.UnixMilli() && ms < c.To.UnixMilli() {
			return true
		}
	}
	return false
}

// Flame merges the stacks of a query into one tree. Nodes with less than least
// of the total are left out, their value stays in their parents' totals; least
// is a share, 0 to 1.
func (s *Store) Flame(ctx context.Context, q signal.ProfileQuery, least float64) (*signal.FlameGraph, error) {
	t := newTree()
	var values map[uint64]int64
	var of *dict
	fold := func() {
		t.add(of, values)
		values, of = map[uint64]int64{}, nil
	}
	err := s.visit(ctx, q, fold, func(d *dict, x row) {
		of = d
		values[x.node] += x.value
		t.samples++
	})
	if err != nil {
		return nil, err
	}
	fold()
	g := t.graph(least)
	g.Type, g.From, g.To = q.Type, q.From, q.To
	return g, nil
}

// tree is stacks merged by their frames.
type tree struct {
	ids     map[nodeKey]int // parent+1 and frame → index
	frames  map[signal.Frame]uint64
	names   []signal.Frame
	nodes   []signal.FlameNode
	samples int64
}

func newTree() *tree {
	return &tree{ids: map[nodeKey]int{}, frames: map[signal.Frame]uint64{}}
}

// add adds values of nodes of a segment.
func (t *tree) add(d *dict, values map[uint64]int64) {
	if d == nil {
		return
	}
	own := make([]int, len(d.nodes)) // index+1 of the segment's nodes in the tree
	for node, v := range values {
		if node == 0 {
			continue
		}
		t.nodes[t.place(d, own, node)].Self += v
	}
}

// place returns where a node of a segment is in the tree.
func (t *tree) place(d *dict, own []int, node uint64) int {
	var path []uint64
	for node != 0 && own[node] == 0 {
		path = append(path, node)
		node = d.nodes[node].parent
	}
	at := -1
	if node != 0 {
		at = own[node] - 1
	}
	for i := len(path) - 1; i >= 0; i-- {
		f := d.frames[d.nodes[path[i]].frame]
		id, ok := t.frames[f]
		if !ok {
			id = uint64(len(t.names))
			t.frames[f] = id
			t.names = append(t.names, f)
		}
		k := nodeKey{uint64(at + 1), id}
		n, ok := t.ids[k]
		if !ok {
			n = len(t.nodes)
			t.ids[k] = n
			t.nodes = append(t.nodes, signal.FlameNode{Frame: int(id), Parent: at})
		}
		at = n
		own[path[i]] = n + 1
	}
	return at
}

// graph computes totals and leaves small nodes out. Parents come before their
// children, as they did when they were made.
func (t *tree) graph(least float64) *signal.FlameGraph {
	g := &signal.FlameGraph{Frames: []signal.Frame{}, Nodes: []signal.FlameNode{}, Samples: t.samples}
	for i := range t.nodes {
		t.nodes[i].Total = t.nodes[i].Self
	}
	for i := len(t.nodes) - 1; i >= 0; i-- {
		if p := t.nodes[i].Parent; p >= 0 {
			t.nodes[p].Total += t.nodes[i].Total
		} else {
			g.Total += t.nodes[i].Total
		}
	}
	floor := int64(least * float64(g.Total))
	index := make([]int, len(t.nodes))
	frames := make(map[int]int)
	for i, n := range t.nodes {
		index[i] = -1
		if n.Total < floor || n.Parent >= 0 && index[n.Parent] < 0 {
			g.Dropped++
			continue
		}
		f, ok := frames[n.Frame]
		if !ok {
			f = len(g.Frames)
			frames[n.Frame] = f
			g.Frames = append(g.Frames, t.names[n.Frame])
		}
		if n.Parent >= 0 {
			n.Parent = index[n.Parent]
		} else if t.names[n.Frame].Function == truncated {
			g.Truncated += n.Total
		}
		n.Frame = f
		index[i] = len(g.Nodes)
		g.Nodes = append(g.Nodes, n)
	}
	return g
}

// truncated is the outermost frame of stacks whose outer frames are missing.
const truncated = "[truncated]"

// Heat sums values by columns of time.
func (s *Store) Heat(ctx context.Context, q signal.ProfileQuery, column time.Duration) ([]int64, error) {
	from, step := q.From.UnixMilli(), max(column.Milliseconds(), 1)
	n := (q.To.UnixMilli() - from + step - 1) / step
	out := make([]int64, max(min(n, 100_000), 0))
	err := s.visit(ctx, q, func() {}, func(_ *dict, x row) {
		if i := (x.ms - from) / step; i >= 0 && i < int64(len(out)) {
			out[i] += x.value
		}
	})
	return out, err
}

// Series is how much of a query belongs to which labels, the largest first.
func (s *Store) Series(ctx context.Context, q signal.ProfileQuery, by []string) ([]signal.ProfileSeries, error) {
	sums := map[string]*signal.ProfileSeries{}
	var keys []string // by label set of the segment
	var of *dict
	err := s.visit(ctx, q, func() { keys, of = nil, nil }, func(d *dict, x row) {
		if of != d {
			of, keys = d, nil
		}
		for len(keys) < len(d.labels) {
			keys = append(keys, "")
		}
		if keys[x.labels] == "" {
			keys[x.labels] = group(&d.labels[x.labels], by)
		}
		e := sums[keys[x.labels]]
		if e == nil {
			e = &signal.ProfileSeries{Labels: map[string]string{}}
			for _, name := range by {
				e.Labels[name], _ = d.labels[x.labels].Get(name)
			}
			sums[keys[x.labels]] = e
		}
		e.Value += x.value
		e.Samples++
	})
	if err != nil {
		return nil, err
	}
	out := make([]signal.ProfileSeries, 0, len(sums))
	for _, e := range sums {
		out = append(out, *e)
	}
	slices.SortFunc(out, func(a, b signal.ProfileSeries) int {
		switch {
		case a.Value != b.Value && a.Value > b.Value:
			return -1
		case a.Value != b.Value:
			return 1
		}
		return strings.Compare(group2(a.Labels, by), group2(b.Labels, by))
	})
	return out, nil
}

func group(l *signal.ProfileLabels, by []string) string {
	var b strings.Builder
	b.WriteByte(1) // so that no group is the empty string
	for _, name := range by {
		v, _ := l.Get(name)
		b.WriteString(v)
		b.WriteByte(0)
	}
	return b.String()
}

func group2(l map[string]string, by []string) string {
	var b strings.Builder
	for _, name := range by {
		b.WriteString(l[name])
		b.WriteByte(0)
	}
	return b.String()
}
