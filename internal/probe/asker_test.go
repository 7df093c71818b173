package probe

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"huatuo/internal/kern/load"
)

// answers are those of a, as text.
func answers(a *Asker[int]) string {
	var s string
	for _, x := range a.Answers() {
		s += fmt.Sprintf("%s=%d known %v hung %v err %v;", x.Name, x.Value, x.Known, x.Hung, x.Err)
	}
	return s
}

// TestAsker: one device hangs, and nobody waits for it for longer than the
// timeout, nor asks it again.
func TestAsker(t *testing.T) {
	answer := make(chan int)
	var calls, value atomic.Int64
	bad := errors.New("broken")
	var fail atomic.Bool
	a := NewAsker(time.Second, func(name string) (int, error) {
		if name == "b" {
			calls.Add(1)
			return <-answer, nil
		}
		if fail.Load() {
			return 0, bad
		}
		return int(value.Add(1)), nil
	})
	ctx := t.Context()
	want := func(what, text string) {
		t.Helper()
		if got := answers(a); got != text {
			t.Errorf("%s: %s, want %s", what, got, text)
		}
	}
	a.Ask(ctx, []string{"b", "a"})
	want("one hangs", "a=1 known true hung false err <nil>;b=0 known false hung true err <nil>;")
	a.Ask(ctx, []string{"a", "b"})
	want("it still does", "a=2 known true hung false err <nil>;b=0 known false hung true err <nil>;")
	if n := calls.Load(); n != 1 {
		t.Errorf("a device that hangs was asked %d times", n)
	}
	a.Ask(ctx, []string{"a"})
	want("it is no longer there", "a=3 known true hung false err <nil>;")
	a.Ask(ctx, []string{"a", "b"})
	want("it is back", "a=4 known true hung false err <nil>;b=0 known false hung true err <nil>;")
	if n := calls.Load(); n != 1 {
		t.Errorf("a device that hangs was asked %d times", n)
	}
	answer <- 7
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if x := a.Answers(); len(x) == 2 && x[1].Known {
			break
		}
	}
	want("it answers after all", "a=4 known true hung false err <nil>;b=7 known true hung false err <nil>;")
	fail.Store(true)
	a.Ask(ctx, []string{"a"})
	want("an error", "a=4 known false hung false err broken;")
}

// TestAskerBound: devices that hang hold no more threads than that.
func TestAskerBound(t *testing.T) {
	var calls atomic.Int64
	end := make(chan struct{})
	a := NewAsker(20*time.Millisecond, func(string) (int, error) { calls.Add(1); <-end; return 0, nil })
	var names []string
	for i := range 2 * maxAsking {
		names = append(names, fmt.Sprint(i))
	}
	a.Ask(t.Context(), names)
	a.Ask(t.Context(), names)
	close(end)
	if n := calls.Load(); n > maxAsking {
		t.Errorf("%d are asked at once", n)
	}
}

// TestPoll: it is ready after the first round, and its end waits for no device.
func TestPoll(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	end := make(chan struct{})
	defer close(end)
	a := NewAsker(time.Hour, func(string) (int, error) { <-end; return 0, nil })
	ready := 0
	env := &Env{Ready: func(...load.HookState) { ready++ }}
	result := make(chan error)
	go func() { result <- a.Poll(ctx, env, time.Hour, func() []string { return []string{"x"} }, nil) }()
	cancel()
	select {
	case err := <-result:
		if err != nil || ready != 1 {
			t.Errorf("%v, ready %d times", err, ready)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the end of a probe waits for a device")
	}
}
