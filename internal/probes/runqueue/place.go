package runqueue

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"huatuo/internal/probe"
	"huatuo/internal/signal"
)

const (
	// placeQueue is how many page faults may wait for the maps of their
	// process: as many as the rate limit lets through at once on a few CPUs.
	placeQueue = 64
	// placePatience is how long one waits. Maps of a thousand lines take 1 ms;
	// those of a process that changes its memory right now, for as long as that takes.
	placePatience = 100 * time.Millisecond
	// maxPlacing bounds the threads that processes may hold which do not give
	// their maps: somebody in them sleeps with the lock of their memory.
	maxPlacing = 8
)

// placer tells of page faults what is mapped at their address. Whoever reads
// the ring does not wait for it.
type placer struct {
	root  string // where the host's proc and sys are
	emit  func(*signal.Record)
	queue chan *signal.Record

	asking atomic.Int32
	busy   atomic.Uint64 // events without a place in the queue
}

func newPlacer(env *probe.Env) *placer {
	return &placer{root: env.Root, emit: env.Emit, queue: make(chan *signal.Record, placeQueue)}
}

// wrap returns the Env for probe.Stream: page faults go through the queue.
func (p *placer) wrap(env *probe.Env) *probe.Env {
	inner := *env
	inner.Emit = func(r *signal.Record) {
		if b, ok := r.Body.(*PageFaultStall); !ok || b.Address == "" {
			p.emit(r)
			return
		}
		select {
		case p.queue <- r:
		default:
			p.busy.Add(1)
		}
	}
	inner.Lost = func(f func() probe.Loss) {
		env.Lost(func() probe.Loss {
			l := f()
			l.Dropped["placer_busy"] = p.busy.Load()
			return l
		})
	}
	return &inner
}

// run works until the queue is closed.
func (p *placer) run() {
	for r := range p.queue {
		p.place(r)
		p.emit(r)
	}
}

// place fills in what is mapped at the address.
func (p *placer) place(r *signal.Record) {
	b := r.Body.(*PageFaultStall)
	addr, err := strconv.ParseUint(b.Address, 0, 64)
	if err != nil {
		return
	}
	m, ok := p.ask(r.Process.PID, addr)
	switch base := strings.TrimSuffix(filepath.Base(m.path), deleted); {
	case !ok, b.File != "" && !strings.HasPrefix(base, b.File): // gone, or another one by now; what the kernel told stands
		r.Unresolved = append(r.Unresolved, lackMapping)
	case m.path == "" || strings.HasPrefix(m.path, "["):
		b.Mapping = onAnonymous
		if b.Major && b.IO {
			b.Mapping = onSwap
		}
	default:
		b.Mapping, b.File, b.Offset = onFile, m.path, addr-m.start+m.offset
		var number string
		if b.Device, number = blockDevice(p.root, m.dev); number != "" {
			r.Keys = append(r.Keys, "dev:"+number)
		}
	}
	r.Title = b.title(r.Process)
}

// ask reads the maps of a process, and gives up after a while.
func (p *placer) ask(pid uint32, addr uint64) (mapping, bool) {
	if p.asking.Add(1) > maxPlacing {
		p.asking.Add(-1)
		return mapping{}, false
	}
	type answer struct {
		m  mapping
		ok bool
	}
	got := make(chan answer, 1)
	go func() {
		defer p.asking.Add(-1)
		m, err := mappingAt(filepath.Join(p.root, "proc", strconv.FormatUint(uint64(pid), 10), "maps"), addr)
		got <- answer{m, err == nil}
	}()
	select {
	case a := <-got:
		return a.m, a.ok
	case <-time.After(placePatience):
		return mapping{}, false
	}
}

// mapping is a line of /proc/PID/maps.
type mapping struct {
	start, end, offset uint64
	dev                string // 08:01
	path               string // empty or in brackets: no file
}

// deleted is what the kernel adds to the path of a file that has no name any more.
const deleted = " (deleted)"

// mappingAt finds the mapping that has addr in a file like /proc/PID/maps.
func mappingAt(file string, addr uint64) (mapping, error) {
	f, err := os.Open(file)
	if err != nil {
		return mapping{}, err
	}
	defer f.Close()
	br := bufio.NewReaderSize(f, 8<<10) // a line has a path of at most 4 KB, escaped
	for {
		line, err := br.ReadSlice('\n')
		if m, ok := parseMapping(line); ok && addr < m.end {
			if addr < m.start {
				return mapping{}, os.ErrNotExist
			}
			return m, nil
		}
		if err == io.EOF {
			return mapping{}, os.ErrNotExist
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return mapping{}, err
		}
	}
}

// parseMapping reads one line, such as
// "7f4ed2a7d000-7f4ed2a87000 r-xp 00027000 fe:00 325835    /usr/lib/ld.so".
func parseMapping(line []byte) (m mapping, ok bool) {
	line = bytes.TrimSuffix(line, []byte("\n"))
	var f [5][]byte
	for i := range f {
		f[i], line, _ = bytes.Cut(line, []byte(" "))
	}
	from, to, _ := bytes.Cut(f[0], []byte("-"))
	for i, x := range []struct {
		text []byte
		to   *uint64
	}{{from, &m.start}, {to, &m.end}, {f[2], &m.offset}} {
		v, err := strconv.ParseUint(string(x.text), 16, 64)
		if err != nil || i == 1 && v <= m.start {
			return m, false
		}
		*x.to = v
	}
	m.dev = string(f[3])
	m.path = strings.ReplaceAll(strings.TrimLeft(string(line), " "), `\012`, "\n") // the one character that the kernel escapes
	return m, true
}

// blockDevice returns name and number (8:1) of the block device with a number
// as maps have it (08:01); "" when there is none, as for network and union file
// systems.
func blockDevice(root, dev string) (name, number string) {
	major, minor, _ := strings.Cut(dev, ":")
	a, err1 := strconv.ParseUint(major, 16, 32)
	b, err2 := strconv.ParseUint(minor, 16, 32)
	if err1 != nil || err2 != nil || a == 0 {
		return "", ""
	}
	number = strconv.FormatUint(a, 10) + ":" + strconv.FormatUint(b, 10)
	to, err := os.Readlink(filepath.Join(root, "sys/dev/block", number))
	if err != nil {
		return "", ""
	}
	return filepath.Base(to), number
}
