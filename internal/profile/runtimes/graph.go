package runtimes

import (
	"slices"
	"time"

	"github.com/google/pprof/profile"

	"huatuo/internal/signal"
)

// Graph merges the stacks of a profile into a tree, weighted with one of its
// values; "" is the kind's first. Stacks with less than nothing, of memory that
// was given back within the time of a change, are left out: a tree cannot show
// them.
func Graph(p *profile.Profile, name, sample string) (*signal.FlameGraph, error) {
	if k := kindOf(name); sample == "" && k != nil {
		sample = k.samples[0]
	}
	at, err := p.SampleIndexByName(sample)
	if err != nil {
		return nil, errorOf(badRequest, "weigh %s: %w", name, err)
	}
	g := &signal.FlameGraph{Type: name, Unit: unitOf(p.SampleType[at].Unit), Frames: []signal.Frame{}, Nodes: []signal.FlameNode{}}
	g.To = time.Unix(0, p.TimeNanos).UTC()
	g.From = g.To
	if p.DurationNanos > 0 { // Go has the begin there
		g.To = g.From.Add(time.Duration(p.DurationNanos))
	}
	t := tree{g: g, frames: map[signal.Frame]int{}, children: map[[2]int]int{}}
	for _, s := range p.Sample {
		if at < len(s.Value) && s.Value[at] > 0 {
			t.add(s, s.Value[at])
		}
	}
	return g, nil
}

func unitOf(unit string) string {
	if unit == "bytes" || unit == "nanoseconds" {
		return unit
	}
	return "count"
}

// tree merges stacks.
type tree struct {
	g        *signal.FlameGraph
	frames   map[signal.Frame]int
	children map[[2]int]int // by parent and frame
}

func (t *tree) add(s *profile.Sample, value int64) {
	t.g.Total += value
	t.g.Samples++
	at := -1
	for _, l := range slices.Backward(s.Location) { // the outermost is the last
		if len(l.Line) == 0 {
			at = t.node(at, signal.Frame{Module: fileOf(l), Offset: l.Address - startOf(l), Missing: "the program gives no name"}, value)
		}
		for _, line := range slices.Backward(l.Line) { // inlined functions come first
			f := signal.Frame{Module: fileOf(l), Line: int(line.Line)}
			if line.Function != nil {
				f.Function, f.File = line.Function.Name, line.Function.Filename
			}
			at = t.node(at, f, value)
		}
	}
	if at >= 0 {
		t.g.Nodes[at].Self += value
	}
}

// node finds or makes the node of a frame below another one.
func (t *tree) node(parent int, f signal.Frame, value int64) int {
	frame, ok := t.frames[f]
	if !ok {
		frame = len(t.g.Frames)
		t.frames[f] = frame
		t.g.Frames = append(t.g.Frames, f)
	}
	key := [2]int{parent, frame}
	n, ok := t.children[key]
	if !ok {
		n = len(t.g.Nodes)
		t.children[key] = n
		t.g.Nodes = append(t.g.Nodes, signal.FlameNode{Frame: frame, Parent: parent})
	}
	t.g.Nodes[n].Total += value
	return n
}

// fileOf is the module of a frame: a file, or the runtime's name.
func fileOf(l *profile.Location) string {
	if l.Mapping == nil || l.Mapping.File == "" {
		return "go"
	}
	return l.Mapping.File
}

func startOf(l *profile.Location) uint64 {
	if l.Mapping == nil {
		return 0
	}
	return l.Mapping.Start - l.Mapping.Offset
}
