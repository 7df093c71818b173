// Package limits reports how near the host and its workloads are to the limits
// of the kernel: open files, tasks, cached inodes and names.
package limits

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"time"

	"huatuo/internal/kern/cgroup"
	"huatuo/internal/kern/load"
	"huatuo/internal/probe"
	"huatuo/internal/signal"
)

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -no-global-types -type process_row -type state_counts bpf limits.bpf.c -- -I../../../bpf/include -Wall -Werror -mcpu=v2

//go:embed README.md
var readme string

// Config of the probe.
type Config struct {
	Interval time.Duration `yaml:"interval" help:"how often the open files of processes are counted; without the iterator of tasks once a minute at most, since /proc takes fifty times as long"`
}

// Spec describes the probe.
func Spec() probe.Spec {
	return probe.New(probe.Meta{
		Name:   "limits",
		Help:   "Reports how near the host and its workloads are to limits of open files and tasks, and the states of tasks.",
		Readme: readme,
		Emits: []*signal.Schema{
			filesOpen, filesLimit, inodes, names, tasksLimit, tasksByState,
			processRatio, containerFiles, containerRatio, containerZombies,
		},
		Since:  "4.18",
		Source: "BPF iterator of tasks (else /proc/PID/fd), /proc/sys/fs/file-nr, inode-nr, dentry-state, /proc/sys/kernel/threads-max, pid_max",
	}, Config{Interval: 30 * time.Second}, run)
}

func host(area signal.Area, name, unit, help, read string, fields ...signal.Field) *signal.Schema {
	return &signal.Schema{
		Name: "huatuo_" + name, Kind: signal.Metric, Type: signal.Gauge, Unit: unit,
		Area: area, Scope: signal.Host, Help: help, Read: read, Fields: fields,
	}
}

func container(name, unit, help, read string) *signal.Schema {
	s := host(signal.AreaProcess, "container_"+name, unit, help, read)
	s.Scope = signal.Workload
	return s
}

var (
	filesOpen = host(signal.AreaProcess, "files_open", "1", "Open files of the host: file descriptions, sockets and pipes included.",
		"A steady climb is a leak of descriptors; huatuo_container_files_open tells whose.")
	filesLimit = host(signal.AreaProcess, "files_limit", "1", "Open files that the host may have (fs.file-max).",
		"At the limit nobody but root can open anything. Absent where it is so high that there is none.")
	inodes = host(signal.AreaMemory, "inodes_cached", "1", "Inodes in memory.",
		"Unused ones are cache. A surge costs memory and, when it is reclaimed, CPU time.",
		signal.Field{Name: "state", Help: "used: by an open file, a name or a mapping; unused: kept for later", Values: []string{"used", "unused"}})
	names = host(signal.AreaMemory, "dentries_cached", "1", "Names of files in memory.",
		"Millions of negative ones: a program looks for files that are not there, over and over. A directory with very many makes operations in it slow.",
		signal.Field{Name: "state", Help: "used; unused: kept for later; negative: unused, and of a file that does not exist", Values: []string{"used", "unused", "negative"}})
	tasksLimit = host(signal.AreaProcess, "tasks_limit", "1", "Tasks that the host may have.",
		"Compare with huatuo_tasks: at the smaller one of the two fork fails with EAGAIN, for everybody.",
		signal.Field{Name: "limit", Help: "threads_max: kernel.threads-max; pid_max: kernel.pid_max", Values: []string{"threads_max", "pid_max"}})
	tasksByState = host(signal.AreaProcess, "tasks_by_state", "1", "Tasks (threads of user processes and of the kernel) in each state, at the last walk.",
		"Zombies that stay: their parents do not wait for them, and they count against the limits of tasks. Stopped ones were stopped by a signal or a debugger. Absent before Linux 5.8.",
		signal.Field{Name: "state", Values: states[:],
			Help: "running: runs or waits for a CPU; sleeping: waits, and signals wake it; uninterruptible: waits, and counts as load; idle: a thread of the kernel without work; stopped; zombie: has ended, and its parent does not know yet"})
	processRatio = host(signal.AreaProcess, "process_files_used_ratio", "ratio", "Open files of the process that is nearest to its limit, as a share of it (RLIMIT_NOFILE).",
		"At 1 the process gets EMFILE: a server accepts no more connections. huatuo_container_process_files_used_ratio tells in which workload.")
	containerFiles = container("files_open", "1", "Descriptors of open files in the processes of the workload.",
		"A steady climb with steady load is a leak.")
	containerRatio = container("process_files_used_ratio", "ratio", "Open files of the workload's process that is nearest to its limit, as a share of it (RLIMIT_NOFILE).",
		"Above 0.8: raise the limit, or look for the leak.")
	containerZombies = container("processes_zombie", "1", "Processes of the workload that have ended and that their parents have not waited for.",
		"A climb: the container's first process does not reap children that it inherits; start it with an init (docker run --init). Absent before Linux 5.8.")
)

