package naming

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"huatuo/internal/enrich"
	"huatuo/internal/kern/cgroup"
)

// fakeSource is a runtime that a test fills.
type fakeSource struct {
	mu       sync.Mutex
	listed   map[string]Container
	hidden   map[string]Container // Inspect tells of these only
	events   chan string          // nil: no stream
	broken   error                // of every question
	lists    int
	inspects map[string]int
	open     int
}

func newFake() *fakeSource {
	return &fakeSource{listed: map[string]Container{}, hidden: map[string]Container{}, inspects: map[string]int{}}
}

func (f *fakeSource) List(context.Context) ([]Container, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lists++
	return slices.Collect(maps.Values(f.listed)), f.broken
}

func (f *fakeSource) Inspect(_ context.Context, id string) (Container, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.inspects[id]++
	if f.broken != nil {
		return Container{}, f.broken
	}
	for _, m := range []map[string]Container{f.hidden, f.listed} {
		if c, ok := m[id]; ok {
			c.Partial = false
			return c, nil
		}
	}
	return Container{}, ErrUnknown
}

func (f *fakeSource) Watch(ctx context.Context, ready func(), tell func(string)) error {
	f.mu.Lock()
	events := f.events
	f.mu.Unlock()
	if events == nil {
		return errors.ErrUnsupported
	}
	ready()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case id, ok := <-events:
			if !ok {
				return errors.New("broken pipe")
			}
			tell(id)
		}
	}
}

func (f *fakeSource) Close() { f.mu.Lock(); f.open--; f.mu.Unlock() }

func (f *fakeSource) feed(name string) Feed {
	return Feed{Name: name, Knows: func(string, bool) bool { return true }, Open: func(context.Context) (Source, error) {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.broken != nil {
			return nil, f.broken
		}
		f.open++
		return f, nil
	}}
}

func (f *fakeSource) change(do func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	do()
}

func (f *fakeSource) asked(id string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.inspects[id]
}

func begin(t *testing.T, o Options) *Registry {
	t.Helper()
	if o.Labels == nil {
		o.Labels = Patterns{"*"}
	}
	r := New(o)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(5 * time.Second):
			t.Error("the registry does not end")
		}
	})
	select {
	case <-r.Begun():
	case <-time.After(5 * time.Second):
		t.Fatal("the registry does not begin")
	}
	return r
}

func id(n int) string { return fmt.Sprintf("%064x", n) }

func entry(n int) cgroup.Entry {
	path := "/docker/" + id(n)
	return cgroup.Entry{ID: uint64(n), Path: path, Identity: cgroup.Identify(path)}
}

func nameOf(r *Registry, n int) string {
	name, _ := r.Container(id(n))
	return name.Name
}

func TestRegistryLists(t *testing.T) {
	f := newFake()
	f.listed[id(1)] = Container{ID: id(1), Name: "one", Pod: "p", PodUID: "u", Namespace: "n", Labels: map[string]string{"a": "b"}, Image: "sha256:1", Partial: true}
	f.hidden[id(1)] = Container{ID: id(1), Name: "one", Pod: "p", PodUID: "u", Namespace: "n", Labels: map[string]string{"a": "b"}, Image: "busybox:1", Restarts: 3}
	f.listed[""] = Container{Pod: "empty", PodUID: "v", Namespace: "n", Name: ""}
	r := begin(t, Options{Feeds: []Feed{f.feed("fake")}, Interval: 20 * time.Millisecond})

	want := enrich.Name{Name: "one", Pod: "p", PodUID: "u", Namespace: "n", Labels: map[string]string{"a": "b"}}
	if got, ok := r.Container(id(1)); !ok || got.Image == "" || cmp.Diff(want, got, cmpopts.IgnoreFields(want, "Image")) != "" {
		t.Errorf("%v %s", ok, cmp.Diff(want, got))
	}
	for uid, pod := range map[string]string{"u": "p", "v": "empty"} {
		if got, ok := r.Pod(uid); !ok || got.Pod != pod || got.Name != "" {
			t.Errorf("pod %s: %+v %v", uid, got, ok)
		}
	}
	eventually(t, "what the list leaves out is asked for", func() bool { c, _ := r.Info(id(1)); return c.Restarts == 3 })
	f.change(func() { f.listed[id(2)] = Container{ID: id(2), Name: "two"} })
	eventually(t, "a later list is taken in", func() bool { return nameOf(r, 2) == "two" })
	if n := f.asked(id(1)); n != 1 {
		t.Errorf("asked %d times for a container that is in every list", n)
	}
	if c, _ := r.Info(id(1)); c.Restarts != 3 || c.Image != "busybox:1" {
		t.Errorf("a list made forget what was asked for: %+v", c)
	}
}

