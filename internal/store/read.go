package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"

	"huatuo/internal/signal"
)

// defaultPage is the size of a page when the filter has no limit.
const defaultPage = 100

// where is the condition of a query, with its arguments.
type where struct {
	terms []string
	args  []any
}

func (w *where) and(term string, args ...any) {
	w.terms = append(w.terms, term)
	w.args = append(w.args, args...)
}

func (w *where) sql() string {
	if len(w.terms) == 0 {
		return "1"
	}
	return strings.Join(w.terms, " AND ")
}

// condition returns what f asks for, save Kinds and Limit.
func (e *events) condition(f *signal.EventFilter) *where {
	w := &where{}
	if !f.From.IsZero() {
		w.and("time >= ?", nanos(f.From))
	}
	if !f.To.IsZero() {
		w.and("time < ?", nanos(f.To))
	}
	if f.Before != "" {
		w.and("id < ?", f.Before)
	}
	if f.After != "" {
		w.and("id > ?", f.After)
	}
	if len(f.Severities) > 0 {
		w.and("severity IN (?"+strings.Repeat(", ?", len(f.Severities)-1)+")", anys(f.Severities)...)
	}
	for _, c := range []struct{ column, value string }{
		{"namespace", f.Namespace}, {"pod", f.Pod}, {"unit", f.Unit}, {"comm", f.Comm},
	} {
		if c.value != "" {
			w.and(c.column+" = ?", c.value)
		}
	}
	if c := f.Container; len(c) >= 4 {
		w.and("(container = ? OR container_id >= ? AND container_id < ?)", c, c, c+"\U0010FFFF")
	} else if c != "" { // "db" is a name rather than two digits of an id
		w.and("container = ?", c)
	}
	if f.PID != 0 {
		w.and("pid = ?", f.PID)
	}
	if q := match(f.Text); q != "" {
		w.and("n IN (SELECT rowid FROM text WHERE text MATCH ?)", q)
	}
	whereTerms(w, f.Where)
	return w
}

// idRange adds to w the range of ids that a time range can have, so that a
// page in the past is found without reading all that came later.
func (e *events) idRange(w *where, f *signal.EventFilter, skew int64) {
	bound := func(t time.Time, by int64) (string, bool) {
		ms := t.UnixMilli()
		if skew == math.MaxInt64 || ms+by < 0 || uint64(ms+by) > ulid.MaxTime() {
			return "", false
		}
		var id ulid.ULID
		_ = id.SetTime(uint64(ms + by)) // in range
		return id.String(), true
	}
	if id, ok := bound(f.From, -skew); ok && !f.From.IsZero() {
		w.and("id >= ?", id)
	}
	if id, ok := bound(f.To, skew+1); ok && !f.To.IsZero() {
		w.and("id < ?", id)
	}
}

// nanos is t.UnixNano within the years that it can tell.
func nanos(t time.Time) int64 {
	switch {
	case t.Unix() > math.MaxInt64/int64(time.Second)-1:
		return math.MaxInt64
	case t.Unix() < 0:
		return 0
	}
	return t.UnixNano()
}

func anys[T ~string](ss []T) []any {
	as := make([]any, len(ss))
	for i, s := range ss {
		as[i] = string(s)
	}
	return as
}

// page is documented at Store.Events.
func (e *events) page(ctx context.Context, f signal.EventFilter) (signal.EventPage, error) {
	limit := f.Limit
	if limit <= 0 {
		limit = defaultPage
	}
	page := signal.EventPage{Events: []*signal.Document{}}
	err := e.read(func(db *sql.DB, skew int64) error {
		w := e.condition(&f)
		e.idRange(w, &f, skew)
		q, args := pageSQL(w, f.Kinds, limit+1, f.Oldest) // one more tells whether there is a next page
		return scanDocs(ctx, db, q, args, &page.Events)
	})
	if err != nil {
		return signal.EventPage{}, fmt.Errorf("read events: %w", err)
	}
	if len(page.Events) > limit {
		page.Events = page.Events[:limit]
		page.Next = page.Events[limit-1].ID
	}
	return page, nil
}

