package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"huatuo/internal/budget"
	"huatuo/internal/kern/load"
	"huatuo/internal/pipe"
	"huatuo/internal/probe"
)

type knobs struct{ Detail, Every int }

// supervise runs one probe under a supervisor.
func supervise(t *testing.T, run func(context.Context, *probe.Env, knobs) error, leans ...probe.Lean) (*supervisor, context.Context) {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	p := pipe.New(pipe.Options{Log: log, Host: "h", Queue: 16})
	spec := probe.New(probe.Meta{Name: "p", Help: "Helps."}, knobs{1, 1}, run, leans...)
	s := newSupervisor(log, probe.Env{}, p, pipe.NewGatherer(pipe.GatherOptions{Log: log}), []probe.Spec{spec})
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(func() { cancel(); s.wait() })
	s.start(ctx, "p", knobs{1, 1})
	return s, ctx
}

func (s *supervisor) await(t *testing.T, want probe.State) probe.Status {
	t.Helper()
	var st probe.Status
	for range 1000 {
		if st = s.statuses()[0]; st.State == want {
			return st
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatalf("the probe is %s (%s), want %s", st.State, st.Reason, want)
	return st
}

func TestAbsent(t *testing.T) {
	s, _ := supervise(t, func(context.Context, *probe.Env, knobs) error {
		return fmt.Errorf("no such device: %w", probe.ErrAbsent)
	})
	if st := s.await(t, probe.Absent); st.Reason != "no such device: nothing to watch" {
		t.Errorf("%+v", st)
	}
}

func TestUnsupported(t *testing.T) {
	s, _ := supervise(t, func(context.Context, *probe.Env, knobs) error {
		return fmt.Errorf("no such hook: %w", errors.ErrUnsupported)
	})
	s.await(t, probe.Unsupported)
}

func TestPanic(t *testing.T) {
	s, _ := supervise(t, func(context.Context, *probe.Env, knobs) error { panic("oh") })
	if st := s.await(t, probe.Failed); st.Reason != "BUG: probe panicked: oh" {
		t.Errorf("%+v", st)
	}
}

// TestLean: a probe is made leaner step by step and then ended, and back; a
// reload keeps what the budget decided.
func TestLean(t *testing.T) {
	got := make(chan knobs, 10)
	s, ctx := supervise(t, func(ctx context.Context, env *probe.Env, c knobs) error {
		got <- c
		env.Ready(load.HookState{Hook: "h", By: "file"})
		<-ctx.Done()
		return nil
	}, probe.Without(probe.Detail, "detail", func(c *knobs) { c.Detail = 0 }),
		probe.Without(probe.Sampling, "seven of eight", func(c *knobs) { c.Every *= 8 }))
	check := func(what string, want knobs, lean int) {
		t.Helper()
		select {
		case c := <-got:
			if c != want {
				t.Errorf("%s: %+v, want %+v", what, c, want)
			}
		case <-time.After(5 * time.Second):
			t.Fatalf("%s: it did not start", what)
		}
		if st := s.await(t, probe.Running); len(st.Lean) != lean {
			t.Errorf("%s: without %q", what, st.Lean)
		}
	}
	step := func(want budget.Step) budget.Step {
		t.Helper()
		if l := s.Steps(); len(l) != 1 || l[0] != want {
			t.Fatalf("%+v, want %+v", l, want)
		}
		return want
	}
	check("start", knobs{1, 1}, 0)
	detail := step(budget.Step{Probe: "p", Class: probe.Detail, What: "detail"})
	s.Take(detail)
	check("detail", knobs{0, 1}, 1)
	sampling := step(budget.Step{Probe: "p", Class: probe.Sampling, What: "seven of eight"})
	s.Take(sampling)
	check("sampling", knobs{0, 8}, 2)

	s.stop("p", probe.Disabled)
	s.start(ctx, "p", knobs{1, 2})
	check("reload", knobs{0, 16}, 2)

	whole := step(budget.Step{Probe: "p", Class: probe.Whole, What: "all of it"})
	s.Take(whole)
	s.await(t, probe.Shed)
	if l := s.Steps(); len(l) != 0 {
		t.Errorf("%+v", l)
	}
	s.Undo(whole)
	check("back", knobs{0, 16}, 2)
	s.Undo(sampling)
	check("sampling back", knobs{0, 2}, 1)
	s.Undo(detail)
	check("detail back", knobs{1, 2}, 0)

	s.Take(detail)
	s.Take(sampling)
	s.Take(whole)
	s.await(t, probe.Shed)
	s.stop("p", probe.Disabled)
	if st := s.await(t, probe.Disabled); st.Reason != "" {
		t.Errorf("%+v", st)
	}
}
