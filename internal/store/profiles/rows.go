package profiles

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
	"slices"
)

// row is one sample in numbers of the dictionary; in a sum, all samples of
// the same labels and stack.
type row struct {
	ms      int64
	value   int64
	pair    pair
	cpu     uint32
	link    uint32  // 1 + place in the links of its block; 0: none
	count   int64   // samples: 1, or in a sum more
	squares float64 // sum of the samples' values, each squared
}

// pair is whose and where.
type pair struct{ node, labels uint32 }

// link is the span that was open on the thread.
type link struct {
	trace [16]byte
	span  [8]byte
}

// Columns of rows. A reader skips those that it does not know, and a column
// that is not there is zeros.
const (
	colTimes   = 1 // ms since the row before
	colPairs   = 2 // the pairs of labels and node that occur
	colPair    = 3 // which of them; in sums, row i has pair i
	colHeads   = 4 // one byte a row: which value, or its magnitude
	colTails   = 5 // one byte for each row whose head is a magnitude
	colCPUs    = 6
	colLinks   = 7  // of the rows that have one
	colExact   = 8  // sums: values
	colCounts  = 9  // sums: how many samples, less one
	colSpread  = 10 // sums: how much the samples' values differ
	colSegment = 11 // archives: the time at which the segment was begun
)

// maxPalette is how many values that occur often in a block are kept exactly:
// the sampling period, the least duration. Others are rounded.
const maxPalette = 16

// valueBits is to how many significant bits: by 0.8 % at most, half of the values
// up and half of them down, so that sums are far closer.
const (
	valueBits = 7
	halfValue = 1 << (valueBits - 1)
)

// blockWriter collects rows of one type.
type blockWriter struct {
	typ, unit uint32
	segment   int64 // in an archive
	rows      []row
	links     []link
}

func (w *blockWriter) reset() { w.rows, w.links = w.rows[:0], w.links[:0] }

// encode returns the payload of a chunk of samples, and the times of its first
// and last row.
func (w *blockWriter) encode() (payload []byte, first, last int64) {
	rows := w.rows
	slices.SortStableFunc(rows, func(a, b row) int { return cmp.Compare(a.ms, b.ms) })
	first, last = rows[0].ms, rows[len(rows)-1].ms
	out := w.head(first)
	var times, which, links []byte
	cpus := make([]uint32, len(rows))
	var order []pair // as they occur: new stacks have the next nodes
	number := map[pair]int{}
	prev, linked := first, -1
	for i := range rows {
		x := &rows[i]
		times = binary.AppendUvarint(times, uint64(x.ms-prev))
		prev = x.ms
		which = binary.AppendUvarint(which, uint64(number[x.pair]))
		if number[x.pair] == 0 {
			order = append(order, x.pair)
			number[x.pair] = len(order)
		}
		cpus[i] = x.cpu
		if x.link > 0 {
			l := &w.links[x.link-1]
			links = append(append(binary.AppendUvarint(links, uint64(i-linked)), l.trace[:]...), l.span[:]...)
			linked = i
		}
	}
	heads, tails := encodeValues(rows)
	out = w.column(out)
	for _, c := range []struct {
		id byte
		b  []byte
	}{
		{colPairs, encodePairs(order)}, {colPair, which}, {colTimes, times}, {colHeads, heads}, {colTails, tails},
		{colCPUs, packed(cpus)}, {colLinks, links},
	} {
		out = column(out, c.id, c.b)
	}
	return out, first, last
}

// column writes which segment rows are of.
func (w *blockWriter) column(out []byte) []byte {
	if w.segment == 0 {
		return out
	}
	return column(out, colSegment, binary.AppendVarint(nil, w.segment))
}

// encodeSums returns the payload of a chunk of sums.
func (w *blockWriter) encodeSums(base int64) []byte {
	rows := w.rows
	slices.SortFunc(rows, func(a, b row) int { return comparePairs(a.pair, b.pair) })
	out := w.column(w.head(base))
	var values, counts, spread []byte
	order := make([]pair, len(rows))
	for i := range rows {
		x := &rows[i]
		order[i] = x.pair
		values = binary.AppendVarint(values, x.value)
		counts = binary.AppendUvarint(counts, uint64(max(x.count, 1)-1))
		spread = binary.AppendUvarint(spread, spreadOf(x))
	}
	out = column(out, colPairs, encodePairs(order))
	out = column(out, colExact, values)
	out = column(out, colCounts, counts)
	return column(out, colSpread, spread)
}

// spreadOf is how many times as large the sum of squares is as it would be if
// all samples were alike, in eighths of powers of two.
func spreadOf(x *row) uint64 {
	alike := float64(x.value) * float64(x.value) / float64(max(x.count, 1))
	if alike <= 0 || x.squares <= alike {
		return 0
	}
	return uint64(math.Round(8 * math.Log2(x.squares/alike)))
}

