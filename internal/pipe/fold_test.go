package pipe

import (
	"testing"
	"time"

	"huatuo/internal/signal"
)

// TestFoldGauges: of the groups of one workload amounts are added, and of shares the highest is told.
func TestFoldGauges(t *testing.T) {
	f := newFolder(func(uint64) (string, string, string, string, bool) { return "", "", "c", "", true })
	amount := &signal.Schema{Name: "a", Type: signal.Gauge, Unit: "1", Scope: signal.Workload}
	share := &signal.Schema{Name: "s", Type: signal.Gauge, Unit: "ratio", Scope: signal.Workload}
	round := func(now time.Time, values ...float64) (float64, float64) {
		b := new(signal.Batch)
		for i, v := range values {
			b.WorkloadValue(amount, uint64(i), v)
			b.WorkloadValue(share, uint64(i), v)
		}
		out := f.fold(b.Samples, now)
		if len(out) != 2 {
			t.Fatalf("%d series, want 2", len(out))
		}
		return out[0].Value, out[1].Value
	}
	if a, s := round(time.Unix(1, 0), 0.5, 0.75, 0.25); a != 1.5 || s != 0.75 {
		t.Errorf("amount %v, share %v; want 1.5 and 0.75", a, s)
	}
	if a, s := round(time.Unix(2, 0), 0.25, 0.25); a != 0.5 || s != 0.25 {
		t.Errorf("amount %v, share %v in the next round; want 0.5 and 0.25", a, s)
	}
}