func TestRegistryEvents(t *testing.T) {
	f := newFake()
	f.events = make(chan string)
	f.listed[id(1)] = Container{ID: id(1), Name: "before"}
	r := begin(t, Options{Feeds: []Feed{f.feed("fake")}, Interval: time.Hour})
	f.change(func() { f.listed[id(1)] = Container{ID: id(1), Name: "after"} })
	f.events <- id(1)
	eventually(t, "a rename", func() bool { return nameOf(r, 1) == "after" })
	if r.Renames() != 1 {
		t.Errorf("%d names have changed, want 1", r.Renames())
	}
	// The stream breaks: it is connected again, and what was missed is listed.
	f.change(func() { f.listed[id(2)] = Container{ID: id(2), Name: "missed"} })
	old := f.events
	f.change(func() { f.events = make(chan string) })
	close(old)
	eventually(t, "what came while the stream was broken", func() bool { return nameOf(r, 2) == "missed" })
	f.change(func() {
		if f.open != 1 {
			t.Errorf("%d connections are open, want 1", f.open)
		}
	})
}

// TestRegistryCgroup: a group is made, and its container is asked for at once,
// again while the runtime does not know it yet.
func TestRegistryCgroup(t *testing.T) {
	f := newFake()
	f.hidden[id(1)] = Container{ID: id(1), Name: "short"}
	r := begin(t, Options{Feeds: []Feed{f.feed("fake")}, Interval: time.Hour})
	r.Cgroup(entry(1))
	if done := r.Pending(id(1)); done != nil {
		select {
		case <-done:
		case <-time.After(time.Second):
			t.Fatal("no answer in a second")
		}
	}
	if n := nameOf(r, 1); n != "short" {
		t.Fatalf("name %q", n)
	}
	if r.Pending(id(1)) != nil || f.asked(id(1)) != 1 {
		t.Errorf("still asking: %d", f.asked(id(1)))
	}

	r.Cgroup(entry(2))
	if r.Pending(id(2)) == nil {
		t.Error("a container that nobody knows yet is not pending")
	}
	eventually(t, "a second try", func() bool { return f.asked(id(2)) >= 2 })
	f.change(func() { f.hidden[id(2)] = Container{ID: id(2), Name: "late"} })
	eventually(t, "the late name", func() bool { return nameOf(r, 2) == "late" && r.Pending(id(2)) == nil })

	gone, pod, sub := entry(3), entry(4), entry(5)
	gone.Gone = true
	pod.Identity = cgroup.Identify("/kubepods/pod" + staticUID)
	sub.Path += "/init.scope"
	for _, e := range []cgroup.Entry{gone, pod, sub} {
		r.Cgroup(e)
		if r.Pending(e.Identity.ID) != nil {
			t.Errorf("asked for %+v", e)
		}
	}
}

