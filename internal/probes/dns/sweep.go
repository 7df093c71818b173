package dns

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"huatuo/internal/probe"
	"huatuo/internal/signal"
)

const (
	maxEvents    = 20   // of timeouts in one round: a server that is down fails all queries alike
	maxWorkloads = 4096 // with timeouts; beyond, they are counted for the host only
)

// sweeper takes out of the program's map what has waited too long for an answer.
type sweeper struct {
	env     *probe.Env
	queries *ebpf.Map
	d       *decoder
	timeout time.Duration

	mu         sync.Mutex
	total      uint64
	byCgroup   map[uint64]uint64
	suppressed uint64

	count, held atomic.Uint64 // events seen, and those of them that were held back
}

func newSweeper(env *probe.Env, queries *ebpf.Map, d *decoder, timeout time.Duration) *sweeper {
	return &sweeper{env: env, queries: queries, d: d, timeout: timeout, byCgroup: map[uint64]uint64{}}
}

// wrap returns the Env for probe.Stream, whose counters include the sweeper's.
func (s *sweeper) wrap() *probe.Env {
	inner := *s.env
	inner.Lost = func(f func() probe.Loss) {
		s.env.Lost(func() probe.Loss {
			l := f()
			l.Observed += s.count.Load()
			l.Dropped["rate_limited"] += s.held.Load()
			return l
		})
	}
	return &inner
}

func (s *sweeper) round() error {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return fmt.Errorf("read clock: %w", err)
	}
	late, err := s.late(uint64(now.Nano()))
	if err != nil {
		return err
	}
	for i, l := range late {
		id := s.d.workload(l.query.Cgroup)
		s.mu.Lock()
		s.total++
		if _, known := s.byCgroup[id]; known || len(s.byCgroup) < maxWorkloads {
			s.byCgroup[id]++
		}
		s.mu.Unlock()
		s.count.Add(1)
		if i >= maxEvents {
			s.held.Add(1)
			s.suppressed++
			continue
		}
		r := s.d.record(&l.key, &l.query, uint64(now.Nano()), "timeout")
		r.Suppressed, s.suppressed = s.suppressed, 0
		s.env.Emit(r)
	}
	return nil
}

type lateQuery struct {
	key   bpfQueryKey
	query bpfQuery
}

// late takes out the queries that have waited too long. Answers come meanwhile, so
// that an entry may be gone when it is to be taken out: it was answered then. A
// walk that a change disturbs goes on in the next round.
func (s *sweeper) late(now uint64) ([]lateQuery, error) {
	var all, late []lateQuery
	var l lateQuery
	it := s.queries.Iterate()
	for it.Next(&l.key, &l.query) {
		if l.query.Ts+uint64(s.timeout) < now {
			all = append(all, l)
		}
	}
	if err := it.Err(); err != nil && !errors.Is(err, ebpf.ErrIterationAborted) {
		return nil, fmt.Errorf("read queries: %w", err)
	}
	for _, l := range all {
		if s.queries.Delete(&l.key) == nil {
			late = append(late, l)
		}
	}
	return late, nil
}

func (s *sweeper) collect(b *signal.Batch, workloads bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b.Value(timeouts, float64(s.total))
	if !workloads {
		return
	}
	for id, n := range s.byCgroup {
		b.WorkloadValue(containerTimeouts, id, float64(n))
	}
}
