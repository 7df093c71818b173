// Package store keeps what the agent saw on the machine itself: the history of
// all metrics in a Prometheus TSDB, and all events in one SQLite database with
// a full-text index.
//
// One directory belongs to one process:
//
//	lock                      flock and the holder's pid
//	metrics/                  the TSDB
//	events.db, -wal, -shm     the event database
//	*.corrupt-TIME, …         what was set aside because it could not be read
//
// What is committed survives the death of the process at any point; a power
// cut loses at most the last second. Nothing in the directory can keep the
// agent from starting: what cannot be read is set aside and begun anew. A full
// or read-only disk makes the appends fail and shows in Status; they work again
// as soon as the disk does.
package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/prometheus/prometheus/storage"

	"huatuo/internal/kern/clock"
	"huatuo/internal/signal"
)

// ErrNotFound is returned by Event when there is no event with that id. To
// errors.Is it is also a fs.ErrNotExist, for those who must not know this
// package.
var ErrNotFound error = notFound{}

type notFound struct{}

func (notFound) Error() string        { return "no such event" }
func (notFound) Is(target error) bool { return target == fs.ErrNotExist }

// ErrClosed is returned after Close.
var ErrClosed = errors.New("store is closed")

// Options are the bounds of a Store. Zero members take the default.
type Options struct {
	MetricAge   time.Duration // oldest metric history; default 7 days
	MetricBytes int64         // largest metric history; default 1 GiB. Whole blocks of some hours go at once
	EventAge    time.Duration // oldest event; default 14 days
	EventBytes  int64         // largest event database; default 512 MiB
	// MinFree is the space that the store leaves free on its file system;
	// default 64 MiB. Below it nothing is written: a node whose disk is full
	// has more urgent uses for the rest, and the TSDB needs some space to stop
	// in good order. A negative value turns the check off.
	MinFree int64
}

// The defaults keep a week of 1000 series at 5 s, and a noisy fortnight of events.
const (
	defaultMetricAge   = 7 * 24 * time.Hour
	defaultMetricBytes = 1 << 30
	defaultEventAge    = 14 * 24 * time.Hour
	defaultEventBytes  = 512 << 20
	defaultMinFree     = 64 << 20
)

func (o Options) withDefaults() Options {
	set(&o.MetricAge, defaultMetricAge)
	set(&o.MetricBytes, defaultMetricBytes)
	set(&o.EventAge, defaultEventAge)
	set(&o.EventBytes, defaultEventBytes)
	set(&o.MinFree, defaultMinFree)
	return o
}

func set[T time.Duration | int64](v *T, def T) {
	if *v == 0 {
		*v = def
	}
}

// Store is an open data directory. All methods are safe for concurrent use.
type Store struct {
	dir     string
	opts    Options
	log     *slog.Logger
	lock    *dirLock
	metrics *metrics
	events  *events

	stop context.CancelFunc
	done sync.WaitGroup
	once sync.Once
}

// Open opens the data directory dir, making it if it is not there. The caller
// must Close the store.
func Open(dir string, o Options, log *slog.Logger) (*Store, error) {
	o = o.withDefaults()
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("open data directory: %w", err)
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, dirError(dir, err)
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, dirError(dir, err)
	}
	s := &Store{dir: dir, opts: o, log: log, lock: lock}
	pruneAside(dir, log)
	space := newSpace(dir, o.MinFree)
	if s.events, err = openEvents(dir, o, space, log); err == nil {
		s.metrics, err = openMetrics(dir, o, space, log)
	}
	if err != nil {
		if s.events != nil {
			err = errors.Join(err, s.events.close())
		}
		return nil, errors.Join(dirError(dir, err), lock.release())
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.stop = cancel
	s.every(ctx, time.Second, s.sync)
	s.every(ctx, 30*time.Second, s.events.retain)
	return s, nil
}

// every runs f each d until ctx is done.
func (s *Store) every(ctx context.Context, d time.Duration, f func(context.Context)) {
	s.done.Go(func() {
		t := time.NewTimer(clock.Until(d))
		defer t.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-t.C:
				f(ctx)
				t.Reset(clock.Until(d))
			}
		}
	})
}

// sync brings to the disk what was appended since the last call, so that a
// power cut loses no more than the interval of the calls.
func (s *Store) sync(context.Context) {
	if s.events.dirty.Swap(false) {
		s.logSync(s.events.path + "-wal")
	}
	if s.metrics.dirty.Swap(false) {
		s.logSync(newestFile(filepath.Join(s.metrics.dir, "wal")))
	}
}

