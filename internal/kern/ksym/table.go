package ksym

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// maxFunction bounds how far behind a symbol an address may lie and still be
// its. kallsyms has no sizes, so without a bound the last symbol before a hole
// would own the hole. The largest text symbols of the kernel are some 100 KB;
// a JIT image of a BPF program may come near 1 MB.
const maxFunction = 1 << 20

// entry is one text symbol, or the end of one.
type entry struct {
	addr uint64
	name uint32 // offset in table.names
	size uint16 // length of the name; the kernel allows 511 bytes
	mod  uint16 // index in table.modules, and the flags below
}

// Flags in entry.mod. The module index has the bits below them.
const (
	flagEnd    = 1 << 15 // not text: the symbol before ends here
	flagGlobal = 1 << 14 // preferred among aliases
	flagWeak   = 1 << 13 // avoided among aliases
	flagPrefix = 1 << 12 // __pfx_ or __cfi_: the padding in front of a function, known by the function's name
	maskModule = flagPrefix - 1
)

// table is an immutable set of kernel text symbols, sorted by address.
type table struct {
	entries []entry
	names   string   // every name, end to end
	modules []string // index 0 is the kernel itself
}

// parse reads text in the form of /proc/kallsyms.
func parse(r io.Reader) (*table, error) {
	b := builder{byName: make(map[string]uint16), modules: []string{""}, sorted: true}
	b.entries = make([]entry, 0, 128<<10) // a distribution kernel has 100k to 200k
	b.names.Grow(2 << 20)
	br := bufio.NewReaderSize(r, 64<<10)
	for {
		line, err := br.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			err = skipLine(br) // no symbol is that long
			line = nil
		}
		b.add(line)
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read symbols: %w", err)
		}
	}
	if b.lines > 0 && !b.visible {
		return nil, ErrHidden
	}
	return b.finish(), nil
}

func skipLine(br *bufio.Reader) error {
	for {
		_, err := br.ReadSlice('\n')
		if !errors.Is(err, bufio.ErrBufferFull) {
			return err
		}
	}
}

type builder struct {
	entries []entry
	names   strings.Builder
	modules []string
	byName  map[string]uint16
	lines   int
	visible bool // some address is not zero
	sorted  bool
}

// add takes one line: "ffffffff81000000 T name\t[module]". What is not such a
// line is passed over.
func (b *builder) add(line []byte) {
	line = bytes.TrimRight(line, "\r\n")
	addr, n := parseHex(line)
	if n == 0 || n+3 >= len(line) || line[n] != ' ' || line[n+2] != ' ' {
		return
	}
	b.lines++
	if addr == 0 {
		return // hidden, or the per-CPU symbol at offset zero
	}
	b.visible = true
	kind, name := line[n+1], line[n+3:]
	var module []byte
	if i := bytes.IndexByte(name, '\t'); i >= 0 {
		name, module = name[:i], bytes.Trim(name[i+1:], "[] \t")
	}
	e := entry{addr: addr}
	switch kind {
	case 'T':
		e.mod = flagGlobal
	case 't':
	case 'W', 'w':
		e.mod = flagWeak
	default:
		e.mod = flagEnd
	}
	if string(name) == "_etext" || string(name) == "_einittext" {
		e.mod = flagEnd
	}
	e.mod |= b.module(module)
	b.push(e, name)
}

func (b *builder) push(e entry, name []byte) {
	if len(b.entries) > 0 {
		last := b.entries[len(b.entries)-1]
		if e.addr < last.addr {
			b.sorted = false
		} else if e.mod == flagEnd && last.mod == flagEnd {
			return // a run of core data symbols ends the text before it once
		}
	}
	if e.mod&flagEnd == 0 {
		for _, p := range [...]string{"__pfx_", "__cfi_"} {
			if len(name) > len(p) && string(name[:len(p)]) == p {
				name = name[len(p):]
				e.mod |= flagPrefix
			}
		}
		if len(name) > 0xffff || b.names.Len() > 1<<30 {
			return
		}
		e.name, e.size = b.intern(name), uint16(len(name))
	}
	b.entries = append(b.entries, e)
}

// intern appends a name unless it equals the one before, as it does after a
// __pfx_ symbol.
func (b *builder) intern(name []byte) uint32 {
	at := b.names.Len() - len(name)
	if at >= 0 && b.names.String()[at:] == string(name) {
		return uint32(at)
	}
	b.names.Write(name)
	return uint32(b.names.Len() - len(name))
}

// module returns the index of a module's name. The index has 12 bits; modules
// beyond the 4095th are shown as the kernel's own.
func (b *builder) module(name []byte) uint16 {
	if len(name) == 0 {
		return 0
	}
	if i, ok := b.byName[string(name)]; ok {
		return i
	}
	if len(b.modules) > maskModule {
		return 0
	}
	i := uint16(len(b.modules))
	s := string(name)
	b.modules = append(b.modules, s)
	b.byName[s] = i
	return i
}

func (b *builder) finish() *table {
	t := &table{entries: b.entries, names: b.names.String(), modules: b.modules}
	if !b.sorted {
		slices.SortStableFunc(t.entries, func(x, y entry) int { return cmp.Compare(x.addr, y.addr) })
	}
	kept := t.entries[:0]
	for _, e := range t.entries {
		if n := len(kept); n > 0 && kept[n-1].addr == e.addr {
			if t.better(e, kept[n-1]) {
				kept[n-1] = e
			}
			continue
		}
		kept = append(kept, e)
	}
	t.entries = slices.Clip(kept)
	return t
}

// better says whether x is a better name than y for the same address.
func (t *table) better(x, y entry) bool {
	rank := func(e entry) int {
		switch {
		case e.mod&flagEnd != 0:
			return 0
		case e.mod&flagPrefix != 0:
			return 1
		case e.mod&flagWeak != 0:
			return 2
		case strings.HasPrefix(t.text(e), "_"): // _stext, __entry_text_start, __se_sys_…: labels and wrappers
			return 3
		case e.mod&flagGlobal != 0:
			return 5
		default:
			return 4
		}
	}
	return rank(x) > rank(y)
}

func (t *table) text(e entry) string { return t.names[e.name : e.name+uint32(e.size)] }

// find returns the symbol that covers addr. loose tells that another symbol
// may have appeared in between since the table was read, because the symbol is
// not the kernel's own.
func (t *table) find(addr uint64) (sym Symbol, loose, ok bool) {
	lo, hi := 0, len(t.entries)
	for lo < hi { // the first entry beyond addr; by hand, since a closure here would cost a third of the time
		mid := int(uint(lo+hi) >> 1)
		if t.entries[mid].addr <= addr {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo == 0 {
		return Symbol{}, true, false
	}
	e := t.entries[lo-1]
	if e.mod&flagEnd != 0 || addr-e.addr >= maxFunction {
		return Symbol{}, true, false
	}
	mod := e.mod & maskModule
	return Symbol{Name: t.text(e), Module: t.modules[mod], Offset: addr - e.addr}, mod != 0, true
}

func parseHex(b []byte) (v uint64, n int) {
	for n < len(b) && n < 16 {
		c := b[n]
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return v, n
		}
		v = v<<4 | uint64(c)
		n++
	}
	return v, n
}
