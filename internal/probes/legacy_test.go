package probes

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
)

// modernOnly are probes whose hooks are younger than the features that modern
// objects need, so that no kernel could use a legacy one.
var modernOnly = map[string]string{
	"limits": "the iterator of tasks came with Linux 5.8; /proc does without BPF",
	"locks":  "contention_begin and contention_end came with Linux 5.19",
	"slab":   "the iterator of caches came with Linux 6.13; /proc/slabinfo does without BPF",
}

// newHooks are programs without a raw_tp twin in the legacy object, and why no
// kernel could use one.
var newHooks = map[string]string{}

// TestLegacyObjects holds the legacy objects to what Linux 4.18 takes. It reads
// the files alone: no kernel is asked.
func TestLegacyObjects(t *testing.T) {
	legacy := objects(t, "bpflegacy_bpfel.o")
	for probe, modern := range objects(t, "bpf_bpfel.o") {
		spec := legacy[probe]
		if why := modernOnly[probe]; (why == "") != (spec != nil) {
			t.Errorf("%s: legacy object: %t, modernOnly: %q; one of the two is needed", probe, spec != nil, why)
		}
		if spec == nil {
			continue
		}
		for _, bad := range checkTwins(modern, spec) {
			t.Errorf("%s: %s", probe, bad)
		}
		for _, bad := range checkLegacy(spec) {
			t.Errorf("%s: %s", probe, bad)
		}
	}
}

// TestLegacySince: what a probe says of the kernels that it is for agrees with
// whether it has an object for old ones.
func TestLegacySince(t *testing.T) {
	legacy := objects(t, "bpflegacy_bpfel.o")
	for _, s := range All() {
		var major, minor int
		if _, err := fmt.Sscanf(s.Since, "%d.%d", &major, &minor); err != nil {
			t.Fatalf("%s: since %q: %v", s.Name, s.Since, err)
		}
		if old := major*100+minor < 505; legacy[s.Name] != nil && !old {
			t.Errorf("%s has a legacy object and is for Linux %s and newer, which take the modern one", s.Name, s.Since)
		}
	}
}

// checkTwins compares the two flavours of an object: each hook of the one is in
// the other, and what goes to user space has one layout, since the Go types are
// made from the modern one alone.
func checkTwins(modern, legacy *ebpf.CollectionSpec) (bad []string) {
	for _, name := range sorted(modern.Programs) {
		if base, ok := strings.CutSuffix(name, "_btf"); ok && legacy.Programs[base+"_raw"] == nil && newHooks[name] == "" {
			bad = append(bad, fmt.Sprintf("%s has no twin %s_raw in the legacy object", name, base))
		}
	}
	for _, name := range sorted(legacy.Variables) {
		if modern.Variables[name] == nil {
			bad = append(bad, "constant "+name+" is in the legacy object alone")
		}
	}
	for _, name := range sorted(modern.Maps) {
		m, l := modern.Maps[name], legacy.Maps[name]
		if l == nil || strings.HasPrefix(name, ".") || name == "ht_events" {
			continue
		}
		if m.Type != l.Type || m.KeySize != l.KeySize || m.ValueSize != l.ValueSize {
			bad = append(bad, fmt.Sprintf("map %s is %v/%d/%d, in the legacy object %v/%d/%d", name, m.Type, m.KeySize, m.ValueSize, l.Type, l.KeySize, l.ValueSize))
		}
	}
	for t, err := range legacy.Types.All() {
		if err != nil {
			return append(bad, err.Error())
		}
		s, ok := t.(*btf.Struct)
		if !ok || s.Name == "" {
			continue
		}
		var same *btf.Struct
		if err := modern.Types.TypeByName(s.Name, &same); err != nil {
			continue // a type of the kernel that the other does not touch
		}
		if got, want := layout(s), layout(same); got != want {
			bad = append(bad, fmt.Sprintf("struct %s is %s, in the legacy object %s", s.Name, want, got))
		}
	}
	return bad
}

