// Package profiles keeps stacks: which thread was where, at which moment, for
// how long.
//
// It keeps them in segments, files of at most a clock hour each that begin with
// nothing and grow by chunks: of a dictionary, whose entries have numbers, and of
// rows, which are numbers alone. docs/format/profiles.md is the format. A chunk
// has a checksum, a segment is written to by one run of the agent and only at its
// end, and a reader stops at the first chunk that is not whole: whatever ends the
// agent, all but the last few seconds can be read.
//
// A segment that is over is sealed: its samples, in a third of the size, and their
// sums by stack and labels go into an archive, which has one dictionary for a day.
// A query takes the sums of a segment where it asks for all of it, so that a day is
// read about as fast as an hour. When an archive is too old or too much, its samples
// go and its sums stay.
package profiles

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"huatuo/internal/signal"
)

const (
	suffix        = ".profile"
	samplesSuffix = ".samples"
	tempSuffix    = ".tmp"
	hoursSuffix   = ".hours"

	// segmentAge is how much time a segment covers; it ends with the hour of the
	// clock. Its dictionary is read for each query that touches it: longer ones make
	// short queries slow, shorter ones repeat the dictionary more often.
	segmentAge = time.Hour
	// segmentBytes and segmentNodes end a segment early: its dictionary is in
	// memory while it is written, 10 MB at so many nodes (BenchmarkOpen). It is not
	// written twice for that: an archive has one for several segments.
	segmentBytes = 64 << 20
	segmentNodes = 150_000
	// flushEvery is what a crash may lose.
	flushEvery = 2 * time.Second
	// maxPending bounds the samples between two flushes; more are dropped and
	// counted. It is 20 MB; at half of it a flush comes at once.
	maxPending = 1 << 16
	// maxReaders bounds the queries at one time: each has dictionaries in memory.
	maxReaders = 2
)

// Options of Open.
type Options struct {
	Dir      string
	MaxBytes int64         // of all samples; 0: no limit
	MaxAge   time.Duration // of samples; 0: no limit

	MaxHoursBytes int64         // of all sums; 0: no limit
	MaxHoursAge   time.Duration // of sums, and of captures; 0: no limit

	MaxCaptureBytes int64 // of all captures; 0: no limit

	Log *slog.Logger
	Now func() time.Time // nil: time.Now
}

// Store keeps samples. It is safe for concurrent use.
type Store struct {
	o Options

	mu      sync.Mutex
	pending []signal.LabeledSample
	spare   []signal.LabeledSample // what pending was before the last flush
	dropped uint64
	failed  uint64
	kept    uint64
	broken  error // what the last write came to

	flushing sync.Mutex
	wake     chan struct{} // much is pending

	write   sync.Mutex // held while a segment is written to
	current *segment   // nil before the first sample

	archivesMu sync.Mutex
	archives   map[string]archiveFile // by path
	readers    chan struct{}

	captures sync.Mutex // held while old captures are removed
}

// Open opens the store in a directory, which it makes.
func Open(o Options) (*Store, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make directory of profiles: %w", err)
	}
	s := &Store{o: o, archives: map[string]archiveFile{}, readers: make(chan struct{}, maxReaders), wake: make(chan struct{}, 1)}
	unfinished, err := filepath.Glob(filepath.Join(o.Dir, "*"+tempSuffix))
	if err != nil {
		return nil, fmt.Errorf("list profiles: %w", err)
	}
	for _, path := range unfinished { // a crash while a capture was written
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("remove what a crash left: %w", err)
		}
	}
	return s, s.retain()
}

// Add keeps a sample. It never blocks on the disk.
func (s *Store) Add(x signal.LabeledSample) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.pending) >= maxPending {
		s.dropped++
		return
	}
	s.pending = append(s.pending, x)
	if len(s.pending) == maxPending/2 {
		select {
		case s.wake <- struct{}{}:
		default: // it is being written
		}
	}
}

// Run writes until ctx is done, and then what is left.
func (s *Store) Run(ctx context.Context) {
	t := time.NewTicker(flushEvery)
	defer t.Stop()
	var wg sync.WaitGroup
	wg.Go(func() { s.maintain(ctx) })
	for {
		select {
		case <-ctx.Done():
			wg.Wait()
			s.Flush()
			s.write.Lock()
			defer s.write.Unlock()
			s.end()
			return
		case <-t.C:
		case <-s.wake:
		}
		s.Flush()
	}
}

