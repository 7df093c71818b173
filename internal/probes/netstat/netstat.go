// Package netstat reports what the kernel's network stack counts: TCP, UDP, IP,
// sockets, connection tracking, neighbours.
package netstat

import (
	"cmp"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"huatuo/internal/kern/cgroup"
	"huatuo/internal/kern/load"
	"huatuo/internal/kern/procfs"
	"huatuo/internal/probe"
	"huatuo/internal/signal"
)

//go:embed README.md
var readme string

// Config of the probe.
type Config struct {
	MaxNamespaces int `yaml:"max_namespaces" help:"network namespaces of workloads that are read in each round; 0 reads the host's alone. Each costs about 100 µs a round"`
}

// numbers are all that come from tables of names.
var numbers = newTable(tcpFields(), udpFields(), ipFields(), socketFields())

// Spec describes the probe.
func Spec() probe.Spec {
	return probe.New(probe.Meta{
		Name:   "netstat",
		Help:   "Reports what the network stack counts of TCP, UDP, IP, sockets, connection tracking and neighbours.",
		Readme: readme,
		Emits:  append(numbers.schemas(), hostSchemas...),
		Since:  "4.18",
		Source: "/proc/net/{netstat,snmp,snmp6,sockstat,sockstat6,softnet_stat,stat/*}",
	}, Config{MaxNamespaces: 200}, run)
}

func run(ctx context.Context, env *probe.Env, cfg Config) error {
	if cfg.MaxNamespaces < 0 {
		return fmt.Errorf("probes.netstat.max_namespaces is %d: want 0 or more", cfg.MaxNamespaces)
	}
	p := newPoller(env, cfg)
	if err := p.collect(new(signal.Batch)); err != nil {
		return err
	}
	env.Collect(p.collect)
	hooks := []load.HookState{{Hook: "/proc/net", By: "procfs"}}
	if cfg.MaxNamespaces > 0 && env.Layout == nil {
		hooks = append(hooks, load.HookState{Hook: "workloads", Reason: "no control groups to name workloads by"})
	}
	env.Ready(hooks...)
	<-ctx.Done()
	return nil
}

// lookAgain is how often the processes are searched for network namespaces: it
// costs 3 µs a process.
const lookAgain = 30 * time.Second

type poller struct {
	root   string
	fs     *procfs.FS
	layout *cgroup.Layout // nil: workloads cannot be told
	max    int
	now    func() time.Time
	page   float64

	buf     []byte
	reading *reading
	cpus    []string

	own    uint32 // namespace of the agent
	looked time.Time
	inner  []namespace // by cgroup

	sums   []float64 // of one workload, by index of numbers.fields
	summed []bool
}

// namespace is that of a workload.
type namespace struct {
	id     uint32
	dir    string // /proc/PID/net of its oldest process
	cgroup uint64
	pid    uint32
}

func newPoller(env *probe.Env, cfg Config) *poller {
	p := &poller{
		root: env.Root, fs: procfs.New(env.Root), layout: env.Layout, max: cfg.MaxNamespaces, now: env.Now,
		page: float64(os.Getpagesize()), reading: newReading(numbers),
		sums: make([]float64, len(numbers.fields)), summed: make([]bool, len(numbers.fields)),
	}
	if link, err := os.Readlink(filepath.Join(env.Root, "proc/self/ns/net")); err == nil {
		fmt.Sscanf(link, "net:[%d]", &p.own)
	}
	return p
}

func (p *poller) collect(b *signal.Batch) error {
	if err := p.readNet("proc/net"); err != nil {
		return fmt.Errorf("read network counters: %w", err)
	}
	known := false
	for i, f := range numbers.fields {
		if v, ok := p.reading.value(i); ok {
			b.Value(f.schema, v, f.labels...)
			known = true
		}
	}
	if !known {
		return errors.New("parse network counters: none is known")
	}
	p.host(b)
	if p.layout == nil || p.own == 0 || p.max == 0 {
		return nil
	}
	if now := p.now(); p.looked.IsZero() || now.Sub(p.looked) >= lookAgain || now.Before(p.looked) {
		p.look()
		p.looked = now
	}
	p.workloads(b)
	return nil
}

// readNet reads the files of one namespace. Those of IPv6 may be absent.
func (p *poller) readNet(dir string) error {
	p.reading.reset()
	for _, f := range []struct {
		file  string
		parse func([]byte)
		must  bool
	}{
		{"snmp", p.reading.pairs, true}, {"netstat", p.reading.pairs, true}, {"snmp6", p.reading.lines, false},
		{"sockstat", p.reading.sockets, false}, {"sockstat6", p.reading.sockets, false},
	} {
		var err error
		if p.buf, err = procfs.ReadInto(filepath.Join(p.root, dir, f.file), p.buf); err != nil {
			if f.must {
				return err
			}
			continue
		}
		f.parse(p.buf)
	}
	return nil
}

// look finds the namespaces of workloads: those other than the agent's own.
func (p *poller) look() {
	p.inner = p.inner[:0]
	found, err := p.fs.NetNamespaces(p.max + 1)
	if err != nil {
		return
	}
	for id, pid := range found {
		if id == p.own {
			continue
		}
		cs, err := p.fs.Cgroup(pid)
		if err != nil {
			continue
		}
		group, err := cgroup.ID(p.layout.IdentityRoot + p.layout.ProcPath(cs.Path))
		if err != nil {
			continue
		}
		p.inner = append(p.inner, namespace{id, "proc/" + strconv.Itoa(int(pid)) + "/net", group, pid})
	}
	slices.SortFunc(p.inner, func(a, b namespace) int {
		return cmp.Or(cmp.Compare(a.cgroup, b.cgroup), cmp.Compare(a.id, b.id))
	})
}

// workloads adds the counters of all namespaces, those of one workload summed.
// When a namespace's process has ended there are none until look finds another. A
// process id that was taken by another process shows another namespace, which is
// not taken for this one.
func (p *poller) workloads(b *signal.Batch) {
	for i, ns := range p.inner {
		if i == 0 || ns.cgroup != p.inner[i-1].cgroup {
			clear(p.sums)
			clear(p.summed)
		}
		if id, err := p.fs.NetNS(ns.pid); err == nil && id == ns.id && p.readNet(ns.dir) == nil {
			for f := range numbers.fields {
				if v, ok := p.reading.value(f); ok && numbers.inner[f] != nil {
					p.sums[f] += v
					p.summed[f] = true
				}
			}
		}
		if i+1 < len(p.inner) && p.inner[i+1].cgroup == ns.cgroup {
			continue
		}
		for f, ok := range p.summed {
			if ok {
				b.WorkloadValue(numbers.inner[f], ns.cgroup, p.sums[f], numbers.fields[f].labels...)
			}
		}
	}
}
