// Package kernlog turns the reports that the kernel writes into its log, of
// lockups, stalls, failed checks and crashes, into events.
package kernlog

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"time"

	"golang.org/x/sys/unix"

	"huatuo/internal/kern/kmsg"
	"huatuo/internal/kern/load"
	"huatuo/internal/probe"
	"huatuo/internal/signal"
)

//go:embed README.md
var readme string

// Config of the probe.
type Config struct {
	Rate   int      `yaml:"rate" help:"reports of one kind per minute that become events in the long run; 0 does not limit. A check that fails in a loop writes hundreds, all the same"`
	Burst  int      `yaml:"burst" help:"reports of one kind that become events at once before the rate limits"`
	Ignore []string `yaml:"ignore" check:"regexp" help:"regular expressions: a report with a title that one of them matches becomes no event, but is counted; for what is known and harmless on this machine"`
}

// Spec describes the probe.
func Spec() probe.Spec {
	return probe.New(probe.Meta{
		Name:   "kernlog",
		Help:   "Turns the reports that the kernel writes into its log, of lockups, stalls, failed checks and crashes, into events.",
		Readme: readme,
		Source: "/dev/kmsg, /proc/sys/kernel/tainted",
		Since:  "4.18",
		Emits:  append([]*signal.Schema{reports, tainted, lostRecords}, events()...),
	}, Config{Rate: 6, Burst: 10, Ignore: []string{}}, run)
}

var (
	reports = &signal.Schema{
		Name: "huatuo_kernel_reports_total", Kind: signal.Metric, Type: signal.Counter, Unit: "1", Area: signal.AreaSystem, Scope: signal.Host,
		Help:   "Reports that the kernel has written into its log since the agent started, by kind.",
		Read:   "0 on a healthy machine. Those that are ignored or rate-limited, and so are no events, are counted too.",
		Fields: []signal.Field{{Name: "kind", Help: "kind of the event", Values: kindNames()}},
	}
	tainted = &signal.Schema{
		Name: "huatuo_kernel_taint", Kind: signal.Metric, Type: signal.Gauge, Unit: "1", Area: signal.AreaSystem, Scope: signal.Host,
		Help:   "Whether the kernel is tainted for this reason: 1 or 0.",
		Read:   "It stays until the machine is booted. die, warn, soft_lockup, bad_page, machine_check: something went wrong since, maybe before the agent started. Those that end in _module are about what was loaded.",
		Fields: []signal.Field{{Name: "flag", Help: "reason, as in the kernel's Documentation/admin-guide/tainted-kernels", Values: taintNames()}},
	}
	lostRecords = &signal.Schema{
		Name: "huatuo_kernel_log_lost_total", Kind: signal.Metric, Type: signal.Counter, Unit: "1", Area: signal.AreaSystem, Scope: signal.Host,
		Help: "Records of the kernel log that were overwritten before the agent had read them.",
		Read: "Reports may be among them: make the log larger (log_buf_len=) if it grows.",
	}
)

func kindNames() []string {
	var out []string
	for _, s := range events() {
		out = append(out, s.Name)
	}
	return out
}

// kmsgPath is the log of the host's kernel, in containers too.
const kmsgPath = "/dev/kmsg"

func run(ctx context.Context, env *probe.Env, cfg Config) error {
	return runOn(ctx, env, cfg, kmsgPath)
}

// runOn reads the log at path. Without it, the metric of taints is left.
func runOn(ctx context.Context, env *probe.Env, cfg Config, path string) error {
	w, err := newWatch(env, cfg)
	if err != nil {
		return err
	}
	env.Collect(w.collectTaint)
	log, err := kmsg.Open(path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		env.Ready(load.HookState{Hook: path, Reason: err.Error()})
		<-ctx.Done()
		return nil
	} else if err != nil {
		return err
	}
	defer log.Close()
	env.Collect(w.collect)
	env.Lost(w.loss)
	env.Ready(load.HookState{Hook: path, By: "kmsg"})
	return w.follow(ctx, log)
}

// reader is the log.
type reader interface {
	Next() (kmsg.Record, bool, error)
	Wait(context.Context, time.Duration) error
	Lost() uint64
}

// follow reads the log until ctx is done.
func (w *watch) follow(ctx context.Context, log reader) error {
	for {
		for {
			rec, ok, err := log.Next()
			if err != nil {
				return err
			}
			if !ok {
				break
			}
			w.parser.push(&rec, time.Now())
			w.emit()
			if ctx.Err() != nil {
				break
			}
		}
		w.lost.Store(log.Lost())
		now := time.Now()
		w.parser.due(now)
		w.emit()
		if ctx.Err() != nil {
			return nil
		}
		if err := log.Wait(ctx, w.parser.next(now)); err != nil {
			return err
		}
	}
}

// tick returns how long a jiffy is, 0 when that is not to be known: the coarse
// clock moves on with each.
func tick() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGetres(unix.CLOCK_MONOTONIC_COARSE, &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

// compile makes regular expressions.
func compile(list []string) ([]*regexp.Regexp, error) {
	var out []*regexp.Regexp
	for _, s := range list {
		re, err := regexp.Compile(s)
		if err != nil {
			return nil, fmt.Errorf("probes.kernlog.ignore: %w", err)
		}
		out = append(out, re)
	}
	return out, nil
}
