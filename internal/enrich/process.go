package enrich

import (
	"container/list"
	"errors"
	"io/fs"
	"sync"
	"time"

	"huatuo/internal/kern/procfs"
	"huatuo/internal/signal"
)

const (
	// remember is how long the dead are known.
	remember = 10 * time.Minute
	// checkEvery is how long a pid is believed to be the same process. A pid
	// comes again after 32768 others at the soonest.
	checkEvery = time.Second
	// checkYoung applies in the first youth of a process: it is likely to
	// call exec still, and then has another name and command line.
	checkYoung = 100 * time.Millisecond
	youth      = 5 * time.Second
	// refresh is when exe and cmdline are read again although the name is
	// the same: exec of the same program, or a new process title.
	refresh = time.Minute
	// tickSlack covers the 10 ms tick of a start time and the two clocks.
	tickSlack = 50 * time.Millisecond

	// Looks at /proc for records. One costs 20 µs, of a new process about
	// 100 µs (BenchmarkRecordMiss): 1 % of a core when that goes on.
	readRate  = 100
	readBurst = 500
)

// key identifies a process: a pid comes again, with another start time.
type key struct {
	pid   uint32
	start uint64 // ticks since boot
}

// proc is what is known of one process.
type proc struct {
	key
	startTime *time.Time // shared by records; replaced, never written to
	comm      string
	ppid      uint32
	parent    string
	kernel    bool // a kernel thread has no exe, no cmdline
	cgroup    string
	exe       string
	cmdline   string
	noCmdline bool      // it was read, and is empty
	checked   time.Time // when stat was read
	detailed  time.Time // when exe and cmdline were asked for; zero when they must be
	gone      time.Time // zero while it lives

	older *proc // the process that had the pid before
	elem  *list.Element
}

// lacks lists what could not be filled into f, a process with p's details.
func (p *proc) lacks(f *signal.Process) []string {
	if p.kernel || (f.Exe != "" && f.Cmdline != "" && f.Parent != "") {
		return nil
	}
	var lacks []string
	if f.Exe == "" {
		lacks = append(lacks, lackExe)
	}
	if f.Cmdline == "" && !p.noCmdline {
		lacks = append(lacks, lackCmdline)
	}
	if f.Parent == "" && p.ppid != 0 {
		lacks = append(lacks, lackParent)
	}
	return lacks
}

// processes is the memory of processes, with a cap: the one that was not asked
// for the longest goes first.
type processes struct {
	mu    sync.Mutex
	byPID map[uint32]*proc
	lru   *list.List // of *proc, the last used in front
	max   int
}

func newProcesses(limit int) *processes {
	return &processes{byPID: make(map[uint32]*proc), lru: list.New(), max: limit}
}

// find returns the process with that key. Called with mu held.
func (ps *processes) find(k key) *proc {
	for p := ps.byPID[k.pid]; p != nil; p = p.older {
		if p.start == k.start {
			return p
		}
	}
	return nil
}

// insert adds the process that has the pid from now on. Called with mu held.
func (ps *processes) insert(p *proc, now time.Time) {
	if p.older = ps.byPID[p.pid]; p.older != nil && p.older.gone.IsZero() {
		p.older.gone = now
	}
	ps.byPID[p.pid] = p
	p.elem = ps.lru.PushFront(p)
	for ps.lru.Len() > ps.max {
		ps.remove(ps.lru.Back().Value.(*proc))
	}
}

// remove forgets p. Called with mu held.
func (ps *processes) remove(p *proc) {
	ps.lru.Remove(p.elem)
	if head := ps.byPID[p.pid]; head == p {
		if p.older == nil {
			delete(ps.byPID, p.pid)
		} else {
			ps.byPID[p.pid] = p.older
		}
		return
	}
	for q := ps.byPID[p.pid]; q != nil; q = q.older {
		if q.older == p {
			q.older = p.older
			return
		}
	}
}

// due tells whether stat of pid should be read (again), and whether pid is known.
func (ps *processes) due(pid uint32, now time.Time) (due, known bool) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	p := ps.byPID[pid]
	if p == nil {
		return true, false
	}
	every := checkEvery
	if p.startTime != nil && p.checked.Sub(*p.startTime) < youth {
		every = checkYoung
	}
	return now.Sub(p.checked) >= every, true
}

// alive takes the list of all living processes: it notes who is gone, forgets
// those who are so for long, and returns those it does not know.
func (ps *processes) alive(pids []uint32, now time.Time) (unknown []uint32) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	living := make(map[uint32]struct{}, len(pids))
	for _, pid := range pids {
		living[pid] = struct{}{}
		if p := ps.byPID[pid]; p == nil || !p.gone.IsZero() {
			unknown = append(unknown, pid)
		}
	}
	for e := ps.lru.Front(); e != nil; {
		p := e.Value.(*proc)
		e = e.Next()
		if _, ok := living[p.pid]; !ok && p.gone.IsZero() {
			p.gone = now
		}
		if !p.gone.IsZero() && now.Sub(p.gone) > remember {
			ps.remove(p)
		}
	}
	return unknown
}

func (ps *processes) nearlyFull() bool {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	return ps.lru.Len() >= ps.max*3/4
}

