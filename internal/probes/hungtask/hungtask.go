// Package hungtask counts the tasks that wait and cannot be interrupted, and
// reports those that do so for long.
package hungtask

import (
	"context"
	_ "embed"
	"fmt"
	"sync/atomic"
	"time"

	"huatuo/internal/kern/kmsg"
	"huatuo/internal/kern/load"
	"huatuo/internal/probe"
	"huatuo/internal/signal"
)

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -no-global-types -type hung_wire -type task_row bpf hungtask.bpf.c -- -I../../../bpf/include -Wall -Werror -mcpu=v2
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -no-global-types bpfLegacy hungtask.bpf.c -- -I../../../bpf/include -Wall -Werror -mcpu=v2 -DHT_LEGACY

//go:embed README.md
var readme string

// Config of the probe.
type Config struct {
	Threshold        time.Duration `yaml:"threshold" help:"a task that waits uninterruptibly this long, without having run in between, is a hung_task event; 10s is beyond what any healthy disk or lock makes a task wait, and a twelfth of the kernel's own limit"`
	probe.EventKnobs `yaml:",inline"`
}

// Spec describes the probe.
func Spec() probe.Spec {
	return probe.New(probe.Meta{
		Name:   "hungtask",
		Help:   "Counts the tasks that wait and cannot be interrupted, and reports those that do so for long.",
		Readme: readme,
		Source: "BPF iterator of tasks (else /proc/PID/task), sched:sched_process_hang, /dev/kmsg",
		Since:  "4.18",
		Emits:  []*signal.Schema{waiting, containerWaiting, hung, hungTask},
	}, Config{
		Threshold:  10 * time.Second,
		EventKnobs: probe.EventKnobs{Rate: 1, Burst: 10},
	}, run)
}

var (
	waitField = signal.Field{Name: "wait", Help: "io: a block device; network_fs: a file server or FUSE; journal: a file system's log; memory: to be reclaimed or written back; lock: a lock of the kernel; other", Values: classNames()}

	waiting = &signal.Schema{
		Name: "huatuo_tasks_uninterruptible", Kind: signal.Metric, Type: signal.Gauge, Unit: "1",
		Area: signal.AreaProcess, Scope: signal.Host,
		Help:   "Tasks that wait and cannot be interrupted (state D), by what for.",
		Read:   "They are part of the load average. Some in io are a busy disk; the same number for minutes are tasks that hang.",
		Fields: []signal.Field{waitField},
	}
	containerWaiting = &signal.Schema{
		Name: "huatuo_container_tasks_uninterruptible", Kind: signal.Metric, Type: signal.Gauge, Unit: "1",
		Area: signal.AreaProcess, Scope: signal.Workload,
		Help:   "Tasks of the workload that wait and cannot be interrupted (state D), by what for.",
		Read:   "A workload whose tasks all wait does nothing, though it is running; its hung_task events tell where. Absent while none waits.",
		Fields: []signal.Field{waitField},
	}
	hung = &signal.Schema{
		Name: "huatuo_tasks_hung", Kind: signal.Metric, Type: signal.Gauge, Unit: "1",
		Area: signal.AreaProcess, Scope: signal.Host,
		Help: "Tasks that have been waiting uninterruptibly for longer than the threshold, without having run.",
		Read: "Anything but zero is worth an alert: a device, a file server or a lock is gone.",
	}
)

// minThreshold keeps the period of the walks, a fifth of it, sane.
const minThreshold = 400 * time.Millisecond

func run(ctx context.Context, env *probe.Env, cfg Config) error {
	if cfg.Threshold < minThreshold {
		return fmt.Errorf("probes.hungtask.threshold is %v: want at least %v", cfg.Threshold, minThreshold)
	}
	l, err := env.Kernel.Load(loadBpf, loadBpfLegacy)
	if err != nil {
		return err
	}
	if err := cfg.Set(l, "hung_task"); err != nil {
		return err
	}
	o, err := l.Attach(load.TP("sched_process_hang").Maybe(), load.Hook{Name: walkHook, Programs: []string{"tasks"}, Optional: true})
	if err != nil {
		return err
	}
	defer o.Close()

	w := newWatch(env, o, cfg.Threshold)
	env.Collect(w.collect)
	env.Ready(o.Hooks()...)

	done := make(chan struct{})
	go func() { defer close(done); w.run(ctx) }()
	err = stream(ctx, env, o, w)
	<-done
	return err
}

