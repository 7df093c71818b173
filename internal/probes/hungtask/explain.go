package hungtask

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"huatuo/internal/kern/procfs"
	"huatuo/internal/probe"
	"huatuo/internal/signal"
)

// Locks by the number the program gives them: enum lock.
const (
	lockUntold = iota
	lockNone
)

var lockNames = [...]string{"", "", "mutex", "semaphore", "rwsem"}

// maxSplit tasks of a walk are looked at for what they wait for, before they are
// told as one: 0.1 ms each.
const maxSplit = 64

// maxServerScan bounds how many processes are looked at for the one that serves a FUSE file
// system: 10 µs each and 3 µs a descriptor.
const maxServerScan = 5000

// explainer finds out what a task waits for and who holds it up.
type explainer struct {
	find   *finder
	source *procSource
	symbol func(uint64) string
	wait   time.Duration // for /proc, which may hang with the task
	slot   chan struct{} // holds a token while somebody looks: one at most may hang
}

// patience is how long an event waits for /proc: a scan of all processes for a
// FUSE server takes some ten milliseconds.
const patience = 500 * time.Millisecond

func newExplainer(env *probe.Env) *explainer {
	return &explainer{find: newFinder(env.Root), source: newProcSource(env), symbol: env.Symbol, wait: patience, slot: make(chan struct{}, 1)}
}

// lock takes over what the program saw of the lock.
func (b *HungTask) lock(t *task, r *signal.Record) {
	if t.lock == lockUntold || int(t.lock) >= len(lockNames) {
		if b.WaitClass == classLock {
			b.Missing = append(b.Missing, "owner: not known on this kernel (Linux 6.16 with CONFIG_DETECT_HUNG_TASK_BLOCKER, BTF)")
		}
		return
	}
	b.Lock = lockNames[t.lock]
	switch {
	case t.owner != 0:
		b.Owner = &signal.Party{Process: signal.Process{PID: t.ownerTGID, TID: t.owner, Comm: t.ownerComm}}
		b.LastReader = t.readers
		r.Parties = append(r.Parties, b.Owner)
	case b.Lock != "":
		b.Missing = append(b.Missing, "owner: the lock has none at the moment")
	case b.WaitClass == classLock:
		b.Missing = append(b.Missing, "owner: the kernel keeps none for this kind of lock")
	}
}

// split parts the tasks of each group by what they wait for, so that one event is
// about one device, mount or server. It looks at maxSplit tasks in all and for no
// longer than e.wait; those beyond stay with the first of their group.
func (e *explainer) split(groups []*group) (out []*group) {
	end, looked := time.Now().Add(e.wait), 0
	for _, g := range groups {
		if len(g.tasks) == 1 {
			out = append(out, g)
			continue
		}
		parts, first := map[string]*group{}, ""
		for i := range g.tasks {
			key := first
			if looked < maxSplit && time.Now().Before(end) {
				looked++
				key = e.place(&g.tasks[i]).key()
			}
			if i == 0 {
				first = key
			}
			if parts[key] == nil {
				parts[key] = &group{}
				out = append(out, parts[key])
			}
			parts[key].add(g.tasks[i], g.ages[i])
		}
	}
	return out
}

// place finds what a task waits for; nil when that cannot be told in time.
func (e *explainer) place(t *task) (w *WaitsFor) {
	e.aside(func() func() {
		found := e.find.find(t.tgid, t.pid, t.comm, e.functions(t.stack, t.frames))
		return func() { w = found }
	})
	return w
}

// aside calls look, which reads /proc and so may hang, in a goroutine of its own,
// and then what it returns in this one. The word is why it did not: empty when it did.
func (e *explainer) aside(look func() func()) (hangs string) {
	timer := time.NewTimer(e.wait)
	defer timer.Stop()
	done := make(chan func(), 1)
	select {
	case e.slot <- struct{}{}:
		go func() {
			defer func() { <-e.slot }()
			done <- look()
		}()
	case <-timer.C:
		return "/proc of another task does not answer"
	}
	select {
	case take := <-done:
		take()
		return ""
	case <-timer.C:
		return "/proc of the task does not answer"
	}
}

// result is what was found aside.
type result struct {
	place       *WaitsFor
	owner       *task
	ownerState  string
	server      *signal.Party
	serverState string
}

// explain fills in the rest of an event. walk is what waited at the same time.
func (e *explainer) explain(r *signal.Record, walk []task) {
	b := r.Body.(*HungTask)
	functions := e.functions(r.KernelIPs, r.KernelStack)
	process, owner := r.Process, signal.Process{} // a copy: the record goes on when this hangs
	if b.Owner != nil {
		owner = b.Owner.Process
	}
	hangs := e.aside(func() func() {
		found := e.look(process, owner, functions, walk)
		return func() { b.fill(r, found) }
	})
	if hangs != "" {
		b.Missing = append(b.Missing, "waits_for: "+hangs)
	}
	r.Verdict = b.verdict()
}

// look reads /proc.
func (e *explainer) look(p, owner signal.Process, functions []string, walk []task) (out result) {
	out.place = e.find.find(p.PID, p.TID, p.Comm, functions)
	if owner.TID != 0 {
		i := slices.IndexFunc(walk, func(t task) bool { return t.pid == owner.TID })
		if i >= 0 {
			out.owner = &walk[i]
		} else {
			out.owner = e.source.seen(owner.PID, owner.TID)
		}
		out.ownerState = e.source.state(owner.PID, owner.TID)
		if out.place == nil {
			out.place = e.find.find(owner.PID, owner.TID, owner.Comm, e.functions(out.owner.stack, out.owner.frames))
		}
	}
	if w := out.place; w != nil && w.fuse != 0 {
		if out.server = e.find.server(w.fuse); out.server != nil {
			out.serverState = e.source.state(out.server.Process.PID, out.server.Process.PID)
			out.server.CgroupID = e.source.cgroup(filepath.Join(e.find.proc, strconv.Itoa(int(out.server.Process.PID))))
		}
	}
	return out
}