func (s *Store) logSync(path string) {
	if err := syncFile(path); err != nil {
		s.log.Debug("cannot sync", "file", path, "err", err)
	}
}

// Close writes everything to disk and gives the directory back. It waits for
// running queries.
func (s *Store) Close() error {
	var err error
	s.once.Do(func() {
		s.stop()
		s.done.Wait()
		err = errors.Join(s.metrics.close(), s.events.close(), s.lock.release())
	})
	return err
}

// AppendSamples adds one gathering round to the metric history. Samples that
// the history cannot take (older than the window for late samples, twice in
// one round) are counted in Stats and are no error.
func (s *Store) AppendSamples(ctx context.Context, t time.Time, samples []signal.Sample) error {
	return s.metrics.append(ctx, t, samples)
}

// Querier implements storage.Queryable over the metric history.
func (s *Store) Querier(mint, maxt int64) (storage.Querier, error) {
	return s.metrics.querier(mint, maxt)
}

// AppendEvents adds events in one transaction. An event whose id is already
// there is left as it is, so a batch may be sent again after an error.
func (s *Store) AppendEvents(ctx context.Context, docs []*signal.Document) error {
	return s.events.append(ctx, docs)
}

// Events returns the events that f selects, newest id first unless f.Oldest: at most f.Limit,
// or 100 when that is zero. A container is found by its exact name or by at
// least four leading digits of its id.
func (s *Store) Events(ctx context.Context, f signal.EventFilter) (signal.EventPage, error) {
	return s.events.page(ctx, f)
}

// Event returns the event with that id, or ErrNotFound.
func (s *Store) Event(ctx context.Context, id string) (*signal.Document, error) {
	return s.events.get(ctx, id)
}

// NewestEventID returns the largest id of an event, "" when there is none or
// the database cannot be read.
func (s *Store) NewestEventID(ctx context.Context) string { return s.events.newestID(ctx) }

// Timeline counts the events that f selects in n intervals of equal length
// from f.From to f.To (oldest event and now, when they are zero). It returns
// all n intervals, also the empty ones.
func (s *Store) Timeline(ctx context.Context, f signal.EventFilter, n int) ([]signal.EventBucket, error) {
	return s.events.timeline(ctx, f, n)
}

// CountEvents counts the events that f selects by what g says, the largest
// groups first. Intervals without events are not there.
func (s *Store) CountEvents(ctx context.Context, f signal.EventFilter, g signal.EventGrouping) ([]signal.EventCount, error) {
	return s.events.count(ctx, f, g)
}

// EventValues lists the values that a member has in the newest 2000 of the
// events that f selects, the most frequent first: those that have part in them,
// limit at most. path is that of a signal.Condition, or one of kind, severity,
// namespace, pod, container, unit, comm, pid.
func (s *Store) EventValues(ctx context.Context, f signal.EventFilter, path, part string, limit int) ([]signal.ValueCount, error) {
	return s.events.values(ctx, f, path, part, limit)
}

// Stats are the counters of a Store since it was opened.
type Stats struct {
	Samples      uint64 // samples added to the history
	Late         uint64 // of these, added behind newer ones: the clock had stepped back
	TooOld       uint64 // samples refused: further behind than LateWindow
	Duplicates   uint64 // samples refused: the series had a value at that time already
	Refused      uint64 // samples refused because they are malformed
	Stale        uint64 // ends of series marked
	Events       uint64 // events added
	Repeated     uint64 // events that were there already
	EventsErased uint64 // events removed by retention
	SetAside     uint64 // times that something unreadable was set aside, or cut off where it was broken
}

// Stats returns the counters.
func (s *Store) Stats() Stats {
	var st Stats
	s.metrics.stats(&st)
	s.events.stats(&st)
	return st
}

// Status tells how the store is doing.
func (s *Store) Status() signal.StoreStatus {
	st := signal.StoreStatus{
		Dir: s.dir,
		Retention: signal.RetentionInfo{
			MetricAge: s.opts.MetricAge.String(), MetricBytes: s.opts.MetricBytes,
			EventAge: s.opts.EventAge.String(), EventBytes: s.opts.EventBytes,
		},
	}
	st.SetAside = s.Stats().SetAside
	if err := errors.Join(s.metrics.status(&st), s.events.status(&st)); err != nil {
		st.Error = err.Error()
	}
	return st
}
