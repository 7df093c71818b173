package cgroup

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// remember is how long a removed group is known: an event that was
	// queued, or a counter read from a BPF map late, still finds its workload.
	remember = 10 * time.Minute
	// reconcileEvery bounds how long a removed group counts as living, and
	// an unknown id as unknown.
	reconcileEvery = 10 * time.Second
	// rescanGap is the least time between two walks that misses caused.
	rescanGap = 200 * time.Millisecond
	// rescanShare keeps walks of a big tree below 5 % of one core.
	rescanShare = 20
	// defaultMax is about 10 MB of entries; a kubelet runs 250 pods at most
	// by default, which are about 1500 groups.
	defaultMax = 20_000
	maxUnknown = 4096
)

// Entry is one group.
type Entry struct {
	ID   uint64
	Path string // below the root of the hierarchy; "/" for the root
	Gone bool   // it has been removed
	Identity
}

// Workload tells whether the group is the top of a workload: see Identity.
func (e *Entry) Workload() bool { return e.Identity.Workload(e.Path) }

// IndexOptions are the knobs of an Index. The zero value is good.
type IndexOptions struct {
	Max int              // most groups known at a time, living and gone; 0 means 20,000
	Now func() time.Time // nil means time.Now
	Log *slog.Logger     // nil means no log
}

// Index maps the ids of groups to paths, in the hierarchy that gives a
// workload's identity. It walks the tree when it is made and every 10 s while
// Run runs, and between the walks learns of groups from the kernel as they come
// and go. An id that is not known is looked up in the background: Lookup itself
// does no I/O and never waits. Removed groups are known for 10 minutes.
type Index struct {
	root string
	opts IndexOptions
	h    *handles

	mu    sync.RWMutex
	nodes map[uint64]*node
	paths map[string]uint64 // of the living
	live  []Entry           // living groups by path; nil when it must be made anew
	walks uint64            // begun so far
	gen   atomic.Uint64
	// dropped counts groups that were not taken because of Max.
	dropped atomic.Uint64

	scan sync.Mutex // one walk at a time

	missMu  sync.Mutex
	unknown map[uint64]time.Time // ids looked up in vain or just now
	misses  chan uint64

	follow []func(Entry)
}

type node struct {
	Entry
	walk uint64 // the last one that had begun when the group was taken in
	gone time.Time
}

