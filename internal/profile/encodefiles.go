package profile

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"

	"github.com/google/pprof/profile"

	"huatuo/internal/signal"
)

// table numbers the frames of several graphs.
type table struct {
	frames []signal.Frame
	known  map[signal.Frame]int
}

func (t *table) number(f signal.Frame) int {
	n, ok := t.known[f]
	if !ok {
		n = len(t.frames)
		t.known[f] = n
		t.frames = append(t.frames, f)
	}
	return n
}

// stacks calls f with each stack that has a value of its own: the numbers of its
// frames, innermost first, which are f's for the call alone, and its last node.
func (t *table) stacks(g *signal.FlameGraph, f func(frames []int, n *signal.FlameNode)) {
	numbers := make([]int, len(g.Frames))
	for i := range g.Frames {
		numbers[i] = t.number(g.Frames[i])
	}
	var path []int
	for i := range g.Nodes {
		n := &g.Nodes[i]
		if n.Self == 0 {
			continue
		}
		path = path[:0]
		for j := i; j >= 0; j = g.Nodes[j].Parent {
			path = append(path, numbers[g.Nodes[j].Frame])
		}
		f(path, n)
	}
}

// samplesType is what a file calls how many samples a stack has.
const samplesType = "samples"

// writePprof writes one sample for each stack, with its value in each graph. Before
// them comes the number of samples, where the first graph has it: comparing two
// files needs it. Readers show the first graph unless told otherwise.
func writePprof(w io.Writer, graphs []*signal.FlameGraph) error {
	first := graphs[0]
	p := &profile.Profile{TimeNanos: first.From.UnixNano(), DurationNanos: first.To.Sub(first.From).Nanoseconds(), DefaultSampleType: first.Type}
	before := 0
	if first.Squares > 0 {
		before = 1
		p.SampleType = append(p.SampleType, &profile.ValueType{Type: samplesType, Unit: "count"})
	}
	t := table{known: map[signal.Frame]int{}}
	samples := map[string]*profile.Sample{}
	paths := map[*profile.Sample][]int{}
	for i, g := range graphs {
		p.SampleType = append(p.SampleType, &profile.ValueType{Type: g.Type, Unit: g.Unit})
		t.stacks(g, func(frames []int, n *signal.FlameNode) {
			key := fmt.Sprint(frames)
			s := samples[key]
			if s == nil {
				s = &profile.Sample{Value: make([]int64, before+len(graphs))}
				samples[key], paths[s] = s, slices.Clone(frames)
				p.Sample = append(p.Sample, s)
			}
			s.Value[before+i] += n.Self
			if i < before {
				s.Value[0] += n.SelfCount
			}
		})
	}
	p.Location = t.locations(p)
	for _, s := range p.Sample {
		for _, n := range paths[s] {
			s.Location = append(s.Location, p.Location[n])
		}
	}
	if err := p.CheckValid(); err != nil {
		return fmt.Errorf("BUG: pprof: %w", err)
	}
	return p.Write(w)
}

// locations makes a location of each frame, with the functions and mappings of p
// that they are in.
func (t *table) locations(p *profile.Profile) []*profile.Location {
	locations := make([]*profile.Location, len(t.frames))
	mappings := map[string]*profile.Mapping{}
	for i := range t.frames {
		f := &t.frames[i]
		fn := &profile.Function{ID: uint64(i + 1), Name: Show(f), SystemName: f.Function, Filename: f.File}
		p.Function = append(p.Function, fn)
		module := moduleOf(f)
		m := mappings[module]
		if m == nil {
			m = &profile.Mapping{ID: uint64(len(mappings) + 1), File: module, HasFunctions: true, HasFilenames: true, HasLineNumbers: true}
			mappings[module] = m
			p.Mapping = append(p.Mapping, m)
		}
		locations[i] = &profile.Location{ID: uint64(i + 1), Mapping: m, Line: []profile.Line{{Function: fn, Line: int64(f.Line)}}}
	}
	return locations
}

// speedFrame and speedProfile are what speedscope's format has.
type speedFrame struct {
	Name string `json:"name"`
	File string `json:"file,omitempty"`
	Line int    `json:"line,omitempty"`
}

type speedProfile struct {
	Type       string  `json:"type"`
	Name       string  `json:"name"`
	Unit       string  `json:"unit"`
	StartValue int64   `json:"startValue"`
	EndValue   int64   `json:"endValue"`
	Samples    [][]int `json:"samples"`
	Weights    []int64 `json:"weights"`
}

// writeSpeedscope writes https://www.speedscope.app/file-format-schema.json.
func writeSpeedscope(w io.Writer, graphs []*signal.FlameGraph) error {
	t := table{known: map[signal.Frame]int{}}
	var profiles []speedProfile
	for _, g := range graphs {
		p := speedProfile{Type: "sampled", Name: g.Type, Unit: g.Unit, Samples: [][]int{}, Weights: []int64{}}
		if p.Unit == "count" {
			p.Unit = "none"
		}
		t.stacks(g, func(frames []int, n *signal.FlameNode) {
			path := slices.Clone(frames)
			slices.Reverse(path)
			p.Samples = append(p.Samples, path)
			p.Weights = append(p.Weights, n.Self)
			p.EndValue += n.Self
		})
		profiles = append(profiles, p)
	}
	frames := make([]speedFrame, len(t.frames))
	for i := range t.frames {
		f := &t.frames[i]
		frames[i] = speedFrame{Show(f), f.File, f.Line}
		if f.File == "" {
			frames[i].File = f.Module
		}
	}
	return json.NewEncoder(w).Encode(map[string]any{
		"$schema":  "https://www.speedscope.app/file-format-schema.json",
		"name":     "huatuo " + graphs[0].Type,
		"exporter": "huatuo",
		"shared":   map[string]any{"frames": frames},
		"profiles": profiles,
	})
}
