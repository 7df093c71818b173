package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/util/compression"

	"huatuo/internal/signal"
)

// LateWindow is how far behind the newest sample a sample may be. When the
// clock steps back by less, history goes on without a gap. When it steps back
// by more, the newest samples bear times that have yet to come; see leaveAhead.
const LateWindow = 2 * time.Hour

// patience is for how long nothing but refused samples may come before the
// clock is taken to have stepped back for good: a machine without a battery
// starts in the past, and its clock is set within minutes.
const patience = 5 * time.Minute

// reopenAfter is how long a TSDB that failed is left alone.
const reopenAfter = 10 * time.Second

// headFiles are what the TSDB keeps beside its blocks.
var headFiles = []string{"wal", "wbl", "chunks_head"}

var errReopening = errors.New("metric history is being reopened; try again")

// metrics is the metric history.
//
// The TSDB answers an I/O error while it moves a chunk from memory to its file
// with a panic, and a WAL that met one loses at the next replay whatever comes
// after it. So any write error closes the TSDB, and a later append opens it
// anew, which repairs the WAL.
type metrics struct {
	dir   string
	opts  Options
	space *space
	log   *slog.Logger
	dirty atomic.Bool

	mu       sync.Mutex // appending, closing, reopening
	live     liveSeries
	retryAt  time.Time // no reopening before
	refused  time.Time // since when nothing of any round was taken, all being too old
	patience time.Duration
	paused   bool // compaction, for want of space
	closed   bool

	state struct {
		sync.Mutex
		db  *handle // nil while closed
		err error   // of the last append or opening
	}
	count struct {
		samples, late, tooOld, duplicates, refused, stale, setAside atomic.Uint64
	}
}

// handle counts the queries that use a TSDB: closing it under a query would
// unmap the memory that the query reads.
type handle struct {
	*tsdb.DB
	users sync.WaitGroup
}

func openMetrics(dir string, o Options, sp *space, log *slog.Logger) (*metrics, error) {
	m := &metrics{dir: filepath.Join(dir, "metrics"), opts: o, space: sp, log: log, patience: patience}
	m.live.init()
	err := m.open()
	if full(err) { // appends will try again
		m.log.Error("metric history stays closed", "err", err)
		m.setErr(err)
		return m, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open metric history: %w", err)
	}
	return m, nil
}

// tsdbOptions are chosen for a few thousand series on a node that has better
// uses for its memory. The numbers are those of BenchmarkRSS.
func (m *metrics) tsdbOptions() *tsdb.Options {
	o := tsdb.DefaultOptions()
	o.NoLockfile = true // the directory has ours
	// One hour: the WAL to replay at a start holds 1.5 h at most, and opening
	// stays below 1 s. Larger blocks come from compaction, up to 9 h, so that
	// retention by size removes small pieces.
	o.MinBlockDuration = time.Hour.Milliseconds()
	o.MaxBlockDuration = (9 * time.Hour).Milliseconds()
	o.RetentionDuration = m.opts.MetricAge.Milliseconds()
	o.MaxBytes = m.opts.MetricBytes
	o.OutOfOrderTimeWindow = LateWindow.Milliseconds()
	o.StripeSize = 512                           // of 16384: 4 MB less
	o.WALSegmentSize = 8 << 20                   // of 128 MB: truncation frees space earlier
	o.WALCompression = compression.Snappy        // 20 MB on disk after three hours instead of 26
	o.WALReplayConcurrency = 2                   // of all CPUs: each has its buffers
	o.HeadChunksWriteBufferSize = 64 << 10       // of 4 MB: as much less after some hours
	o.MaxBlockChunkSegmentSize = int64(16 << 20) // of 512 MB, which compaction allocates at once
	return o
}

// open opens the TSDB. What cannot be read is set aside, as little as
// possible: bad blocks, else the head's chunks (the WAL has their samples too),
// else the head, else all.
func (m *metrics) open() error {
	// To repair a WAL is to write one segment anew; out of space, that loses
	// what the old one held.
	if err := m.space.require(largestFile(filepath.Join(m.dir, "wal")) + 1<<20); err != nil {
		return err
	}
	aside := []func(error) bool{m.asideBlocks, m.asideHeadChunks, m.asideHead, m.asideAll}
	m.asideBlocksWithoutMeta()
	for {
		db, err := m.tryOpen()
		if err == nil {
			m.setDB(&handle{DB: db})
			m.live.forgetRefs()
			m.paused = false
			return nil
		}
		if environmental(err) {
			return err
		}
		moved := false
		for !moved && len(aside) > 0 {
			moved, aside = aside[0](err), aside[1:]
		}
		if !moved {
			return err
		}
	}
}

