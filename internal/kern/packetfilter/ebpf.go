package packetfilter

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
)

// What bpf/include/filter.h and this file agree on.
const (
	// FrameBytes is how much of a frame a filter sees: the link header and 240
	// bytes, which is the longest IPv4 header, the longest TCP header, and 120 of
	// what TCP carries.
	FrameBytes = linkBytes + 240

	function    = "ht_filter_run" // its body is replaced
	state       = "ht_filter"     // the map with the frame
	stateBytes  = 10 + FrameBytes
	switchOn    = "ht_filter_on"
	switchLink  = "ht_filter_link"  // the filter looks at the addresses of the link
	wantedBytes = "ht_filter_bytes" // as many behind the link header are copied
)

// Insert makes the filter part of all programs of an object that ask one. It
// changes spec.
func (p *Program) Insert(spec *ebpf.CollectionSpec) error {
	m := spec.Maps[state]
	if m == nil || m.ValueSize != stateBytes {
		return errors.New("BUG: the object takes no packet filter, or one of another size")
	}
	link, bytes := p.reads()
	for name, v := range map[string]any{switchOn: true, switchLink: link, wantedBytes: bytes} {
		c := spec.Variables[name]
		if c == nil {
			return fmt.Errorf("BUG: no constant %s in the object", name)
		}
		if err := c.Set(v); err != nil {
			return fmt.Errorf("set constant %s: %w", name, err)
		}
	}
	n := 0
	for name, prog := range spec.Programs {
		replaced, err := replace(prog.Instructions, p.instructions())
		if err != nil {
			return fmt.Errorf("program %s: %w", name, err)
		}
		if replaced != nil {
			prog.Instructions = replaced
			n++
		}
	}
	if n == 0 {
		return errors.New("BUG: no program of the object asks the packet filter")
	}
	return nil
}

// replace puts body where the function is, and returns nil where there is none.
func replace(insns, body asm.Instructions) (asm.Instructions, error) {
	start, end := -1, len(insns)
	for i := range insns {
		switch {
		case insns[i].Symbol() == function:
			start = i
		case start >= 0 && i > start && btf.FuncMetadata(&insns[i]) != nil:
			end = min(end, i)
		}
	}
	if start < 0 {
		return nil, nil
	}
	if btf.FuncMetadata(&insns[start]) == nil {
		return nil, errors.New("BUG: " + function + " has no type information")
	}
	// The name, the type and the line of the function stay: the kernel wants them.
	body[0].Metadata = insns[start].Metadata
	out := append(asm.Instructions(nil), insns[:start]...)
	out = append(out, body...)
	return append(out, insns[end:]...), nil
}

// reads tells whether the filter looks at the addresses of the link, and how
// many bytes behind the link header it may want.
func (p *Program) reads() (link bool, bytes uint32) {
	const longestHeader = 60
	last := uint32(linkBytes)
	short := false // X is the length of a header
	for _, i := range p.code {
		switch i.op {
		case ldAbs:
			link = link || i.k < atType
			last = max(last, i.k+i.size)
		case ldxMsh:
			last = max(last, i.k+1)
			short = true
		case tax:
			short = false
		case ldInd:
			link = link || i.k < atType
			if !short {
				return link, FrameBytes - linkBytes
			}
			last = max(last, longestHeader+i.k+i.size)
		}
	}
	const version = 1 // which the program itself looks at
	return link, max(min(last, FrameBytes)-linkBytes, version)
}

// Registers of the function. R1 to R3 are its arguments: the frame, how many
// bytes of it there are, and how long it was on the wire.
const (
	rA      = asm.R0
	rFrame  = asm.R1
	rHave   = asm.R2
	rLength = asm.R3
	rX      = asm.R4
	rTmp    = asm.R5
)

// translator makes instructions of the kernel, all one slot wide.
type translator struct {
	out   asm.Instructions
	start []int         // where an instruction of classic BPF begins; the last is the end that rejects
	jumps []pendingJump // to be pointed
}

type pendingJump struct{ from, to int }

// instructions translates the program. All jumps go forward. The verifier sees
// for each load that it is within the frame, whatever the packet says.
func (p *Program) instructions() asm.Instructions {
	t := &translator{out: asm.Instructions{asm.Mov.Imm(rA, 0), asm.Mov.Imm(rX, 0)}}
	reject := len(p.code)
	for i, in := range p.code {
		t.start = append(t.start, len(t.out))
		t.one(in, i, reject)
	}
	t.start = append(t.start, len(t.out))
	if slices.ContainsFunc(t.jumps, func(j pendingJump) bool { return j.to == reject }) { // the kernel takes nothing that is never reached
		t.emit(asm.Mov.Imm(rA, 0), asm.Return())
	}
	for _, j := range t.jumps {
		t.out[j.from].Offset = int16(t.start[j.to] - j.from - 1)
	}
	return t.out
}

func (t *translator) emit(insns ...asm.Instruction) { t.out = append(t.out, insns...) }

// to emits a jump whose place is not known yet.
func (t *translator) to(target int, j asm.Instruction) {
	t.jumps = append(t.jumps, pendingJump{len(t.out), target})
	t.emit(j)
}

// imm and reg are jumps without a label.
func imm(o asm.JumpOp, dst asm.Register, v uint32) asm.Instruction {
	return asm.Instruction{OpCode: asm.OpCode(asm.JumpClass).SetJumpOp(o).SetSource(asm.ImmSource), Dst: dst, Constant: int64(int32(v))}
}

