// Package locks measures how long tasks and CPUs wait for the kernel's own locks, and which.
package locks

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"time"

	"huatuo/internal/kern/load"
	"huatuo/internal/probe"
	"huatuo/internal/signal"
)

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -no-global-types -type lock_contention_wire -type cpu_state -type site -type site_waits -type cgroup_waits bpf locks.bpf.c -- -I../../../bpf/include -Wall -Werror -mcpu=v2

//go:embed README.md
var readme string

// Config of the probe.
type Config struct {
	Stall            time.Duration `yaml:"stall" help:"a wait for a lock of the kernel from this length on is a lock_contention event; 20ms is a thousand times what such locks are held for"`
	Long             time.Duration `yaml:"long" help:"waits from this length on are counted by lock, which costs a stack each; shorter ones only by type of lock"`
	probe.EventKnobs `yaml:",inline"`
}

// Spec describes the probe.
func Spec() probe.Spec {
	return probe.New(probe.Meta{
		Name:   "locks",
		Help:   "Measures how long tasks and CPUs wait for the kernel's own locks, and which.",
		Readme: readme,
		Source: "lock:contention_begin, contention_end",
		Since:  "5.19",
		Emits:  []*signal.Schema{wait, longWaits, longSeconds, containerWaits, containerSeconds, unmeasured, contended},
	}, Config{
		Stall:      20 * time.Millisecond,
		Long:       100 * time.Microsecond,
		EventKnobs: probe.EventKnobs{Rate: 5, Burst: 10},
	}, run, probe.Without(probe.Detail, "waits by lock, but long ones", func(c *Config) { c.Long = c.Stall }))
}

// types by the number the program gives them; those that sleep come first.
var types = [...]string{
	"mutex", "rwsem_read", "rwsem_write", "percpu_rwsem_read", "percpu_rwsem_write", "rtmutex", "semaphore",
	"spinlock", "rwlock_read", "rwlock_write",
}

// sleeping is how many of them sleep.
const sleeping = 7

var (
	typeField = signal.Field{Name: "type", Help: "type of the lock, and for what it was wanted: read is shared, write exclusive", Values: types[:]}
	siteField = signal.Field{Name: "lock", Help: "name of the lock, or the function that took it where it has none; other sums those beyond the 64 with a series of their own"}
	sleepers  = []signal.Field{{Name: typeField.Name, Help: typeField.Help, Values: types[:sleeping]}}

	wait = &signal.Schema{
		Name: "huatuo_lock_wait_seconds", Kind: signal.Metric, Type: signal.Histogram, Unit: "seconds",
		Area: signal.AreaSched, Scope: signal.Host, Fields: []signal.Field{typeField},
		Help: "Time waited for a lock of the kernel that somebody else had.",
		Read: "Spin locks burn their CPU while they wait: microseconds. The others sleep: milliseconds mean that the holder itself waits, for I/O, memory or a CPU.",
	}
	longWaits = &signal.Schema{
		Name: "huatuo_lock_long_waits_total", Kind: signal.Metric, Type: signal.Counter, Unit: "1",
		Area: signal.AreaSched, Scope: signal.Host, Fields: []signal.Field{typeField, siteField},
		Help: "Waits for a lock of the kernel that were long, by lock.",
		Read: "Long is probes.locks.long, 100 µs by default. Shorter waits are in huatuo_lock_wait_seconds only.",
	}
	longSeconds = &signal.Schema{
		Name: "huatuo_lock_long_wait_seconds_total", Kind: signal.Metric, Type: signal.Counter, Unit: "seconds",
		Area: signal.AreaSched, Scope: signal.Host, Fields: []signal.Field{typeField, siteField},
		Help: "Time in long waits for a lock of the kernel, by lock.",
		Read: "The lock with the highest rate is the one to look for: its lock_contention events show who waits and who has it.",
	}
	containerWaits = &signal.Schema{
		Name: "huatuo_container_lock_waits_total", Kind: signal.Metric, Type: signal.Counter, Unit: "1",
		Area: signal.AreaSched, Scope: signal.Workload, Fields: sleepers,
		Help: "Waits of the workload's tasks for a lock of the kernel that sleeps.",
		Read: "Divides huatuo_container_lock_wait_seconds_total to the mean.",
	}
	containerSeconds = &signal.Schema{
		Name: "huatuo_container_lock_wait_seconds_total", Kind: signal.Metric, Type: signal.Counter, Unit: "seconds",
		Area: signal.AreaSched, Scope: signal.Workload, Fields: sleepers,
		Help: "Time that the workload's tasks waited for a lock of the kernel that sleeps.",
		Read: "A rate near 1 means that one task waits all the time. rwsem_write and rwsem_read together are often the mmap lock of a process with many threads.",
	}
	unmeasured = &signal.Schema{
		Name: "huatuo_lock_unmeasured_total", Kind: signal.Metric, Type: signal.Counter, Unit: "1",
		Area: signal.AreaAgent, Scope: signal.Host,
		Help: "Waits for a lock that were not measured because two waiting tasks shared a slot.",
		Read: "More than a thousandth of huatuo_lock_wait_seconds_count: the histogram misses samples.",
	}
	contended = signal.EventOf[LockContention]("lock_contention", signal.AreaSched, signal.Warning,
		"A task or a CPU waited for a lock of the kernel longer than the threshold.").When(
		"A wait for a lock of the kernel of `stall` (20ms): a thousand times what such locks are held for.",
		"Mutexes that are held over I/O by design, of a directory on a slow file system for example, and cgroup and network configuration while many containers start.")
)

func run(ctx context.Context, env *probe.Env, cfg Config) error {
	if cfg.Stall <= 0 || cfg.Long <= 0 {
		return fmt.Errorf("probes.locks.stall is %v, long is %v: want positive durations", cfg.Stall, cfg.Long)
	}
	if env.Kernel.TracepointArgs("contention_begin") == 0 {
		return fmt.Errorf("the kernel has no tracepoint lock:contention_begin, which came with 5.19, or no BTF that tells: %w", errors.ErrUnsupported)
	}
	l, err := env.Kernel.Load(loadBpf, nil)
	if err != nil {
		return err
	}
	names := newNames(env.Root, env.Symbol)
	for name, v := range map[string]any{
		"stall_ns": uint64(cfg.Stall), "long_ns": uint64(min(cfg.Long, cfg.Stall)),
		"sched_text": names.sched, "lock_text": names.lock, "static_data": names.data,
	} {
		if err := l.Set(name, v); err != nil {
			return err
		}
	}
	if err := cfg.Set(l, "lock_contention"); err != nil {
		return err
	}
	// The end first: a wait that began before is not counted, one that begins after is not missed.
	o, err := l.Attach(load.TP("contention_end"), load.TP("contention_begin"))
	if err != nil {
		return err
	}
	defer o.Close()

	c := &collector{names: names}
	env.Collect(load.Guard(o, func(b *signal.Batch) error { return c.collect(b, o) }))
	d := &decoder{clock: env.Clock, names: names}
	return probe.Stream(ctx, env, o, d.decode)
}
