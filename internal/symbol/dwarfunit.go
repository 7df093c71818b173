package symbol

import (
	"cmp"
	"debug/dwarf"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
)

const (
	// maxEntries bounds the entries of one unit that are walked, 1 µs each.
	maxEntries = 2 << 20
	// maxRows bounds the rows of its line table, and its inlined calls.
	maxRows = 1 << 20
	// maxInline is how many calls may be inlined into one another.
	maxInline = 64
	// maxDepth is how deep entries may be nested: blocks in blocks.
	maxDepth = 1024
	// maxOrigins is how many references lead to the name of a function.
	maxOrigins = 4
)

// unitReader turns one unit of DWARF into unitLines.
type unitReader struct {
	b       *debugData
	out     *unitLines
	names   map[dwarf.Offset]uint32 // index of out.names
	entries int
	origins *dwarf.Reader

	depth int      // of entries
	open  []opened // functions and inlined calls around the entry
}

// opened is a function or an inlined call whose entries are being walked.
type opened struct {
	depth int // of its entry
	level uint32
	from  int // of out.calls, for a function
	spans [][2]uint64
}

// unit reads the unit whose entry is at root. base is below all its addresses.
func (b *debugData) unit(root dwarf.Offset, base uint64) (*unitLines, error) {
	if b.d == nil {
		return &unitLines{}, nil
	}
	u := &unitReader{
		b: b, out: &unitLines{base: base}, names: make(map[dwarf.Offset]uint32), origins: b.d.Reader(),
	}
	r := b.d.Reader()
	r.Seek(root)
	e, err := r.Next()
	if err != nil || e == nil {
		return nil, fmt.Errorf("read unit: %w", errors.Join(err, io.ErrUnexpectedEOF))
	}
	if err := u.lines(e); err != nil {
		return nil, err
	}
	if e.Children {
		u.depth = 1
		if err := u.walk(r); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(u.out.funcs, func(x, y funcSpan) int { return cmp.Compare(x.low, y.low) })
	u.out.funcs, u.out.calls = slices.Clip(u.out.funcs), slices.Clip(u.out.calls)
	u.out.account()
	return u.out, nil
}

// lines reads the line table of a unit.
func (u *unitReader) lines(e *dwarf.Entry) error {
	lr, err := u.b.d.LineReader(e)
	if err != nil {
		return fmt.Errorf("read lines: %w", err)
	}
	if lr == nil {
		return nil
	}
	files := make(map[*dwarf.LineFile]uint32)
	var le dwarf.LineEntry
	for {
		if err := lr.Next(&le); err == io.EOF {
			break
		} else if err != nil {
			return fmt.Errorf("read lines: %w", err)
		}
		addr, ok := u.addr(le.Address)
		if !ok {
			continue
		}
		row := lineRow{addr: addr}
		if !le.EndSequence && le.File != nil {
			i, ok := files[le.File]
			if !ok {
				i = uint32(len(files))
				files[le.File] = i
			}
			row.file, row.line = i, uint32(min(max(le.Line, 0), math.MaxInt32))
		}
		if len(u.out.rows) >= maxRows {
			return errTooLarge
		}
		u.out.rows = append(u.out.rows, row)
	}
	u.files(lr, files)
	u.sortRows()
	return nil
}

// files sets the names of files: those of the lines keep their numbers there,
// those of calls have the numbers of the line table behind them.
func (u *unitReader) files(lr *dwarf.LineReader, rows map[*dwarf.LineFile]uint32) {
	all := lr.Files()
	u.out.files = make([]string, len(all))
	index := make(map[*dwarf.LineFile]uint32, len(all))
	for i, f := range all {
		if f != nil {
			u.out.files[i] = f.Name
			index[f] = uint32(i)
		}
	}
	byRow := make([]uint32, len(rows))
	for f, i := range rows {
		j, ok := index[f]
		if !ok { // a file that the program itself added
			j = uint32(len(u.out.files))
			u.out.files = append(u.out.files, f.Name)
		}
		byRow[i] = j
	}
	for i := range u.out.rows {
		if r := &u.out.rows[i]; r.line > 0 {
			r.file = byRow[r.file]
		}
	}
}

// sortRows orders the rows by address. Where several have one address the last
// one holds, unless it is the end of a stretch of code that another one follows.
func (u *unitReader) sortRows() {
	rows := u.out.rows
	slices.SortStableFunc(rows, func(x, y lineRow) int { return cmp.Compare(x.addr, y.addr) })
	kept := rows[:0]
	for _, r := range rows {
		n := len(kept)
		switch {
		case n > 0 && kept[n-1].addr == r.addr:
			if r.line > 0 || kept[n-1].line == 0 {
				kept[n-1] = r
			}
		case n > 0 && kept[n-1].file == r.file && kept[n-1].line == r.line:
		default:
			kept = append(kept, r)
		}
	}
	u.out.rows = slices.Clip(kept)
}

// addr returns an address as it is kept; ok is false if it is none of the
// program's: what the linker threw away begins at 0 or at the other end.
func (u *unitReader) addr(a uint64) (uint32, bool) {
	if a < u.out.base || a-u.out.base > math.MaxUint32 {
		return 0, false
	}
	return uint32(a - u.out.base), true
}

// walk reads the entries of the unit.
func (u *unitReader) walk(r *dwarf.Reader) error {
	for u.depth > 0 {
		e, err := r.Next()
		if err != nil {
			return fmt.Errorf("read unit: %w", err)
		}
		if e == nil {
			return nil
		}
		if u.entries++; u.entries > maxEntries {
			return errTooLarge
		}
		if e.Tag == 0 {
			u.depth--
			u.leave()
			continue
		}
		if err := u.entry(e); err != nil {
			return err
		}
		if e.Children {
			if u.depth++; u.depth > maxDepth {
				return errTooLarge
			}
		} else {
			u.leave()
		}
	}
	return nil
}

// leave ends what was opened by the entry that is done.
func (u *unitReader) leave() {
	for n := len(u.open); n > 0 && u.open[n-1].depth >= u.depth; n = len(u.open) {
		o := u.open[n-1]
		u.open = u.open[:n-1]
		if o.level > 0 || o.from == len(u.out.calls) { // no function, or one without inlined calls
			continue
		}
		for _, s := range o.spans {
			low, ok1 := u.addr(s[0])
			high, ok2 := u.addr(s[1])
			if ok1 && ok2 && low < high {
				u.out.funcs = append(u.out.funcs, funcSpan{low, high, uint32(o.from), uint32(len(u.out.calls))})
			}
		}
	}
}

// entry takes a function or an inlined call.
func (u *unitReader) entry(e *dwarf.Entry) error {
	if e.Tag != dwarf.TagSubprogram && e.Tag != dwarf.TagInlinedSubroutine {
		return nil
	}
	spans, err := u.b.d.Ranges(e)
	if err != nil || len(spans) == 0 {
		return nil // not compiled on its own, or one entry's fault
	}
	if e.Tag == dwarf.TagSubprogram {
		u.open = append(u.open, opened{depth: u.depth, from: len(u.out.calls), spans: spans})
		return nil
	}
	if len(u.open) == 0 {
		return nil
	}
	level := u.open[len(u.open)-1].level + 1
	u.open = append(u.open, opened{depth: u.depth, level: level})
	name, ok := u.name(e)
	if !ok {
		return nil // a name in a file that several share (dwz)
	}
	file, _ := e.Val(dwarf.AttrCallFile).(int64)
	line, _ := e.Val(dwarf.AttrCallLine).(int64)
	for _, s := range spans {
		low, ok1 := u.addr(s[0])
		high, ok2 := u.addr(s[1])
		if !ok1 || !ok2 || low >= high {
			continue
		}
		if len(u.out.calls) >= maxRows {
			return errTooLarge
		}
		u.out.calls = append(u.out.calls, inlined{
			low: low, high: high, name: name, depth: level,
			file: uint32(min(max(file, 0), math.MaxInt32)), line: uint32(min(max(line, 0), math.MaxInt32)),
		})
	}
	return nil
}

// name returns the index of the name of the function that an entry is a copy of.
func (u *unitReader) name(e *dwarf.Entry) (uint32, bool) {
	at, ok := e.Val(dwarf.AttrAbstractOrigin).(dwarf.Offset)
	if !ok {
		return 0, false
	}
	if i, ok := u.names[at]; ok {
		return i, true
	}
	name := ""
	for off, n := at, 0; n < maxOrigins; n++ {
		u.origins.Seek(off)
		e, err := u.origins.Next()
		if err != nil || e == nil {
			break
		}
		if s := linkName(e); s != "" {
			name = s
			break
		}
		if s, _ := e.Val(dwarf.AttrName).(string); s != "" && name == "" {
			name = s
		}
		if off, ok = e.Val(dwarf.AttrAbstractOrigin).(dwarf.Offset); !ok {
			if off, ok = e.Val(dwarf.AttrSpecification).(dwarf.Offset); !ok {
				break
			}
		}
	}
	if name == "" {
		return 0, false
	}
	i := uint32(len(u.out.names))
	u.out.names = append(u.out.names, name[:min(len(name), maxName)])
	u.names[at] = i
	return i, true
}

// linkName returns the name for the linker, which tells namespaces and types.
func linkName(e *dwarf.Entry) string {
	const mips = dwarf.Attr(0x2007) // DW_AT_MIPS_linkage_name, before DWARF 4
	if s, _ := e.Val(dwarf.AttrLinkageName).(string); s != "" {
		return s
	}
	s, _ := e.Val(mips).(string)
	return s
}
