package symbol

import (
	"bytes"
	"cmp"
	"errors"
	"math"
	"slices"
	"strings"
)

// errTooLarge says that a bound was hit, the file's fault or not.
var errTooLarge = errors.New("over the size limit")

// table is a set of symbols sorted by address. It is immutable, and holds no
// pointer per symbol: a cache full of them costs the garbage collector nothing.
type table struct {
	base uint64 // address of the first symbol
	syms []sym
	text string // names, each with a NUL behind it
}

type sym struct {
	addr uint32 // from base
	size uint32
	name uint32 // offset in text
}

const symBytes = 12

func (t *table) bytes() int64 { return int64(cap(t.syms))*symBytes + int64(len(t.text)) }

const (
	// maxUnsized is how far a symbol without a size reaches at most: to the
	// next one or the end of its section, if those are nearer.
	maxUnsized = 64 << 10
	// maxNested is how many symbols before the nearest may be looked at for
	// one that covers the address: functions with a label or a cold part inside.
	maxNested = 8
)

// find returns the name of the symbol that covers addr.
func (t *table) find(addr uint64) (string, bool) {
	if t == nil || addr < t.base || addr-t.base > math.MaxUint32 {
		return "", false
	}
	a := uint32(addr - t.base)
	i, exact := slices.BinarySearchFunc(t.syms, a, func(s sym, a uint32) int { return cmp.Compare(s.addr, a) })
	if !exact {
		i--
	}
	for n := 0; n < maxNested && i >= 0; n, i = n+1, i-1 {
		if s := t.syms[i]; a-s.addr < s.size {
			name, _, _ := strings.Cut(t.text[s.name:], "\x00")
			return name, true
		}
	}
	return "", false
}

// raw is a symbol on its way into a table.
type raw struct {
	addr uint64
	size uint32
	name uint32 // offset in a string table, later in the names
	rank uint8  // the higher one is preferred among symbols of one address
	open bool   // it has no size; size is how far it may reach
}

// Bits of a rank. The bits between are for underscores: read is a better name
// than __read for the same function, though libc has it as a weak one.
const (
	rankLocal, rankWeak, rankGlobal = 0, 1, 2

	rankUnderscores = 2 // shift
	rankFunction    = 1 << 4
)

// tableBuilder collects symbols, of one string table or of several.
type tableBuilder struct {
	limit int64 // bytes while it is built
	raws  []raw
	text  strings.Builder
}

// rawBytes is what a raw takes, twice what it takes in the end.
const rawBytes = 24

func (b *tableBuilder) bytes(more int) int64 {
	return int64(len(b.raws)+more)*rawBytes + int64(b.text.Len())
}

// add takes symbols whose names stand at the offsets raw.name of a string
// table that name reads. Offsets are asked for in ascending order. After an
// error the builder is as before.
func (b *tableBuilder) add(raws []raw, name func(off uint32) ([]byte, error)) error {
	mark := b.text.Len()
	kept, err := b.withNames(raws, name)
	if err != nil {
		text := b.text.String()[:mark]
		b.text = strings.Builder{}
		b.text.WriteString(text)
		return err
	}
	b.raws = append(b.raws, kept...)
	return nil
}

// withNames copies the names of raws and returns those that have one.
func (b *tableBuilder) withNames(raws []raw, name func(off uint32) ([]byte, error)) ([]raw, error) {
	slices.SortFunc(raws, func(x, y raw) int { return cmp.Compare(x.name, y.name) })
	kept := raws[:0]
	var last, at uint32
	var names byte
	for i, s := range raws {
		if i == 0 || s.name != last {
			if b.bytes(len(kept)) > b.limit || b.text.Len() > math.MaxUint32-2*maxName {
				return nil, errTooLarge
			}
			text, err := name(s.name)
			if err != nil {
				return nil, err
			}
			text = withoutVersion(text)
			last, at = s.name, uint32(b.text.Len())
			names = underscores(text)
			b.text.Write(text)
			b.text.WriteByte(0)
		}
		if names == empty {
			continue
		}
		s.name = at
		s.rank |= (3 - names) << rankUnderscores
		kept = append(kept, s)
	}
	return kept, nil
}

// withoutVersion cuts what .symtab has behind the names of versioned symbols, as in
// "memcpy@@GLIBC_2.14".
func withoutVersion(name []byte) []byte {
	if i := bytes.IndexByte(name, '@'); i > 0 {
		return name[:i]
	}
	return name
}

const empty = 0xff

// underscores counts the first few in front of a name.
func underscores(name []byte) byte {
	if len(name) == 0 {
		return empty
	}
	n := byte(0)
	for n < 3 && int(n) < len(name) && name[n] == '_' {
		n++
	}
	return n
}

// finish returns the table, nil if it has no symbol.
func (b *tableBuilder) finish() *table {
	if len(b.raws) == 0 {
		return nil
	}
	slices.SortStableFunc(b.raws, func(x, y raw) int {
		if c := cmp.Compare(x.addr, y.addr); c != 0 {
			return c
		}
		return cmp.Compare(y.rank, x.rank)
	})
	kept := b.raws[:1]
	for _, s := range b.raws[1:] {
		last := &kept[len(kept)-1]
		switch {
		case s.addr != last.addr:
			if last.open {
				last.size = uint32(min(uint64(last.size), s.addr-last.addr))
			}
			kept = append(kept, s)
		case last.open && !s.open:
			last.size, last.open = s.size, false
		case last.open == s.open:
			last.size = max(last.size, s.size)
		}
	}
	t := &table{base: kept[0].addr, text: b.text.String(), syms: make([]sym, 0, len(kept))}
	for _, s := range kept {
		if s.addr-t.base > math.MaxUint32 {
			break // no file that anybody maps has 4 GB of code
		}
		t.syms = append(t.syms, sym{addr: uint32(s.addr - t.base), size: s.size, name: s.name})
	}
	return t
}
