package profile

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/google/pprof/profile"

	"huatuo/internal/signal"
)

const (
	// maxFile is how large a profile may be, unpacked: a day of a large program has
	// some 100 MB.
	maxFile = 512 << 20
	// maxCalls bounds the tree of a file, which a few bytes of it may make deep: 600 MB.
	maxCalls = 4 << 20
	// maxDepth is how many frames of a stack are taken, from the innermost.
	maxDepth = 2048
)

// File is a profile in pprof's format, of any tool.
type File struct{ p *profile.Profile }

// ReadPprof reads a profile.proto, gzipped or not.
func ReadPprof(r io.Reader) (*File, error) {
	in := bufio.NewReader(r)
	if magic, err := in.Peek(2); err == nil && magic[0] == 0x1f && magic[1] == 0x8b {
		z, err := gzip.NewReader(in)
		if err != nil {
			return nil, fmt.Errorf("unpack: %w", err)
		}
		return read(z)
	}
	return read(in)
}

func read(r io.Reader) (*File, error) {
	raw, err := io.ReadAll(io.LimitReader(r, maxFile+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("unpack: %w", err)
	case len(raw) > maxFile:
		return nil, fmt.Errorf("larger than %d MiB", maxFile>>20)
	case len(bytes.TrimSpace(raw)) == 0:
		return nil, errors.New("empty: not a pprof profile")
	}
	p, err := profile.ParseUncompressed(raw)
	if err == nil {
		err = p.CheckValid()
	}
	if err != nil {
		return nil, fmt.Errorf("not a pprof profile: %w", err)
	}
	if len(p.SampleType) == 0 {
		return nil, errors.New("not a pprof profile: it has no type of samples")
	}
	return &File{p}, nil
}

// Types lists what the samples of a file have values of.
func (f *File) Types() []string {
	var out []string
	for _, t := range f.p.SampleType {
		out = append(out, t.Type)
	}
	return out
}

// Default is the type that the file itself prefers, else the last one, as go tool
// pprof has it.
func (f *File) Default() string {
	types := f.Types()
	if slices.Contains(types, f.p.DefaultSampleType) {
		return f.p.DefaultSampleType
	}
	return types[len(types)-1]
}

// Graph makes a graph of the values of a type.
//
// How many samples a value stands for is told by the type before it, if that is
// a count ("samples", "contentions"), or by the first type, if that is "samples",
// and by the period: whichever is less, since
// profiles of heaps have counts that were scaled up. Where a file tells neither,
// each of its stacks counts as one sample: then less is significant than is so.
func (f *File) Graph(typ string) (*signal.FlameGraph, error) {
	i := slices.Index(f.Types(), typ)
	if i < 0 {
		return nil, fmt.Errorf("no samples of type %q; there are: %s", typ, strings.Join(f.Types(), ", "))
	}
	t := f.p.SampleType[i]
	g := &signal.FlameGraph{Type: t.Type, Unit: t.Unit, Frames: []signal.Frame{}, Nodes: []signal.FlameNode{}}
	if f.p.TimeNanos > 0 {
		g.From = time.Unix(0, f.p.TimeNanos).UTC()
		g.To = g.From.Add(time.Duration(max(f.p.DurationNanos, 0)))
	}
	b := reader{g: g, frames: map[signal.Frame]int{}, nodes: map[[2]int]int{}, locations: map[*profile.Location][]int{}}
	for _, s := range f.p.Sample {
		v := s.Value[i]
		switch {
		case v < 0:
			return nil, errors.New("values below zero: it is the difference of two profiles already")
		case v == 0:
			continue
		case v > math.MaxInt64-g.Total:
			return nil, errors.New("values too large to be summed up")
		}
		if err := b.add(s, v, f.samples(s, i)); err != nil {
			return nil, err
		}
	}
	return g, nil
}

// samples is how many observations the value of a sample stands for.
func (f *File) samples(s *profile.Sample, typ int) int64 {
	v, n, told := s.Value[typ], int64(math.MaxInt64), false
	t, period := f.p.SampleType[typ], f.p.PeriodType
	switch {
	case t.Unit == "count":
		n, told = v, true
	case typ > 0 && f.p.SampleType[typ-1].Unit == "count":
		n, told = s.Value[typ-1], true
	case f.p.SampleType[0].Type == samplesType && f.p.SampleType[0].Unit == "count":
		n, told = s.Value[0], true
	}
	if period != nil && period.Unit == t.Unit && f.p.Period > 1 {
		n, told = min(n, v/f.p.Period), true
	}
	if !told {
		return 1
	}
	return max(n, 1)
}

// reader grows a graph.
type reader struct {
	g         *signal.FlameGraph
	frames    map[signal.Frame]int
	nodes     map[[2]int]int // by parent and frame
	locations map[*profile.Location][]int
	stack     []int // innermost first
}

// add adds a stack with its value and number of samples.
func (b *reader) add(s *profile.Sample, value, count int64) error {
	b.stack = b.stack[:0]
	for _, l := range s.Location {
		b.stack = append(b.stack, b.location(l)...)
		if len(b.stack) > maxDepth {
			b.stack = b.stack[:maxDepth]
			b.g.Truncated += value
			break
		}
	}
	if len(b.stack) == 0 {
		b.stack = append(b.stack, b.frame(signal.Frame{Function: unknown, Missing: "no stack"}))
	}
	squares := float64(value) * float64(value) / float64(count)
	g, at := b.g, -1
	for _, frame := range slices.Backward(b.stack) {
		k := [2]int{at, frame}
		n, ok := b.nodes[k]
		if !ok {
			if n = len(g.Nodes); n == maxCalls {
				return fmt.Errorf("more than %d different calls", maxCalls)
			}
			b.nodes[k] = n
			g.Nodes = append(g.Nodes, signal.FlameNode{Frame: frame, Parent: at})
		}
		x := &g.Nodes[n]
		x.Total += value
		x.Count += count
		x.Squares += squares
		at = n
	}
	leaf := &g.Nodes[at]
	leaf.Self += value
	leaf.SelfCount += count
	leaf.SelfSquares += squares
	g.Total += value
	g.Samples += count
	g.Squares += squares
	return nil
}

func (b *reader) frame(f signal.Frame) int {
	i, ok := b.frames[f]
	if !ok {
		i = len(b.g.Frames)
		b.frames[f] = i
		b.g.Frames = append(b.g.Frames, f)
	}
	return i
}

// unknown is what a function without a name is called.
const unknown = "[unknown]"

// location returns the frames of a place in the code: the function, and those
// that were inlined into it.
func (b *reader) location(l *profile.Location) []int {
	if frames, ok := b.locations[l]; ok {
		return frames
	}
	module, build, offset := "unknown", "", l.Address // "unknown" as the unwinder has it: no file, and not the kernel
	if m := l.Mapping; m != nil {
		build = m.BuildID
		if module = m.File; module == kernelModule {
			module = ""
		} else if module == "" {
			module = "unknown"
		}
		if l.Address >= m.Start {
			offset = l.Address - m.Start + m.Offset
		}
	}
	var out []int
	for _, line := range l.Line {
		if fn := line.Function; fn != nil && fn.Name != "" {
			out = append(out, b.frame(signal.Frame{Function: fn.Name, Module: module, File: fn.Filename, Line: int(line.Line)}))
		}
	}
	if len(out) == 0 {
		out = append(out, b.frame(signal.Frame{Function: unknown, Module: module, Offset: offset, Missing: "no name in the file", BuildID: build}))
	}
	b.locations[l] = out
	return out
}

// Align gives functions of the graph before the modules that they have in the one
// after, where there is no doubt which is meant: a program's second version often
// lies in a file of another name. It changes the frames of before.
func Align(before, after *signal.FlameGraph) {
	was, is := modulesOf(before), modulesOf(after)
	for i := range before.Frames {
		f := &before.Frames[i]
		a, b := was[Show(f)], is[Show(f)]
		if f.Missing == "" && len(a) == 1 && len(b) == 1 {
			f.Module = b[0]
		}
	}
}

// modulesOf lists the modules in which a graph has functions of a name.
func modulesOf(g *signal.FlameGraph) map[string][]string {
	out := map[string][]string{}
	for i := range g.Frames {
		f := &g.Frames[i]
		if name := Show(f); !slices.Contains(out[name], f.Module) {
			out[name] = append(out[name], f.Module)
		}
	}
	return out
}
