package profiles

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"huatuo/internal/signal"
)

var cpu = &signal.ProfileType{Name: "cpu", Unit: "nanoseconds"}

func stackOf(names ...string) *signal.Stack { // innermost first
	s := &signal.Stack{}
	for _, n := range names {
		s.Frames = append(s.Frames, signal.Frame{Function: n, Module: "/bin/" + n})
	}
	return s
}

func sample(t time.Time, comm string, value int64, s *signal.Stack) signal.LabeledSample {
	return signal.LabeledSample{
		StackSample: signal.StackSample{Type: cpu, Time: t, PID: 7, Thread: comm, Value: value, Stack: s, CPU: 1},
		Labels:      signal.ProfileLabels{PID: 7, Process: comm, Thread: comm, Container: "c-" + comm},
	}
}

func open(t testing.TB, o Options) *Store {
	t.Helper()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// show writes a graph as folded stacks with self values.
func show(g *signal.FlameGraph) map[string]int64 {
	out := map[string]int64{}
	for i, n := range g.Nodes {
		if n.Self == 0 {
			continue
		}
		path := ""
		for j := i; j >= 0; j = g.Nodes[j].Parent {
			path = ";" + g.Frames[g.Nodes[j].Frame].Function + path
		}
		out[path[1:]] += n.Self
	}
	return out
}

// TestRoundTrip: what was added comes back merged, by window, label and column,
// across segments.
func TestRoundTrip(t *testing.T) {
	now := time.UnixMilli(1_700_000_000_000)
	s := open(t, Options{Now: func() time.Time { return now }})
	a, b := stackOf("spin", "heavy", "main"), stackOf("light", "main")
	for i := range 10 {
		at := now.Add(time.Duration(i) * time.Second)
		s.Add(sample(at, "p", 3, a))
		s.Add(sample(at.Add(time.Millisecond), "p", 1, b))
		s.Add(sample(at.Add(-2*time.Millisecond), "q", 5, b))
		if i == 5 {
			s.Flush()
			s.write.Lock()
			s.end() // the rest is in another segment, with another dictionary
			s.write.Unlock()
		}
	}
	s.Flush()
	if st := s.Stats(); st.Kept != 30 || st.Segments != 2 || st.Err != nil {
		t.Fatalf("stats %+v", st)
	}
	q := signal.ProfileQuery{Type: "cpu", From: now.Add(-time.Second), To: now.Add(time.Minute)}
	check := func(what string, q signal.ProfileQuery, want map[string]int64) {
		t.Helper()
		g, err := s.Flame(t.Context(), q, 0)
		if err != nil {
			t.Fatal(err)
		}
		var total int64
		for _, v := range want {
			total += v
		}
		if got := show(g); fmt.Sprint(got) != fmt.Sprint(want) || g.Total != total {
			t.Errorf("%s: %v, total %d; want %v", what, got, g.Total, want)
		}
	}
	check("all", q, map[string]int64{"main;heavy;spin": 30, "main;light": 60})
	only := q
	only.Labels = map[string][]string{"process": {"q"}}
	check("process q", only, map[string]int64{"main;light": 50})
	only.Labels = map[string][]string{"nonsense": {"q"}}
	check("unknown label", only, map[string]int64{})
	only = q
	only.PID = 8
	check("other pid", only, map[string]int64{})
	only = q
	only.From, only.To = now.Add(2*time.Second), now.Add(3*time.Second)
	check("a second", only, map[string]int64{"main;heavy;spin": 3, "main;light": 6})
	only = q
	only.Columns = []signal.Range{{From: now.Add(time.Second), To: now.Add(time.Second + time.Millisecond)}}
	check("a column", only, map[string]int64{"main;heavy;spin": 3})
	only = q
	only.Type = "offcpu.blocked"
	check("another type", only, map[string]int64{})
	if _, err := s.Flame(t.Context(), signal.ProfileQuery{}, 0); !errors.Is(err, ErrType) {
		t.Errorf("no type: %v", err)
	}
	heat, err := s.Heat(t.Context(), signal.ProfileQuery{Type: "cpu", From: now, To: now.Add(10 * time.Second)}, time.Second)
	if err != nil || len(heat) != 10 || heat[0] != 9 || heat[9] != 4 {
		t.Errorf("heat %v, %v", heat, err)
	}
	series, err := s.Series(t.Context(), q, []string{"container"})
	if err != nil || len(series) != 2 || series[0].Labels["container"] != "c-q" || series[0].Value != 50 || series[1].Samples != 20 {
		t.Errorf("series %+v, %v", series, err)
	}
	if g, err := s.Flame(t.Context(), q, 0.5); err != nil || len(g.Nodes) != 2 || g.Dropped != 2 || g.Total != 90 {
		t.Errorf("pruned: %+v, %v", g, err)
	}
	short, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Flame(short, q, 0); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestCrash: a segment cut off anywhere, or damaged anywhere, gives what is
// whole before that, and never more.
func TestCrash(t *testing.T) {
	now := time.UnixMilli(1_700_000_000_000)
	s := open(t, Options{Now: func() time.Time { return now }})
	for i := range 20 {
		s.Add(sample(now.Add(time.Duration(i)*time.Second), fmt.Sprint("p", i%3), 1, stackOf(fmt.Sprint("f", i), "main")))
		s.Flush()
	}
	whole, err := os.ReadFile(s.current.path)
	if err != nil {
		t.Fatal(err)
	}
	q := signal.ProfileQuery{Type: "cpu", From: now.Add(-time.Hour), To: now.Add(time.Hour)}
	total := func(b []byte) int64 {
		t.Helper()
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(s.current.path)), b, 0o600); err != nil {
			t.Fatal(err)
		}
		g, err := open(t, Options{Dir: dir}).Flame(t.Context(), q, 0)
		if err != nil {
			t.Fatal(err)
		}
		return g.Total
	}
	if n := total(whole); n != 20 {
		t.Fatalf("whole: %d", n)
	}
	last := int64(0)
	for n := 0; n <= len(whole); n += 7 {
		got := total(whole[:n])
		if got < last || got > 20 {
			t.Fatalf("of %d bytes %d samples, of less %d", n, got, last)
		}
		last = got
	}
	// A byte that is not what it was ends the segment before its chunk. The times in
	// a header are looked at before the rest: there a chunk may go missing alone.
	le := binary.LittleEndian
	kept := int64(0)
	for at := len(magic2); at < len(whole); {
		size := headerBytes + int(le.Uint32(whole[at:]))
		for range 10 {
			b, i := bytes.Clone(whole), rand.IntN(size)
			b[at+i] ^= byte(1 + rand.IntN(255))
			if got := total(b); got != kept && (i < 9 || i >= headerBytes || got > 20) {
				t.Fatalf("byte %d of the chunk at %d damaged: %d samples, want the %d before it", i, at, got, kept)
			}
		}
		if whole[at+8] == chunkRows {
			kept++
		}
		at += size
	}
	if kept != 20 {
		t.Errorf("%d chunks of rows, want 20", kept)
	}
}

