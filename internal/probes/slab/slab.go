// Package slab reports the memory of the kernel's object caches, by cache.
package slab

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"huatuo/internal/kern/load"
	"huatuo/internal/probe"
	"huatuo/internal/signal"
)

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -no-global-types -type cache_row bpf slab.bpf.c -- -I../../../bpf/include -Wall -Werror -mcpu=v2

//go:embed README.md
var readme string

// Config of the probe.
type Config struct {
	Interval time.Duration `yaml:"interval" help:"how often the caches are walked, which holds off whoever makes or removes one; caches grow over hours"`
	Top      int           `yaml:"top" help:"caches with a series of their own, the largest; the others are summed as other"`
}

// Spec describes the probe.
func Spec() probe.Spec {
	return probe.New(probe.Meta{
		Name:   "slab",
		Help:   "Reports the memory of the kernel's object caches, by cache.",
		Readme: readme,
		Emits:  []*signal.Schema{cacheBytes, cacheObjects, caches},
		Since:  "4.18",
		Source: "BPF iterator of caches (else /proc/slabinfo)",
	}, Config{
		Interval: time.Minute,
		Top:      20,
	}, run)
}

var (
	cacheField = []signal.Field{{Name: "cache", Help: "name of the cache, as in /proc/slabinfo; other sums those beyond probes.slab.top"}}

	cacheBytes = &signal.Schema{
		Name: "huatuo_slab_cache_bytes", Kind: signal.Metric, Type: signal.Gauge, Unit: "bytes", Area: signal.AreaMemory, Scope: signal.Host,
		Help: "Memory of the slabs of a cache, used or not.",
		Read: "dentry and inode caches of gigabytes are normal and can be reclaimed. One of the others that climbs for days is a leak: its name says of what.", Fields: cacheField,
	}
	cacheObjects = &signal.Schema{
		Name: "huatuo_slab_cache_objects", Kind: signal.Metric, Type: signal.Gauge, Unit: "1", Area: signal.AreaMemory, Scope: signal.Host,
		Help: "Objects that the slabs of a cache have room for.",
		Read: "How many there can be: some of the room may be free. It falls when whole slabs are given back.", Fields: cacheField,
	}
	caches = &signal.Schema{
		Name: "huatuo_slab_caches", Kind: signal.Metric, Type: signal.Gauge, Unit: "1", Area: signal.AreaMemory, Scope: signal.Host,
		Help: "Object caches that the kernel has.",
		Read: "Some hundred. A steady climb is a driver that makes caches and forgets them.",
	}
)

// cache is one cache as a walk saw it.
type cache struct {
	name           string
	bytes, objects uint64
}

// source lists the caches.
type source interface {
	walk() ([]cache, error)
}

const (
	walkHook = "iter/kmem_cache"
	fileHook = "/proc/slabinfo"
)

func run(ctx context.Context, env *probe.Env, cfg Config) error {
	if cfg.Interval <= 0 || cfg.Top < 0 {
		return fmt.Errorf("probes.slab.interval is %v, top is %d: want a positive duration and no negative number", cfg.Interval, cfg.Top)
	}
	p := &poller{top: cfg.Top}
	var hook load.HookState
	if o, err := attach(env); err == nil {
		defer o.Close()
		p.source, hook = &iterSource{o: o}, o.Hooks()[0]
	} else { // it tells the same
		p.source = &fileSource{path: filepath.Join(env.Root, "proc/slabinfo")}
		hook = load.HookState{Hook: fileHook, By: "procfs", Reason: walkHook + ": " + err.Error()}
	}
	ready := sync.OnceFunc(func() {
		env.Collect(p.collect)
		env.Ready(hook)
	})
	return probe.Every(ctx, cfg.Interval, func() error {
		err := p.walk()
		switch {
		case err == nil:
			ready()
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, os.ErrNotExist):
			return fmt.Errorf("%w: the kernel was built without CONFIG_SLUB_DEBUG: %w", err, errors.ErrUnsupported)
		case errors.Is(err, os.ErrPermission):
			return fmt.Errorf("%w (%s): only root reads the file; %w", err, hook.Reason, errors.ErrUnsupported)
		}
		return err
	})
}

// poller walks the caches on its own schedule: a round takes what the last walk saw.
type poller struct {
	source source
	top    int
	last   atomic.Pointer[[]cache]
}

func (p *poller) walk() error {
	all, err := p.source.walk()
	if err == nil && len(all) == 0 {
		err = errors.New("no cache was found")
	}
	if err != nil {
		return fmt.Errorf("walk the object caches: %w", err)
	}
	sortCaches(all)
	p.last.Store(&all)
	return nil
}

func (p *poller) collect(b *signal.Batch) error {
	all := *p.last.Load()
	b.Value(caches, float64(len(all)))
	rest := cache{name: "other"}
	shown := map[string]bool{rest.name: true}
	for _, c := range all {
		if len(shown) > p.top || c.bytes == 0 || shown[c.name] { // two caches may have one name
			rest.bytes += c.bytes
			rest.objects += c.objects
			continue
		}
		shown[c.name] = true
		c.add(b)
	}
	rest.add(b)
	return nil
}

func (c *cache) add(b *signal.Batch) {
	b.Value(cacheBytes, float64(c.bytes), c.name)
	b.Value(cacheObjects, float64(c.objects), c.name)
}