// NewIndex makes the index of l's hierarchy and walks it once. Call Run to keep
// it up to date, or Close when it will not run.
func NewIndex(l *Layout, o IndexOptions) (*Index, error) {
	if o.Max <= 0 {
		o.Max = defaultMax
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	x := &Index{
		root: l.IdentityRoot, opts: o, nodes: make(map[uint64]*node), paths: make(map[string]uint64),
		unknown: make(map[uint64]time.Time), misses: make(chan uint64, 256),
	}
	var err error
	if x.h, err = openHandles(x.root); err != nil {
		o.Log.Debug("cgroups are found by walking only", "reason", err)
	}
	if err := x.Rescan(); err != nil {
		x.h.close()
		return nil, err
	}
	return x, nil
}

// Close gives back what the index holds of the system. Only for an index whose
// Run was never called: Run does it.
func (x *Index) Close() { x.h.close() }

// Run keeps the index up to date until ctx is done.
func (x *Index) Run(ctx context.Context) error {
	defer x.h.close()
	changes, watch := x.watch(ctx)
	if watch != nil {
		defer watch.close()
	}
	reconcile := time.NewTicker(reconcileEvery)
	defer reconcile.Stop()
	due := time.NewTimer(0) // a walk that a miss asked for
	<-due.C
	defer due.Stop()
	var asked bool
	var next time.Time // no walk for a miss before
	for {
		walk := false
		select {
		case <-ctx.Done():
			return nil
		case raw := <-changes:
			if x.apply(watch, raw) && !asked {
				asked = true
				due.Reset(time.Until(next))
			}
		case <-reconcile.C:
			walk = true
		case <-due.C:
			walk = true
		case id := <-x.misses:
			if !x.resolve(id) && !asked {
				asked = true
				due.Reset(time.Until(next))
			}
		}
		if !walk {
			continue
		}
		start := time.Now()
		if err := x.Rescan(); err != nil {
			x.opts.Log.Warn("cannot walk the cgroups", "error", err)
		}
		x.watchAll(watch)
		end := time.Now()
		asked, next = false, end.Add(max(rescanGap, rescanShare*end.Sub(start)))
	}
}

// Lookup returns the group with that id, also one that was removed within the
// last 10 minutes. When the id is unknown it is looked up in the background.
func (x *Index) Lookup(id uint64) (Entry, bool) {
	e, ok := x.Known(id)
	if !ok {
		x.miss(id)
	}
	return e, ok
}

// Known is Lookup without the search for an unknown id.
func (x *Index) Known(id uint64) (Entry, bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if n := x.nodes[id]; n != nil {
		return n.Entry, true
	}
	return Entry{}, false
}

// PathOf returns the path of the group with that id, like Lookup.
func (x *Index) PathOf(id uint64) (string, bool) {
	e, ok := x.Lookup(id)
	return e.Path, ok
}

// Live returns the living groups, ordered by path. The slice is shared: do not
// write to it.
func (x *Index) Live() []Entry {
	x.mu.RLock()
	live := x.live
	x.mu.RUnlock()
	if live != nil {
		return live
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.live == nil {
		x.live = make([]Entry, 0, len(x.nodes))
		for _, n := range x.nodes {
			if !n.Gone {
				x.live = append(x.live, n.Entry)
			}
		}
		slices.SortFunc(x.live, func(a, b Entry) int { return strings.Compare(a.Path, b.Path) })
	}
	return x.live
}

// Generation changes whenever a group comes, goes or is forgotten.
func (x *Index) Generation() uint64 { return x.gen.Load() }

// Dropped counts how often a group was left out because the index was full.
func (x *Index) Dropped() uint64 { return x.dropped.Load() }

// miss asks Run to look for id, unless it was looked for in the last 10 s.
func (x *Index) miss(id uint64) {
	if id == 0 {
		return
	}
	now := x.opts.Now()
	x.missMu.Lock()
	defer x.missMu.Unlock()
	if t, ok := x.unknown[id]; ok && now.Sub(t) < reconcileEvery {
		return
	}
	if len(x.unknown) >= maxUnknown {
		clear(x.unknown) // then some are looked for again: cheap, and rare
	}
	select {
	case x.misses <- id:
		x.unknown[id] = now
	default: // Run is busy; the next miss of id asks again
	}
}

// resolve opens the group by its id. It returns false when only a walk can tell.
func (x *Index) resolve(id uint64) bool {
	if x.h.fd < 0 {
		return false
	}
	path, err := x.h.path(id)
	switch {
	case errors.Is(err, errNoGroup):
		return true
	case err != nil:
		return false
	}
	x.took(found{id, path})
	return true
}

// Rescan walks the hierarchy now and takes note of what came and went.
func (x *Index) Rescan() error {
	x.scan.Lock()
	defer x.scan.Unlock()
	now := x.opts.Now()
	x.mu.Lock()
	x.walks++
	x.mu.Unlock()
	groups, whole, err := walk(x.root, x.h.form == handleIno, x.opts.Max)
	if err != nil {
		return err
	}
	if len(groups) >= x.opts.Max {
		x.dropped.Add(1)
	}
	x.tell(x.merge(groups, whole, now)...)
	return nil
}

// merge takes in what a walk found, and returns what came and went.
func (x *Index) merge(groups []found, whole bool, now time.Time) (news []Entry) {
	x.mu.Lock()
	defer x.mu.Unlock()
	changed := false
	seen := make(map[uint64]struct{}, len(groups))
	for _, g := range groups {
		seen[g.id] = struct{}{}
		if x.add(g) {
			changed = true
			news = append(news, x.nodes[g.id].Entry)
		}
	}
	for id, n := range x.nodes {
		_, here := seen[id]
		switch {
		case here:
		case n.Gone && now.Sub(n.gone) > remember:
			delete(x.nodes, id)
			changed = true
		case !n.Gone && whole && n.walk < x.walks:
			// Not taken in by resolve while the walk went on: it is gone.
			x.bury(n, now)
			changed = true
			news = append(news, n.Entry)
		}
	}
	if changed {
		x.changed()
	}
	return news
}

// changed notes that nodes are not what they were. Called with mu held.
func (x *Index) changed() {
	x.live = nil
	x.gen.Add(1)
}

// add takes a living group in and tells whether that changed anything. Called
// with mu held.
func (x *Index) add(g found) bool {
	n := x.nodes[g.id]
	if n != nil && n.Path == g.path && !n.Gone {
		return false
	}
	if n != nil && x.paths[n.Path] == g.id {
		delete(x.paths, n.Path) // it was renamed
	}
	if n == nil && len(x.nodes) >= x.opts.Max && !x.evict() {
		x.dropped.Add(1)
		return false
	}
	x.nodes[g.id] = &node{Entry: Entry{ID: g.id, Path: g.path, Identity: Identify(g.path)}, walk: x.walks}
	x.paths[g.path] = g.id
	return true
}

// bury notes that n has been removed. Called with mu held.
func (x *Index) bury(n *node, now time.Time) {
	n.Gone, n.gone = true, now
	if x.paths[n.Path] == n.ID {
		delete(x.paths, n.Path)
	}
}

// evict forgets the group that went first, to make room.
func (x *Index) evict() bool {
	var oldest *node
	for _, n := range x.nodes {
		if n.Gone && (oldest == nil || n.gone.Before(oldest.gone)) {
			oldest = n
		}
	}
	if oldest == nil {
		return false
	}
	delete(x.nodes, oldest.ID)
	return true
}
