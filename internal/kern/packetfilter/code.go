package packetfilter

import (
	"fmt"
	"slices"
)

// op is an instruction of classic BPF: an accumulator A, an index register X,
// and words of scratch memory.
type op uint8

const (
	ldAbs  op = iota // A = size bytes of the packet at k
	ldInd            // A = size bytes at X + k
	ldLen            // A = length of the packet
	ldImm            // A = k
	ldMem            // A = M[k]
	stMem            // M[k] = A
	ldxMsh           // X = 4 * (byte at k & 15): length of an IPv4 header
	tax              // X = A
	alu              // A = A what k
	aluX             // A = A what X
	neg              // A = -A
	jump             // to yes when A what k, else to no
	jumpX            // to yes when A what X, else to no
	ret              // k: 1 takes the packet, 0 leaves it out
)

// insn is one instruction. yes and no are indexes of instructions behind it.
type insn struct {
	op      op
	what    string // of alu and jump
	size    uint32
	k       uint32
	yes, no int
}

// maxCode bounds a program. As instructions of the kernel it is three times as
// long, and the programs that it goes into have 1,000 of the 4,096 that Linux
// 4.18 takes.
const maxCode = 1000

// maxMem is BPF_MEMWORDS.
const maxMem = 16

// generator emits a tree. Jumps go to labels until link puts indexes there.
type generator struct {
	code   []insn
	labels []int // index of the instruction that a label stands before
	mem    uint32
	msg    string
}

// generate returns the program of a tree, or what is wrong with it.
func generate(n node) ([]insn, string) {
	g := &generator{}
	yes, no := g.label(), g.label()
	g.node(n, yes, no)
	g.place(yes)
	g.emit(insn{op: ret, k: 1})
	g.place(no)
	g.emit(insn{op: ret, k: 0})
	if g.msg != "" {
		return nil, g.msg
	}
	for i := range g.code {
		if o := g.code[i].op; o == jump || o == jumpX {
			g.code[i].yes, g.code[i].no = g.labels[g.code[i].yes], g.labels[g.code[i].no]
		}
	}
	code := trim(g.code)
	if len(code) > maxCode {
		return nil, fmt.Sprintf("too long: %d instructions, and %d is the most", len(code), maxCode)
	}
	return code, ""
}

func (g *generator) label() int {
	g.labels = append(g.labels, -1)
	return len(g.labels) - 1
}

func (g *generator) place(label int) { g.labels[label] = len(g.code) }

func (g *generator) emit(i insn) { g.code = append(g.code, i) }

// node emits a condition that goes to one label or the other, which come later.
func (g *generator) node(n node, yes, no int) {
	switch n := n.(type) {
	case and:
		next := g.label()
		g.node(n.a, next, no)
		g.place(next)
		g.node(n.b, yes, no)
	case or:
		next := g.label()
		g.node(n.a, yes, next)
		g.place(next)
		g.node(n.b, yes, no)
	case not:
		g.node(n.a, no, yes)
	case constant:
		g.emit(insn{op: ldImm, k: 1})
		if !n {
			yes, no = no, yes
		}
		g.emit(insn{op: jump, what: "==", k: 1, yes: yes, no: no})
	case portTest:
		g.node(n.lower(), yes, no)
	case compare:
		g.load(n.load)
		if n.mask != 0 && n.mask != 0xffffffff {
			g.emit(insn{op: alu, what: "&", k: n.mask})
		}
		g.emit(insn{op: jump, what: n.op, k: n.k, yes: yes, no: no})
	case relation:
		if k, ok := n.r.(number); ok {
			g.arith(n.l)
			g.emit(insn{op: jump, what: n.op, k: uint32(k), yes: yes, no: no})
			return
		}
		g.pair(n.l, n.r)
		g.emit(insn{op: jumpX, what: n.op, yes: yes, no: no})
	}
}

