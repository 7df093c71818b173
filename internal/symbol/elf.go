package symbol

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"sync/atomic"
)

const (
	// headerBudget bounds what may be read for the headers of an ELF file. The
	// largest real ones are some 100 KB; debug/elf allocates about four times
	// what it reads.
	headerBudget = 4 << 20
	// fileBudget bounds what may be read of one file in all, and so the time
	// that a file made for it can take, some 0.5 s. The symbols of a program
	// with 500,000 functions are 100 MB.
	fileBudget = 128 << 20
	// chunk is read at a time.
	chunk = 64 << 10
)

// object is what the addresses of one ELF file mean. It is immutable, but for
// again.
type object struct {
	segments []segment
	golang   *goTable // nil unless it is a Go program
	syms     *table   // nil when there is none
	why      reason   // what is wrong when an address has no name
	quality  quality  // of the best source
	buildID  string   // hex; "" if it has none
	lines    linesAt
	linked   bool // it names a file of debug symbols

	// again is when it is worth while to read the file once more, in
	// nanoseconds of Unix time; 0: never, there is nothing better.
	again atomic.Int64
}

// segment is a part of the file and the address it is linked for.
type segment struct {
	offset, size, vaddr uint64
	exec                bool
}

func (o *object) bytes() int64 {
	n := int64(256 + 40*len(o.segments) + len(o.buildID))
	if o.golang != nil {
		n += o.golang.bytes()
	}
	if o.syms != nil {
		n += o.syms.bytes()
	}
	return n
}

// vaddr returns the linked address of an offset in the file.
func (o *object) vaddr(offset uint64) (uint64, bool) {
	for _, exec := range [...]bool{true, false} { // segments share pages; code is in the executable one
		for _, s := range o.segments {
			if s.exec == exec && offset >= s.offset && offset-s.offset < s.size {
				return offset - s.offset + s.vaddr, true
			}
		}
	}
	return 0, false
}

// offset returns where in the file the code of a linked address is; the inverse
// of vaddr.
func (o *object) offset(vaddr uint64) (uint64, bool) {
	for _, s := range o.segments {
		if s.exec && vaddr >= s.vaddr && vaddr-s.vaddr < s.size {
			return vaddr - s.vaddr + s.offset, true
		}
	}
	return 0, false
}

// isCode says whether a linked address is in a segment of code.
func (o *object) isCode(vaddr uint64) bool {
	_, ok := o.offset(vaddr)
	return ok
}

// base returns the lowest linked address.
func (o *object) base() uint64 {
	low := uint64(math.MaxUint64)
	for _, s := range o.segments {
		low = min(low, s.vaddr)
	}
	return low
}

// find returns the function at a linked address, and its source line where a
// table of lines is there. The strings share memory with the object.
func (o *object) find(vaddr uint64) (name, file string, line int, ok bool) {
	if o.golang != nil {
		if name, file, line, ok = o.golang.find(vaddr); ok {
			return name, file, line, true
		}
	}
	name, ok = o.syms.find(vaddr)
	return name, "", 0, ok
}

// loader reads the symbols of one file.
type loader struct {
	r      *budgetReader
	f      *elf.File
	build  *tableBuilder
	obj    *object
	search search // nil: debug symbols are not looked for elsewhere
}

// loadObject reads the symbols of an ELF file, at most limit bytes of them. It
// never fails: what cannot be read is an object that says why.
func loadObject(r io.ReaderAt, limit int64, find search) (obj *object) {
	// debug/elf does not promise to withstand a hostile file.
	defer func() {
		if recover() != nil {
			obj = &object{why: badELF}
		}
	}()
	var magic [4]byte
	if _, err := r.ReadAt(magic[:], 0); err != nil || string(magic[:]) != elf.ELFMAG {
		return &object{why: notELF}
	}
	l := &loader{r: &budgetReader{r: r, left: headerBudget}, build: &tableBuilder{limit: limit}, obj: &object{}, search: find}
	f, err := elf.NewFile(l.r)
	if err != nil {
		return &object{why: reasonOf(err, badELF)}
	}
	l.f = f
	l.r.left = fileBudget
	for _, p := range f.Progs {
		if p.Type == elf.PT_LOAD && len(l.obj.segments) < 64 {
			l.obj.segments = append(l.obj.segments, segment{p.Off, p.Filesz, p.Vaddr, p.Flags&elf.PF_X != 0})
		}
	}
	l.obj.buildID, l.obj.linked = l.buildID(), f.Section(".gnu_debuglink") != nil
	if hasLines(f) {
		l.obj.lines = inside
	}
	l.names(limit)
	return l.obj
}

