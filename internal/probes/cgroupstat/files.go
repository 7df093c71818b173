package cgroupstat

import (
	"golang.org/x/sys/unix"

	"huatuo/internal/kern/procfs"
)

// limitEvery is how often the limits of a group are read, and files that were
// missing are looked for again, in rounds: once a minute at a round each 5 s.
// Limits change when somebody edits a deployment.
const limitEvery = 12

// States of a file of a group that is not kept open.
const (
	closed = -1
	absent = -2 // until the next retry
)

// group is one control group and its open files.
type group struct {
	id        uint64
	path      string
	fds       []int // by index of poller.sources; closed or absent when negative
	limits    limits
	limitsDue uint64 // round
}

func newGroup(id uint64, path string, files int, round uint64) *group {
	g := &group{id: id, path: path, fds: make([]int, files), limitsDue: round}
	for i := range g.fds {
		g.fds[i] = closed
	}
	return g
}

// retry looks for absent files again: a controller may have been switched on.
func (g *group) retry() {
	for i, fd := range g.fds {
		if fd == absent {
			g.fds[i] = closed
		}
	}
}

// close closes the group's files and returns how many they were.
func (g *group) close() int {
	n := 0
	for i, fd := range g.fds {
		if fd >= 0 {
			unix.Close(fd)
			n++
		}
		g.fds[i] = closed
	}
	return n
}

// read returns the content of a source's file, valid until the next read. The
// file stays open while there is room: opening takes five times as long as reading.
func (p *poller) read(g *group, i int) ([]byte, bool) {
	switch {
	case g.fds[i] == absent:
		return nil, false
	case g.fds[i] >= 0:
		return p.pread(g, i)
	}
	s := &p.sources[i]
	for _, name := range s.files {
		file := p.layout.FileIn(s.controller, g.path, name)
		if file == "" {
			continue
		}
		if p.open >= p.cfg.MaxOpenFiles {
			b, err := procfs.ReadInto(file, p.buf)
			if err == nil {
				p.buf = b[:cap(b)]
				return b, true
			}
			continue
		}
		if fd, err := unix.Open(file, unix.O_RDONLY|unix.O_CLOEXEC, 0); err == nil {
			g.fds[i] = fd
			p.open++
			return p.pread(g, i)
		}
	}
	g.fds[i] = absent
	return nil, false
}

// pread reads a file that is open. A file of a control group is one record: a
// read that does not fill the buffer has it all.
func (p *poller) pread(g *group, i int) ([]byte, bool) {
	for {
		n, err := unix.Pread(g.fds[i], p.buf, 0)
		switch {
		case err == unix.EINTR:
		case err != nil: // ENODEV: the group, or the controller in it, is gone
			unix.Close(g.fds[i])
			p.open--
			g.fds[i] = absent
			return nil, false
		case n == len(p.buf):
			p.buf = make([]byte, 2*len(p.buf))
		default:
			return p.buf[:n], true
		}
	}
}

// readLimit reads the file of a limit, which is not kept open.
func (p *poller) readLimit(g *group, i int) ([]byte, bool) {
	s := &p.limits[i]
	file := p.layout.FileIn(s.controller, g.path, s.files[0])
	if file == "" {
		return nil, false
	}
	b, err := procfs.ReadInto(file, p.buf)
	if err != nil {
		return nil, false
	}
	p.buf = b[:cap(b)]
	return b, true
}
