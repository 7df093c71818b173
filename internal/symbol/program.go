package symbol

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"huatuo/internal/signal"
)

// Program names linked addresses of one ELF file, for who has unwound stacks
// himself and knows files instead of addresses of a process.
type Program struct {
	r     *Resolver
	inode uint64

	mu     sync.Mutex
	places []Place // where the file may be found again, the first one seen first
	key    *fileKey
	failed reason
	until  time.Time // before which it is not tried again
	ticket *ticket
}

// Place is a mapping of a file by a process.
type Place struct {
	PID        uint32 // in the host's pid namespace
	Start, End uint64
	Path       string // as the process sees it
}

// maxPlaces bounds the places that are remembered of a file: those of the dead
// would pile up.
const maxPlaces = 8

// Program returns the Program of a file, whose symbols are read when they are
// first asked for.
func (r *Resolver) Program(inode uint64, at Place) *Program {
	return &Program{r: r, inode: inode, places: []Place{at}}
}

// Add tells another place where the file is mapped.
func (p *Program) Add(at Place) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if slices.Contains(p.places, at) {
		return
	}
	if len(p.places) >= maxPlaces {
		p.places = slices.Delete(p.places, 1, maxPlaces/2) // the first one has the path on the host
	}
	p.places = append(p.places, at)
	if p.failed == fileGone {
		p.until = time.Time{}
	}
}

// Find names a linked address: a frame, and one for each call that was inlined
// there, innermost first. ready is false when something is still being read: the
// same question has a better answer soon.
func (p *Program) Find(vaddr uint64) (frames []signal.Frame, ready bool) {
	obj, key, why := p.object()
	if obj == nil {
		f := p.r.unknown(why)
		f.Offset = vaddr
		return []signal.Frame{f}, why != notReady && why != noAnswer
	}
	f := signal.Frame{Function: Unknown}
	var calls []call
	ready = true
	if obj.lines != nowhere {
		calls, _, ready = p.r.calls(obj, key, vaddr, p.open)
	}
	return p.r.named(nil, f, obj, vaddr, calls), ready
}

// object returns what is in the cache, or has it read and says why there is
// nothing yet.
func (p *Program) object() (*object, fileKey, reason) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.key != nil {
		if obj, ok := p.r.objects.cache.get(*p.key); ok {
			if obj.due() {
				p.r.renew(obj, *p.key, p.open)
			}
			return obj, *p.key, named
		}
	}
	if p.ticket != nil {
		return nil, fileKey{}, notReady
	}
	if time.Now().Before(p.until) {
		if p.failed != named {
			return nil, fileKey{}, p.failed
		}
		return nil, fileKey{}, evicted
	}
	t := p.r.ticket(func(*ticket) { p.load() })
	if t == nil {
		return nil, fileKey{}, noAnswer
	}
	p.ticket = t
	return nil, fileKey{}, notReady
}

// open opens the file by the first place that leads to it.
func (p *Program) open() (io.ReaderAt, func(), fileKey, place, reason) {
	p.mu.Lock()
	places := slices.Clone(p.places)
	p.mu.Unlock()
	why := fileGone
	for _, at := range places {
		f, k, bad := openLink(p.r.path(at.PID, fmt.Sprintf("map_files/%x-%x", at.Start, at.End)))
		if bad == named { // on an overlay it has another inode than in the maps: it is right all the same
			return f, func() { f.Close() }, k, place{at.PID, at.Path}, named
		}
		why = bad
	}
	// When they have ended: a program of the host, if it is the same one still.
	f, k := p.onHost(places[0].Path)
	if f == nil {
		return nil, nil, fileKey{}, place{}, why
	}
	return f, func() { f.Close() }, k, place{path: places[0].Path}, named
}

// onHost opens the file by its path on the host: as the first process has it and,
// where that one does not let its root be looked at, as it is beside /proc.
func (p *Program) onHost(path string) (*os.File, fileKey) {
	if path == "" || path[0] != '/' || p.inode == 0 {
		return nil, fileKey{}
	}
	for _, root := range []string{p.r.path(1, "root"), filepath.Dir(p.r.proc)} {
		f := openIn(root, path)
		if f == nil {
			continue
		}
		if k, err := keyOfFile(f); err == nil && k.inode == p.inode {
			return f, k
		}
		f.Close()
	}
	return nil, fileKey{}
}

// load reads the symbols.
func (p *Program) load() {
	f, done, key, at, why := p.open()
	if why == named {
		p.r.read(f, key, at)
		done()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ticket = nil
	p.failed, p.until = why, time.Now().Add(againAfter)
	if why != named {
		p.until = time.Now().Add(retryOpen)
		return
	}
	p.key = &key
}
