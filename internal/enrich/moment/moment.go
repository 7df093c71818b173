// Package moment reads what there is of everything at one moment, of the host
// and of one control group: a few small files each, which the kernel answers
// from counters that it has. memory.stat is not among them: it makes the kernel
// sum up what every CPU has counted for the group and all below it. cpu.stat of
// the default hierarchy does that too, for far fewer numbers.
//
// What was read answers for a second, so that a storm of events costs no more
// than a trickle, and groups are read within a budget.
package moment

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"huatuo/internal/kern/cgroup"
	"huatuo/internal/signal"
)

const (
	// fresh is how long a reading answers: events of one second are about one
	// moment, and the kernel's own averages of pressure change each 2 s.
	fresh = time.Second
	// remember is how long the last reading of a group that is gone stands for
	// it: what was there a minute before the end no longer tells of the end.
	remember = time.Minute
	// rate and burst bound the groups that are read. One is some ten files, 80 µs
	// (BenchmarkWorkload): 20 a second are two thousandths of a core.
	rate, burst = 20, 20
	// maxGroups bounds the memory of readings, 300 bytes each.
	maxGroups = 512
)

// ErrBudget tells that too many groups are being asked for.
var ErrBudget = errors.New("too many control groups are read")

// Reader reads. It is safe for concurrent use. What it returns is shared and
// must not be changed.
type Reader struct {
	proc   string
	layout *cgroup.Layout
	now    func() time.Time

	mu     sync.Mutex
	buf    [4096]byte
	open   map[string]*os.File // the host's files
	hostAt time.Time
	host   *signal.HostResources
	groups map[string]reading
	tokens float64
	filled time.Time
}

// reading is what a group had at that time; nil when it had no files.
type reading struct {
	at  time.Time
	has *signal.WorkloadResources
}

// New returns a Reader of the host whose root is seen at root. Without a layout
// it knows no groups.
func New(root string, layout *cgroup.Layout, now func() time.Time) *Reader {
	return &Reader{proc: filepath.Join(root, "proc"), layout: layout, now: now, open: map[string]*os.File{}, groups: map[string]reading{}, tokens: burst}
}

// Host returns what the host has; nil when its files cannot be read.
func (r *Reader) Host() *signal.HostResources {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	if !r.recent(r.hostAt, now) {
		r.host, r.hostAt = r.readHost(), now
	}
	return r.host
}

// Workload returns what the group with that path has. A group that is gone has
// what it had last. The root group has nothing of its own.
func (r *Reader) Workload(path string) (*signal.WorkloadResources, error) {
	if r.layout == nil || path == "" || path == "/" {
		return nil, nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	last, known := r.groups[path]
	if known && r.recent(last.at, now) {
		return last.has, nil
	}
	if !r.take(now) {
		return nil, ErrBudget
	}
	has, err := r.readGroup(path)
	if err != nil {
		if known && now.Sub(last.at) < remember {
			return last.has, nil
		}
		return nil, err
	}
	if !known && len(r.groups) >= maxGroups {
		r.forget(now)
	}
	r.groups[path] = reading{now, has}
	return has, nil
}

// recent tells whether a reading of that time still answers; not when the wall
// clock was set back meanwhile.
func (r *Reader) recent(at, now time.Time) bool {
	d := now.Sub(at)
	return d >= 0 && d < fresh
}

// take takes one reading out of the budget.
func (r *Reader) take(now time.Time) bool {
	if d := now.Sub(r.filled); d > 0 {
		r.tokens = min(burst, r.tokens+d.Seconds()*rate)
	}
	r.filled = now
	if r.tokens < 1 {
		return false
	}
	r.tokens--
	return true
}

// forget makes room: old readings go, and all when none is old.
func (r *Reader) forget(now time.Time) {
	for path, g := range r.groups {
		if now.Sub(g.at) >= remember {
			delete(r.groups, path)
		}
	}
	if len(r.groups) >= maxGroups {
		clear(r.groups)
	}
}

// Close closes the files that are kept open; the next read opens them again.
func (r *Reader) Close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, f := range r.open {
		f.Close()
	}
	clear(r.open)
}

// again reads a file that stays open, because there is one for the whole life of
// the agent: that halves its cost. What it returns is valid until the next read.
func (r *Reader) again(path string) ([]byte, error) {
	f := r.open[path]
	if f == nil {
		// Not by os.Open, which gives a file of pressure to the runtime's poller.
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, &fs.PathError{Op: "open", Path: path, Err: err}
		}
		f = os.NewFile(uintptr(fd), path)
		r.open[path] = f
	}
	n, err := f.ReadAt(r.buf[:], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return r.buf[:n], nil
}

// read reads one file. What it returns is valid until the next read.
func (r *Reader) read(path string) ([]byte, error) {
	if path == "" { // no hierarchy has it
		return nil, fs.ErrNotExist
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	// Each of these files is one record of less than a page, which one read gets
	// whole: asking for the end as well would cost a tenth more.
	n, err := unix.Read(fd, r.buf[:])
	if err != nil {
		return nil, &fs.PathError{Op: "read", Path: path, Err: err}
	}
	return r.buf[:n], nil
}