// TestRegistryDown: a runtime that is not there at first, and goes later.
func TestRegistryDown(t *testing.T) {
	f, absent := newFake(), newFake()
	f.broken = errors.New("connection refused")
	absent.broken = ErrAbsent
	r := begin(t, Options{Feeds: []Feed{f.feed("fake"), absent.feed("absent")}, Interval: time.Hour})
	state := func() State { return r.Sources()[0].State }
	if s := r.Sources(); s[0].State != Down || s[0].Reason != "connection refused" || s[1].State != Absent {
		t.Errorf("%+v", s)
	}
	f.change(func() { f.broken, f.hidden[id(1)] = nil, Container{ID: id(1), Name: "one"} })
	r.Cgroup(entry(1)) // a container starts, so the runtime must be there
	eventually(t, "connected", func() bool { return state() == Up })
	eventually(t, "named", func() bool { return nameOf(r, 1) == "one" })
	f.change(func() { f.broken = errors.New("broken pipe") })
	r.Cgroup(entry(2))
	eventually(t, "down", func() bool { return state() == Down })
	if nameOf(r, 1) != "one" {
		t.Error("a name was forgotten with the runtime")
	}
	f.change(func() { f.broken, f.listed[id(3)] = nil, Container{ID: id(3), Name: "three"} })
	eventually(t, "up again by itself", func() bool { return nameOf(r, 3) == "three" })
}

// TestRegistryNobody: when no source is there, nothing is pending.
func TestRegistryNobody(t *testing.T) {
	absent := newFake()
	absent.broken = ErrAbsent
	for _, feeds := range [][]Feed{nil, {absent.feed("absent")}} {
		r := begin(t, Options{Feeds: feeds, Interval: time.Hour})
		r.Cgroup(entry(1))
		eventually(t, "given up", func() bool { return r.Pending(id(1)) == nil })
		if _, ok := r.Container(id(1)); ok {
			t.Error("a name from nobody")
		}
	}
}

func TestRegistryLazy(t *testing.T) {
	f := newFake()
	f.listed[id(1)], f.listed[id(2)] = Container{ID: id(1), Name: "one"}, Container{ID: id(2), Name: "two"}
	feed := f.feed("lazy")
	feed.Lazy = true
	r := begin(t, Options{Feeds: []Feed{feed}, Interval: 5 * time.Millisecond})
	time.Sleep(30 * time.Millisecond)
	f.change(func() {
		if f.lists != 0 {
			t.Error("a lazy source was listed")
		}
	})
	r.Cgroup(entry(1))
	eventually(t, "named", func() bool { return nameOf(r, 1) == "one" })
	if nameOf(r, 2) != "" {
		t.Error("two came from nowhere")
	}
}

// TestRegistryMerge: the runtime knows the image, the kubelet the class.
func TestRegistryMerge(t *testing.T) {
	r := New(Options{Feeds: []Feed{newFake().feed("runtime"), newFake().feed("kubelet")}, Labels: Patterns{"a*"}, Annotations: Patterns{"x"}})
	r.learn(1, true, Container{ID: id(1), Name: "k", Pod: "p", QoS: "burstable", Image: "sha256:1", Labels: map[string]string{"app": "k", "b": "2"}})
	r.learn(0, true, Container{ID: id(1), Name: "c", Image: "busybox", Labels: map[string]string{"app": "c"}, Annotations: map[string]string{"x": "1", "y": "2"}})
	want := enrich.Name{Name: "c", Pod: "p", QoS: "burstable", Image: "busybox",
		Labels: map[string]string{"app": "c"}, Annotations: map[string]string{"x": "1"}}
	if got, _ := r.Container(id(1)); cmp.Diff(want, got) != "" {
		t.Error(cmp.Diff(want, got))
	}
	if c, _ := r.Info(id(1)); c.Labels["b"] != "2" {
		t.Errorf("the metric may carry more labels than events: %+v", c)
	}
}

