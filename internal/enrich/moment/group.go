package moment

import (
	"bytes"
	"io/fs"
	"math"

	"huatuo/internal/kern/procfs"
	"huatuo/internal/signal"
)

// unlimited is where v1 says that there is no limit: the largest number of
// pages, in bytes, is just below 2^63.
const unlimited = 1 << 62

// readGroup reads the files of one group, of either version: which a controller
// has is asked of the layout. fs.ErrNotExist: the group has none of them.
func (r *Reader) readGroup(path string) (*signal.WorkloadResources, error) {
	g := group{r: r, path: path}
	g.memory()
	g.cpu()
	g.Pids = g.number("pids", "pids.current")
	g.PidsLimit = g.number("pids", "pids.max")
	if r.layout.Mount("") != "" {
		g.Pressure = pressure(func(resource string) ([]byte, error) {
			return r.read(r.layout.FileIn("", path, resource+".pressure"))
		})
	}
	if !g.found && g.Pressure == nil {
		return nil, fs.ErrNotExist
	}
	return &g.WorkloadResources, nil
}

// group is one that is being read.
type group struct {
	signal.WorkloadResources
	r     *Reader
	path  string
	found bool // it has at least one file
}

func (g *group) file(controller, name string) []byte {
	b, err := g.r.read(g.r.layout.FileIn(controller, g.path, name))
	if err != nil {
		return nil
	}
	g.found = true
	return b
}

// number reads a file with one number; 0 for "max" and for what is as good as it.
func (g *group) number(controller, name string) uint64 {
	v, ok := procfs.Uint(bytes.TrimSpace(g.file(controller, name)))
	if !ok || v >= unlimited {
		return 0
	}
	return v
}

// member returns the number after a name in a file of "name number" lines.
func member(b []byte, name string) uint64 {
	for line := range bytes.Lines(b) {
		k, v, ok := bytes.Cut(bytes.TrimSpace(line), []byte(" "))
		if ok && string(k) == name {
			n, _ := procfs.Uint(v)
			return n
		}
	}
	return 0
}

func (g *group) memory() {
	if g.r.layout.IsV1("memory") {
		g.MemoryUsed = g.number("memory", "memory.usage_in_bytes")
		g.MemoryLimit = g.number("memory", "memory.limit_in_bytes")
		// Absent with swapaccount=0. Both are read at their own moment, and
		// without swap they are equal.
		if both := g.number("memory", "memory.memsw.usage_in_bytes"); both > g.MemoryUsed {
			g.Swap = both - g.MemoryUsed
		}
		g.OOMKills = member(g.file("memory", "memory.oom_control"), "oom_kill")
		return
	}
	g.MemoryUsed = g.number("memory", "memory.current")
	g.MemoryLimit = g.number("memory", "memory.max")
	g.Swap = g.number("memory", "memory.swap.current")
	g.OOMKills = member(g.file("memory", "memory.events"), "oom_kill")
}

func (g *group) cpu() {
	if g.r.layout.IsV1("cpu") {
		quota, _ := procfs.Uint(bytes.TrimSpace(g.file("cpu", "cpu.cfs_quota_us"))) // -1: none
		if quota > 0 {
			if period := g.number("cpu", "cpu.cfs_period_us"); period > 0 {
				g.CPULimit = float64(quota) / float64(period)
			}
		}
		stat := g.file("cpu", "cpu.stat")
		g.ThrottledRuns, g.Throttled = member(stat, "nr_throttled"), float64(member(stat, "throttled_time"))/1e9
		g.CPUSeconds = float64(g.number("cpuacct", "cpuacct.usage")) / 1e9
		return
	}
	g.CPULimit = parseCPUMax(g.file("cpu", "cpu.max"))
	stat := g.file("cpu", "cpu.stat")
	g.ThrottledRuns, g.Throttled = member(stat, "nr_throttled"), float64(member(stat, "throttled_usec"))/1e6
	g.CPUSeconds = float64(member(stat, "usage_usec")) / 1e6
}

// parseCPUMax reads "50000 100000" or "max 100000".
func parseCPUMax(b []byte) float64 {
	quota, period, ok := bytes.Cut(bytes.TrimSpace(b), []byte(" "))
	if !ok {
		return 0
	}
	q, ok := procfs.Uint(quota)
	p, ok2 := procfs.Uint(period)
	if !ok || !ok2 || p == 0 || q > math.MaxInt64 {
		return 0
	}
	return float64(q) / float64(p)
}
