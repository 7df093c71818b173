package oomkill

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"huatuo/internal/kern/cgroup"
	"huatuo/internal/kern/procfs"
	"huatuo/internal/signal"
)

// snapshotter looks at memory just after a kill.
type snapshotter struct {
	root   string
	layout *cgroup.Layout // nil: no control groups
	log    *kmsg          // nil: not readable
	past   *history       // nil: none is kept
	cfg    Config
}

// The kernel writes the victim's size to the log a moment after it told us.
const (
	logTries = 10
	logWait  = 20 * time.Millisecond
)

// take fills in the rest of a record.
func (s *snapshotter) take(r *signal.Record) {
	b := r.Body.(*OOMKill)
	s.late(r) // first: the victim is about to go
	if _, inside := b.guess(); !inside {
		s.processes(r, b) // likewise
	}
	rep := s.report(b, r.Process.PID, r.Process.TID)
	s.explain(r, b, &rep)
	s.memcg(b, rep.memcg)
	if b.Memcg != nil {
		s.members(r, b)
	} else if b.Processes == nil {
		s.processes(r, b)
	}
	s.host(b)
	s.growth(r, b)
	b.Log = shorten(rep.lines, s.cfg.LogLines)
	r.Title = b.title(r.Process)
}

// growth tells how it came to that.
func (s *snapshotter) growth(r *signal.Record, b *OOMKill) {
	if s.past == nil {
		return
	}
	for i := range b.Processes {
		p := &b.Processes[i]
		p.Grew, p.GrewIn = s.past.grew(p.PID, r.Time, p.RSSBytes)
	}
	path, used := "", b.Host["total"]-min(b.Host["available"], b.Host["total"])
	if b.Memcg != nil {
		path, used = b.Memcg.Path, b.Memcg.UsageBytes
	} else if b.Constraint == "memcg" {
		return // which one is told to be missing
	}
	var err error
	if b.Growth, err = s.past.growth(path, r.Time, used); err != nil {
		b.miss("growth", err)
	}
}

func (b *OOMKill) miss(what string, err error) {
	if errors.Is(err, fs.ErrNotExist) {
		err = errors.New("it is not there (any more)")
	}
	b.Missing = append(b.Missing, what+": "+err.Error())
}

// late asks /proc for what the tracepoint does not tell before Linux 6.9.
func (s *snapshotter) late(r *signal.Record) {
	if r.CgroupID != 0 {
		return
	}
	p := procfs.New(s.root)
	if st, err := p.Stat(r.Process.TID); err == nil {
		r.Process.Comm = st.Comm
	}
	if data, err := os.ReadFile(filepath.Join(s.root, "proc", strconv.Itoa(int(r.Process.TID)), "status")); err == nil {
		if n := parseStat(data, map[string]string{"Tgid": "tgid"})["tgid"]; n > 0 {
			r.Process.PID = uint32(n)
		}
	}
	if s.layout == nil {
		return
	}
	if cs, err := p.Cgroup(r.Process.PID); err == nil {
		r.CgroupID, _ = cgroup.ID(s.layout.IdentityRoot + s.layout.ProcPath(cs.Path))
	}
}

func (s *snapshotter) report(b *OOMKill, pid, tid uint32) report {
	if s.log == nil {
		return report{}
	}
	var rep report
	for range logTries {
		lines, err := s.log.read()
		if err != nil {
			b.miss("log", err)
			return rep
		}
		if rep = findReport(lines, pid); !rep.killed && tid != pid {
			rep = findReport(lines, tid)
		}
		if rep.killed {
			return rep
		}
		time.Sleep(logWait)
	}
	if rep.constraint == "" {
		b.miss("log", errors.New("no report: the victim was about to exit by itself, or the kernel's messages are suppressed"))
	}
	return rep
}

// explain takes over what the report says.
func (s *snapshotter) explain(r *signal.Record, b *OOMKill, rep *report) {
	switch rep.constraint {
	case "NONE":
		b.Constraint = "host"
	case "MEMCG", "CPUSET", "MEMORY_POLICY":
		b.Constraint = strings.ToLower(rep.constraint)
	default:
		if _, ok := b.guess(); ok {
			b.Constraint = "memcg"
		}
	}
	if rep.killed { // exact, where the program has what each CPU did not keep to itself
		b.AnonBytes, b.FileBytes, b.ShmemBytes, b.VirtualBytes, b.ScoreAdj = rep.anon, rep.file, rep.shmem, rep.vm, rep.scoreAdj
		if r.Process.Comm == "" {
			r.Process.Comm = rep.comm
		}
	}
}

