package probes

import (
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
)

// TestLegacyRules breaks one rule at a time and wants to be told.
func TestLegacyRules(t *testing.T) {
	ret := asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()}
	long := make(asm.Instructions, 4094, 4096)
	for i := range long {
		long[i] = asm.Mov.Imm(asm.R0, 0)
	}
	rodata := asm.LoadMapValue(asm.R1, 0, 0).WithReference(".rodata")
	for _, tt := range []struct {
		name, want string
		insns      asm.Instructions
		kind       ebpf.ProgramType
		maps       map[string]*ebpf.MapSpec
	}{
		{name: "smallest", insns: ret},
		{name: "longest", insns: append(slices.Clone(long), ret...)},
		{name: "too long", want: "4097 instructions", insns: append(append(slices.Clone(long), asm.Mov.Imm(asm.R0, 0)), ret...)},
		{name: "64-bit loads count twice", want: "4097 instructions", insns: append(append(slices.Clone(long[1:]), asm.LoadImm(asm.R0, 1<<40, asm.DWord)), ret...)},
		{name: "kind", want: "is a program of type", kind: ebpf.Tracing, insns: ret},
		{name: "a call of a function", insns: asm.Instructions{asm.Call.Label("f"), asm.Return(), ret[0].WithSymbol("f"), asm.Return()}},
		{name: "loop", want: "a loop", insns: asm.Instructions{asm.Mov.Imm(asm.R0, 3), asm.Sub.Imm(asm.R0, 1).WithSymbol("x"), asm.JNE.Imm(asm.R0, 0, "x"), asm.Return()}},
		{name: "loop by offset", want: "a loop", insns: asm.Instructions{asm.Mov.Imm(asm.R0, 3), asm.Sub.Imm(asm.R0, 1),
			{OpCode: asm.JNE.Imm(asm.R0, 0, "").OpCode, Dst: asm.R0, Offset: -2}, asm.Return()}},
		{name: "recursion", want: "a recursion", insns: asm.Instructions{asm.Call.Label("f"), asm.Return(), asm.Call.Label("f").WithSymbol("f"), asm.Return()}},
		{name: "backward without a loop", insns: asm.Instructions{asm.Ja.Label("b"), ret[0].WithSymbol("a"), asm.Return(), asm.Ja.Label("a").WithSymbol("b")}},
		{name: "dead code", want: "never reached", insns: append(slices.Clone(ret), ret...)},
		{name: "no end", want: "falls through", insns: asm.Instructions{asm.Mov.Imm(asm.R0, 0)}},
		{name: "old helper", insns: append(asm.Instructions{asm.FnGetStack.Call()}, ret...)},
		{name: "rewritten helper", insns: append(asm.Instructions{asm.FnProbeReadKernel.Call()}, ret...)},
		{name: "new helper", want: "calls FnRingbufReserve", insns: append(asm.Instructions{asm.FnRingbufReserve.Call()}, ret...)},
		{name: "helper of others", want: "calls FnSkbStoreBytes", insns: append(asm.Instructions{asm.FnSkbStoreBytes.Call()}, ret...)},
		{name: "kfunc", want: "function of the kernel", insns: append(asm.Instructions{{OpCode: asm.Call.Label("").OpCode, Src: asm.PseudoKfuncCall}}, ret...)},
		{name: "global data", want: "global data", insns: append(asm.Instructions{rodata}, ret...), maps: map[string]*ebpf.MapSpec{".rodata": {Name: ".rodata", Type: ebpf.Array}}},
		{name: "unknown constant", want: "constant nope", insns: append(asm.Instructions{asm.LoadImm(asm.R1, 0, asm.DWord).WithReference("ht_const_nope")}, ret...)},
		{name: "constants", insns: ret, maps: map[string]*ebpf.MapSpec{".rodata.legacy": {Name: ".rodata.legacy", Type: ebpf.Array}}},
		{name: "32-bit jump", want: "32-bit jump", insns: asm.Instructions{ret[0], asm.JEq.Imm32(asm.R0, 0, "x"), asm.Return().WithSymbol("x")}},
		{name: "addition", insns: append(asm.Instructions{asm.StoreXAdd(asm.R1, asm.R2, asm.DWord)}, ret...)},
		{name: "atomic", want: "atomic operation", insns: append(asm.Instructions{asm.FetchAdd.Mem(asm.R1, asm.R2, asm.DWord, 0)}, ret...)},
		{name: "signed load", want: "sign-extending", insns: append(asm.Instructions{asm.LoadMemSX(asm.R1, asm.R2, 0, asm.Word)}, ret...)},
		{name: "byte swap", insns: append(asm.Instructions{asm.HostTo(asm.BE, asm.R1, asm.Half)}, ret...)},
		{name: "new byte swap", want: "v4", insns: append(asm.Instructions{asm.BSwap(asm.R1, asm.Half)}, ret...)},
		{name: "new map", want: "type RingBuf", insns: ret, maps: map[string]*ebpf.MapSpec{"m": {Name: "m", Type: ebpf.RingBuf}}},
		{name: "new flag", want: "flags 0x400", insns: ret, maps: map[string]*ebpf.MapSpec{"m": {Name: "m", Type: ebpf.Array, Flags: 1 << 10}}},
		{name: "large value", want: "per CPU", insns: ret, maps: map[string]*ebpf.MapSpec{"m": {Name: "m", Type: ebpf.PerCPUArray, ValueSize: 32<<10 + 1}}},
	} {
		kind := tt.kind
		if kind == ebpf.UnspecifiedProgram {
			kind = ebpf.RawTracepoint
		}
		bad := checkLegacy(&ebpf.CollectionSpec{Maps: tt.maps, Programs: map[string]*ebpf.ProgramSpec{"p": {Name: "p", Type: kind, Instructions: tt.insns}}})
		if tt.want == "" && len(bad) == 0 {
			continue
		}
		if tt.want == "" || !slices.ContainsFunc(bad, func(b string) bool { return strings.Contains(b, tt.want) }) {
			t.Errorf("%s: want %q, got %q", tt.name, tt.want, bad)
		}
	}
}

