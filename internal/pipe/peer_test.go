package pipe

import (
	"slices"
	"testing"
	"time"

	"huatuo/internal/signal"
)

var wPair = &signal.Schema{Name: "p", Kind: signal.Metric, Type: signal.Counter, Scope: signal.Workload, Fields: signal.PeerFields("by", "who", "idle")}

// TestFoldPeer: the other workload is named as the first is, several of its
// groups make one series, and what its name turns into takes no value twice.
func TestFoldPeer(t *testing.T) {
	gone := false
	f := newFolder(func(id uint64) (string, string, string, string, bool) {
		if gone && id == 3 {
			return "", "", "", "", false
		}
		return names(id)
	})
	now := time.Unix(1000, 0)
	round := func(add func(b *signal.Batch)) []signal.Sample {
		now = now.Add(5 * time.Second)
		b := signal.Batch{}
		add(&b)
		return f.fold(b.Samples, now)
	}
	want := func(got []signal.Sample, v float64, note string, labels ...string) {
		t.Helper()
		i := slices.IndexFunc(got, func(s signal.Sample) bool { return slices.Equal(s.Labels, labels) })
		if i < 0 {
			t.Fatalf("no %q in %+v", labels, got)
		}
		if got[i].Value != v || got[i].Note != note {
			t.Errorf("%q: %v %q, want %v %q", labels, got[i].Value, got[i].Note, v, note)
		}
	}
	got := round(func(b *signal.Batch) {
		b.WorkloadPair(wPair, 3, 1, 10, "small")
		b.WorkloadPair(wPair, 3, 2, 20, "large")
		b.WorkloadPair(wPair, 1, 2, 4, "")
		b.WorkloadPair(wPair, 1, 3, 7, "")
		b.WorkloadPair(wPair, 1, 99, 1, "")
		b.WorkloadValue(wPair, 3, 5, signal.NoPeer("idle")...)
	})
	want(got, 30, "large", "workload", "ns", "pod", "c1", "", "", "", "c3", "")
	want(got, 4, "", "self", "ns", "pod", "c1", "", "ns", "pod", "c1", "")
	want(got, 7, "", "workload", "", "", "c3", "", "ns", "pod", "c1", "")
	want(got, 1, "", "other", "", "", "", "", "ns", "pod", "c1", "")
	want(got, 5, "", "idle", "", "", "", "", "", "", "c3", "")
	for _, s := range got {
		if len(s.Labels) != len(wPair.Fields)+len(signal.WorkloadLabels) {
			t.Errorf("%d labels: %q", len(s.Labels), s.Labels)
		}
	}
	gone = true // 3 has no name any more: only what is new is others'
	got = round(func(b *signal.Batch) { b.WorkloadPair(wPair, 1, 3, 9, "") })
	want(got, 3, "", "other", "", "", "", "", "ns", "pod", "c1", "")
}
