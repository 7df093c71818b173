package profiles

import (
	"maps"
	"math"
	"slices"
)

// rollup sums a segment up: by type, labels and stack, without process and
// thread ids.
type rollup struct {
	d      *dict
	labels []uint32            // by label set of the segment: the one that stands for it
	same   map[labelKey]uint32 // without ids → the first label set like it
	types  map[uint32]*rolledType

	first, last int64 // times of samples
}

type rolledType struct {
	unit uint32
	sums map[pair]*sum
}

// sum is what samples come to.
type sum struct {
	value, count int64
	squares      float64
}

func (s *sum) add(x *row) {
	s.value += x.value
	s.count += x.count
	s.squares += x.squares
}

func newRollup(d *dict) *rollup {
	r := &rollup{d: d, labels: make([]uint32, len(d.labels)), same: map[labelKey]uint32{}, types: map[uint32]*rolledType{}, first: math.MaxInt64, last: math.MinInt64}
	for i, l := range d.labels {
		l.pid, l.tid = 0, 0
		first, ok := r.same[l]
		if !ok {
			first = uint32(i)
			r.same[l] = first
		}
		r.labels[i] = first
	}
	return r
}

func (r *rollup) add(b *block, x *row) {
	r.first, r.last = min(r.first, x.ms), max(r.last, x.ms)
	t := r.types[b.typeID]
	if t == nil {
		t = &rolledType{unit: b.unitID, sums: map[pair]*sum{}}
		r.types[b.typeID] = t
	}
	p := pair{x.pair.node, r.labels[x.pair.labels]}
	e := t.sums[p]
	if e == nil {
		e = &sum{}
		t.sums[p] = e
	}
	e.add(x)
}

// appendSums writes the sums of a segment.
func (a *archive) appendSums(segment int64, d *dict, t *translation, r *rollup) error {
	var blocks []*blockWriter
	for _, id := range slices.Sorted(maps.Keys(r.types)) {
		x := r.types[id]
		w := &blockWriter{typ: t.strings[id], unit: t.strings[x.unit], segment: segment}
		for p, e := range x.sums {
			l := a.label(d, t, p.labels, false)
			w.rows = append(w.rows, row{pair: pair{t.nodes[p.node], l}, value: e.value, count: e.count, squares: e.squares})
		}
		blocks = append(blocks, w)
	}
	if err := a.writeDict(); err != nil { // label sets without ids
		return err
	}
	for _, w := range blocks {
		if err := a.chunk(chunkSums, w.encodeSums(r.first), r.first, r.last); err != nil {
			return err
		}
	}
	return nil
}
