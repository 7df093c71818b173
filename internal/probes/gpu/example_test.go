package gpu

import (
	"testing"
	"time"

	"huatuo/internal/probes/probetest"
)

// TestExample keeps the event of a line that the driver writes.
func TestExample(t *testing.T) {
	r := parseXid("NVRM: Xid (PCI:0000:01:00): 79, pid=1234, name=python3, GPU has fallen off the bus.")
	if r == nil {
		t.Fatal("no event")
	}
	r.Time = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	probetest.Example(t, r, "Made of a line as NVIDIA's driver writes it: no GPU at hand fails.")
}
