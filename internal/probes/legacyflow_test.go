package probes

import (
	"fmt"
	"slices"
	"strings"

	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
)

// checkFlow finds what check_cfg() of Linux 4.18 refuses in a program and the
// functions that it is linked with: loops, recursion, and instructions that
// nothing leads to.
func checkFlow(insns asm.Instructions) (bad []string) {
	g := newFlow(insns)
	if g.broken != "" {
		return []string{g.broken}
	}
	state := make([]int, len(insns)) // 0: not seen, 1: on the way, 2: done
	var visit func(i int)
	visit = func(i int) {
		state[i] = 1
		for _, to := range g.next[i] {
			switch state[to] {
			case 0:
				visit(to)
			case 1:
				bad = append(bad, fmt.Sprintf("instruction %d goes back to %d: a loop or a recursion (Linux 5.3)", i, to))
			}
		}
		state[i] = 2
	}
	visit(0)
	if i := slices.Index(state, 0); i >= 0 {
		bad = append(bad, fmt.Sprintf("instruction %d is never reached", i))
	}
	return bad
}

// flow has, for each instruction, those that may follow it; a call is followed
// by the function and by what comes after it.
type flow struct {
	next   [][]int
	broken string
}

func newFlow(insns asm.Instructions) *flow {
	g := &flow{next: make([][]int, len(insns))}
	symbols, at := map[string]int{}, map[int]int{} // instruction by name, and by slot
	slot := make([]int, len(insns))
	n := 0
	for i := range insns {
		if s := insns[i].Symbol(); s != "" {
			symbols[s] = i
		}
		slot[i], at[n] = n, i
		n += int(insns[i].Width())
	}
	target := func(i, offset int) int {
		to, ok := symbols[insns[i].Reference()]
		if !ok {
			to, ok = at[slot[i]+1+offset]
		}
		if !ok {
			g.broken = fmt.Sprintf("instruction %d goes nowhere", i)
		}
		return to
	}
	for i := range insns {
		ins := &insns[i]
		op := ins.OpCode.JumpOp()
		if op == asm.Exit {
			continue
		}
		if ins.IsFunctionCall() {
			g.next[i] = append(g.next[i], target(i, int(ins.Constant)))
		} else if ins.OpCode.Class().IsJump() && op != asm.Call {
			g.next[i] = append(g.next[i], target(i, int(ins.Offset)))
		}
		if op == asm.Ja {
			continue
		}
		if i+1 == len(insns) {
			g.broken = "the last instruction falls through"
			break
		}
		g.next[i] = append(g.next[i], i+1)
	}
	return g
}

// checkGuards looks at each "does this kernel have it" of CO-RE, a constant: it
// must be compared by == or != before anything else happens to it. Linux 4.18
// follows a branch one way only then, and the other way reads what is not there.
func checkGuards(insns asm.Instructions) (bad []string) {
	for i := range insns {
		r := btf.CORERelocationMetadata(&insns[i])
		if r == nil || !strings.Contains(r.String(), "_exists") {
			continue
		}
		if !compared(insns[i+1:], insns[i].Dst) {
			bad = append(bad, fmt.Sprintf("instruction %d: %v is not compared at once", i, r))
		}
	}
	return bad
}

// compared tells whether the first thing that happens to a register is a
// comparison with a constant.
func compared(insns asm.Instructions, reg asm.Register) bool {
	for i := range insns {
		ins := &insns[i]
		op := ins.OpCode
		if op.Class().IsJump() {
			return ins.Dst == reg && op.Source() == asm.ImmSource && (op.JumpOp() == asm.JEq || op.JumpOp() == asm.JNE)
		}
		if ins.Dst == reg || ins.Src == reg && !(op.Class().IsALU() && op.Source() == asm.ImmSource) {
			return false
		}
	}
	return false
}
