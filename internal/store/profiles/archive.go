package profiles

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// archive is a file of sealed segments that is appended to. Each is followed by
// a chunk that says so; what comes after the last of those is from a crash.
type archive struct {
	chunkFile
	dict *dictWriter
}

const day = 24 * time.Hour

// archiveNodes bounds the dictionary of an archive: a query reads all of it, and
// some 20 MB are in memory while a segment is added to one so large.
const archiveNodes = 200_000

// openArchive opens the newest archive for one more segment, or begins one: each
// day, and when it is large. It returns nil when the segment is in one.
func (s *Store) openArchive(begin time.Time) (*archive, error) {
	files, err := s.list(samplesSuffix)
	sums, err2 := s.list(hoursSuffix)
	if err := errors.Join(err, err2); err != nil {
		return nil, err
	}
	for _, f := range append(sums, files...) {
		es, err := s.entries(f)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(es, func(e archived) bool { return e.segment == begin.UnixMilli() }) {
			return nil, nil
		}
	}
	if n := len(files); n > 0 && files[n-1].begin.UTC().Truncate(day).Equal(begin.UTC().Truncate(day)) {
		a, err := resume(files[n-1].path)
		if err == nil && a.dict.nodes.len() < archiveNodes && a.dict.labels.len() < archiveNodes && a.size < s.archiveBytes() {
			return a, nil
		}
		if err == nil {
			err = a.close()
		}
		if err != nil && !errors.Is(err, errDamaged) {
			return nil, err
		}
	}
	return s.newArchive(begin)
}

// archiveBytes ends an archive early: what is over a limit goes by the file.
func (s *Store) archiveBytes() int64 {
	if s.o.MaxBytes <= 0 {
		return segmentBytes
	}
	return min(segmentBytes, s.o.MaxBytes/8)
}

func (s *Store) newArchive(begin time.Time) (*archive, error) {
	for at := begin; ; at = at.Add(time.Millisecond) {
		path := filepath.Join(s.o.Dir, strconv.FormatInt(at.UnixMilli(), 10))
		if _, err := os.Lstat(path + hoursSuffix); err == nil { // what is left of another one
			continue
		}
		path += samplesSuffix
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if errors.Is(err, os.ErrExist) { // a damaged one
			continue
		}
		if err != nil {
			return nil, err
		}
		a := &archive{chunkFile{path: path, f: f}, newDictWriter()}
		if a.enc, err = largeEncoder(); err == nil {
			err = a.put([]byte(magic2))
		}
		if err != nil {
			a.close()
			return nil, err
		}
		return a, nil
	}
}