// memcg describes the cgroup that is out of memory, whose path the report
// gives; without a report it is the one that was at its limit.
func (s *snapshotter) memcg(b *OOMKill, path string) {
	if s.layout == nil {
		return
	}
	for i := range b.Levels {
		if p, err := s.layout.PathByID("memory", b.Levels[i].id); err == nil {
			b.Levels[i].Path = p
		}
	}
	if b.Constraint != "memcg" {
		return
	}
	at, found := b.guess()
	if path == "" {
		path = at.Path
	} else if i := slices.IndexFunc(b.Levels, func(l Level) bool { return l.Path == path }); i >= 0 {
		at, found = b.Levels[i], true
	} else {
		found = false
	}
	if path == "" {
		b.miss("memcg", errors.New("its path is not known"))
		return
	}
	m := &Memcg{Path: path, Stat: map[string]uint64{}}
	if found {
		m.LimitBytes, m.UsageBytes = at.LimitBytes, at.UsageBytes
	}
	s.files(b, m)
	b.Memcg = m
}

func (s *snapshotter) dir(path string) string {
	return filepath.Dir(s.layout.FileIn("memory", path, "x"))
}

// files reads the cgroup's own files.
func (s *snapshotter) files(b *OOMKill, m *Memcg) {
	v1 := s.layout.IsV1("memory")
	one := func(v1File, v2File string) uint64 {
		f := v2File
		if v1 {
			f = v1File
		}
		data, err := os.ReadFile(s.layout.FileIn("memory", m.Path, f))
		if err != nil {
			return 0
		}
		n, _ := procfs.Uint(bytes.TrimSpace(data)) // "max" is 0: none
		if n >= noLimit {
			n = 0
		}
		return n
	}
	if m.LimitBytes == 0 {
		m.LimitBytes, m.UsageBytes = one("memory.limit_in_bytes", "memory.max"), one("memory.usage_in_bytes", "memory.current")
	}
	m.PeakBytes = one("memory.max_usage_in_bytes", "memory.peak")
	stat, err := os.ReadFile(s.layout.FileIn("memory", m.Path, "memory.stat"))
	if err != nil {
		b.miss("memcg", err)
		return
	}
	names := v2Stat
	if v1 {
		names = v1Stat
		m.Failures = one("memory.failcnt", "")
		if n := one("memory.kmem.usage_in_bytes", ""); n > 0 {
			m.Stat["kernel"] = n
		}
	} else if ev, err := os.ReadFile(s.layout.FileIn("memory", m.Path, "memory.events")); err == nil {
		m.Failures = parseStat(ev, map[string]string{"max": "max"})["max"]
	}
	for k, v := range parseStat(stat, names) {
		m.Stat[k] = v
	}
}

// Names in memory.stat, and ours, which are those of v2.
var (
	v1Stat = map[string]string{
		"total_rss": "anon", "total_cache": "file", "total_shmem": "shmem", "total_mapped_file": "file_mapped", "total_dirty": "file_dirty",
		"total_writeback": "file_writeback", "total_swap": "swap", "total_unevictable": "unevictable", "total_inactive_anon": "inactive_anon",
		"total_active_anon": "active_anon", "total_inactive_file": "inactive_file", "total_active_file": "active_file",
	}
	v2Stat = map[string]string{
		"anon": "anon", "file": "file", "shmem": "shmem", "file_mapped": "file_mapped", "file_dirty": "file_dirty", "file_writeback": "file_writeback",
		"swapcached": "swapcached", "unevictable": "unevictable", "kernel": "kernel", "kernel_stack": "kernel_stack", "pagetables": "pagetables",
		"slab": "slab", "sock": "sock", "inactive_anon": "inactive_anon", "active_anon": "active_anon", "inactive_file": "inactive_file", "active_file": "active_file",
	}
	meminfo = map[string]string{
		"MemTotal": "total", "MemFree": "free", "MemAvailable": "available", "AnonPages": "anon", "Cached": "cached", "Buffers": "buffers", "Shmem": "shmem",
		"Slab": "slab", "SUnreclaim": "slab_unreclaimable", "KernelStack": "kernel_stack", "PageTables": "page_tables", "SwapTotal": "swap_total",
		"SwapFree": "swap_free", "Dirty": "dirty", "Writeback": "writeback", "Mlocked": "mlocked", "Hugetlb": "hugetlb",
	}
)