// head begins a payload: type, unit, number of rows, time.
func (w *blockWriter) head(base int64) []byte {
	return binary.AppendVarint(numbers(nil, w.typ, w.unit, uint32(len(w.rows))), base)
}

func column(out []byte, id byte, b []byte) []byte {
	if len(b) == 0 {
		return out
	}
	return append(binary.AppendUvarint(append(out, id), uint64(len(b))), b...)
}

func comparePairs(a, b pair) int {
	return cmp.Or(cmp.Compare(a.node, b.node), cmp.Compare(a.labels, b.labels))
}

// encodePairs writes a table of pairs: their number, all nodes as differences,
// all label sets as differences.
func encodePairs(order []pair) []byte {
	out := binary.AppendUvarint(nil, uint64(len(order)))
	prev := pair{}
	for _, p := range order {
		out = binary.AppendVarint(out, int64(p.node)-int64(prev.node))
		prev = p
	}
	prev = pair{}
	for _, p := range order {
		out = binary.AppendVarint(out, int64(p.labels)-int64(prev.labels))
		prev = p
	}
	return out
}

// encodeValues returns the head and the tail of each value. The heads begin
// with the palette: how many, and each value.
func encodeValues(rows []row) (heads, tails []byte) {
	palette := paletteOf(rows)
	heads = binary.AppendUvarint(nil, uint64(len(palette)))
	for _, v := range palette {
		heads = binary.AppendVarint(heads, v)
	}
	for i := range rows {
		v := rows[i].value
		if p := slices.Index(palette, v); p >= 0 {
			heads = append(heads, byte(p))
			continue
		}
		head, tail := magnitude(v)
		heads = append(heads, byte(len(palette))+head)
		tails = append(tails, tail)
	}
	return heads, tails
}

// paletteOf returns the values that occur often, most often first.
func paletteOf(rows []row) []int64 {
	counts := map[int64]int{}
	for i := range rows {
		counts[rows[i].value]++
	}
	var often []int64
	for v, n := range counts {
		if n*50 >= len(rows) {
			often = append(often, v)
		}
	}
	slices.SortFunc(often, func(a, b int64) int { return cmp.Or(cmp.Compare(counts[b], counts[a]), cmp.Compare(a, b)) })
	return often[:min(len(often), maxPalette)]
}

// magnitude writes a value in two bytes: small values exactly, others rounded to
// the nearest of valueBits significant bits. The lowest bit of the head is the
// sign.
func magnitude(v int64) (head, tail byte) {
	u := uint64(v)
	if v < 0 {
		head, u = 1, -u
	}
	shift := bits.Len64(u) - valueBits
	if shift < 0 {
		return head, byte(u)
	}
	if shift > 0 {
		u = (u + 1<<(shift-1)) >> shift
	}
	if u == 2*halfValue {
		u, shift = halfValue, shift+1
	}
	return head | byte(shift+1)<<1, byte(u - halfValue)
}

// valueOf is the other way round.
func valueOf(head, tail byte) int64 {
	e := head >> 1
	u := uint64(tail)
	if e > 0 {
		u = (halfValue + u%halfValue) << min(e-1, 64-valueBits)
	}
	v := int64(min(u, math.MaxInt64))
	if head&1 != 0 {
		return -v
	}
	return v
}

// packed writes numbers in as many bits as the largest one takes, after that
// number of bits.
func packed(values []uint32) []byte {
	width := bits.Len32(slices.Max(values))
	out := []byte{byte(width)}
	var acc uint64
	n := 0
	for _, v := range values {
		acc |= uint64(v) << n
		for n += width; n >= 8; n -= 8 {
			out = append(out, byte(acc))
			acc >>= 8
		}
	}
	return append(out, byte(acc))
}

// unpacker reads what packed wrote.
type unpacker struct {
	b     []byte
	width int
	acc   uint64
	n     int
}

func newUnpacker(b []byte) unpacker {
	if len(b) == 0 {
		return unpacker{}
	}
	return unpacker{b: b[1:], width: int(min(b[0], 32))}
}

func (u *unpacker) next() uint32 {
	for u.n < u.width {
		if len(u.b) == 0 {
			return 0
		}
		u.acc |= uint64(u.b[0]) << u.n
		u.b, u.n = u.b[1:], u.n+8
	}
	v := u.acc & (1<<u.width - 1)
	u.acc >>= u.width
	u.n -= u.width
	return uint32(v)
}

