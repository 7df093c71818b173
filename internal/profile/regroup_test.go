package profile

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"huatuo/internal/signal"
)

func TestRegroup(t *testing.T) {
	main, f, leaf := signal.Frame{Function: "main"}, signal.Frame{Function: "f", Module: "/p"}, signal.Frame{Function: "leaf"}
	g := &signal.FlameGraph{
		Frames: []signal.Frame{main, f, leaf, f},
		Nodes: []signal.FlameNode{
			{Frame: 0, Parent: -1, Self: 1, Total: 21},
			{Frame: 1, Parent: 0, Self: 2, Total: 7}, {Frame: 2, Parent: 1, Self: 5, Total: 5},
			{Frame: 3, Parent: 0, Self: 3, Total: 13}, {Frame: 2, Parent: 3, Self: 4, Total: 10},
			{Frame: 3, Parent: 4, Self: 6, Total: 6},
		},
	}
	Regroup(g)
	want := &signal.FlameGraph{
		Frames: []signal.Frame{main, f, leaf},
		Nodes: []signal.FlameNode{
			{Frame: 0, Parent: -1, Self: 1, Total: 21},
			{Frame: 1, Parent: 0, Self: 5, Total: 20}, {Frame: 2, Parent: 1, Self: 9, Total: 15},
			{Frame: 1, Parent: 2, Self: 6, Total: 6},
		},
	}
	if d := cmp.Diff(want, g); d != "" {
		t.Error(d)
	}
}