// TestRetain: the oldest segments go first, the one being written stays.
func TestRetain(t *testing.T) {
	now := time.UnixMilli(1_700_000_000_000)
	s := open(t, Options{Now: func() time.Time { return now }, MaxBytes: 1})
	for range 3 {
		s.Add(sample(now, "p", 1, stackOf("main")))
		s.Flush()
		now = now.Add(2 * time.Hour)
	}
	if err := s.retain(); err != nil {
		t.Fatal(err)
	}
	files, err := s.list(suffix)
	if err != nil || len(files) != 1 || files[0].path != s.current.path {
		t.Errorf("left %+v, %v", files, err)
	}
}

// TestDisk: a directory that cannot be written to loses samples, counts them, and
// is used again once it can be.
func TestDisk(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "x")
	s := open(t, Options{Dir: dir})
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	s.Add(sample(time.Now(), "p", 1, stackOf("main")))
	s.Flush()
	if st := s.Stats(); st.Failed != 1 || st.Kept != 0 || st.Err == nil {
		t.Errorf("stats %+v", st)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	s.Add(sample(time.Now(), "p", 1, stackOf("main")))
	s.Flush()
	if st := s.Stats(); st.Failed != 1 || st.Kept != 1 || st.Err != nil {
		t.Errorf("stats %+v", st)
	}
}

// TestPending: what comes faster than it is written is dropped and counted.
func TestPending(t *testing.T) {
	s := open(t, Options{})
	x := sample(time.Now(), "p", 1, stackOf("main"))
	for range maxPending + 3 {
		s.Add(x)
	}
	if st := s.Stats(); st.Dropped != 3 {
		t.Errorf("dropped %d", st.Dropped)
	}
}

func FuzzSegment(f *testing.F) {
	now := time.UnixMilli(1_700_000_000_000)
	s := open(f, Options{Now: func() time.Time { return now }})
	s.Add(sample(now, "p", 1, stackOf("a", "main")))
	s.Flush()
	b, err := os.ReadFile(s.current.path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(magic1))
	f.Add([]byte(magic2))
	f.Fuzz(func(t *testing.T, b []byte) {
		readChunks(bufio.NewReader(bytes.NewReader(b)), nil, wants{to: 1 << 62, row: func(*block, *dict, *row) bool { return true }})
	})
}

// FuzzChunks reads payloads that no checksum guards, of both versions.
func FuzzChunks(f *testing.F) {
	f.Add([]byte{1, 1, 'a', 1, 1, 0, 0, 0, 0, 0, 1, 1, 1, 0}, []byte{1, 1, 1, 0, 1, 0, 1, 0, 1, 1, 1, 2, 1, 0}, 0)
	w := newDictWriter()
	b := blockWriter{typ: w.str("cpu"), unit: w.str("ns"), links: []link{{}}, rows: []row{
		{ms: 1, value: 1 << 20, link: 1, pair: pair{w.stack(stackOf("a", "main")), w.label(&signal.ProfileLabels{PID: 1}, 2)}}, {ms: 2, value: 3},
	}}
	rows, _, _ := b.encode()
	f.Add(w.fresh(), rows, 1)
	f.Add(w.fresh(), b.encodeSums(7), 1)
	f.Fuzz(func(t *testing.T, dictionary, rows []byte, version int) {
		d := newDict(1 + version&1)
		if d.add(dictionary) != nil {
			return
		}
		var sums nodeSums
		var b block
		b.read(rows, d, wants{to: 1 << 62, row: func(_ *block, _ *dict, x *row) bool {
			d.labelsOf(x.pair.labels)
			sums.at(d, x.pair.node).add(x)
			return true
		}})
		tr := newTree()
		tr.add(d, &sums)
		tr.graph(0)
	})
}
