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
		Frames: []signal.Frame{{Function: "offcpu.blocked", Module: "type"}, {Function: "main"}, {Function: "wait"}, {Function: "offcpu.io", Module: "type"}},
		Nodes: []signal.FlameNode{
			{Frame: 0, Parent: -1, Total: 10}, {Frame: 1, Parent: 0, Self: 3, Total: 10}, {Frame: 2, Parent: 1, Self: 7, Total: 7},
			{Frame: 3, Parent: -1, Total: 5}, {Frame: 2, Parent: 3, Self: 5, Total: 5},
		}}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// TestUserland: what the kernel does for a function is the function's, and the
// kernel's own threads stay.
func TestUserland(t *testing.T) {
	g := &signal.FlameGraph{
		Frames: []signal.Frame{{Function: "main", Module: "/bin/a"}, {Function: "do_syscall_64"}, {Function: "schedule"}, {Function: "kthread"}, {Function: "run", Module: "cpython"}},
		Nodes: []signal.FlameNode{
			{Frame: 0, Parent: -1, Self: 1, Total: 10}, {Frame: 1, Parent: 0, Self: 2, Total: 5}, {Frame: 2, Parent: 1, Self: 3, Total: 3}, {Frame: 4, Parent: 0, Self: 4, Total: 4},
			{Frame: 3, Parent: -1, Total: 6}, {Frame: 2, Parent: 4, Self: 6, Total: 6},
		},
	}
	want := []signal.FlameNode{
		{Frame: 0, Parent: -1, Self: 6, Total: 10}, {Frame: 4, Parent: 0, Self: 4, Total: 4},
		{Frame: 3, Parent: -1, Total: 6}, {Frame: 2, Parent: 2, Self: 6, Total: 6},
	}
	if d := cmp.Diff(want, Userland(g).Nodes); d != "" {
		t.Error(d)
	}
	if g.Nodes[0].Self != 1 {
		t.Error("the graph itself has changed")
	}
}