func (m *metrics) tryOpen() (db *tsdb.DB, err error) {
	// A mangled file has been seen to trip the reader's bounds checks.
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("read metric history: %v", r)
		}
	}()
	reg := prometheus.NewRegistry()
	db, err = tsdb.Open(m.dir, slog.New(quiet{m.log.Handler()}).With("part", "metrics"), reg, m.tsdbOptions(), nil)
	if err == nil && repaired(reg) {
		m.log.Error("the journal of the metric history was broken; what came after the broken place is lost", "path", filepath.Join(m.dir, "wal"))
		m.count.setAside.Add(1)
	}
	return db, err
}

// asideBlocksWithoutMeta sets aside the blocks that the TSDB would leave on
// the disk for ever, unread and outside of retention.
func (m *metrics) asideBlocksWithoutMeta() {
	m.asideIf(func(block string) error {
		b, err := os.ReadFile(filepath.Join(block, "meta.json"))
		if err != nil {
			return err
		}
		return json.Unmarshal(b, new(tsdb.BlockMeta))
	})
}

func (m *metrics) asideBlocks(error) bool {
	return m.asideIf(func(block string) error {
		b, err := tsdb.OpenBlock(m.log, block, nil, nil)
		if err != nil {
			return err
		}
		return b.Close()
	})
}

// asideIf sets the blocks aside that check finds wrong.
func (m *metrics) asideIf(check func(block string) error) (moved bool) {
	for _, dir := range m.blockDirs() {
		err := check(dir)
		if err == nil || environmental(err) {
			continue
		}
		to := filepath.Join(filepath.Dir(m.dir), "metrics-"+filepath.Base(dir))
		if os.Rename(dir, to) != nil {
			continue
		}
		if _, err := setAside(to, "corrupt", m.log, err); err == nil {
			m.count.setAside.Add(1)
			moved = true
		}
	}
	return moved
}

func (m *metrics) asideHeadChunks(cause error) bool {
	return m.asideInto("corrupt", cause, "chunks_head")
}

func (m *metrics) asideHead(cause error) bool {
	return m.asideInto("corrupt", cause, headFiles...)
}

func (m *metrics) asideAll(cause error) bool {
	if _, err := setAside(m.dir, "corrupt", m.log, cause); err != nil {
		return false
	}
	m.count.setAside.Add(1)
	return true
}

// asideInto moves parts of the history into one new directory beside it.
func (m *metrics) asideInto(why string, cause error, names ...string) (moved bool) {
	tmp := m.dir + "-part"
	if err := os.Mkdir(tmp, 0o750); err != nil && !errors.Is(err, fs.ErrExist) {
		return false
	}
	for _, name := range names {
		moved = os.Rename(filepath.Join(m.dir, name), filepath.Join(tmp, name)) == nil || moved
	}
	if !moved {
		return false
	}
	if _, err := setAside(tmp, why, m.log, cause); err != nil {
		return false
	}
	m.count.setAside.Add(1)
	return true
}

func (m *metrics) blockDirs() []string {
	es, _ := os.ReadDir(m.dir)
	var dirs []string
	for _, e := range es {
		if _, err := ulid.ParseStrict(e.Name()); err == nil {
			dirs = append(dirs, filepath.Join(m.dir, e.Name()))
		}
	}
	return dirs
}

// leaveAhead gets the history out of a future that the clock has left again: it
// sets aside the head and all blocks that end after now. Until then nothing
// could be added, and that might have been for years.
func (m *metrics) leaveAhead(now time.Time) error {
	h := m.takeDB()
	if h == nil {
		return errReopening
	}
	var ahead []string
	for _, b := range h.BlockMetas() {
		if b.MaxTime > now.UnixMilli() {
			ahead = append(ahead, b.ULID.String())
		}
	}
	if err := closeDB(h); err != nil {
		m.log.Warn("close metric history", "err", err)
	}
	m.asideInto("ahead", fmt.Errorf("the clock stepped back by more than %v", LateWindow), append(ahead, headFiles...)...)
	return m.open()
}

// fail notes a write error and closes the TSDB until a later append.
func (m *metrics) fail(err error) error {
	m.setErr(err)
	m.retryAt = time.Now().Add(reopenAfter)
	if h := m.takeDB(); h != nil {
		m.log.Error("metric history is closed after a write error; it is opened again when it can be", "err", err)
		if err := closeDB(h); err != nil {
			m.log.Debug("close metric history", "err", err)
		}
	}
	return err
}

// recover opens a TSDB that fail has closed.
func (m *metrics) recover() error {
	if time.Now().Before(m.retryAt) {
		return m.lastErr()
	}
	if err := m.open(); err != nil {
		m.retryAt = time.Now().Add(reopenAfter)
		err = fmt.Errorf("reopen metric history: %w", err)
		m.setErr(err)
		return err
	}
	m.log.Info("metric history is open again")
	return nil
}

// pause stops compaction while there is no space for it.
func (m *metrics) pause(h *handle, on bool) {
	if m.paused == on {
		return
	}
	m.paused = on
	if on {
		h.DisableCompactions()
	} else {
		h.EnableCompactions()
	}
}