// block is the rows of a chunk, to be read one after the other.
type block struct {
	typ, unit      string
	typeID, unitID uint32
	segment        int64 // 0 outside of archives
	rolled         bool  // rows are sums of a segment
	n              uint64
	base           int64
	pairs          []pair
	palette        []int64
	cols           [colSegment + 1]reader

	link, ahead link // of the row that was handed out last if it has one, and the next
}

// open reads the head and the columns of a chunk of version 2. The pairs are
// read by load.
func (b *block) open(payload []byte, d *dict) error {
	r := &reader{b: payload}
	pairs := b.pairs[:0]
	*b = block{pairs: pairs, palette: b.palette[:0]}
	b.typeID, b.unitID = d.str(r), d.str(r)
	b.typ, b.unit = d.strings[b.typeID], d.strings[b.unitID]
	b.n, b.base = r.uint(), r.int()
	for len(r.b) > 0 && !r.bad {
		id := r.uint()
		c := r.bytes(r.uint())
		if id < uint64(len(b.cols)) {
			b.cols[id].b = c
		}
	}
	if r.bad {
		return fmt.Errorf("rows: %w", errDamaged)
	}
	b.rolled = b.cols[colExact].b != nil
	if c := b.cols[colSegment]; c.b != nil {
		b.segment = c.int()
	}
	return nil
}

// load reads the tables of a block and checks them.
func (b *block) load(d *dict) error {
	r := &b.cols[colPairs]
	n := r.count(2, 0)
	var node, labels int64
	for range n {
		node += r.int()
		if node < 0 || node >= int64(len(d.nodes)) {
			r.bad = true
			break
		}
		b.pairs = append(b.pairs, pair{node: uint32(node)})
	}
	for i := range b.pairs {
		labels += r.int()
		if labels < 0 || labels >= int64(len(d.labels)) {
			r.bad = true
			break
		}
		b.pairs[i].labels = uint32(labels)
	}
	rows := uint64(len(b.pairs))
	if h := &b.cols[colHeads]; !b.rolled {
		for range min(h.count(1, 0), maxPalette) {
			b.palette = append(b.palette, h.int())
		}
		r.bad = r.bad || h.bad
		rows = uint64(len(h.b))
	}
	if r.bad || b.n != rows {
		return fmt.Errorf("tables of rows: %w", errDamaged)
	}
	return nil
}

// each hands out the rows of a block until each returns false.
func (b *block) each(do func(*row) bool) error {
	if b.rolled {
		return b.eachRolled(do)
	}
	times, which, cpus := &b.cols[colTimes], &b.cols[colPair], newUnpacker(b.cols[colCPUs].b)
	heads, tails := b.cols[colHeads].b, b.cols[colTails].b
	x := row{ms: b.base, count: 1}
	next, fresh := b.nextLink(0), uint64(0)
	for i := range b.n {
		if x.link = 0; i+1 == next {
			b.link = b.ahead
			x.link, next = 1, b.nextLink(next)
		}
		x.ms += int64(times.uint())
		p := which.uint()
		if p == 0 {
			fresh++
			p = fresh
		}
		x.cpu = cpus.next()
		if p > uint64(len(b.pairs)) || which.bad || times.bad {
			return fmt.Errorf("row: %w", errDamaged)
		}
		x.pair = b.pairs[p-1]
		head := heads[i]
		if int(head) < len(b.palette) {
			x.value = b.palette[head]
		} else {
			if len(tails) == 0 {
				return fmt.Errorf("value of a row: %w", errDamaged)
			}
			x.value = valueOf(head-byte(len(b.palette)), tails[0])
			tails = tails[1:]
		}
		x.squares = float64(x.value) * float64(x.value)
		if !do(&x) {
			return nil
		}
	}
	return nil
}

// nextLink reads the next link and returns 1 + the row that it is of, 0 when
// there is none.
func (b *block) nextLink(last uint64) uint64 {
	r := &b.cols[colLinks]
	if len(r.b) == 0 {
		return 0
	}
	at := last + r.uint()
	copy(b.ahead.trace[:], r.bytes(16))
	copy(b.ahead.span[:], r.bytes(8))
	return at
}

// eachRolled is each for sums: one row a pair, all with the block's time.
func (b *block) eachRolled(do func(*row) bool) error {
	values, counts, spread := &b.cols[colExact], &b.cols[colCounts], &b.cols[colSpread]
	x := row{ms: b.base}
	for i := range b.n {
		x.pair, x.value, x.count = b.pairs[i], values.int(), int64(min(counts.uint(), math.MaxInt32))+1
		s := spread.uint()
		if values.bad || counts.bad || spread.bad {
			return fmt.Errorf("row: %w", errDamaged)
		}
		x.squares = float64(x.value) * float64(x.value) / float64(x.count) * math.Exp2(float64(min(s, 512))/8)
		if !do(&x) {
			return nil
		}
	}
	return nil
}
