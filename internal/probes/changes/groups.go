package changes

import (
	"bytes"
	"encoding/binary"
	"log/slog"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"huatuo/internal/kern/cgroup"
	"huatuo/internal/kern/procfs"
	"huatuo/internal/probe"
)

// compareEvery is how often the limits of a group that is not watched are read, in rounds.
const compareEvery = 6

// setting is one file with a limit.
type setting struct {
	controller string
	file       string
}

// settingsOf returns the files of this host's hierarchies.
func settingsOf(l *cgroup.Layout) []setting {
	var out []setting
	add := func(v2, v1 string, files2, files1 []string) {
		controller, files := v2, files2
		if l.IsV1(v1) {
			controller, files = v1, files1
		}
		for _, f := range files {
			out = append(out, setting{controller, f})
		}
	}
	add("cpu", "cpu", []string{"cpu.max"}, []string{"cpu.cfs_quota_us", "cpu.cfs_period_us"})
	add("memory", "memory", []string{"memory.max", "memory.high", "memory.swap.max"}, []string{"memory.limit_in_bytes"})
	add("pids", "pids", []string{"pids.max"}, []string{"pids.max"})
	add("cpuset", "cpuset", []string{"cpuset.cpus", "cpuset.mems"}, []string{"cpuset.cpus", "cpuset.mems"})
	add("io", "blkio", []string{"io.max"}, []string{
		"blkio.throttle.read_bps_device", "blkio.throttle.write_bps_device", "blkio.throttle.read_iops_device", "blkio.throttle.write_iops_device",
	})
	return out
}

// groups watches the files with limits of workloads. The kernel notes who was
// written in a queue that is read once a round: a round in which nobody was costs
// one system call.
type groups struct {
	layout   *cgroup.Layout
	index    *cgroup.Index
	log      *slog.Logger
	max      int
	settle   time.Duration
	settings []setting
	fd       int // of inotify; -1: none
	full     bool

	generation uint64
	chosen     bool
	list       map[uint64]*group
	dirs       map[int]watch // by watch descriptor
	queue      []byte
	buf        []byte
	round      int
}

type group struct {
	cgroup.Entry
	values  []string // by index of settings
	born    time.Time
	watches []int
	missing bool // not all of its directories are watched
}

type watch struct {
	group *group
	dir   string
}

func newGroups(env *probe.Env, cfg Config) *groups {
	g := &groups{
		layout: env.Layout, index: env.Cgroups, log: env.Log, max: cfg.MaxGroups, settle: cfg.Settle, settings: settingsOf(env.Layout),
		list: map[uint64]*group{}, dirs: map[int]watch{}, queue: make([]byte, 32<<10),
	}
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		env.Log.Warn("limits of workloads are compared once a minute: they cannot be watched", "err", err)
		fd = -1
	}
	g.fd = fd
	return g
}

func (g *groups) watching() bool { return g.fd >= 0 }

func (g *groups) close() {
	if g.fd >= 0 {
		unix.Close(g.fd)
	}
}

// look returns the limits that are others than before.
func (g *groups) look(now time.Time) (out []change) {
	g.choose(now)
	written, all := g.written()
	for _, x := range g.list {
		late := x.missing && g.round%compareEvery == 0
		if !all && !late && written[x] == nil {
			continue
		}
		for i, s := range g.settings {
			if !all && !late && !written[x][s.file] {
				continue
			}
			if c, ok := g.compare(x, i, now); ok {
				out = append(out, c)
			}
		}
	}
	g.round++
	return out
}

func (g *groups) compare(x *group, i int, now time.Time) (change, bool) {
	s := g.settings[i]
	is, ok := g.value(x, s)
	was := x.values[i]
	if !ok || is == was {
		return change{}, false
	}
	x.values[i] = is
	if was == absent || !x.born.IsZero() && now.Sub(x.born) < g.settle {
		return change{}, false
	}
	return change{
		what: "cgroup", setting: s.file, target: x.Path, old: was, new: is, cgroup: x.ID, title: s.file + " of " + x.Short(),
	}, true
}

// absent is the value of a file that is not there.
const absent = "\x00"

func (g *groups) value(x *group, s setting) (string, bool) {
	b, err := procfs.ReadInto(g.layout.FileIn(s.controller, x.Path, s.file), g.buf)
	if err != nil {
		return absent, false
	}
	g.buf = b
	return plain(string(b)), true
}

