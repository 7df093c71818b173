package store

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/storage"
	"golang.org/x/sys/unix"

	"huatuo/internal/signal"
)

// tmpfs mounts a file system of that size for the test.
func tmpfs(t *testing.T, size string) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("mounting a small file system needs root: run the test as root")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		if errors.Is(err, unix.EPERM) {
			t.Skip("mounting a small file system needs CAP_SYS_ADMIN: run the test with it")
		}
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fillUp leaves no byte free and returns how to free them again.
func fillUp(t *testing.T, dir string) func() {
	t.Helper()
	path := filepath.Join(dir, "filler")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for b := make([]byte, 64<<10); len(b) > 0; {
		if _, err := f.Write(b); err != nil {
			b = b[:len(b)/2]
		}
	}
	return func() {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}

// TestFullDisk fills the disk under a store that watches for it and under one
// that does not and so meets ENOSPC in the middle of its writes.
func TestFullDisk(t *testing.T) {
	for _, tt := range []struct {
		name string
		o    Options
		want string
	}{
		{"watched", Options{MinFree: 2 << 20}, "disk nearly full"},
		{"met", Options{MinFree: -1}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := tmpfs(t, "24m")
			s := open(t, dir, tt.o)
			ss := nodeSamples()
			t0 := time.Now().Add(-2 * time.Hour).Truncate(time.Second)
			n := 0
			both := func() (e1, e2 error) {
				n++
				step(ss, n)
				s.metrics.retryAt = time.Time{}
				s.metrics.space.at = time.Time{}
				docs := make([]*signal.Document, 50)
				for i := range docs {
					docs[i] = noisy(n*50+i, t0)
				}
				return s.AppendSamples(context.Background(), t0.Add(time.Duration(n)*5*time.Second), ss),
					s.AppendEvents(context.Background(), docs)
			}
			at := func(n int) time.Time { return t0.Add(time.Duration(n) * 5 * time.Second) }
			for range 20 {
				if e1, e2 := both(); e1 != nil || e2 != nil {
					t.Fatal(e1, e2)
				}
			}
			free := fillUp(t, dir)
			var e1, e2 error
			for i := 0; i < 300 && (e1 == nil || e2 == nil); i++ {
				a, b := both()
				e1, e2 = errors.Join(e1, a), errors.Join(e2, b)
			}
			t.Logf("metrics: %v\nevents: %v", e1, e2)
			if e1 == nil || e2 == nil {
				t.Fatalf("no error on a full disk: %v, %v", e1, e2)
			}
			st := s.Status()
			if st.Error == "" || !strings.Contains(st.Error, tt.want) {
				t.Errorf("status says %q", st.Error)
			}
			last := n
			for range 3 { // it stays so, and stays alive
				both()
			}
			free()
			if e1, e2 := both(); e1 != nil || e2 != nil {
				t.Fatalf("after space was freed: %v, %v", e1, e2)
			}
			if st := s.Status(); st.Error != "" {
				t.Errorf("after space was freed the status says %q", st.Error)
			}
			// What was before is still there, and what came after is kept.
			for _, i := range []int{5, 20, n} {
				if got := len(query(t, s, "huatuo_test_value", at(i))); got != 800 {
					t.Errorf("round %d of %d (full at %d) has %d series", i, n, last, got)
				}
			}
			if _, err := s.Event(context.Background(), noisy(20*50, t0).ID); err != nil {
				t.Errorf("an event from before: %v", err)
			}
			if _, err := s.Event(context.Background(), noisy(n*50, t0).ID); err != nil {
				t.Errorf("an event from after: %v", err)
			}
			// And all of it survives a restart.
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = open(t, dir, tt.o)
			for _, i := range []int{5, 20, n} {
				if got := len(query(t, s, "huatuo_test_value", at(i))); got != 800 {
					t.Errorf("after a restart round %d has %d series", i, got)
				}
			}
			if s.Stats().SetAside != 0 {
				t.Error("something was set aside")
			}
		})
	}
}

