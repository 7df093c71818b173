// Package enrich tells of a record who it is about: the process, and the
// container, pod or systemd unit.
//
// Records are filled from caches. A miss costs a read of /proc/PID/stat and
// /proc/PID/cgroup, which do not wait for the process, within a budget. What
// can hang (cmdline takes the mmap_lock of the process) is read by a few helper
// goroutines, and the record waits 5 ms for it, once: a process that is stuck
// costs the pipe that much, and many of them not more than eight times. What is
// not known by then is written into Record.Unresolved and counted, and the
// record goes on.
//
// The dead are remembered for 10 minutes: an event is often the last that is
// heard of a process or a container.
package enrich

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"huatuo/internal/enrich/moment"
	"huatuo/internal/kern/cgroup"
	"huatuo/internal/kern/clock"
	"huatuo/internal/kern/procfs"
	"huatuo/internal/signal"
)

// Name is what a runtime or the kubelet calls a container. The maps are not
// written to after they were given.
type Name struct {
	Namespace, Pod, PodUID, Name string
	Image, Runtime, QoS          string
	Labels, Annotations          map[string]string
}

// Names knows the names of containers. Its methods must not block, nor call the
// Enricher: they answer from what is there, and are asked again for what is not.
type Names interface {
	Container(id string) (Name, bool)
	// Pod returns the name of a pod by the uid that its cgroup path has.
	Pod(uid string) (Name, bool)
	// Pending returns a channel that is closed when the question for a
	// container that is being asked now has its answer; nil when none is.
	Pending(id string) <-chan struct{}
	// Renames counts changes of names that were given before.
	Renames() uint64
}

// Options say what an Enricher works with.
type Options struct {
	Root   string         // where the host's proc is found; empty means "/"
	Clock  *clock.Clock   // required
	Layout *cgroup.Layout // nil: no cgroup is read from /proc
	Index  *cgroup.Index  // nil: no cgroup id is known
	Names  Names          // nil: containers are called by their id
	Redact *Redactor      // nil: command lines are left out

	MaxProcesses int              // processes known, living and dead; 0 means 8192 (about 4 MB)
	MaxWorkloads int              // workloads with labels of their own; 0 means 500
	Now          func() time.Time // nil means time.Now
	Log          *slog.Logger     // nil means no log
}

// Enricher fills in records. It is safe for concurrent use.
type Enricher struct {
	opts   Options
	fs     *procfs.FS
	procs  *processes
	slow   *details
	budget *bucket
	work   *workloads
	seen   chan uint32
	moment *moment.Reader

	mu         sync.Mutex
	unresolved map[string]uint64
}

// What a record can lack, as written into Record.Unresolved.
const (
	lackProcess   = "process"   // nothing is known but the pid
	lackExe       = "exe"       //
	lackCmdline   = "cmdline"   //
	lackParent    = "parent"    //
	lackContainer = "container" // container, unit or cgroup
	lackResources = "resources" // of the workload at the moment
)