// plain gives a value one form: lines joined, and v1's number for no limit of memory as v2 has it.
func plain(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	s = strings.ToValidUTF8(strings.Join(lines, "; "), "\uFFFD")
	if v, ok := procfs.Uint([]byte(s)); ok && v >= 1<<62 || s == "-1" {
		return "max"
	}
	return s
}

// choose brings the list of groups up to date.
func (g *groups) choose(now time.Time) {
	generation := g.index.Generation() // before Live: a change in between is seen next time
	if g.chosen && generation == g.generation {
		return
	}
	kept := make(map[uint64]*group, len(g.list))
	for _, e := range cgroup.Limited(g.index.Live()) {
		if len(kept) == g.max {
			break
		}
		x := g.list[e.ID]
		if x == nil || x.Path != e.Path {
			x = &group{Entry: e}
			if g.chosen { // it is new; those of the first round are older than the agent
				x.born = now
			}
			g.watch(x)
			x.values = make([]string, len(g.settings))
			for i, s := range g.settings {
				x.values[i], _ = g.value(x, s)
			}
		}
		kept[e.ID] = x
	}
	for id, x := range g.list {
		if kept[id] != x {
			g.unwatch(x)
		}
	}
	g.list, g.generation, g.chosen = kept, generation, true
}

// watch asks for the writes to a group's files, in each hierarchy that it is in.
func (g *groups) watch(x *group) {
	if g.fd < 0 {
		x.missing = true
		return
	}
	seen := map[string]bool{}
	for _, s := range g.settings {
		dir := filepath.Dir(g.layout.FileIn(s.controller, x.Path, s.file))
		if seen[dir] || dir == "." {
			continue
		}
		seen[dir] = true
		wd, err := unix.InotifyAddWatch(g.fd, dir, unix.IN_MODIFY|unix.IN_ONLYDIR|unix.IN_DONT_FOLLOW)
		switch {
		case err == nil:
			g.dirs[wd] = watch{x, dir}
			x.watches = append(x.watches, wd)
		case err == unix.ENOENT: // it is not in this hierarchy
		default:
			x.missing = true
			if !g.full {
				g.full = true
				g.log.Warn("limits of some workloads are compared once a minute: they cannot be watched", "cgroup", x.Path, "err", err)
			}
		}
	}
}

// unwatch gives the watches back: the kernel does not do it for a group that has been removed.
func (g *groups) unwatch(x *group) {
	for _, wd := range x.watches {
		if g.dirs[wd].group == x {
			_, _ = unix.InotifyRmWatch(g.fd, uint32(wd)) // fails when the kernel did it
			delete(g.dirs, wd)
		}
	}
}

// written returns the files that were written since the last call, by group; all
// when the kernel could not keep them.
func (g *groups) written() (files map[*group]map[string]bool, all bool) {
	if g.fd < 0 {
		return nil, false
	}
	for {
		n, err := unix.Read(g.fd, g.queue)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n <= 0 { // EAGAIN: no more
			return files, all
		}
		eachWrite(g.queue[:n], func(wd int, name string) {
			if wd < 0 {
				all = true
				return
			}
			w, known := g.dirs[wd]
			if !known {
				return
			}
			if files == nil {
				files = map[*group]map[string]bool{}
			}
			if files[w.group] == nil {
				files[w.group] = map[string]bool{}
			}
			files[w.group][name] = true
		})
	}
}

// eachWrite takes inotify events apart. wd is -1 when the queue was too short.
func eachWrite(b []byte, f func(wd int, name string)) {
	const header = unix.SizeofInotifyEvent
	for len(b) >= header {
		wd := int(int32(binary.NativeEndian.Uint32(b)))
		mask := binary.NativeEndian.Uint32(b[4:])
		size := uint64(header) + uint64(binary.NativeEndian.Uint32(b[12:]))
		if size > uint64(len(b)) {
			return
		}
		name, _, _ := bytes.Cut(b[header:size], []byte{0})
		b = b[size:]
		switch {
		case mask&unix.IN_Q_OVERFLOW != 0:
			f(-1, "")
		case mask&unix.IN_MODIFY != 0:
			f(wd, string(name))
		}
	}
}
