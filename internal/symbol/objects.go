package symbol

import (
	"sync"
	"time"
)

// objects keeps what was read of files, by the identity of the file. Not by
// build id: that is part of the content, and a hostile file could claim that
// of another.
type objects struct {
	cache *lru[fileKey, *object]

	mu      sync.Mutex
	loading map[fileKey]chan struct{}
}

func newObjects(limit int64) *objects {
	return &objects{cache: newLRU[fileKey, *object](limit), loading: make(map[fileKey]chan struct{})}
}

// load returns the object of a file, read by read unless it is there or
// somebody reads it just now.
func (o *objects) load(k fileKey, read func() *object) *object {
	for {
		if obj, ok := o.cache.get(k); ok {
			return obj
		}
		o.mu.Lock()
		busy, ok := o.loading[k]
		if !ok {
			done := make(chan struct{})
			o.loading[k] = done
			o.mu.Unlock()
			obj := read()
			o.cache.put(k, obj, obj.bytes())
			o.mu.Lock()
			delete(o.loading, k)
			o.mu.Unlock()
			close(done)
			return obj
		}
		o.mu.Unlock()
		<-busy
	}
}

// result is what loading an image came to: an object, or why there is none.
type result struct {
	object *object
	why    reason
}

// imageState is what is known of an image beyond the maps.
type imageState struct {
	mu     sync.Mutex
	key    *fileKey // nil until the file was opened
	failed reason   // why it cannot be
	until  time.Time
	ticket *ticket // nil when nobody is loading it
}

// ticket is one loading, which several callers may wait for.
type ticket struct {
	done   chan struct{}
	result result // valid when done is closed
}

const (
	// againAfter is how long after it was read a file is not read again, when
	// the cache had no room for it.
	againAfter = 10 * time.Second
	// retryOpen is how long a file that could not be opened stays so.
	retryOpen = time.Minute
)

// prepare returns the objects of all files that ips point to, as far as they
// can be had in time.
func (r *Resolver) prepare(p *process, s *space, ips []uint64, w *patience) map[*image]result {
	ready := make(map[*image]result, 4)
	var pending map[*image]*ticket
	var perf *ticket
	for i, ip := range ips {
		pc := callSite(i, ip)
		m := s.find(pc)
		if m == nil {
			continue
		}
		if m.image.kind.compiled() {
			if perf == nil && p.perf.stale(pc) {
				perf = r.ticket(func(*ticket) { r.loadPerfMap(p) })
			}
			continue
		}
		if _, ok := ready[m.image]; ok || pending[m.image] != nil {
			continue
		}
		res, t := r.image(p, m)
		if t == nil {
			ready[m.image] = res
			continue
		}
		if pending == nil {
			pending = make(map[*image]*ticket)
		}
		pending[m.image] = t
	}
	for img, t := range pending {
		if w.await(t.done) {
			ready[img] = t.result
		} else {
			ready[img] = result{why: notReady}
		}
	}
	if perf != nil {
		w.await(perf.done)
	}
	return ready
}

// image returns the object of a mapping from the cache, or a ticket for it.
func (r *Resolver) image(p *process, m *mapping) (result, *ticket) {
	switch m.image.kind {
	case vdsoPage:
		return r.vdso.object(m.end - m.start), nil
	case special:
		return result{why: noSymbols}, nil
	}
	st := &m.image.state
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.key != nil {
		if obj, ok := r.objects.cache.get(*st.key); ok {
			return result{object: obj}, nil
		}
	}
	if st.ticket != nil {
		return result{}, st.ticket
	}
	if time.Now().Before(st.until) {
		if st.failed != named {
			return result{why: st.failed}, nil
		}
		return result{why: evicted}, nil
	}
	t := r.ticket(func(t *ticket) {
		r.loadInto(p, m, &t.result)
		st.mu.Lock()
		st.ticket = nil
		st.mu.Unlock()
	})
	if t == nil {
		return result{why: noAnswer}, nil
	}
	st.ticket = t
	return result{}, t
}

// cached says whether the object of an image is in the cache.
func (r *Resolver) cached(i *image) bool {
	i.state.mu.Lock()
	defer i.state.mu.Unlock()
	if i.state.key == nil {
		return false
	}
	_, ok := r.objects.cache.get(*i.state.key)
	return ok
}

// ticket has work done in the background; nil when too much waits already.
func (r *Resolver) ticket(work func(*ticket)) *ticket {
	t := &ticket{done: make(chan struct{})}
	if !r.urgent.do(func() { work(t); close(t.done) }) {
		return nil
	}
	return t
}

// loadInto opens the file of a mapping and reads its symbols unless they are
// in the cache.
func (r *Resolver) loadInto(p *process, m *mapping, res *result) {
	st := &m.image.state
	f, key, why := r.open(p, m)
	if why != named {
		st.mu.Lock()
		st.failed, st.until = why, time.Now().Add(retryOpen)
		st.mu.Unlock()
		res.why = why
		return
	}
	defer f.Close()
	res.object = r.read(f, key)
	st.mu.Lock()
	st.key, st.failed, st.until = &key, named, time.Now().Add(againAfter)
	st.mu.Unlock()
}