// process finds the process that r is about, reading what is missing.
func (e *Enricher) process(r *signal.Record) (proc, bool) {
	pid := r.Process.PID
	now := e.opts.Now()
	if due, known := e.procs.due(pid, now); due && e.budget.take(now, known) {
		e.wait(e.check(pid))
	}
	e.procs.mu.Lock()
	defer e.procs.mu.Unlock()
	for p := e.procs.byPID[pid]; p != nil; p = p.older {
		start := e.opts.Clock.Ticks(p.start)
		if st := r.Process.StartTime; st != nil && st.Sub(start).Abs() > tickSlack {
			continue
		}
		if !r.Time.IsZero() && start.After(r.Time.Add(tickSlack)) {
			continue // the record is about the process that had the pid before
		}
		// The wall clock may have been set since.
		if p.startTime == nil || p.startTime.Sub(start).Abs() > tickSlack {
			moved := start // a copy, so that start itself needs no heap
			p.startTime = &moved
		}
		e.procs.lru.MoveToFront(p.elem)
		return *p, true
	}
	return proc{}, false
}

func (e *Enricher) fillProcess(f *signal.Process, p *proc) {
	fill(&f.Comm, p.comm)
	fill(&f.Exe, p.exe)
	fill(&f.Cmdline, p.cmdline)
	fill(&f.Parent, p.parent)
	if f.StartTime == nil {
		f.StartTime = p.startTime
	}
	if f.ParentPID == 0 {
		f.ParentPID = p.ppid
	}
}

func fill(to *string, from string) {
	if *to == "" {
		*to = from
	}
}

// check reads stat of pid, and of a new process what else does not block. It
// starts the reading of exe and cmdline when they are not known; the caller
// may wait for the job that it returns.
func (e *Enricher) check(pid uint32) *job {
	now := e.opts.Now()
	st, err := e.fs.Stat(pid)
	if err != nil {
		e.missed(pid, now, errors.Is(err, fs.ErrNotExist))
		return nil
	}
	k := key{pid, st.StartTicks}
	cgroup := e.cgroupOf(pid)

	ps := e.procs
	ps.mu.Lock()
	p := ps.find(k)
	if p == nil {
		p = &proc{key: k}
		ps.insert(p, now)
	}
	if p.comm != st.Comm { // exec: better nothing than what was before
		p.detailed, p.exe, p.cmdline, p.noCmdline = time.Time{}, "", "", false
	}
	p.gone = time.Time{}
	if p.startTime == nil {
		start := e.opts.Clock.Ticks(k.start)
		p.startTime = &start
	}
	newParent := p.ppid != st.PPID || p.parent == ""
	p.comm, p.ppid, p.kernel, p.checked = st.Comm, st.PPID, st.KernelThread(), now
	if cgroup != "" {
		p.cgroup = cgroup
	}
	want := !p.kernel && !st.Zombie() && p.wantsDetails(now)
	if want {
		p.detailed = now
	}
	ps.mu.Unlock()

	if newParent {
		e.learnParent(k, st.PPID)
	}
	if !want {
		return nil
	}
	j := e.slow.start(k, func() { e.readDetails(k) })
	if j == nil { // all helpers are busy
		e.update(k, func(p *proc) { p.detailed = time.Time{} })
	}
	return j
}

// wantsDetails tells whether exe and cmdline should be read. A process that was
// asked in its youth is asked once more after it.
func (p *proc) wantsDetails(now time.Time) bool {
	if p.detailed.IsZero() || now.Sub(p.detailed) >= refresh {
		return true
	}
	adult := p.startTime.Add(youth)
	return p.detailed.Before(adult) && !now.Before(adult)
}

// missed notes that stat of pid could not be read.
func (e *Enricher) missed(pid uint32, now time.Time, gone bool) {
	e.procs.mu.Lock()
	defer e.procs.mu.Unlock()
	if p := e.procs.byPID[pid]; p != nil {
		p.checked = now
		if gone && p.gone.IsZero() {
			p.gone = now
		}
	}
}

// cgroupOf reads pid's path in the hierarchy that gives a workload's identity.
// In hybrid mode a runtime or a person may have made a group in some hierarchies
// only; the first that tells of a container is then better than the root.
func (e *Enricher) cgroupOf(pid uint32) string {
	if e.opts.Layout == nil {
		return ""
	}
	cs, err := e.fs.Cgroup(pid)
	if err != nil {
		return ""
	}
	path := e.opts.Layout.ProcPath(cs.Path)
	if path == "/" {
		path = containerPath(cs, path)
	}
	return path
}

func (e *Enricher) learnParent(k key, ppid uint32) {
	if ppid == 0 {
		return
	}
	e.procs.mu.Lock()
	p := e.procs.byPID[ppid]
	var comm string
	if p != nil && p.gone.IsZero() {
		comm = p.comm
	}
	e.procs.mu.Unlock()
	if comm == "" {
		st, err := e.fs.Stat(ppid)
		if err != nil {
			return
		}
		comm = st.Comm
	}
	e.update(k, func(p *proc) { p.parent = comm })
}

// update changes the process with that key, when it is still known.
func (e *Enricher) update(k key, change func(*proc)) {
	e.procs.mu.Lock()
	defer e.procs.mu.Unlock()
	if p := e.procs.find(k); p != nil {
		change(p)
	}
}

// bucket is a token bucket.
type bucket struct {
	mu          sync.Mutex
	rate, burst float64
	tokens      float64
	last        time.Time
}

// take takes a token. Half of the burst is kept for what cannot wait: a process
// that is not known goes before the question whether a known one is still it.
func (b *bucket) take(now time.Time, couldWait bool) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if d := now.Sub(b.last); d > 0 {
		b.tokens = min(b.burst, b.tokens+d.Seconds()*b.rate)
		b.last = now
	}
	if b.tokens < 1 || (couldWait && b.tokens < b.burst/2) {
		return false
	}
	b.tokens--
	return true
}

// containerPath returns the path in cs that tells of a container, else path.
func containerPath(cs procfs.Cgroups, path string) string {
	for _, c := range cs {
		if isContainer(c.Path) {
			return c.Path
		}
	}
	return path
}
