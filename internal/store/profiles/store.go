// Package profiles keeps stacks: which thread was where, at which moment, for
// how long.
//
// It keeps them in segments, files of an hour each that begin with nothing and
// grow by chunks: of a dictionary, whose entries have numbers, and of rows, which
// are numbers alone. docs/format/profiles.md is the format. A chunk has a
// checksum, a segment is written to by one run of the agent and only at its end,
// and a reader stops at the first chunk that is not whole: whatever ends the
// agent, all but the last few seconds can be read.
package profiles

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
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
	suffix = ".profile"

	// segmentAge is how much time a segment covers. Its dictionary is read for
	// each query that touches it: longer ones make short queries slow, shorter
	// ones repeat the dictionary more often.
	segmentAge = time.Hour
	// segmentBytes and segmentNodes end a segment early: its dictionary is in
	// memory while it is written.
	segmentBytes = 64 << 20
	segmentNodes = 300_000
	// flushEvery is what a crash may lose.
	flushEvery = 2 * time.Second
	// maxPending bounds the samples between two flushes; more are dropped and
	// counted. It is a hundred times what the default rates make.
	maxPending = 1 << 17
)

// Options of Open.
type Options struct {
	Dir      string
	MaxBytes int64         // of all segments; 0: no limit
	MaxAge   time.Duration // 0: no limit
	Log      *slog.Logger
	Now      func() time.Time // nil: time.Now
}

// Store keeps samples. It is safe for concurrent use.
type Store struct {
	o Options

	mu      sync.Mutex
	pending []signal.LabeledSample
	dropped uint64
	failed  uint64
	kept    uint64
	broken  error // what the last write came to

	write   sync.Mutex // held while a segment is written to
	current *segment   // nil before the first sample
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
	s := &Store{o: o}
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
}

// Run writes until ctx is done, and then what is left.
func (s *Store) Run(ctx context.Context) {
	t := time.NewTicker(flushEvery)
	defer t.Stop()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			s.flush()
			s.write.Lock()
			defer s.write.Unlock()
			s.end()
			return
		case <-t.C:
		}
		s.flush()
		if n%30 == 29 {
			if err := s.retain(); err != nil {
				s.o.Log.Warn("cannot remove old profiles", "err", err)
			}
		}
	}
}

// flush writes what is pending.
func (s *Store) flush() {
	s.mu.Lock()
	batch := s.pending
	s.pending = nil
	s.mu.Unlock()
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
	if c := s.current; c != nil && (now.Sub(c.begin) >= segmentAge || now.Before(c.begin) || c.size >= segmentBytes || len(c.nodes) >= segmentNodes) {
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
	Segments              int
	Bytes                 int64
	Err                   error // of the last write
}

// Stats returns the counters so far.
func (s *Store) Stats() Stats {
	s.mu.Lock()
	out := Stats{Kept: s.kept, Dropped: s.dropped, Failed: s.failed, Err: s.broken}
	s.mu.Unlock()
	files, err := s.files()
	if err != nil && out.Err == nil {
		out.Err = err
	}
	for _, f := range files {
		out.Segments++
		out.Bytes += f.size
	}
	return out
}

// segmentFile is a segment on disk.
type segmentFile struct {
	path  string
	begin time.Time
	size  int64
	mtime time.Time
}

// files lists the segments, oldest first.
func (s *Store) files() ([]segmentFile, error) {
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

// retain removes the oldest segments that are over the limits.
func (s *Store) retain() error {
	files, err := s.files()
	if err != nil {
		return err
	}
	s.write.Lock()
	defer s.write.Unlock()
	if s.current != nil && len(files) > 0 { // it stays
		files = slices.DeleteFunc(files, func(f segmentFile) bool { return f.path == s.current.path })
	}
	total := int64(0)
	for _, f := range files {
		total += f.size
	}
	var errs []error
	for _, f := range files {
		old := s.o.MaxAge > 0 && s.o.Now().Sub(f.mtime) > s.o.MaxAge
		if !old && (s.o.MaxBytes <= 0 || total <= s.o.MaxBytes) {
			continue
		}
		if err := os.Remove(f.path); err != nil {
			errs = append(errs, err)
			continue
		}
		total -= f.size
	}
	return errors.Join(errs...)
}