func (e *explainer) functions(ips []uint64, frames []signal.Frame) []string {
	fs := names(ips, e.symbol)
	for _, f := range frames {
		fs = append(fs, f.Function)
	}
	return fs
}

func (b *HungTask) fill(r *signal.Record, f result) {
	if b.Owner != nil && f.owner != nil {
		b.Owner.CgroupID, b.Owner.KernelIPs, b.Owner.KernelStack, b.OwnerState, b.OwnerWait = f.owner.cgroup, f.owner.stack, f.owner.frames, f.ownerState, f.owner.wait
	}
	if b.WaitsFor = f.place; f.place == nil {
		b.Missing = append(b.Missing, "waits_for: not in a system call on a file")
		return
	}
	for _, n := range f.place.numbers {
		r.Keys = append(r.Keys, "dev:"+n)
	}
	if b.Server, b.ServerState = f.server, f.serverState; b.Server != nil {
		r.Parties = append(r.Parties, b.Server)
	}
}

// verdict is one sentence on what it waits for, empty when nothing is known.
func (b *HungTask) verdict() string {
	var parts []string
	if o := b.Owner; o != nil {
		who := fmt.Sprintf("%s (pid %d) holds", o.Process.Comm, o.Process.PID)
		if b.LastReader {
			who = fmt.Sprintf("readers hold, the last of which was %s (pid %d)", o.Process.Comm, o.Process.PID)
		} else if b.Lock == "semaphore" {
			who = fmt.Sprintf("%s (pid %d) was the last to take", o.Process.Comm, o.Process.PID)
		}
		s := "it waits for a " + b.Lock + " that " + who
		if b.OwnerWait != "" && b.OwnerState != "R" {
			s += ", which waits in " + b.OwnerWait
		}
		parts = append(parts, s)
	}
	if w := b.WaitsFor; w != nil {
		parts = append(parts, w.verdict(b.Server, b.ServerState))
	}
	return strings.Join(parts, "; ")
}

func (w *WaitsFor) verdict(server *signal.Party, state string) string {
	on := w.Mount
	if w.FSType != "" {
		on += " (" + w.FSType + ", " + w.Source + ")"
	}
	switch w.Kind {
	case onFUSE:
		if server == nil {
			return "the file is on " + on + ", which a process serves"
		}
		return fmt.Sprintf("the file is on %s, which %s (pid %d, state %s) serves", on, server.Process.Comm, server.Process.PID, state)
	case onServer:
		return "the file is on " + on + ", which a server has"
	case onFrozen:
		return on + " is frozen: nobody can write until it is thawed (fsfreeze --unfreeze)"
	case onDevice:
		if w.Mount == "" {
			return "it uses the device " + w.Device
		}
		return "the file is on the device " + w.Device + ", " + on
	}
	return "the file is on " + on
}

// seen describes a thread that does not wait uninterruptibly, or has begun to.
func (s *procSource) seen(tgid, tid uint32) *task {
	dir := filepath.Join(s.proc, strconv.Itoa(int(tgid)), "task", strconv.Itoa(int(tid)))
	t := &task{pid: tid, tgid: tgid, frames: s.stack(dir), cgroup: s.cgroup(dir)}
	functions := make([]string, len(t.frames))
	for i := range t.frames {
		functions[i] = t.frames[i].Function
	}
	t.wait, t.class = classify(functions)
	return t
}

// state of a thread, one letter, empty when it has ended.
func (s *procSource) state(tgid, tid uint32) string {
	b, err := os.ReadFile(filepath.Join(s.proc, strconv.Itoa(int(tgid)), "task", strconv.Itoa(int(tid)), "stat"))
	if err != nil {
		return ""
	}
	st, err := procfs.ParseStat(b)
	if err != nil {
		return ""
	}
	return string(st.State)
}

// server finds the process that has the device of a FUSE connection open, nil when
// the kernel does not tell by fdinfo.
func (f *finder) server(connection uint32) *signal.Party {
	dirs, err := os.ReadDir(f.proc)
	if err != nil {
		return nil
	}
	want := strconv.FormatUint(uint64(connection), 10)
	looked := 0
	for _, d := range dirs {
		pid, err := strconv.ParseUint(d.Name(), 10, 32)
		if err != nil {
			continue
		}
		if looked++; looked > maxServerScan {
			return nil
		}
		dir := filepath.Join(f.proc, d.Name())
		if serves(dir, want) {
			comm, _ := os.ReadFile(dir + "/comm")
			return &signal.Party{Process: signal.Process{PID: uint32(pid), TID: uint32(pid), Comm: strings.ToValidUTF8(strings.TrimSuffix(string(comm), "\n"), "\uFFFD")}}
		}
	}
	return nil
}

func serves(dir, connection string) bool {
	fds, err := os.ReadDir(dir + "/fd")
	if err != nil {
		return false
	}
	for _, fd := range fds {
		if to, err := os.Readlink(dir + "/fd/" + fd.Name()); err != nil || to != "/dev/fuse" {
			continue
		}
		b, err := os.ReadFile(dir + "/fdinfo/" + fd.Name())
		if err != nil {
			continue
		}
		for line := range bytes.Lines(b) {
			if v, ok := bytes.CutPrefix(line, []byte("fuse_connection:")); ok && string(bytes.TrimSpace(v)) == connection {
				return true
			}
		}
	}
	return false
}
