package profile

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/pprof/profile"

	"huatuo/internal/signal"
)

func graph() *signal.FlameGraph {
	return &signal.FlameGraph{
		Type: "cpu", Unit: "nanoseconds", From: time.Unix(100, 0), To: time.Unix(110, 0), Total: 100, Samples: 10,
		Frames: []signal.Frame{
			{Function: "main", Module: "/bin/p"}, {Function: "a<b>;c", Module: "/bin/p", File: "a.c", Line: 3},
			{Function: "[unknown]", Module: "/lib/x.so", Offset: 0x10, Missing: "no symbols in file"}, {Function: "schedule"},
		},
		Nodes: []signal.FlameNode{
			{Frame: 0, Parent: -1, Self: 10, Total: 100}, {Frame: 1, Parent: 0, Self: 20, Total: 90},
			{Frame: 2, Parent: 1, Self: 30, Total: 70}, {Frame: 1, Parent: 2, Self: 0, Total: 40}, {Frame: 3, Parent: 3, Self: 40, Total: 40},
		},
	}
}

func encode(t *testing.T, format string) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := Encode(&b, format, graph()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestPprof(t *testing.T) {
	p, err := profile.ParseData(encode(t, "pprof"))
	if err != nil {
		t.Fatal(err)
	}
	var total int64
	deepest := ""
	for _, s := range p.Sample {
		total += s.Value[0]
		if len(s.Location) == 5 {
			for _, l := range s.Location {
				deepest += l.Line[0].Function.Name + " "
			}
		}
	}
	if total != 100 || deepest != "schedule a<b>;c x.so+0x10 a<b>;c main " || p.DurationNanos != 10e9 || p.SampleType[0].Unit != "nanoseconds" {
		t.Errorf("total %d, deepest %q, %+v", total, deepest, p.SampleType[0])
	}
}

// counted is a graph of another unit with the stacks of graph, in another order,
// and one of its own.
func counted() *signal.FlameGraph {
	return &signal.FlameGraph{
		Type: "cpu.times", Unit: "count", From: time.Unix(100, 0), To: time.Unix(110, 0), Total: 12, Samples: 3,
		Frames: []signal.Frame{{Function: "other", Module: "/bin/p"}, {Function: "a<b>;c", Module: "/bin/p", File: "a.c", Line: 3}, {Function: "main", Module: "/bin/p"}},
		Nodes: []signal.FlameNode{
			{Frame: 2, Parent: -1, Self: 3, Total: 12}, {Frame: 0, Parent: 0, Self: 4, Total: 4}, {Frame: 1, Parent: 0, Self: 5, Total: 5},
		},
	}
}

// TestSeveralUnits: a stack is one sample with its value in each graph.
func TestSeveralUnits(t *testing.T) {
	var b bytes.Buffer
	if err := Encode(&b, "pprof", graph(), counted()); err != nil {
		t.Fatal(err)
	}
	p, err := profile.ParseData(b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	got := map[string][2]int64{}
	for _, s := range p.Sample {
		names := ""
		for _, l := range s.Location {
			names += l.Line[0].Function.Name + " "
		}
		got[names] = [2]int64{s.Value[0], s.Value[1]}
	}
	want := map[string][2]int64{
		"main ": {10, 3}, "a<b>;c main ": {20, 5}, "other main ": {0, 4}, "x.so+0x10 a<b>;c main ": {30, 0},
		"schedule a<b>;c x.so+0x10 a<b>;c main ": {40, 0},
	}
	if !maps.Equal(got, want) || len(p.SampleType) != 2 || p.SampleType[1].Type != "cpu.times" || p.SampleType[1].Unit != "count" {
		t.Errorf("%v of %v, want %v", got, p.SampleType, want)
	}
	b.Reset()
	if err := Encode(&b, "speedscope", graph(), counted()); err != nil {
		t.Fatal(err)
	}
	var d struct {
		Profiles []struct {
			Name, Unit string
			Weights    []int64
		}
	}
	if err := json.Unmarshal(b.Bytes(), &d); err != nil {
		t.Fatal(err)
	}
	if len(d.Profiles) != 2 || d.Profiles[1].Name != "cpu.times" || d.Profiles[1].Unit != "none" || len(d.Profiles[1].Weights) != 3 {
		t.Errorf("%+v", d.Profiles)
	}
}

func TestFolded(t *testing.T) {
	want := "main 10\nmain;a<b>:c 20\nmain;a<b>:c;x.so+0x10 30\nmain;a<b>:c;x.so+0x10;a<b>:c;schedule 40\n"
	if got := string(encode(t, "folded")); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestSpeedscope(t *testing.T) {
	var d struct {
		Shared   struct{ Frames []struct{ Name string } }
		Profiles []struct {
			Type, Unit string
			Samples    [][]int
			Weights    []int64
			EndValue   int64
		}
	}
	if err := json.Unmarshal(encode(t, "speedscope"), &d); err != nil {
		t.Fatal(err)
	}
	p := d.Profiles[0]
	if p.Type != "sampled" || p.EndValue != 100 || len(p.Samples) != 4 || len(p.Samples[3]) != 5 || d.Shared.Frames[p.Samples[3][4]].Name != "schedule" {
		t.Errorf("%+v", d)
	}
}

func TestSVG(t *testing.T) {
	b := encode(t, "svg")
	d := xml.NewDecoder(bytes.NewReader(b))
	for {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if s := string(b); strings.Count(s, "<rect") != 5 || !strings.Contains(s, "a&lt;b&gt;;c (90") && !strings.Contains(s, "a&lt;b&gt;;c (0.1 µs, 90.00%)") {
		t.Errorf("%s", s)
	}
}

func TestTop(t *testing.T) {
	rows := Top(graph())
	if rows[0].Function != "schedule" || rows[0].Self != 40 {
		t.Errorf("first %+v", rows[0])
	}
	for _, r := range rows {
		if r.Function == "a<b>;c" && (r.Self != 20 || r.Total != 90) {
			t.Errorf("recursion is counted twice: %+v", r)
		}
	}
}

func TestUnknownFormat(t *testing.T) {
	if err := Encode(io.Discard, "gif", graph()); err == nil || !strings.Contains(err.Error(), "pprof, folded") {
		t.Error(err)
	}
}

func TestAmount(t *testing.T) {
	for _, c := range []struct {
		v    int64
		unit string
		want string
	}{
		{1_500_000_000, "nanoseconds", "1.50 s"}, {2_500, "nanoseconds", "2.5 µs"}, {3 << 20, "bytes", "3.0 MiB"},
		{12, "count", "12"}, {3_456_789, "count", "3.5 M"}, {12_345_678_901, "count", "12.35 G"},
	} {
		if got := Amount(c.v, c.unit); got != c.want {
			t.Errorf("%d %s: %q, want %q", c.v, c.unit, got, c.want)
		}
	}
}

// TestSamplesBeside: a file of several units tells how many samples there were, and
// what to show first; what reads it takes that for the certainty of all of them.
func TestSamplesBeside(t *testing.T) {
	g, other := graph(), counted()
	g.Samples, g.Squares = 0, 1
	for i := range g.Nodes {
		if g.Nodes[i].Self > 0 {
			g.Nodes[i].SelfCount = 2
			g.Samples += 2
		}
	}
	other.Unit = "bytes"
	var b bytes.Buffer
	if err := Encode(&b, "pprof", g, other); err != nil {
		t.Fatal(err)
	}
	f, err := ReadPprof(&b)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"samples", g.Type, other.Type}; !slices.Equal(f.Types(), want) || f.Default() != g.Type {
		t.Fatalf("types %v, first %s; want %v", f.Types(), f.Default(), want)
	}
	for _, typ := range []string{g.Type, other.Type} {
		got, err := f.Graph(typ)
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]int64{g.Type: int64(g.Samples), other.Type: 2 + 2 + 1}[typ] // one stack is the other's alone
		if int64(got.Samples) != want {
			t.Errorf("%s: %d samples, want %d", typ, got.Samples, want)
		}
	}
}
