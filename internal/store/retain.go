package store

import (
	"context"
	"database/sql"
	"fmt"
	"time"
)

const (
	// eraseBatch events go in one transaction: some 20 ms, for which an append waits.
	eraseBatch = 500
	// erasePasses bounds one run of retain: 10 000 events every 30 s is far
	// more than a node's probes are let to make.
	erasePasses = 20
)

// retain erases events that are too old or too many, oldest first, and gives
// the space back.
func (e *events) retain(ctx context.Context) {
	erased := uint64(0)
	for range erasePasses {
		n, err := e.erase(ctx, e.now())
		erased += uint64(n)
		if err != nil {
			e.log.Debug("cannot erase old events", "err", err)
			break
		}
		if n < eraseBatch {
			break
		}
	}
	if erased > 0 {
		e.log.Debug("erased old events", "events", erased)
	}
}

// now is the time by which events are too old. A clock that jumps ahead while
// the store is open does not count: it would have everything erased.
func (e *events) now() time.Time {
	now, steady := time.Now(), e.opened.Add(time.Since(e.opened))
	if steady.Before(now) {
		return steady
	}
	return now
}

// erase erases one batch and returns how many events that were.
func (e *events) erase(ctx context.Context, now time.Time) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed || e.insert == nil {
		return 0, nil
	}
	before := now.Add(-e.opts.EventAge).UnixNano()
	used, err := e.usedBytes(ctx)
	if err != nil {
		return 0, err
	}
	if used > e.opts.EventBytes {
		before = 1<<63 - 1
	}
	n, err := e.eraseBefore(ctx, before)
	if err != nil || n == 0 {
		return 0, err
	}
	e.kept.Add(^uint64(n - 1))
	e.erased.Add(uint64(n))
	e.dirty.Store(true)
	// The index only marks what was erased, and frees it when its pieces are
	// merged; the pages go back to the file system after that.
	for _, q := range []string{
		"INSERT INTO text (text, rank) VALUES ('merge', 200)",
		"PRAGMA incremental_vacuum(2000)",
	} {
		if _, err := e.w.ExecContext(ctx, q); err != nil {
			return n, fmt.Errorf("free space: %w", err)
		}
	}
	return n, nil
}

// usedBytes returns what the database would measure without its free pages.
func (e *events) usedBytes(ctx context.Context) (int64, error) {
	var pages, free, size int64
	for _, p := range []struct {
		name string
		to   *int64
	}{{"page_count", &pages}, {"freelist_count", &free}, {"page_size", &size}} {
		if err := e.w.QueryRowContext(ctx, "PRAGMA "+p.name).Scan(p.to); err != nil {
			return 0, err
		}
	}
	return (pages - free) * size, nil
}

// eraseBefore erases the oldest events of before that time, a batch at most.
func (e *events) eraseBefore(ctx context.Context, before int64) (n int, err error) {
	tx, err := e.w.BeginTx(ctx, nil)
	if err != nil {
		return 0, err
	}
	defer func() {
		if err != nil {
			_ = tx.Rollback()
		}
	}()
	ns, err := oldest(ctx, tx, before)
	if err != nil {
		return 0, err
	}
	for _, q := range []string{"DELETE FROM text WHERE rowid = ?", "DELETE FROM doc WHERE n = ?", "DELETE FROM event WHERE n = ?"} {
		st, err := tx.PrepareContext(ctx, q)
		if err != nil {
			return 0, err
		}
		for _, n := range ns {
			if _, err := st.ExecContext(ctx, n); err != nil {
				return 0, err
			}
		}
	}
	return len(ns), tx.Commit()
}

// oldest returns the rows of the oldest events of before that time.
func oldest(ctx context.Context, tx *sql.Tx, before int64) ([]int64, error) {
	rows, err := tx.QueryContext(ctx, "SELECT n FROM event WHERE time < ? ORDER BY time LIMIT ?", before, eraseBatch)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var ns []int64
	for rows.Next() {
		var n int64
		if err := rows.Scan(&n); err != nil {
			return nil, err
		}
		ns = append(ns, n)
	}
	return ns, rows.Err()
}
