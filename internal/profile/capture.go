package profile

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"

	"huatuo/internal/signal"
)

const (
	// maxCaptures bounds those that run at one time.
	maxCaptures = 4
	// maxBefore and maxWindow bound a window: what it has is merged in memory.
	maxBefore = time.Hour
	maxWindow = 2 * time.Hour
	maxAfter  = 10 * time.Minute
	// maxNodes bounds the graph of each type: some 2 MB. The smallest are left out.
	maxNodes = 20_000
	// settle is how long after a moment its samples are all there: the kernel's
	// buffer is read each quarter of a second, and names are waited for up to three.
	settle = 3500 * time.Millisecond
)

// ErrBusy is returned when as many captures run as may.
var ErrBusy = errors.New("too many captures are running: try again when one has ended")

// RequestError says what is wrong with a request.
type RequestError struct{ Member, Reason string }

func (e *RequestError) Error() string { return e.Member + " " + e.Reason }

// BadRequest names what of the request is wrong.
func (e *RequestError) BadRequest() string { return e.Member }

// Source gives the stacks of a window. Samples are there some seconds after they
// were taken, and stay: a capture reads them from where they are kept anyhow. A
// ring of its own would have the same samples in memory once more, and fewer.
type Source interface {
	Flush() // what was taken so far is found by the next query
	Flame(ctx context.Context, q signal.ProfileQuery, least float64) (*signal.FlameGraph, error)
}

// Booster raises the rate at which the CPUs are sampled, for a while.
type Booster interface {
	Boost(hertz int, d time.Duration) (end func(), err error)
}

// Keeper keeps captures.
type Keeper interface {
	KeepCapture(c *signal.Capture) error
}

// CapturerOptions of NewCapturer.
type CapturerOptions struct {
	Source  Source
	Booster Booster                      // nil: the rate stays
	Keeper  Keeper                       // nil: captures are only returned
	Types   func() []*signal.ProfileType // what is taken
	// Resolve replaces a container or a cgroup by labels; nil: they are refused.
	Resolve func(*signal.CaptureTarget) error
	Settle  time.Duration    // 0: what the profiler needs
	Now     func() time.Time // nil: time.Now
}

// Capturer takes captures. It is safe for concurrent use, and nothing it does
// holds up the profiler.
type Capturer struct {
	o       CapturerOptions
	started sync.WaitGroup

	mu      sync.Mutex
	running map[string]running
}

// running is a capture that has not ended.
type running struct {
	info signal.CaptureInfo
	end  context.CancelFunc
}