// TestRegistryForgets: the dead are known for 10 minutes, and no more than so many.
func TestRegistryForgets(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	root := t.TempDir()
	dir := filepath.Join(root, "docker", id(1))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	index, err := cgroup.NewIndex(&cgroup.Layout{IdentityRoot: root}, cgroup.IndexOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(index.Close)
	r := New(Options{Feeds: []Feed{newFake().feed("fake")}, Index: index, Now: func() time.Time { return now }})
	r.learn(0, false, Container{ID: id(1), Name: "in-a-group"}, Container{ID: id(2), Name: "in-none"})
	r.replace(0, []Container{{ID: id(3), Name: "listed"}})
	after := func(d time.Duration) string {
		now = now.Add(d)
		r.Tidy()
		return strings.Join([]string{nameOf(r, 1), nameOf(r, 2), nameOf(r, 3)}, " ")
	}
	if got := after(0); got != "in-a-group in-none listed" {
		t.Errorf("at first: %s", got)
	}
	if got := after(remember); got != "in-a-group in-none listed" {
		t.Errorf("after 10 minutes: %s", got)
	}
	if got := after(time.Second); got != "in-a-group  listed" {
		t.Errorf("after more: %s", got)
	}
	r.replace(0, nil)
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	if err := index.Rescan(); err != nil {
		t.Fatal(err)
	}
	after(0)
	if got := after(remember + time.Second); got != "  " || r.Len() != 0 {
		t.Errorf("at last: %q, %d", got, r.Len())
	}

	for i := range maxKnown {
		r.learn(0, i > 0, Container{ID: id(i), Name: "x"})
	}
	r.learn(0, true, Container{ID: id(maxKnown), Name: "x"})
	if nameOf(r, maxKnown) != "" {
		t.Error("more are known than may be")
	}
	r.Tidy() // notes that 0 has gone
	r.learn(0, true, Container{ID: id(maxKnown), Name: "x"})
	if nameOf(r, maxKnown) != "x" || nameOf(r, 0) != "" || r.Len() != maxKnown {
		t.Error("the dead did not make room")
	}
}

// TestRegistryFull: a flood of new containers is not remembered without end.
func TestRegistryFull(t *testing.T) {
	js := newJobs(func(context.Context, *job) bool { return false })
	for i := range queue + 10 {
		js.ask(&job{id: id(i)})
	}
	if len(js.active) != queue || js.dropped != 10 || js.pending(id(queue)) != nil {
		t.Errorf("%d active, %d dropped", len(js.active), js.dropped)
	}
	ctx, cancel := context.WithCancel(context.Background())
	go js.work(ctx)
	eventually(t, "done", func() bool { js.mu.Lock(); defer js.mu.Unlock(); return len(js.active) == 0 })
	cancel()
}

func TestPatterns(t *testing.T) {
	for _, tt := range []struct {
		pattern, key string
		want         bool
	}{
		{"*", "anything/at.all", true},
		{"*", "", true},
		{"app", "app", true},
		{"app", "apps", false},
		{"app*", "apps", true},
		{"*.io/name", "app.kubernetes.io/name", true},
		{"*.io/name", "app.kubernetes.io/names", false},
		{"a*c*e", "abcde", true},
		{"a*c*e", "abcdef", false},
		{"a*c*e", "ace", true},
		{"a*c*e", "ae", false},
		{"", "", true},
		{"", "a", false},
	} {
		if got := (Patterns{"no", tt.pattern}).Match(tt.key); got != tt.want {
			t.Errorf("%q matches %q: %v", tt.pattern, tt.key, got)
		}
	}
	if (Patterns{}).Match("a") {
		t.Error("no pattern matches")
	}
	many := map[string]string{"big": strings.Repeat("x", maxValue+1)}
	for i := range 2 * maxLabels {
		many[fmt.Sprintf("l%02d", i)] = "v"
	}
	got := Patterns{"*"}.choose(many)
	if len(got) != maxLabels || got["l00"] == "" || got["big"] != "" || got["l63"] != "" {
		t.Errorf("%d labels: %v", len(got), got)
	}
}