func reasonOf(err error, otherwise reason) reason {
	if errors.Is(err, errTooLarge) {
		return tooLarge
	}
	return otherwise
}

// section returns the first section of a type.
func (l *loader) section(t elf.SectionType) *elf.Section {
	for _, s := range l.f.Sections {
		if s.Type == t && s.Flags&elf.SHF_COMPRESSED == 0 {
			return s
		}
	}
	return nil
}

// symbols adds the functions of a symbol table, and reports whether there were any.
func (l *loader) symbols(t elf.SectionType) (bool, error) {
	s := l.section(t)
	if s == nil {
		return false, nil
	}
	if int(s.Link) >= len(l.f.Sections) {
		return false, fmt.Errorf("read %s: no string table", s.Name)
	}
	raws, err := l.functions(s)
	if err != nil {
		return false, fmt.Errorf("read %s: %w", s.Name, err)
	}
	str := l.f.Sections[s.Link]
	names := stringReader{r: l.r, off: str.Offset, size: str.FileSize}
	before := len(l.build.raws)
	if err := l.build.add(raws, names.get); err != nil {
		return false, fmt.Errorf("read names of %s: %w", s.Name, err)
	}
	return len(l.build.raws) > before, nil
}

// functions reads the entries of a symbol table that name code.
func (l *loader) functions(s *elf.Section) ([]raw, error) {
	entry, parse := 24, parseSym64
	if l.f.Class == elf.ELFCLASS32 {
		entry, parse = 16, parseSym32
	}
	raws := make([]raw, 0, min(s.FileSize/uint64(entry), 128<<10)) // 3 MB at most before a symbol was seen
	buf := make([]byte, chunk/entry*entry)
	for at := uint64(0); at+uint64(entry) <= s.FileSize; at += uint64(len(buf)) {
		n := min(uint64(len(buf)), (s.FileSize-at)/uint64(entry)*uint64(entry))
		if at+s.Offset > math.MaxInt64-n {
			return nil, io.ErrUnexpectedEOF
		}
		if _, err := l.r.ReadAt(buf[:n], int64(s.Offset+at)); err != nil {
			return nil, err
		}
		for b := buf[:n]; len(b) >= entry; b = b[entry:] {
			e := parse(b, l.f.ByteOrder)
			rank, ok := l.rank(e)
			if !ok {
				continue
			}
			if l.build.bytes(len(raws)) > l.build.limit {
				return nil, errTooLarge
			}
			size := e.size
			if size == 0 {
				size = l.reach(e)
			}
			raws = append(raws, raw{e.value, uint32(min(size, math.MaxUint32)), e.name, rank, e.size == 0})
		}
	}
	return raws, nil
}

type elfSym struct {
	value, size uint64
	name        uint32
	info        byte
	section     uint16
}

func parseSym64(b []byte, o binary.ByteOrder) elfSym {
	return elfSym{name: o.Uint32(b), info: b[4], section: o.Uint16(b[6:]), value: o.Uint64(b[8:]), size: o.Uint64(b[16:])}
}

func parseSym32(b []byte, o binary.ByteOrder) elfSym {
	return elfSym{name: o.Uint32(b), value: uint64(o.Uint32(b[4:])), size: uint64(o.Uint32(b[8:])), info: b[12], section: o.Uint16(b[14:])}
}

// rank says whether a symbol names code that Go's table does not name, and how
// it ranks among others of the same address.
func (l *loader) rank(e elfSym) (uint8, bool) {
	if e.section == uint16(elf.SHN_UNDEF) || e.value == 0 || e.name == 0 || l.obj.golang.covers(e.value) {
		return 0, false
	}
	rank := uint8(rankLocal)
	switch elf.ST_BIND(e.info) {
	case elf.STB_GLOBAL:
		rank = rankGlobal
	case elf.STB_WEAK:
		rank = rankWeak
	}
	switch elf.ST_TYPE(e.info) {
	case elf.STT_FUNC, elf.STT_GNU_IFUNC:
		return rank | rankFunction, true
	case elf.STT_NOTYPE: // assembly; local ones are labels
		s := l.sectionOf(e)
		return rank, rank != rankLocal && s != nil && s.Flags&elf.SHF_EXECINSTR != 0
	}
	return 0, false
}

