package profiles

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"slices"
	"time"
)

// Blocks of sealed samples: large ones compress better, and a short window reads
// a whole one.
const (
	blockRows = 16 << 10
	blockTime = 2 * time.Minute
)

// seal moves a segment that nobody appends to any more into an archive: its
// samples, in minutes instead of seconds, and their sums. An archive has one
// dictionary for a day. The segment is removed after that; a crash in between is
// seen by the entry of the archive, which also tells readers not to read it twice.
func (s *Store) seal(f segmentFile) error {
	if err := s.archive(f); err != nil {
		return fmt.Errorf("archive profiles: %w", err)
	}
	return os.Remove(f.path)
}

func (s *Store) archive(f segmentFile) error {
	rows := false
	d, err := readFile(f.path, wants{from: math.MaxInt64, to: math.MinInt64, skipped: func(int64, int64) { rows = true }})
	if err != nil && !errors.Is(err, errDamaged) {
		return err
	}
	if !rows { // a crash in its first seconds
		return nil
	}
	a, err := s.openArchive(f.begin)
	if a == nil || err != nil {
		return err
	}
	t := a.take(d)
	err = a.writeDict()
	r := newRollup(d)
	if err == nil {
		err = a.copySamples(f, t, r)
	}
	if err == nil {
		err = a.appendSums(f.begin.UnixMilli(), d, t, r)
	}
	if err == nil {
		err = a.commit(f.begin.UnixMilli(), r.first, r.last)
	}
	return errors.Join(err, a.close())
}

// readRows hands out all rows of a file as far as it is whole.
func readRows(path string, each func(b *block, x *row) bool) error {
	_, err := readFile(path, wants{from: math.MinInt64, to: math.MaxInt64, row: func(b *block, _ *dict, x *row) bool { return each(b, x) }})
	if errors.Is(err, errDamaged) {
		return nil
	}
	return err
}

// copySamples appends the rows of a segment in large blocks, and sums them up.
func (a *archive) copySamples(f segmentFile, t *translation, r *rollup) error {
	blocks := map[uint32]*blockWriter{} // by type
	var failed error
	flush := func(w *blockWriter) {
		if len(w.rows) == 0 || failed != nil {
			return
		}
		payload, first, last := w.encode()
		failed = a.chunk(chunkRows, payload, first, last)
		w.reset()
	}
	err := readRows(f.path, func(b *block, x *row) bool {
		w := blocks[b.typeID]
		if w == nil {
			w = &blockWriter{typ: t.strings[b.typeID], unit: t.strings[b.unitID], segment: f.begin.UnixMilli()}
			blocks[b.typeID] = w
		}
		if len(w.rows) >= blockRows || len(w.rows) > 0 && x.ms-w.rows[0].ms >= blockTime.Milliseconds() {
			flush(w)
		}
		y := *x
		y.pair = pair{t.nodes[x.pair.node], t.labels[x.pair.labels]}
		if y.link > 0 {
			w.links = append(w.links, b.link)
			y.link = uint32(len(w.links))
		}
		w.rows = append(w.rows, y)
		r.add(b, x)
		return failed == nil
	})
	for _, id := range slices.Sorted(maps.Keys(blocks)) {
		flush(blocks[id])
	}
	return errors.Join(failed, err)
}
