// Package pipe moves signals from the probes to the sinks: bounded queues,
// fan-out, and an account of every event.
//
// The conservation law holds for each probe once the agent is at rest:
//
//	observed = Σ dropped(reason) + routed
//
// and for each sink
//
//	routed = delivered + dropped + failed + queued
//
// Metrics take the other half of the package: a Gatherer runs the collectors
// on demand and turns cgroup ids into workload labels.
package pipe

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sort"
	"sync"
	"time"

	"huatuo/internal/probe"
	"huatuo/internal/signal"
)

// Sink takes documents. Deliver must not keep the slice, and the documents are
// shared with other sinks: it must not change them. An error means that none
// of the batch was taken; it is tried again.
type Sink interface {
	Deliver(ctx context.Context, docs []*signal.Document) error
}

// Options of New.
type Options struct {
	Log    *slog.Logger
	Host   string
	Region string
	Queue  int                  // length of the intake and of each sink's queue
	Enrich func(*signal.Record) // fills what the probe could not know; must not block for long
	// Relate looks at each record after it was enriched and has its id: it
	// may add what other events tell of it. It must not block.
	Relate func(*signal.Record)
	// Grace is how long a record is held back before Relate looks at it, for
	// those that explain it and are in other queues: below a second. Nil: no
	// record is. Those that are held back go on in the order in which their
	// time is over.
	Grace func(*signal.Record) time.Duration
	// Known may mark a record as an instance of known issues; false: it is
	// dropped, and counted as such. Nil: none is known.
	Known   func(*signal.Record) bool
	Now     func() time.Time // the wall clock that ids are made with; nil means time.Now
	Backoff time.Duration    // before the first retry of a sink; doubles up to 32 times
}

// Pipe routes events.
type Pipe struct {
	o      Options
	intake *queue[item]
	held   held // the router's own
	ids    *ids

	mu       sync.Mutex
	accounts map[string]*account
	signals  map[*signal.Schema]uint64
	recent   exemplars
	sinks    []*sinkRunner
}

// item is an event on its way, with the account of the probe that made it.
type item struct {
	rec *signal.Record
	doc *signal.Document
	acc *account
}

// account is one probe's part of the conservation law.
type account struct {
	name    string
	emitted uint64 // handed to Emit
	intake  uint64 // dropped because the intake was full
	broken  uint64 // could not be made a document
	known   uint64 // instances of known issues that are not to be reported
	routed  uint64
	loss    func() probe.Loss
	run     int        // how often loss was replaced
	base    probe.Loss // of earlier runs of the probe
	sinks   []sinkCount
}

type sinkCount struct{ delivered, dropped, failed uint64 }

