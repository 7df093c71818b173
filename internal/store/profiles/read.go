package profiles

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"

	"github.com/klauspost/compress/zstd"
)

const (
	// maxChunk bounds a chunk, compressed and not: a whole segment is not larger.
	maxChunk = 256 << 20
	// maxEntries bounds what one dictionary may hold, twenty times what a segment
	// is ended at.
	maxEntries = 20 * segmentNodes
	// versionCapture stands for a file that has no rows.
	versionCapture = -1
)

// errDamaged is why reading a file ended early.
var errDamaged = errors.New("damaged")

// wants says which chunks of rows are worth reading.
type wants struct {
	from, to int64 // Unix milliseconds, to is not in it
	sums     bool  // sums too, of any time; without it they are passed over
	// block is called with each that touches the window, before its tables are
	// read, and says whether to go on with each row.
	block   func(b *block, d *dict) bool
	row     func(b *block, d *dict, x *row) bool // false: no more of this block
	skipped func(first, last int64)              // may be nil: called with the times of each chunk of rows that is not read
}

// readFile hands out the rows that are wanted. It returns what it has read of
// the dictionary; an error that wraps errDamaged says that the rest is missing.
func readFile(path string, w wants) (*dict, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readChunks(bufio.NewReaderSize(f, 16<<10), f, w)
}

// readChunks reads from in, and seeks in file, which may be nil.
func readChunks(in *bufio.Reader, file io.ReadSeeker, w wants) (*dict, error) {
	r, version, err := newChunkReader(in)
	d := newDict(version)
	if err == nil && version == versionCapture {
		err = fmt.Errorf("a capture: %w", errDamaged)
	}
	if err != nil {
		return d, err
	}
	r.file = file
	defer r.dec.Close()
	var b block
	for {
		kind, first, last, err := r.header()
		if err == io.EOF {
			return d, nil
		}
		if err != nil {
			return d, err
		}
		if kind == chunkRows && (last < w.from || first >= w.to) || kind == chunkSums && !w.sums {
			if err := r.skip(); err != nil {
				return d, err
			}
			if kind == chunkRows && w.skipped != nil {
				w.skipped(first, last)
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
		case chunkRows, chunkSums:
			err = b.read(payload, d, w)
		}
		if err != nil {
			return d, err
		}
	}
}

// read hands out the rows of a chunk.
func (b *block) read(payload []byte, d *dict, w wants) error {
	open := b.open
	if d.version == 1 {
		open = b.open1
	}
	if err := open(payload, d); err != nil {
		return err
	}
	if w.block != nil && !w.block(b, d) {
		return nil
	}
	if d.version == 1 {
		return b.each1(d, func(x *row) bool { return x.ms < w.from || x.ms >= w.to || w.row(b, d, x) })
	}
	if err := b.load(d); err != nil {
		return err
	}
	return b.each(func(x *row) bool { return !b.rolled && (x.ms < w.from || x.ms >= w.to) || w.row(b, d, x) })
}

// chunkReader reads chunks one after the other.
type chunkReader struct {
	in   *bufio.Reader
	file io.ReadSeeker // that in reads from; nil: it cannot seek
	dec  *zstd.Decoder
	head [headerBytes]byte
	n    int
	raw  []byte
	out  []byte
}

// newChunkReader reads the beginning of a file.
func newChunkReader(in *bufio.Reader) (r *chunkReader, version int, err error) {
	head := make([]byte, len(magic2))
	_, err = io.ReadFull(in, head)
	switch {
	case err == nil && string(head) == magic1:
		version = 1
	case err == nil && string(head) == magic2:
		version = 2
	case err == nil && string(head) == magicCapture:
		version = versionCapture
	default:
		return nil, 0, fmt.Errorf("no profiles of a version that is known: %w", errDamaged)
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxChunk), zstd.WithDecoderLowmem(true))
	if err != nil {
		return nil, 0, err
	}
	return &chunkReader{in: in, dec: dec}, version, nil
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
	if far := r.n - r.in.Buffered(); far > 0 && r.file != nil {
		if _, err := r.file.Seek(int64(far), io.SeekCurrent); err != nil {
			return err
		}
		r.in.Reset(r.file)
		return nil
	}
	if _, err := r.in.Discard(r.n); err != nil {
		return fmt.Errorf("chunk is cut off: %w", errDamaged)
	}
	return nil
}

// check reads what belongs to the last header and compares its checksum.
func (r *chunkReader) check() error {
	r.raw = append(r.raw[:0], r.head[8:]...)
	for r.n > 0 { // in steps: a length that is not true must not cost memory
		step := min(r.n, 1<<20)
		at := len(r.raw)
		r.raw = append(r.raw, make([]byte, step)...)
		if _, err := io.ReadFull(r.in, r.raw[at:]); err != nil {
			return fmt.Errorf("chunk is cut off: %w", errDamaged)
		}
		r.n -= step
	}
	if crc32.Checksum(r.raw, castagnoli()) != binary.LittleEndian.Uint32(r.head[4:]) {
		return fmt.Errorf("checksum of a chunk: %w", errDamaged)
	}
	return nil
}

// payload reads what belongs to the last header. It is valid until the next.
func (r *chunkReader) payload() ([]byte, error) {
	if err := r.check(); err != nil {
		return nil, err
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
	if len(r.b) > 0 && r.b[0] < 0x80 { // most are so small
		v := r.b[0]
		r.b = r.b[1:]
		return uint64(v)
	}
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) int() int64 {
	u := r.uint()
	return int64(u>>1) ^ -int64(u&1)
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
