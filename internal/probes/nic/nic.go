// Package nic reports the state of network devices: links, bonds, queueing
// disciplines and what drivers count, and tells when a device loses its link,
// stops sending, or changes its place in a bond.
package nic

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"regexp"
	"sync"
	"time"

	"huatuo/internal/kern/load"
	"huatuo/internal/probe"
	"huatuo/internal/signal"
)

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -no-global-types -type nic_timeout_wire -type device_name bpf nic.bpf.c -- -I../../../bpf/include -Wall -Werror -mcpu=v2
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -no-global-types bpfLegacy nic.bpf.c -- -I../../../bpf/include -Wall -Werror -mcpu=v2 -DHT_LEGACY

//go:embed README.md
var readme string

// Config of the probe.
type Config struct {
	Include          string        `yaml:"include" help:"regular expression of device names: report these only; empty means all"`
	Exclude          string        `yaml:"exclude" help:"regular expression of device names: do not report these; empty means none"`
	Period           time.Duration `yaml:"period" help:"how often links and queueing disciplines are read; changes of links are told at once"`
	Drivers          time.Duration `yaml:"drivers" help:"how often drivers are asked for speed and counters; some ask their hardware then"`
	Errors           int           `yaml:"errors" help:"a counter of errors of a driver that moves so much between two readings is a nic event; 100 a minute is more than a link at its best loses, and little of a busy one"`
	probe.EventKnobs `yaml:",inline"`
}

// Spec describes the probe.
func Spec() probe.Spec { return spec(0) }

// spec is Spec for a network namespace, given as an open file; 0 is the agent's own.
func spec(netns int) probe.Spec {
	return probe.New(probe.Meta{
		Name:   "nic",
		Help:   "Reports links, bonds, queueing disciplines and drivers' counters of network devices, and tells what happens to them.",
		Readme: readme,
		Source: "rtnetlink, ethtool, devlink, net:net_dev_xmit_timeout",
		Since:  "4.18",
		Emits:  emits(),
	}, Config{
		// As in the probe netdev: the host's ends of containers' devices.
		Exclude: `^(veth|cali|lxc|tap|vnet|azv|eni[0-9a-f]{11}|gke[0-9a-f]{11})`,
		Period:  5 * time.Second, Drivers: time.Minute, Errors: 100,
		EventKnobs: probe.EventKnobs{Rate: 5, Burst: 20},
	}, func(ctx context.Context, env *probe.Env, cfg Config) error { return run(ctx, env, cfg, netns) })
}

func run(ctx context.Context, env *probe.Env, cfg Config, netns int) error {
	if cfg.Period <= 0 || cfg.Drivers <= 0 || cfg.Errors <= 0 || cfg.Rate < 0 || cfg.Burst < 0 {
		return fmt.Errorf("probes.nic: period, drivers and errors must be positive, not %v, %v, %d; rate and burst not negative", cfg.Period, cfg.Drivers, cfg.Errors)
	}
	wants, err := filter(cfg)
	if err != nil {
		return err
	}
	r, err := open(env, cfg, wants, netns)
	if err != nil {
		return err
	}
	defer r.close()
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	r.start(ctx, fail)
	env.Collect(r.collect)

	env = r.share(env)
	if err := r.watch(ctx, env, cfg.EventKnobs); err != nil {
		return err
	}
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// watch waits for the end of ctx and meanwhile for queues that do not send,
// where this kernel tells of them.
func (r *reader) watch(ctx context.Context, env *probe.Env, knobs probe.EventKnobs) error {
	o, err := watchdog(env, knobs)
	if err != nil {
		env.Log.Info("transmit timeouts are not seen", "err", err)
		env.Ready(load.HookState{Hook: "net_dev_xmit_timeout", Reason: err.Error()})
		env.Lost(func() probe.Loss { return probe.Loss{} })
		<-ctx.Done()
		return nil
	}
	defer o.Close()
	env.Collect(load.Guard(o, func(b *signal.Batch) error { return r.collectTimeouts(b, o) }))
	d := &decoder{clock: env.Clock, port: r.port}
	return probe.Stream(ctx, env, o, d.decode)
}

// filter makes the rule which devices are reported.
func filter(cfg Config) (func(string) bool, error) {
	var include, exclude *regexp.Regexp
	var err error
	if cfg.Include != "" {
		if include, err = regexp.Compile(cfg.Include); err != nil {
			return nil, fmt.Errorf("compile nic.include: %w", err)
		}
	}
	if cfg.Exclude != "" {
		if exclude, err = regexp.Compile(cfg.Exclude); err != nil {
			return nil, fmt.Errorf("compile nic.exclude: %w", err)
		}
	}
	return func(name string) bool {
		return (include == nil || include.MatchString(name)) && (exclude == nil || !exclude.MatchString(name))
	}, nil
}

// share returns an Env through which the BPF part of the probe speaks, so that
// its hooks and losses are added to those of the rest.
func (r *reader) share(env *probe.Env) *probe.Env {
	e := *env
	e.Ready = func(hooks ...load.HookState) {
		env.Ready(append([]load.HookState{
			{Hook: "rtnetlink", By: "netlink"}, {Hook: "ethtool", By: "ioctl"}, {Hook: "devlink", By: "netlink"},
		}, hooks...)...)
	}
	e.Lost = func(f func() probe.Loss) {
		env.Lost(func() probe.Loss {
			sum, other := r.tracker.loss(), f()
			sum.Observed += other.Observed
			for reason, n := range other.Dropped {
				sum.Dropped[reason] += n
			}
			return sum
		})
	}
	return &e
}

// settle is how long the probe waits for the first answers before it says that
// it is ready, and in the end for what may hang.
const settle = 2 * time.Second

// wait waits for wg, but not for ever: what hangs in the kernel cannot be ended.
func wait(wg *sync.WaitGroup) {
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(settle):
	}
}
