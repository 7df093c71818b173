package cgroup

import "context"

// Follow has f called for each group that comes, and with Gone set for each that
// goes, from when Run runs. f must not block, nor call Rescan. Call it before Run.
func (x *Index) Follow(f func(Entry)) { x.follow = append(x.follow, f) }

func (x *Index) tell(es ...Entry) {
	for _, e := range es {
		for _, f := range x.follow {
			f(e)
		}
	}
}

// took takes a living group in, and tells who follows.
func (x *Index) took(g found) {
	x.mu.Lock()
	var news Entry
	added := x.add(g)
	if added {
		x.changed()
		news = x.nodes[g.id].Entry
	}
	x.mu.Unlock()
	if added {
		x.tell(news)
	}
}

// left notes that the group at path was removed.
func (x *Index) left(path string) {
	x.mu.Lock()
	n := x.nodes[x.paths[path]]
	var news Entry
	if n != nil {
		x.bury(n, x.opts.Now())
		x.changed()
		news = n.Entry
	}
	x.mu.Unlock()
	if n != nil {
		x.tell(news)
	}
}

// lives tells whether there is a group at path.
func (x *Index) lives(path string) bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	_, ok := x.paths[path]
	return ok
}

// watch begins to watch the hierarchy. Without inotify groups are found by
// walking and by asking for them.
func (x *Index) watch(ctx context.Context) (<-chan []byte, *watcher) {
	w, err := newWatcher(x.root)
	if err != nil {
		x.opts.Log.Warn("new cgroups are found late, by walking", "error", err)
		return nil, nil
	}
	raw := make(chan []byte, 16)
	go func() {
		if err := w.read(raw, ctx.Done()); err != nil {
			x.opts.Log.Warn("new cgroups are found late, by walking", "error", err)
		}
	}()
	x.watchAll(w)
	return raw, w
}

// watchAll watches the groups that are not watched yet, takes in what was made
// below them meanwhile, and gives back the watches of those that have gone.
func (x *Index) watchAll(w *watcher) {
	if w == nil {
		return
	}
	for p := range w.wds {
		if !x.lives(p) {
			w.remove(p)
		}
	}
	for _, e := range x.Live() {
		if _, ok := w.wds[e.Path]; !ok {
			x.enter(w, found{e.ID, e.Path})
		}
	}
}

// apply takes note of changes that the kernel told. It returns true when only a
// walk can tell what there is.
func (x *Index) apply(w *watcher, raw []byte) (walk bool) {
	for _, c := range w.decode(raw) {
		switch {
		case c.lost:
			w.reset()
			walk = true
		case c.gone:
			w.remove(c.path)
			x.left(c.path)
		default:
			if id, err := ID(x.root + c.path); err == nil {
				x.enter(w, found{id, c.path})
			}
		}
	}
	return walk
}

// enter takes in g and what is below it. A directory is watched before it is
// read, so that nothing made meanwhile is missed.
func (x *Index) enter(w *watcher, g found) {
	wk := walker{root: x.root, wide: x.h.form == handleIno, max: x.opts.Max, buf: w.buf, out: []found{g}}
	for i := 0; i < len(wk.out); i++ {
		if err := w.add(wk.out[i].path); err != nil {
			x.opts.Log.Warn("some new cgroups are found late, by walking", "error", err)
		}
		x.took(wk.out[i])
		if err := wk.children(wk.out[i].path); err != nil {
			x.opts.Log.Debug("cannot read a cgroup", "error", err) // removed meanwhile, as a rule
		}
	}
}
