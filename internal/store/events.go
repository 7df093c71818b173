package store

import (
	"context"
	"database/sql"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oklog/ulid/v2"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"huatuo/internal/signal"
)

//go:embed schema.sql
var schemaSQL string

// schemaVersion is the user_version of the database. A database of another
// version is set aside: events are a cache of what happened, not a record that
// needs migration.
const schemaVersion = 1

// readers is how many queries run at once. Each has its own connection with
// its own page cache.
const readers = 3

// events is the event database: one connection that writes and some that read,
// which in WAL mode do not wait for each other.
type events struct {
	path   string
	opened time.Time
	opts   Options
	space  *space
	log    *slog.Logger
	dirty  atomic.Bool

	mu     sync.Mutex // writing, reopening
	w      *sql.DB
	insert *inserter
	closed bool
	skew   atomic.Int64 // ms: no id's time is further than this from its event's
	// suspect is set by a reader that met corruption: the next append acts on it.
	suspect atomic.Pointer[error]

	rmu sync.RWMutex // held shared while reading; r changes under it
	r   *sql.DB

	state struct {
		sync.Mutex
		err error
	}
	kept, added, repeated, erased, setAside atomic.Uint64
}

func openEvents(dir string, o Options, sp *space, log *slog.Logger) (*events, error) {
	e := &events{path: filepath.Join(dir, "events.db"), opened: time.Now(), opts: o, space: sp, log: log}
	err := e.openOrBegin()
	if noRoom(err) { // appends will try again
		log.Error("event database stays closed", "err", err)
		e.setErr(err)
		return e, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open event database: %w", err)
	}
	return e, nil
}

// openOrBegin opens the database, and a new one when it cannot be read.
func (e *events) openOrBegin() error {
	err := e.open()
	if err == nil || !corrupt(err) {
		return err
	}
	if err := e.aside(err); err != nil {
		return err
	}
	return e.open()
}

// aside moves the database out of the way. It must be closed.
func (e *events) aside(cause error) error {
	to, err := setAside(e.path, "corrupt", e.log, cause)
	if err != nil {
		return err
	}
	e.setAside.Add(1)
	for _, ext := range []string{"-wal", "-shm"} {
		_ = os.Rename(e.path+ext, to+ext) // one that stayed would be applied to the new database
		if err := os.RemoveAll(e.path + ext); err != nil {
			return err
		}
	}
	return nil
}

func (e *events) open() error {
	w, err := sql.Open("sqlite", e.dsn("cache_size(-2048)", "journal_size_limit(8388608)", "wal_autocheckpoint(1000)"))
	if err != nil {
		return err
	}
	w.SetMaxOpenConns(1)
	r, err := sql.Open("sqlite", e.dsn("cache_size(-1024)", "query_only(1)"))
	if err != nil {
		return errors.Join(err, w.Close())
	}
	r.SetMaxOpenConns(readers)
	r.SetConnMaxIdleTime(time.Minute) // give their memory back
	e.w, e.r = w, r
	if err := e.begin(); err != nil {
		var se *sqlite.Error
		if errors.As(err, &se) && se.Code() == sqlite3.SQLITE_ERROR { // "no such table", "no such column"
			err = fmt.Errorf("%w: %w", errLayout, err)
		}
		return errors.Join(err, e.shut())
	}
	return nil
}

func (e *events) dsn(pragmas ...string) string {
	q := url.Values{"_txlock": {"immediate"}}
	q["_pragma"] = append([]string{
		"busy_timeout(5000)", "auto_vacuum(2)", "journal_mode(WAL)", "synchronous(NORMAL)", "temp_store(2)", "trusted_schema(0)",
	}, pragmas...)
	return (&url.URL{Scheme: "file", Path: e.path, RawQuery: q.Encode()}).String()
}

