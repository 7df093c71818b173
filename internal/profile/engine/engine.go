//go:build !noprofiler

package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/features"
	"go.opentelemetry.io/ebpf-profiler/interpreter/interpreterconfig"
	"go.opentelemetry.io/ebpf-profiler/libpf"
	proflog "go.opentelemetry.io/ebpf-profiler/log"
	"go.opentelemetry.io/ebpf-profiler/metrics"
	"go.opentelemetry.io/ebpf-profiler/times"
	"go.opentelemetry.io/ebpf-profiler/tracer"
	"golang.org/x/sys/unix"

	"huatuo/internal/profile"
	"huatuo/internal/signal"
	"huatuo/internal/symbol"
)

// Options of Run.
type Options struct {
	Log     *slog.Logger
	Hertz   int              // samples per second and CPU; 0: no samples of CPU time
	Symbols *symbol.Resolver // names native code; required
	// Rate stands in for Hertz, and can change while the engine runs; nil: it cannot.
	Rate *Rate
	// Small keeps tables and caches a sixteenth as large: for few executables.
	Small bool
	// Usage is told what the engine has in the kernel; nil: nobody wants to know.
	Usage *Usage
	// Want tells whether a sample is to be named and emitted: it has no stack yet. nil: all are.
	Want func(*signal.StackSample) bool
	// Entries are the types beside CPU time; the zero value: none.
	Entries Entries
	// Emit gets each sample, in one goroutine. It must not block for long: the
	// kernel's buffer holds what a second brings.
	Emit func(*signal.StackSample)
	// Ready is called when stacks are being taken.
	Ready func()
}

// errStopped is what Run returns when the unwinder gives up.
var errStopped = errors.New("the unwinder has stopped")

// lateEvery is how often it is looked whether names have come.
const lateEvery = 200 * time.Millisecond

// Engine is one run of the unwinder.
type Engine struct {
	o      Options
	tracer *tracer.Tracer
	traces chan *libpf.EbpfTrace
	report *reporter
	before map[string]object // BPF objects of this process that are not the engine's
	entry  *ebpf.Program     // what the CPUs' clocks run
	unbind func()            // from the rate
	hooks  *hooks            // of the other types
}

// running is set while an unwinder is: the library has state of the process.
var running atomic.Bool

// started is set once the library's own metrics and clock are: they are global.
var started atomic.Bool

