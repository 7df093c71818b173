package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"huatuo/internal/kern/load"
	"huatuo/internal/probe"
)

// guest makes a record of one probe with hooks given as hook=by.
func guest(kernel string, order int, hooks ...string) record {
	r := record{Kernel: kernel, Order: order, Release: kernel + ".0", Arch: "amd64", Cgroup: "v2", CPUs: 1}
	r.Result.Verified = map[uint32]uint32{}
	p := probe.Status{Name: "p", State: probe.Running}
	for i, h := range hooks {
		name, by, _ := strings.Cut(h, "=")
		p.Hooks = append(p.Hooks, load.HookState{Hook: name, By: by, Program: name + "_x", ID: uint32(i + 1)})
		r.Result.Verified[uint32(i+1)] = 100
	}
	r.Result.Probes = []probe.Status{p}
	return r
}

func TestRoundTrip(t *testing.T) {
	d := tables([]record{guest("5.10", 0, "a=raw_tp", "b="), guest("6.1", 1, "a=tp_btf", "b=tp_btf", "c=kprobe"), guest("none", 2)})
	text := d.String()
	for _, want := range []string{"| probe | hook | 5.10 | 6.1 | none |", "| p | a | raw_tp | tp_btf |", "| p | b | – | tp_btf |", "| p | c |  | kprobe | – |", "| 6.1 | 6.1.0 | amd64 | v2 | 1 |", "| p | c_x |"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if diff := cmp.Diff(text, parse(text).String()); diff != "" {
		t.Errorf("read back (-written +read):\n%s", diff)
	}
}

// TestIdle: a probe that runs nowhere has a row as well.
func TestIdle(t *testing.T) {
	if text := tables([]record{guest("6.1", 0)}).String(); !strings.Contains(text, "| p | (any) | – |") {
		t.Error(text)
	}
}

func TestCompare(t *testing.T) {
	d := tables([]record{guest("5.10", 0, "a=raw_tp"), guest("6.1", 1, "a=tp_btf", "b=tp_btf"), guest("none", 2)})
	for _, c := range []struct {
		name string
		now  record
		want string // part of the one difference; empty: none
	}{
		{"the same, alone", guest("5.10", 0, "a=raw_tp"), ""},
		{"another hook", guest("6.1", 1, "a=raw_tp", "b=tp_btf"), `p/a on 6.1: by "raw_tp", the page says "tp_btf"`},
		{"a hook less", guest("6.1", 1, "a=tp_btf"), `p/b on 6.1: by "", the page says "tp_btf"`},
		{"no hook at all", guest("none", 2), ""},
		{"a hook more", guest("5.10", 0, "a=raw_tp", "b=tp_btf"), `p/b on 5.10: by "tp_btf", the page says ""`},
	} {
		got := d.compare(tables([]record{c.now}))
		if c.want == "" && len(got) != 0 || c.want != "" && (len(got) != 1 || got[0] != c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// TestMerge: a run of some kernels leaves the columns of the others, and takes
// away hooks that its kernels no longer have.
func TestMerge(t *testing.T) {
	was := tables([]record{guest("5.10", 0, "a=raw_tp", "gone=raw_tp"), guest("none", 2), guest("lab", 9, "a=raw_tp")})
	got := was.merge(tables([]record{guest("5.10", 0, "a=tp_btf"), guest("6.1", 1, "a=tp_btf"), guest("none", 2)})).String()
	want := tables([]record{guest("5.10", 0, "a=tp_btf"), guest("6.1", 1, "a=tp_btf"), guest("none", 2), guest("lab", 9, "a=raw_tp")}).String()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
