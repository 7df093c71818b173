package symbol

import (
	"cmp"
	"debug/dwarf"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"sync"
	"time"
)

// debugData is the DWARF of one file.
type debugData struct {
	mu    sync.Mutex  // the library keeps what it has parsed
	d     *dwarf.Data // nil: it cannot be read
	info  []byte
	order binary.ByteOrder
	bytes int64
}

// openDWARF reads the DWARF of a file, at most limit bytes of it.
func openDWARF(r io.ReaderAt, limit int64) (*debugData, error) {
	budget := &budgetReader{r: r, left: headerBudget}
	f, err := elf.NewFile(budget)
	if err != nil {
		return nil, fmt.Errorf("read DWARF: %w", err)
	}
	budget.left = limit
	out := &debugData{order: f.ByteOrder}
	parts := make(map[string][]byte)
	for _, name := range [...]string{
		"abbrev", "info", "line", "ranges", "str", "addr", "line_str", "str_offsets", "rnglists",
	} {
		s := f.Section(".debug_" + name)
		if s == nil || s.Type == elf.SHT_NOBITS {
			continue
		}
		if s.Size > uint64(max(limit-out.bytes, 0)) {
			return nil, fmt.Errorf("read .debug_%s: %w", name, errTooLarge)
		}
		b, err := s.Data() // grows as it reads, and unpacks
		if err != nil {
			return nil, fmt.Errorf("read .debug_%s: %w", name, err)
		}
		out.bytes += int64(len(b))
		parts[name] = b
	}
	out.info = parts["info"]
	out.d, err = dwarf.New(parts["abbrev"], nil, nil, out.info, parts["line"], nil, parts["ranges"], parts["str"])
	if err != nil {
		return nil, fmt.Errorf("parse DWARF: %w", err)
	}
	for _, name := range [...]string{"addr", "line_str", "str_offsets", "rnglists"} {
		if err := out.d.AddSection(".debug_"+name, parts[name]); err != nil {
			return nil, fmt.Errorf("parse .debug_%s: %w", name, err)
		}
	}
	return out, nil
}

// unitIndex tells which compilation unit an address belongs to.
type unitIndex struct {
	spans []unitSpan // by address
	until time.Time  // when it is read again; zero: never
}

func (x *unitIndex) expired() bool { return !x.until.IsZero() && time.Now().After(x.until) }

type unitSpan struct {
	low, high uint64
	root      dwarf.Offset // of the unit's own entry
}

func (x *unitIndex) bytes() int64 { return 64 + 24*int64(cap(x.spans)) }

func (x *unitIndex) find(addr uint64) (root dwarf.Offset, ok bool) {
	i, exact := slices.BinarySearchFunc(x.spans, addr, func(s unitSpan, a uint64) int { return cmp.Compare(s.low, a) })
	if !exact {
		i--
	}
	if i < 0 || addr >= x.spans[i].high {
		return 0, false
	}
	return x.spans[i].root, true
}

// maxSpans bounds the stretches of code of all units: a file with a section for
// each function has one a function.
const maxSpans = 1 << 19

// index finds the units that have code.
func (b *debugData) index(code func(vaddr uint64) bool) (*unitIndex, error) {
	x := &unitIndex{}
	if b.d == nil {
		return x, nil
	}
	r := b.d.Reader()
	for off := uint64(0); off < uint64(len(b.info)); {
		root, next, ok := unitHeader(b.info, off, b.order)
		if next <= off {
			break
		}
		off = next
		if !ok {
			continue
		}
		r.Seek(dwarf.Offset(root))
		e, err := r.Next()
		if err != nil || e == nil {
			return nil, fmt.Errorf("read unit at %#x: %w", root, errors.Join(err, io.ErrUnexpectedEOF))
		}
		spans, err := b.d.Ranges(e)
		if err != nil {
			continue // one unit's fault
		}
		for _, s := range spans {
			if s[0] >= s[1] || !code(s[0]) { // what the linker threw away begins at 0
				continue
			}
			if len(x.spans) >= maxSpans {
				return nil, errTooLarge
			}
			x.spans = append(x.spans, unitSpan{s[0], s[1], e.Offset})
		}
	}
	slices.SortFunc(x.spans, func(a, b unitSpan) int { return cmp.Compare(a.low, b.low) })
	x.spans = slices.Clip(x.spans)
	return x, nil
}

