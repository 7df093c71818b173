package enrich

import (
	"sync"

	"huatuo/internal/kern/cgroup"
	"huatuo/internal/signal"
)

// other is the container label of all workloads that came after the cap.
const other = "other"

// shortID is how many digits of an id stand for an unknown name, as in
// docker ps.
const shortID = 12

// labels are the values of signal.WorkloadLabels.
type labels struct {
	namespace, pod, container, unit string
}

// workload is what is known of one group. It is not written to once it is in
// the map: a change makes a new one.
type workload struct {
	container signal.Container
	labels    labels
	path      string
	named     bool   // Names knew it, or will not be asked
	slot      labels // what it holds of the cap; labels is other when it has none
	holds     bool
	gone      bool
}

// workloads maps cgroup ids to workloads.
type workloads struct {
	index *cgroup.Index
	names Names
	max   int

	mu   sync.RWMutex
	byID map[uint64]*workload
	// admitted counts, for each set of labels in use, the living groups that
	// have it: those of a container share one.
	admitted map[labels]int
	gen      uint64 // of the index, when it was last followed
}

func newWorkloads(index *cgroup.Index, names Names, limit int) *workloads {
	return &workloads{
		index: index, names: names, max: limit,
		byID: make(map[uint64]*workload), admitted: make(map[labels]int),
	}
}

// get returns the workload of a group, nil when the group is not known.
func (ws *workloads) get(id uint64) *workload {
	ws.mu.RLock()
	w := ws.byID[id]
	ws.mu.RUnlock()
	if w != nil || ws.index == nil || id == 0 {
		return w
	}
	e, ok := ws.index.Lookup(id)
	if !ok {
		return nil
	}
	made := ws.make(e)
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if w := ws.byID[id]; w != nil {
		return w
	}
	w = ws.admit(made)
	ws.byID[id] = w
	return w
}

// describe returns the container of a path that a process has, where the id of
// the group is not known.
func (ws *workloads) describe(path string) signal.Container {
	path = cgroup.Clean(path)
	c, _, _ := ws.identity(path, cgroup.Identify(path))
	return c
}

// isContainer tells whether a path is that of a container.
func isContainer(path string) bool {
	id := cgroup.Identify(path)
	return id.Kind == cgroup.Container
}

func (ws *workloads) make(e cgroup.Entry) *workload {
	w := &workload{path: e.Path, gone: e.Gone}
	w.container, w.labels, w.named = ws.identity(e.Path, e.Identity)
	w.container.Gone = e.Gone
	return w
}

// identity turns what a path tells, and what Names knows, into a container and
// its labels.
func (ws *workloads) identity(path string, id cgroup.Identity) (c signal.Container, l labels, named bool) {
	c = signal.Container{
		ID: id.ID, PodUID: id.PodUID, QoS: id.QoS, Runtime: id.Runtime, Unit: id.Unit, Cgroup: path,
	}
	switch id.Kind {
	case cgroup.Container:
		c.Name = id.Name
		if c.Name == "" {
			c.Name = id.ID[:min(shortID, len(id.ID))]
		}
		named = ws.names == nil
		if !named {
			var n Name
			if n, named = ws.names.Container(id.ID); named {
				c.Namespace, c.Pod, c.Labels = n.Namespace, n.Pod, n.Labels
				if n.Name != "" {
					c.Name = n.Name
				}
			}
		}
		return c, labels{namespace: c.Namespace, pod: c.Pod, container: c.Name}, named
	case cgroup.Pod:
		// Of a pod's own group the path gives the uid alone.
		return c, labels{pod: id.PodUID}, true
	}
	if c.Unit == "" {
		c.Unit = id.Top // made by hand; "/" for the host itself
	}
	return c, labels{unit: c.Unit}, true
}

// admit gives w its labels if the cap allows, else those of other. Called with
// mu held.
func (ws *workloads) admit(w *workload) *workload {
	if w.path == "/" {
		return w // the host itself is beside the cap
	}
	if _, in := ws.admitted[w.labels]; !in && len(ws.admitted) >= ws.max {
		w.labels = labels{container: other}
		return w
	}
	if !w.gone {
		ws.admitted[w.labels]++
		w.slot, w.holds = w.labels, true
	}
	return w
}

// release gives back what w holds of the cap. Called with mu held.
func (ws *workloads) release(w *workload) {
	if !w.holds {
		return
	}
	if ws.admitted[w.slot]--; ws.admitted[w.slot] <= 0 {
		delete(ws.admitted, w.slot)
	}
}

// tidy follows the index, and asks for names that were not known.
func (ws *workloads) tidy() {
	if ws.index == nil {
		return
	}
	gen := ws.index.Generation()
	ws.mu.Lock()
	defer ws.mu.Unlock()
	changed := gen != ws.gen
	ws.gen = gen
	if !changed && ws.names == nil {
		return
	}
	for id, w := range ws.byID {
		if !changed && w.named {
			continue
		}
		e, ok := ws.index.Known(id)
		switch {
		case !ok, e.Path != w.path: // forgotten, or renamed: made anew when asked for
			ws.release(w)
			delete(ws.byID, id)
		case e.Gone && !w.gone:
			ws.release(w)
			dead := *w
			dead.gone, dead.container.Gone, dead.holds = true, true, false
			ws.byID[id] = &dead
		case !w.named && !w.gone:
			ws.rename(id, w, e)
		}
	}
}

// rename gives w the names that Names has learnt meanwhile. Called with mu held.
func (ws *workloads) rename(id uint64, w *workload, e cgroup.Entry) {
	n := ws.make(e)
	if !n.named {
		return
	}
	if !w.holds { // it stays other, but its events have the names
		n.labels = w.labels
	} else {
		ws.release(w)
		n = ws.admit(n)
	}
	ws.byID[id] = n
}
