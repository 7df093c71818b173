package profile

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"math"
	"strings"
	"testing"

	"github.com/google/pprof/profile"

	"huatuo/internal/signal"
)

func readGraph(t *testing.T, raw []byte, typ string) *signal.FlameGraph {
	t.Helper()
	f, err := ReadPprof(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	if typ == "" {
		typ = f.Default()
	}
	g, err := f.Graph(typ)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// folded is a graph as text.
func folded(t *testing.T, g *signal.FlameGraph) string {
	t.Helper()
	var b bytes.Buffer
	if err := Encode(&b, "folded", g); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestReadOwn: what is written is read again, with the number of samples and
// which frames are the kernel's.
func TestReadOwn(t *testing.T) {
	g := graphOf(1000, true, map[string]int64{"main;a": 7, "main;b;c": 3, "main;b": 2})
	g.Frames = append(g.Frames, signal.Frame{Function: "schedule"})
	g.Nodes = append(g.Nodes, signal.FlameNode{Frame: len(g.Frames) - 1, Parent: -1, Self: 5000, Total: 5000, SelfCount: 5, Count: 5, SelfSquares: 5e6, Squares: 5e6})
	g.Total, g.Samples, g.Squares = g.Total+5000, g.Samples+5, g.Squares+5e6
	var packed, plain bytes.Buffer
	if err := Encode(&packed, "pprof", g); err != nil {
		t.Fatal(err)
	}
	z, err := gzip.NewReader(bytes.NewReader(packed.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(&plain, z); err != nil {
		t.Fatal(err)
	}
	for what, raw := range map[string][]byte{"gzipped": packed.Bytes(), "plain": plain.Bytes()} {
		got := readGraph(t, raw, "")
		want := g
		if folded(t, got) != folded(t, want) || got.Type != "cpu" || got.Unit != "nanoseconds" || got.Samples != 17 || got.Squares != 17e6 {
			t.Errorf("%s: %s %s, %d samples, squares %v:\n%s", what, got.Type, got.Unit, got.Samples, got.Squares, folded(t, got))
		}
		kernel := 0
		for i := range got.Frames {
			if IsKernel(&got.Frames[i]) {
				kernel++
			}
		}
		if kernel != 1 {
			t.Errorf("%s: %d frames are the kernel's: %+v", what, kernel, got.Frames)
		}
		if d := diffOf(t, g, got, DiffOptions{Self: true}); len(d.Functions) != 0 {
			t.Errorf("%s: differs from itself: %+v", what, d.Functions)
		}
	}
}

// pprofOf makes a file of values of functions.
func pprofOf(t *testing.T, change func(*profile.Profile), types []string, values map[string][]int64) []byte {
	t.Helper()
	p := &profile.Profile{}
	for _, name := range types {
		name, unit, _ := strings.Cut(name, "/")
		p.SampleType = append(p.SampleType, &profile.ValueType{Type: name, Unit: unit})
	}
	for name, v := range values {
		fn := &profile.Function{ID: uint64(len(p.Function) + 1), Name: name}
		l := &profile.Location{ID: uint64(len(p.Location) + 1), Address: 0x1000, Line: []profile.Line{{Function: fn}}}
		p.Function, p.Location = append(p.Function, fn), append(p.Location, l)
		p.Sample = append(p.Sample, &profile.Sample{Location: []*profile.Location{l}, Value: v})
	}
	if change != nil {
		change(p)
	}
	var b bytes.Buffer
	if err := p.WriteUncompressed(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestReadTypes: the type that a file prefers, and how many samples a value
// stands for, in the files of several tools.
func TestReadTypes(t *testing.T) {
	period := func(n int64, unit string) func(*profile.Profile) {
		return func(p *profile.Profile) { p.Period, p.PeriodType = n, &profile.ValueType{Type: "x", Unit: unit} }
	}
	for _, tt := range []struct {
		what           string
		change         func(*profile.Profile)
		types          []string
		values         []int64
		ask, want      string
		total, samples int64
	}{
		{"Go's CPU profile", period(10_000_000, "nanoseconds"), []string{"samples/count", "cpu/nanoseconds"}, []int64{7, 70_000_000}, "", "cpu", 70_000_000, 7},
		{"its samples", period(10_000_000, "nanoseconds"), []string{"samples/count", "cpu/nanoseconds"}, []int64{7, 70_000_000}, "samples", "samples", 7, 7},
		{"mutexes", period(1, "count"), []string{"contentions/count", "delay/nanoseconds"}, []int64{12, 999}, "", "delay", 999, 12},
		{"a heap: counts are scaled", period(524288, "bytes"), []string{"inuse_objects/count", "inuse_space/bytes"}, []int64{100_000, 5 << 19}, "", "inuse_space", 5 << 19, 5},
		{"a preferred type", func(p *profile.Profile) { p.DefaultSampleType = "a" }, []string{"a/bytes", "b/bytes"}, []int64{3, 4}, "", "a", 3, 1},
		{"a preferred type that there is not", func(p *profile.Profile) { p.DefaultSampleType = "z" }, []string{"a/bytes", "b/bytes"}, []int64{3, 4}, "", "b", 4, 1},
		{"a period alone", period(10, "milliseconds"), []string{"wall/milliseconds"}, []int64{95}, "", "wall", 95, 9},
	} {
		g := readGraph(t, pprofOf(t, tt.change, tt.types, map[string][]int64{"f": tt.values}), tt.ask)
		if g.Type != tt.want || g.Total != tt.total || g.Samples != tt.samples {
			t.Errorf("%s: %s, total %d in %d samples", tt.what, g.Type, g.Total, g.Samples)
		}
	}
}

// TestReadFrames: inlined functions are frames, code without names has its place
// in the file, a stack that is too deep loses its outer end, and one without any
// frame says so.
func TestReadFrames(t *testing.T) {
	raw := pprofOf(t, func(p *profile.Profile) {
		m := &profile.Mapping{ID: 1, Start: 0x400000, Limit: 0x500000, Offset: 0x1000, File: "/bin/p", BuildID: "abc"}
		p.Mapping = append(p.Mapping, m)
		f := p.Function[0]
		inner := &profile.Function{ID: 2, Name: "inner", Filename: "p.c"}
		p.Function = append(p.Function, inner)
		p.Location[0].Mapping = m
		p.Location[0].Line = []profile.Line{{Function: inner, Line: 3}, {Function: f, Line: 9}}
		bare := &profile.Location{ID: 2, Mapping: m, Address: 0x400020}
		p.Location = append(p.Location, bare)
		deep := &profile.Sample{Value: []int64{5}, Location: []*profile.Location{bare}}
		for range maxDepth {
			deep.Location = append(deep.Location, p.Location[0])
		}
		p.Sample = append(p.Sample, deep, &profile.Sample{Value: []int64{2}})
	}, []string{"x/count"}, map[string][]int64{"f": {1}})
	g := readGraph(t, raw, "")
	text := folded(t, g)
	if !strings.HasPrefix(text, "f;inner 1\n") || !strings.Contains(text, ";p+0x1020 5\n") || !strings.Contains(text, "[unknown: no stack] 2\n") {
		t.Errorf("%.300s", text)
	}
	if g.Truncated != 5 || len(g.Nodes) != maxDepth+3 {
		t.Errorf("truncated %d, %d nodes", g.Truncated, len(g.Nodes))
	}
	for _, f := range g.Frames {
		if f.Missing != "" && f.Offset != 0 && (f.Offset != 0x1020 || f.BuildID != "abc" || f.Module != "/bin/p") {
			t.Errorf("%+v", f)
		}
	}
}

// TestReadBad: what is no profile, or none to compare, is refused with a reason.
func TestReadBad(t *testing.T) {
	values := map[string][]int64{"f": {1}}
	good := pprofOf(t, nil, []string{"x/count"}, values)
	var z bytes.Buffer
	gz := gzip.NewWriter(&z)
	gz.Write(good)
	gz.Close()
	for _, tt := range []struct {
		what string
		raw  []byte
		want string
	}{
		{"nothing", nil, "empty"},
		{"text", []byte("main;f 3\n"), "not a pprof profile"},
		{"a picture", []byte("<svg xmlns=\"x\"></svg>"), "not a pprof profile"},
		{"half of it", good[:len(good)/2], "not a pprof profile"},
		{"half of the gzip", z.Bytes()[:z.Len()/2], "unpack"},
		{"no gzip", []byte{0x1f, 0x8b, 9, 9, 9}, "unpack"},
		{"no type", pprofOf(t, func(p *profile.Profile) { p.SampleType, p.Sample = nil, nil }, nil, nil), "not a pprof profile"},
	} {
		if _, err := ReadPprof(bytes.NewReader(tt.raw)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", tt.what, err)
		}
	}
	for _, tt := range []struct {
		what, typ string
		values    map[string][]int64
		want      string
	}{
		{"another type", "cpu", values, `no samples of type "cpu"; there are: x`},
		{"a difference", "x", map[string][]int64{"f": {-1}}, "below zero"},
		{"an overflow", "x", map[string][]int64{"f": {math.MaxInt64}, "g": {1}}, "too large"},
	} {
		f, err := ReadPprof(bytes.NewReader(pprofOf(t, nil, []string{"x/count"}, tt.values)))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Graph(tt.typ); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", tt.what, err)
		}
	}
}

// TestAlign: a function is the same in another file, unless there are two of its
// name.
func TestAlign(t *testing.T) {
	graph := func(frames ...string) *signal.FlameGraph {
		g := &signal.FlameGraph{}
		for _, f := range frames {
			name, module, _ := strings.Cut(f, "@")
			g.Frames = append(g.Frames, signal.Frame{Function: name, Module: module})
		}
		return g
	}
	before := graph("hot@/v1/app", "init@/v1/app", "init@/lib/a", "gone@/v1/app")
	Align(before, graph("hot@/v2/app", "init@/v2/app", "new@/v2/app"))
	if got, want := fmt.Sprint(before.Frames), fmt.Sprint(graph("hot@/v2/app", "init@/v1/app", "init@/lib/a", "gone@/v1/app").Frames); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// FuzzReadPprof: whatever the bytes, there is a profile or an error, and what is
// read can be compared and drawn.
func FuzzReadPprof(f *testing.F) {
	var own bytes.Buffer
	if err := Encode(&own, "pprof", graph()); err != nil {
		f.Fatal(err)
	}
	f.Add(own.Bytes())
	var plain bytes.Buffer
	p, err := profile.ParseData(own.Bytes())
	if err != nil {
		f.Fatal(err)
	}
	p.WriteUncompressed(&plain)
	f.Add(plain.Bytes())
	f.Add([]byte{0x1f, 0x8b})
	f.Add([]byte("\x0a\x04\x08\x01\x10\x02\x12\x02\x10\x01\x32\x00\x32\x01a"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		file, err := ReadPprof(bytes.NewReader(raw))
		if err != nil {
			return
		}
		for _, typ := range file.Types() {
			g, err := file.Graph(typ)
			if err != nil {
				continue
			}
			Align(g, g)
			for _, o := range []DiffOptions{{Self: true}, {Absolute: true, Few: true}} {
				d, err := Diff(g, Userland(g), o)
				if err != nil {
					t.Fatal(err)
				}
				for _, format := range DiffFormats() {
					if err := EncodeDiff(io.Discard, d, format); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
	})
}