// begin makes the tables of a new database and reads what an old one holds.
func (e *events) begin() error {
	var version, tables int
	if err := e.w.QueryRow("PRAGMA user_version").Scan(&version); err != nil {
		return err
	}
	if err := e.w.QueryRow("SELECT count(*) FROM sqlite_schema").Scan(&tables); err != nil {
		return err
	}
	if version != schemaVersion && (version != 0 || tables != 0) {
		return fmt.Errorf("%w: layout %d, this program knows %d", errLayout, version, schemaVersion)
	}
	if tables == 0 {
		if _, err := e.w.Exec(fmt.Sprintf("BEGIN;\n%s;\nPRAGMA user_version = %d;\nCOMMIT", schemaSQL, schemaVersion)); err != nil {
			return err
		}
	}
	// Both also read the first pages of each tree, so that a torn file is
	// found now and not at the first append.
	var kept uint64
	if err := e.w.QueryRow("SELECT count(*), (SELECT coalesce(max(n), 0) FROM doc) * 0 FROM event").Scan(&kept, new(int)); err != nil {
		return err
	}
	e.kept.Store(kept)
	var skew int64
	if err := e.w.QueryRow("SELECT value FROM meta WHERE key = 'skew'").Scan(&skew); err != nil {
		return err
	}
	e.skew.Store(skew)
	var err error
	e.insert, err = newInserter(e.w)
	return err
}

// shut closes both pools.
func (e *events) shut() error {
	err := errors.Join(e.r.Close(), e.w.Close())
	e.insert = nil
	return err
}

var errLayout = errors.New("event database has another layout")

// corrupt tells whether err says that the file is no usable database.
func corrupt(err error) bool {
	var se *sqlite.Error
	if errors.As(err, &se) {
		switch se.Code() & 0xff {
		case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT:
			return true
		}
	}
	return errors.Is(err, errLayout)
}

// noRoom tells whether err is about space, or what SQLite makes of it when its
// shared memory file cannot grow.
func noRoom(err error) bool {
	var se *sqlite.Error
	if errors.As(err, &se) {
		c := se.Code() & 0xff
		return c == sqlite3.SQLITE_FULL || c == sqlite3.SQLITE_IOERR
	}
	return full(err)
}

func (e *events) close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.rmu.Lock()
	defer e.rmu.Unlock()
	if e.closed {
		return nil
	}
	e.closed = true
	e.setErr(ErrClosed)
	if err := e.shut(); err != nil {
		return fmt.Errorf("close event database: %w", err)
	}
	return nil
}

func (e *events) setErr(err error) {
	e.state.Lock()
	defer e.state.Unlock()
	e.state.err = err
}

// append is documented at Store.AppendEvents. Events that cannot be encoded
// are named in the error; the others of the batch are kept.
func (e *events) append(ctx context.Context, docs []*signal.Document) error {
	if len(docs) == 0 {
		return nil
	}
	rows := make([]row, 0, len(docs))
	var bad []error
	for _, d := range docs {
		r, err := newRow(d)
		if err != nil {
			bad = append(bad, err)
			continue
		}
		rows = append(rows, r)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return ErrClosed
	}
	err := e.space.check()
	if err == nil {
		err = e.write(ctx, rows)
	}
	if p := e.suspect.Swap(nil); p != nil && err == nil {
		err = *p
	}
	if corrupt(err) {
		if err = e.beginAnew(err); err == nil {
			err = e.write(ctx, rows)
		}
	}
	if err != nil {
		err = fmt.Errorf("append events: %w", err)
	}
	if ctx.Err() == nil {
		e.setErr(err)
	}
	return errors.Join(append(bad, err)...)
}

// beginAnew replaces a database that turned out to be corrupt while in use.
func (e *events) beginAnew(cause error) error {
	e.rmu.Lock()
	defer e.rmu.Unlock()
	if err := e.shut(); err != nil {
		e.log.Debug("close event database", "err", err)
	}
	if err := e.aside(cause); err != nil {
		return err
	}
	return e.open()
}

// write adds rows in one transaction.
func (e *events) write(ctx context.Context, rows []row) (err error) {
	if e.insert == nil {
		if err := e.reopen(); err != nil {
			return err
		}
	}
	tx, err := e.w.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = tx.Rollback()
		}
	}()
	skew := e.skew.Load()
	var added, repeated uint64
	for i := range rows {
		isNew, err := e.insert.row(ctx, tx, &rows[i])
		switch {
		case err != nil:
			return err
		case isNew:
			added++
			skew = max(skew, rows[i].skew)
		default:
			repeated++
		}
	}
	if skew != e.skew.Load() {
		if _, err := tx.ExecContext(ctx, "UPDATE meta SET value = ? WHERE key = 'skew'", skew); err != nil {
			return err
		}
	}
	e.skew.Store(skew) // before a reader can see what it is about
	if err := tx.Commit(); err != nil {
		return err
	}
	e.dirty.Store(true)
	e.kept.Add(added)
	e.added.Add(added)
	e.repeated.Add(repeated)
	return nil
}

