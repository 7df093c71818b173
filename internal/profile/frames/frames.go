package frames

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"huatuo/internal/kern/clock"
	"huatuo/internal/kern/load"
	"huatuo/internal/kern/ring"
	"huatuo/internal/profile"
	"huatuo/internal/signal"
	"huatuo/internal/symbol"
)

const (
	// DefaultHertz is no divisor of the timers of programs, so that it sees them evenly.
	DefaultHertz = 19
	// queued bounds the samples that wait for names, some 2 MB at most: what 64
	// CPUs bring in three seconds.
	queued = 4096
	// checkEvery is how often losses are told, and CPUs that have come or gone
	// are noticed.
	checkEvery = 5 * time.Second
)

// Options of Run.
type Options struct {
	Log   *slog.Logger
	Hertz int // samples per second and CPU; 0: DefaultHertz
	// Symbols is required. One that does not wait for files (symbol.Options.Wait)
	// is best: samples that lack a name wait by themselves.
	Symbols *symbol.Resolver
	// Rate stands in for Hertz, and can change meanwhile; nil: it cannot.
	Rate Rate
	// Want tells whether a sample is to be named and emitted: it has no stack yet;
	// nil: all are.
	Want func(*signal.StackSample) bool
	// Emit gets each sample, in one goroutine.
	Emit func(*signal.StackSample)
	// Ready is called when stacks are being taken; nil: nobody wants to know.
	Ready func()
	// Lost is told how many samples were taken and could not be handed over since
	// the last call; nil: nobody wants to know.
	Lost func(n uint64)
	// Program is told the id of the BPF program that runs, and 0 when it does not
	// any more, for who measures its time; nil: nobody does.
	Program func(id uint32)

	Kernel *load.Kernel  // nil: what load.Open finds
	Rings  *ring.Drainer // nil: one of its own
	Proc   string        // the host's; empty: /proc
}

// Rate is how often each CPU is sampled, as *engine.Rate tells it.
type Rate interface {
	// Bind has open called for each change from now on, until unbind is called.
	Bind(now func() time.Time, open func(hertz int) (stop func(), err error)) (unbind func(), err error)
	// At returns the rate that was in force then.
	At(time.Time) int
}

// fixed is a rate that does not change.
type fixed int

// Bind has open called once.
func (f fixed) Bind(_ func() time.Time, open func(hertz int) (func(), error)) (func(), error) {
	return open(int(f))
}

// At returns it.
func (f fixed) At(time.Time) int { return int(f) }

// Types lists the types that this engine takes. Waits are not among them: a
// thread that waits can be walked by bpf_get_stack only as it goes to sleep, at
// each of the host's context switches, since its stack is nobody's any more when
// the length of the wait is known.
func Types() []*signal.ProfileType { return []*signal.ProfileType{profile.CPU} }

// Run takes stacks until ctx is done, and then returns nil. Any other return
// means that the caller may call it again after a while; an error that wraps
// errors.ErrUnsupported says that it cannot work on this kernel.
func Run(ctx context.Context, o Options) error {
	if o.Hertz <= 0 {
		o.Hertz = DefaultHertz
	}
	if o.Rate == nil {
		o.Rate = fixed(o.Hertz)
	}
	if o.Proc == "" {
		o.Proc = "/proc"
	}
	if o.Kernel == nil {
		k, err := load.Open(load.Options{})
		if err != nil {
			return err
		}
		o.Kernel = k
	}
	if o.Rings == nil {
		o.Rings = ring.NewDrainer()
		defer o.Rings.Close()
	}
	clk, err := clock.New()
	if err != nil {
		return err
	}
	s, err := open(o)
	if err != nil {
		return err
	}
	defer s.close()
	return s.run(ctx, newNamer(o, clk.Mono))
}

// session is one run: programs, events, and the samples on their way.
type session struct {
	o      Options
	maps   *load.Object
	clocks *clocks
	unbind func() // from the rate; nil: not bound
	ring   *ring.Reader
	queue  chan sample
	loss   loss
}

// open loads the program and starts the clocks; what they bring before somebody
// reads waits in the ring.
func open(o Options) (_ *session, err error) {
	s := &session{o: o, queue: make(chan sample, queued)}
	l, err := o.Kernel.Load(loadBpf, loadBpfLegacy)
	if err != nil {
		return nil, err
	}
	if s.maps, err = l.Attach(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if s.ring, err = o.Rings.Open(s.maps.Map("ht_events")); err != nil {
		return nil, err
	}
	if s.clocks, err = newClocks(l.Spec, s.maps); err != nil {
		return nil, err
	}
	s.unbind, err = o.Rate.Bind(time.Now, s.clocks.start)
	return s, err
}

func (s *session) close() {
	if s.unbind != nil {
		s.unbind()
	}
	if s.clocks != nil {
		s.clocks.close()
	}
	if s.ring != nil {
		s.ring.Close()
	}
	s.maps.Close()
}

// run reads the ring in this goroutine and names what it brings in another:
// names may have to wait for files, the ring may not.
func (s *session) run(ctx context.Context, n *namer) error {
	if s.o.Program != nil {
		s.o.Program(s.clocks.id)
		defer s.o.Program(0)
	}
	if s.o.Ready != nil {
		s.o.Ready()
	}
	var named, watched sync.WaitGroup
	read := make(chan struct{})
	named.Go(func() { s.loss.queue.Add(uint64(n.loop(s.queue, read))) })
	watch, stop := context.WithCancel(ctx)
	watched.Go(func() { s.watch(watch) })
	err := s.ring.Read(ctx, s.clocks.close, s.take)
	stop()
	watched.Wait()
	close(read)
	named.Wait()
	s.tell()
	return err
}

// take queues a sample for its names.
func (s *session) take(raw []byte) {
	x, err := decode(raw)
	if err != nil {
		if s.loss.undecoded.Add(1) == 1 {
			s.o.Log.Error("cannot decode a sample; the BPF object and the decoder disagree", "err", err)
		}
		return
	}
	select {
	case s.queue <- x:
	default:
		s.loss.queue.Add(1)
	}
}

// watch looks after the CPUs and the losses.
func (s *session) watch(ctx context.Context) {
	t := time.NewTicker(checkEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		s.tell()
		if err := s.clocks.follow(); err != nil && !errors.Is(err, errClosed) {
			s.o.Log.Warn("a CPU is not sampled", "err", err)
		}
	}
}

// tell passes on what was lost since the last time.
func (s *session) tell() {
	st, err := s.maps.Stats()
	if err != nil {
		s.o.Log.Debug("losses of stacks are not known", "err", err)
	}
	if n := s.loss.since(st.RingFull, s.clocks.missed()); n > 0 && s.o.Lost != nil {
		s.o.Lost(n)
	}
}

// wrap tells an event or program that this kernel does not have from one that
// this process may not use.
func wrap(what string, err error, absent bool) error {
	if absent {
		return fmt.Errorf("%s: %w: %w", what, err, errors.ErrUnsupported)
	}
	return fmt.Errorf("%s: %w", what, err)
}
