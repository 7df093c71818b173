package engine

import "time"

// Bind has open called for each change from now on, until unbind is called, with
// a rate at which it is to sample all CPUs. It is for an engine of another
// package. now tells the time on the clock of its samples.
func (r *Rate) Bind(now func() time.Time, open func(hertz int) (stop func(), err error)) (unbind func(), err error) {
	return r.bind(now, open)
}

// At returns the rate that was in force then.
func (r *Rate) At(t time.Time) int { return r.at(t) }
