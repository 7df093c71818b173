package changes

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"huatuo/internal/kern/load"
	"huatuo/internal/probe"
	"huatuo/internal/signal"
)

const (
	// maxEvents bounds a round: a change that somebody makes everywhere at once is not told better by hundreds of events.
	maxEvents = 20
	// sysctlEvery is how many rounds there are to a look at all sysctls.
	sysctlEvery = 3
)

// change is a value that is another one.
type change struct {
	what, setting, target string
	old, new              string
	cgroup                uint64
	title                 string // what it is about, for people
}

// poller compares what the kernel does not tell of.
type poller struct {
	env     *probe.Env
	groups  *groups // nil: no control groups
	mounts  *mounts
	host    *host
	sysctls *sysctls // nil: the kernel tells
	round   int
	failing bool

	made, held atomic.Uint64
}

func newPoller(env *probe.Env, cfg Config, pollSysctls bool) *poller {
	p := &poller{env: env, mounts: newMounts(env.Root), host: newHost(env.Root)}
	if env.Layout != nil && env.Cgroups != nil && cfg.MaxGroups > 0 {
		p.groups = newGroups(env, cfg)
	}
	if pollSysctls {
		p.sysctls = newSysctls(env.Root)
	}
	return p
}

func (p *poller) hooks() []load.HookState {
	hs := []load.HookState{{Hook: "mounts", By: "procfs"}, {Hook: "/sys", By: "sysfs"}}
	switch {
	case p.groups == nil:
		hs = append(hs, load.HookState{Hook: "limits of workloads", Reason: "no control groups are mounted"})
	case p.groups.watching():
		hs = append(hs, load.HookState{Hook: "limits of workloads", By: "inotify"})
	default:
		hs = append(hs, load.HookState{Hook: "limits of workloads", By: "cgroup"})
	}
	if p.sysctls != nil {
		hs = append(hs, load.HookState{Hook: "/proc/sys", By: "procfs"})
	}
	return hs
}

// look does one round.
func (p *poller) look() error {
	var errs []error
	var all []change
	if p.groups != nil {
		all = append(all, p.groups.look(p.env.Now())...)
	}
	ms, err := p.mounts.look()
	if err != nil {
		errs = append(errs, err)
	}
	all = append(append(all, ms...), p.host.look()...)
	records := make([]*signal.Record, 0, len(all))
	for i := range all {
		records = append(records, all[i].record(p.env.Now()))
	}
	if p.sysctls != nil && p.round%sysctlEvery == 0 {
		records = append(records, p.sysctls.look(p.env.Now())...)
	}
	p.round++
	p.emit(records)
	return errors.Join(errs...)
}

func (p *poller) emit(records []*signal.Record) {
	for i, r := range records {
		if i == maxEvents {
			p.held.Add(uint64(len(records) - i))
			p.env.Log.Warn("more changes at once than there are events for", "changes", len(records), "events", maxEvents)
			return
		}
		p.made.Add(1)
		p.env.Emit(r)
	}
}

func (p *poller) complain(err error) {
	if !p.failing {
		p.failing = true
		p.env.Log.Warn("cannot look for changes", "err", err)
	}
}

func (p *poller) close() {
	p.mounts.close()
	if p.groups != nil {
		p.groups.close()
	}
}

// maxText bounds a value in an event.
const maxText = 256

func cut(s string) string {
	if len(s) <= maxText {
		return s
	}
	return s[:maxText] + "…"
}

func (c *change) record(now time.Time) *signal.Record {
	b := &ConfigChange{What: c.what, Setting: c.setting, Target: c.target, Old: cut(c.old), New: cut(c.new)}
	return &signal.Record{
		Schema: configChanged, Time: now, CgroupID: c.cgroup, Body: b,
		Title: fmt.Sprintf("%s: %s, was %s", c.title, named(b.New), named(b.Old)),
	}
}

// named makes nothing visible.
func named(s string) string {
	if s == "" {
		return "none"
	}
	return s
}
