// Package gpu reports NVIDIA GPUs, as nvidia-smi and the driver's messages in the kernel log tell.
package gpu

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"huatuo/internal/kern/kmsg"
	"huatuo/internal/kern/load"
	"huatuo/internal/kern/sysfs"
	"huatuo/internal/probe"
	"huatuo/internal/signal"
)

//go:embed README.md
var readme string

// Config of the probe.
type Config struct {
	Command  string        `yaml:"command" help:"NVIDIA's program that tells about GPUs: a path, or a name that is looked for in PATH"`
	Interval time.Duration `yaml:"interval" help:"how often it is run: it takes 20 to 100 ms of CPU for each GPU"`
	Timeout  time.Duration `yaml:"timeout" help:"it is killed when it has not ended after this long, and the GPUs count as hung"`
}

// Spec describes the probe.
func Spec() probe.Spec {
	return probe.New(probe.Meta{
		Name:   "gpu",
		Help:   "Reports NVIDIA GPUs: use, memory, clocks, power, heat, ECC errors, Xid errors.",
		Readme: readme,
		Emits:  schemas(),
		Since:  "4.18",
		Source: "nvidia-smi, /proc/driver/nvidia, /dev/kmsg",
	}, Config{
		Command:  "nvidia-smi",
		Interval: time.Minute,
		Timeout:  20 * time.Second, // it waits for the driver's locks, which others hold for seconds
	}, run)
}

// logEvery is how often the kernel log is looked at: one system call when it has nothing new.
const logEvery = 2 * time.Second

func run(ctx context.Context, env *probe.Env, cfg Config) error {
	if cfg.Interval <= 0 || cfg.Timeout <= 0 {
		return fmt.Errorf("probes.gpu.interval is %v, timeout is %v: want positive durations", cfg.Interval, cfg.Timeout)
	}
	p := &poller{driver: filepath.Join(env.Root, "proc/driver/nvidia/gpus"), smi: smi{timeout: cfg.Timeout}}
	if len(p.present()) == 0 {
		return fmt.Errorf("no GPU in /proc/driver/nvidia: %w", probe.ErrAbsent)
	}
	var err error
	if p.smi.path, err = exec.LookPath(cfg.Command); err != nil {
		return fmt.Errorf("NVIDIA's driver is loaded, but its nvidia-smi cannot be run: %v: in a container, use NVIDIA's runtime or set probes.gpu.command: %w", err, errors.ErrUnsupported)
	}
	// One name: the program asks all GPUs. The kill comes first, and the
	// program counts as hung when it cannot be killed, being in the driver.
	p.asker = probe.NewAsker(cfg.Timeout+2*killWait, func(string) ([]row, error) { return p.smi.query() })

	x := &xids{emit: env.Emit, clock: env.Clock, counts: map[xidKey]float64{}}
	env.Collect(p.collect)
	env.Collect(x.collect)
	env.Lost(func() probe.Loss {
		limited := x.limited.Load()
		return probe.Loss{Observed: x.emitted.Load() + limited, Dropped: map[string]uint64{"rate_limited": limited}}
	})
	hooks := []load.HookState{{Hook: "nvidia-smi", By: "command"}}
	log, err := kmsg.Open(kmsgPath)
	if err != nil {
		env.Log.Info("Xid errors are not seen", "reason", err)
		hooks = append(hooks, load.HookState{Hook: kmsgPath, Reason: err.Error()})
		log = nil
	} else {
		hooks = append(hooks, load.HookState{Hook: kmsgPath, By: "kmsg"})
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	if log != nil {
		wg.Go(func() {
			defer log.Close()
			if err := probe.Every(inner, logEvery, func() error { return x.read(log) }); err != nil {
				env.Log.Error("Xid errors are no longer seen", "err", err)
			}
		})
	}
	told := ""
	return p.asker.Poll(ctx, env, cfg.Interval, func() []string { return []string{"nvidia-smi"} }, func() {
		if a := p.asker.Answers()[0]; a.Err != nil && a.Err.Error() != told {
			told = a.Err.Error()
			env.Log.Warn("nvidia-smi gives nothing", "err", a.Err)
		}
	}, hooks...)
}

// kmsgPath is the log of the host's kernel, in containers too.
const kmsgPath = "/dev/kmsg"

type poller struct {
	driver string // /proc/driver/nvidia/gpus: a folder for each, by PCI address
	smi    smi
	asker  *probe.Asker[[]row]
}

// present are the GPUs that the driver has. It is a list in memory: no GPU is asked.
func (p *poller) present() []string { return sysfs.List(p.driver, "") }

func (p *poller) collect(b *signal.Batch) error {
	told, answered := map[string]bool{}, false
	for _, a := range p.asker.Answers() {
		hangs := a.Hung || errors.Is(a.Err, errTimeout)
		answered = answered || a.Known || a.Hung || a.Err != nil
		if !a.Known || hangs {
			continue
		}
		for i := range a.Value {
			r := &a.Value[i]
			if told[r.gpu] {
				continue
			}
			told[r.gpu] = true
			r.collect(b)
		}
	}
	if !answered {
		return nil // the first time is under way
	}
	for _, gpu := range p.present() {
		v := 0.0
		if told[gpu] {
			v = 1
		}
		b.Value(responds, v, gpu)
	}
	return nil
}
