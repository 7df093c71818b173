package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/cilium/ebpf/btf"
)

// TestWire: the ledger describes the committed objects.
func TestWire(t *testing.T) {
	t.Chdir("../..")
	want, err := os.ReadFile(filepath.Join(dir, "wire.txt"))
	if err != nil {
		t.Fatal(err)
	}
	got, err := wire()
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("docs/ledger/wire.txt is stale: run `make gen`\n%s", got)
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