// Run takes stacks until ctx is done, and then returns nil. Any other return
// means that the caller may call it again after a while; an error that wraps
// errors.ErrUnsupported says that it cannot work on this kernel. Two runs at
// once are refused.
func Run(ctx context.Context, o Options) error {
	if !running.CompareAndSwap(false, true) {
		return errors.New("a profiler runs in this process already")
	}
	defer running.Store(false)
	if err := allowMemlock(); errors.Is(err, unix.EPERM) { // and it will not be allowed later
		return fmt.Errorf("lift the limit of locked memory: %w: %w: run with LimitMEMLOCK=infinity or CAP_SYS_RESOURCE", errors.ErrUnsupported, err)
	} else if err != nil {
		return fmt.Errorf("lift the limit of locked memory: %w: run with LimitMEMLOCK=infinity or CAP_SYS_RESOURCE", err)
	}
	proflog.SetLogger(*slog.New(quieter{o.Log.Handler()}))
	if started.CompareAndSwap(false, true) {
		metrics.Start(meter{})
		times.StartRealtimeSync(context.WithoutCancel(ctx), 3*time.Minute)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if o.Rate == nil {
		o.Rate = NewRate(o.Hertz)
	} else {
		o.Hertz = o.Rate.Base()
	}
	if o.Usage == nil {
		o.Usage = new(Usage)
	}
	e := &Engine{o: o, traces: make(chan *libpf.EbpfTrace), unbind: func() {}, hooks: newHooks(o.Entries)}
	e.report = newReporter(o, e.hooks)
	if err := e.start(ctx); err != nil {
		return err
	}
	defer e.close()
	defer cancel() // or what reads the unwinder's maps would go on without them
	return e.loop(ctx)
}

func (e *Engine) close() {
	e.unbind()
	e.hooks.close()
	e.o.Usage.end()
	e.tracer.Close()
	if e.entry != nil {
		e.entry.Close()
	}
}

// start loads and attaches.
func (e *Engine) start(ctx context.Context) (err error) {
	if e.before, err = objects(); err != nil {
		return err
	}
	cfg := &tracer.Config{
		ExecutableReporter: e.report,
		TraceReporter:      e.report,
		InterpretersConfig: interpreterconfig.AllInterpreters(),
		SamplesPerSecond:   e.ring(), // sizes the ring alone: the clocks are ours
		MapScaleFactor:     e.mapScale(),
		FrameCacheSize:     e.frameCache(),
		FilterErrorFrames:  false, // without them stacks lie
		FilterIdleFrames:   true,
		KernelVersionCheck: true,
		IncludeEnvVars:     libpf.Set[string]{},
		// Off: all CPUs sample all the time.
		ProbabilisticThreshold: tracer.ProbabilisticThresholdMax,
		ProbabilisticInterval:  time.Minute,
	}
	cfg.Intervals = intervals{cfg}
	t, err := tracer.NewTracer(ctx, cfg)
	if err != nil && features.HaveMapType(ebpf.RingBuf) != nil { // 5.8: the unwinder wants that and more, up to 5.10
		return fmt.Errorf("load the unwinder: %w: %w", errors.ErrUnsupported, err)
	}
	if err != nil {
		return fmt.Errorf("load the unwinder: %w", err)
	}
	e.tracer = t
	if err := e.attach(ctx); err != nil {
		go drain(e.traces)
		e.close()
		return err
	}
	return nil
}

func (e *Engine) attach(ctx context.Context) error {
	e.tracer.StartPIDEventProcessor(ctx)
	// Before there is anything to hear: a new process is told of once, and when
	// nobody listens then, the next one is heard of when MonitorInterval is over.
	if err := e.tracer.StartMapMonitors(ctx, e.traces); err != nil {
		return fmt.Errorf("read stacks: %w", err)
	}
	var err error
	if e.entry, err = findEntry(e.before); err != nil {
		return fmt.Errorf("attach to the CPUs' clocks: %w", err)
	}
	now := func() time.Time { return time.Unix(0, times.GetKTime().UnixNano()) }
	if e.unbind, err = e.o.Rate.bind(now, func(hertz int) (func(), error) { return startClocks(e.entry, hertz) }); err != nil {
		e.unbind = func() {}
		return err
	}
	if err := e.tracer.AttachSchedMonitor(); err != nil {
		return fmt.Errorf("watch for the end of processes: %w", err)
	}
	if err := e.attachHooks(ctx); err != nil {
		return err
	}
	return e.o.Usage.begin(e.before)
}

// loop hands traces over until ctx is done or the unwinder stops.
func (e *Engine) loop(ctx context.Context) error {
	defer func() { go drain(e.traces) }()
	if e.o.Ready != nil {
		e.o.Ready()
	}
	late := time.NewTimer(0) // runs while samples wait for names: an idle host is not woken for none
	defer late.Stop()
	defer e.hooks.finish(e.report.emit) // with what the reporter has handed on
	defer e.report.finish()
	tick, stop := e.hooks.ticker()
	defer stop()
	waiting := true
	for {
		select {
		case now := <-tick:
			if err := e.hooks.tick(now, e.report.emit); err != nil {
				return err
			}
		case <-late.C:
			e.report.again(patience)
			waiting = len(e.report.late) > 0
			if waiting {
				late.Reset(lateEvery)
			}
		case t := <-e.traces:
			if t != nil {
				e.tracer.HandleTrace(t)
			}
			if !waiting && len(e.report.late) > 0 {
				waiting = true
				late.Reset(lateEvery)
			}
		case <-e.tracer.Done():
			if ctx.Err() != nil {
				return nil
			}
			return errStopped
		case <-ctx.Done():
			return nil
		}
	}
}

// drain takes what the unwinder still hands over when it is told to stop: it does
// not look whether anybody takes it, and would wait for ever.
func drain(traces <-chan *libpf.EbpfTrace) {
	for end := time.After(time.Second); ; {
		select {
		case <-traces:
		case <-end:
			return
		}
	}
}

// intervals are the unwinder's, as it asks for them.
type intervals struct{ cfg *tracer.Config }

// MonitorInterval is how often the unwinder looks at its own counters.
//
// It is also where the unwinder is told that it may be given programs of ours.
// It believes that they need its copy of itself for kernel probes, and reads in
// its configuration whether that is there. It asks for this interval after it
// has loaded what it was told to load and before it notes what that was. The
// copy costs 1.5 seconds of CPU, and nothing of ours uses it.
func (i intervals) MonitorInterval() time.Duration {
	i.cfg.LoadProbe = true
	return 5 * time.Second
}

// TracePollInterval is how often the ring of stacks is read: nobody is woken
// for one.
func (intervals) TracePollInterval() time.Duration { return 500 * time.Millisecond }

// PIDCleanupInterval is how often processes that have ended unseen are forgotten.
func (intervals) PIDCleanupInterval() time.Duration { return 5 * time.Minute }

// ExecutableUnloadDelay is how long tables of a file that nothing runs any
// more are kept: a compiler or a cron job comes again.
func (intervals) ExecutableUnloadDelay() time.Duration { return 5 * time.Minute }

// quieter lets warnings and errors of the library through, as debug messages:
// they are about single processes, and come by the hundred.
type quieter struct{ slog.Handler }

// Enabled says no to what the library says of its daily work.
func (q quieter) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= slog.LevelWarn && q.Handler.Enabled(ctx, slog.LevelDebug)
}

// Handle passes a message on as a debug message.
func (q quieter) Handle(ctx context.Context, r slog.Record) error {
	r.Level = slog.LevelDebug
	return q.Handler.Handle(ctx, r)
}

// Types lists the types that this engine can take.
func Types() []*signal.ProfileType { return profile.Types() }
