package store

import (
	"context"
	"database/sql"
	"fmt"
	"strconv"
	"strings"
	"time"

	"huatuo/internal/signal"
)

// maxGroups bounds the groups of a count that asks for no number.
const maxGroups = 10_000

// count is documented at Store.CountEvents.
func (e *events) count(ctx context.Context, f signal.EventFilter, g signal.EventGrouping) ([]signal.EventCount, error) {
	if g.Limit <= 0 {
		g.Limit = maxGroups
	}
	list := []signal.EventCount{}
	err := e.read(func(db *sql.DB, _ int64) error {
		if err := fillRange(ctx, db, &f); err != nil {
			return err
		}
		w := e.condition(&f)
		kindTerm(w, f.Kinds)
		from, step := nanos(f.From), stepOf(&f, max(1, g.Buckets))
		columns, by := grouped(g)
		q := "SELECT " + strings.Join(columns, ", ") + ", count(*) AS c FROM event WHERE " + w.sql() + by +
			" ORDER BY c DESC, 1, 2, 3, 4, 5, 6, 7 LIMIT " + strconv.Itoa(g.Limit)
		var args []any
		if g.Buckets > 0 {
			args = append(args, from, step)
		}
		rows, err := db.QueryContext(ctx, q, append(args, w.args...)...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var i int64
			var c signal.EventCount
			if err := rows.Scan(&i, &c.Kind, &c.Severity, &c.Namespace, &c.Pod, &c.Container, &c.Unit, &c.Count); err != nil {
				return err
			}
			if g.Buckets > 0 {
				t := time.Unix(0, from+i*step).UTC()
				c.Time = &t
			}
			list = append(list, c)
		}
		return rows.Err()
	})
	if err != nil {
		return nil, fmt.Errorf("count events: %w", err)
	}
	return list, nil
}

// grouped lists the seven columns that events are grouped by, of which those
// that were not asked for are constants, and the clause that groups by the others.
func grouped(g signal.EventGrouping) (columns []string, by string) {
	var used []string
	for i, c := range []struct {
		on           bool
		column, none string
	}{
		{g.Buckets > 0, "(time - ?) / ?", "0"}, {g.Kind, "kind", "''"}, {g.Severity, "severity", "''"},
		{g.Workload, "namespace", "''"}, {g.Workload, "pod", "''"}, {g.Workload, "container", "''"},
		// The labels of metrics have a unit only where there is no container.
		{g.Workload, "CASE container WHEN '' THEN unit ELSE '' END", "''"},
	} {
		if !c.on {
			columns = append(columns, c.none)
			continue
		}
		columns = append(columns, c.column)
		used = append(used, strconv.Itoa(i+1))
	}
	if len(used) > 0 {
		by = " GROUP BY " + strings.Join(used, ", ")
	}
	return columns, by
}

// stepOf is the length of one of n intervals of f's range.
func stepOf(f *signal.EventFilter, n int) int64 {
	return max(1, (nanos(f.To)-nanos(f.From)-1)/int64(n)+1)
}

func kindTerm(w *where, kinds []string) {
	if len(kinds) > 0 {
		w.and("kind IN (?"+strings.Repeat(", ?", len(kinds)-1)+")", anys(kinds)...)
	}
}

// recent is how many of the newest events are looked at for the values that a
// member has: 2000 documents are read in some 30 ms.
const recent = 2000

// values is documented at Store.EventValues.
func (e *events) values(ctx context.Context, f signal.EventFilter, path, part string, limit int) ([]signal.ValueCount, error) {
	list := []signal.ValueCount{}
	err := e.read(func(db *sql.DB, skew int64) error {
		w := e.condition(&f)
		kindTerm(w, f.Kinds)
		e.idRange(w, &f, skew)
		newest := "(SELECT * FROM event WHERE " + w.sql() + " ORDER BY id DESC LIMIT " + strconv.Itoa(recent) + ")"
		q, args := "", append([]any{}, w.args...)
		if column, ok := columnOf(path); ok {
			q = "SELECT CAST(" + column + " AS TEXT) AS v FROM " + newest
		} else {
			c := &signal.Condition{Path: path, Op: signal.Equal}
			if err := c.Check(); err != nil {
				return err
			}
			from, fromArgs := leafTables(c)
			q = "SELECT CASE j.type WHEN 'true' THEN 'true' WHEN 'false' THEN 'false' ELSE CAST(j.atom AS TEXT) END AS v FROM " + newest +
				" AS event JOIN doc USING (n), " + from
			args = append(args, fromArgs...)
		}
		q = "SELECT v, count(*) AS c FROM (" + q + ") WHERE v <> '' AND instr(lower(v), lower(?)) > 0 GROUP BY v ORDER BY c DESC, v LIMIT ?"
		rows, err := db.QueryContext(ctx, q, append(args, part, limit)...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var v signal.ValueCount
			if err := rows.Scan(&v.Value, &v.Count); err != nil {
				return err
			}
			list = append(list, v)
		}
		return rows.Err()
	})
	if err != nil {
		return nil, fmt.Errorf("list values of events: %w", err)
	}
	return list, nil
}

// columnOf names the column that holds a member which is not read from the document.
func columnOf(path string) (string, bool) {
	switch path {
	case "kind", "severity", "namespace", "pod", "container", "unit", "comm", "pid":
		return path, true
	}
	return "", false
}
