package enrich

import (
	"maps"
	"sync"
	"time"

	"huatuo/internal/kern/cgroup"
	"huatuo/internal/signal"
)

// other is the container label of all workloads that came after the cap.
const other = "other"

const (
	// shortID is how many digits of an id stand for an unknown name, as in
	// docker ps.
	shortID = 12
	// namePatience is how long after a container was first heard of records
	// wait for its name. It is asked for when its group is made, and a runtime
	// answers within 10 ms; what has not come by then is not waited for.
	namePatience = 50 * time.Millisecond
	// maxVain is after how many names waited for in vain none is any more,
	// until one has come: the runtime hangs.
	maxVain = 3
	// settled is the age of a workload that has labels of its own even when
	// many have come in a short time.
	settled = time.Minute
	// linger is how long series of a workload that has gone are kept, so that
	// what it did last is seen: two scrapes at the usual interval. Collectors
	// that read BPF maps report the dead for hours; what they add to other is
	// nothing, because those counters stand still.
	linger = 30 * time.Second
	// headTime is how long the store holds series in memory. In that time as
	// many new sets of labels may come as the cap allows at a time.
	headTime = 2 * time.Hour
)

// labels are the values of signal.WorkloadLabels.
type labels struct {
	namespace, pod, container, unit string
}

// workload is what is known of one group. It is not written to once it is in
// the map: a change makes a new one.
type workload struct {
	container signal.Container
	own       labels // what it is called
	labels    labels // what its series are called, once judged: own, or other
	path      string
	identity  cgroup.Identity
	seen      time.Time
	named     bool // Names knew it, or has nothing to tell
	judged    bool
	holds     bool // counts in admitted[labels]
	gone      bool
	goneAt    time.Time
}

// workloads maps cgroup ids to workloads.
type workloads struct {
	index *cgroup.Index
	names Names
	max   int
	now   func() time.Time

	mu   sync.RWMutex
	byID map[uint64]*workload
	// admitted counts, for each set of labels in use, the living groups that
	// have it: those of a container share one.
	admitted map[labels]int
	recent   map[labels]time.Time // given out within headTime, by when last
	fresh    bucket               // new sets of labels that may be given out
	vain     int                  // names waited for in vain since one came
	gen      uint64               // of the index, when it was last followed
	renames  uint64               // of names, likewise
}

func newWorkloads(index *cgroup.Index, names Names, limit int, now func() time.Time) *workloads {
	burst := 2 * float64(limit) // those that are there at the start, and as many to come
	return &workloads{
		index: index, names: names, max: limit, now: now,
		byID: make(map[uint64]*workload), admitted: make(map[labels]int), recent: make(map[labels]time.Time),
		fresh: bucket{rate: float64(limit) / headTime.Seconds(), burst: burst, tokens: burst},
	}
}

// get returns the workload of a group, nil when the group is not known. It
// waits for the name of a new container, for namePatience at most.
func (ws *workloads) get(id uint64) *workload {
	ws.mu.RLock()
	w := ws.byID[id]
	ws.mu.RUnlock()
	if ws.index == nil || id == 0 {
		return nil
	}
	if w == nil {
		e, ok := ws.index.Lookup(id)
		if !ok {
			return nil
		}
		made := ws.make(e)
		ws.mu.Lock()
		if w = ws.byID[id]; w == nil {
			w = made
			ws.byID[id] = w
		}
		ws.mu.Unlock()
	}
	if w.named {
		return w
	}
	ws.wait(w)
	return ws.rename(id, w)
}

// wait waits for the name of a container that is being asked for.
func (ws *workloads) wait(w *workload) {
	left := namePatience - ws.now().Sub(w.seen)
	if left <= 0 || w.identity.Kind != cgroup.Container {
		return
	}
	done := ws.names.Pending(w.identity.ID)
	if done == nil {
		return
	}
	ws.mu.RLock()
	hopeless := ws.vain >= maxVain
	ws.mu.RUnlock()
	if hopeless {
		return
	}
	t := time.NewTimer(min(left, namePatience))
	defer t.Stop()
	select {
	case <-done:
	case <-t.C:
		ws.mu.Lock()
		ws.vain++
		ws.mu.Unlock()
	}
}

// rename gives w the name that Names has learnt meanwhile, and returns what
// stands in its place.
func (ws *workloads) rename(id uint64, w *workload) *workload {
	c, own, named := ws.identify(w.path, w.identity)
	if !named && own == w.own {
		return w
	}
	ws.mu.Lock()
	defer ws.mu.Unlock()
	cur := ws.byID[id]
	switch {
	case cur == nil || cur.path != w.path:
		return w
	case cur.named && !named: // somebody else was faster
		return cur
	}
	n := *cur
	n.container, n.own, n.named = c, own, named
	n.container.Gone = cur.gone
	if named {
		ws.vain = 0
	}
	if cur.judged && cur.labels == cur.own { // one that is other stays it; its events have the name
		ws.release(cur)
		ws.grant(&n)
	}
	ws.byID[id] = &n
	return &n
}

