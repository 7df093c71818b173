package profiles

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"os"

	"github.com/klauspost/compress/zstd"

	"huatuo/internal/signal"
)

const (
	// maxChunk bounds a chunk, compressed and not: a whole segment is not larger.
	maxChunk = 256 << 20
	// maxEntries bounds what one dictionary may hold, ten times what a segment
	// is ended at.
	maxEntries = 10 * segmentNodes
)

// errDamaged is why reading a segment ended early.
var errDamaged = errors.New("damaged")

// dict is the dictionary of a segment as far as it was read. Index 0 of each is
// nothing.
type dict struct {
	strings []string
	frames  []signal.Frame
	nodes   []nodeKey
	labels  []signal.ProfileLabels
}

func newDict() *dict {
	return &dict{
		strings: make([]string, 1), frames: make([]signal.Frame, 1), nodes: make([]nodeKey, 1),
		labels: make([]signal.ProfileLabels, 1),
	}
}

// row is one sample in numbers of the dictionary.
type row struct {
	ms     int64
	labels uint64
	node   uint64
	value  int64
	cpu    uint64
}

// wants says which chunks of rows are worth reading.
type wants struct {
	from, to int64 // Unix milliseconds, to is not in it
	rows     func(typ, unit string, d *dict) func(row) bool
}

// readSegment calls w.rows for each chunk of rows that touches the window, and
// what that returns, if anything, for each row of it until it returns false. It
// returns what it has read of the dictionary; an error that wraps errDamaged
// says that the rest is missing.
func readSegment(path string, w wants) (*dict, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readChunks(bufio.NewReaderSize(f, 64<<10), w)
}

func readChunks(in *bufio.Reader, w wants) (*dict, error) {
	d := newDict()
	head := make([]byte, len(magic))
	if _, err := io.ReadFull(in, head); err != nil || string(head) != magic {
		return d, fmt.Errorf("no segment of profiles: %w", errDamaged)
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxChunk), zstd.WithDecoderLowmem(true))
	if err != nil {
		return d, err
	}
	defer dec.Close()
	r := chunkReader{in: in, dec: dec}
	for {
		kind, first, last, err := r.header()
		if err == io.EOF {
			return d, nil
		}
		if err != nil {
			return d, err
		}
		if kind == chunkRows && (last < w.from || first >= w.to) {
			if err := r.skip(); err != nil {
				return d, err
			}
			continue
		}
		payload, err := r.payload()
		if err != nil {
			return d, err
		}
		switch kind {
		case chunkDict:
			err = d.add(payload)
		case chunkRows:
			err = d.rows(payload, w)
		}
		if err != nil {
			return d, err
		}
	}
}

// chunkReader reads chunks one after the other.
type chunkReader struct {
	in   *bufio.Reader
	dec  *zstd.Decoder
	head [headerBytes]byte
	n    int
	raw  []byte
	out  []byte
}

func (r *chunkReader) header() (kind byte, first, last int64, err error) {
	if _, err := io.ReadFull(r.in, r.head[:]); err != nil {
		if err == io.EOF {
			return 0, 0, 0, io.EOF
		}
		return 0, 0, 0, fmt.Errorf("header of a chunk: %w", errDamaged)
	}
	le := binary.LittleEndian
	n := le.Uint32(r.head[0:])
	if n > maxChunk {
		return 0, 0, 0, fmt.Errorf("chunk of %d bytes: %w", n, errDamaged)
	}
	r.n = int(n)
	return r.head[8], int64(le.Uint64(r.head[9:])), int64(le.Uint64(r.head[17:])), nil
}

func (r *chunkReader) skip() error {
	if _, err := r.in.Discard(r.n); err != nil {
		return fmt.Errorf("chunk is cut off: %w", errDamaged)
	}
	return nil
}

