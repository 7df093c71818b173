package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/tsdb"
	"golang.org/x/sys/unix"

	"huatuo/internal/signal"
)

// filled makes a directory with events and with blocks and a head of metrics.
func filled(t *testing.T, dir string, t0 time.Time) {
	t.Helper()
	s := open(t, dir, Options{MinFree: -1})
	appendDocs(t, s, library(t0)...)
	for i := range 300 {
		round(t, s, t0.Add(time.Duration(i)*time.Minute), gaugeOf(1, "a"))
	}
	if err := s.metrics.state.db.Compact(context.Background()); err != nil {
		t.Fatal(err)
	}
	if n := len(s.metrics.state.db.Blocks()); n < 2 {
		t.Fatalf("%d blocks", n)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func scribble(t *testing.T, path string, at int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte(strings.Repeat("\xde\xad\xbe\xef", 1000)), at); err != nil {
		t.Fatal(err)
	}
}

func TestDamage(t *testing.T) {
	t0 := time.Now().Add(-6 * time.Hour).Truncate(time.Hour)
	firstBlock := func(dir string) string {
		for _, b := range (&metrics{dir: filepath.Join(dir, "metrics")}).blockDirs() {
			var meta tsdb.BlockMeta
			if j, err := os.ReadFile(filepath.Join(b, "meta.json")); err != nil || json.Unmarshal(j, &meta) != nil {
				t.Fatal(err)
			}
			if meta.MinTime == t0.UnixMilli() {
				return b
			}
		}
		t.Fatal("no block has the first sample")
		return ""
	}
	tests := []struct {
		name    string
		break_  func(t *testing.T, dir string)
		aside   uint64
		events  int
		old     bool // the oldest metrics are still there
		newest  bool // the newest are
		message string
	}{
		{"nothing", func(*testing.T, string) {}, 0, 5, true, true, ""},
		{"database header", func(t *testing.T, dir string) { scribble(t, filepath.Join(dir, "events.db"), 0) }, 1, 0, true, true, "events.db.corrupt-"},
		{"database is empty", func(t *testing.T, dir string) { truncate(t, filepath.Join(dir, "events.db"), 0) }, 0, 0, true, true, ""},
		{"database is cut", func(t *testing.T, dir string) { truncate(t, filepath.Join(dir, "events.db"), 5000) }, 1, 0, true, true, "events.db.corrupt-"},
		{"database of a stranger", func(t *testing.T, dir string) { stranger(t, filepath.Join(dir, "events.db")) }, 1, 0, true, true, "another layout"},
		{"garbage in the event log", func(t *testing.T, dir string) { write(t, filepath.Join(dir, "events.db-wal"), "garbage") }, 0, 5, true, true, ""},
		{"block index", func(t *testing.T, dir string) { scribble(t, filepath.Join(firstBlock(dir), "index"), 0) }, 1, 5, false, true, ".corrupt-"},
		{"block without meta", func(t *testing.T, dir string) { write(t, filepath.Join(firstBlock(dir), "meta.json"), "{") }, 1, 5, false, true, ".corrupt-"},
		{"metric log", func(t *testing.T, dir string) { scribble(t, filepath.Join(dir, "metrics", "wal", "00000000"), 0) }, 0, 5, true, false, "repair"},
		{"head chunks", func(t *testing.T, dir string) {
			for _, f := range glob(t, filepath.Join(dir, "metrics", "chunks_head", "*")) {
				write(t, f, "garbage")
			}
		}, 1, 5, true, true, "metrics-part.corrupt-"},
		{"log is a file", func(t *testing.T, dir string) {
			if err := os.RemoveAll(filepath.Join(dir, "metrics", "wal")); err != nil {
				t.Fatal(err)
			}
			write(t, filepath.Join(dir, "metrics", "wal"), "garbage")
		}, 2, 5, true, false, "corrupt-"},
		{"history is a file", func(t *testing.T, dir string) {
			if err := os.RemoveAll(filepath.Join(dir, "metrics")); err != nil {
				t.Fatal(err)
			}
			write(t, filepath.Join(dir, "metrics"), "garbage")
		}, 1, 5, false, false, "metrics.corrupt-"},
	}
	whole := t.TempDir()
	filled(t, whole, t0)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.CopyFS(dir, os.DirFS(whole)); err != nil {
				t.Fatal(err)
			}
			tt.break_(t, dir)
			log, out := logged(t)
			s, err := Open(dir, Options{MinFree: -1}, log)
			if err != nil {
				t.Fatalf("the agent cannot start: %v", err)
			}
			defer s.Close()
			want := tt.aside
			if tt.message == "repair" { // cut off rather than moved: counted all the same
				want++
			}
			if got := s.Stats().SetAside; got != want {
				t.Errorf("set aside %d, want %d: %s", got, want, out)
			}
			if got := len(asideNames(t, dir)); got != int(tt.aside) {
				t.Errorf("%d names: %v", got, asideNames(t, dir))
			}
			if !strings.Contains(out.String(), tt.message) {
				t.Errorf("log says nothing of %q: %s", tt.message, out)
			}
			if p, err := s.Events(context.Background(), signal.EventFilter{}); err != nil || len(p.Events) != tt.events {
				t.Errorf("%d events, %v", len(p.Events), err)
			}
			for at, want := range map[time.Time]bool{t0.Add(10 * time.Minute): tt.old, t0.Add(299 * time.Minute): tt.newest} {
				if got := len(query(t, s, "huatuo_test_value", at)) > 0; got != want {
					t.Errorf("history at %v: %v, want %v", at, got, want)
				}
			}
			// It works.
			appendDocs(t, s, doc("new", time.Now(), 99))
			round(t, s, time.Now(), gaugeOf(7, "b"))
			expect(t, s, `huatuo_test_value{device="b"}`, time.Now(), map[string]string{`{__name__="huatuo_test_value", device="b"}`: "7"})
			if st := s.Status(); st.Error != "" {
				t.Error(st.Error)
			}
		})
	}
}

