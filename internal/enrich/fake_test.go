package enrich

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"huatuo/internal/kern/cgroup"
	"huatuo/internal/kern/clock"
	"huatuo/internal/signal"
)

const (
	ctr1 = "18cdd8b8dff231c14d187b5fb06af061b5c8f199aebd64d4d8a20189451d6a40"
	ctr2 = "c30e67512f5c0991dab1cff8fe8d34bcbe77039a697568901ff54b464ecdf63a"
	pod1 = "7f4b3a1c-8e0d-4f53-9a7e-2b1c5d6e7f80"
)

// host is a fake machine: a root with proc and a v2 hierarchy, and a wall
// clock that a test moves.
type host struct {
	t      testing.TB
	root   string
	now    time.Time
	layout *cgroup.Layout
	index  *cgroup.Index
	clock  *clock.Clock
}

func newHost(t testing.TB) *host {
	t.Helper()
	h := &host{t: t, root: t.TempDir(), now: time.Now()}
	h.write("proc/self/mountinfo", "30 28 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n")
	h.group("/")
	var err error
	if h.layout, err = cgroup.Detect(h.root); err != nil {
		t.Fatal(err)
	}
	if h.index, err = cgroup.NewIndex(h.layout, cgroup.IndexOptions{Now: h.time}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.index.Close)
	if h.clock, err = clock.New(); err != nil {
		t.Fatal(err)
	}
	return h
}

func (h *host) time() time.Time { return h.now }

func (h *host) enricher(o Options) *Enricher {
	h.t.Helper()
	redact, err := NewRedactor(nil)
	if err != nil {
		h.t.Fatal(err)
	}
	o.Root, o.Now, o.Clock, o.Layout, o.Index = h.root, h.time, h.clock, h.layout, h.index
	if o.Redact == nil {
		o.Redact = redact
	}
	return New(o)
}

func (h *host) write(path, content string) {
	h.t.Helper()
	path = filepath.Join(h.root, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		h.t.Fatal(err)
	}
}

// group makes a cgroup and has the index know it.
func (h *host) group(path string) uint64 {
	h.t.Helper()
	dir := filepath.Join(h.root, "sys/fs/cgroup", path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		h.t.Fatal(err)
	}
	id, err := cgroup.ID(dir)
	if err != nil {
		h.t.Fatal(err)
	}
	h.rescan()
	return id
}

func (h *host) removeGroup(path string) {
	h.t.Helper()
	if err := os.RemoveAll(filepath.Join(h.root, "sys/fs/cgroup", path)); err != nil {
		h.t.Fatal(err)
	}
	h.rescan()
}

func (h *host) rescan() {
	h.t.Helper()
	if h.index != nil {
		if err := h.index.Rescan(); err != nil {
			h.t.Fatal(err)
		}
	}
}

// task is a process of the fake machine.
type task struct {
	pid, ppid uint32
	comm, exe string
	args      []string
	cgroup    string
	flags     uint64
	start     time.Time // zero: an hour ago
}

func (h *host) run(p task) {
	h.t.Helper()
	if p.start.IsZero() {
		p.start = h.now.Add(-time.Hour)
	}
	dir := fmt.Sprintf("proc/%d/", p.pid)
	ticks := p.start.Sub(h.clock.BootTime()).Milliseconds() * clock.TickHz / 1000
	if ticks < 0 { // the real machine, whose clock is used, was started later
		ticks = int64(p.pid)
	}
	h.write(dir+"stat", fmt.Sprintf("%d (%s) S %d 1 1 0 -1 %d 0 0 0 0 0 0 0 0 20 0 1 0 %d 0\n", p.pid, p.comm, p.ppid, p.flags, ticks))
	if p.cgroup != "" {
		h.write(dir+"cgroup", "0::"+p.cgroup+"\n")
	}
	if p.args != nil {
		h.write(dir+"cmdline", strings.Join(p.args, "\x00")+"\x00")
	}
	if p.exe != "" {
		link := filepath.Join(h.root, dir, "exe")
		_ = os.Remove(link) // of the program before exec
		if err := os.Symlink(p.exe, link); err != nil {
			h.t.Fatal(err)
		}
	}
}

// hang makes reading the command line of pid wait, as it does while somebody
// else holds the process' mmap_lock; the function that it returns ends that.
func (h *host) hang(pid uint32, line string) (release func()) {
	h.t.Helper()
	fifo := filepath.Join(h.root, fmt.Sprintf("proc/%d/cmdline", pid))
	_ = os.Remove(fifo)
	if err := syscall.Mkfifo(fifo, 0o644); err != nil {
		h.t.Fatal(err)
	}
	done := false
	release = func() {
		if done {
			return
		}
		done = true
		// Non-blocking: fails when nobody reads, and then nobody hangs.
		f, err := os.OpenFile(fifo, os.O_WRONLY|syscall.O_NONBLOCK, 0)
		if err != nil {
			return
		}
		defer f.Close()
		if _, err := f.WriteString(line); err != nil {
			h.t.Error(err)
		}
	}
	h.t.Cleanup(release)
	return release
}

func (h *host) kill(pid uint32) {
	h.t.Helper()
	if err := os.RemoveAll(filepath.Join(h.root, fmt.Sprintf("proc/%d", pid))); err != nil {
		h.t.Fatal(err)
	}
}

// record makes the record of an event of pid in a group, now.
func (h *host) record(e *Enricher, pid uint32, cgroupID uint64) *signal.Record {
	r := &signal.Record{Time: h.now, Process: signal.Process{PID: pid}, CgroupID: cgroupID}
	e.Record(r)
	return r
}