func layout(s *btf.Struct) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d{", s.Size)
	for _, m := range s.Members {
		n, _ := btf.Sizeof(m.Type)
		fmt.Fprintf(&b, "%s@%d:%d ", m.Name, m.Offset, n)
	}
	return b.String() + "}"
}

// checkLegacy holds one object to the rules of Linux 4.18.
func checkLegacy(spec *ebpf.CollectionSpec) (bad []string) {
	for _, name := range sorted(spec.Maps) {
		for _, b := range checkMap(spec.Maps[name]) {
			bad = append(bad, "map "+name+": "+b)
		}
	}
	for _, name := range sorted(spec.Programs) {
		for _, b := range checkProgram(spec, spec.Programs[name]) {
			bad = append(bad, name+": "+b)
		}
	}
	return bad
}

// oldMaps are the types of maps that probes may use: those of Linux 4.18
// (include/uapi/linux/bpf.h) without those of networks.
var oldMaps = []ebpf.MapType{
	ebpf.Hash, ebpf.Array, ebpf.PerfEventArray, ebpf.PerCPUHash, ebpf.PerCPUArray, ebpf.StackTrace, ebpf.LRUHash, ebpf.LRUCPUHash,
	ebpf.LPMTrie, ebpf.ArrayOfMaps, ebpf.HashOfMaps,
}

// oldMapFlags are BPF_F_NO_PREALLOC and BPF_F_NO_COMMON_LRU.
const oldMapFlags = 1<<0 | 1<<1

// perCPUMax is PCPU_MIN_UNIT_SIZE: the largest value that there may be per CPU.
const perCPUMax = 32 << 10

func checkMap(m *ebpf.MapSpec) (bad []string) {
	if strings.HasPrefix(m.Name, ".") {
		if m.Name != ".rodata.legacy" { // no map: load.InlineConstants takes it out
			bad = append(bad, "is global data: use HT_CONST and HT_WIRE")
		}
		return bad
	}
	if !slices.Contains(oldMaps, m.Type) {
		bad = append(bad, fmt.Sprintf("is of type %v, which Linux 4.18 has not", m.Type))
	}
	if m.Flags&^oldMapFlags != 0 {
		bad = append(bad, fmt.Sprintf("has flags %#x, of which Linux 4.18 knows %#x: use HT_MMAPABLE", m.Flags, oldMapFlags))
	}
	perCPU := m.Type == ebpf.PerCPUArray || m.Type == ebpf.PerCPUHash || m.Type == ebpf.LRUCPUHash
	if perCPU && m.ValueSize > perCPUMax {
		bad = append(bad, fmt.Sprintf("has values of %d bytes per CPU, more than %d", m.ValueSize, perCPUMax))
	}
	return bad
}

// oldHelpers are those that Linux 4.18 gives to all programs that trace:
// tracing_func_proto() in kernel/trace/bpf_trace.c, and for raw_tp, tracepoint
// and kprobe what raw_tp_prog_func_proto() and its like add.
var oldHelpers = []asm.BuiltinFunc{
	asm.FnMapLookupElem, asm.FnMapUpdateElem, asm.FnMapDeleteElem, asm.FnProbeRead, asm.FnKtimeGetNs, asm.FnTailCall,
	asm.FnGetCurrentPidTgid, asm.FnGetCurrentTask, asm.FnGetCurrentUidGid, asm.FnGetCurrentComm, asm.FnTracePrintk,
	asm.FnGetSmpProcessorId, asm.FnGetNumaNodeId, asm.FnPerfEventRead, asm.FnProbeWriteUser, asm.FnCurrentTaskUnderCgroup,
	asm.FnGetPrandomU32, asm.FnProbeReadStr, asm.FnGetCurrentCgroupId,
	asm.FnPerfEventOutput, asm.FnGetStackid, asm.FnGetStack,
}

// rewritten are helpers that cilium/ebpf replaces by bpf_probe_read and
// bpf_probe_read_str on kernels that do not know them.
var rewritten = []asm.BuiltinFunc{asm.FnProbeReadKernel, asm.FnProbeReadUser, asm.FnProbeReadKernelStr, asm.FnProbeReadUserStr}

