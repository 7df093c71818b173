package profile

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"huatuo/internal/signal"
)

// TestMerge: types stand beside each other under their names, frames that they
// have in common are one, and an empty type is left out.
func TestMerge(t *testing.T) {
	frames := []signal.Frame{{Function: "main"}, {Function: "wait"}}
	a := &signal.FlameGraph{Type: "offcpu.blocked", Unit: "nanoseconds", Total: 10, Samples: 2, Truncated: 1, Frames: frames,
		Nodes: []signal.FlameNode{{Frame: 0, Parent: -1, Self: 3, Total: 10}, {Frame: 1, Parent: 0, Self: 7, Total: 7}}}
	b := &signal.FlameGraph{Type: "offcpu.io", Unit: "nanoseconds", Total: 5, Samples: 1, Dropped: 2, Frames: frames[1:],
		Nodes: []signal.FlameNode{{Frame: 0, Parent: -1, Self: 5, Total: 5}}}
	got := Merge("offcpu", a, &signal.FlameGraph{Type: "offcpu.runqueue", Unit: "nanoseconds"}, b)
	want := &signal.FlameGraph{Type: "offcpu", Unit: "nanoseconds", Total: 15, Samples: 3, Truncated: 1, Dropped: 2,
		Frames: []signal.Frame{{Function: "offcpu.blocked"}, {Function: "main"}, {Function: "wait"}, {Function: "offcpu.io"}},
		Nodes: []signal.FlameNode{
			{Frame: 0, Parent: -1, Total: 10}, {Frame: 1, Parent: 0, Self: 3, Total: 10}, {Frame: 2, Parent: 1, Self: 7, Total: 7},
			{Frame: 3, Parent: -1, Total: 5}, {Frame: 2, Parent: 3, Self: 5, Total: 5},
		}}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}