// TestTwinRules does the same for what the two flavours must have in common.
func TestTwinRules(t *testing.T) {
	object := func(program, member string, value uint32) *ebpf.CollectionSpec {
		u64 := &btf.Int{Name: "u64", Size: 8}
		b, err := btf.NewBuilder([]btf.Type{&btf.Struct{Name: "x_wire", Size: 8, Members: []btf.Member{{Name: member, Type: u64}}}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		types, err := b.Spec()
		if err != nil {
			t.Fatal(err)
		}
		return &ebpf.CollectionSpec{
			Programs: map[string]*ebpf.ProgramSpec{program: {}},
			Maps:     map[string]*ebpf.MapSpec{"m": {Type: ebpf.Array, ValueSize: value}},
			Types:    types,
		}
	}
	modern := object("a_btf", "ts", 8)
	for _, tt := range []struct {
		want   string
		legacy *ebpf.CollectionSpec
	}{
		{"", object("a_raw", "ts", 8)},
		{"no twin", object("b_raw", "ts", 8)},
		{"struct x_wire", object("a_raw", "when", 8)},
		{"map m", object("a_raw", "ts", 16)},
	} {
		bad := checkTwins(modern, tt.legacy)
		if (tt.want == "") != (len(bad) == 0) || len(bad) > 0 && !strings.Contains(bad[0], tt.want) {
			t.Errorf("want %q, got %q", tt.want, bad)
		}
	}
}

// TestGuardRule spoils a real guard: relocations cannot be made by hand.
func TestGuardRule(t *testing.T) {
	insns := objects(t, "bpflegacy_bpfel.o")["runqueue"].Programs["sched_switch_raw"].Instructions
	i := slices.IndexFunc(insns, func(ins asm.Instruction) bool {
		r := btf.CORERelocationMetadata(&ins)
		return r != nil && strings.Contains(r.String(), "field_exists")
	})
	if i < 0 {
		t.Fatal("the program asks for no member")
	}
	if bad := checkGuards(insns); len(bad) > 0 {
		t.Errorf("%q", bad)
	}
	guard := insns[i].Dst
	for _, spoil := range []asm.Instruction{
		asm.StoreMem(asm.RFP, -8, guard, asm.DWord), asm.Mov.Reg(asm.R9, guard), asm.And.Imm(guard, 1), asm.JGT.Imm(guard, 0, "x"), asm.JEq.Reg(guard, asm.R9, "x"),
	} {
		if bad := checkGuards(slices.Insert(slices.Clone(insns), i+1, spoil)); len(bad) != 1 || !strings.Contains(bad[0], "not compared at once") {
			t.Errorf("with %v: %q", spoil, bad)
		}
	}
}
