package profiles

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/klauspost/compress/zstd"

	"huatuo/internal/signal"
)

// magic begins a segment; the number is the version of the format.
const magic = "huatuo profile 1\n"

// Kinds of chunk.
const (
	chunkDict = 1 // strings, frames, nodes and label sets, added to those before
	chunkRows = 2 // samples of one type
)

// A chunk's header: length and CRC-32C of what follows it, kind, and the time
// of the first and last row in Unix milliseconds.
const headerBytes = 4 + 4 + 1 + 8 + 8

// segment is one being written. Ids count from 1; 0 is nothing.
type segment struct {
	path  string
	begin time.Time
	f     *os.File
	size  int64

	strings map[string]uint64
	frames  map[signal.Frame]uint64
	nodes   map[nodeKey]uint64
	labels  map[signal.ProfileLabels]uint64
	stacks  map[*signal.Stack]uint64 // the innermost node

	fresh fresh // entries that no chunk has yet
	enc   *zstd.Encoder
	buf   []byte
}

// nodeKey is a frame that was called from a node.
type nodeKey struct{ parent, frame uint64 }

// fresh are encoded entries of the dictionary, by section.
type fresh struct {
	strings, frames, nodes, labels     []byte
	nStrings, nFrames, nNodes, nLabels uint64
}

func newSegment(dir string, now time.Time) (*segment, error) {
	begin := now
	for {
		path := filepath.Join(dir, strconv.FormatInt(begin.UnixMilli(), 10)+suffix)
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|os.O_APPEND, 0o600)
		if errors.Is(err, os.ErrExist) { // the clock went back
			begin = begin.Add(time.Millisecond)
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("make segment of profiles: %w", err)
		}
		s := &segment{
			path: path, begin: begin, f: f,
			strings: map[string]uint64{}, frames: map[signal.Frame]uint64{}, nodes: map[nodeKey]uint64{},
			labels: map[signal.ProfileLabels]uint64{}, stacks: map[*signal.Stack]uint64{},
		}
		s.enc, err = zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithEncoderConcurrency(1),
			zstd.WithWindowSize(128<<10), zstd.WithEncoderCRC(false)) // a chunk has its own
		if err == nil {
			err = s.put([]byte(magic))
		}
		if err != nil {
			s.close()
			return nil, fmt.Errorf("begin segment of profiles: %w", err)
		}
		return s, nil
	}
}

func (s *segment) close() {
	s.f.Close()
	if s.enc != nil {
		s.enc.Close()
	}
}

// put appends bytes, all or, as far as it can be had, none of them.
func (s *segment) put(b []byte) error {
	n, err := s.f.Write(b)
	if err != nil {
		if n > 0 {
			s.f.Truncate(s.size) // a reader stops there anyway
		}
		return err
	}
	s.size += int64(n)
	return nil
}

// append writes samples: what the dictionary lacks, then the rows by type.
func (s *segment) append(batch []signal.LabeledSample) error {
	rows := map[*signal.ProfileType]*rowWriter{}
	var order []*signal.ProfileType
	for i := range batch {
		x := &batch[i]
		w := rows[x.Type]
		if w == nil {
			w = &rowWriter{typ: s.str(x.Type.Name), unit: s.str(x.Type.Unit)}
			rows[x.Type] = w
			order = append(order, x.Type)
		}
		w.add(x, s.label(&x.Labels), s.stack(x.Stack))
	}
	if len(s.stacks) > 1<<16 { // pointers of stacks that the profiler may have let go of
		clear(s.stacks)
	}
	if err := s.chunk(chunkDict, s.fresh.encode(), 0, 0); err != nil {
		return err
	}
	s.fresh = fresh{}
	for _, t := range order {
		w := rows[t]
		if err := s.chunk(chunkRows, w.encode(), w.first, w.last); err != nil {
			return err
		}
	}
	return nil
}

// chunk compresses and appends one chunk.
func (s *segment) chunk(kind byte, payload []byte, first, last int64) error {
	if len(payload) == 0 {
		return nil
	}
	b := append(s.buf[:0], make([]byte, headerBytes)...)
	b = s.enc.EncodeAll(payload, b)
	s.buf = b
	le := binary.LittleEndian
	le.PutUint32(b[0:], uint32(len(b)-headerBytes))
	b[8] = kind
	le.PutUint64(b[9:], uint64(first))
	le.PutUint64(b[17:], uint64(last))
	le.PutUint32(b[4:], crc32.Checksum(b[8:], castagnoli()))
	if err := s.put(b); err != nil {
		return fmt.Errorf("write profiles: %w", err)
	}
	return nil
}

func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

