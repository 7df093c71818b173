package symbol

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"
)

const (
	// A process' maps are read again when they are older than freshFor, or
	// freshCost times what reading them took: 100 µs for a small process, some
	// 10 ms for a JVM. So no process takes more than 1 % of a core.
	freshFor  = time.Second
	freshCost = 100
	// An address that they do not have makes them be read again sooner: a
	// library may have just been loaded.
	missFor  = 100 * time.Millisecond
	missCost = 20
	// keepDead is how long a process that has ended is found by its id alone.
	// By id and start time it is found as long as the cache has room.
	keepDead = 10 * time.Minute
)

type processKey struct {
	pid   uint32
	start uint64
}

// process is one that was seen.
type process struct {
	key  processKey
	perf perfMap

	mu      sync.Mutex
	space   *space
	dead    bool
	images  map[imageKey]*image // those of space
	reading *reading            // nil when nobody reads the maps
}

// reading is one reading of the maps, which several callers may wait for.
type reading struct {
	done chan struct{}
	why  reason // valid when done is closed
}

// processes remembers the maps of processes.
type processes struct {
	cache *lru[processKey, *process]

	mu   sync.Mutex
	last map[uint32]lastStart // by pid
}

type lastStart struct {
	start uint64
	at    time.Time
}

// maxLast bounds the ids that are remembered without a start time, 32 bytes each.
const maxLast = 16384

func newProcesses(limit int64) *processes {
	return &processes{cache: newLRU[processKey, *process](limit), last: make(map[uint32]lastStart)}
}

// get returns the process, and makes it if create is set.
func (ps *processes) get(k processKey, create bool) *process {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	p, ok := ps.cache.get(k)
	if !ok {
		if !create {
			return nil
		}
		p = &process{key: k}
		ps.cache.put(k, p, processBytes)
	}
	return p
}

// saw notes that a process is alive.
func (ps *processes) saw(k processKey, now time.Time) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if len(ps.last) >= maxLast {
		for pid, l := range ps.last {
			if now.Sub(l.at) > keepDead {
				delete(ps.last, pid)
			}
		}
		if len(ps.last) >= maxLast {
			clear(ps.last)
		}
	}
	ps.last[k.pid] = lastStart{k.start, now}
}

// lastOf returns the start time of the process that had the id last.
func (ps *processes) lastOf(pid uint32, now time.Time) (uint64, bool) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	l, ok := ps.last[pid]
	return l.start, ok && now.Sub(l.at) <= keepDead
}

// Rough sizes for the cache's account.
const (
	processBytes = 512
	mappingBytes = 32
	imageBytes   = 256
)

func (p *process) bytes() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := int64(processBytes) + p.perf.bytes()
	if p.space != nil {
		n += int64(len(p.space.maps)) * mappingBytes
	}
	for k := range p.images {
		n += imageBytes + int64(len(k.path.Value()))
	}
	return n
}

// Remember notes what a process maps and reads the symbols of those files, in
// the background, so that its stacks have names also when it has ended before
// they are looked at. It returns at once. The first process of a program costs
// the reading of its files, 5 ms for a C program; any other some 0.2 ms.
func (r *Resolver) Remember(pid uint32) {
	ok := r.idle.do(func() {
		start, err := r.startTime(pid)
		if err != nil {
			return
		}
		p := r.processes.get(processKey{pid, start}, true)
		w := patience{limit: stuckAfter}
		defer w.stop()
		s, _ := r.refresh(p, freshFor, freshCost, &w)
		if s == nil {
			return
		}
		for i := range s.maps {
			m := &s.maps[i]
			switch {
			case m.image.kind == regular && !r.cached(m.image):
				r.loadInto(p, m, new(result))
			case m.image.kind.compiled():
				r.loadPerfMap(p)
			}
		}
	})
	if !ok {
		r.count.dropped.Add(1)
	}
}