// unitHeader returns where the first entry of the unit at off is and where the
// next unit begins; ok is false when the unit is of a kind that has no code.
func unitHeader(info []byte, off uint64, order binary.ByteOrder) (root, next uint64, ok bool) {
	const compile, partial = 1, 3 // DW_UT_compile, DW_UT_partial
	b := info[off:]
	if len(b) < 12 {
		return 0, 0, false
	}
	length, head := uint64(order.Uint32(b)), uint64(4)
	word := uint64(4)
	if length == math.MaxUint32 {
		length, head, word = order.Uint64(b[4:]), 12, 8
	}
	if length > uint64(len(b))-head || length < 8+word || head+length < off && off > math.MaxInt64 {
		return 0, 0, false
	}
	next = off + head + length
	version := order.Uint16(b[head:])
	if version < 5 { // version, offset of the abbreviations, size of an address
		return off + head + 2 + word + 1, next, true
	}
	kind := b[head+2] // and the kind of unit
	return off + head + 2 + 2 + word, next, kind == compile || kind == partial
}

// unitLines is what is kept of one compilation unit. It is immutable, and holds
// no pointer per row.
type unitLines struct {
	base  uint64
	rows  []lineRow // by address
	funcs []funcSpan
	calls []inlined // of each function together
	files []string
	names []string // of inlined functions, as a linker would have them
	size  int64
	until time.Time // when it is read again; zero: never
}

func (u *unitLines) expired() bool { return !u.until.IsZero() && time.Now().After(u.until) }

// unitBytes is what a unit takes without its lists.
const unitBytes = 256

// lineRow is the source line of the code from addr to the next row.
type lineRow struct {
	addr, file, line uint32 // line 0: none
}

// funcSpan is a stretch of a function's code.
type funcSpan struct {
	low, high uint32
	from, to  uint32 // of calls
}

// inlined is a stretch of code that comes from an inlined call.
type inlined struct {
	low, high  uint32
	name       uint32
	file, line uint32 // of the call
	depth      uint32
}

func (u *unitLines) account() {
	u.size = 12*int64(cap(u.rows)) + 16*int64(cap(u.funcs)) + 24*int64(cap(u.calls))
	for _, list := range [...][]string{u.files, u.names} {
		for _, s := range list {
			u.size += 16 + int64(len(s))
		}
	}
}

// call is one frame of what stands at an address: a function with the line that
// is run in it. The outermost has no name: that is the symbol's.
type call struct {
	name, file string
	line       int
}

// find returns the frames at an address, innermost first; nil when there is no
// line known of it.
func (u *unitLines) find(vaddr uint64) []call {
	if u == nil || vaddr < u.base || vaddr-u.base > math.MaxUint32 {
		return nil
	}
	a := uint32(vaddr - u.base)
	i, exact := slices.BinarySearchFunc(u.rows, a, func(r lineRow, a uint32) int { return cmp.Compare(r.addr, a) })
	if !exact {
		i--
	}
	var at call
	if i >= 0 && u.rows[i].line > 0 {
		at.file, at.line = u.file(u.rows[i].file), int(u.rows[i].line)
	}
	out := []call{}
	for _, c := range u.inlines(a) { // innermost first
		at.name = u.names[c.name]
		out = append(out, at)
		at = call{file: u.file(c.file), line: int(c.line)}
	}
	if len(out) == 0 && at.line == 0 {
		return nil
	}
	return append(out, at)
}

// inlines returns the calls that were inlined at an address, innermost first.
func (u *unitLines) inlines(a uint32) []inlined {
	i, exact := slices.BinarySearchFunc(u.funcs, a, func(f funcSpan, a uint32) int { return cmp.Compare(f.low, a) })
	if !exact {
		i--
	}
	if i < 0 || a >= u.funcs[i].high {
		return nil
	}
	var out []inlined
	for _, c := range u.calls[u.funcs[i].from:u.funcs[i].to] {
		if a >= c.low && a < c.high && len(out) < maxInline {
			out = append(out, c)
		}
	}
	slices.SortStableFunc(out, func(x, y inlined) int { return cmp.Compare(y.depth, x.depth) })
	return out
}

func (u *unitLines) file(i uint32) string {
	if int(i) >= len(u.files) {
		return ""
	}
	return u.files[i]
}
