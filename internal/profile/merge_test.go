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
			{Frame: 0, Parent: -1, Total: 10, Count: 2}, {Frame: 1, Parent: 0, Self: 3, Total: 10}, {Frame: 2, Parent: 1, Self: 7, Total: 7},
			{Frame: 3, Parent: -1, Total: 5, Count: 1}, {Frame: 2, Parent: 3, Self: 5, Total: 5},
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

// TestCounts: how many samples there are, and their squares, go with the values
// when graphs are put together.
func TestCounts(t *testing.T) {
	a := graphOf(10, true, map[string]int64{"main;wait": 3, "main": 1})
	a.Nodes = append(a.Nodes, signal.FlameNode{Frame: len(a.Frames), Parent: 0, Self: 20, Total: 20, SelfCount: 2, Count: 2, SelfSquares: 200, Squares: 200})
	a.Frames = append(a.Frames, signal.Frame{Function: "schedule"})
	check := func(what string, g *signal.FlameGraph, values, squares float64) {
		t.Helper()
		var self, squared float64
		var count int64
		for _, n := range g.Nodes {
			self, count, squared = self+float64(n.Self), count+n.SelfCount, squared+n.SelfSquares
		}
		if self != values || float64(count)*10 != values || squared != squares {
			t.Errorf("%s: %v in %d samples, squares %v", what, self, count, squared)
		}
	}
	m := Merge("both", a, a)
	check("merged", m, 120, 1200)
	if m.Squares != 2*a.Squares {
		t.Errorf("squares %v of %v twice", m.Squares, a.Squares)
	}
	check("without the kernel", Userland(a), 60, 600)
	for i := range a.Frames {
		a.Frames[i] = signal.Frame{Function: "same"}
	}
	Regroup(a)
	check("regrouped", a, 60, 600)
	if len(a.Frames) != 1 {
		t.Errorf("frames %+v", a.Frames)
	}
}
