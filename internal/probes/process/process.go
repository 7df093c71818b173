// Package process counts processes that start and end, and reports those that
// crash.
package process

import (
	"context"
	_ "embed"
	"fmt"

	"huatuo/internal/kern/load"
	"huatuo/internal/probe"
	"huatuo/internal/signal"
)

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -no-global-types -type crash_wire -type sender -type ht_regs -type ht_place -type exec_wire -type host_counts -type cgroup_counts bpf process.bpf.c -- -I../../../bpf/include -Wall -Werror -mcpu=v2
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -no-global-types bpfLegacy process.bpf.c -- -I../../../bpf/include -Wall -Werror -mcpu=v2 -DHT_LEGACY

//go:embed README.md
var readme string

// Config of the probe.
type Config struct {
	Exec             bool `yaml:"exec" help:"make a process_exec event of each program that a process starts to run; off by default, for a host starts thousands and the counters tell the rate"`
	ExecRate         int  `yaml:"exec_rate" help:"process_exec events per second and CPU that may pass in the long run, twice as many at once; 0 does not limit"`
	probe.EventKnobs `yaml:",inline"`
}

// Spec describes the probe.
func Spec() probe.Spec {
	return probe.New(probe.Meta{
		Name:   "process",
		Help:   "Counts processes that start and end, and reports those that crash.",
		Readme: readme,
		Source: "sched:sched_process_fork, sched_process_exec, sched_process_exit, signal:signal_generate, signal_deliver",
		Since:  "4.18",
		Emits:  []*signal.Schema{forks, execs, exits, containerForks, containerExecs, containerExits, crashed, executed},
	}, Config{
		ExecRate:   200,
		EventKnobs: probe.EventKnobs{Rate: 5, Burst: 10},
	}, run)
}

var (
	forks = &signal.Schema{
		Name: "huatuo_process_forks_total", Kind: signal.Metric, Type: signal.Counter, Unit: "1",
		Area: signal.AreaProcess, Scope: signal.Host,
		Help:   "Processes and threads that were started.",
		Read:   "A surge is a loop that spawns; the workload's own counter tells whose.",
		Fields: []signal.Field{{Name: "kind", Help: "process, or another thread of one", Values: []string{"process", "thread"}}},
	}
	execs = &signal.Schema{
		Name: "huatuo_process_execs_total", Kind: signal.Metric, Type: signal.Counter, Unit: "1",
		Area: signal.AreaProcess, Scope: signal.Host,
		Help: "Programs that processes started to run.",
		Read: "Health checks and shell scripts show here; each costs about a millisecond of CPU.",
	}
	exits = &signal.Schema{
		Name: "huatuo_process_exits_total", Kind: signal.Metric, Type: signal.Counter, Unit: "1",
		Area: signal.AreaProcess, Scope: signal.Host,
		Help:   "Processes that ended, by how.",
		Read:   "SIGSEGV, SIGABRT and SIGBUS are crashes; SIGKILL is an OOM kill or somebody's impatience.",
		Fields: []signal.Field{{Name: "cause", Help: "success: exit status 0; failure: another one; else the signal that killed it", Values: causes()}},
	}
	containerForks = &signal.Schema{
		Name: "huatuo_container_process_forks_total", Kind: signal.Metric, Type: signal.Counter, Unit: "1",
		Area: signal.AreaProcess, Scope: signal.Workload,
		Help: "Processes that the workload started, threads not counted.",
		Read: "Next to the limit of processes this tells a fork bomb early.",
	}
	containerExecs = &signal.Schema{
		Name: "huatuo_container_process_execs_total", Kind: signal.Metric, Type: signal.Counter, Unit: "1",
		Area: signal.AreaProcess, Scope: signal.Workload,
		Help: "Programs that processes of the workload started to run.",
		Read: "A service that should not run programs and does is worth a look.",
	}
	containerExits = &signal.Schema{
		Name: "huatuo_container_process_exits_total", Kind: signal.Metric, Type: signal.Counter, Unit: "1",
		Area: signal.AreaProcess, Scope: signal.Workload,
		Help:   "Processes of the workload that ended, by how.",
		Read:   "cause=\"signal\" that grows is a workload that crashes or is killed.",
		Fields: []signal.Field{{Name: "cause", Help: "success: exit status 0; failure: another one; signal: killed by one", Values: containerCauses[:]}},
	}
)