// payload reads what belongs to the last header. It is valid until the next.
func (r *chunkReader) payload() ([]byte, error) {
	r.raw = append(r.raw[:0], r.head[8:]...)
	for r.n > 0 { // in steps: a length that is not true must not cost memory
		step := min(r.n, 1<<20)
		at := len(r.raw)
		r.raw = append(r.raw, make([]byte, step)...)
		if _, err := io.ReadFull(r.in, r.raw[at:]); err != nil {
			return nil, fmt.Errorf("chunk is cut off: %w", errDamaged)
		}
		r.n -= step
	}
	if crc32.Checksum(r.raw, castagnoli()) != binary.LittleEndian.Uint32(r.head[4:]) {
		return nil, fmt.Errorf("checksum of a chunk: %w", errDamaged)
	}
	out, err := r.dec.DecodeAll(r.raw[headerBytes-8:], r.out[:0])
	if err != nil {
		return nil, fmt.Errorf("decompress a chunk: %w: %w", errDamaged, err)
	}
	r.out = out
	return out, nil
}

// reader reads numbers; once there is none it gives zeros and bad is set.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) uint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) int() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) bytes(n uint64) []byte {
	if n > uint64(len(r.b)) {
		r.bad, r.b = true, nil
		return nil
	}
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}

// count reads how many entries of at least size bytes follow.
func (r *reader) count(size, have int) int {
	n := r.uint()
	if n > uint64(len(r.b)/size) || uint64(have)+n > maxEntries {
		r.bad, r.b = true, nil
		return 0
	}
	return int(n)
}

// add adds a chunk to the dictionary.
func (d *dict) add(payload []byte) error {
	r := &reader{b: payload}
	for range r.count(1, len(d.strings)) {
		d.strings = append(d.strings, string(r.bytes(r.uint())))
	}
	for range r.count(6, len(d.frames)) {
		f := signal.Frame{Function: d.str(r), Module: d.str(r), File: d.str(r)}
		f.Line = int(min(r.uint(), math.MaxInt32))
		f.Offset = r.uint()
		f.Missing = d.str(r)
		d.frames = append(d.frames, f)
	}
	for range r.count(2, len(d.nodes)) {
		id := uint64(len(d.nodes))
		up, frame := r.uint(), r.uint()
		if up == 0 || up > id || frame >= uint64(len(d.frames)) {
			r.bad = true
			break
		}
		d.nodes = append(d.nodes, nodeKey{id - up, frame})
	}
	for range r.count(7, len(d.labels)) {
		l := signal.ProfileLabels{PID: uint32(r.uint())}
		l.Process, l.Thread, l.Namespace, l.Pod = d.str(r), d.str(r), d.str(r), d.str(r)
		l.Container, l.Unit = d.str(r), d.str(r)
		d.labels = append(d.labels, l)
	}
	if r.bad {
		return fmt.Errorf("dictionary: %w", errDamaged)
	}
	return nil
}

func (d *dict) str(r *reader) string {
	id := r.uint()
	if id >= uint64(len(d.strings)) {
		r.bad = true
		return ""
	}
	return d.strings[id]
}

// rows hands out the rows of a chunk.
func (d *dict) rows(payload []byte, w wants) error {
	r := &reader{b: payload}
	typ, unit := d.str(r), d.str(r)
	n, ms := r.uint(), r.int()
	var cols [5]reader
	for i := range cols {
		cols[i].b = r.bytes(r.uint())
	}
	if r.bad {
		return fmt.Errorf("rows: %w", errDamaged)
	}
	each := w.rows(typ, unit, d)
	if each == nil {
		return nil
	}
	for range n {
		ms += cols[0].int()
		x := row{ms: ms, labels: cols[1].uint(), node: cols[2].uint(), value: cols[3].int(), cpu: cols[4].uint()}
		for i := range cols {
			r.bad = r.bad || cols[i].bad
		}
		if r.bad || x.labels >= uint64(len(d.labels)) || x.node >= uint64(len(d.nodes)) {
			return fmt.Errorf("row: %w", errDamaged)
		}
		if ms >= w.from && ms < w.to && !each(x) {
			return nil
		}
	}
	return nil
}
