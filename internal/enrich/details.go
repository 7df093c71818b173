package enrich

import (
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"huatuo/internal/signal"
)

const (
	// helpers is how many reads of /proc may hang at a time; each holds an
	// operating-system thread. When all do, command lines are not known.
	helpers = 8
	// patience is how long a record waits for the command line of a process
	// that is not known yet: a read takes 20 µs when nothing is wrong.
	patience = 5 * time.Millisecond
	// maxArgs is how much of a command line is read, and maxCmdline how much
	// of it is kept once it is redacted. Java has class paths of 100 KiB.
	maxArgs    = 4096
	maxCmdline = 1024
)

// details reads what can hang, in a bounded number of goroutines and never
// twice at a time for one process.
type details struct {
	slots chan struct{}
	mu    sync.Mutex
	jobs  map[key]*job
}

// job is one read in progress.
type job struct {
	done chan struct{}
	late bool // somebody waited in vain; guarded by details.mu
}

func newDetails() *details {
	return &details{slots: make(chan struct{}, helpers), jobs: make(map[key]*job)}
}

// start runs read in a helper. It returns the job that already runs for k when
// there is one, and nil when no helper is free.
func (d *details) start(k key, read func()) *job {
	d.mu.Lock()
	defer d.mu.Unlock()
	if j := d.jobs[k]; j != nil {
		return j
	}
	select {
	case d.slots <- struct{}{}:
	default:
		return nil
	}
	j := &job{done: make(chan struct{})}
	d.jobs[k] = j
	go func() {
		defer func() {
			d.mu.Lock()
			delete(d.jobs, k)
			d.mu.Unlock()
			<-d.slots
			close(j.done)
		}()
		read()
	}()
	return j
}

// wait waits a short time for j, and not at all when that was in vain before.
func (e *Enricher) wait(j *job) {
	if j == nil {
		return
	}
	e.slow.mu.Lock()
	late := j.late
	e.slow.mu.Unlock()
	if late {
		return
	}
	t := time.NewTimer(patience)
	defer t.Stop()
	select {
	case <-j.done:
	case <-t.C:
		e.slow.mu.Lock()
		j.late = true
		e.slow.mu.Unlock()
	}
}

// readDetails reads exe and cmdline. It may hang in the second.
func (e *Enricher) readDetails(k key) {
	if exe, err := e.fs.Exe(k.pid); err == nil {
		e.update(k, func(p *proc) { p.exe = clean(exe, len(exe)) })
	}
	if e.opts.Redact == nil {
		e.update(k, func(p *proc) { p.noCmdline = true })
		return
	}
	args, err := e.fs.Cmdline(k.pid, maxArgs)
	if err != nil {
		return
	}
	// The pid may have come to another process while this one read.
	if st, err := e.fs.Stat(k.pid); err != nil || st.StartTicks != k.start || st.Zombie() {
		return
	}
	line := clean(e.opts.Redact.Cmdline(args), maxCmdline)
	e.update(k, func(p *proc) { p.cmdline, p.noCmdline = line, line == "" })
}

// takeArgs makes the command line of what the kernel told of it: a process that
// lives for a millisecond has one too.
func (e *Enricher) takeArgs(r *signal.Record) {
	if len(r.Args) > 0 && e.opts.Redact != nil {
		fill(&r.Process.Cmdline, clean(e.opts.Redact.Cmdline(r.Args), maxCmdline))
	}
	r.Args = nil
}

// clean makes s valid UTF-8 of at most limit bytes.
func clean(s string, limit int) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= limit {
		return s
	}
	const more = "…"
	s = s[:limit-len(more)]
	for len(s) > 0 {
		if r, n := utf8.DecodeLastRuneInString(s); r != utf8.RuneError || n > 1 {
			break
		}
		s = s[:len(s)-1]
	}
	return s + more
}