// The agent must start on a full disk, and keep data again when it is not.
func TestStartOnFullDisk(t *testing.T) {
	dir := tmpfs(t, "24m")
	s := open(t, dir, Options{MinFree: -1})
	t0 := time.Now().Add(-time.Minute)
	round(t, s, t0, nodeSamples()...)
	appendDocs(t, s, doc("a", t0, 1))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	free := fillUp(t, dir)
	s = open(t, dir, Options{MinFree: -1})
	if st := s.Status(); !strings.Contains(st.Error, "disk nearly full") {
		t.Errorf("status %q", st.Error)
	}
	if _, err := s.Querier(0, 1); !errors.Is(err, ErrDiskFull) {
		t.Errorf("query: %v", err)
	}
	if err := s.AppendEvents(context.Background(), []*signal.Document{doc("a", t0, 2)}); err == nil {
		t.Error("kept an event on a full disk")
	}
	free()
	s.metrics.retryAt = time.Time{}
	round(t, s, t0.Add(5*time.Second), nodeSamples()...)
	appendDocs(t, s, doc("a", t0, 2))
	if p, err := s.Events(context.Background(), signal.EventFilter{}); err != nil || len(p.Events) != 2 {
		t.Errorf("events %v, %v", titles(p), err)
	}
	if got := len(query(t, s, "huatuo_test_value", t0)); got != 800 {
		t.Errorf("%d series from before", got)
	}
	if st := s.Status(); st.Error != "" || s.Stats().SetAside != 0 {
		t.Errorf("status %q, stats %+v", st.Error, s.Stats())
	}
}

func TestReadOnlyDirectory(t *testing.T) {
	dir := tmpfs(t, "64m")
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	_, err := Open(dir, Options{}, discard)
	if err == nil || !strings.Contains(err.Error(), "read-only file system") || !strings.Contains(err.Error(), "--data") {
		t.Errorf("got %v", err)
	}
}

func TestDiskNearlyFull(t *testing.T) {
	log, text := logged(t)
	s, err := Open(t.TempDir(), Options{MinFree: -1}, log)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	s.metrics.space.min = 1 << 60
	for _, err := range []error{
		s.AppendSamples(context.Background(), time.Now(), []signal.Sample{gaugeOf(1, "a")}),
		s.AppendEvents(context.Background(), []*signal.Document{doc("a", time.Now(), 1)}),
	} {
		if !errors.Is(err, ErrDiskFull) {
			t.Errorf("got %v", err)
		}
	}
	if st := s.Status(); !strings.Contains(st.Error, "MiB free") {
		t.Errorf("status %q", st.Error)
	}
	// The log tells it once, and when it is over.
	sample := []signal.Sample{gaugeOf(1, "a")}
	if err := s.AppendSamples(context.Background(), time.Now(), sample); err == nil {
		t.Error("a sample was taken without space")
	}
	s.metrics.space.min, s.metrics.space.at = -1, time.Time{}
	for range 2 {
		if err := s.AppendSamples(context.Background(), time.Now(), sample); err != nil {
			t.Error(err)
		}
	}
	for _, want := range []string{"takes nothing for now", "takes samples again"} {
		if n := strings.Count(text.String(), want); n != 1 {
			t.Errorf("%q is %d times in the log:\n%s", want, n, text)
		}
	}
}

// brokenAppender fails as the TSDB does when it cannot write a chunk.
type brokenAppender struct {
	storage.AppenderV2
	with any
}

func (b brokenAppender) Commit() error { panic(b.with) }

func TestPanicsAboutTheDisk(t *testing.T) {
	err := commit(brokenAppender{with: &fs.PathError{Op: "write", Path: "chunks_head/000001", Err: unix.ENOSPC}}, nil)
	if !errors.Is(err, unix.ENOSPC) {
		t.Errorf("got %v", err)
	}
	defer func() {
		if recover() == nil {
			t.Error("a bug was taken for a full disk")
		}
	}()
	_ = commit(brokenAppender{with: errors.New("index out of range")}, nil)
}