// space returns what the process maps, as new as it takes for ips.
func (r *Resolver) space(pid uint32, start uint64, ips []uint64, w *patience) (*process, *space, reason) {
	if start == 0 {
		var err error
		if start, err = r.startTime(pid); err != nil {
			var ok bool
			if start, ok = r.processes.lastOf(pid, time.Now()); !ok {
				return nil, nil, gone
			}
		}
	}
	p := r.processes.get(processKey{pid, start}, true)
	s, why := r.refresh(p, freshFor, freshCost, w)
	if s == nil {
		return nil, nil, why
	}
	for i, ip := range ips {
		if s.find(callSite(i, ip)) == nil {
			if again, _ := r.refresh(p, missFor, missCost, w); again != nil {
				s = again
			}
			break
		}
	}
	return p, s, named
}

// refresh returns the maps of p, read again if they are older than age and
// than factor times what reading them costs. If they cannot be read, because
// the process has ended, the maps read before are returned.
func (r *Resolver) refresh(p *process, age time.Duration, factor int, w *patience) (*space, reason) {
	p.mu.Lock()
	old := p.space
	if p.dead || (old != nil && time.Since(old.at) < max(age, time.Duration(factor)*old.cost)) {
		p.mu.Unlock()
		if old == nil {
			return nil, gone
		}
		return old, named
	}
	rd := p.reading
	if rd == nil {
		rd = &reading{done: make(chan struct{})}
		p.reading = rd
		if !r.urgent.do(func() { r.readMaps(p, rd) }) {
			p.reading = nil
			p.mu.Unlock()
			return old, noAnswer
		}
	}
	p.mu.Unlock()
	if !w.await(rd.done) {
		return old, notReady
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.space, rd.why
}

// readMaps reads the maps of p for all who wait for rd.
func (r *Resolver) readMaps(p *process, rd *reading) {
	maps, images, cost, err := r.maps(p)
	p.mu.Lock()
	switch {
	case errors.Is(err, os.ErrPermission):
		rd.why = noAccess
	case err != nil || len(maps) == 0: // a zombie's maps are empty
		p.dead = true
		rd.why = gone
	default:
		p.space = &space{maps: maps, at: time.Now(), cost: cost}
		p.images = images
	}
	p.reading = nil
	p.mu.Unlock()
	if rd.why == named {
		r.processes.saw(p.key, time.Now())
	}
	close(rd.done)
	r.account(p)
}

// account tells the cache how large p is.
func (r *Resolver) account(p *process) { r.processes.cache.put(p.key, p, p.bytes()) }

func (r *Resolver) maps(p *process) ([]mapping, map[imageKey]*image, time.Duration, error) {
	begin := time.Now()
	f, err := os.Open(r.path(p.key.pid, "maps"))
	if err != nil {
		return nil, nil, 0, err
	}
	defer f.Close()
	p.mu.Lock()
	known := p.images
	p.mu.Unlock()
	images := make(map[imageKey]*image)
	maps, err := parseMaps(f, func(k imageKey) *image {
		i := images[k]
		if i == nil {
			if i = known[k]; i == nil {
				i = newImage(k)
			}
			images[k] = i
		}
		return i
	})
	if err != nil {
		return nil, nil, 0, err
	}
	// After the maps: if the process is still this one, so was the map's owner.
	start, err := r.startTime(p.key.pid)
	if err != nil || start != p.key.start {
		return nil, nil, 0, errors.Join(err, os.ErrProcessDone)
	}
	return maps, images, time.Since(begin), nil
}

func (r *Resolver) path(pid uint32, name string) string {
	return filepath.Join(r.proc, strconv.FormatUint(uint64(pid), 10), name)
}

// startTime returns the start time of the process that has the id now, in
// clock ticks since boot.
func (r *Resolver) startTime(pid uint32) (uint64, error) {
	b, err := os.ReadFile(r.path(pid, "stat"))
	if err != nil {
		return 0, err
	}
	const field = 22 - 3 // the name, field 2, may hold blanks and parentheses
	rest := b[bytes.LastIndexByte(b, ')')+1:]
	f := bytes.Fields(rest)
	if len(f) <= field {
		return 0, fmt.Errorf("parse stat of process %d: %d fields", pid, len(f))
	}
	start, err := strconv.ParseUint(string(f[field]), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("parse stat of process %d: %w", pid, err)
	}
	return start, nil
}
