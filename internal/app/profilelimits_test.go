package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"huatuo/internal/budget"
	"huatuo/internal/config"
	"huatuo/internal/probe"
	"huatuo/internal/profile"
	"huatuo/internal/signal"
)

// profiling is a profiler whose engines do nothing.
type profiling struct {
	*profiler
	runs         chan profileRun
	used, tables atomic.Uint64

	fail error // of the larger engines
}

func startProfiler(t *testing.T, change func(*config.Profiles), fail error) *profiling {
	t.Helper()
	cfg := config.Default(nil).Profiles
	if change != nil {
		change(&cfg)
	}
	f := &profiling{runs: make(chan profileRun, 10), fail: fail}
	f.profiler = newProfiler(cfg, nil, slog.New(slog.DiscardHandler), nil)
	run := func(ctx context.Context, r profileRun) error {
		f.runs <- r
		if r.mode < profileFrames && f.fail != nil {
			return f.fail
		}
		r.ready()
		<-ctx.Done()
		return nil
	}
	f.takers = [profileOff]taker{run, run, run}
	f.memory = func() (memoryUse, error) { return memoryUse{f.used.Load(), f.tables.Load()}, nil }
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); f.run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return f
}

// next waits for the next engine.
func (f *profiling) next(t *testing.T, want profileMode) profileRun {
	t.Helper()
	select {
	case r := <-f.runs:
		if r.mode != want {
			t.Fatalf("mode %v, want %v", r.mode, want)
		}
		return r
	case <-time.After(10 * time.Second):
		t.Fatalf("no engine of mode %v", want)
		return profileRun{}
	}
}

func (f *profiling) await(t *testing.T, state probe.State, mode profileMode) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		st := f.Status()
		if st.State == string(state) && st.Mode == mode.String() {
			if (st.Reason == "") == (state != probe.Running) {
				t.Errorf("%s because %q", st.State, st.Reason)
			}
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%+v, want %s, %v", st, state, mode)
		}
	}
}

// TestProfileMemory: with too much memory, smaller engines run, one after the
// other, then none; after a while larger ones are tried again, and later each
// time that it was no use.
func TestProfileMemory(t *testing.T) {
	f := startProfiler(t, nil, nil)
	now := time.Now()
	after := func(d time.Duration, used uint64) {
		now = now.Add(d)
		f.used.Store(used)
		f.fit(now)
	}
	const little, much = 10 << 20, 200 << 20
	f.next(t, profileFull)
	f.await(t, probe.Running, profileFull)
	after(time.Second, little)
	after(time.Second, much)
	f.next(t, profileSmall)
	f.await(t, probe.Degraded, profileSmall)
	after(time.Second, much)
	f.next(t, profileFrames)
	f.await(t, probe.Degraded, profileFrames)
	after(time.Second, much)
	f.await(t, probe.Shed, profileOff)
	after(time.Second, much) // there is nothing smaller
	after(firstBack/2, little)
	f.await(t, probe.Shed, profileOff)
	after(firstBack, little)
	f.next(t, profileFrames)
	after(firstBack, little)
	f.next(t, profileSmall)
	f.await(t, probe.Degraded, profileSmall)
	after(time.Minute, much) // too soon
	f.next(t, profileFrames)
	after(firstBack+time.Minute, little)
	f.await(t, probe.Degraded, profileFrames) // it takes twice as long now
	after(firstBack, little)
	f.next(t, profileSmall)
	after(2*firstBack, little)
	f.next(t, profileFull)
	f.await(t, probe.Running, profileFull)
	f.tables.Store(much / 2) // which a smaller unwinder needs as well
	after(time.Second, much)
	f.next(t, profileFrames)
	f.await(t, probe.Degraded, profileFrames)
	if n := len(f.runs); n > 0 {
		t.Errorf("%d more engines ran", n)
	}
}

// TestProfileUnsupported: where the unwinder cannot run, frame pointers have to
// do, and it is not tried again.
func TestProfileUnsupported(t *testing.T) {
	f := startProfiler(t, nil, fmt.Errorf("no such kernel: %w", errors.ErrUnsupported))
	f.next(t, profileFull)
	f.next(t, profileFrames)
	f.await(t, probe.Degraded, profileFrames)
	f.fit(time.Now().Add(48 * time.Hour))
	f.await(t, probe.Degraded, profileFrames)
	if len(f.runs) > 0 {
		t.Error("another engine ran")
	}
}