func (g *generator) load(l load) {
	if l.pastX {
		g.emit(insn{op: ldxMsh, k: inIPv4})
		g.emit(insn{op: ldInd, size: l.size, k: l.off})
		return
	}
	g.emit(insn{op: ldAbs, size: l.size, k: l.off})
}

// arith emits what leaves a number in A.
func (g *generator) arith(a arith) {
	switch a := a.(type) {
	case number:
		g.emit(insn{op: ldImm, k: uint32(a)})
	case length:
		g.emit(insn{op: ldLen})
	case operation:
		if k, ok := a.r.(number); ok {
			g.arith(a.l)
			g.emit(insn{op: alu, what: a.op, k: uint32(k)})
			return
		}
		g.pair(a.l, a.r)
		g.emit(insn{op: aluX, what: a.op})
	case field:
		g.field(a)
	}
}

func (g *generator) field(f field) {
	if n, ok := f.index.(number); ok {
		f.load.off += uint32(n)
		g.load(f.load)
		return
	}
	g.arith(f.index)
	if f.pastX {
		slot := g.store()
		g.emit(insn{op: ldxMsh, k: inIPv4})
		g.emit(insn{op: ldMem, k: slot})
		g.emit(insn{op: aluX, what: "+"})
		g.mem--
	}
	g.emit(insn{op: tax})
	g.emit(insn{op: ldInd, size: f.size, k: f.off})
}

// pair leaves l in A and r in X.
func (g *generator) pair(l, r arith) {
	g.arith(l)
	slot := g.store()
	g.arith(r)
	g.emit(insn{op: tax})
	g.emit(insn{op: ldMem, k: slot})
	g.mem--
}

// store keeps A in a word of memory of its own.
func (g *generator) store() uint32 {
	if g.mem == maxMem {
		g.msg = "too much arithmetic in one comparison"
		return 0
	}
	g.emit(insn{op: stMem, k: g.mem})
	g.mem++
	return g.mem - 1
}

// holds is what is known to be in the registers before an instruction.
type holds struct {
	seen bool
	a    insn // the load that A is from; its op is ret when none is known
	x    bool // X is the length of the IPv4 header
}

// meet is what is known when one comes from either place.
func (h holds) meet(o holds) holds {
	if !h.seen {
		return o
	}
	if h.a != o.a {
		h.a = insn{op: ret}
	}
	h.x = h.x && o.x
	return h
}

// after is what is known behind in, and whether in does nothing.
func (h holds) after(in insn) (holds, bool) {
	switch in.op {
	case ldxMsh:
		if h.x {
			return h, true
		}
		h.x = true
	case ldAbs, ldInd:
		if h.a == in {
			return h, true
		}
		h.a = in
		if in.op == ldInd && !h.x {
			h.a = insn{op: ret}
		}
	case tax:
		h.x = false
		if h.a.op == ldInd {
			h.a = insn{op: ret}
		}
	case jump, jumpX, stMem:
	default:
		h.a = insn{op: ret}
	}
	return h, false
}

// trim leaves out loads of what is there already, and what nothing leads to,
// which old verifiers refuse.
func trim(code []insn) []insn {
	before := make([]holds, len(code))
	before[0] = holds{seen: true, a: insn{op: ret}}
	index := make([]int, len(code)) // in out; of what is left out, that of the next
	var out []insn
	for i, in := range code {
		index[i] = len(out)
		if !before[i].seen {
			continue
		}
		h, idle := before[i].after(in)
		switch {
		case in.op == jump || in.op == jumpX:
			before[in.yes] = before[in.yes].meet(h)
			before[in.no] = before[in.no].meet(h)
		case in.op != ret:
			before[i+1] = before[i+1].meet(h)
		}
		if !idle {
			out = append(out, in)
		}
	}
	for i := range out {
		if o := out[i].op; o == jump || o == jumpX {
			out[i].yes, out[i].no = index[out[i].yes], index[out[i].no]
		}
	}
	return slices.Clip(out)
}
