package oomkill

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"huatuo/internal/kern/cgroup"
	"huatuo/internal/kern/procfs"
	"huatuo/internal/probe"
)

const (
	// maxPoints are kept of each: five minutes at the default interval.
	maxPoints = 30
	// maxGroups are followed, workloads first: 8 µs each.
	maxGroups = 500
	// maxFollowed processes are followed, the largest: who is not among them
	// did not fill the memory.
	maxFollowed = 64
	// maxLooks are how many other processes are looked at in a round, in turn, for whether they
	// have become large: 10 µs each.
	maxLooks = 200
)

// Point is how much memory was in use at a time before the kill.
type Point struct {
	SecondsAgo float64 `json:"seconds_ago"`
	Bytes      uint64  `json:"bytes"`
}

type point struct {
	at    time.Time
	bytes uint64
}

// series are the last points of something, oldest first.
type series struct {
	points []point
	start  uint64 // of a process: tells it from a later one with its pid
}

func (s *series) add(at time.Time, bytes uint64) {
	if len(s.points) == maxPoints {
		s.points = append(s.points[:0], s.points[1:]...)
	}
	s.points = append(s.points, point{at, bytes})
}

// history follows how much memory control groups, the largest processes and the
// host use, so that a kill can be told how that grew. A nil one follows nothing.
type history struct {
	root   string
	layout *cgroup.Layout
	index  *cgroup.Index
	buf    []byte
	turn   int // where in the list of processes the next round looks

	mu        sync.Mutex
	groups    map[string]*series // by path in the memory hierarchy
	processes map[uint32]*series
	host      series
	left      int // groups beyond maxGroups
}

func newHistory(env *probe.Env, layout *cgroup.Layout) *history {
	return &history{root: env.Root, layout: layout, index: env.Cgroups, groups: map[string]*series{}, processes: map[uint32]*series{}}
}

func (h *history) run(ctx context.Context, env *probe.Env, every time.Duration) {
	probe.Every(ctx, every, func() error { h.round(env.Now()); return nil })
}

// round takes one point of everything.
func (h *history) round(now time.Time) {
	h.roundGroups(now)
	h.roundProcesses(now)
	if b, err := os.ReadFile(filepath.Join(h.root, "proc/meminfo")); err == nil {
		m := parseStat(b, meminfo)
		h.mu.Lock()
		h.host.add(now, m["total"]-min(m["available"], m["total"]))
		h.mu.Unlock()
	}
}