// pageSQL selects the newest limit bodies, or the oldest. Each kind is a query of its own,
// which reads the index of kinds in order and stops at the limit; with IN,
// SQLite would sort all events of those kinds.
func pageSQL(w *where, kinds []string, limit int, oldest bool) (string, []any) {
	order := "DESC"
	if oldest {
		order = "ASC"
	}
	var args []any
	var parts []string
	part := func(cond string) {
		parts = append(parts, "SELECT * FROM (SELECT n, id FROM event WHERE "+cond+" ORDER BY id "+order+" LIMIT "+strconv.Itoa(limit)+")")
		args = append(args, w.args...)
	}
	for _, k := range slices.Compact(slices.Sorted(slices.Values(kinds))) {
		args = append(args, k)
		part("kind = ? AND " + w.sql())
	}
	if len(kinds) == 0 {
		part(w.sql())
	}
	return "SELECT doc.body FROM (" + strings.Join(parts, " UNION ALL ") +
		") AS e JOIN doc ON doc.n = e.n ORDER BY e.id " + order + " LIMIT " + strconv.Itoa(limit), args
}

func scanDocs(ctx context.Context, db *sql.DB, q string, args []any, to *[]*signal.Document) error {
	rows, err := db.QueryContext(ctx, q, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	var body sql.RawBytes
	for rows.Next() {
		if err := rows.Scan(&body); err != nil {
			return err
		}
		d := new(signal.Document)
		if err := json.Unmarshal(body, d); err != nil {
			return err
		}
		*to = append(*to, d)
	}
	return rows.Err()
}

// read runs f with a database that stays open meanwhile.
func (e *events) read(f func(db *sql.DB, skew int64) error) error {
	e.rmu.RLock()
	defer e.rmu.RUnlock()
	if e.closed {
		return ErrClosed
	}
	err := f(e.r, e.skew.Load())
	if corrupt(err) {
		e.suspect.Store(&err)
	}
	return err
}

func (e *events) get(ctx context.Context, id string) (*signal.Document, error) {
	var docs []*signal.Document
	err := e.read(func(db *sql.DB, _ int64) error {
		return scanDocs(ctx, db, "SELECT doc.body FROM event JOIN doc USING (n) WHERE id = ?", []any{id}, &docs)
	})
	if err != nil {
		return nil, fmt.Errorf("read event %s: %w", id, err)
	}
	if len(docs) == 0 {
		return nil, ErrNotFound
	}
	return docs[0], nil
}

func (e *events) newestID(ctx context.Context) (id string) {
	err := e.read(func(db *sql.DB, _ int64) error {
		return db.QueryRowContext(ctx, "SELECT coalesce(max(id), '') FROM event").Scan(&id)
	})
	if err != nil {
		e.log.Debug("cannot find the newest event", "err", err)
	}
	return id
}

// timeline is documented at Store.Timeline.
func (e *events) timeline(ctx context.Context, f signal.EventFilter, n int) ([]signal.EventBucket, error) {
	if n < 1 {
		n = 1
	}
	var buckets []signal.EventBucket
	err := e.read(func(db *sql.DB, skew int64) error {
		if err := fillRange(ctx, db, &f); err != nil {
			return err
		}
		from, step := nanos(f.From), stepOf(&f, n)
		for i := range n {
			buckets = append(buckets, signal.EventBucket{
				Time: time.Unix(0, from+int64(i)*step).UTC(), Count: map[string]int{},
			})
		}
		w := e.condition(&f)
		kindTerm(w, f.Kinds)
		args := append([]any{from, step}, w.args...)
		rows, err := db.QueryContext(ctx, "SELECT (time - ?) / ? AS i, kind, count(*) FROM event WHERE "+w.sql()+" GROUP BY i, kind", args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var i, count int
			var kind string
			if err := rows.Scan(&i, &kind, &count); err != nil {
				return err
			}
			buckets[i].Count[kind] = count
		}
		return rows.Err()
	})
	if err != nil {
		return nil, fmt.Errorf("count events: %w", err)
	}
	return buckets, nil
}

// fillRange gives f both ends.
func fillRange(ctx context.Context, db *sql.DB, f *signal.EventFilter) error {
	if f.To.IsZero() {
		f.To = time.Now()
	}
	if f.From.IsZero() {
		var ns sql.NullInt64
		if err := db.QueryRowContext(ctx, "SELECT min(time) FROM event").Scan(&ns); err != nil {
			return err
		}
		f.From = time.Unix(0, ns.Int64)
		if !ns.Valid {
			f.From = f.To.Add(-time.Hour)
		}
	}
	if !f.From.Before(f.To) { // from the future on, say: nothing, not an error
		f.To = f.From.Add(time.Hour)
	}
	return nil
}
