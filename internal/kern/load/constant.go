package load

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// What HT_CONST and HT_GET of bpf/include/flavour.h leave in a legacy object: a
// data section with name, type and default of each constant, which no program
// reads, and for each use a 64-bit load of the symbol ht_const_NAME.
const (
	constSection = ".rodata.legacy"
	constPrefix  = "ht_const_"
)

// InlineConstants writes the constants of a legacy object into the instructions
// of its programs, where HT_GET wants them, so that the verifier sees plain
// numbers, and takes them out of the spec. It changes the spec, and does nothing
// to a modern object. Loader.Attach calls it; a tool that loads an object by
// itself must.
func InlineConstants(spec *ebpf.CollectionSpec) error {
	for name, p := range spec.Programs {
		p.Instructions = append(asm.Instructions(nil), p.Instructions...)
		for i := range p.Instructions {
			if err := inline(&p.Instructions[i], spec.Variables); err != nil {
				return fmt.Errorf("program %s: %w", name, err)
			}
		}
	}
	for name, v := range spec.Variables {
		if v.SectionName == constSection {
			delete(spec.Variables, name)
		}
	}
	delete(spec.Maps, constSection)
	return nil
}

func inline(ins *asm.Instruction, constants map[string]*ebpf.VariableSpec) error {
	name, ok := strings.CutPrefix(ins.Reference(), constPrefix)
	if !ok || !ins.OpCode.IsDWordLoad() {
		return nil
	}
	v := constants[name]
	if v == nil {
		return fmt.Errorf("BUG: no constant %s in the object", name)
	}
	value, err := number(v.Value)
	if err != nil {
		return fmt.Errorf("constant %s: %w", name, err)
	}
	loaded := asm.LoadImm(ins.Dst, value, asm.DWord)
	loaded.Metadata = ins.Metadata
	*ins = loaded.WithReference("")
	return nil
}

// number reads an integer as the object holds it. Its sign is for HT_GET, which
// knows the type.
func number(b []byte) (int64, error) {
	switch len(b) {
	case 1:
		return int64(b[0]), nil
	case 2:
		return int64(binary.LittleEndian.Uint16(b)), nil
	case 4:
		return int64(binary.LittleEndian.Uint32(b)), nil
	case 8:
		return int64(binary.LittleEndian.Uint64(b)), nil
	default:
		return 0, fmt.Errorf("BUG: %d bytes are not an integer", len(b))
	}
}
