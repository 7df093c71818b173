package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/cilium/ebpf/btf"

	"huatuo/internal/signal"
)

// TestFresh: the ledgers describe the committed objects and today's schemas.
func TestFresh(t *testing.T) {
	t.Chdir("../..")
	for name, text := range map[string]func() (string, error){"wire.txt": wire, "metrics.golden": metrics} {
		want, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		got, err := text()
		if err != nil {
			t.Fatal(err)
		}
		if got != string(want) {
			t.Errorf("docs/ledger/%s is stale: run `make gen`\n%s", name, diff(string(want), got))
		}
	}
}

// diff lists the lines that only one of two texts has.
func diff(was, is string) string {
	a, b := strings.Split(was, "\n"), strings.Split(is, "\n")
	var out strings.Builder
	for _, l := range a {
		if !slices.Contains(b, l) {
			out.WriteString("- " + l + "\n")
		}
	}
	for _, l := range b {
		if !slices.Contains(a, l) {
			out.WriteString("+ " + l + "\n")
		}
	}
	return out.String()
}

func TestMetricLine(t *testing.T) {
	for _, c := range []struct {
		s    signal.Schema
		want string
	}{
		{signal.Schema{Name: "huatuo_x", Type: signal.Gauge}, "huatuo_x gauge\n"},
		{signal.Schema{Name: "huatuo_x_total", Type: signal.Counter, Fields: []signal.Field{{Name: "b"}, {Name: "a"}}}, "huatuo_x_total counter b,a\n"},
		{signal.Schema{Name: "huatuo_container_x", Type: signal.Histogram, Scope: signal.Workload, Fields: []signal.Field{{Name: "op"}}},
			"huatuo_container_x histogram op,namespace,pod,container,unit\n"},
	} {
		if got := metricLine(&c.s); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}

func TestMembers(t *testing.T) {
	u32 := &btf.Int{Name: "u32", Size: 4}
	inner := &btf.Struct{Name: "inner", Size: 8, Members: []btf.Member{{Name: "a", Type: u32}, {Name: "b", Type: u32, Offset: 32}}}
	alias := &btf.Typedef{Name: "inner_t", Type: inner}
	outer := &btf.Struct{Name: "x_wire", Size: 28, Members: []btf.Member{
		{Name: "first", Type: u32},
		{Name: "in", Type: alias, Offset: 32},
		{Name: "list", Type: &btf.Array{Type: inner, Index: u32, Nelems: 2}, Offset: 96},
	}}
	b, err := btf.NewBuilder([]btf.Type{outer, &btf.Struct{Name: "other", Size: 4}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := b.Marshal(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "btf")
	if err := os.WriteFile(path, raw, 0o644); err != nil {
		t.Fatal(err)
	}
	spec, err := btf.LoadSpec(path)
	if err != nil {
		t.Fatal(err)
	}
	found, err := wireStructs(spec)
	if err != nil || len(found) != 1 || found[0].Name != "x_wire" {
		t.Fatalf("wireStructs = %v, %v", found, err)
	}
	var out strings.Builder
	if err := members(&out, found[0], 0, ""); err != nil {
		t.Fatal(err)
	}
	want := "     0     4 first\n     4     4 in.a\n     8     4 in.b\n    12    16 list\n"
	if out.String() != want {
		t.Errorf("members:\n%swant\n%s", out.String(), want)
	}
}

func TestConsole(t *testing.T) {
	raw, packed, err := console(fstest.MapFS{"a.js": {Data: make([]byte, 150_000)}, "sub/b": {Data: []byte("x")}})
	if err != nil || raw != 151 || packed != 1 {
		t.Errorf("console = %d, %d, %v; want 151, 1", raw, packed, err)
	}
}