func (s *segment) str(x string) uint64 {
	if x == "" {
		return 0
	}
	if id, ok := s.strings[x]; ok {
		return id
	}
	id := uint64(len(s.strings) + 1)
	s.strings[x] = id
	f := &s.fresh
	f.strings = append(binary.AppendUvarint(f.strings, uint64(len(x))), x...)
	f.nStrings++
	return id
}

func (s *segment) frame(x signal.Frame) uint64 {
	if id, ok := s.frames[x]; ok {
		return id
	}
	id := uint64(len(s.frames) + 1)
	s.frames[x] = id
	f := &s.fresh
	for _, n := range [...]uint64{s.str(x.Function), s.str(x.Module), s.str(x.File), uint64(max(x.Line, 0)), x.Offset, s.str(x.Missing)} {
		f.frames = binary.AppendUvarint(f.frames, n)
	}
	f.nFrames++
	return id
}

// stack returns the node of the innermost frame.
func (s *segment) stack(x *signal.Stack) uint64 {
	if id, ok := s.stacks[x]; ok {
		return id
	}
	node := uint64(0)
	for i := len(x.Frames) - 1; i >= 0; i-- {
		k := nodeKey{node, s.frame(x.Frames[i])}
		id, ok := s.nodes[k]
		if !ok {
			id = uint64(len(s.nodes) + 1)
			s.nodes[k] = id
			f := &s.fresh
			f.nodes = binary.AppendUvarint(binary.AppendUvarint(f.nodes, id-k.parent), k.frame)
			f.nNodes++
		}
		node = id
	}
	s.stacks[x] = node
	return node
}

func (s *segment) label(x *signal.ProfileLabels) uint64 {
	if id, ok := s.labels[*x]; ok {
		return id
	}
	id := uint64(len(s.labels) + 1)
	s.labels[*x] = id
	f := &s.fresh
	for _, n := range [...]uint64{
		uint64(x.PID), s.str(x.Process), s.str(x.Thread), s.str(x.Namespace), s.str(x.Pod), s.str(x.Container), s.str(x.Unit),
	} {
		f.labels = binary.AppendUvarint(f.labels, n)
	}
	f.nLabels++
	return id
}

// encode returns the payload of a dictionary chunk, nil when there is nothing
// new.
func (f *fresh) encode() []byte {
	if f.nStrings+f.nFrames+f.nNodes+f.nLabels == 0 {
		return nil
	}
	out := make([]byte, 0, len(f.strings)+len(f.frames)+len(f.nodes)+len(f.labels)+16)
	for _, x := range [...]struct {
		n uint64
		b []byte
	}{{f.nStrings, f.strings}, {f.nFrames, f.frames}, {f.nNodes, f.nodes}, {f.nLabels, f.labels}} {
		out = append(binary.AppendUvarint(out, x.n), x.b...)
	}
	return out
}

// rowWriter collects the columns of one type.
type rowWriter struct {
	typ, unit                          uint64
	n                                  uint64
	first, last, prev                  int64 // Unix milliseconds
	times, labels, nodes, values, cpus []byte
}

func (w *rowWriter) add(x *signal.LabeledSample, labels, node uint64) {
	ms := x.Time.UnixMilli()
	if w.n == 0 {
		w.first, w.last, w.prev = ms, ms, ms
	}
	w.first, w.last = min(w.first, ms), max(w.last, ms)
	w.times = binary.AppendVarint(w.times, ms-w.prev)
	w.prev = ms
	w.labels = binary.AppendUvarint(w.labels, labels)
	w.nodes = binary.AppendUvarint(w.nodes, node)
	w.values = binary.AppendVarint(w.values, x.Value)
	w.cpus = binary.AppendUvarint(w.cpus, uint64(x.CPU))
	w.n++
}

// encode returns the payload: type, unit, number of rows, the time that the
// first delta is from, and the columns, each with its length.
func (w *rowWriter) encode() []byte {
	out := binary.AppendUvarint(nil, w.typ)
	out = binary.AppendUvarint(out, w.unit)
	out = binary.AppendUvarint(out, w.n)
	// add() makes the first delta 0 from its own time.
	out = binary.AppendVarint(out, w.base())
	for _, c := range [...][]byte{w.times, w.labels, w.nodes, w.values, w.cpus} {
		out = append(binary.AppendUvarint(out, uint64(len(c))), c...)
	}
	return out
}

// base is the time of the first row: the last one less all deltas.
func (w *rowWriter) base() int64 {
	sum := int64(0)
	for b := w.times; len(b) > 0; {
		d, n := binary.Varint(b)
		sum += d
		b = b[n:]
	}
	return w.prev - sum
}
