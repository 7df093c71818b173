// Package nvme reports the health that NVMe devices keep of themselves.
package nvme

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"huatuo/internal/kern/load"
	"huatuo/internal/kern/sysfs"
	"huatuo/internal/probe"
)

//go:embed README.md
var readme string

// Config of the probe.
type Config struct {
	Interval time.Duration `yaml:"interval" help:"how often devices are asked for their health log"`
	Timeout  time.Duration `yaml:"timeout" help:"a device that has not answered after this long counts as hung"`
}

// Spec describes the probe.
func Spec() probe.Spec {
	return probe.New(probe.Meta{
		Name:   "nvme",
		Help:   "Reports the health that NVMe devices keep of themselves.",
		Readme: readme,
		Emits:  schemas(),
		Since:  "4.18",
		Source: "NVMe log page 2 by ioctl(2), /sys/class/nvme",
	}, Config{
		Interval: time.Minute, // devices renew most of it every few seconds, none of it changes fast
		Timeout:  10 * time.Second,
	}, run)
}

func run(ctx context.Context, env *probe.Env, cfg Config) error {
	if cfg.Interval <= 0 || cfg.Timeout <= 0 {
		return fmt.Errorf("probes.nvme.interval is %v, timeout is %v: want positive durations", cfg.Interval, cfg.Timeout)
	}
	p := newPoller(env, cfg)
	names := p.names()
	if len(names) == 0 {
		return fmt.Errorf("no NVMe controller in /sys/class/nvme: %w", probe.ErrAbsent)
	}
	if _, err := os.Stat(filepath.Join(env.Root, "dev", names[0])); err != nil {
		return fmt.Errorf("find the device of %s: %w: in a container, the agent needs the host's /dev", names[0], err)
	}
	env.Collect(p.collect)
	env.Lost(func() probe.Loss { return probe.Loss{Observed: p.emitted.Load()} })
	return p.asker.Poll(ctx, env, cfg.Interval, p.names, p.judge, load.HookState{Hook: "NVME_IOCTL_ADMIN_CMD", By: "ioctl"})
}

// names of the controllers: nvme0. Of the paths to a subsystem that is reached
// by several, each is a controller.
func (p *poller) names() []string {
	var out []string
	for _, n := range sysfs.List(p.class, "nvme") {
		if rest := strings.TrimPrefix(n, "nvme"); rest != "" && strings.Trim(rest, "0123456789") == "" {
			out = append(out, n)
		}
	}
	return out
}
