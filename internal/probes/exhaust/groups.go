package exhaust

import (
	"bytes"

	"huatuo/internal/kern/cgroup"
	"huatuo/internal/kern/procfs"
)

// limitEvery is how often the limits of a group are read, in rounds; of one that
// is more than half used, each time. Limits change when somebody edits a deployment.
const limitEvery = 6

// groups reads the limits of containers, pods and units.
type groups struct {
	layout *cgroup.Layout
	index  *cgroup.Index
	max    int
	who    *who
	buf    []byte

	generation uint64
	chosen     bool
	list       []*group
	round      int
}

type group struct {
	cgroup.Entry
	memory, tasks uint64 // limits; 0: none
	due           int    // round in which they are read
	far           bool   // it used less than half of each when it was looked at last
}

func (g *groups) read() ([]reading, error) {
	g.choose()
	var rs []reading
	for i, x := range g.list {
		if x.far && (g.round+i)%slow != 0 {
			continue
		}
		if g.round >= x.due {
			x.memory, x.tasks = g.limit(x, "memory"), g.limit(x, "pids")
			x.due = g.round + limitEvery
		}
		x.far = true
		rs = g.memoryOf(rs, x)
		rs = g.tasksOf(rs, x)
	}
	g.round++
	return rs, nil
}

func (g *groups) memoryOf(rs []reading, x *group) []reading {
	if x.memory == 0 {
		return rs
	}
	v1 := g.layout.IsV1("memory")
	used := g.number("memory", x.Path, choice(v1, "memory.usage_in_bytes", "memory.current"))
	if float64(used) >= watchRatio*float64(x.memory) {
		x.memory = g.limit(x, "memory")
		x.far = false
		// Page cache fills every limit in the end, and goes when room is needed.
		used -= min(used, parseCache(g.file("memory", x.Path, "memory.stat"), v1))
	}
	return append(rs, reading{
		resource: workloadMemory, key: x.Path, instance: x.Path, name: "Memory of " + x.Short(), used: used, limit: x.memory, bytes: true, cgroup: x.ID,
		users: func() []*User { return g.who.inGroup(x.Path, "memory", g.who.rss) },
	})
}

func (g *groups) tasksOf(rs []reading, x *group) []reading {
	if x.tasks == 0 {
		return rs
	}
	used := g.number("pids", x.Path, "pids.current")
	if float64(used) >= watchRatio*float64(x.tasks) {
		x.far = false
		x.tasks = g.limit(x, "pids")
	}
	return append(rs, reading{
		resource: workloadTasks, key: x.Path, instance: x.Path, name: "Tasks of " + x.Short(), used: used, limit: x.tasks, cgroup: x.ID,
		users: func() []*User { return g.who.inGroup(x.Path, "pids", g.who.threads) },
	})
}

func choice(v1 bool, one, two string) string {
	if v1 {
		return one
	}
	return two
}

// limit returns 0 for none.
func (g *groups) limit(x *group, controller string) uint64 {
	name := "pids.max"
	if controller == "memory" {
		name = choice(g.layout.IsV1("memory"), "memory.limit_in_bytes", "memory.max")
	}
	if v := g.number(controller, x.Path, name); v < endless { // v1 has the largest number of pages for none
		return v
	}
	return 0
}

// number returns 0 for "max", and for a file that is not there: the controller
// is off, or the group has gone.
func (g *groups) number(controller, path, name string) uint64 {
	v, _ := procfs.Uint(bytes.TrimSpace(g.file(controller, path, name)))
	return v
}

func (g *groups) file(controller, path, name string) []byte {
	file := g.layout.FileIn(controller, path, name)
	if file == "" {
		return nil
	}
	b, err := procfs.ReadInto(file, g.buf)
	if err != nil {
		return nil
	}
	g.buf = b
	return b
}

// parseCache sums the page cache in memory.stat. Shared memory is not in it: its
// pages are on the lists of anonymous memory.
func parseCache(b []byte, v1 bool) uint64 {
	inactive, active := []byte("inactive_file "), []byte("active_file ")
	if v1 {
		inactive, active = []byte("total_inactive_file "), []byte("total_active_file ")
	}
	var sum uint64
	for line := range bytes.Lines(b) {
		for _, key := range [][]byte{inactive, active} {
			if rest, ok := bytes.CutPrefix(line, key); ok {
				v, _ := procfs.Uint(bytes.TrimSpace(rest))
				sum += v
			}
		}
	}
	return sum
}

// choose brings the list of groups up to date.
func (g *groups) choose() {
	generation := g.index.Generation() // before Live: a change in between is seen next time
	if g.chosen && generation == g.generation {
		return
	}
	old := make(map[uint64]*group, len(g.list))
	for _, x := range g.list {
		old[x.Entry.ID] = x
	}
	g.list = nil
	for _, e := range cgroup.Limited(g.index.Live()) {
		x := old[e.ID]
		if x == nil || x.Path != e.Path {
			x = &group{Entry: e}
		}
		if g.list = append(g.list, x); len(g.list) == g.max {
			break
		}
	}
	g.generation, g.chosen = generation, true
}
