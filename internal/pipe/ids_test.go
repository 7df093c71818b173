package pipe

import (
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
)

// TestIDs: ids sort in the order in which they were made, whatever the clock
// does and also after a restart, and tell the time while the clock goes on.
func TestIDs(t *testing.T) {
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	g := newIDs(func() time.Time { return now })
	last := ""
	next := func(what string) string {
		t.Helper()
		id := g.next()
		if id <= last {
			t.Errorf("%s: %s after %s", what, id, last)
		}
		last = id
		return id
	}
	for _, c := range []struct {
		what string
		step time.Duration
	}{
		{"the same millisecond", 0}, {"a second on", time.Second}, {"an hour back", -time.Hour}, {"still an hour back", time.Second},
		{"two hours on", 2 * time.Hour}, {"before 1970", -80 * 365 * 24 * time.Hour},
	} {
		now = now.Add(c.step)
		for range 100 {
			next(c.what)
		}
	}
	now = time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	if id := ulid.MustParse(next("the clock is right again")); !ulid.Time(id.Time()).Equal(now) {
		t.Errorf("an id of %v was made at %v", ulid.Time(id.Time()), now)
	}

	now = now.Add(-time.Hour)
	g = newIDs(func() time.Time { return now })
	g.after("nonsense")
	g.after(last)
	for range 100 {
		next("after a restart with the clock an hour back")
	}
}