// states by the number that the program gives them.
var states = [...]string{"running", "sleeping", "uninterruptible", "idle", "stopped", "zombie"}

const (
	walkHook = "iter/task"
	fileHook = "/proc/PID/fd"
)

func run(ctx context.Context, env *probe.Env, cfg Config) error {
	if cfg.Interval <= 0 {
		return fmt.Errorf("probes.limits.interval is %v: want a positive duration", cfg.Interval)
	}
	w := &walker{cgroups: env.Cgroups, proc: &procSource{proc: filepath.Join(env.Root, "proc"), layout: env.Layout, buf: make([]byte, 4096)}}
	hook := load.HookState{Hook: walkHook}
	if o, err := attach(env); err == nil {
		defer o.Close()
		w.source, hook = &iterSource{o: o, proc: w.proc}, o.Hooks()[0]
	} else {
		hook.Reason = err.Error()
	}
	hooks := []load.HookState{hook}
	if w.source == nil {
		w.source, cfg.Interval = w.proc, max(cfg.Interval, slowest)
		hooks = append(hooks, load.HookState{Hook: fileHook, By: "procfs"})
	}
	k := &knobs{dir: filepath.Join(env.Root, "proc/sys")}
	env.Collect(func(b *signal.Batch) error {
		w.collect(b)
		return k.collect(b)
	})
	env.Ready(hooks...)
	complained := false
	return probe.Every(ctx, cfg.Interval, func() error {
		err := w.walk()
		if err != nil && ctx.Err() == nil && !complained {
			env.Log.Error("cannot count the open files of processes", "err", err)
		}
		complained = err != nil
		return nil
	})
}

// slowest is how often /proc is walked, where there is nothing better.
const slowest = time.Minute

func attach(env *probe.Env) (*load.Object, error) {
	if env.Kernel == nil {
		return nil, errors.New("no BPF")
	}
	l, err := env.Kernel.Load(loadBpf, nil)
	if err != nil {
		return nil, err
	}
	return l.Attach(load.Hook{Name: walkHook, Programs: []string{"processes"}})
}

// process is one process with its open files.
type process struct {
	cgroup       uint64
	tgid         uint32
	files, limit uint64
	zombie       bool // and nothing else
}

// ratio is what it uses of its limit. A limit can be lowered below what is open already.
func (p process) ratio() float64 {
	if p.limit == 0 {
		return 0
	}
	return float64(p.files) / float64(p.limit)
}

// source lists the processes, and counts the tasks by state, which is nil when it cannot.
type source interface {
	walk() (processes []process, states []uint64, err error)
}

// walker counts on its own schedule; a round takes what the last walk found.
type walker struct {
	source  source
	proc    *procSource
	cgroups *cgroup.Index
	last    atomic.Pointer[summary]
}

// summary is one walk over the processes.
type summary struct {
	highest   float64
	states    []uint64
	workloads []workload
}

// workload is one workload's part of a walk.
type workload struct {
	cgroup  uint64 // of the process that is nearest to its limit
	files   uint64
	highest float64
	zombies int
}

func (w *walker) walk() error {
	all, states, err := w.source.walk()
	if err != nil {
		w.last.Store(nil) // not known is not zero
		return err
	}
	s := w.sum(all)
	s.states = states
	w.last.Store(s)
	return nil
}

// sum puts together the processes of each workload: the highest share of one of
// its groups must not be added to that of another.
func (w *walker) sum(all []process) *summary {
	s := &summary{}
	index := map[string]int{}
	for i := range all {
		p := &all[i]
		r := p.ratio()
		s.highest = max(s.highest, r)
		if p.cgroup == 0 {
			continue
		}
		top := w.top(p.cgroup)
		j, ok := index[top]
		if !ok {
			j = len(s.workloads)
			index[top] = j
			s.workloads = append(s.workloads, workload{cgroup: p.cgroup})
		}
		x := &s.workloads[j]
		if p.zombie {
			x.zombies++
		}
		x.files += p.files
		if r > x.highest {
			x.cgroup, x.highest = p.cgroup, r
		}
	}
	return s
}

// top names the workload that a group belongs to.
func (w *walker) top(id uint64) string {
	if w.cgroups != nil {
		if e, ok := w.cgroups.Lookup(id); ok && e.Top != "" {
			return e.Top
		}
	}
	return fmt.Sprint(id)
}

func (w *walker) collect(b *signal.Batch) {
	s := w.last.Load()
	if s == nil {
		return
	}
	b.Value(processRatio, s.highest)
	for i, n := range s.states {
		b.Value(tasksByState, float64(n), states[i])
	}
	for _, x := range s.workloads {
		if s.states != nil {
			b.WorkloadValue(containerZombies, x.cgroup, float64(x.zombies))
		}
		b.WorkloadValue(containerFiles, x.cgroup, float64(x.files))
		b.WorkloadValue(containerRatio, x.cgroup, x.highest)
	}
}
