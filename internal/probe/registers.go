package probe

import "fmt"

// x86 are the general registers in the order of struct ht_regs.
var x86 = [...]string{"rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"}

// Registers names what struct ht_regs of bpf/include/crash.h holds; kind is its
// member of that name. pc and sp have these names on every architecture. Nil
// when it holds none.
func Registers(kind uint32, pc, sp, flags uint64, general []uint64) map[string]string {
	m := map[string]string{"pc": hex(pc), "sp": hex(sp), "flags": hex(flags)}
	switch kind {
	case 1:
		for i, name := range x86 {
			m[name] = hex(general[i])
		}
	case 2:
		for i, v := range general {
			m[fmt.Sprintf("x%d", i)] = hex(v)
		}
	default:
		return nil
	}
	return m
}

func hex(v uint64) string { return fmt.Sprintf("%#016x", v) }
