//go:build !noprofiler

package engine

import (
	"testing"

	"go.opentelemetry.io/ebpf-profiler/metrics"
)

// TestMeter: the library has the counters of lost samples under the names that
// are looked for, and they count.
func TestMeter(t *testing.T) {
	found := 0
	before := Lost()
	for _, d := range metrics.GetDefinitions() {
		c, err := meter{}.Int64Counter(d.Field)
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := c.(lossCounter); ok && !d.Obsolete {
			found++
		}
		c.Add(t.Context(), 2)
	}
	if found != 3 || Lost()-before != 6 {
		t.Errorf("%d counters of lost samples, %d lost; want 3 and 6", found, Lost()-before)
	}
}
