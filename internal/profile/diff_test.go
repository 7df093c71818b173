package profile

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"strings"
	"testing"

	"huatuo/internal/signal"
)

// graphOf makes a graph of folded stacks, outermost first, each with how many
// samples it has, all of the same value.
func graphOf(value int64, counted bool, stacks map[string]int64) *signal.FlameGraph {
	g := &signal.FlameGraph{Type: "cpu", Unit: "nanoseconds"}
	frames, nodes := map[string]int{}, map[string]int{}
	for stack, n := range stacks {
		parent := -1
		names := strings.Split(stack, ";")
		for i, name := range names {
			path := strings.Join(names[:i+1], ";")
			id, ok := nodes[path]
			if !ok {
				if _, ok := frames[name]; !ok {
					frames[name] = len(g.Frames)
					g.Frames = append(g.Frames, signal.Frame{Function: name, Module: "/bin/x"})
				}
				id = len(g.Nodes)
				nodes[path] = id
				g.Nodes = append(g.Nodes, signal.FlameNode{Frame: frames[name], Parent: parent})
			}
			x := &g.Nodes[id]
			x.Total += n * value
			if counted {
				x.Count += n
				x.Squares += float64(n * value * value)
			}
			if i == len(names)-1 {
				x.Self += n * value
				if counted {
					x.SelfCount += n
					x.SelfSquares += float64(n * value * value)
				}
			}
			parent = id
		}
		g.Total += n * value
		g.Samples += n
		if counted {
			g.Squares += float64(n * value * value)
		}
	}
	return g
}

func find(t *testing.T, d *signal.ProfileDiff, name string) (c signal.FunctionChange, place int) {
	t.Helper()
	for i, c := range d.Functions {
		if c.Function == name {
			return c, i
		}
	}
	t.Fatalf("no %s in %+v", name, d.Functions)
	return c, 0
}

