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

// A file begins with its version.
const (
	magic1 = "huatuo profile 1\n"
	magic2 = "huatuo profile 2\n"
)

// Kinds of chunk.
const (
	chunkDict  = 1 // strings, frames, nodes and label sets, added to those before
	chunkRows  = 2 // samples of one type
	chunkWhole = 3 // in an archive: the rows since the last one of these are a segment, and are all of it
	chunkSums  = 4 // in an archive: the samples of a segment and type, summed up
)

// A chunk's header: length and CRC-32C of what follows it, kind, and the time
// of the first and last row in Unix milliseconds.
const headerBytes = 4 + 4 + 1 + 8 + 8

// chunkFile is a file that chunks are appended to.
type chunkFile struct {
	path string
	f    *os.File
	size int64
	enc  *zstd.Encoder
	buf  []byte
}

// Encoders: one that is in memory all the time and sees two seconds at once,
// and one that writes minutes and whole dictionaries.
func smallEncoder() (*zstd.Encoder, error) {
	return zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true),
		zstd.WithWindowSize(64<<10), zstd.WithEncoderCRC(false)) // a chunk has its own
}

func largeEncoder() (*zstd.Encoder, error) {
	return zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBetterCompression), zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true),
		zstd.WithWindowSize(1<<20), zstd.WithEncoderCRC(false))
}

func (c *chunkFile) close() error {
	if c.enc != nil {
		c.enc.Close()
	}
	return c.f.Close()
}

// put appends bytes, all or, as far as it can be had, none of them.
func (c *chunkFile) put(b []byte) error {
	n, err := c.f.Write(b)
	if err != nil {
		if n > 0 {
			c.f.Truncate(c.size) // a reader stops there anyway
		}
		return fmt.Errorf("write profiles: %w", err)
	}
	c.size += int64(n)
	return nil
}

// chunk compresses and appends one chunk.
func (c *chunkFile) chunk(kind byte, payload []byte, first, last int64) error {
	b := append(c.buf[:0], make([]byte, headerBytes)...)
	b = c.enc.EncodeAll(payload, b)
	if c.buf = b; cap(b) > 256<<10 {
		c.buf = nil
	}
	le := binary.LittleEndian
	le.PutUint32(b[0:], uint32(len(b)-headerBytes))
	b[8] = kind
	le.PutUint64(b[9:], uint64(first))
	le.PutUint64(b[17:], uint64(last))
	le.PutUint32(b[4:], crc32.Checksum(b[8:], castagnoli()))
	return c.put(b)
}

func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

// segment is one being written.
type segment struct {
	chunkFile
	begin  time.Time
	dict   *dictWriter
	blocks map[*signal.ProfileType]*blockWriter
	order  []*signal.ProfileType
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
		s := &segment{chunkFile: chunkFile{path: path, f: f}, begin: begin, dict: newDictWriter(), blocks: map[*signal.ProfileType]*blockWriter{}}
		if s.enc, err = smallEncoder(); err == nil {
			err = s.put([]byte(magic2))
		}
		if err != nil {
			s.close()
			return nil, fmt.Errorf("begin segment of profiles: %w", err)
		}
		return s, nil
	}
}

// append writes samples: what the dictionary lacks, then the rows by type.
func (s *segment) append(batch []signal.LabeledSample) error {
	for i := range batch {
		x := &batch[i]
		w := s.blocks[x.Type]
		if w == nil {
			w = &blockWriter{typ: s.dict.str(x.Type.Name), unit: s.dict.str(x.Type.Unit)}
			s.blocks[x.Type] = w
			s.order = append(s.order, x.Type)
		}
		r := row{ms: x.Time.UnixMilli(), value: x.Value, cpu: x.CPU, pair: pair{s.dict.stack(x.Stack), s.dict.label(&x.Labels, x.TID)}}
		if l := (link{x.TraceID, x.SpanID}); l != (link{}) {
			w.links = append(w.links, l)
			r.link = uint32(len(w.links))
		}
		w.rows = append(w.rows, r)
	}
	err := s.write()
	for _, t := range s.order {
		s.blocks[t].reset()
	}
	return err
}

func (s *segment) write() error {
	if fresh := s.dict.fresh(); fresh != nil {
		if err := s.chunk(chunkDict, fresh, 0, 0); err != nil {
			return err
		}
		s.dict.wrote()
	}
	for _, t := range s.order {
		if len(s.blocks[t].rows) == 0 {
			continue
		}
		payload, first, last := s.blocks[t].encode()
		if err := s.chunk(chunkRows, payload, first, last); err != nil {
			return err
		}
	}
	return nil
}
