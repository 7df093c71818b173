package profiles

import (
	"fmt"
	"math"
)

// Version 1 had five columns in a fixed order, times in any order, labels and
// nodes apart and values as they were. Segments of it are read, and become
// version 2 when they are written anew.
const columns1 = 5

// open1 reads the head of a chunk of rows of version 1.
func (b *block) open1(payload []byte, d *dict) error {
	r := &reader{b: payload}
	*b = block{pairs: b.pairs[:0], palette: b.palette[:0]}
	b.typeID, b.unitID = d.str(r), d.str(r)
	b.typ, b.unit = d.strings[b.typeID], d.strings[b.unitID]
	b.n, b.base = r.uint(), r.int()
	for i := range columns1 {
		b.cols[i].b = r.bytes(r.uint())
	}
	if r.bad {
		return fmt.Errorf("rows: %w", errDamaged)
	}
	return nil
}

// each1 is each for version 1.
func (b *block) each1(d *dict, do func(*row) bool) error {
	x := row{ms: b.base, count: 1}
	c := &b.cols
	for range b.n {
		x.ms += c[0].int()
		labels, node := c[1].uint(), c[2].uint()
		x.value = c[3].int()
		x.cpu = uint32(c[4].uint())
		if c[0].bad || c[1].bad || c[2].bad || c[3].bad || c[4].bad || labels >= uint64(len(d.labels)) || node >= uint64(len(d.nodes)) {
			return fmt.Errorf("row: %w", errDamaged)
		}
		x.pair = pair{uint32(node), uint32(labels)}
		x.squares = float64(x.value) * float64(x.value)
		if !do(&x) {
			return nil
		}
	}
	return nil
}

// addFrames1 is addFrames for version 1: one frame after the other.
func (d *dict) addFrames1(r *reader) {
	first := d.frames.len()
	n := r.count(6, first)
	d.frames.grow(n)
	for i := range n {
		f := frameKey{function: d.str(r), module: d.str(r), file: d.str(r)}
		f.line = uint32(min(r.uint(), math.MaxInt32))
		f.offset = r.uint()
		f.missing = d.str(r)
		d.frames.set(first+i, f)
	}
}

// addNodes1 is addNodes for version 1.
func (d *dict) addNodes1(r *reader) {
	for range r.count(2, len(d.nodes)) {
		id := uint64(len(d.nodes))
		up, frame := r.uint(), r.uint()
		if up == 0 || up > id || frame >= uint64(d.frames.len()) {
			r.bad = true
			return
		}
		d.nodes = append(d.nodes, nodeKey{uint32(id - up), uint32(frame)})
	}
}
