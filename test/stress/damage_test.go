package stress

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"

	"huatuo/internal/signal"
	"huatuo/internal/store"
)

// filled makes a store with 80 minutes of metrics, in the head's chunks and in
// the WAL, and 2000 events. atRest, it was closed in good order; else it is what
// a process leaves that is killed.
func filled(t *testing.T, atRest bool) (dir string) {
	t.Helper()
	dir = t.TempDir()
	s, err := store.Open(dir, store.Options{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	schema := &signal.Schema{Name: "huatuo_stress_value", Kind: signal.Metric, Type: signal.Gauge, Fields: []signal.Field{{Name: "n"}}}
	ctx := context.Background()
	now := time.Now()
	for at := now.Add(-80 * time.Minute); at.Before(now.Add(-time.Minute)); at = at.Add(5 * time.Second) {
		var round []signal.Sample
		for n := range 20 {
			round = append(round, signal.Sample{Schema: schema, Labels: []string{fmt.Sprint(n)}, Value: float64(at.Unix() % 1000)})
		}
		if err := s.AppendSamples(ctx, at, round); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 20 {
		var docs []*signal.Document
		for j := range 100 {
			at := now.Add(-time.Hour + time.Duration(100*i+j)*time.Second)
			docs = append(docs, &signal.Document{ID: ulid.MustNew(ulid.Timestamp(at), rand.Reader).String(), Time: at, Kind: "stress", Severity: signal.Info,
				Title: fmt.Sprintf("event %d of a long history", 100*i+j), Fields: []byte(`{}`)})
		}
		if err := s.AppendEvents(ctx, docs); err != nil {
			t.Fatal(err)
		}
	}
	left := t.TempDir()
	if err := os.CopyFS(left, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if atRest {
		return dir
	}
	return left
}

// scribble overwrites half of a file, from a quarter on, with noise.
func scribble(t *testing.T, paths ...string) {
	t.Helper()
	if len(paths) == 0 {
		t.Fatal("nothing to damage")
	}
	for _, path := range paths {
		st, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		noise := make([]byte, st.Size()/2)
		rand.Read(noise)
		if _, err := f.WriteAt(noise, st.Size()/4); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
}

func overwrite(t *testing.T, path string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(strings.Repeat("x", 9000)), 0o640); err != nil {
		t.Fatal(err)
	}
}

func files(t *testing.T, pattern ...string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(pattern...))
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// TestDamage breaks files of a store at rest: the agent must start as fast as
// ever, say what it did, keep what can be kept, and take what comes.
func TestDamage(t *testing.T) {
	needRoot(t)
	for _, c := range []struct {
		name    string
		atRest  bool
		damage  func(dir string)
		lost    bool    // something is moved out of the way or cut off: it must be told
		events  bool    // the events of before are still there
		samples float64 // that must still be there, of 18,960
	}{
		{"nothing", false, func(string) {}, false, true, 18000},
		{"wal", false, func(d string) { scribble(t, files(t, d, "metrics/wal/0*")...) }, true, true, 3000}, // those in chunks
		{"head chunks", false, func(d string) { scribble(t, files(t, d, "metrics/chunks_head/0*")...) }, false, true, 18000},
		{"wal and head chunks", false, func(d string) {
			scribble(t, append(files(t, d, "metrics/chunks_head/0*"), files(t, d, "metrics/wal/0*")...)...)
		}, true, true, 0},
		{"events.db", true, func(d string) { scribble(t, filepath.Join(d, "events.db")) }, true, false, 18000},
		{"events.db is no database", true, func(d string) { overwrite(t, filepath.Join(d, "events.db")) }, true, false, 18000},
		{"events.db-wal", false, func(d string) { scribble(t, filepath.Join(d, "events.db-wal")) }, false, false, 18000},
		{"a file in place of the wal", false, func(d string) {
			if err := os.RemoveAll(filepath.Join(d, "metrics/wal")); err != nil {
				t.Fatal(err)
			}
			overwrite(t, filepath.Join(d, "metrics/wal"))
		}, true, true, 0}, // what is not in a block yet
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := filled(t, c.atRest)
			c.damage(dir)
			slow := slowness()
			a := launch(t, dir, nil, quick...)
			took := a.ready(30 * time.Second)
			if limit := time.Duration(2 * slow * float64(time.Second)); took > limit {
				t.Errorf("ready after %v; the bound is %v on this machine now", took, limit)
			}
			drops(t, 200)
			a.keeps(20 * time.Second)
			st := a.system().Store
			n := len(a.events("")) // reads all of the old ones too
			samples, _ := a.query("sum(count_over_time(huatuo_stress_value[3h]))")
			names := aside(t, dir)
			t.Logf("ready after %v; set aside: %v; old samples: %v; events: %d", took.Round(time.Millisecond), names, samples, n)
			if st.Error != "" {
				t.Errorf("store status %+v", st)
			}
			total, _ := a.metric("huatuo_store_set_aside_total")
			if told := st.SetAside > 0 && total > 0 && (strings.Contains(a.log.String(), "set aside") || strings.Contains(a.log.String(), "is lost")); told != c.lost {
				t.Errorf("lost: %v, and told: %v; files %v, status %d, metric %v\n%s", c.lost, told, names, st.SetAside, total, a.log)
			}
			if c.events && n < 2000 {
				t.Errorf("%d events, 2000 of them old", n)
			}
			if samples < c.samples {
				t.Errorf("%v old samples, want %v of 18960", samples, c.samples)
			}
			a.stop()
		})
	}
}

// TestDamageInUse breaks the event database under the running agent.
func TestDamageInUse(t *testing.T) {
	needRoot(t)
	dir := filled(t, true)
	a := start(t, dir, nil, quick...)
	drops(t, 200)
	a.keeps(20 * time.Second)
	scribble(t, filepath.Join(dir, "events.db"))
	took := eventually(t, 30*time.Second, "the damage is noticed", func() error {
		a.get("/api/v1/events?q=history") // somebody must read the broken part
		if n, ok := a.metric("huatuo_store_set_aside_total"); !ok || n == 0 {
			return fmt.Errorf("nothing is set aside")
		}
		return nil
	})
	a.keeps(20 * time.Second)
	if !strings.Contains(a.log.String(), "set aside") || a.system().Store.SetAside == 0 {
		t.Error("it was not told")
	}
	t.Logf("noticed after %v", took.Round(time.Millisecond))
	a.stop()
}

// TestNoWritableStore: with nowhere to write the agent says what to do.
func TestNoWritableStore(t *testing.T) {
	needRoot(t)
	f := mountFaultFS(t)
	f.fail(30) // EROFS
	a := launch(t, f.dir, nil)
	select {
	case <-a.exited:
	case <-time.After(20 * time.Second):
		t.Fatal("it runs")
	}
	if text := a.log.String(); a.err == nil || !strings.Contains(text, "read-only") || !strings.Contains(text, "--store none") {
		t.Errorf("ended with %v: %s", a.err, text)
	}
	start(t, f.dir, nil, "--store", "none").stop()
}