// reopen opens the database again after beginAnew could not, for want of
// space say.
func (e *events) reopen() error {
	e.rmu.Lock()
	defer e.rmu.Unlock()
	return e.openOrBegin()
}

// inserter holds the prepared statements of an append.
type inserter struct{ event, doc, text *sql.Stmt }

func newInserter(db *sql.DB) (*inserter, error) {
	var in inserter
	var err error
	for _, p := range []struct {
		to  **sql.Stmt
		sql string
	}{
		{&in.event, `INSERT INTO event (id, time, kind, severity, namespace, pod, container, container_id, unit, comm, pid)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING`},
		{&in.doc, "INSERT INTO doc (n, body) VALUES (?, ?)"},
		{&in.text, "INSERT INTO text (rowid, words) VALUES (?, ?)"},
	} {
		if *p.to, err = db.Prepare(p.sql); err != nil {
			return nil, err
		}
	}
	return &in, nil
}

// row adds r and tells whether it was not there already.
func (in *inserter) row(ctx context.Context, tx *sql.Tx, r *row) (bool, error) {
	res, err := tx.StmtContext(ctx, in.event).ExecContext(ctx, r.id, r.time, r.kind, r.severity,
		r.namespace, r.pod, r.container, r.containerID, r.unit, r.comm, r.pid)
	if err != nil {
		return false, err
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return false, err
	}
	n, err := res.LastInsertId()
	if err != nil {
		return false, err
	}
	if _, err := tx.StmtContext(ctx, in.doc).ExecContext(ctx, n, r.body); err != nil {
		return false, err
	}
	_, err = tx.StmtContext(ctx, in.text).ExecContext(ctx, n, r.words)
	return err == nil, err
}

// row is an event as the tables hold it.
type row struct {
	id, kind, severity, namespace, pod, container, containerID, unit, comm string
	pid                                                                    uint32
	time                                                                   int64
	skew                                                                   int64
	body, words                                                            string
}

func newRow(d *signal.Document) (row, error) {
	if d.ID == "" {
		return row{}, fmt.Errorf("keep event of kind %s: it has no id", d.Kind)
	}
	body, err := json.Marshal(d)
	if err != nil {
		return row{}, fmt.Errorf("keep event %s: %w", d.ID, err)
	}
	r := row{
		id: d.ID, kind: d.Kind, severity: string(d.Severity), time: d.Time.UnixNano(),
		skew: skewOf(d), body: string(body), words: words(d),
	}
	if c := d.Container; c != nil {
		r.namespace, r.pod, r.container, r.containerID, r.unit = c.Namespace, c.Pod, c.Name, c.ID, c.Unit
	}
	if p := d.Process; p != nil {
		r.comm, r.pid = p.Comm, p.PID
	}
	return r, nil
}

// skewOf returns how far apart, in ms, the id and the time of d are: the bound
// that lets a time range be searched by id. It grows in powers of two, to be
// written seldom.
func skewOf(d *signal.Document) int64 {
	id, err := ulid.ParseStrict(d.ID)
	if err != nil {
		return math.MaxInt64
	}
	diff := d.Time.UnixMilli() - int64(id.Time())
	if diff < 0 {
		diff = -diff
	}
	s := int64(1024)
	for s <= diff {
		s *= 2
	}
	return s
}

func (e *events) status(st *signal.StoreStatus) error {
	st.EventBytes = e.bytes()
	st.Events = int64(e.kept.Load())
	e.rmu.RLock()
	defer e.rmu.RUnlock()
	e.state.Lock()
	err := e.state.err
	e.state.Unlock()
	if e.closed || err != nil {
		return err
	}
	var ns sql.NullInt64
	if err := e.r.QueryRow("SELECT min(time) FROM event").Scan(&ns); err != nil {
		return fmt.Errorf("read event database: %w", err)
	}
	if ns.Valid {
		t := time.Unix(0, ns.Int64).UTC()
		st.OldestEvent = &t
	}
	return nil
}

// bytes returns the size of the database's files.
func (e *events) bytes() int64 {
	return fileSize(e.path) + fileSize(e.path+"-wal") + fileSize(e.path+"-shm")
}

func (e *events) stats(st *Stats) {
	st.Events, st.Repeated, st.EventsErased = e.added.Load(), e.repeated.Load(), e.erased.Load()
	st.SetAside += e.setAside.Load()
}