// labelsOf returns the labels of a group's series, false when the group is not
// known.
func (ws *workloads) labelsOf(id uint64) (labels, bool) {
	w := ws.get(id)
	switch {
	case w == nil:
		return labels{}, false
	case w.gone && ws.now().Sub(w.goneAt) > linger:
		return labels{container: other}, true
	case w.judged:
		return w.labels, true
	}
	return ws.judged(id, w).labels, true
}

// judged returns what stands in w's place once its labels are decided about.
func (ws *workloads) judged(id uint64, w *workload) *workload {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if cur := ws.byID[id]; cur != nil {
		w = cur
	}
	if w.judged {
		return w
	}
	n := *w
	ws.judge(&n)
	ws.byID[id] = &n
	return &n
}

// judge decides about the labels of w's series. Called with mu held.
func (ws *workloads) judge(w *workload) {
	now := ws.now()
	w.judged, w.labels = true, w.own
	if w.path == "/" {
		return // the host itself is beside the cap
	}
	_, living := ws.admitted[w.own]
	_, known := ws.recent[w.own]
	switch {
	case living || known && len(ws.admitted) < ws.max:
	case len(ws.admitted) >= ws.max:
		w.labels = labels{container: other}
	case w.gone && w.identity.Kind == cgroup.Container:
		// A series that begins after the end of what it is about never
		// changes, and so shows in no rate. In other it does.
		w.labels = labels{container: other}
	case now.Sub(w.seen) < settled && !ws.fresh.take(now, false):
		w.labels, w.judged = labels{container: other}, w.gone // a living one gets another chance
	}
	if w.labels == w.own {
		ws.grant(w)
	}
}

// grant gives w its own labels. Called with mu held.
func (ws *workloads) grant(w *workload) {
	w.labels, w.holds = w.own, !w.gone
	ws.recent[w.own] = ws.now()
	if w.holds {
		ws.admitted[w.own]++
	}
}

// release gives back what w holds of the cap. Called with mu held.
func (ws *workloads) release(w *workload) {
	if !w.holds {
		return
	}
	ws.recent[w.labels] = ws.now()
	if ws.admitted[w.labels]--; ws.admitted[w.labels] <= 0 {
		delete(ws.admitted, w.labels)
	}
}

// describe returns the container of a path that a process has, where the id of
// the group is not known.
func (ws *workloads) describe(path string) signal.Container {
	path = cgroup.Clean(path)
	c, _, _ := ws.identify(path, cgroup.Identify(path))
	return c
}

// isContainer tells whether a path is that of a container.
func isContainer(path string) bool {
	id := cgroup.Identify(path)
	return id.Kind == cgroup.Container
}

func (ws *workloads) make(e cgroup.Entry) *workload {
	w := &workload{path: e.Path, identity: e.Identity, seen: ws.now(), gone: e.Gone, goneAt: ws.now()}
	w.container, w.own, w.named = ws.identify(e.Path, e.Identity)
	w.container.Gone = e.Gone
	return w
}

// tidy follows the index, and asks for names that were not known.
func (ws *workloads) tidy() {
	if ws.index == nil {
		return
	}
	gen := ws.index.Generation()
	ws.mu.Lock()
	changed := gen != ws.gen
	ws.gen = gen
	renamed := false
	if ws.names != nil {
		n := ws.names.Renames()
		renamed = n != ws.renames
		ws.renames = n
	}
	ask := make(map[uint64]*workload)
	for id, w := range ws.byID {
		if !changed && !renamed && w.named {
			continue
		}
		if w = ws.follow(id, w); w != nil && (!w.named || renamed && w.container.ID+w.container.PodUID != "") {
			ask[id] = w
		}
	}
	now := ws.now()
	maps.DeleteFunc(ws.recent, func(_ labels, t time.Time) bool { return now.Sub(t) > headTime })
	ws.mu.Unlock()
	for id, w := range ask {
		ws.rename(id, w)
	}
}

// follow brings w up to what the index knows, and returns what stands in its
// place; nil when nothing does. Called with mu held.
func (ws *workloads) follow(id uint64, w *workload) *workload {
	e, ok := ws.index.Known(id)
	switch {
	case !ok, e.Path != w.path: // forgotten, or renamed: made anew when asked for
		ws.release(w)
		delete(ws.byID, id)
		return nil
	case e.Gone && !w.gone:
		ws.release(w)
		dead := *w
		dead.gone, dead.goneAt, dead.container.Gone, dead.holds = true, ws.now(), true, false
		ws.byID[id] = &dead
		return &dead
	}
	return w
}
