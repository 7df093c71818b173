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

	"huatuo/internal/profile"
	"huatuo/internal/signal"
	"huatuo/internal/symbol"
)

// Options of Run.
type Options struct {
	Log     *slog.Logger
	Hertz   int              // samples per second and CPU; 0: no samples of CPU time
	Symbols *symbol.Resolver // names native code; required
	// Emit gets each sample, in one goroutine. It must not block for long: the
	// kernel's buffer holds what a second brings.
	Emit func(*signal.StackSample)
	// Ready is called when stacks are being taken.
	Ready func()
}

// errStopped is what Run returns when the unwinder gives up.
var errStopped = errors.New("the unwinder has stopped")

// Engine is one run of the unwinder.
type Engine struct {
	o      Options
	tracer *tracer.Tracer
	report *reporter
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
	if err := allowMemlock(); err != nil {
		return fmt.Errorf("lift the limit of locked memory: %w: run with LimitMEMLOCK=infinity or CAP_SYS_RESOURCE", err)
	}
	proflog.SetLogger(*slog.New(quieter{o.Log.Handler()}))
	if started.CompareAndSwap(false, true) {
		metrics.Start(meter{})
		times.StartRealtimeSync(context.WithoutCancel(ctx), 3*time.Minute)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	e := &Engine{o: o}
	e.report = newReporter(o)
	if err := e.start(ctx); err != nil {
		return err
	}
	defer e.tracer.Close()
	return e.loop(ctx)
}

// start loads and attaches.
func (e *Engine) start(ctx context.Context) error {
	t, err := tracer.NewTracer(ctx, &tracer.Config{
		ExecutableReporter: e.report,
		TraceReporter:      e.report,
		Intervals:          intervals{},
		InterpretersConfig: interpreterconfig.AllInterpreters(),
		SamplesPerSecond:   max(e.o.Hertz, 1),
		FrameCacheSize:     16384,
		FilterErrorFrames:  false, // without them stacks lie
		FilterIdleFrames:   true,
		KernelVersionCheck: true,
		IncludeEnvVars:     libpf.Set[string]{},
		// Off: all CPUs sample all the time.
		ProbabilisticThreshold: tracer.ProbabilisticThresholdMax,
		ProbabilisticInterval:  time.Minute,
	})
	if err != nil && features.HaveMapType(ebpf.RingBuf) != nil { // 5.8: the unwinder wants that and more, up to 5.10
		return fmt.Errorf("load the unwinder: %w: %w", errors.ErrUnsupported, err)
	}
	if err != nil {
		return fmt.Errorf("load the unwinder: %w", err)
	}
	e.tracer = t
	if err := e.attach(ctx); err != nil {
		t.Close()
		return err
	}
	return nil
}

func (e *Engine) attach(ctx context.Context) error {
	e.tracer.StartPIDEventProcessor(ctx)
	if e.o.Hertz > 0 {
		if err := e.tracer.AttachTracer(nil); err != nil {
			return fmt.Errorf("attach to the CPUs' clocks: %w", err)
		}
		if err := e.tracer.EnableProfiling(); err != nil {
			return fmt.Errorf("start the CPUs' clocks: %w", err)
		}
	}
	if err := e.tracer.AttachSchedMonitor(); err != nil {
		return fmt.Errorf("watch for the end of processes: %w", err)
	}
	return nil
}

// loop hands traces over until ctx is done or the unwinder stops.
func (e *Engine) loop(ctx context.Context) error {
	traces := make(chan *libpf.EbpfTrace)
	if err := e.tracer.StartMapMonitors(ctx, traces); err != nil {
		return fmt.Errorf("read stacks: %w", err)
	}
	if e.o.Ready != nil {
		e.o.Ready()
	}
	late := time.NewTicker(200 * time.Millisecond)
	defer late.Stop()
	defer e.report.finish()
	for {
		select {
		case <-late.C:
			e.report.again(patience)
		case t := <-traces:
			if t != nil {
				e.tracer.HandleTrace(t)
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

// intervals are the unwinder's, as it asks for them.
type intervals struct{}

// MonitorInterval is how often the unwinder looks at its own counters.
func (intervals) MonitorInterval() time.Duration { return 5 * time.Second }

// TracePollInterval is how often the ring of stacks is read: nobody is woken
// for one.
func (intervals) TracePollInterval() time.Duration { return 250 * time.Millisecond }

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

// Types lists the types that this engine takes.
func Types() []*signal.ProfileType { return []*signal.ProfileType{profile.CPU} }