// New returns a Pipe without sinks; add them before Run.
func New(o Options) *Pipe {
	if o.Queue <= 0 {
		o.Queue = 4096
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Backoff <= 0 {
		o.Backoff = 100 * time.Millisecond
	}
	return &Pipe{
		o: o, intake: newQueue[item](o.Queue), ids: newIDs(o.Now), accounts: map[string]*account{},
		signals: map[*signal.Schema]uint64{}, recent: exemplars{},
	}
}

// Add adds a sink that gets each event at once. Call it before Run.
func (p *Pipe) Add(name string, s Sink) { p.AddBatched(name, s, 0) }

// AddBatched adds a sink for which a delivery is expensive whatever its size,
// like a transaction: an event waits up to linger for others to go with it.
// Call it before Run.
func (p *Pipe) AddBatched(name string, s Sink, linger time.Duration) {
	p.sinks = append(p.sinks, &sinkRunner{
		name: name, sink: s, pipe: p, index: len(p.sinks), linger: linger, queue: newQueue[item](p.o.Queue),
	})
}

// IDsAfter makes all ids sort after id, the newest that an earlier run of the
// agent has given. Call it before Run.
func (p *Pipe) IDsAfter(id string) { p.ids.after(id) }

// Probe opens the account of a probe and returns the Emit and Lost of its Env.
func (p *Pipe) Probe(name string) (emit func(*signal.Record), lost func(func() probe.Loss)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	a := p.accounts[name]
	if a == nil {
		a = &account{name: name, sinks: make([]sinkCount, len(p.sinks))}
		p.accounts[name] = a
	}
	return func(r *signal.Record) { p.emit(a, r) }, func(f func() probe.Loss) { p.setLoss(a, f) }
}

// setLoss keeps what an earlier run of the probe had counted.
func (p *Pipe) setLoss(a *account, f func() probe.Loss) {
	p.mu.Lock()
	old := a.loss
	p.mu.Unlock()
	var last probe.Loss
	if old != nil {
		last = old()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	a.base.Observed += last.Observed
	a.base.LeftOut += last.LeftOut
	for why, n := range last.Dropped {
		if a.base.Dropped == nil {
			a.base.Dropped = map[string]uint64{}
		}
		a.base.Dropped[why] += n
	}
	a.loss = f
	a.run++
}

func (p *Pipe) emit(a *account, r *signal.Record) {
	p.mu.Lock()
	a.emitted++
	p.mu.Unlock()
	if old, dropped := p.intake.push(item{rec: r, acc: a}); dropped {
		p.mu.Lock()
		old.acc.intake++
		p.mu.Unlock()
	}
}

// Run moves events until ctx is done, then delivers what is still queued, for
// at most drain, and returns.
func (p *Pipe) Run(ctx context.Context, drain time.Duration) {
	hard, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	var sinks sync.WaitGroup
	for _, s := range p.sinks {
		sinks.Go(func() { s.run(hard) })
	}
	routed := make(chan struct{})
	go func() {
		defer close(routed)
		p.router(hard)
	}()
	<-ctx.Done()
	timer := time.AfterFunc(drain, cancel)
	defer timer.Stop()
	p.intake.close()
	<-routed
	for _, s := range p.sinks {
		s.queue.close()
	}
	sinks.Wait()
}

// router takes records from the intake until it is closed and empty, or ctx is
// done, and then sends on at once what it still holds back.
func (p *Pipe) router(ctx context.Context) {
	for {
		it, ok, open := p.intake.popBy(ctx, p.held.due())
		if ok {
			p.take(it)
		}
		for !open || p.held.ripe(time.Now()) {
			it, ok := p.held.pop()
			if !ok {
				break
			}
			p.route(it)
		}
		if !open {
			return
		}
	}
}

// take enriches one record, and routes it or holds it back.
func (p *Pipe) take(it item) {
	r := it.rec
	if p.o.Enrich != nil {
		p.o.Enrich(r)
	}
	if p.o.Known != nil && !p.o.Known(r) {
		p.mu.Lock()
		it.acc.known++
		p.mu.Unlock()
		return
	}
	if p.o.Grace != nil {
		if d := p.o.Grace(r); d > 0 && p.held.push(it, time.Now().Add(d)) {
			return
		}
	}
	p.route(it)
}

// route gives one record its id and puts it into each sink's queue.
func (p *Pipe) route(it item) {
	r := it.rec
	r.Host, r.Region = p.o.Host, p.o.Region
	r.ID = p.ids.next()
	if p.o.Relate != nil {
		p.o.Relate(r)
	}
	doc, err := r.Document()
	p.mu.Lock()
	if err != nil {
		it.acc.broken++
		p.mu.Unlock()
		p.o.Log.Error("cannot encode an event", "kind", r.Schema.Name, "err", err)
		return
	}
	it.acc.routed++
	p.signals[r.Schema]++
	p.recent.note(r)
	p.mu.Unlock()
	it.doc, it.rec = doc, nil
	for _, s := range p.sinks {
		if old, dropped := s.queue.push(it); dropped {
			p.mu.Lock()
			old.acc.sinks[s.index].dropped++
			p.mu.Unlock()
		}
	}
}

// Accounts returns the account of every probe, by name.
func (p *Pipe) Accounts() []signal.Account {
	p.mu.Lock()
	all := slices.Collect(maps.Values(p.accounts))
	p.mu.Unlock()
	out := make([]signal.Account, 0, len(all))
	for _, a := range all {
		out = append(out, p.read(a))
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Probe < out[j].Probe })
	return out
}

// Loss returns what a probe has seen and lost in all its runs, up to where its
// events are routed; false when it never ran.
func (p *Pipe) Loss(probeName string) (probe.Loss, bool) {
	p.mu.Lock()
	a := p.accounts[probeName]
	p.mu.Unlock()
	if a == nil {
		return probe.Loss{}, false
	}
	var l probe.Loss
	p.lossOf(a, func(last probe.Loss, _ bool) {
		l = probe.Loss{Observed: a.base.Observed + last.Observed, LeftOut: a.base.LeftOut + last.LeftOut, Dropped: map[string]uint64{}}
		for _, m := range []map[string]uint64{a.base.Dropped, last.Dropped} {
			for why, n := range m {
				l.Dropped[why] += n
			}
		}
		l.Dropped["intake_full"] += a.intake
		l.Dropped["unencodable"] += a.broken
		l.Dropped["known_issue"] += a.known
	})
	return l, true
}

// read reads an account.
func (p *Pipe) read(a *account) (out signal.Account) {
	p.lossOf(a, func(l probe.Loss, counts bool) { out = p.accountOf(a, l, counts) })
	return out
}

// lossOf calls f, with mu held, with what the last run of a probe has lost. The
// probe may be started anew meanwhile: what its last run had counted must then
// not be counted twice.
func (p *Pipe) lossOf(a *account, f func(l probe.Loss, counts bool)) {
	for {
		p.mu.Lock()
		loss, run := a.loss, a.run
		p.mu.Unlock()
		var l probe.Loss
		if loss != nil {
			l = loss() // reads BPF maps: not under the lock
		}
		p.mu.Lock()
		if a.run == run {
			defer p.mu.Unlock()
			f(l, loss != nil)
			return
		}
		p.mu.Unlock()
	}
}

// accountOf puts an account together. Called with mu held.
func (p *Pipe) accountOf(a *account, l probe.Loss, counts bool) signal.Account {
	out := signal.Account{Probe: a.name, Dropped: map[string]uint64{}, Routed: a.routed}
	out.Observed = a.base.Observed + l.Observed
	if !counts {
		out.Observed = a.emitted
	}
	for _, m := range []map[string]uint64{a.base.Dropped, l.Dropped} {
		for why, n := range m {
			out.Dropped[why] += n
		}
	}
	out.Dropped["intake_full"] += a.intake
	out.Dropped["unencodable"] += a.broken
	out.Dropped["known_issue"] += a.known
	for i, s := range p.sinks {
		c := a.sinks[i]
		out.Sinks = append(out.Sinks, signal.SinkAccount{
			Sink: s.name, Delivered: c.delivered, Dropped: c.dropped, Failed: c.failed,
			Queued: a.routed - c.delivered - c.dropped - c.failed,
		})
	}
	return out
}

// Signals returns how many events of each schema were routed.
func (p *Pipe) Signals() map[*signal.Schema]uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make(map[*signal.Schema]uint64, len(p.signals))
	for s, n := range p.signals {
		out[s] = n
	}
	return out
}
