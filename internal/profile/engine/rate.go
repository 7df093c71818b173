package engine

import (
	"errors"
	"fmt"
	"sync"
	"time"
)

const (
	// MaxHertz bounds how often a CPU is sampled: at 199 Hz and 40 µs a sample
	// the unwinder takes 0.8 % of it.
	MaxHertz = 199
	// MaxBoost bounds how long a higher rate may last.
	MaxBoost = time.Minute
	// rateMemory is how long it is remembered what the rate was: samples come a
	// second late at most, when the machine is very busy ten.
	rateMemory = time.Minute
)

// Rate is how often each CPU is sampled, and how often it was a while ago: a
// sample stands for the time between two of its CPU at the rate of its moment.
// It outlives the engine, which may be built anew. Make one with NewRate.
type Rate struct {
	mu     sync.Mutex
	base   int
	boosts []*boost
	spans  []span // oldest first; the last is in force
	open   func(hertz int) (stop func(), err error)
	stop   func()
	timer  *time.Timer
	now    func() time.Time // on the clock of samples
}

// boost is a higher rate for a while.
type boost struct {
	hertz int
	until time.Time
}

// span is a rate and from when it was in force.
type span struct {
	from  time.Time
	hertz int
}

// NewRate makes a rate of so many samples per second and CPU; 0 takes none.
func NewRate(hertz int) *Rate {
	return &Rate{base: hertz, now: time.Now}
}

// Set changes the rate that holds when nothing raises it.
func (r *Rate) Set(hertz int) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.base = hertz
	return r.apply()
}

// Boost raises the rate for a while: to MaxHertz and for MaxBoost at most. Of
// several the highest holds. It ends by itself, or when end is called.
func (r *Rate) Boost(hertz int, d time.Duration) (end func(), err error) {
	if hertz < 1 || hertz > MaxHertz {
		return nil, fmt.Errorf("sample at %d Hz: want 1 to %d", hertz, MaxHertz)
	}
	if d <= 0 || d > MaxBoost {
		return nil, fmt.Errorf("sample faster for %v: want more than 0 and at most %v", d, MaxBoost)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.base == 0 {
		return nil, errors.New("the time on CPUs is not sampled")
	}
	b := &boost{hertz, time.Now().Add(d)}
	r.boosts = append(r.boosts, b)
	if err := r.apply(); err != nil {
		b.until = time.Time{}
		return nil, errors.Join(err, r.apply())
	}
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		b.until = time.Time{}
		_ = r.apply() // closing cannot fail, and a lower rate that cannot be opened is told by Now
	}, nil
}

// Base returns the rate that holds when nothing raises it.
func (r *Rate) Base() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.base
}

// Now returns the rate that is in force; 0: no engine runs, or it takes no samples of CPUs.
func (r *Rate) Now() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.spans) == 0 {
		return 0
	}
	return r.spans[len(r.spans)-1].hertz
}

// at returns the rate that was in force then.
func (r *Rate) at(t time.Time) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := len(r.spans) - 1; i >= 0; i-- {
		if s := r.spans[i]; s.hertz > 0 && !t.Before(s.from) {
			return s.hertz
		}
	}
	for _, s := range r.spans { // before all that is remembered
		if s.hertz > 0 {
			return s.hertz
		}
	}
	return max(r.base, 1)
}

// bind has open called for each change from now on, until unbind is called. open
// begins to sample all CPUs at a rate.
func (r *Rate) bind(now func() time.Time, open func(hertz int) (stop func(), err error)) (unbind func(), err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.open != nil {
		panic("BUG: a Rate has two engines")
	}
	r.now, r.open = now, open
	if err := r.apply(); err != nil {
		r.open = nil
		return nil, err
	}
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.close()
		r.open = nil
		if r.timer != nil {
			r.timer.Stop()
		}
	}, nil
}

// want is the highest of the rates that hold, and when it has to be looked at
// again.
func (r *Rate) want(now time.Time) (hertz int, next time.Time) {
	hertz = r.base
	kept := r.boosts[:0]
	for _, b := range r.boosts {
		if !b.until.After(now) {
			continue
		}
		kept = append(kept, b)
		hertz = max(hertz, b.hertz)
		if next.IsZero() || b.until.Before(next) {
			next = b.until
		}
	}
	clear(r.boosts[len(kept):])
	r.boosts = kept
	return hertz, next
}

// apply brings the wanted rate into force.
func (r *Rate) apply() error {
	hertz, next := r.want(time.Now())
	if r.timer != nil {
		r.timer.Stop()
		r.timer = nil
	}
	if r.open == nil {
		return nil // the next engine begins with it
	}
	if !next.IsZero() {
		r.timer = time.AfterFunc(time.Until(next), func() {
			r.mu.Lock()
			defer r.mu.Unlock()
			_ = r.apply()
		})
	}
	if n := len(r.spans); r.stop != nil && n > 0 && r.spans[n-1].hertz == hertz {
		return nil
	}
	r.close()
	if hertz == 0 {
		return nil
	}
	r.note(hertz)
	stop, err := r.open(hertz)
	if err != nil {
		r.note(0)
		return fmt.Errorf("sample the CPUs at %d Hz: %w", hertz, err)
	}
	r.stop = stop
	return nil
}

// close ends sampling.
func (r *Rate) close() {
	if r.stop == nil {
		return
	}
	r.stop()
	r.stop = nil
	r.note(0)
}

// note remembers a change of the rate in force.
func (r *Rate) note(hertz int) {
	now := r.now()
	r.spans = append(r.spans, span{now, hertz})
	for len(r.spans) > 2 && now.Sub(r.spans[1].from) > rateMemory {
		r.spans = r.spans[1:]
	}
}