// resume opens an archive at the end of the last whole segment.
func resume(path string) (*archive, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	a := &archive{chunkFile{path: path, f: f}, newDictWriter()}
	if err = a.load(); err == nil {
		a.enc, err = largeEncoder()
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return a, nil
}

// load reads the dictionary as it was at the end of the last whole segment, and
// cuts off what follows that.
func (a *archive) load() error {
	r, version, err := newChunkReader(bufio.NewReaderSize(a.f, 64<<10))
	if err != nil {
		return err
	}
	defer r.dec.Close()
	if version != 2 {
		return fmt.Errorf("archive of version %d: %w", version, errDamaged)
	}
	d := newDict(version)
	at := int64(len(magic2))
	a.size = at
	whole := [4]int{1, 1, 1, 1}
	for {
		kind, _, _, err := r.header()
		if err == io.EOF || errors.Is(err, errDamaged) {
			break
		}
		if err != nil {
			return err
		}
		at += headerBytes + int64(r.n)
		if kind == chunkRows || kind == chunkSums {
			err = r.check()
		} else if payload, err2 := r.payload(); err2 != nil {
			err = err2
		} else if kind == chunkDict {
			err = d.add(payload)
		}
		if err != nil {
			break
		}
		if kind == chunkWhole {
			a.size = at
			whole = [4]int{len(d.strings), d.frames.len(), len(d.nodes), len(d.labels)}
		}
	}
	a.dict.fill(d, whole)
	if err := a.f.Truncate(a.size); err != nil {
		return err
	}
	_, err = a.f.Seek(a.size, io.SeekStart)
	return err
}

// fill makes the writer's dictionary that of a file.
func (w *dictWriter) fill(d *dict, n [4]int) {
	w.strings.reserve(n[0])
	w.frames.reserve(n[1])
	w.nodes.reserve(n[2])
	w.labels.reserve(n[3])
	for _, x := range d.strings[1:n[0]] {
		w.strings.add(x)
	}
	for i := 1; i < n[1]; i++ {
		w.frames.add(d.frames.at(uint32(i)))
	}
	for _, x := range d.nodes[1:n[2]] {
		w.nodes.add(x)
	}
	for _, x := range d.labels[1:n[3]] {
		w.labels.add(x)
	}
	w.wrote()
}

// strip leaves of an archive its dictionary and sums. The samples are most of it.
func strip(path string) (err error) {
	in, err := os.Open(path)
	if err != nil {
		return err
	}
	defer in.Close()
	to := strings.TrimSuffix(path, samplesSuffix) + hoursSuffix
	out, err := os.OpenFile(to+tempSuffix, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	c := chunkFile{path: to, f: out}
	err = c.copySums(in)
	if err == nil {
		err = out.Sync()
	}
	info, err2 := in.Stat()
	if err = errors.Join(err, out.Close(), err2); err != nil {
		return errors.Join(err, os.Remove(to+tempSuffix))
	}
	if err := os.Chtimes(to+tempSuffix, info.ModTime(), info.ModTime()); err != nil { // for retention
		return err
	}
	if err := os.Rename(to+tempSuffix, to); err != nil {
		return err
	}
	return os.Remove(path)
}

// copySums copies all whole chunks but those of samples.
func (c *chunkFile) copySums(in *os.File) error {
	r, _, err := newChunkReader(bufio.NewReaderSize(in, 16<<10))
	if errors.Is(err, errDamaged) {
		return c.put([]byte(magic2))
	}
	if err != nil {
		return err
	}
	defer r.dec.Close()
	r.file = in
	err = c.put([]byte(magic2))
	for err == nil {
		var kind byte
		kind, _, _, err = r.header()
		switch {
		case err != nil:
		case kind == chunkRows:
			err = r.skip()
		default:
			if err = r.check(); err == nil {
				err = c.put(append(slices.Clone(r.head[:8]), r.raw...))
			}
		}
	}
	if err == io.EOF || errors.Is(err, errDamaged) {
		return nil
	}
	return err
}

// writeDict writes what no chunk of the archive has yet.
func (a *archive) writeDict() error {
	fresh := a.dict.fresh()
	if fresh == nil {
		return nil
	}
	defer a.dict.wrote()
	return a.chunk(chunkDict, fresh, 0, 0)
}

// commit ends a segment, and waits for the disk: the original is removed next.
func (a *archive) commit(segment, first, last int64) error {
	if err := a.chunk(chunkWhole, binary.AppendVarint(nil, segment), first, last); err != nil {
		return err
	}
	return a.f.Sync()
}

// translation gives the numbers of a segment's dictionary in an archive.
type translation struct{ strings, nodes, labels []uint32 }

// take puts all of a segment into the dictionary.
func (a *archive) take(d *dict) *translation {
	t := &translation{strings: make([]uint32, len(d.strings)), nodes: make([]uint32, len(d.nodes)), labels: make([]uint32, len(d.labels))}
	for i, x := range d.strings {
		t.strings[i] = a.dict.str(x)
	}
	frames := make([]uint32, d.frames.len())
	for i := 1; i < len(frames); i++ {
		f := d.frames.at(uint32(i))
		for _, x := range []*uint32{&f.function, &f.module, &f.file, &f.missing, &f.build} {
			*x = t.strings[*x]
		}
		frames[i], _ = a.dict.frames.add(f)
	}
	for i, n := range d.nodes[1:] {
		t.nodes[i+1], _ = a.dict.nodes.add(nodeKey{t.nodes[n.parent], frames[n.frame]})
	}
	for i := range d.labels[1:] {
		t.labels[i+1] = a.label(d, t, uint32(i+1), true)
	}
	return t
}

// label gives a label set of a segment its number in the archive.
func (a *archive) label(d *dict, t *translation, id uint32, ids bool) uint32 {
	if id == 0 {
		return 0
	}
	l := d.labels[id]
	for _, x := range []*uint32{&l.process, &l.thread, &l.namespace, &l.pod, &l.container, &l.unitID} {
		*x = t.strings[*x]
	}
	if !ids {
		l.pid, l.tid = 0, 0
	}
	n, _ := a.dict.labels.add(l)
	return n
}

// archived is one segment in an archive.
type archived struct{ segment, first, last int64 }

// archiveFile is what is known of an archive of that size.
type archiveFile struct {
	size    int64
	entries []archived
}

// entries lists the segments that an archive has whole.
func (s *Store) entries(f segmentFile) ([]archived, error) {
	s.archivesMu.Lock()
	defer s.archivesMu.Unlock()
	if k, ok := s.archives[f.path]; ok && k.size == f.size {
		return k.entries, nil
	}
	es, err := readEntries(f.path)
	if err != nil && !errors.Is(err, errDamaged) {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil // retention was faster
		}
		return nil, err
	}
	s.archives[f.path] = archiveFile{f.size, es}
	return es, nil
}

// readEntries compares all checksums: a segment in which one is wrong, and those
// after it, do not count.
func readEntries(path string) ([]archived, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r, _, err := newChunkReader(bufio.NewReaderSize(f, 64<<10))
	if err != nil {
		return nil, err
	}
	defer r.dec.Close()
	var out []archived
	for {
		kind, first, last, err := r.header()
		if err == io.EOF {
			return out, nil
		}
		if err == nil && kind != chunkWhole {
			err = r.check()
		} else if err == nil {
			var p []byte
			p, err = r.payload()
			segment := (&reader{b: p}).int()
			if segment > math.MinInt64 && err == nil {
				out = append(out, archived{segment, first, last})
			}
		}
		if err != nil {
			return out, err
		}
	}
}