// NewCapturer makes one.
func NewCapturer(o CapturerOptions) *Capturer {
	if o.Settle == 0 {
		o.Settle = settle
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Capturer{o: o, running: map[string]running{}}
}

// Capture returns the stacks of a target in a window that may begin before the
// call and end after it. It waits for the end of the window and some seconds
// more. The capture is kept; when that fails it is returned with the error.
func (c *Capturer) Capture(ctx context.Context, r signal.CaptureRequest) (*signal.Capture, error) {
	_, wait, err := c.begin(ctx, r)
	if err != nil {
		return nil, err
	}
	return wait()
}

// Start begins a capture and returns at once; it goes on until ctx is done.
func (c *Capturer) Start(ctx context.Context, r signal.CaptureRequest) (signal.CaptureInfo, error) {
	info, wait, err := c.begin(ctx, r)
	if err != nil {
		return signal.CaptureInfo{}, err
	}
	c.started.Go(func() { wait() }) // its end is kept, an error too
	return info, nil
}

// Wait waits until all captures that Start began have ended.
func (c *Capturer) Wait() { c.started.Wait() }

// Running lists the captures that have not ended.
func (c *Capturer) Running() []signal.CaptureInfo {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make([]signal.CaptureInfo, 0, len(c.running))
	for _, r := range c.running {
		out = append(out, r.info)
	}
	slices.SortFunc(out, func(a, b signal.CaptureInfo) int { return strings.Compare(b.ID, a.ID) })
	return out
}

// Cancel ends a capture that runs, which is then kept as failed; it returns false
// when none of that id does.
func (c *Capturer) Cancel(id string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	r, ok := c.running[id]
	if ok {
		r.end()
	}
	return ok
}

// begin checks a request, takes a place for it and raises the rate.
func (c *Capturer) begin(ctx context.Context, r signal.CaptureRequest) (signal.CaptureInfo, func() (*signal.Capture, error), error) {
	info, err := c.check(r)
	if err != nil {
		return info, nil, err
	}
	target := info.Target // as it was asked for; what follows is what it stands for
	if target.Container != "" || target.Cgroup != 0 {
		if c.o.Resolve == nil {
			return info, nil, &RequestError{"target", "cannot be a container here"}
		}
		if err := c.o.Resolve(&target); err != nil {
			return info, nil, &RequestError{"target", err.Error()}
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.running) >= maxCaptures {
		return info, nil, ErrBusy
	}
	end := func() {}
	if left := info.To.Sub(c.o.Now()); info.Hertz > 0 && left > 0 {
		if c.o.Booster == nil {
			return info, nil, &RequestError{"hertz", "cannot be changed here"}
		}
		if end, err = c.o.Booster.Boost(info.Hertz, left); err != nil {
			return info, nil, &RequestError{"hertz", err.Error()}
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	c.running[info.ID] = running{info, cancel}
	return info, func() (*signal.Capture, error) {
		defer func() {
			cancel()
			c.mu.Lock()
			defer c.mu.Unlock()
			delete(c.running, info.ID)
		}()
		return c.finish(ctx, info, target, end)
	}, nil
}

// check completes a request, or says what is wrong with it.
func (c *Capturer) check(r signal.CaptureRequest) (info signal.CaptureInfo, err error) {
	now := c.o.Now()
	switch {
	case !r.From.Before(r.To):
		return info, &RequestError{"from", "must be before to"}
	case now.Sub(r.From) > maxBefore:
		return info, &RequestError{"from", fmt.Sprintf("must not be longer ago than %v", maxBefore)}
	case r.To.Sub(now) > maxAfter:
		return info, &RequestError{"to", fmt.Sprintf("must not be further away than %v", maxAfter)}
	case r.To.Sub(r.From) > maxWindow:
		return info, &RequestError{"to", fmt.Sprintf("must be within %v of from", maxWindow)}
	case r.Hertz < 0:
		return info, &RequestError{"hertz", "must not be negative"}
	}
	for name := range r.Target.Labels {
		if !slices.Contains(signal.ProfileLabelNames(), name) {
			return info, &RequestError{"target", fmt.Sprintf("has a label %q: the labels are %s", name, strings.Join(signal.ProfileLabelNames(), ", "))}
		}
	}
	var all []string
	for _, t := range c.o.Types() {
		all = append(all, t.Name)
	}
	types := r.Types
	if len(types) == 0 {
		types = all
	}
	for _, name := range types {
		if !slices.Contains(all, name) {
			return info, &RequestError{"types", fmt.Sprintf("has %q: the types are %s", name, strings.Join(all, ", "))}
		}
	}
	id, err := ulid.New(ulid.Timestamp(now), rand.Reader)
	if err != nil {
		return info, fmt.Errorf("make an id: %w", err)
	}
	return signal.CaptureInfo{
		ID: id.String(), State: signal.CaptureRunning, Why: r.Why, Target: r.Target,
		From: r.From, To: r.To, Hertz: r.Hertz, Types: slices.Compact(slices.Sorted(slices.Values(types))),
	}, nil
}

// finish waits for the samples of the window, reads them and keeps them.
func (c *Capturer) finish(ctx context.Context, info signal.CaptureInfo, target signal.CaptureTarget, end func()) (*signal.Capture, error) {
	err := wait(ctx, info.To.Sub(c.o.Now()))
	end()
	if err == nil {
		err = wait(ctx, info.To.Add(c.o.Settle).Sub(c.o.Now()))
	}
	out := &signal.Capture{CaptureInfo: info, Graphs: []*signal.FlameGraph{}}
	if err == nil {
		err = c.read(ctx, out, target)
	}
	out.State = signal.CaptureDone
	if err != nil {
		err = fmt.Errorf("capture stacks: %w", err)
		out.State, out.Error = signal.CaptureFailed, err.Error()
	}
	if c.o.Keeper != nil {
		if kept := c.o.Keeper.KeepCapture(out); kept != nil {
			err = errors.Join(err, fmt.Errorf("keep a capture: %w", kept))
		}
	}
	if out.State == signal.CaptureFailed {
		return nil, err
	}
	return out, err
}

func wait(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

func (c *Capturer) read(ctx context.Context, out *signal.Capture, t signal.CaptureTarget) error {
	c.o.Source.Flush()
	for _, name := range out.Types {
		q := signal.ProfileQuery{Type: name, From: out.From, To: out.To, PID: t.PID, TID: t.TID, Labels: t.Labels}
		g, err := c.o.Source.Flame(ctx, q, 0)
		if err != nil {
			return err
		}
		if g.Samples == 0 {
			continue // its name is in Types
		}
		for _, known := range c.o.Types() {
			if known.Name == name {
				g.Unit = known.Unit
			}
		}
		out.Samples += g.Samples
		out.Graphs = append(out.Graphs, Prune(g, maxNodes))
	}
	return nil
}

// Prune leaves out the smallest nodes of a graph that has more than most.
func Prune(g *signal.FlameGraph, most int) *signal.FlameGraph {
	if len(g.Nodes) <= most {
		return g
	}
	totals := make([]int64, len(g.Nodes))
	for i, n := range g.Nodes {
		totals[i] = n.Total
	}
	slices.Sort(totals)
	floor := totals[len(totals)-most] // some more of that value go, so that no more than most stay
	if totals[len(totals)-most-1] == floor {
		floor++
	}
	out := *g
	out.Frames, out.Nodes = nil, nil
	place, frames := make([]int, len(g.Nodes)), make([]int, len(g.Frames))
	for i, n := range g.Nodes {
		place[i] = -1
		if n.Total < floor || n.Parent >= 0 && place[n.Parent] < 0 {
			out.Dropped++
			continue
		}
		if frames[n.Frame] == 0 {
			out.Frames = append(out.Frames, g.Frames[n.Frame])
			frames[n.Frame] = len(out.Frames)
		}
		n.Frame = frames[n.Frame] - 1
		if n.Parent >= 0 {
			n.Parent = place[n.Parent]
		}
		place[i] = len(out.Nodes)
		out.Nodes = append(out.Nodes, n)
	}
	return &out
}
