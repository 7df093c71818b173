package probe

// Class is a kind of thing that a probe can do without, in the order in which
// the agent gives things up when it costs too much.
type Class string

// Classes of what is given up.
const (
	Detail   Class = "detail"   // what is known per workload, lock, line …; the host's totals stay
	Sampling Class = "sampling" // fewer things are looked at: counts stay right in the mean
	Whole    Class = "probe"    // the probe does not run
)

// Lean is a cheaper way to run a probe: its configuration with something left out.
type Lean struct {
	Class Class
	What  string // what is missing then, a phrase: "waits by workload"
	apply func(any) any
}

// Without makes a Lean. change takes something out of the configuration; it may
// find it out already.
func Without[C any](class Class, what string, change func(*C)) Lean {
	return Lean{class, what, func(cfg any) any {
		c := cfg.(C)
		change(&c)
		return c
	}}
}

// Lean returns cfg with the first n of s.Leans applied.
func (s Spec) Lean(cfg any, n int) any {
	for _, l := range s.Leans[:n] {
		cfg = l.apply(cfg)
	}
	return cfg
}
