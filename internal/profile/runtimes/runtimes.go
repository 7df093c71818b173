package runtimes

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/google/pprof/profile"

	"huatuo/internal/signal"
)

const (
	// maxFetches bounds what is asked at one time, and so the memory that answers have.
	maxFetches = 2
	// MaxFor is the longest change that can be asked for.
	MaxFor = 5 * time.Minute
)

// The types of an Error, named as in Prometheus' API, and what they are for.
const (
	notFound   = "not_found"   // there is no such process, or it has no such profile
	badRequest = "bad_data"    // what was asked for makes no sense
	failed     = "execution"   // the process gave no answer that can be used
	busy       = "unavailable" // as much is asked as may be
)

// Error says why there is no profile.
type Error struct {
	kind string
	err  error
}

func (e *Error) Error() string { return e.err.Error() }

func (e *Error) Unwrap() error { return e.err }

// ErrorType tells whose fault it is.
func (e *Error) ErrorType() string { return e.kind }

func errorOf(kind, format string, args ...any) error {
	return &Error{kind, fmt.Errorf(format, args...)}
}

// Client asks processes. It is safe for concurrent use.
type Client struct {
	proc string

	mu    sync.Mutex
	asked map[uint32]bool // processes that are being asked
}

// New makes a client for the processes of a procfs.
func New(proc string) *Client { return &Client{proc: proc, asked: map[uint32]bool{}} }

// List lists the processes that may have profiles of their own, by what /proc says
// of them: JVMs, and Go programs that listen on a TCP port. None of them notices.
func (c *Client) List(ctx context.Context) ([]signal.RuntimeProcess, error) {
	names, err := os.ReadDir(c.proc)
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	programs := goPrograms{}
	out := []signal.RuntimeProcess{}
	for _, n := range names {
		pid, err := strconv.ParseUint(n.Name(), 10, 32)
		if err != nil {
			continue
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if d, err := c.describe(uint32(pid), programs); err == nil && (d.Runtime == "jvm" || len(d.Listens) > 0) {
			out = append(out, d)
		}
	}
	slices.SortFunc(out, func(a, b signal.RuntimeProcess) int { return cmp.Compare(a.PID, b.PID) })
	return out, nil
}

// Look tells what /proc says of one process; it does not notice.
func (c *Client) Look(pid uint32) (signal.RuntimeProcess, error) {
	return c.describe(pid, goPrograms{})
}

func (c *Client) describe(pid uint32, programs goPrograms) (signal.RuntimeProcess, error) {
	p, err := openProcess(c.proc, pid)
	if err != nil {
		return signal.RuntimeProcess{}, err
	}
	defer p.close()
	return p.describe(programs)
}

// Ask tells what a process offers. The ports of a Go program are asked whether
// they serve profiles.
func (c *Client) Ask(ctx context.Context, pid uint32) (signal.RuntimeProcess, error) {
	p, err := openProcess(c.proc, pid)
	if err != nil {
		return signal.RuntimeProcess{}, err
	}
	defer p.close()
	done, err := c.begin(pid)
	if err != nil {
		return signal.RuntimeProcess{}, err
	}
	defer done()
	d, err := p.describe(goPrograms{})
	if err != nil {
		return d, err
	}
	if d.Runtime == "go" {
		var s server
		if s, err = p.findServer(ctx); err == nil {
			d.Profiles, d.Reason = s.offers(), ""
		} else if d.Reason == "" {
			d.Reason = err.Error()
		}
	}
	return d, ctx.Err()
}

// Fetch gets a profile of a process, in pprof's form.
func (c *Client) Fetch(ctx context.Context, r signal.RuntimeRequest) (*profile.Profile, error) {
	k := kindOf(r.Profile)
	switch {
	case k == nil:
		return nil, errorOf(badRequest, "there is no profile %q: a Go program may have %s, a JVM has %s", r.Profile, names("go"), names("jvm"))
	case r.For < 0 || r.For > MaxFor:
		return nil, errorOf(badRequest, "the change within %v cannot be asked for: at most that within %v can", r.For, MaxFor)
	case r.For > 0 && !k.delta:
		return nil, errorOf(badRequest, "%s are of a moment: the change within some seconds cannot be asked for", r.Profile)
	case r.Collect && !k.collect:
		return nil, errorOf(badRequest, "garbage is collected for heap and classes only")
	case r.Collect && r.For > 0:
		return nil, errorOf(badRequest, "garbage is not collected for the change within some seconds: ask for one of them")
	case r.Sample != "" && !slices.Contains(k.samples, r.Sample):
		return nil, errorOf(badRequest, "%s has no samples %q: it has %v", r.Profile, r.Sample, k.samples)
	}
	p, err := openProcess(c.proc, r.PID)
	if err != nil {
		return nil, err
	}
	defer p.close()
	done, err := c.begin(r.PID)
	if err != nil {
		return nil, err
	}
	defer done()
	d, err := p.describe(goPrograms{})
	switch {
	case err != nil:
		return nil, err
	case d.Runtime == "none":
		return nil, errorOf(notFound, "process %d has no profiles: %s", r.PID, d.Reason)
	case d.Runtime != k.runtime:
		return nil, errorOf(notFound, "process %d has no profile %q: it runs %s, which has %s", r.PID, r.Profile, d.Runtime, names(d.Runtime))
	}
	if k.runtime == "jvm" {
		return p.classes(ctx, r.Collect)
	}
	return p.fetchGo(ctx, k, r)
}

// begin takes a place for one process.
func (c *Client) begin(pid uint32) (done func(), err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.asked[pid]:
		return nil, errorOf(busy, "process %d is being asked already: try again when it has answered", pid)
	case len(c.asked) >= maxFetches:
		return nil, errorOf(busy, "%d processes are being asked already: try again when one has answered", maxFetches)
	}
	c.asked[pid] = true
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.asked, pid)
	}, nil
}

// describe tells what /proc says of a process.
func (p *process) describe(programs goPrograms) (signal.RuntimeProcess, error) {
	d := signal.RuntimeProcess{PID: p.pid, Process: p.name(), Runtime: "none", Listens: []string{}, Profiles: []signal.RuntimeProfile{}}
	version, err := programs.version(p.path("exe"))
	if errors.Is(err, fs.ErrNotExist) { // a thread of the kernel, or it has just ended
		d.Reason = "it is a thread of the kernel"
		return d, p.alive()
	}
	if err != nil {
		return d, errorOf(failed, "read the program of process %d: %w", p.pid, err)
	}
	if version != "" {
		d.Runtime, d.Version = "go", version
		listeners, err := p.listeners()
		if err != nil {
			return d, errorOf(failed, "find what process %d listens on: %w", p.pid, err)
		}
		for _, l := range listeners {
			d.Listens = append(d.Listens, l.addr.String())
		}
		if len(listeners) == 0 {
			d.Reason = "it listens on no TCP port: a Go program has profiles for others when it serves net/http/pprof"
		}
		return d, nil
	}
	vm, err := p.machine()
	switch {
	case err != nil:
		return d, errorOf(failed, "read what process %d has mapped: %w", p.pid, err)
	case vm == "":
		d.Reason = "it is neither a Go program nor a JVM"
	case vm != hotSpot:
		d.Reason = "it runs " + vm + ", which is asked in another way than HotSpot"
	default:
		d.Runtime = "jvm"
		d.Profiles, d.Reason = p.offersClasses()
	}
	return d, nil
}