const (
	oldInstructions = 4096 // BPF_MAXINSNS; the limit grew with c04c0d2b968a, v5.2
	oldPending      = 1024 // BPF_COMPLEXITY_LIMIT_STACK: branches that wait to be walked
)

func checkProgram(spec *ebpf.CollectionSpec, p *ebpf.ProgramSpec) (bad []string) {
	if !slices.Contains([]ebpf.ProgramType{ebpf.RawTracepoint, ebpf.TracePoint, ebpf.Kprobe, ebpf.PerfEvent}, p.Type) {
		bad = append(bad, fmt.Sprintf("is a program of type %v, which Linux 4.18 has not", p.Type))
	}
	branches := 0
	for i := range p.Instructions {
		if b := checkInstruction(spec, &p.Instructions[i]); b != "" {
			bad = append(bad, fmt.Sprintf("instruction %d: %s", i, b))
		}
		if op := p.Instructions[i].OpCode; op.Class() == asm.JumpClass && op.JumpOp() != asm.Ja && op.JumpOp() != asm.Exit && op.JumpOp() != asm.Call {
			branches++
		}
	}
	bad = append(bad, checkGuards(p.Instructions)...)
	if n := slots(p.Instructions); n > oldInstructions {
		bad = append(bad, fmt.Sprintf("has %d instructions, more than %d", n, oldInstructions))
	}
	if branches > oldPending {
		bad = append(bad, fmt.Sprintf("has %d branches, more than %d", branches, oldPending))
	}
	return append(bad, checkFlow(p.Instructions)...)
}

// checkInstruction returns what Linux 4.18 would not take about an instruction.
func checkInstruction(spec *ebpf.CollectionSpec, ins *asm.Instruction) string {
	op := ins.OpCode
	switch {
	case op.Class() == asm.Jump32Class:
		return "is a 32-bit jump (v3, Linux 5.1)"
	case op.AtomicOp() != asm.InvalidAtomic && op.AtomicOp() != asm.AddAtomic:
		return "is an atomic operation other than addition (Linux 5.12)"
	case op.Class() == asm.LdXClass && op.Mode() == asm.MemSXMode:
		return "is a sign-extending load (v4, Linux 6.6)"
	case op.Class().IsALU() && (op > 0xff || op.Class() == asm.ALU64Class && op.ALUOp() == asm.Swap): // movsx, sdiv, smod, bswap
		return "is an instruction of v4 (Linux 6.6)"
	case op.IsDWordLoad():
		return checkLoad(spec, ins)
	case op.JumpOp() == asm.Call && op.Class().IsJump():
		return checkCall(ins)
	}
	return ""
}

func checkLoad(spec *ebpf.CollectionSpec, ins *asm.Instruction) string {
	name, constant := strings.CutPrefix(ins.Reference(), "ht_const_")
	switch {
	case constant && spec.Variables[name] == nil:
		return "wants a constant " + name + " that the object has not"
	case constant:
		return ""
	case ins.Src == 0 && ins.Reference() == "":
		return ""
	case ins.Src == asm.PseudoMapFD && spec.Maps[ins.Reference()] != nil:
		return ""
	default:
		return fmt.Sprintf("loads the address of %q: global data, or a function (Linux 5.2, 5.13): use HT_GET", ins.Reference())
	}
}

func checkCall(ins *asm.Instruction) string {
	switch {
	case ins.IsFunctionCall():
		return ""
	case !ins.IsBuiltinCall():
		return "calls a function of the kernel (Linux 5.13)"
	}
	if f := asm.BuiltinFunc(ins.Constant); !slices.Contains(oldHelpers, f) && !slices.Contains(rewritten, f) {
		return fmt.Sprintf("calls %v, which programs that trace have not in Linux 4.18", f)
	}
	return ""
}

// slots is how many instructions the kernel counts: a 64-bit load is two.
func slots(insns asm.Instructions) (n int) {
	for i := range insns {
		n += int(insns[i].Width())
	}
	return n
}
