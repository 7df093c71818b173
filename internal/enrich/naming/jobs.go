package naming

import (
	"context"
	"errors"
	"sync"
	"time"
)

const (
	// workers ask at a time. A runtime answers in a few milliseconds; when one
	// hangs, the others have workers left for the 2 s that it may take.
	workers = 8
	// queue holds the containers of several nodes that start at once.
	queue = 1024
)

const (
	// firstRetry is how long after the first try the second comes; each pause
	// is twice the one before. A container has a name before it has a cgroup
	// with Docker and podman; a CRI runtime tells of a pod's sandbox once its
	// network is up, and the kubelet up to a second after the start.
	firstRetry = 20 * time.Millisecond
	// lastTry comes after 5 s. What nobody knows by then is asked for again
	// with each list.
	lastTry = 8
)

// job is a container to be asked for.
type job struct {
	id      string
	runtime string // as its path tells
	inPod   bool
	feed    *feed // the only one to ask; nil for all who may know
	tries   int   // made so far
	done    chan struct{}
}

// jobs asks for containers, once at a time for each.
type jobs struct {
	try  func(context.Context, *job) (again bool)
	todo chan *job

	mu      sync.Mutex
	active  map[string]*job
	dropped uint64 // asked for when the queue was full: the next tidying asks again
}

func newJobs(try func(context.Context, *job) bool) *jobs {
	return &jobs{try: try, todo: make(chan *job, queue), active: map[string]*job{}}
}

// ask begins j, unless its container is being asked for. It does not block.
func (js *jobs) ask(j *job) {
	js.mu.Lock()
	defer js.mu.Unlock()
	if js.active[j.id] != nil {
		return
	}
	j.done = make(chan struct{})
	select {
	case js.todo <- j:
		js.active[j.id] = j
	default:
		js.dropped++
	}
}

// pending returns the channel that is closed at the end of the container's job,
// nil when there is none.
func (js *jobs) pending(id string) <-chan struct{} {
	js.mu.Lock()
	defer js.mu.Unlock()
	if j := js.active[id]; j != nil {
		return j.done
	}
	return nil
}

// work does jobs until ctx is done.
func (js *jobs) work(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case j := <-js.todo:
			again := js.try(ctx, j)
			if !again || j.tries >= lastTry {
				js.finish(j)
				continue
			}
			wait := firstRetry << j.tries
			j.tries++
			time.AfterFunc(wait, func() { js.again(j) })
		}
	}
}

// again queues a job that is active.
func (js *jobs) again(j *job) {
	select {
	case js.todo <- j:
	default:
		js.finish(j)
	}
}

func (js *jobs) finish(j *job) {
	js.mu.Lock()
	defer js.mu.Unlock()
	delete(js.active, j.id)
	close(j.done)
}

// try asks those who may know j's container until one has named it. It returns
// whether asking again can help.
func (r *Registry) try(ctx context.Context, j *job) (again bool) {
	for _, f := range r.feeds {
		if f != j.feed && (j.feed != nil || !f.Knows(j.runtime, j.inPod)) {
			continue
		}
		src, state := f.get()
		if src == nil {
			f.nudge()
			again = again || state != Absent
			continue
		}
		ask, cancel := context.WithTimeout(ctx, askTime)
		c, err := src.Inspect(ask, j.id)
		cancel()
		switch {
		case err == nil && c.Name != "":
			r.learn(f.rank, false, c)
			return false
		case err == nil || errors.Is(err, ErrUnknown):
			again = true
		case ctx.Err() == nil:
			again = true
			f.fail(err)
		}
	}
	return again && j.feed == nil
}
