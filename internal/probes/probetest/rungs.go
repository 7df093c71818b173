package probetest

import (
	"testing"

	"huatuo/internal/kern/load"
)

// Rungs runs f as a subtest for each way in which a probe of tracepoints gets
// its programs and events: each kind of hook with each kind of ring, and the
// legacy flavour of its object, which old kernels get.
func Rungs(t *testing.T, f func(t *testing.T, o load.Options)) {
	for _, kind := range []string{load.TPBTF, load.RawTP} {
		for _, ring := range []string{"ringbuf", "perf"} {
			t.Run(kind+"/"+ring, func(t *testing.T) {
				f(t, load.Options{Kinds: []string{kind}, Ring: ring})
			})
		}
	}
	t.Run(load.Legacy, func(t *testing.T) {
		f(t, load.Options{Kinds: []string{load.RawTP}, Flavour: load.Legacy})
	})
}
