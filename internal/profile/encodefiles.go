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
// frames, innermost first, which are f's for the call alone.
func (t *table) stacks(g *signal.FlameGraph, f func(frames []int, self int64)) {
	numbers := make([]int, len(g.Frames))
	for i := range g.Frames {
		numbers[i] = t.number(g.Frames[i])
	}
	var path []int
	for i, n := range g.Nodes {
		if n.Self == 0 {
			continue
		}
		path = path[:0]
		for j := i; j >= 0; j = g.Nodes[j].Parent {
			path = append(path, numbers[g.Nodes[j].Frame])
		}
		f(path, n.Self)
	}
}

// writePprof writes one sample for each stack, with its value in each graph.
func writePprof(w io.Writer, graphs []*signal.FlameGraph) error {
	p := &profile.Profile{TimeNanos: graphs[0].From.UnixNano(), DurationNanos: graphs[0].To.Sub(graphs[0].From).Nanoseconds()}
	t := table{known: map[signal.Frame]int{}}
	samples := map[string]*profile.Sample{}
	paths := map[*profile.Sample][]int{}
	for i, g := range graphs {
		p.SampleType = append(p.SampleType, &profile.ValueType{Type: g.Type, Unit: g.Unit})
		t.stacks(g, func(frames []int, self int64) {
			key := fmt.Sprint(frames)
			s := samples[key]
			if s == nil {
				s = &profile.Sample{Value: make([]int64, len(graphs))}
				samples[key], paths[s] = s, slices.Clone(frames)
				p.Sample = append(p.Sample, s)
			}
			s.Value[i] += self
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
		m := mappings[f.Module]
		if m == nil {
			m = &profile.Mapping{ID: uint64(len(mappings) + 1), File: f.Module, HasFunctions: true, HasFilenames: true, HasLineNumbers: true}
			if f.Module == "" {
				m.File = "[kernel]"
			}
			mappings[f.Module] = m
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
		t.stacks(g, func(frames []int, self int64) {
			path := slices.Clone(frames)
			slices.Reverse(path)
			p.Samples = append(p.Samples, path)
			p.Weights = append(p.Weights, self)
			p.EndValue += self
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
