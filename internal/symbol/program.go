package symbol

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"huatuo/internal/signal"
)

// Program names linked addresses of one ELF file, for who has unwound stacks
// himself and knows files instead of addresses of a process.
type Program struct {
	r     *Resolver
	inode uint64
	paths []string // where the file may be found again

	mu     sync.Mutex
	key    *fileKey
	failed reason
	until  time.Time // before which it is not tried again
	ticket *ticket
}

// Program returns the Program of a file, whose symbols are read when they are
// first asked for. paths are where the file may be opened, in the order in which
// they are tried, such as /proc/PID/map_files/…; what has another inode there is
// another file by now.
func (r *Resolver) Program(inode uint64, paths ...string) *Program {
	return &Program{r: r, inode: inode, paths: paths}
}

// Add tells another place where the file may be found.
func (p *Program) Add(path string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.paths) >= 8 { // those of the dead
		p.paths = append(p.paths[:0], p.paths[4:]...)
	}
	p.paths = append(p.paths, path)
	if p.failed == fileGone {
		p.until = time.Time{}
	}
}

// Find names a linked address. ready is false when the symbols are still being
// read: the same question has another answer soon.
func (p *Program) Find(vaddr uint64) (f signal.Frame, ready bool) {
	obj, why := p.object()
	if obj == nil {
		f = p.r.unknown(why)
		f.Offset = vaddr
		return f, why != notReady && why != noAnswer
	}
	name, file, line, ok := obj.find(vaddr)
	if !ok {
		why = noSymbolHere
		if obj.why != named {
			why = obj.why
		}
		f = p.r.unknown(why)
		f.Offset = vaddr
		return f, true
	}
	p.r.count.name()
	return signal.Frame{Function: p.r.names.show(name), File: p.r.names.plain(file), Line: line}, true
}

// object returns what is in the cache, or has it read and says why there is
// nothing yet.
func (p *Program) object() (*object, reason) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.key != nil {
		if obj, ok := p.r.objects.cache.get(*p.key); ok {
			return obj, named
		}
	}
	if p.ticket != nil {
		return nil, notReady
	}
	if time.Now().Before(p.until) {
		if p.failed != named {
			return nil, p.failed
		}
		return nil, evicted
	}
	paths := append([]string(nil), p.paths...)
	t := p.r.ticket(func(*ticket) { p.load(paths) })
	if t == nil {
		return nil, noAnswer
	}
	p.ticket = t
	return nil, notReady
}

// load reads the symbols from the first path that leads to a regular file.
func (p *Program) load(paths []string) {
	why := fileGone
	var key *fileKey
	for _, path := range paths {
		f, k, bad := openLink(path)
		if bad != named {
			why = bad
			continue
		}
		// On an overlay the maps have another inode than stat: what the mapping itself leads to is right.
		if p.inode != 0 && k.inode != p.inode && !strings.Contains(path, "/map_files/") {
			f.Close()
			continue
		}
		p.r.read(f, k)
		f.Close()
		key, why = &k, named
		break
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ticket = nil
	p.failed, p.until = why, time.Now().Add(againAfter)
	if why != named {
		p.until = time.Now().Add(retryOpen)
	}
	if key != nil {
		p.key = key
	}
}

// read puts the symbols of f into the cache and returns them.
func (r *Resolver) read(f io.ReaderAt, key fileKey) *object {
	return r.objects.load(key, func() *object {
		begin := time.Now()
		obj := loadObject(f, r.fileBytes)
		r.count.loads.Add(1)
		r.count.loadTime.Add(int64(time.Since(begin)))
		return obj
	})
}

// MapFile is the path that leads to the file of a mapping, whatever its name and
// whether or not it has been deleted.
func MapFile(proc string, pid uint32, start, end uint64) string {
	return fmt.Sprintf("%s/%d/map_files/%x-%x", proc, pid, start, end)
}