// closeDB closes h once no query uses it. An I/O error makes the TSDB panic
// here as in any other place where it writes chunks.
func closeDB(h *handle) (err error) {
	h.users.Wait()
	defer recoverIO(&err)
	return h.Close()
}

// recoverIO turns a panic of the TSDB about an I/O error into that error.
func recoverIO(err *error) {
	r := recover()
	if r == nil {
		return
	}
	e, ok := r.(error)
	if !ok || !environmental(e) {
		panic(r)
	}
	*err = fmt.Errorf("write metric history: %w", e)
}

func (m *metrics) querier(mint, maxt int64) (storage.Querier, error) {
	h := m.useDB()
	if h == nil {
		if err := m.lastErr(); err != nil {
			return nil, err
		}
		return nil, errReopening
	}
	q, err := h.Querier(mint, maxt)
	if err != nil {
		h.users.Done()
		return nil, err
	}
	return &heldQuerier{Querier: q, h: h}, nil
}

// heldQuerier keeps its TSDB open.
type heldQuerier struct {
	storage.Querier
	h    *handle
	once sync.Once
}

func (q *heldQuerier) Close() error {
	err := q.Querier.Close()
	q.once.Do(q.h.users.Done)
	return err
}

// useDB returns the TSDB, which stays open until users.Done, or nil.
func (m *metrics) useDB() *handle {
	m.state.Lock()
	defer m.state.Unlock()
	if m.state.db != nil {
		m.state.db.users.Add(1)
	}
	return m.state.db
}

func (m *metrics) setDB(h *handle) {
	m.state.Lock()
	defer m.state.Unlock()
	m.state.db, m.state.err = h, nil
}

// takeDB takes the TSDB away from later queries.
func (m *metrics) takeDB() *handle {
	m.state.Lock()
	defer m.state.Unlock()
	h := m.state.db
	m.state.db = nil
	return h
}

func (m *metrics) setErr(err error) {
	m.state.Lock()
	defer m.state.Unlock()
	m.state.err = err
}

func (m *metrics) lastErr() error {
	m.state.Lock()
	defer m.state.Unlock()
	return m.state.err
}

func (m *metrics) close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil
	}
	m.closed = true
	var err error
	if m.state.db != nil && m.space.check() == nil {
		err = m.endAll()
	}
	h := m.takeDB()
	m.setErr(ErrClosed)
	if h == nil {
		return err
	}
	if err := errors.Join(err, closeDB(h)); err != nil {
		return fmt.Errorf("close metric history: %w", err)
	}
	return nil
}

func (m *metrics) status(st *signal.StoreStatus) error {
	st.MetricBytes = dirSize(m.dir)
	h := m.useDB()
	if h == nil {
		return m.lastErr()
	}
	defer h.users.Done()
	st.MetricSeries = h.Head().NumSeries()
	if ms, err := h.StartTime(); err == nil && ms < time.Now().Add(100*365*24*time.Hour).UnixMilli() {
		t := time.UnixMilli(ms).UTC()
		st.OldestMetric = &t
	}
	return m.lastErr()
}

func (m *metrics) stats(st *Stats) {
	c := &m.count
	st.Samples, st.Late, st.TooOld = c.samples.Load(), c.late.Load(), c.tooOld.Load()
	st.Duplicates, st.Refused, st.Stale = c.duplicates.Load(), c.refused.Load(), c.stale.Load()
	st.SetAside += c.setAside.Load()
}

// append is documented at Store.AppendSamples.
func (m *metrics) append(ctx context.Context, t time.Time, samples []signal.Sample) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	h := m.useDB()
	noRoom := m.space.check()
	if h != nil {
		h.users.Done() // m.mu keeps it open
		m.pause(h, noRoom != nil)
	}
	if noRoom != nil {
		if m.lastErr() == nil {
			m.log.Warn("metric history takes nothing for now", "err", noRoom)
		}
		m.setErr(noRoom)
		return fmt.Errorf("append samples: %w", noRoom)
	}
	if h == nil {
		if err := m.recover(); err != nil {
			return err
		}
		h = m.state.db
	}
	if err := m.write(ctx, h, t.UnixMilli(), samples); err != nil {
		return m.fail(fmt.Errorf("append samples: %w", err))
	}
	if m.lastErr() != nil {
		m.log.Info("metric history takes samples again")
		m.setErr(nil)
	}
	m.dirty.Store(true)
	if !m.refused.IsZero() && time.Since(m.refused) >= m.patience {
		m.refused = time.Time{}
		if err := m.leaveAhead(t); err != nil {
			return m.fail(fmt.Errorf("append samples: %w", err))
		}
		return m.write(ctx, m.state.db, t.UnixMilli(), samples)
	}
	return nil
}