func reg(o asm.JumpOp, dst, src asm.Register) asm.Instruction {
	return asm.Instruction{OpCode: asm.OpCode(asm.JumpClass).SetJumpOp(o).SetSource(asm.RegSource), Dst: dst, Src: src}
}

func always() asm.Instruction {
	return asm.Instruction{OpCode: asm.OpCode(asm.JumpClass).SetJumpOp(asm.Ja)}
}

func (t *translator) one(in insn, i, reject int) {
	switch in.op {
	case ldAbs:
		t.within(in.k+in.size, reject)
		t.fetch(rA, rFrame, int16(in.k), in.size)
	case ldInd:
		t.indirect(in, reject)
	case ldLen:
		t.emit(asm.Mov.Reg32(rA, rLength))
	case ldImm:
		t.emit(asm.Mov.Imm32(rA, int32(in.k)))
	case ldMem:
		t.emit(asm.LoadMem(rA, asm.RFP, memory(in.k), asm.Word))
	case stMem:
		t.emit(asm.StoreMem(asm.RFP, memory(in.k), rA, asm.Word))
	case ldxMsh:
		t.within(in.k+1, reject)
		t.emit(asm.LoadMem(rX, rFrame, int16(in.k), asm.Byte), asm.And.Imm32(rX, 15), asm.LSh.Imm32(rX, 2))
	case tax:
		t.emit(asm.Mov.Reg32(rX, rA))
	case alu:
		t.emit(aluOps(in.what).Imm32(rA, int32(in.k)))
	case aluX:
		t.aluX(in.what, reject)
	case jump:
		if int32(in.k) < 0 { // a constant is extended with its sign
			t.emit(asm.Mov.Imm32(rTmp, int32(in.k)))
			t.branch(in, i, func(o asm.JumpOp) asm.Instruction { return reg(o, rA, rTmp) })
			return
		}
		t.branch(in, i, func(o asm.JumpOp) asm.Instruction { return imm(o, rA, in.k) })
	case jumpX:
		t.branch(in, i, func(o asm.JumpOp) asm.Instruction { return reg(o, rA, rX) })
	case ret:
		t.emit(asm.Mov.Imm(rA, int32(in.k)), asm.Return())
	}
}

// aluX does as classic BPF where the kernel does not: a division by zero leaves
// the packet out, and a shift by more than 31 bits leaves nothing.
func (t *translator) aluX(what string, reject int) {
	switch what {
	case "/", "%":
		t.to(reject, imm(asm.JEq, rX, 0))
	case "<<", ">>":
		far, done := imm(asm.JGT, rX, 31), always()
		far.Offset, done.Offset = 2, 1
		t.emit(far, aluOps(what).Reg32(rA, rX), done, asm.Mov.Imm32(rA, 0))
		return
	}
	t.emit(aluOps(what).Reg32(rA, rX))
}

func memory(slot uint32) int16 { return -4 * int16(slot+1) }

// within leaves packets out that have fewer bytes.
func (t *translator) within(end uint32, reject int) {
	t.to(reject, imm(asm.JLT, rHave, end))
}

// fetch loads bytes in the order of the network.
func (t *translator) fetch(dst, base asm.Register, off int16, size uint32) {
	switch size {
	case 1:
		t.emit(asm.LoadMem(dst, base, off, asm.Byte))
	case 2:
		t.emit(asm.LoadMem(dst, base, off, asm.Half), asm.HostTo(asm.BE, dst, asm.Half))
	default:
		t.emit(asm.LoadMem(dst, base, off, asm.Word), asm.HostTo(asm.BE, dst, asm.Word))
	}
}

// indirect loads at X + k: first a bound that the verifier knows, then the one
// of this packet.
func (t *translator) indirect(in insn, reject int) {
	t.emit(asm.Mov.Reg32(rTmp, rX), asm.Add.Imm(rTmp, int32(in.k)))
	t.to(reject, imm(asm.JGT, rTmp, FrameBytes-in.size))
	t.emit(asm.Add.Imm(rTmp, int32(in.size)))
	t.to(reject, reg(asm.JGT, rTmp, rHave))
	t.emit(asm.Add.Reg(rTmp, rFrame))
	t.fetch(rA, rTmp, -int16(in.size), in.size)
}

// branch goes to one of two places, one of which may be the next instruction.
func (t *translator) branch(in insn, i int, cond func(asm.JumpOp) asm.Instruction) {
	op, inverse := jumpOps(in.what)
	switch {
	case in.yes == in.no:
		t.to(in.yes, always())
	case in.no == i+1:
		t.to(in.yes, cond(op))
	case in.yes == i+1 && inverse != asm.InvalidJumpOp:
		t.to(in.no, cond(inverse))
	default:
		t.to(in.yes, cond(op))
		t.to(in.no, always())
	}
}

func jumpOps(what string) (op, inverse asm.JumpOp) {
	switch what {
	case "==":
		return asm.JEq, asm.JNE
	case ">":
		return asm.JGT, asm.JLE
	case ">=":
		return asm.JGE, asm.JLT
	case "&":
		return asm.JSet, asm.InvalidJumpOp
	}
	panic("BUG: no comparison " + what)
}

func aluOps(what string) asm.ALUOp {
	switch what {
	case "+":
		return asm.Add
	case "-":
		return asm.Sub
	case "*":
		return asm.Mul
	case "/":
		return asm.Div
	case "%":
		return asm.Mod
	case "&":
		return asm.And
	case "|":
		return asm.Or
	case "^":
		return asm.Xor
	case "<<":
		return asm.LSh
	case ">>":
		return asm.RSh
	}
	panic("BUG: no operation " + what)
}
