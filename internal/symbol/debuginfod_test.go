package symbol

import (
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"huatuo/internal/signal"
)

// debugServer serves files of debug symbols as debuginfod does, and counts what
// it is asked for.
type debugServer struct {
	*httptest.Server
	mu    sync.Mutex
	files map[string]string // by path
	asked map[string]int
}

func serveDebug(t *testing.T) *debugServer {
	d := &debugServer{files: map[string]string{}, asked: map[string]int{}}
	d.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		d.mu.Lock()
		file := d.files[r.URL.Path]
		d.asked[r.URL.Path]++
		d.mu.Unlock()
		file, chunked := strings.CutPrefix(file, "chunked:")
		switch {
		case chunked: // its length is not told
			w.(http.Flusher).Flush()
			b, _ := os.ReadFile(file)
			w.Write(b) //nolint:errcheck // the other side may hang up
		case file == "":
			http.NotFound(w, r)
		case file == "broken":
			http.Error(w, "broken", http.StatusInternalServerError)
		default:
			http.ServeFile(w, r, file)
		}
	}))
	t.Cleanup(d.Close)
	return d
}

func (d *debugServer) requests() (n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, v := range d.asked {
		n += v
	}
	return n
}

func (s split) url() string { return "/buildid/" + s.buildID + "/debuginfo" }

// TestDebuginfod: at first a stripped program has no names; when its symbols were
// fetched it has, with lines, for the profiler too, and the next agent has them
// from the disk.
func TestDebuginfod(t *testing.T) {
	s := splitTarget(t, false)
	d := serveDebug(t)
	d.files[s.url()] = s.debug
	tg := start(t, exec.Command(s.exe))
	dir := filepath.Join(t.TempDir(), "cache")
	o := Options{Wait: 10 * time.Second, Fetch: NewFetcher(Debuginfod{URLs: []string{d.URL + "/none", d.URL + "/"}, Dir: dir})}
	r := New(o)
	got := r.User(tg.pid, 0, []uint64{tg.addrs["here"]})
	if len(got) != 1 || got[0].BuildID != s.buildID || got[0].Missing != "no symbols in file" {
		t.Fatalf("before: %+v", got)
	}
	p := r.Program(0, mappingOf(t, tg, tg.addrs["here"]))
	waitFor(t, func() bool {
		got = r.User(tg.pid, 0, []uint64{tg.addrs["here"]})
		return got[0].Missing == ""
	})
	if brief(got) != inlinedC {
		t.Errorf("got\n%s", brief(got))
	}
	if r.Improved() == 0 {
		t.Error("nobody is told that names are better")
	}
	waitFor(t, func() (ready bool) { got, ready = p.Find(linked(t, s.exe, tg)); return ready })
	if brief(got) != inlinedC {
		t.Errorf("the profiler gets\n%s", brief(got))
	}
	if n := d.requests(); n != 2 { // of each server
		t.Errorf("%d requests: %v", n, d.asked)
	}
	before := d.requests()
	o.Fetch = NewFetcher(o.Fetch.o)
	if got := New(o).User(tg.pid, 0, []uint64{tg.addrs["here"]}); brief(got) != inlinedC || d.requests() != before {
		t.Errorf("the next agent has, after %d requests,\n%s", d.requests()-before, brief(got))
	}
	if st := r.Stats(); st.Fetched != 1 || st.FetchFailed != 0 {
		t.Errorf("%+v", st)
	}
}

// TestAgain: frames that were kept without a name have one when there are symbols.
func TestAgain(t *testing.T) {
	s := splitTarget(t, false, "-no-pie", "-fno-pie") // an address is not the offset in the file
	root, o := below(t)
	tg := start(t, exec.Command(s.exe))
	kept := New(o).User(tg.pid, 0, []uint64{tg.addrs["here"]})
	kept = append(kept, signal.Frame{Function: "named"}, signal.Frame{Function: Unknown, Missing: "process gone"},
		signal.Frame{Function: Unknown, Missing: "x", BuildID: "../../../x"}, signal.Frame{Function: Unknown, Missing: "x", BuildID: s.buildID, Offset: 1})
	want := slices.Clone(kept)
	if n := New(o).Again(kept); n != 0 || !slices.Equal(kept, want) {
		t.Errorf("without symbols: %d, %+v", n, kept)
	}
	move(t, s.debug, s.buildPath(root))
	want[0] = signal.Frame{Function: "outer", Module: s.exe}
	if n := New(o).Again(kept); n != 1 || !slices.Equal(kept, want) {
		t.Errorf("%d, %+v", n, kept)
	}
}

// TestDebuginfodOff: nobody is asked unless that is configured.
func TestDebuginfodOff(t *testing.T) {
	for _, o := range []Debuginfod{{}, {Dir: t.TempDir()}, {URLs: []string{"http://127.0.0.1:1"}}} {
		if NewFetcher(o) != nil {
			t.Errorf("%+v is on", o)
		}
	}
	var off *Fetcher
	off.want("ab", func() { t.Error("fetched") })
	if off.open("ab") != nil {
		t.Error("opened")
	}
}

