package engine

import (
	"errors"
	"slices"
	"testing"
	"time"
)

// clocksOf records what a Rate asks for.
type clocksOf struct {
	opened []int
	open   int
	fail   int // the rate that cannot be opened
}

func (c *clocksOf) start(hertz int) (func(), error) {
	if hertz == c.fail {
		return nil, errors.New("no such clock")
	}
	c.opened = append(c.opened, hertz)
	c.open++
	return func() { c.open-- }, nil
}

// TestRate: of several boosts the highest holds, each ends, and a sample is worth
// the time between two at the rate of its moment.
func TestRate(t *testing.T) {
	r := NewRate(19)
	now := time.Unix(1000, 0)
	var c clocksOf
	unbind, err := r.bind(func() time.Time { return now }, c.start)
	if err != nil {
		t.Fatal(err)
	}
	step := func(want int) {
		t.Helper()
		if got := r.Now(); got != want || c.open != min(want, 1) {
			t.Errorf("%d Hz of %d clocks, want %d", got, c.open, want)
		}
		now = now.Add(10 * time.Second)
	}
	step(19)
	end99, err := r.Boost(99, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	step(99) // 1010 … 1020
	end49, err := r.Boost(49, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	step(99) // … 1030
	end99()
	step(49) // … 1040
	if err := r.Set(7); err != nil {
		t.Fatal(err)
	}
	step(49) // … 1050
	end49()
	end49() // again: nothing
	step(7)
	if want := []int{19, 99, 49, 7}; !slices.Equal(c.opened, want) {
		t.Errorf("opened %v, want %v", c.opened, want)
	}
	for second, want := range map[int]int{1005: 19, 1015: 99, 1025: 99, 1035: 49, 1045: 49, 1055: 7, 2000: 7, 0: 19} {
		if got := r.at(time.Unix(int64(second), 0)); got != want {
			t.Errorf("at %d: %d Hz, want %d", second, got, want)
		}
	}
	unbind()
	step(0)
	if got := r.at(time.Unix(1055, 0)); got != 7 {
		t.Errorf("after the engine: %d Hz", got)
	}
	// The next engine begins with the rate that holds then.
	if _, err := r.Boost(60, time.Minute); err != nil {
		t.Fatal(err)
	}
	if unbind, err = r.bind(func() time.Time { return now }, c.start); err != nil {
		t.Fatal(err)
	}
	defer unbind()
	step(60)
}

// TestRateForgets: what is remembered of the past has a bound.
func TestRateForgets(t *testing.T) {
	r := NewRate(19)
	now := time.Unix(1000, 0)
	var c clocksOf
	unbind, err := r.bind(func() time.Time { return now }, c.start)
	if err != nil {
		t.Fatal(err)
	}
	defer unbind()
	for i := range 1000 {
		if err := r.Set(1 + i%2); err != nil {
			t.Fatal(err)
		}
		now = now.Add(time.Second)
	}
	if n := len(r.spans); n > 2*62 {
		t.Errorf("%d changes are remembered", n)
	}
}

// TestBoostEnds: a boost ends by itself.
func TestBoostEnds(t *testing.T) {
	r := NewRate(19)
	unbind, err := r.bind(time.Now, (&clocksOf{}).start)
	if err != nil {
		t.Fatal(err)
	}
	defer unbind()
	if _, err := r.Boost(99, 10*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); r.Now() != 19; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d Hz after 10 s", r.Now())
		}
	}
}

// TestBoostRefused: what is out of bounds, and what cannot be opened, changes
// nothing.
func TestBoostRefused(t *testing.T) {
	r := NewRate(19)
	unbind, err := r.bind(time.Now, (&clocksOf{fail: 99}).start)
	if err != nil {
		t.Fatal(err)
	}
	defer unbind()
	for _, bad := range []struct {
		hertz int
		d     time.Duration
	}{{0, time.Second}, {MaxHertz + 1, time.Second}, {97, 0}, {97, MaxBoost + 1}, {99, time.Second}} {
		if _, err := r.Boost(bad.hertz, bad.d); err == nil {
			t.Errorf("%d Hz for %v was accepted", bad.hertz, bad.d)
		}
		if r.Now() != 19 {
			t.Errorf("after %d Hz for %v: %d Hz", bad.hertz, bad.d, r.Now())
		}
	}
	if _, err := NewRate(0).Boost(97, time.Second); err == nil {
		t.Error("CPUs that are not sampled are, faster")
	}
}