func diffOf(t *testing.T, before, after *signal.FlameGraph, o DiffOptions) *signal.ProfileDiff {
	t.Helper()
	d, err := Diff(before, after, o)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestDiff: z of 100 in 1000 against 150 in 1000 and of 200 in 400 are those of a
// table of the two-proportion test, with the counts or without.
func TestDiff(t *testing.T) {
	for _, counted := range []bool{true, false} {
		before := graphOf(1000, counted, map[string]int64{"main;a": 100, "main;b": 880, "main;rare": 3, "main;gone": 17})
		after := graphOf(1000, counted, map[string]int64{"main;a": 150, "main;b": 826, "main;rare": 4, "main;new": 20})
		d := diffOf(t, before, after, DiffOptions{Self: true})
		a, place := find(t, d, "a")
		if math.Abs(a.Self.Z-3.3806) > 0.001 || math.Abs(a.Self.P-0.000723) > 1e-5 || a.Verdict != "regressed" || place != 0 {
			t.Errorf("a: %+v at %d", a, place)
		}
		if a.Self.BeforeSamples != 100 || a.Self.AfterValue != 150_000 || a.Self.Before != 0.1 || a.Self.After != 0.15 {
			t.Errorf("a: %+v", a.Self)
		}
		if b, _ := find(t, d, "b"); b.Verdict != "improved" || b.Self.Z > -3 {
			t.Errorf("b: %+v", b)
		}
		if n, _ := find(t, d, "new"); n.Verdict != "regressed" || n.Self.BeforeSamples != 0 {
			t.Errorf("new: %+v", n)
		}
		if g, place := find(t, d, "gone"); g.Verdict != "improved" || g.Self.After != 0 || place == 0 {
			t.Errorf("gone: %+v", g)
		}
		for _, c := range d.Functions {
			if c.Function == "rare" || c.Function == "main" {
				t.Errorf("%s has too few samples of its own", c.Function)
			}
		}
		if d.Tested != 4 || d.Clear != 4 {
			t.Errorf("tested %d, clear %d", d.Tested, d.Clear)
		}
		big := diffOf(t, before, graphOf(7, counted, map[string]int64{"main;a": 200, "main;b": 200}), DiffOptions{Self: true})
		if a, _ := find(t, big, "a"); math.Abs(a.Self.Z-16.478) > 0.01 { // p = 300/1400
			t.Errorf("other length and value: z %v", a.Self.Z)
		}
	}
}

// TestDiffChance: what differs by chance is not called a change, however many
// functions there are.
func TestDiffChance(t *testing.T) {
	before, after := map[string]int64{}, map[string]int64{}
	for i := range 1000 { // shares that differ by up to three standard errors
		before[fmt.Sprint("main;f", i)] = 100
		after[fmt.Sprint("main;f", i)] = 100 + int64(i%7-3)*14
	}
	d := diffOf(t, graphOf(1, true, before), graphOf(1, true, after), DiffOptions{Self: true})
	if d.Tested != 1000 || d.Clear != 0 {
		t.Errorf("tested %d, clear %d", d.Tested, d.Clear)
	}
}

// TestDiffWeights: one long wait is no regression, however long it is; a hundred
// that together are as long are one.
func TestDiffWeights(t *testing.T) {
	of := func(long, each int64) *signal.FlameGraph {
		g := graphOf(1, true, map[string]int64{"main;work": 1000})
		g.Type = "offcpu.blocked"
		n := signal.FlameNode{Frame: len(g.Frames), Parent: -1, Self: long * each, Total: long * each,
			Count: long, SelfCount: long, Squares: float64(long * each * each), SelfSquares: float64(long * each * each)}
		g.Frames, g.Nodes = append(g.Frames, signal.Frame{Function: "wait"}), append(g.Nodes, n)
		g.Total, g.Samples, g.Squares = g.Total+n.Total, g.Samples+long, g.Squares+n.Squares
		return g
	}
	few := of(10, 1)
	for _, c := range diffOf(t, few, of(1, 1000), DiffOptions{Self: true}).Functions {
		if c.Function == "wait" {
			t.Errorf("one long wait: %+v", c)
		}
	}
	if c, _ := find(t, diffOf(t, few, of(100, 10), DiffOptions{Self: true}), "wait"); c.Verdict != "regressed" {
		t.Errorf("a hundred waits: %+v", c)
	}
}

// TestDiffTree: the trees lie over one another, small nodes are left out, and a
// function that calls itself counts once.
func TestDiffTree(t *testing.T) {
	before := graphOf(1, true, map[string]int64{"main;a;a;leaf": 60, "main;b": 40, "main;c;tiny": 0})
	after := graphOf(1, true, map[string]int64{"main;a;a;leaf": 20, "main;b": 79, "main;d": 1})
	d := diffOf(t, before, after, DiffOptions{MinShare: 0.05})
	got := map[string]string{}
	for i, n := range d.Nodes {
		path := ""
		for j := i; j >= 0; j = d.Nodes[j].Parent {
			path = ";" + d.Frames[d.Nodes[j].Frame].Function + path
		}
		got[path[1:]] = fmt.Sprint(n.SelfBefore, n.TotalBefore, n.Self, n.Total)
	}
	want := map[string]string{
		"main": "0 100 0 100", "main;a": "0 60 0 20", "main;a;a": "0 60 0 20", "main;a;a;leaf": "60 60 20 20", "main;b": "40 40 79 79",
	}
	if fmt.Sprint(got) != fmt.Sprint(want) || d.Dropped != 3 || len(d.Frames) != 4 {
		t.Errorf("tree %v, %d dropped, frames %v", got, d.Dropped, d.Frames)
	}
	if a, _ := find(t, d, "a"); a.Total.Before != 0.6 || a.Total.BeforeSamples != 60 || a.Verdict != "improved" {
		t.Errorf("a: %+v", a)
	}
	other := graphOf(1, true, nil)
	other.Type = "lock"
	if _, err := Diff(before, other, DiffOptions{}); !errors.Is(err, ErrTypes) {
		t.Errorf("other type: %v", err)
	}
	if d, err := Diff(graphOf(1, true, nil), graphOf(1, true, nil), DiffOptions{}); err != nil || len(d.Functions) != 0 || d.Nodes == nil {
		t.Errorf("empty: %+v, %v", d, err)
	}
}

// TestDiffAbsolute: twice the load with the same shares is a change of values, of
// no share; sums that differ by less than chance makes them differ are unclear.
func TestDiffAbsolute(t *testing.T) {
	before := graphOf(10, true, map[string]int64{"main;a": 100, "main;b": 400, "main;few": 2})
	twice := graphOf(10, true, map[string]int64{"main;a": 200, "main;b": 800, "main;few": 4})
	if d := diffOf(t, before, twice, DiffOptions{Self: true}); d.Clear != 0 || d.Absolute {
		t.Errorf("shares: %+v", d.Functions)
	}
	d := diffOf(t, before, twice, DiffOptions{Self: true, Absolute: true, Few: true})
	if len(d.Functions) != 3 || d.Functions[0].Function != "b" || d.Functions[2].Verdict != "untested" || d.Tested != 2 || d.Clear != 2 || !d.Absolute {
		t.Errorf("values: %+v", d)
	}
	if z := d.Functions[1].Self.Z; math.Abs(z-5.7735) > 0.001 { // 100 in √300
		t.Errorf("z %v", z)
	}
	near := graphOf(10, true, map[string]int64{"main;a": 110, "main;b": 395})
	for _, c := range diffOf(t, before, near, DiffOptions{Self: true, Absolute: true}).Functions {
		if c.Verdict != "unclear" {
			t.Errorf("by chance: %+v", c)
		}
	}
	if d := diffOf(t, graphOf(1, true, nil), twice, DiffOptions{Self: true, Absolute: true}); d.Clear != 2 || d.Functions[0].Function != "b" {
		t.Errorf("against nothing: %+v", d)
	}
}

// TestDiffSVG: what grew is red and what is gone still shows, blue.
func TestDiffSVG(t *testing.T) {
	d := diffOf(t, graphOf(1, true, map[string]int64{"main;gone": 50, "main;same": 50}), graphOf(1, true, map[string]int64{"main;new": 50, "main;same": 50}), DiffOptions{})
	var b strings.Builder
	if err := EncodeDiff(&b, d, "svg"); err != nil {
		t.Fatal(err)
	}
	text := regexp.MustCompile(` x="[^"]*"`).ReplaceAllString(b.String(), "") // in which order they stand is not told
	for _, want := range []string{
		`gone (50.00% before, 0.00% after, -50.00%)</title><rect y="42" width="300.0" height="18" fill="hsl(215,78%,68%)"`,
		`new (0.00% before, 50.00% after, +50.00%)</title><rect y="42" width="300.0" height="18" fill="hsl(6,78%,68%)"`,
		`same (50.00% before, 50.00% after, +0.00%)</title><rect y="42" width="600.0" height="18" fill="hsl(215,0%,88%)"`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
	if err := EncodeDiff(&b, d, "gif"); err == nil || !strings.Contains(err.Error(), "svg, json") {
		t.Error(err)
	}
}
