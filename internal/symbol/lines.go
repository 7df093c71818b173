package symbol

import (
	"debug/dwarf"
	"io"
	"sync"
	"time"
)

// lines keeps source lines and inlined calls, by the identity of the file. They
// are read per compilation unit when an address of it is asked for: of a large
// program few units are ever on a CPU.
type lines struct {
	limit int64 // bytes of DWARF
	crew  *crew // one: the DWARF of one file is in memory at a time

	index *lru[fileKey, *unitIndex]
	units *lru[lineKey, *unitLines]

	mu     sync.Mutex
	busy   map[lineKey]*ticket
	spent  time.Duration // on reading, less what may be spent since
	asOf   time.Time
	reopen map[fileKey]time.Time // when a file may be opened again
	opened fileKey
	data   *debugData // of opened, as long as it is used; nil: none
	close  *time.Timer
}

// lineKey is a unit of a file. No unit's entry is at 0: that stands for the index.
type lineKey struct {
	file fileKey
	root dwarf.Offset
}

const (
	// Reading may take a 500th of a core and, above that, the time of spendAtOnce:
	// what a busy node runs is read in it, at first sight. A cache that is too small
	// for what is in use costs no more than that either. The same share holds for
	// the opening of one file: libc's debug symbols take 0.3 s to unpack, and have
	// 2,000 units that come into use one by one. A host that compiles all day shows
	// new files all day: a profiler must not read debug information beside that.
	spendShare  = 500
	spendAtOnce = 5 * time.Second
	// maxReopen bounds the files that are remembered for that.
	maxReopen = 4096
)

// keepOpen is how long the DWARF of a file stays in memory for the next unit.
const keepOpen = 5 * time.Second

func newLines(keep, limit int64) *lines {
	return &lines{
		limit: limit, crew: newCrew(1, 256), busy: make(map[lineKey]*ticket), reopen: make(map[fileKey]time.Time),
		index: newLRU[fileKey, *unitIndex](keep / 4), units: newLRU[lineKey, *unitLines](keep - keep/4),
	}
}

// opener opens a file once more.
type opener func() (f io.ReaderAt, done func(), key fileKey, at place, why reason)

// calls returns what stands at a linked address, innermost first; nil when no
// line is known of it. Until final is true there may be more to know; then there
// is a ticket if it is worth while to wait for that.
func (r *Resolver) calls(obj *object, key fileKey, vaddr uint64, open opener) (c []call, t *ticket, final bool) {
	if obj.lines == nowhere {
		return nil, nil, true
	}
	x, ok := r.lines.index.get(key)
	if !ok || x.expired() {
		return nil, r.lines.order(lineKey{file: key}, func() { r.readIndex(obj, key, open) }), false
	}
	root, ok := x.find(vaddr)
	if !ok {
		return nil, nil, true
	}
	k := lineKey{key, root}
	u, ok := r.lines.units.get(k)
	if !ok || u.expired() {
		return nil, r.lines.order(k, func() { r.readUnit(obj, k, open) }), false
	}
	return u.find(vaddr), nil, true
}

// order has something read in the background, once for all who ask; nil when too
// much waits already, or was read of late.
func (l *lines) order(k lineKey, read func()) *ticket {
	l.mu.Lock()
	defer l.mu.Unlock()
	if t := l.busy[k]; t != nil {
		return t
	}
	now := time.Now()
	l.spent = max(0, l.spent-now.Sub(l.asOf)/spendShare)
	l.asOf = now
	if l.spent > spendAtOnce {
		return nil
	}
	if (l.data == nil || l.opened != k.file) && now.Before(l.reopen[k.file]) {
		return nil
	}
	t := &ticket{done: make(chan struct{})}
	ok := l.crew.do(func() {
		begin := time.Now()
		read()
		l.mu.Lock()
		l.spent += time.Since(begin)
		delete(l.busy, k)
		l.mu.Unlock()
		close(t.done)
	})
	if !ok {
		return nil
	}
	l.busy[k] = t
	return t
}

// readIndex finds the units of a file. One that cannot be opened now may be
// another time, by another process; one that cannot be read never will.
func (r *Resolver) readIndex(obj *object, key fileKey, open opener) {
	x := &unitIndex{}
	defer func() {
		if recover() != nil { // debug/dwarf does not promise to withstand a hostile file
			x = &unitIndex{}
		}
		if x.bytes() > r.lines.index.limit {
			x = &unitIndex{} // it would not stay, and be read again and again
		}
		r.lines.index.put(key, x, x.bytes())
	}()
	d := r.dwarf(obj, key, open)
	if d == nil {
		x.until = time.Now().Add(retryOpen)
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	got, err := d.index(obj.isCode)
	if err == nil {
		x = got
	}
}

// readUnit reads one unit.
func (r *Resolver) readUnit(obj *object, k lineKey, open opener) {
	u := &unitLines{}
	defer func() {
		if recover() != nil { // likewise
			u = &unitLines{}
		}
		if u.size+unitBytes > r.lines.units.limit {
			u = &unitLines{} // likewise
		}
		r.lines.units.put(k, u, u.size+unitBytes)
	}()
	d := r.dwarf(obj, k.file, open)
	if d == nil {
		u.until = time.Now().Add(retryOpen)
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	got, err := d.unit(k.root, obj.base())
	if err == nil {
		u = got
	}
}

// dwarf returns the DWARF of a file: empty when it cannot be read, nil when the
// file cannot be opened.
func (r *Resolver) dwarf(obj *object, key fileKey, open opener) *debugData {
	l := r.lines
	if d := l.last(key); d != nil {
		return d
	}
	f, done, k, at, why := open()
	if why != named {
		return nil
	}
	defer done()
	if k != key {
		return nil
	}
	if obj.lines == apart {
		side := r.search(at)(strippedOf(f))
		if side == nil {
			return nil
		}
		defer side.Close()
		f = side
	}
	begin := time.Now()
	d, err := openDWARF(f, l.limit)
	if err != nil {
		d = &debugData{}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.reopen) >= maxReopen {
		clear(l.reopen)
	}
	now := time.Now()
	l.reopen[key] = now.Add(now.Sub(begin) * spendShare)
	l.opened, l.data = key, d
	if l.close == nil {
		l.close = time.AfterFunc(keepOpen, l.forget)
	}
	l.close.Reset(keepOpen)
	return d
}

// last returns what was read last if it is of that file, and else lets go of it.
func (l *lines) last(key fileKey) *debugData {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.data == nil || l.opened != key {
		l.data = nil
		return nil
	}
	l.close.Reset(keepOpen)
	return l.data
}

// forget lets go of the file that was read last.
func (l *lines) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.data = nil
}
