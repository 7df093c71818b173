// Package changes reports what somebody changed on the host: sysctls, kernel
// modules, limits of workloads, mounts, CPUs.
package changes

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"huatuo/internal/kern/load"
	"huatuo/internal/probe"
	"huatuo/internal/signal"
)

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -no-global-types -type sysctl_wire -type module_wire -type actor bpf changes.bpf.c -- -I../../../bpf/include -Wall -Werror -mcpu=v2
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -no-global-types bpfLegacy changes.bpf.c -- -I../../../bpf/include -Wall -Werror -mcpu=v2 -DHT_LEGACY

//go:embed README.md
var readme string

// Config of the probe.
type Config struct {
	Interval         time.Duration `yaml:"interval" help:"how often limits of workloads that were written, mounts and settings of the host are compared; sysctls, where the kernel does not tell of writes, every third time"`
	Settle           time.Duration `yaml:"settle" help:"changes of a control group's limits in this time after it appeared are its making, and no events"`
	MaxGroups        int           `yaml:"max_groups" help:"most containers, pods and units whose limits are watched"`
	Namespaces       bool          `yaml:"namespaces" help:"make events of writes to net.* sysctls in other network namespaces than the host's too: container runtimes set some for each container"`
	Devices          bool          `yaml:"devices" help:"make events of writes to net.* sysctls of single network devices too: network plugins set some for each container"`
	probe.EventKnobs `yaml:",inline"`
}

// Spec describes the probe.
func Spec() probe.Spec {
	return probe.New(probe.Meta{
		Name:   "changes",
		Help:   "Reports changes of sysctls, kernel modules, limits of workloads, mounts and CPUs, with old and new value.",
		Readme: readme,
		Source: "cgroup/sysctl (else /proc/sys), module:module_load, module_free, inotify of cgroup files, mountinfo, /sys",
		Since:  "4.18",
		Emits:  []*signal.Schema{sysctlWritten, moduleChanged, configChanged},
	}, Config{
		Interval:   10 * time.Second,
		Settle:     10 * time.Second,
		MaxGroups:  1000, // 1 KB in the kernel for each, five times that on v1
		EventKnobs: probe.EventKnobs{Rate: 1, Burst: 20},
	}, run)
}

const sysctlHook = "cgroup/sysctl"

func run(ctx context.Context, env *probe.Env, cfg Config) error {
	if cfg.Interval <= 0 || cfg.Settle < 0 || cfg.MaxGroups < 0 {
		return fmt.Errorf("probes.changes: interval is %v, settle %v, max_groups %d: want a positive one, and none below 0", cfg.Interval, cfg.Settle, cfg.MaxGroups)
	}
	netns := hostNetNS(env.Root)
	o, hooks, err := attach(env, cfg, netns)
	if err != nil {
		return err
	}
	defer o.Close()
	p := newPoller(env, cfg, !o.Attached(sysctlHook))
	defer p.close()
	if err := p.look(); err != nil {
		return err
	}
	hooks = append(hooks, p.hooks()...)

	watch, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		probe.Every(watch, cfg.Interval, func() error {
			if err := p.look(); err != nil {
				p.complain(err)
			}
			return nil
		})
	})
	defer wg.Wait()
	defer cancel()

	all := *env
	all.Ready = func(hs ...load.HookState) { env.Ready(append(hs, hooks...)...) }
	all.Lost = func(f func() probe.Loss) { // what is polled for does not pass the ring
		env.Lost(func() probe.Loss {
			l := f()
			held := p.held.Load()
			l.Observed += p.made.Load() + held
			l.Dropped["rate_limited"] += held
			return l
		})
	}
	d := &decoder{clock: env.Clock}
	e := &effects{dir: filepath.Join(env.Root, "proc/sys"), own: netNS(env.Root, "self")}
	return probe.Stream(ctx, &all, o, func(raw []byte) (*signal.Record, error) {
		r, err := d.decode(raw)
		if err == nil {
			e.look(r)
		}
		return r, err
	})
}

// attach returns the object, and what could not be attached although the object has a program for it.
func attach(env *probe.Env, cfg Config, netns uint32) (*load.Object, []load.HookState, error) {
	l, err := env.Kernel.Load(loadBpf, loadBpfLegacy)
	if err != nil {
		return nil, nil, err
	}
	for name, v := range map[string]any{"host_netns": netns, "namespaces": cfg.Namespaces, "devices": cfg.Devices} {
		if err := l.Set(name, v); err != nil {
			return nil, nil, err
		}
	}
	for _, kind := range []string{"sysctl", "module"} {
		if err := cfg.Set(l, kind); err != nil {
			return nil, nil, err
		}
	}
	var hooks []load.Hook
	var missing []load.HookState
	if _, err := os.Stat(filepath.Join(env.Root, "proc/modules")); err == nil { // else the kernel has none, and nothing is missed
		hooks = append(hooks, load.TP("module_load").Maybe(), load.TP("module_free").Maybe())
	}
	root := ""
	if env.Layout != nil {
		root = env.Layout.Mount("")
	}
	if root != "" {
		if p := l.Spec.Programs["sysctl_write"]; p != nil {
			p.AttachTo = root
		}
		hooks = append(hooks, load.Hook{Name: sysctlHook, Programs: []string{"sysctl_write"}}.Maybe())
	} else {
		missing = append(missing, load.HookState{Hook: sysctlHook, Reason: "needs the cgroup2 hierarchy, mounted beside v1 or instead of it"})
	}
	o, err := l.Attach(hooks...)
	return o, missing, err
}

// hostNetNS returns the number of the host's network namespace, 0 when it cannot be told.
func hostNetNS(root string) (ns uint32) {
	if ns = netNS(root, "1"); ns == 0 {
		ns = netNS(root, "self")
	}
	return ns
}

func netNS(root, pid string) (ns uint32) {
	if link, err := os.Readlink(filepath.Join(root, "proc", pid, "ns/net")); err == nil {
		fmt.Sscanf(link, "net:[%d]", &ns)
	}
	return ns
}
