package pipe

import (
	"crypto/rand"
	"time"

	"github.com/oklog/ulid/v2"
)

// ids makes ULIDs that sort in the order in which they were made, and by time
// as long as the clock does not step back. A reader that resumes after an id
// then misses nothing and gets nothing twice, although probes tell of what
// happened with different delays and the clock may be set by an hour. Not safe
// for concurrent use: the one goroutine that routes makes them all.
type ids struct {
	now  func() time.Time
	last ulid.ULID
	rand ulid.MonotonicReader
}

func newIDs(now func() time.Time) *ids {
	return &ids{now: now, rand: ulid.Monotonic(rand.Reader, 0)}
}

// after makes all later ids sort after id, which is ignored when it is none.
func (g *ids) after(id string) {
	if u, err := ulid.ParseStrict(id); err == nil && u.Compare(g.last) > 0 {
		g.last = u
	}
}

func (g *ids) next() string {
	ms := max(uint64(max(g.now().UnixMilli(), 0)), g.last.Time())
	id, err := ulid.New(min(ms, ulid.MaxTime()), g.rand)
	// The first id in the millisecond of an earlier run's last one, or 2^80 ids
	// in one millisecond: the next millisecond is as good.
	if err != nil || id.Compare(g.last) <= 0 {
		g.rand = ulid.Monotonic(rand.Reader, 0)
		id = ulid.MustNew(min(g.last.Time()+1, ulid.MaxTime()), g.rand)
	}
	g.last = id
	return id.String()
}