// TestDebuginfodRefuses: what is not the file that was asked for is not kept.
func TestDebuginfodRefuses(t *testing.T) {
	s := splitTarget(t, false)
	text := filepath.Join(t.TempDir(), "text")
	write(t, text, "%s", strings.Repeat("<html>", 1000))
	long := filepath.Join(t.TempDir(), "long")
	b, err := os.ReadFile(s.debug)
	if err != nil {
		t.Fatal(err)
	}
	write(t, long, "%s", append(slices.Clone(b), make([]byte, 100_000)...))
	for _, tt := range []struct {
		name           string
		file           string
		bytes          int64
		absent, failed uint64
	}{
		{"absent", "", 0, 1, 0},
		{"an error", "broken", 0, 0, 1},
		{"of another build id", "/proc/self/exe", 0, 0, 1},
		{"no ELF file", text, 0, 0, 1},
		{"too large", s.debug, 1000, 0, 1},
		{"too large, of unknown length", "chunked:" + long, int64(len(b)) + 10, 0, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := serveDebug(t)
			d.files[s.url()] = tt.file
			f := NewFetcher(Debuginfod{URLs: []string{d.URL}, Dir: t.TempDir(), FileBytes: tt.bytes})
			for range 3 {
				f.want(s.buildID, func() { t.Error("it is said to be there") })
			}
			waitFor(t, func() bool { f.mu.Lock(); defer f.mu.Unlock(); return len(f.busy) == 0 })
			f.want(s.buildID, func() {})
			if f.absent.Load() != tt.absent || f.failed.Load() != tt.failed || d.requests() != 1 {
				t.Errorf("absent %d, failed %d, fetched %d, %d requests", f.absent.Load(), f.failed.Load(), f.fetched.Load(), d.requests())
			}
			if left, _ := os.ReadDir(f.o.Dir); len(left) > 0 {
				t.Errorf("it kept %v", left)
			}
		})
	}
}

// TestDebuginfodBound: what was not used for longest goes when there is too much.
func TestDebuginfodBound(t *testing.T) {
	f := NewFetcher(Debuginfod{URLs: []string{"http://127.0.0.1:1"}, Dir: t.TempDir(), Bytes: 250})
	for i, id := range []string{"aa", "bb", "cc"} {
		write(t, f.path(id), "%s", strings.Repeat("x", 100))
		at := time.Now().Add(time.Duration(i-10) * time.Minute)
		if err := os.Chtimes(f.path(id), at, at); err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(f.o.Dir, "part-77"), "left by one that was killed")
	write(t, filepath.Join(f.o.Dir, "part-78"), "of another agent")
	old := time.Now().Add(-2 * leftBehind)
	if err := os.Chtimes(filepath.Join(f.o.Dir, "part-77"), old, old); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(f.o.Dir, "another's file"), "stays")
	if file := f.open("aa"); file == nil { // used just now
		t.Fatal("not there")
	} else {
		file.Close()
	}
	f.trim("cc")
	var left []string
	entries, _ := os.ReadDir(f.o.Dir)
	for _, e := range entries {
		left = append(left, e.Name())
	}
	if got := strings.Join(left, " "); got != "aa.debug another's file cc.debug part-78" {
		t.Errorf("left %s", got)
	}
}

// TestNeverWorse: when the file of debug symbols has gone, what was read of it
// stays, and what comes later is used.
func TestNeverWorse(t *testing.T) {
	s := splitTarget(t, true)
	aside := s.debug + ".aside"
	tg := start(t, exec.Command(s.exe))
	r := newResolver()
	ask := func() []signal.Frame { return r.User(tg.pid, 0, []uint64{tg.addrs["here"]}) }
	object := func() *object {
		r.objects.cache.mu.Lock()
		defer r.objects.cache.mu.Unlock()
		for _, e := range r.objects.cache.items {
			if o := e.Value.(*item[fileKey, *object]).value; o.buildID == s.buildID {
				return o
			}
		}
		t.Fatal("not in the cache")
		return nil
	}
	move(t, s.debug, aside)
	if got := ask(); got[0].Missing == "" {
		t.Fatalf("without symbols: %+v", got)
	}
	if at := object().again.Load(); at < time.Now().UnixNano() || at > time.Now().Add(lookAgain).UnixNano() {
		t.Errorf("it is looked at again at %d", at)
	}
	move(t, aside, s.debug)
	object().again.Store(1) // ten minutes later
	waitFor(t, func() bool { return ask()[0].Missing == "" })
	better := object()
	if better.again.Load() != 0 {
		t.Error("the best there is is looked for again")
	}
	move(t, s.debug, aside)
	better.again.Store(1)
	ask()
	loads := r.Stats().Loads
	waitFor(t, func() bool { return better.again.Load() != 1 })
	for range 20 {
		time.Sleep(5 * time.Millisecond)
		if got := ask(); brief(got) != inlinedC {
			t.Fatalf("worse, after %d loads:\n%s", r.Stats().Loads-loads, brief(got))
		}
	}
	if object() != better {
		t.Error("it was replaced")
	}
}

// TestDebuginfodShared: all who want a file are told when it is there.
func TestDebuginfodShared(t *testing.T) {
	s := splitTarget(t, false)
	d := serveDebug(t)
	d.files[s.url()] = s.debug
	f := NewFetcher(Debuginfod{URLs: []string{d.URL}, Dir: t.TempDir()})
	var told atomic.Int32
	f.crew.slots <- struct{}{} // until both have asked
	for range 2 {
		f.want(s.buildID, func() { told.Add(1) })
	}
	<-f.crew.slots
	waitFor(t, func() bool { return told.Load() == 2 })
	if d.requests() != 1 {
		t.Errorf("%d requests", d.requests())
	}
}
