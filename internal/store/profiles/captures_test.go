package profiles

import (
	"bufio"
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/oklog/ulid/v2"

	"huatuo/internal/signal"
)

func captureOf(at time.Time) *signal.Capture {
	return &signal.Capture{
		CaptureInfo: signal.CaptureInfo{
			ID: ulid.MustNew(ulid.Timestamp(at), nil).String(), State: signal.CaptureDone, Why: "a test", Types: []string{"cpu"}, Samples: 3,
			Target: signal.CaptureTarget{PID: 7}, From: at.Add(-time.Minute).UTC(), To: at.UTC(),
		},
		Graphs: []*signal.FlameGraph{{
			Type: "cpu", Unit: "nanoseconds", Total: 3, Samples: 3, From: at.Add(-time.Minute).UTC(), To: at.UTC(),
			Frames: []signal.Frame{{Function: "main", Module: "/bin/x"}}, Nodes: []signal.FlameNode{{Parent: -1, Self: 3, Total: 3}},
		}},
	}
}

// TestCaptures: captures are kept whole, listed, and the oldest go first; a
// damaged one is an error of its own.
func TestCaptures(t *testing.T) {
	s := open(t, Options{})
	first, second := captureOf(hour0), captureOf(hour0.Add(time.Minute))
	for _, c := range []*signal.Capture{second, first} {
		if err := s.KeepCapture(c); err != nil {
			t.Fatal(err)
		}
	}
	got, err := s.Capture(first.ID)
	if diff := cmp.Diff(first, got); diff != "" || err != nil {
		t.Errorf("%v %s", err, diff)
	}
	list, err := s.Captures(10)
	if diff := cmp.Diff([]signal.CaptureInfo{second.CaptureInfo, first.CaptureInfo}, list); diff != "" || err != nil {
		t.Errorf("%v %s", err, diff)
	}
	if list, err := s.Captures(1); err != nil || len(list) != 1 || list[0].ID != second.ID {
		t.Errorf("one: %v %v", list, err)
	}
	for _, id := range []string{"", "../x", captureOf(hour0.Add(time.Hour)).ID} {
		if _, err := s.Capture(id); !errors.Is(err, ErrNoCapture) {
			t.Errorf("%q: %v", id, err)
		}
	}
	if err := s.KeepCapture(&signal.Capture{CaptureInfo: signal.CaptureInfo{ID: "../../x"}}); err == nil {
		t.Error("an id that is a path was taken")
	}
	path := filepath.Join(s.o.Dir, second.ID+captureSuffix)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)-1] ^= 1
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Capture(second.ID); !errors.Is(err, errDamaged) {
		t.Errorf("damaged: %v", err)
	}
	if st := s.Stats(); st.CaptureBytes == 0 || st.Segments != 0 {
		t.Errorf("stats %+v", st)
	}

	left := filepath.Join(s.o.Dir, "x"+captureSuffix+tempSuffix)
	if err := os.WriteFile(left, b, 0o600); err != nil {
		t.Fatal(err)
	}
	small := open(t, Options{Dir: s.o.Dir, MaxCaptureBytes: int64(len(b)) + 10}) // which applies retention
	if list, err := small.Captures(10); err != nil || len(list) != 1 || list[0].ID != second.ID {
		t.Errorf("after retention: %v, %v", list, err)
	}
	if _, err := os.Stat(left); !os.IsNotExist(err) {
		t.Errorf("what a crash left: %v", err)
	}
	if err := small.RemoveCapture(second.ID); err != nil {
		t.Error(err)
	}
	if err := small.RemoveCapture(second.ID); !errors.Is(err, ErrNoCapture) {
		t.Errorf("removed twice: %v", err)
	}
}

func FuzzCapture(f *testing.F) {
	s := open(f, Options{})
	if err := s.KeepCapture(captureOf(hour0)); err != nil {
		f.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(s.o.Dir, captureOf(hour0).ID+captureSuffix))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		var c signal.Capture
		readCaptureFrom(bufio.NewReader(bytes.NewReader(b)), &c.CaptureInfo, &c.Graphs)
	})
}
