package symbol

import (
	"debug/elf"
	"fmt"
	"io"
	"os"
)

// quality is how much the sources of a file's names tell.
type quality uint8

const (
	nothing  quality = iota
	exported         // .dynsym: what other files may call
	reduced          // .gnu_debugdata: every function, without what .dynsym has
	whole            // a full symbol table, or Go's function table
)

// source is a place where the names of functions may stand. It adds what it
// has to the loader's table, and reports whether there was any.
type source struct {
	quality quality
	read    func(*loader) (bool, error)
}

// sources lists the places in the order of their worth. A whole one makes the
// others needless.
func sources() []source {
	return []source{
		{whole, func(l *loader) (bool, error) { return l.symbols(elf.SHT_SYMTAB) }},
		{whole, (*loader).separate},
		{reduced, (*loader).embedded},
		{exported, func(l *loader) (bool, error) { return l.symbols(elf.SHT_DYNSYM) }},
	}
}

// names fills in the tables. An error of one source is the reason for what the
// others do not name.
func (l *loader) names(limit int64) {
	l.obj.why = noSymbols
	g, err := l.goTable(limit)
	if err != nil {
		l.obj.why = reasonOf(err, noSymbols)
	}
	l.obj.golang = g
	if g != nil {
		l.build.limit -= g.bytes()
		l.obj.quality = whole
	}
	for _, s := range sources() {
		any, err := s.read(l)
		if err != nil {
			l.obj.why = reasonOf(err, badELF)
		}
		if !any {
			continue
		}
		l.obj.quality = max(l.obj.quality, s.quality)
		if s.quality == whole {
			break
		}
	}
	if l.obj.lines == nowhere {
		l.linesApart()
	}
	l.obj.syms = l.build.finish()
	if l.obj.why == noSymbols && (l.obj.syms != nil || l.obj.golang != nil) {
		l.obj.why = noSymbolHere
	}
}

// separate reads the symbols of the file that holds what was stripped off, and
// notes whether that one has the lines.
func (l *loader) separate() (bool, error) {
	if l.search == nil {
		return false, nil
	}
	f := l.search(l.stripped())
	if f == nil {
		return false, nil
	}
	defer f.Close()
	sub, err := l.other(f)
	if err != nil {
		return false, fmt.Errorf("read the file of debug symbols: %w", err)
	}
	if l.obj.lines == nowhere && hasLines(sub.f) {
		l.obj.lines = apart
	}
	return sub.symbols(elf.SHT_SYMTAB)
}

// linesApart looks whether a file that has its symbols has its lines elsewhere.
func (l *loader) linesApart() {
	if l.search == nil || l.obj.quality != whole {
		return // the others were looked for
	}
	f := l.search(l.stripped())
	if f == nil {
		return
	}
	defer f.Close()
	if sub, err := l.other(f); err == nil && hasLines(sub.f) {
		l.obj.lines = apart
	}
}

// other returns a loader of another file's symbols into the same table.
func (l *loader) other(r io.ReaderAt) (*loader, error) {
	sub := &loader{r: &budgetReader{r: r, left: headerBudget}, build: l.build, obj: l.obj}
	f, err := elf.NewFile(sub.r)
	if err != nil {
		return nil, err
	}
	sub.f = f
	sub.r.left = fileBudget
	return sub, nil
}

// linesAt is where the source lines of a file are.
type linesAt uint8

const (
	nowhere linesAt = iota
	inside          // the file itself
	apart           // the file of debug symbols
)

// hasLines says whether a file has what source lines and inlined calls are told by.
func hasLines(f *elf.File) bool {
	n := 0
	for _, s := range f.Sections {
		if s.Type != elf.SHT_NOBITS && s.Size > 0 && (s.Name == ".debug_info" || s.Name == ".debug_line") {
			n++
		}
	}
	return n == 2
}

// search opens the file of debug symbols of a stripped one; nil if there is none.
type search func(stripped) *os.File