// TestProfileBudget: the budget takes the rate, then all but CPU time, then all.
func TestProfileBudget(t *testing.T) {
	f := startProfiler(t, nil, nil)
	f.next(t, profileFull)
	f.await(t, probe.Running, profileFull)
	step := func(class probe.Class) {
		t.Helper()
		s := f.Steps()
		if len(s) != 1 || s[0].Class != class || s[0].Probe != profilesName {
			t.Fatalf("steps %+v, want one of class %s", s, class)
		}
		f.Take(s[0])
	}
	step(probe.Sampling)
	if hz := f.rate.Base(); hz != leanHertz || len(f.runs) > 0 {
		t.Errorf("%d Hz, %d engines started; want %d and none", hz, len(f.runs), leanHertz)
	}
	step(probe.Sampling)
	r := f.next(t, profileFull)
	if e := f.entriesOf(r.cfg, r.level); len(e.Types) > 0 || f.rate.Base() != leanHertz {
		t.Errorf("%v still taken, at %d Hz", e.Types, f.rate.Base())
	}
	f.await(t, probe.Running, profileFull)
	step(probe.Whole)
	f.await(t, probe.Shed, profileFull)
	if s := f.Steps(); len(s) > 0 {
		t.Errorf("steps %v when all is gone", s)
	}
	f.Undo(budget.Step{})
	if r = f.next(t, profileFull); r.level != leanWaits {
		t.Errorf("level %v after the first step back", r.level)
	}
	f.Undo(budget.Step{})
	if r = f.next(t, profileFull); len(f.entriesOf(r.cfg, r.level).Types) == 0 {
		t.Error("waits are not taken again")
	}
	f.Undo(budget.Step{})
	f.Undo(budget.Step{}) // there is nothing more
	if hz := f.rate.Base(); hz != 19 || f.lean.level() != leanNothing {
		t.Errorf("%d Hz at the end", hz)
	}
}

// TestProfileReload: labels and the rate change while the engine runs, types
// need another; what the budget took stays taken.
func TestProfileReload(t *testing.T) {
	f := startProfiler(t, func(c *config.Profiles) { c.Types = []string{"cpu", "lock.user"} }, nil)
	r := f.next(t, profileFull)
	if e := f.entriesOf(r.cfg, r.level); len(e.Types) != 1 || e.Types[0] != profile.UserLock {
		t.Errorf("types %v", e.Types)
	}
	f.await(t, probe.Running, profileFull)
	sample := &signal.StackSample{PID: 1, Thread: "t"}
	f.procs[1] = labeled{labels: signal.ProfileLabels{Process: "java", Container: "web"}, until: time.Now().Add(time.Hour)}
	cfg := r.cfg
	cfg.CPUHertz, cfg.Exclude = 49, []string{"container=web & thread=t*"}
	if err := f.Reload(cfg); err != nil {
		t.Fatal(err)
	}
	if f.wants(sample) || f.excluded.Load() != 1 || f.rate.Base() != 49 {
		t.Errorf("%d excluded, %d Hz", f.excluded.Load(), f.rate.Base())
	}
	if len(f.runs) > 0 {
		t.Error("another engine was started for it")
	}
	f.Take(budget.Step{})
	cfg.Types, cfg.Exclude = []string{"lock.user"}, nil
	if err := f.Reload(cfg); err != nil {
		t.Fatal(err)
	}
	r = f.next(t, profileFull)
	if !f.wants(sample) || !slices.Equal(r.cfg.Types, cfg.Types) || f.rate.Base() != 0 {
		t.Errorf("types %v, %d Hz", r.cfg.Types, f.rate.Base())
	}
	cfg.Types = []string{"cpu"}
	if err := f.Reload(cfg); err != nil {
		t.Fatal(err)
	}
	if f.next(t, profileFull); f.rate.Base() != leanHertz {
		t.Errorf("%d Hz, the budget leaves %d", f.rate.Base(), leanHertz)
	}
}

// TestProfileTypesAreKnown: the types that can be configured are those that there
// are, and by default those of profile.Defaults.
func TestProfileTypesAreKnown(t *testing.T) {
	names := func(types []*signal.ProfileType) (out []string) {
		for _, t := range types {
			out = append(out, t.Name)
		}
		slices.Sort(out)
		return out
	}
	got := config.Default(nil).Profiles.Types
	slices.Sort(got)
	if want := names(profile.Defaults()); !slices.Equal(got, want) {
		t.Errorf("default types %v, want %v", got, want)
	}
	for _, typ := range profile.Types() {
		_, err := config.Load("", nil, map[string]string{"profiles.types": typ.Name}, nil)
		if err != nil {
			t.Errorf("%s: %v", typ.Name, err)
		}
	}
}