// maintain seals segments that are over and removes what is over the limits.
func (s *Store) maintain(ctx context.Context) {
	t := time.NewTicker(time.Minute)
	defer t.Stop()
	for {
		if err := s.sealAll(ctx); err != nil {
			s.o.Log.Warn("cannot seal profiles", "err", err)
		}
		if err := s.retain(); err != nil {
			s.o.Log.Warn("cannot remove old profiles", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// sealAll seals all segments but the one that is written to.
func (s *Store) sealAll(ctx context.Context) error {
	files, err := s.list(suffix)
	if err != nil {
		return err
	}
	var errs []error
	for _, f := range files {
		if ctx.Err() != nil || !s.over(f) {
			continue
		}
		if err := s.seal(f); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// over tells whether nobody appends to a segment any more, and ends the current
// one when its hour is over.
func (s *Store) over(f segmentFile) bool {
	s.write.Lock()
	defer s.write.Unlock()
	if s.current != nil && s.full(s.o.Now()) {
		s.end()
	}
	return s.current == nil || s.current.path != f.path
}

// Flush writes what is pending, so that a query finds it.
func (s *Store) Flush() {
	s.flushing.Lock() // also when another one has taken what is pending: it is to be on the disk on return
	defer s.flushing.Unlock()
	s.mu.Lock()
	batch := s.pending
	s.pending, s.spare = s.spare[:0], nil
	s.mu.Unlock()
	defer func() {
		clear(batch)
		s.mu.Lock()
		defer s.mu.Unlock()
		if cap(batch) <= maxPending/8 { // a rush is not what the next seconds bring
			s.spare = batch
		}
	}()
	if len(batch) == 0 {
		return
	}
	s.write.Lock()
	err := s.append(batch)
	if err != nil {
		s.end() // what it has is whole up to here; the next try begins another
	}
	s.write.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.failed += uint64(len(batch))
		if s.broken == nil {
			s.o.Log.Error("cannot keep profiles", "err", err)
		}
	} else {
		s.kept += uint64(len(batch))
		if s.broken != nil {
			s.o.Log.Info("profiles are kept again")
		}
	}
	s.broken = err
}

// append writes a batch into the current segment. Called with write held.
func (s *Store) append(batch []signal.LabeledSample) error {
	now := s.o.Now()
	if s.current != nil && s.full(now) {
		s.end()
	}
	if s.current == nil {
		c, err := newSegment(s.o.Dir, now)
		if err != nil {
			return err
		}
		s.current = c
	}
	return s.current.append(batch)
}

// full tells whether the current segment is at its end.
func (s *Store) full(now time.Time) bool {
	c := s.current
	return !now.Truncate(segmentAge).Equal(c.begin.Truncate(segmentAge)) || now.Before(c.begin) ||
		c.size >= segmentBytes || c.dict.nodes.len() >= segmentNodes
}

// end closes the current segment. Called with write held.
func (s *Store) end() {
	if s.current != nil {
		s.current.close()
		s.current = nil
	}
}

// Stats say what became of the samples.
type Stats struct {
	Kept, Dropped, Failed uint64
	Segments              int   // files of samples
	Bytes                 int64 // of samples
	HoursBytes            int64 // of sums
	CaptureBytes          int64
	Err                   error // of the last write
}

// Stats returns the counters so far.
func (s *Store) Stats() Stats {
	s.mu.Lock()
	out := Stats{Kept: s.kept, Dropped: s.dropped, Failed: s.failed, Err: s.broken}
	s.mu.Unlock()
	files, err := s.list(suffix)
	samples, err2 := s.list(samplesSuffix)
	hours, err3 := s.list(hoursSuffix)
	captures, err4 := s.captureFiles()
	if err = errors.Join(err, err2, err3, err4); err != nil && out.Err == nil {
		out.Err = err
	}
	for _, f := range append(files, samples...) {
		out.Segments++
		out.Bytes += f.size
	}
	for _, f := range hours {
		out.HoursBytes += f.size
	}
	for _, f := range captures {
		out.CaptureBytes += f.size
	}
	return out
}

// segmentFile is a segment or an archive on disk.
type segmentFile struct {
	path  string
	begin time.Time
	size  int64
	mtime time.Time
}

// list lists the files of a suffix, oldest first.
func (s *Store) list(suffix string) ([]segmentFile, error) {
	entries, err := os.ReadDir(s.o.Dir)
	if err != nil {
		return nil, fmt.Errorf("list profiles: %w", err)
	}
	var out []segmentFile
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), suffix)
		ms, err := strconv.ParseInt(name, 10, 64)
		if !ok || err != nil {
			continue
		}
		info, err := e.Info()
		if err != nil {
			continue // it has just been removed
		}
		out = append(out, segmentFile{filepath.Join(s.o.Dir, e.Name()), time.UnixMilli(ms), info.Size(), info.ModTime()})
	}
	slices.SortFunc(out, func(a, b segmentFile) int { return cmp.Compare(a.begin.UnixMilli(), b.begin.UnixMilli()) })
	return out, nil
}

// retain removes the oldest files that are over the limits.
func (s *Store) retain() error {
	segments, err := s.list(suffix)
	samples, err2 := s.list(samplesSuffix)
	hours, err3 := s.list(hoursSuffix)
	if err := errors.Join(err, err2, err3); err != nil {
		return err
	}
	s.archivesMu.Lock()
	maps.DeleteFunc(s.archives, func(path string, _ archiveFile) bool {
		is := func(f segmentFile) bool { return f.path == path }
		return !slices.ContainsFunc(hours, is) && !slices.ContainsFunc(samples, is)
	})
	s.archivesMu.Unlock()
	s.write.Lock()
	if s.current != nil { // it stays
		segments = slices.DeleteFunc(segments, func(f segmentFile) bool { return f.path == s.current.path })
	}
	s.write.Unlock()
	return errors.Join(
		s.remove(append(samples, segments...), s.o.MaxBytes, s.o.MaxAge), // those that are not archived are the newer ones
		s.remove(hours, s.o.MaxHoursBytes, s.o.MaxHoursAge),
		s.retainCaptures())
}

// remove removes the first of files, as many as are over the limits. Of an archive
// of samples the sums stay.
func (s *Store) remove(files []segmentFile, maxBytes int64, maxAge time.Duration) error {
	total := int64(0)
	for _, f := range files {
		total += f.size
	}
	var errs []error
	for _, f := range files {
		old := maxAge > 0 && s.o.Now().Sub(f.mtime) > maxAge
		if !old && (maxBytes <= 0 || total <= maxBytes) {
			continue
		}
		gone := os.Remove
		if strings.HasSuffix(f.path, samplesSuffix) {
			gone = strip
		}
		if err := gone(f.path); err != nil {
			errs = append(errs, err)
			continue
		}
		total -= f.size
	}
	return errors.Join(errs...)
}