func asideNames(t *testing.T, dir string) []string {
	var names []string
	for _, p := range append(glob(t, filepath.Join(dir, "*.corrupt-*")), glob(t, filepath.Join(dir, "*", "*.corrupt-*"))...) {
		if !strings.HasSuffix(p, "-wal") && !strings.HasSuffix(p, "-shm") {
			names = append(names, p)
		}
	}
	return names
}

func glob(t *testing.T, pattern string) []string {
	t.Helper()
	m, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func write(t *testing.T, path, s string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(s), 0o600); err != nil {
		t.Fatal(err)
	}
}

func truncate(t *testing.T, path string, n int64) {
	t.Helper()
	if err := os.Truncate(path, n); err != nil {
		t.Fatal(err)
	}
}

func stranger(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	e := &events{path: path}
	db, err := sqlOpen(e)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec("CREATE TABLE event (x); PRAGMA user_version = 77"); err != nil {
		t.Fatal(err)
	}
}

// A database that goes bad while it is in use is replaced by the next append
// that meets it.
func TestDamageInUse(t *testing.T) {
	dir := t.TempDir()
	log, out := logged(t)
	s, err := Open(dir, Options{}, log)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for i := range 30 {
		appendDocs(t, s, noisy(i, time.Now()))
	}
	// Overwriting the file under SQLite: what is in its log is checkpointed first.
	if _, err := s.events.w.Exec("PRAGMA wal_checkpoint(TRUNCATE)"); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("dd", "if=/dev/urandom", "of="+s.events.path, "bs=4096", "count=40", "seek=1", "conv=notrunc", "status=none")
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, b)
	}
	s.events.w.SetMaxIdleConns(0) // their caches know nothing of it
	s.events.r.SetMaxIdleConns(0)
	s.events.w.SetMaxIdleConns(1)
	s.events.r.SetMaxIdleConns(1)
	if _, err := s.Events(context.Background(), signal.EventFilter{}); err == nil {
		t.Fatal("reads what was overwritten")
	}
	d := doc("new", time.Now(), 1)
	appendDocs(t, s, d)
	if _, err := s.Event(context.Background(), d.ID); err != nil {
		t.Error(err)
	}
	if s.Stats().SetAside != 1 || !strings.Contains(out.String(), "set aside") || s.Status().Error != "" {
		t.Errorf("stats %+v, status %q, log %s", s.Stats(), s.Status().Error, out)
	}
}

func TestAsideIsPruned(t *testing.T) {
	dir := t.TempDir()
	names := []string{
		"events.db.corrupt-20200101T000000.000Z", "events.db.corrupt-20200101T000000.000Z-wal", "metrics.corrupt-20210101T000000.000Z",
		"metrics-head.ahead-20220101T000000.000Z", "metrics.corrupt-20230101T000000.000Z", "events.db.corrupt-x", "events.db.mine",
	}
	for _, n := range names {
		write(t, filepath.Join(dir, n), "")
	}
	open(t, dir, Options{})
	for i, n := range names {
		_, err := os.Lstat(filepath.Join(dir, n))
		if gone := errors.Is(err, fs.ErrNotExist); gone != (i < 2) {
			t.Errorf("%s: gone %v", n, gone)
		}
	}
}

func TestLock(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{})
	_, err := Open(dir, Options{}, discard)
	want := fmt.Sprintf("in use by process %d (store.test)", os.Getpid())
	if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "--data") {
		t.Fatalf("second store: %v, want %q", err, want)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, dir, Options{})
}

func TestUnusableDirectory(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	write(t, file, "")
	tests := []struct{ name, dir, want string }{
		{"a file", file, "choose a directory"},
		{"below a file", filepath.Join(file, "x"), "choose a directory"},
	}
	if os.Getuid() != 0 {
		ro := t.TempDir()
		if err := os.Chmod(ro, 0o500); err != nil {
			t.Fatal(err)
		}
		tests = append(tests, struct{ name, dir, want string }{"not ours", ro, "run as root"})
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Open(tt.dir, Options{}, discard)
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), tt.dir) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
	// Root may write anywhere, but not to a read-only file system.
	err := dirError("/d", &fs.PathError{Op: "open", Path: "/d/lock", Err: unix.EACCES})
	if !strings.Contains(err.Error(), "run as root") {
		t.Error(err)
	}
}

func TestClosed(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	for range 2 {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	_, e1 := s.Events(context.Background(), signal.EventFilter{})
	_, e2 := s.Querier(0, 1)
	for i, err := range []error{
		e1, e2, s.AppendSamples(context.Background(), time.Now(), nil),
		s.AppendEvents(context.Background(), []*signal.Document{doc("a", time.Now(), 1)}),
	} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("%d: %v", i, err)
		}
	}
	if st := s.Status(); !strings.Contains(st.Error, "closed") {
		t.Errorf("status %+v", st)
	}
}
