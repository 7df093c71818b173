package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"

	"huatuo/internal/signal"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv("STORE_TEST_CHILD"); dir != "" {
		childAppends(dir)
		return
	}
	os.Exit(m.Run())
}

var discard = slog.New(slog.DiscardHandler)

// logged is a logger whose output the test can look at.
func logged(t *testing.T) (*slog.Logger, *strings.Builder) {
	t.Helper()
	var b strings.Builder
	return slog.New(slog.NewTextHandler(&syncWriter{b: &b}, nil)), &b
}

func open(t testing.TB, dir string, o Options) *Store {
	t.Helper()
	s, err := Open(dir, o, discard)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

// doc returns an event of that kind at t whose id sorts after those made
// before it with the same time.
func doc(kind string, t time.Time, seq int, edit ...func(*signal.Document)) *signal.Document {
	id := ulid.ULID{}
	_ = id.SetTime(uint64(t.UnixMilli()))
	_ = id.SetEntropy([]byte(fmt.Sprintf("%010d", seq)))
	d := &signal.Document{
		ID: id.String(), Time: t.UTC(), Kind: kind, Severity: signal.Warning,
		Title:  fmt.Sprintf("event %d of kind %s", seq, kind),
		Fields: json.RawMessage(fmt.Sprintf(`{"seq":%d,"device":"sda","ok":true}`, seq)),
	}
	for _, f := range edit {
		f(d)
	}
	return d
}

func appendDocs(t testing.TB, s *Store, docs ...*signal.Document) {
	t.Helper()
	if err := s.AppendEvents(context.Background(), docs); err != nil {
		t.Fatal(err)
	}
}

func titles(p signal.EventPage) []string {
	var ts []string
	for _, d := range p.Events {
		ts = append(ts, d.Title)
	}
	return ts
}

func sqlOpen(e *events) (*sql.DB, error) { return sql.Open("sqlite", e.dsn()) }
