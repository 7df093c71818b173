package load

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"
)

func TestFirstMissing(t *testing.T) {
	has := need{"this", func() error { return nil }}
	lacks := need{"that", func() error { return fmt.Errorf("load: %w", unix.EINVAL) }}
	forbidden := need{"those", func() error { return fmt.Errorf("load: %w", unix.EPERM) }}
	for _, tt := range []struct {
		needs []need
		want  string
	}{
		{nil, ""}, {[]need{has, has}, ""}, {[]need{has, lacks}, "this kernel lacks that"}, {[]need{forbidden, has}, ""},
	} {
		if got := firstMissing(tt.needs); got != tt.want {
			t.Errorf("firstMissing(%d needs) = %q, want %q", len(tt.needs), got, tt.want)
		}
	}
}

// TestKernelFlavour: this kernel and all that the tests run on take the modern
// flavour, and the legacy one when it is asked for, with the perf buffer.
func TestKernelFlavour(t *testing.T) {
	if name, reason := open(t, Options{}).Flavour(); name != Modern || reason != "" {
		t.Errorf("flavour %s: %s", name, reason)
	}
	if k := open(t, Options{Flavour: Modern, Ring: "perf"}); k.Ring() != "perf" {
		t.Errorf("ring %s", k.Ring())
	}
	k := open(t, Options{Flavour: Legacy})
	if name, reason := k.Flavour(); name != Legacy || reason == "" || k.Ring() != "perf" {
		t.Errorf("flavour %s: %s, ring %s", name, reason, k.Ring())
	}
	which := ""
	read := func(name string) func() (*ebpf.CollectionSpec, error) {
		return func() (*ebpf.CollectionSpec, error) { which = name; return object(), nil }
	}
	l, err := k.Load(read(Modern), read(Legacy))
	if err != nil || which != Legacy {
		t.Fatalf("Load reads the %s object: %v", which, err)
	}
	// A program that the legacy object has not is passed over.
	o, err := l.Attach(Hook{Name: "rename", Programs: []string{"p_gone", "p_raw"}}, Hook{Name: "other", Programs: []string{"p_gone"}, Optional: true})
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	if hs := o.Hooks(); hs[0].By != RawTP || hs[1].By != "" || !strings.Contains(hs[1].Reason, "legacy") {
		t.Errorf("hooks %+v", hs)
	}
	if _, err := k.Load(read(Modern), nil); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("an object without a legacy flavour: %v", err)
	}
}

// TestKernelNoBTF: without types a program that needs them is not tried, and
// the error says what to do; one that does not need them runs.
func TestKernelNoBTF(t *testing.T) {
	k := open(t, Options{})
	k.types, k.typesOf = nil, "none"
	l, err := k.New(object())
	if err != nil {
		t.Fatal(err)
	}
	p := l.Spec.Programs["p_raw"]
	p.Instructions[0] = btf.WithCORERelocationMetadata(p.Instructions[0], &btf.CORERelocation{})
	if _, err := l.Attach(Hook{Name: "rename", Programs: []string{"p_raw"}}); !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "no BTF: pass --btf") {
		t.Errorf("Attach = %v", err)
	}
	o, err := attachAll(t, k, Hook{Name: "rename", Programs: []string{"p_raw"}})
	if err != nil {
		t.Fatal(err)
	}
	o.Close()
}

func TestInlineConstants(t *testing.T) {
	use := func(name string) asm.Instruction {
		return asm.LoadImm(asm.R3, 0, asm.DWord).WithReference("ht_const_" + name)
	}
	spec := func(refs ...string) *ebpf.CollectionSpec {
		ins := asm.Instructions{asm.LoadMapPtr(asm.R1, 0).WithReference("m").WithSymbol("p")}
		for _, r := range refs {
			ins = append(ins, use(r))
		}
		return &ebpf.CollectionSpec{
			Maps: map[string]*ebpf.MapSpec{constSection: {Name: constSection}, ".rodata": {Name: ".rodata"}},
			Variables: map[string]*ebpf.VariableSpec{
				"yes":    {SectionName: constSection, Value: []byte{1}},
				"minus":  {SectionName: constSection, Value: []byte{0xff, 0xff, 0xff, 0xff}},
				"long":   {SectionName: constSection, Value: []byte{1, 2, 3, 4, 5, 6, 7, 0x88}},
				"odd":    {SectionName: constSection, Value: []byte{1, 2, 3}},
				"modern": {SectionName: ".rodata", Value: []byte{1}},
			},
			Programs: map[string]*ebpf.ProgramSpec{"p": {Name: "p", Instructions: append(ins, asm.Return())}},
		}
	}
	s := spec("yes", "minus", "long", "yes")
	if err := InlineConstants(s); err != nil {
		t.Fatal(err)
	}
	long := uint64(0x8807060504030201)
	for i, want := range []int64{1, 0xffffffff, int64(long), 1} {
		ins := s.Programs["p"].Instructions[1+i]
		if ins.Constant != want || ins.Reference() != "" || ins.Dst != asm.R3 || !ins.OpCode.IsDWordLoad() || ins.Src != 0 {
			t.Errorf("constant %d: %v, want %#x in r3", i, ins, want)
		}
	}
	if first := s.Programs["p"].Instructions[0]; first.Reference() != "m" || first.Symbol() != "p" {
		t.Errorf("another reference was touched: %v", first)
	}
	if s.Maps[constSection] != nil || s.Maps[".rodata"] == nil || s.Variables["yes"] != nil || s.Variables["modern"] == nil {
		t.Errorf("maps %v, variables %v", s.Maps, s.Variables)
	}
	for _, bad := range []string{"nope", "odd"} {
		if err := InlineConstants(spec(bad)); err == nil || !strings.Contains(err.Error(), "constant") || !strings.Contains(err.Error(), bad) && bad == "nope" {
			t.Errorf("%s: %v", bad, err)
		}
	}
}
