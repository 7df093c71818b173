package enrich

import (
	"fmt"
	"testing"
	"time"

	"huatuo/internal/signal"
)

func (f *fakeNames) ask(id string) chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.pending == nil {
		f.pending = map[string]chan struct{}{}
	}
	ch := make(chan struct{})
	f.pending[id] = ch
	return ch
}

func ctrN(n int) string { return fmt.Sprintf("%012x%052x", n, n) }

// TestNameIsAwaited: the first record of a container comes before its name.
func TestNameIsAwaited(t *testing.T) {
	h := newHost(t)
	names := &fakeNames{m: map[string]Name{}}
	e := h.enricher(Options{Names: names})
	id := h.group("/docker/" + ctr1)
	done := names.ask(ctr1)
	time.AfterFunc(10*time.Millisecond, func() {
		names.set(ctr1, Name{Name: "web", Image: "busybox:1", Runtime: "docker", QoS: "burstable", PodUID: "u",
			Annotations: map[string]string{"a": "b"}})
		close(done)
	})
	c := h.record(e, 0, id).Container
	if c.Name != "web" || c.Image != "busybox:1" || c.QoS != "burstable" || c.PodUID != "u" || c.Annotations["a"] != "b" {
		t.Errorf("%+v", c)
	}
	if g := labelsOf(e, id); g.container != "web" {
		t.Errorf("its series began under another name: %+v", g)
	}
}

// TestNameIsNotAwaitedForLong: a runtime that hangs costs 50 ms for each of the
// first new containers, and then nothing, until it answers.
func TestNameIsNotAwaitedForLong(t *testing.T) {
	h := newHost(t)
	names := &fakeNames{m: map[string]Name{}}
	e := h.enricher(Options{Names: names})
	var ids []uint64
	for i := range 20 {
		ids = append(ids, h.group("/docker/"+ctrN(i)))
		names.ask(ctrN(i))
	}
	began := time.Now()
	for _, id := range ids {
		for range 3 {
			if c := h.record(e, 0, id).Container; len(c.Name) != shortID {
				t.Fatalf("%+v", c)
			}
			h.now = h.now.Add(namePatience)
		}
	}
	// The records of one container wait once: the clock of the test has moved on.
	if d := time.Since(began); d < maxVain*namePatience || d > 2*maxVain*namePatience {
		t.Errorf("waited %v, want %v", d, maxVain*namePatience)
	}
	// A name comes late: the next records have it, and new containers are
	// waited for again.
	names.set(ctrN(0), Name{Name: "late"})
	if c := h.record(e, 0, ids[0]).Container; c.Name != "late" {
		t.Errorf("%+v", c)
	}
	id := h.group("/docker/" + ctr1)
	names.ask(ctr1)
	began = time.Now()
	h.record(e, 0, id)
	if d := time.Since(began); d < namePatience {
		t.Errorf("waited %v for a runtime that answers", d)
	}
}

// TestNameOfTheDead: a container ends before its name is known.
func TestNameOfTheDead(t *testing.T) {
	h := newHost(t)
	names := &fakeNames{m: map[string]Name{}}
	e := h.enricher(Options{Names: names})
	id := h.group("/docker/" + ctr1)
	h.record(e, 0, id)
	h.removeGroup("/docker/" + ctr1)
	e.work.tidy()
	names.set(ctr1, Name{Name: "short"})
	e.work.tidy()
	if c := h.record(e, 0, id).Container; c.Name != "short" || !c.Gone {
		t.Errorf("%+v", c)
	}
}

func TestRename(t *testing.T) {
	h := newHost(t)
	names := &fakeNames{m: map[string]Name{ctr1: {Name: "web"}, ctr2: {Name: "other-one"}}}
	e := h.enricher(Options{Names: names})
	a, b := h.group("/docker/"+ctr1), h.group("/docker/"+ctr2)
	labelsOf(e, a)
	labelsOf(e, b)
	names.set(ctr1, Name{Name: "shop"})
	e.work.tidy()
	if g := labelsOf(e, a); g.container != "web" {
		t.Errorf("before the change was told: %+v", g)
	}
	names.mu.Lock()
	names.renames++
	names.mu.Unlock()
	e.work.tidy()
	if g := labelsOf(e, a); g.container != "shop" {
		t.Errorf("after it: %+v", g)
	}
	if g := labelsOf(e, b); g.container != "other-one" {
		t.Errorf("the other container: %+v", g)
	}
	if n := len(e.work.admitted); n != 2 {
		t.Errorf("%d label sets hold a place, want 2", n)
	}
}

