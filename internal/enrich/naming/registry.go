package naming

import (
	"context"
	"log/slog"
	"reflect"
	"sync"
	"time"

	"huatuo/internal/enrich"
	"huatuo/internal/kern/cgroup"
)

const (
	// remember is how long the dead are known, as in enrich.
	remember = 10 * time.Minute
	// maxKnown bounds the memory: a container takes about 2 KB. A node runs
	// 250 pods by default; 200 short-lived ones a minute leave 2000 dead.
	maxKnown = 8192
)

// Options of New.
type Options struct {
	Feeds []Feed
	Index *cgroup.Index // tells which containers there are; nil: only the sources do
	Log   *slog.Logger

	Interval    time.Duration // between two lists; 0 means 30 s
	Labels      Patterns      // labels that events carry
	Annotations Patterns      // annotations that events carry
	Now         func() time.Time
}

// Registry knows containers by their id. It is safe for concurrent use, and
// answers from memory.
type Registry struct {
	opts  Options
	feeds []*feed
	begun chan struct{} // closed when every feed has answered or failed once

	mu   sync.RWMutex
	byID map[string]*known
	pods map[string]*known // by uid
	// renames counts changes of names that had been given.
	renames uint64

	jobs *jobs
}

// known is one container or pod.
type known struct {
	parts  map[int]*part // by the rank of who told it
	merged Container
	name   enrich.Name
	gone   time.Time
}

// part is what one source told.
type part struct {
	c      Container
	listed bool // in its last list
}

// New returns a Registry that knows nothing yet: Run does the work. Give Cgroup
// to the index' Follow before the index runs.
func New(o Options) *Registry {
	if o.Interval <= 0 {
		o.Interval = 30 * time.Second
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	r := &Registry{opts: o, begun: make(chan struct{}), byID: map[string]*known{}, pods: map[string]*known{}}
	r.jobs = newJobs(r.try)
	for i, f := range o.Feeds {
		r.feeds = append(r.feeds, newFeed(r, f, i))
	}
	return r
}

// Begun is closed when every source has told what runs, or failed to.
func (r *Registry) Begun() <-chan struct{} { return r.begun }

// Run follows the sources until ctx is done.
func (r *Registry) Run(ctx context.Context) error {
	var wg, first sync.WaitGroup
	for _, f := range r.feeds {
		first.Add(1)
		wg.Go(func() { f.run(ctx, sync.OnceFunc(first.Done)) })
	}
	for range workers {
		wg.Go(func() { r.jobs.work(ctx) })
	}
	wg.Go(func() {
		first.Wait()
		r.Tidy() // asks for what no list had
		close(r.begun)
	})
	tick := time.NewTicker(r.opts.Interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			wg.Wait()
			return nil
		case <-tick.C:
			r.Tidy()
		}
	}
}

// Cgroup asks for the container whose group has just been made: for Follow of
// the index. It does not block.
func (r *Registry) Cgroup(e cgroup.Entry) {
	if e.Gone || e.Kind != cgroup.Container || !e.Workload() {
		return
	}
	r.jobs.ask(&job{id: e.Identity.ID, runtime: e.Runtime, inPod: e.PodUID != ""})
}

// Container returns the name of the container with that id. It does not block.
func (r *Registry) Container(id string) (enrich.Name, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if k := r.byID[id]; k != nil && k.merged.Name != "" {
		return k.name, true
	}
	return enrich.Name{}, false
}

// Pod returns the name of the pod with that uid, as a cgroup path has it.
func (r *Registry) Pod(uid string) (enrich.Name, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if k := r.pods[uid]; k != nil {
		return k.name, true
	}
	return enrich.Name{}, false
}

// Pending returns a channel that is closed when what is being asked about the
// container has been answered; nil when nothing is being asked.
func (r *Registry) Pending(id string) <-chan struct{} { return r.jobs.pending(id) }

// Renames counts changes of names that had been given: `docker rename`, a new
// label of a pod.
func (r *Registry) Renames() uint64 {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.renames
}

// Info returns all that is known of a container.
func (r *Registry) Info(id string) (Container, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if k := r.byID[id]; k != nil && k.merged.Name != "" {
		return k.merged, true
	}
	return Container{}, false
}