// parseStat reads lines of a name, perhaps a colon, and a number, perhaps of kB.
func parseStat(data []byte, names map[string]string) map[string]uint64 {
	out := make(map[string]uint64)
	for line := range bytes.Lines(data) {
		f := bytes.Fields(line)
		if len(f) < 2 {
			continue
		}
		name := names[string(bytes.TrimSuffix(f[0], []byte(":")))]
		n, ok := procfs.Uint(f[1])
		if name == "" || !ok {
			continue
		}
		if len(f) > 2 && string(f[2]) == "kB" {
			n <<= 10
		}
		out[name] = n
	}
	return out
}

func (s *snapshotter) host(b *OOMKill) {
	data, err := os.ReadFile(filepath.Join(s.root, "proc/meminfo"))
	if err != nil {
		b.miss("host", err)
		return
	}
	b.Host = parseStat(data, meminfo)
}

// maxScan bounds how many processes a snapshot looks at: 10 µs each.
const maxScan = 10_000

// processes lists the largest of the host.
func (s *snapshotter) processes(r *signal.Record, b *OOMKill) {
	if s.cfg.Processes == 0 {
		return
	}
	pids, err := procfs.New(s.root).Pids()
	if err != nil {
		b.miss("processes", err)
		return
	}
	if len(pids) > maxScan {
		b.miss("processes", fmt.Errorf("there are %d, looked at %d", len(pids), maxScan))
		pids = pids[:maxScan]
	}
	b.Processes = s.sized(pids, s.cfg.Processes)
	s.addVictim(r, b)
}

// members lists the largest of the cgroup. The victim may have left it, so it
// is put in by what the program saw.
func (s *snapshotter) members(r *signal.Record, b *OOMKill) {
	if s.cfg.Processes == 0 {
		return
	}
	pids, err := procsIn(s.dir(b.Memcg.Path), maxScan)
	if err != nil {
		b.miss("processes", err)
	}
	b.Processes = s.sized(pids, s.cfg.Processes)
	s.addVictim(r, b)
}

func (s *snapshotter) addVictim(r *signal.Record, b *OOMKill) {
	rss := b.AnonBytes + b.FileBytes + b.ShmemBytes
	i := slices.IndexFunc(b.Processes, func(p Process) bool { return p.PID == r.Process.PID })
	if i < 0 {
		i = len(b.Processes)
		b.Processes = append(b.Processes, Process{PID: r.Process.PID, Comm: r.Process.Comm})
	}
	b.Processes[i].Victim = true
	b.Processes[i].RSSBytes = max(rss, b.Processes[i].RSSBytes)
	b.Processes = largest(b.Processes, s.cfg.Processes)
}

// sized reads the size of each process and returns the n largest.
func (s *snapshotter) sized(pids []uint32, n int) []Process {
	page := uint64(os.Getpagesize())
	var ps []Process
	buf := make([]byte, 256)
	for _, pid := range pids {
		dir := filepath.Join(s.root, "proc", strconv.Itoa(int(pid)))
		data, err := procfs.ReadInto(filepath.Join(dir, "statm"), buf)
		if err != nil {
			continue // gone
		}
		f := bytes.Fields(data)
		if len(f) < 2 {
			continue
		}
		if rss, ok := procfs.Uint(f[1]); ok && rss > 0 {
			ps = append(ps, Process{PID: pid, RSSBytes: rss * page})
		}
	}
	ps = largest(ps, n)
	for i := range ps {
		comm, _ := os.ReadFile(filepath.Join(s.root, "proc", strconv.Itoa(int(ps[i].PID)), "comm"))
		ps[i].Comm = strings.ToValidUTF8(strings.TrimSuffix(string(comm), "\n"), "\uFFFD")
	}
	return ps
}

func largest(ps []Process, n int) []Process {
	slices.SortStableFunc(ps, func(a, b Process) int { return cmp.Compare(b.RSSBytes, a.RSSBytes) })
	return ps[:min(n, len(ps))]
}

// procsIn returns the processes of a group and of those below it.
func procsIn(dir string, limit int) ([]uint32, error) {
	var pids []uint32
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			if path == dir {
				return err
			}
			return nil // a group below that was removed
		}
		if e.IsDir() {
			return nil
		}
		if e.Name() != "cgroup.procs" {
			return nil
		}
		data, _ := os.ReadFile(path)
		for f := range bytes.FieldsSeq(data) {
			if n, ok := procfs.Uint(f); ok && n > 0 && len(pids) < limit {
				pids = append(pids, uint32(n))
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list the cgroup's processes: %w", err)
	}
	return pids, nil
}