func (l *loader) sectionOf(e elfSym) *elf.Section {
	if int(e.section) >= len(l.f.Sections) {
		return nil
	}
	return l.f.Sections[e.section]
}

// reach returns how far a symbol without a size may reach.
func (l *loader) reach(e elfSym) uint64 {
	s := l.sectionOf(e)
	if s == nil {
		return maxUnsized
	}
	if e.value < s.Addr || e.value-s.Addr >= s.Size {
		return 0 // a mark at the end
	}
	return min(maxUnsized, s.Size-(e.value-s.Addr))
}

// pointer reads the pointer at a linked address, also one that only a
// relocation fills in.
func (l *loader) pointer(vaddr uint64) (uint64, bool) {
	size := 8
	if l.f.Class == elf.ELFCLASS32 {
		size = 4
	}
	var b [8]byte
	for _, p := range l.f.Progs {
		if p.Type != elf.PT_LOAD || vaddr < p.Vaddr || vaddr-p.Vaddr >= p.Filesz {
			continue
		}
		if _, err := l.r.ReadAt(b[:size], int64(p.Off+vaddr-p.Vaddr)); err != nil {
			return 0, false
		}
		if v := l.word(b[:size]); v != 0 {
			return v, true
		}
	}
	return l.relocated(vaddr)
}

func (l *loader) word(b []byte) uint64 {
	if len(b) == 4 {
		return uint64(l.f.ByteOrder.Uint32(b))
	}
	return l.f.ByteOrder.Uint64(b)
}

// relocated returns the addend of the relocation of vaddr, which for a
// relative one is the linked address that it points to.
func (l *loader) relocated(vaddr uint64) (uint64, bool) {
	if l.f.Class != elf.ELFCLASS64 {
		return 0, false
	}
	buf := make([]byte, chunk/24*24)
	for _, s := range l.f.Sections {
		if s.Type != elf.SHT_RELA || s.Flags&elf.SHF_ALLOC == 0 {
			continue
		}
		for at := uint64(0); at+24 <= s.FileSize; at += uint64(len(buf)) {
			n := min(uint64(len(buf)), (s.FileSize-at)/24*24)
			if _, err := l.r.ReadAt(buf[:n], int64(s.Offset+at)); err != nil {
				return 0, false
			}
			for b := buf[:n]; len(b) > 0; b = b[24:] {
				if l.f.ByteOrder.Uint64(b) == vaddr {
					return l.f.ByteOrder.Uint64(b[16:]), true
				}
			}
		}
	}
	return 0, false
}

// bytes reads a part of the file, at most limit bytes.
func (l *loader) bytes(off, size uint64, limit int64) ([]byte, error) {
	if size > uint64(max(limit, 0)) {
		return nil, errTooLarge
	}
	b := make([]byte, size)
	if off > math.MaxInt64-size {
		return nil, io.ErrUnexpectedEOF
	}
	if _, err := l.r.ReadAt(b, int64(off)); err != nil {
		return nil, err
	}
	return b, nil
}

// budgetReader fails with errTooLarge when more was read than it allows.
type budgetReader struct {
	r    io.ReaderAt
	left int64
}

// ReadAt implements io.ReaderAt.
func (b *budgetReader) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, io.ErrUnexpectedEOF
	}
	if b.left -= int64(len(p)); b.left < 0 {
		return 0, errTooLarge
	}
	return b.r.ReadAt(p, off)
}

// stringReader reads strings of a string table at ascending offsets, through
// one buffer.
type stringReader struct {
	r         io.ReaderAt
	off, size uint64
	buf       []byte
	at        uint64 // where in the table buf begins
}

// get returns the string at an offset, cut at maxName. It is valid until the
// next call.
func (s *stringReader) get(offset uint32) ([]byte, error) {
	off := uint64(offset)
	if off >= s.size {
		return nil, nil // as if it had no name
	}
	want := min(maxName, s.size-off)
	if off < s.at || off+want > s.at+uint64(len(s.buf)) {
		n := min(chunk, s.size-off)
		if s.off > math.MaxInt64-s.size {
			return nil, io.ErrUnexpectedEOF
		}
		if cap(s.buf) < chunk {
			s.buf = make([]byte, chunk)
		}
		s.buf = s.buf[:n]
		if _, err := s.r.ReadAt(s.buf, int64(s.off+off)); err != nil {
			return nil, err
		}
		s.at = off
	}
	b := s.buf[off-s.at:][:want]
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return b, nil
}
