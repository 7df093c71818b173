package symbol

import (
	"io"
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
	key    fileKey // of the object
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
			if obj.due() {
				r.renew(obj, *st.key, r.opener(p, m))
			}
			return result{object: obj, key: *st.key}, nil
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
	res.object, res.key = r.read(f, key, p.place(m)), key
	st.mu.Lock()
	st.key, st.failed, st.until = &key, named, time.Now().Add(againAfter)
	st.mu.Unlock()
}

// place is where the process sees the file of a mapping.
func (p *process) place(m *mapping) place { return place{p.key.pid, m.image.key.path.Value()} }

// opener returns how the file of a mapping is opened once more.
func (r *Resolver) opener(p *process, m *mapping) opener {
	return func() (io.ReaderAt, func(), fileKey, place, reason) {
		f, key, why := r.open(p, m)
		if why != named {
			return nil, nil, fileKey{}, place{}, why
		}
		return f, func() { f.Close() }, key, p.place(m), named
	}
}

// lookAgain is how long a file that has not the best source is not looked at
// again: its debug symbols may have been installed.
const lookAgain = 10 * time.Minute

// read puts the symbols of f into the cache and returns them.
func (r *Resolver) read(f io.ReaderAt, key fileKey, at place) *object {
	return r.objects.load(key, func() *object { return r.load(f, at) })
}

// load reads the symbols of f, and sees to better ones.
func (r *Resolver) load(f io.ReaderAt, at place) *object {
	begin := time.Now()
	obj := loadObject(f, r.fileBytes, r.search(at))
	r.count.loads.Add(1)
	r.count.loadTime.Add(int64(time.Since(begin)))
	if obj.quality < whole && obj.lookedFor() {
		obj.again.Store(time.Now().Add(lookAgain).UnixNano())
		r.fetch.want(obj.buildID, func() { obj.again.Store(1) })
	}
	return obj
}

// lookedFor says whether better symbols of the file may come to be found.
func (o *object) lookedFor() bool { return o.buildID != "" || o.linked }

// due says whether there may be a better source by now.
func (o *object) due() bool {
	at := o.again.Load()
	return at != 0 && time.Now().UnixNano() >= at
}

// renew reads a file again in the background when a better source may be there.
// Until then, and if there is none, what was read of it stays.
func (r *Resolver) renew(obj *object, key fileKey, open opener) {
	at := obj.again.Load()
	if at == 0 || !obj.again.CompareAndSwap(at, time.Now().Add(lookAgain).UnixNano()) {
		return
	}
	r.idle.do(func() {
		f, done, k, where, why := open()
		if why != named {
			return
		}
		defer done()
		if k != key {
			return
		}
		if fresh := r.load(f, where); fresh.better(obj) {
			r.objects.cache.put(key, fresh, fresh.bytes())
			r.improved.Add(1)
		}
	})
}

// better says whether an object is worth more than one of the same file.
func (o *object) better(old *object) bool {
	return o.quality > old.quality || (o.quality == old.quality && o.lines != nowhere && old.lines == nowhere)
}

// Improved counts the files whose names have become better than they were: who
// keeps frames asks for them anew when it has changed.
func (r *Resolver) Improved() uint64 { return r.improved.Load() }