// stream passes on what the kernel's own detector reports, with what it wrote
// into the log.
func stream(ctx context.Context, env *probe.Env, o *load.Object, w *watch) error {
	inner := *env
	inner.Lost = func(f func() probe.Loss) {
		env.Lost(func() probe.Loss { // events of the walks are counted besides those of the program
			l := f()
			l.Observed += w.emitted.Load()
			return l
		})
	}
	rep := &reporter{wait: excerptPatience}
	if log, err := kmsg.Open(kmsgPath); err != nil {
		env.Log.Info("events have no part of the kernel log", "reason", err)
	} else {
		defer log.Close()
		rep.log = log
	}
	inner.Emit = func(r *signal.Record) {
		var walk []task
		if s := w.last.Load(); s != nil {
			walk = s.tasks
		}
		w.explain.explain(r, walk) // first: the wait may end while the report is written
		rep.attach(r)
		env.Emit(r)
	}
	d := &decoder{clock: env.Clock, symbol: env.Symbol, stack: w.stackOf}
	return probe.Stream(ctx, &inner, o, d.decode)
}

// watch walks the tasks and keeps what it saw last.
type watch struct {
	env     *probe.Env
	source  source
	explain *explainer
	tracker tracker
	every   time.Duration
	last    atomic.Pointer[sample]
	emitted atomic.Uint64
}

// sample is one walk over the tasks.
type sample struct {
	tasks []task
	hung  int
}

func newWatch(env *probe.Env, o *load.Object, threshold time.Duration) *watch {
	// A fifth of the threshold sees a task four times before it is one.
	w := &watch{env: env, every: min(threshold/5, 5*time.Second), tracker: tracker{threshold: threshold}, explain: newExplainer(env)}
	if o.Attached(walkHook) {
		w.source = &iterSource{o: o, symbol: env.Symbol}
	} else {
		w.source = newProcSource(env)
	}
	return w
}

func (w *watch) run(ctx context.Context) {
	complained := false
	err := probe.Every(ctx, w.every, func() error {
		tasks, err := w.source.walk()
		if err != nil {
			if ctx.Err() == nil && !complained {
				complained = true
				w.env.Log.Error("cannot walk the tasks", "err", err)
			}
			w.last.Store(nil)
			return nil
		}
		complained = false
		groups := w.tracker.observe(w.env.Now(), tasks)
		w.last.Store(&sample{tasks: tasks, hung: w.tracker.hung})
		for _, g := range w.explain.split(groups) {
			w.emitted.Add(1)
			r := g.record(w.env.Now())
			w.explain.explain(r, tasks)
			w.env.Emit(r)
		}
		return nil
	})
	if err != nil { // BUG: the function returns none
		w.env.Log.Error("walks over the tasks have ended", "err", err)
	}
}

// stackOf returns the stack of a task as the last walk saw it, or by /proc when
// it did not.
func (w *watch) stackOf(t *task) ([]uint64, []signal.Frame) {
	if s := w.last.Load(); s != nil {
		for i := range s.tasks {
			if s.tasks[i].pid == t.pid {
				return s.tasks[i].stack, s.tasks[i].frames
			}
		}
	}
	return nil, newProcSource(w.env).frames(t.tgid, t.pid)
}

func (w *watch) collect(b *signal.Batch) error {
	s := w.last.Load()
	if s == nil {
		return nil // not known is not zero
	}
	classes := make(map[string]int)
	type part struct {
		cgroup uint64
		class  string
	}
	groups := make(map[part]int)
	for i := range s.tasks {
		classes[s.tasks[i].class]++
		if id := s.tasks[i].cgroup; id != 0 {
			groups[part{id, s.tasks[i].class}]++
		}
	}
	for _, c := range classNames() {
		b.Value(waiting, float64(classes[c]), c)
	}
	for g, n := range groups {
		b.WorkloadValue(containerWaiting, g.cgroup, float64(n), g.class)
	}
	b.Value(hung, float64(s.hung))
	return nil
}