func (h *history) roundGroups(now time.Time) {
	if h.layout == nil || h.index == nil {
		return
	}
	file := "memory.current"
	if h.layout.IsV1("memory") {
		file = "memory.usage_in_bytes"
	}
	paths, left := chosen(h.index.Live())
	seen := make(map[string]bool, len(paths))
	for _, path := range paths {
		n, ok := h.number(h.layout.FileIn("memory", path, file))
		if !ok {
			continue // gone, or without the controller
		}
		seen[path] = true
		h.mu.Lock()
		s := h.groups[path]
		if s == nil {
			s = &series{}
			h.groups[path] = s
		}
		s.add(now, n)
		h.mu.Unlock()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.left = left
	for path := range h.groups {
		if !seen[path] {
			delete(h.groups, path)
		}
	}
}

// chosen are the groups to follow, and how many there are besides.
func chosen(live []cgroup.Entry) (paths []string, left int) {
	for _, workloads := range []bool{true, false} {
		for i := range live {
			if live[i].Workload() != workloads || live[i].Path == "/" {
				continue
			}
			if len(paths) == maxGroups {
				left++
				continue
			}
			paths = append(paths, live[i].Path)
		}
	}
	return paths, left
}

func (h *history) number(path string) (uint64, bool) {
	var err error
	if h.buf, err = procfs.ReadInto(path, h.buf); err != nil {
		return 0, false
	}
	return procfs.Uint(bytes.TrimSpace(h.buf))
}

// roundProcesses looks at those that are followed and at some others, and goes on
// to follow the largest.
func (h *history) roundProcesses(now time.Time) {
	pids, err := procfs.New(h.root).Pids()
	if err != nil || len(pids) == 0 {
		return
	}
	type found struct {
		pid        uint32
		rss, start uint64
	}
	var all []found
	look := func(pid uint32) {
		if rss, start, ok := h.process(pid); ok {
			all = append(all, found{pid, rss, start})
		}
	}
	h.mu.Lock()
	for pid := range h.processes {
		look(pid)
	}
	pids = slices.DeleteFunc(pids, func(p uint32) bool { return h.processes[p] != nil })
	h.mu.Unlock()
	for range min(maxLooks, len(pids)) {
		h.turn = (h.turn + 1) % len(pids)
		look(pids[h.turn])
	}
	slices.SortFunc(all, func(a, b found) int { return cmp.Compare(b.rss, a.rss) })
	h.mu.Lock()
	defer h.mu.Unlock()
	old := h.processes
	h.processes = make(map[uint32]*series, maxFollowed)
	for _, f := range all[:min(len(all), maxFollowed)] {
		s := old[f.pid]
		if s == nil || s.start != f.start {
			s = &series{start: f.start}
		}
		s.add(now, f.rss)
		h.processes[f.pid] = s
	}
}

// process reads the size of a process, and when it began.
func (h *history) process(pid uint32) (rss, start uint64, ok bool) {
	var err error
	if h.buf, err = procfs.ReadInto(filepath.Join(h.root, "proc", strconv.Itoa(int(pid)), "stat"), h.buf); err != nil {
		return 0, 0, false
	}
	f := bytes.Fields(h.buf[bytes.LastIndexByte(h.buf, ')')+1:])
	if len(f) < 22 {
		return 0, 0, false
	}
	start, ok1 := procfs.Uint(f[19])
	pages, ok2 := procfs.Uint(f[21])
	return pages * uint64(os.Getpagesize()), start, ok1 && ok2 && pages > 0 // a thread of the kernel has none
}

// growth tells how the memory of a group, or of the host when path is empty, came to
// be what it is now.
func (h *history) growth(path string, now time.Time, bytes uint64) (out []Point, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := &h.host
	if path != "" {
		s = h.groups[path]
	}
	if s == nil || len(s.points) == 0 {
		if h.left > 0 {
			return nil, fmt.Errorf("not followed: %d groups are more than %d", h.left+maxGroups, maxGroups)
		}
		return nil, fmt.Errorf("not known: it was not there, or not followed, when the agent looked last")
	}
	for _, p := range s.points {
		if p.at.Before(now) {
			out = append(out, Point{now.Sub(p.at).Seconds(), p.bytes})
		}
	}
	return append(out, Point{0, bytes}), nil
}

// grew tells how much a process has grown in what time; 0, 0 when it was not followed.
func (h *history) grew(pid uint32, now time.Time, rss uint64) (bytes int64, seconds float64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.processes[pid]
	if s == nil || len(s.points) == 0 || !s.points[0].at.Before(now) {
		return 0, 0
	}
	return int64(rss) - int64(s.points[0].bytes), now.Sub(s.points[0].at).Seconds()
}

// rise is the growth since the latest time at which the least was in use. It is
// none when that is less than a hundredth of what is in use now.
func rise(ps []Point) (bytes uint64, ago time.Duration, ok bool) {
	if len(ps) < 2 {
		return 0, 0, false
	}
	now, least := ps[len(ps)-1], ps[0]
	for _, p := range ps[:len(ps)-1] {
		if p.Bytes <= least.Bytes {
			least = p
		}
	}
	if now.Bytes < least.Bytes || now.Bytes-least.Bytes < now.Bytes/100 {
		return 0, 0, false
	}
	return now.Bytes - least.Bytes, time.Duration(least.SecondsAgo * float64(time.Second)), true
}
