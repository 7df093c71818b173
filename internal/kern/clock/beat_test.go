package clock

import (
	"testing"
	"time"
)

func TestUntil(t *testing.T) {
	for _, c := range []struct{ now, d, want time.Duration }{
		{0, time.Second, time.Second},
		{300 * time.Millisecond, time.Second, 700 * time.Millisecond},
		{300 * time.Millisecond, 250 * time.Millisecond, 200 * time.Millisecond},
		{999 * time.Millisecond, time.Second, time.Second + time.Millisecond}, // woken a moment early
		{7 * time.Second, 5 * time.Second, 3 * time.Second},
	} {
		if got := until(c.d, time.Unix(0, int64(c.now))); got != c.want {
			t.Errorf("until(%v) at %v: %v, want %v", c.d, c.now, got, c.want)
		}
	}
}

// TestUntilMeets: two that wait for multiples of one beat wake up at the same moments.
func TestUntilMeets(t *testing.T) {
	start := time.Unix(1e9, 123456789)
	a := start.Add(until(time.Second, start))
	b := start
	for range 4 {
		b = b.Add(until(250*time.Millisecond, b))
	}
	if !a.Equal(b) {
		t.Errorf("%v and %v", a, b)
	}
}
