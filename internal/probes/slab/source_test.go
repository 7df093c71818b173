package slab

import (
	"bytes"
	"strings"
	"testing"

	"github.com/cilium/ebpf/btf"
)

// typesOf makes the types of a kernel.
func typesOf(t *testing.T, structs ...*btf.Struct) *btf.Spec {
	t.Helper()
	var all []btf.Type
	for _, s := range structs {
		all = append(all, s)
	}
	b, err := btf.NewBuilder(all, nil)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := b.Marshal(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	spec, err := btf.LoadSpecFromReader(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	return spec
}

// TestNodesOf: where the nodes are in each form that kernels have had.
func TestNodesOf(t *testing.T) {
	pointer := &btf.Pointer{Target: &btf.Void{}}
	long := &btf.Int{Name: "long", Size: 8}
	iter := &btf.Struct{Name: "bpf_iter__kmem_cache", Size: 16}
	node := &btf.Struct{Name: "kmem_cache_node", Size: 16, Members: []btf.Member{{Name: "nr_slabs", Type: long, Offset: 64}}}
	silent := &btf.Struct{Name: "kmem_cache_node", Size: 16, Members: []btf.Member{{Name: "nr_partial", Type: long, Offset: 64}}}
	ptrs := &btf.Struct{Name: "kmem_cache_per_node_ptrs", Size: 16, Members: []btf.Member{{Name: "barn", Type: pointer}, {Name: "node", Type: pointer, Offset: 64}}}
	cache := func(member string, of btf.Type) *btf.Struct {
		a := &btf.Array{Index: long, Type: of, Nelems: 4}
		return &btf.Struct{Name: "kmem_cache", Size: 264, Members: []btf.Member{{Name: "size", Type: long}, {Name: member, Type: a, Offset: 200 * 8}}}
	}
	for _, tt := range []struct {
		name     string
		types    *btf.Spec
		at, step uint32
		err      string
	}{
		{"6.13", typesOf(t, iter, node, cache("node", pointer)), 200, 8, ""},
		{"7.1", typesOf(t, iter, node, ptrs, cache("per_node", ptrs)), 208, 16, ""},
		{"no types", nil, 0, 0, "no BTF"},
		{"6.12", typesOf(t, node, cache("node", pointer)), 0, 0, "bpf_iter__kmem_cache"},
		{"no counts", typesOf(t, iter, silent, cache("node", pointer)), 0, 0, "does not count"},
		{"another form", typesOf(t, iter, node, cache("nodes", pointer)), 0, 0, "unknown place"},
		{"half of another form", typesOf(t, iter, node, cache("per_node", pointer)), 0, 0, "unknown place"},
	} {
		at, step, err := nodesOf(tt.types)
		if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.err)
		}
		if at != tt.at || step != tt.step {
			t.Errorf("%s: at %d, %d apart; want %d, %d", tt.name, at, step, tt.at, tt.step)
		}
	}
}