// Len returns how many containers are known, living and dead.
func (r *Registry) Len() int {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return len(r.byID)
}

// Deferred counts new containers that were not asked for at once, because too
// many were waiting.
func (r *Registry) Deferred() uint64 {
	r.jobs.mu.Lock()
	defer r.jobs.mu.Unlock()
	return r.jobs.dropped
}

// learn takes in what a source told.
func (r *Registry) learn(rank int, listed bool, cs ...Container) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range cs {
		if c.PodUID != "" && c.Pod != "" {
			pod := Container{Namespace: c.Namespace, Pod: c.Pod, PodUID: c.PodUID, QoS: c.QoS, Labels: c.Labels, Annotations: c.Annotations}
			r.put(r.pods, c.PodUID, rank, listed, pod)
		}
		if c.ID != "" {
			r.put(r.byID, c.ID, rank, listed, c)
		}
	}
}

// put is called with mu held.
func (r *Registry) put(m map[string]*known, id string, rank int, listed bool, c Container) {
	k := m[id]
	if k == nil {
		if len(m) >= maxKnown && !evict(m) {
			return
		}
		k = &known{parts: map[int]*part{}}
		m[id] = k
	}
	p := k.parts[rank]
	if p == nil {
		p = &part{}
		k.parts[rank] = p
	}
	if c.Partial && p.c.ID != "" && !p.c.Partial { // what Inspect told besides stays
		c.Image = or(p.c.Image, c.Image) // in a list it may be a digest
		c.merge(&p.c)
		c.Partial = false
	}
	p.c, p.listed = c, listed || p.listed
	k.gone = time.Time{}
	k.merged = Container{}
	for i := range r.feeds {
		if p := k.parts[i]; p != nil {
			k.merged.merge(&p.c)
		}
	}
	old := k.name
	k.name = r.name(&k.merged)
	if (old.Name != "" || old.Pod != "") && !reflect.DeepEqual(old, k.name) {
		r.renames++
	}
}

// evict forgets what went first, to make room.
func evict(m map[string]*known) bool {
	oldest := ""
	for id, k := range m {
		if !k.gone.IsZero() && (oldest == "" || k.gone.Before(m[oldest].gone)) {
			oldest = id
		}
	}
	delete(m, oldest)
	return oldest != ""
}

// replace takes in a source's new list.
func (r *Registry) replace(rank int, cs []Container) {
	r.mu.Lock()
	for _, m := range [...]map[string]*known{r.byID, r.pods} {
		for _, k := range m {
			if p := k.parts[rank]; p != nil {
				p.listed = false
			}
		}
	}
	r.mu.Unlock()
	r.learn(rank, true, cs...)
}

// Tidy notes who has gone, forgets the dead, and asks for living containers
// that have no name. Run calls it each interval.
func (r *Registry) Tidy() {
	living, unnamed := r.living()
	r.mu.Lock()
	now := r.opts.Now()
	for _, m := range [...]map[string]*known{r.byID, r.pods} {
		for id, k := range m {
			_, alive := living[id]
			for _, p := range k.parts {
				alive = alive || p.listed
			}
			switch {
			case alive:
				k.gone = time.Time{}
			case k.gone.IsZero():
				k.gone = now
			case now.Sub(k.gone) > remember:
				delete(m, id)
			}
		}
	}
	r.mu.Unlock()
	for _, j := range unnamed {
		r.jobs.ask(j)
	}
}

// living returns the ids of containers and pods that have a control group, and
// jobs for the containers among them that nobody has named.
func (r *Registry) living() (ids map[string]struct{}, unnamed []*job) {
	ids = map[string]struct{}{}
	if r.opts.Index == nil {
		return ids, nil
	}
	for _, e := range r.opts.Index.Live() {
		if e.PodUID != "" {
			ids[e.PodUID] = struct{}{}
		}
		if e.Kind != cgroup.Container || !e.Workload() {
			continue
		}
		ids[e.Identity.ID] = struct{}{}
		if _, named := r.Container(e.Identity.ID); !named {
			unnamed = append(unnamed, &job{id: e.Identity.ID, runtime: e.Runtime, inPod: e.PodUID != "", tries: lastTry})
		}
	}
	return ids, unnamed
}
