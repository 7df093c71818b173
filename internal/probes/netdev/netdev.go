// Package netdev reports the counters of the host's network devices.
package netdev

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"

	"huatuo/internal/kern/load"
	"huatuo/internal/kern/procfs"
	"huatuo/internal/probe"
	"huatuo/internal/signal"
)

//go:embed README.md
var readme string

// Config of the probe.
type Config struct {
	Include string `yaml:"include" help:"regular expression of device names: report these only; empty means all"`
	Exclude string `yaml:"exclude" help:"regular expression of device names: do not report these; empty means none"`
}

// Spec describes the probe.
func Spec() probe.Spec {
	emits := make([]*signal.Schema, len(columns))
	for i, c := range columns {
		emits[i] = c.schema
	}
	return probe.New(probe.Meta{
		Name:   "netdev",
		Help:   "Reports bytes, packets, errors and drops of the host's network devices.",
		Readme: readme,
		Emits:  emits,
		Since:  "4.18",
		Source: "/proc/net/dev",
	}, Config{
		// The host's ends of containers' and virtual machines' devices: one each, with
		// names that never come back, on busy nodes hundreds a day.
		Exclude: `^(veth|cali|lxc|tap|vnet|azv|eni[0-9a-f]{11}|gke[0-9a-f]{11})`,
	}, run)
}

func run(ctx context.Context, env *probe.Env, cfg Config) error {
	p, err := newPoller(filepath.Join(env.Root, "proc/net/dev"), cfg)
	if err != nil {
		return err
	}
	if err := p.collect(new(signal.Batch)); err != nil {
		return err
	}
	env.Collect(p.collect)
	env.Ready(load.HookState{Hook: "/proc/net/dev", By: "procfs"})
	<-ctx.Done()
	return nil
}

type poller struct {
	path             string
	include, exclude *regexp.Regexp
	buf              []byte
	devices          map[string]*device
	round            uint64
}

// device is what is kept of a device between rounds.
type device struct {
	labels []string // nil: not reported
	round  uint64   // when it was last seen
}

func newPoller(path string, cfg Config) (*poller, error) {
	p := &poller{path: path, devices: map[string]*device{}}
	var err error
	if cfg.Include != "" {
		if p.include, err = regexp.Compile(cfg.Include); err != nil {
			return nil, fmt.Errorf("compile netdev.include: %w", err)
		}
	}
	if cfg.Exclude != "" {
		if p.exclude, err = regexp.Compile(cfg.Exclude); err != nil {
			return nil, fmt.Errorf("compile netdev.exclude: %w", err)
		}
	}
	return p, nil
}

func (p *poller) collect(b *signal.Batch) error {
	var err error
	if p.buf, err = procfs.ReadInto(p.path, p.buf); err != nil {
		return fmt.Errorf("read network devices: %w", err)
	}
	p.round++
	known := 0
	for line := range bytes.Lines(p.buf) {
		name, counters, ok := parse(line)
		if !ok {
			continue
		}
		known++
		d := p.device(name)
		d.round = p.round
		if d.labels == nil {
			continue
		}
		for i, c := range columns {
			b.Value(c.schema, float64(counters[i]), d.labels...)
		}
	}
	if known == 0 {
		return errors.New("parse network devices: no device in " + p.path)
	}
	p.forget()
	return nil
}

// device returns the entry of name, made at its first sight: the regular
// expressions run once per device, not once per round.
func (p *poller) device(name []byte) *device {
	if d := p.devices[string(name)]; d != nil {
		return d
	}
	d := new(device)
	if (p.include == nil || p.include.Match(name)) && (p.exclude == nil || !p.exclude.Match(name)) {
		d.labels = []string{string(name)}
	}
	p.devices[string(name)] = d
	return d
}

// forget drops the devices that are gone.
func (p *poller) forget() {
	for name, d := range p.devices {
		if d.round != p.round {
			delete(p.devices, name)
		}
	}
}

// parse reads one line of /proc/net/dev; it is length-safe. The two lines of
// the heading are not ok. A name may hold a colon (an alias, eth0:1).
func parse(line []byte) (name []byte, counters [nColumns]uint64, ok bool) {
	i := bytes.LastIndexByte(line, ':')
	if i < 0 {
		return nil, counters, false
	}
	name = bytes.TrimSpace(line[:i])
	n := 0
	for f := range bytes.FieldsSeq(line[i+1:]) {
		if n == nColumns {
			break // a column of a future kernel
		}
		if counters[n], ok = procfs.Uint(f); !ok {
			return nil, counters, false
		}
		n++
	}
	return name, counters, n == nColumns && len(name) > 0
}
