package symbol

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"sort"
)

// Magic numbers of Go's function table, by the first release that wrote it.
// Tables before 1.18 have another layout; such programs have .symtab unless
// they were stripped.
const (
	magicGo118 = 0xfffffff0
	magicGo120 = 0xfffffff1
)

// goTable is the function table of a Go program (.gopclntab), which stripping
// leaves in place, kept as the linker wrote it. Nothing in it is trusted.
type goTable struct {
	order     binary.ByteOrder
	short     bool   // struct runtime._func has no startLine: Go 1.18 and 1.19
	quantum   uint64 // of code addresses
	text      uint64 // linked address that all others count from
	count     int    // functions
	functions []byte // pairs of address and offset in functions, then the end address; then what the offsets point to
	names     []byte
	// The rest is for lines. It is nil when the table is large: pcs alone are
	// a half of it.
	units []byte
	files []byte
	pcs   []byte
}

// goTable reads the function table, nil if there is none.
func (l *loader) goTable(limit int64) (*goTable, error) {
	s := l.f.Section(".gopclntab")
	if s == nil {
		s = l.f.Section(".data.rel.ro.gopclntab")
	}
	if s == nil || s.Type == elf.SHT_NOBITS {
		return nil, nil
	}
	word := uint64(8)
	if l.f.Class == elf.ELFCLASS32 {
		word = 4
	}
	h, err := l.bytes(s.Offset, min(s.FileSize, 8+8*word), chunk)
	if err != nil {
		return nil, fmt.Errorf("read Go function table: %w", err)
	}
	if uint64(len(h)) < 8+8*word || uint64(h[7]) != word || h[6] == 0 {
		return nil, errors.New("read Go function table: malformed header")
	}
	magic := l.f.ByteOrder.Uint32(h)
	if magic != magicGo118 && magic != magicGo120 {
		return nil, fmt.Errorf("read Go function table: unknown version %#x", magic)
	}
	at := func(i uint64) uint64 { return l.word(h[8+i*word:][:word]) }
	g := &goTable{order: l.f.ByteOrder, short: magic == magicGo118, quantum: uint64(h[6]), count: int(min(at(0), math.MaxInt32/8))}
	part := func(from, to uint64) []byte {
		var b []byte
		if err == nil && from <= to && to <= s.FileSize {
			b, err = l.bytes(s.Offset+from, to-from, limit-g.bytes())
		}
		return b
	}
	g.names = part(at(3), at(4))
	g.functions = part(at(7), s.FileSize)
	if err != nil || g.count == 0 || len(g.functions) < (2*g.count+1)*4 {
		return nil, fmt.Errorf("read Go function table: %w", errors.Join(err, errors.New("malformed")))
	}
	if int64(at(7)-at(4)) < limit/2-g.bytes() {
		g.units, g.files, g.pcs = part(at(4), at(5)), part(at(5), at(6)), part(at(6), at(7))
	}
	g.text, err = l.goText(s.Addr + 8 + 2*word)
	return g, err
}

// goText returns the address that the table counts from, runtime.text. The
// header has it up to Go 1.25; since then only runtime.firstmoduledata does,
// which has its own section now. It is the start of .text unless C code is
// linked in front.
func (l *loader) goText(field uint64) (uint64, error) {
	if s := l.f.Section(".go.module"); s != nil {
		const textField = 22 // in words: a pointer, six slices and three pointers are before it
		word := uint64(8)
		if l.f.Class == elf.ELFCLASS32 {
			word = 4
		}
		field = s.Addr + textField*word
	}
	if v, ok := l.pointer(field); ok && l.obj.isCode(v) {
		return v, nil
	}
	if s := l.f.Section(".text"); s != nil {
		return s.Addr, nil
	}
	return 0, errors.New("read Go function table: no text section")
}

func (g *goTable) bytes() int64 {
	return int64(len(g.functions) + len(g.names) + len(g.units) + len(g.files) + len(g.pcs))
}

// covers says whether an address is Go code. A nil table covers nothing.
func (g *goTable) covers(pc uint64) bool {
	return g != nil && pc >= g.entry(0) && pc < g.entry(g.count)
}

// entry returns where function i begins; entry(count) is the end of all.
func (g *goTable) entry(i int) uint64 {
	return g.text + uint64(g.u32(g.functions, uint64(i)*8))
}

// find returns the function at pc, with its file and line unless code of
// another function was inlined there: the line would be that one's.
func (g *goTable) find(pc uint64) (name, file string, line int, ok bool) {
	if !g.covers(pc) {
		return "", "", 0, false
	}
	i := sort.Search(g.count, func(i int) bool { return g.entry(i) > pc }) - 1
	if i < 0 {
		return "", "", 0, false
	}
	f := uint64(g.u32(g.functions, uint64(i)*8+4)) // struct runtime._func
	name = cstring(g.names, uint64(g.u32(g.functions, f+4)))
	if name == "" {
		return "", "", 0, false
	}
	entry := g.entry(i)
	if g.inlined(f, entry, pc) {
		return name, "", 0, true
	}
	fileNo := g.value(g.u32(g.functions, f+20), entry, pc)
	lineNo := g.value(g.u32(g.functions, f+24), entry, pc)
	if fileNo < 0 || lineNo <= 0 {
		return name, "", 0, true
	}
	unit := uint64(g.u32(g.functions, f+32)) + uint64(fileNo)
	file = cstring(g.files, uint64(g.u32(g.units, unit*4)))
	if file == "" {
		return name, "", 0, true
	}
	return name, file, int(lineNo), true
}

// inlined says whether the code at pc comes from an inlined call.
func (g *goTable) inlined(f, entry, pc uint64) bool {
	const inlineIndex = 2 // PCDATA_InlTreeIndex
	if g.u32(g.functions, f+28) <= inlineIndex {
		return false
	}
	// The numbers follow struct runtime._func, which ends with startLine since
	// Go 1.20 and is 4 bytes shorter in Go 1.18 and 1.19.
	off := g.u32(g.functions, f+g.header()+4*inlineIndex)
	return off != 0 && g.value(off, entry, pc) >= 0
}

func (g *goTable) header() uint64 {
	if g.short {
		return 40
	}
	return 44
}

// value returns what a table of values by address has for pc: pairs of varints,
// the change of the value and the length of code that has it; -1 if it has none.
func (g *goTable) value(off uint32, entry, pc uint64) int32 {
	if off == 0 || uint64(off) >= uint64(len(g.pcs)) {
		return -1
	}
	p, v, at := g.pcs[off:], int32(-1), entry
	for first := true; ; first = false {
		change, n := binary.Uvarint(p)
		if n <= 0 || (change == 0 && !first) {
			return -1
		}
		length, m := binary.Uvarint(p[n:])
		if m <= 0 {
			return -1
		}
		p = p[n+m:]
		v += int32(uint32(change)>>1) ^ -int32(uint32(change)&1)
		at += length * g.quantum
		if pc < at {
			return v
		}
	}
}

// u32 reads a number, 0 if it is outside.
func (g *goTable) u32(b []byte, off uint64) uint32 {
	if off > math.MaxInt32 || off+4 > uint64(len(b)) {
		return 0
	}
	return g.order.Uint32(b[off:])
}

// cstring returns the string at an offset, empty if it is outside.
func cstring(b []byte, off uint64) string {
	if off >= uint64(len(b)) {
		return ""
	}
	b = b[off:min(uint64(len(b)), off+maxName)]
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}