// TestLinger: the series of a workload end half a minute after it.
func TestLinger(t *testing.T) {
	h := newHost(t)
	e := h.enricher(Options{})
	id := h.group("/docker/" + ctr1)
	labelsOf(e, id)
	h.removeGroup("/docker/" + ctr1)
	e.work.tidy()
	h.now = h.now.Add(linger)
	if g := labelsOf(e, id); g.container != ctr1[:shortID] {
		t.Errorf("just gone: %+v", g)
	}
	h.now = h.now.Add(time.Second)
	if g := labelsOf(e, id); g != (got{container: other, known: true}) {
		t.Errorf("long gone: %+v", g)
	}
	if r := h.record(e, 0, id); r.Container.ID != ctr1 {
		t.Errorf("a late event: %+v", r.Container)
	}
}

func TestPodNames(t *testing.T) {
	h := newHost(t)
	names := &fakeNames{m: map[string]Name{}, pods: map[string]Name{pod1: {Namespace: "shop", Pod: "web-1", PodUID: pod1, QoS: "burstable"}}}
	e := h.enricher(Options{Names: names})
	pod := h.group("/kubepods/burstable/pod" + pod1)
	if g := labelsOf(e, pod); g != (got{"shop", "web-1", "", "", true}) {
		t.Errorf("the pod's own group: %+v", g)
	}
	if c := h.record(e, 0, pod).Container; c.Pod != "web-1" || c.Name != "" {
		t.Errorf("%+v", c)
	}
	// Of a container in it that nobody knows yet the pod is known.
	c := h.record(e, 0, h.group("/kubepods/burstable/pod"+pod1+"/"+ctr1)).Container
	if c.Namespace != "shop" || c.Pod != "web-1" || c.Name != ctr1[:shortID] {
		t.Errorf("%+v", c)
	}
	unknown := h.group("/kubepods/burstable/pod" + ctr1[:32])
	if g := labelsOf(e, unknown); g != (got{pod: ctr1[:32], known: true}) {
		t.Errorf("an unknown pod: %+v", g)
	}
	names.mu.Lock()
	names.pods[ctr1[:32]] = Name{Namespace: "n", Pod: "late"}
	names.mu.Unlock()
	if g := labelsOf(e, unknown); g.pod != "late" {
		t.Errorf("its name came: %+v", g)
	}
}

// TestChurn: many containers that live for a moment get few series, and those
// that live on all get theirs.
func TestChurn(t *testing.T) {
	h := newHost(t)
	const limit = 10
	e := h.enricher(Options{MaxWorkloads: limit})
	seen := map[string]bool{}
	n := 0
	group := func(path string) uint64 {
		id := h.group(path)
		e.work.tidy() // the inode number of a directory that was removed may come again
		return id
	}
	churn := func(d time.Duration) {
		for end := h.now.Add(d); h.now.Before(end); h.now = h.now.Add(300 * time.Millisecond) {
			n++
			path := "/docker/" + ctrN(n)
			seen[labelsOf(e, group(path)).container] = true
			h.removeGroup(path)
			e.work.tidy()
		}
	}
	churn(time.Minute)
	if len(seen) > 2*limit+2 { // those of the burst, one that came by the rate, and other
		t.Errorf("%d containers in a minute have %d series", n, len(seen))
	}
	long := group("/docker/" + ctr1)
	if g := labelsOf(e, long); g.container != other {
		t.Errorf("a young container in the crowd: %+v", g)
	}
	h.now = h.now.Add(settled)
	if g := labelsOf(e, long); g.container != ctr1[:shortID] {
		t.Errorf("a container that has lived for a minute: %+v", g)
	}
	// Who was never asked for while it lived has none.
	late := group("/docker/" + ctr2)
	h.record(e, 0, late)
	h.removeGroup("/docker/" + ctr2)
	e.work.tidy()
	if g := labelsOf(e, late); g.container != other {
		t.Errorf("a series begins after the end of its container: %+v", g)
	}
	if r := h.record(e, 0, late); r.Container.ID != ctr2 {
		t.Errorf("its events: %+v", r.Container)
	}
	// A name that comes again (a restarted container) costs nothing.
	h.removeGroup("/docker/" + ctr1)
	e.work.tidy()
	if g := labelsOf(e, group("/docker/"+ctr1)); g.container != ctr1[:shortID] {
		t.Errorf("a name that was used before: %+v", g)
	}
	h.now = h.now.Add(headTime + time.Second)
	e.work.tidy()
	if len(e.work.recent) != 0 {
		t.Errorf("%d names are remembered for ever", len(e.work.recent))
	}
}

func BenchmarkUnnamed(b *testing.B) {
	h := newHost(b)
	e := h.enricher(Options{Names: &fakeNames{m: map[string]Name{}}})
	id := h.group("/docker/" + ctr1)
	r := &signal.Record{CgroupID: id}
	b.ReportAllocs()
	for b.Loop() {
		r.Container, r.Unresolved = signal.Container{}, nil
		e.Record(r)
	}
}