// New returns an Enricher. Run keeps its memory in order.
func New(o Options) *Enricher {
	if o.Root == "" {
		o.Root = "/"
	}
	if o.MaxProcesses <= 0 {
		o.MaxProcesses = 8192
	}
	if o.MaxWorkloads <= 0 {
		o.MaxWorkloads = 500
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Enricher{
		opts:       o,
		fs:         procfs.New(o.Root),
		procs:      newProcesses(o.MaxProcesses),
		slow:       newDetails(),
		budget:     &bucket{rate: readRate, burst: readBurst, tokens: readBurst},
		work:       newWorkloads(o.Index, o.Names, o.MaxWorkloads, o.Now),
		seen:       make(chan uint32, 1024),
		moment:     moment.New(o.Root, o.Layout, o.Now),
		unresolved: make(map[string]uint64),
	}
}

// Record fills r.Process and r.Container. What the probe has filled stays.
func (e *Enricher) Record(r *signal.Record) {
	e.takeArgs(r)
	var p proc
	var known bool
	if r.Process.PID != 0 {
		if p, known = e.process(r); known {
			e.fillProcess(&r.Process, &p)
			for _, what := range p.lacks(&r.Process) {
				e.lack(r, what)
			}
		} else {
			e.lack(r, lackProcess)
		}
	}
	if c := &r.Container; c.ID != "" || c.Unit != "" || c.Cgroup != "" {
		return
	}
	if w := e.work.get(r.CgroupID); w != nil {
		r.Container = w.container
		return
	}
	if known && p.cgroup != "" {
		r.Container = e.work.describe(p.cgroup)
		return
	}
	if r.CgroupID != 0 || r.Process.PID != 0 {
		e.lack(r, lackContainer)
	}
}

// Moment fills r.Resources of a record that Record has filled: what there was of
// everything when it happened, as soon after it as records come here. An event
// that is a mere marker needs none, and one that is about no workload and no
// process has none.
func (e *Enricher) Moment(r *signal.Record) {
	severity := r.Severity
	if severity == "" {
		severity = r.Schema.Severity
	}
	path := r.Container.Cgroup
	if severity == signal.Info || path == "" && r.CgroupID == 0 && r.Process.PID == 0 {
		return
	}
	w, err := e.moment.Workload(path)
	if err != nil {
		e.lack(r, lackResources)
	}
	if h := e.moment.Host(); h != nil || w != nil {
		r.Resources = &signal.Resources{Host: h, Workload: w}
	}
}

// Unresolved counts what could not be filled, by what.
func (e *Enricher) Unresolved() map[string]uint64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	m := make(map[string]uint64, len(e.unresolved))
	for what, n := range e.unresolved {
		m[what] = n
	}
	return m
}

func (e *Enricher) lack(r *signal.Record, what string) {
	r.Unresolved = append(r.Unresolved, what)
	e.mu.Lock()
	e.unresolved[what]++
	e.mu.Unlock()
}

// Labels returns the workload labels of the group with that id. known is false
// when nothing is known of the group yet; it is then being looked up. The host's
// own processes, in the root group, have unit="/"; a group that is neither a
// container's nor a unit's has its path there.
//
// At most Options.MaxWorkloads living workloads have labels of their own; one
// that comes later has container="other" for all its life. So has a container
// that was never asked for while it lived, and one younger than a minute when
// more than Options.MaxWorkloads have come within two hours, and a workload that
// has been gone for half a minute.
func (e *Enricher) Labels(cgroupID uint64) (namespace, pod, container, unit string, known bool) {
	l, known := e.work.labelsOf(cgroupID)
	return l.namespace, l.pod, l.container, l.unit, known
}

// Seen tells that these processes live, so that they are known when they are
// gone. It never blocks; when too many come at once some are left out.
func (e *Enricher) Seen(pids ...uint32) {
	for _, pid := range pids {
		select {
		case e.seen <- pid:
		default:
			return
		}
	}
}

const (
	// scanEvery is how often processes that no event named are learnt: a
	// process that lived longer is known when it is killed.
	scanEvery = 10 * time.Second
	// tidyEvery is how soon labels follow a container's end or new name.
	tidyEvery = time.Second
	// scanLimit bounds one scan to about 100 ms of CPU.
	scanLimit = 1000
)

// Run learns processes and forgets the dead until ctx is done.
func (e *Enricher) Run(ctx context.Context) error {
	tidy, scan := time.NewTimer(clock.Until(tidyEvery)), time.NewTimer(clock.Until(scanEvery))
	defer tidy.Stop()
	defer scan.Stop()
	e.scan()
	for {
		select {
		case <-ctx.Done():
			return nil
		case pid := <-e.seen:
			if due, _ := e.procs.due(pid, e.opts.Now()); due {
				e.wait(e.check(pid))
			}
		case <-tidy.C:
			e.work.tidy()
			tidy.Reset(clock.Until(tidyEvery))
		case <-scan.C:
			e.scan()
			scan.Reset(clock.Until(scanEvery))
		}
	}
}

// Close closes files that are kept open. Nobody may be asking meanwhile.
func (e *Enricher) Close() { e.moment.Close() }

// scan learns the processes that are new and notes which have gone.
func (e *Enricher) scan() {
	pids, err := e.fs.Pids()
	if err != nil {
		e.opts.Log.Warn("cannot list processes", "error", err)
		return
	}
	unknown := e.procs.alive(pids, e.opts.Now())
	for i, pid := range unknown {
		// A scan must not push out what events have asked for.
		if i >= scanLimit || e.procs.nearlyFull() {
			break
		}
		e.wait(e.check(pid))
	}
}