var containerCauses = [...]string{"success", "failure", "signal"}

// causes are the values of the label cause.
func causes() []string {
	return append([]string{"success", "failure", "SIGRT"}, signals[1:]...)
}

func run(ctx context.Context, env *probe.Env, cfg Config) error {
	l, err := env.Kernel.Load(loadBpf, loadBpfLegacy)
	if err != nil {
		return err
	}
	if err := l.Set("report_exec", cfg.Exec); err != nil {
		return err
	}
	if err := cfg.Set(l, "process_crash"); err != nil {
		return err
	}
	if err := (probe.EventKnobs{Rate: cfg.ExecRate, Burst: 2 * cfg.ExecRate}).Set(l, "process_exec"); err != nil {
		return err
	}
	exit := load.TP("sched_process_exit")
	if env.Kernel.TracepointArgs("sched_process_exit") <= 1 { // see core_fixes.h
		exit.Programs = []string{"sched_process_exit_1_btf", "sched_process_exit_1_raw"}
	}
	deliver := load.Hook{Name: "signal_deliver", Programs: []string{"signal_deliver_btf", "signal_deliver_plain_btf", "signal_deliver_raw"}}
	o, err := l.Attach(load.TP("sched_process_fork"), load.TP("sched_process_exec"), exit,
		deliver.Maybe(), load.TP("signal_generate").Maybe())
	if err != nil {
		return err
	}
	defer o.Close()

	env.Collect(load.Guard(o, func(b *signal.Batch) error { return collect(b, o) }))
	return probe.Stream(ctx, env, o, func(raw []byte) (*signal.Record, error) { return decode(raw, env.Clock) })
}

func collect(b *signal.Batch, o *load.Object) error {
	var cpus []bpfHostCounts
	if err := o.Map("host").Lookup(uint32(0), &cpus); err != nil {
		return fmt.Errorf("read counts: %w", err)
	}
	var sum bpfHostCounts
	for i := range cpus {
		c := &cpus[i]
		sum.Forks += c.Forks
		sum.Threads += c.Threads
		sum.Execs += c.Execs
		sum.Success += c.Success
		sum.Failure += c.Failure
		for s, n := range c.Signaled {
			sum.Signaled[s] += n
		}
	}
	b.Value(forks, float64(sum.Forks), "process")
	b.Value(forks, float64(sum.Threads), "thread")
	b.Value(execs, float64(sum.Execs))
	b.Value(exits, float64(sum.Success), "success")
	b.Value(exits, float64(sum.Failure), "failure")
	var realtime uint64
	for s, n := range sum.Signaled {
		switch {
		case s >= len(signals):
			realtime += n
		case s > 0:
			b.Value(exits, float64(n), signals[s])
		}
	}
	b.Value(exits, float64(realtime), "SIGRT")
	return collectCgroups(b, o)
}

func collectCgroups(b *signal.Batch, o *load.Object) error {
	var id uint64
	var per []bpfCgroupCounts
	it := o.Map("cgroups").Iterate()
	for it.Next(&id, &per) {
		var sum bpfCgroupCounts
		for i := range per {
			sum.Forks += per[i].Forks
			sum.Execs += per[i].Execs
			for e, n := range per[i].Exits {
				sum.Exits[e] += n
			}
		}
		b.WorkloadValue(containerForks, id, float64(sum.Forks))
		b.WorkloadValue(containerExecs, id, float64(sum.Execs))
		for e, n := range sum.Exits {
			b.WorkloadValue(containerExits, id, float64(n), containerCauses[e])
		}
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("read counts of cgroups: %w", err)
	}
	return nil
}
