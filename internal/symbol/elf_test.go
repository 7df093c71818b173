package symbol

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// tiny describes a small ELF file; the zero value of a field is a sound one.
type tiny struct {
	syms    []tinySym
	symtab  elf.SectionType
	link    uint32                        // of the symbol table
	section func(i int, s *elf.Section64) // changes section i before it is written
	header  func(h *elf.Header64)
	strings string // instead of the names
}

type tinySym struct {
	name       string
	addr, size uint64
	info       byte
	section    uint16
}

const (
	textAddr, textSize  = 0x401000, 0x10000
	global, weak, local = byte(elf.STB_GLOBAL) << 4, byte(elf.STB_WEAK) << 4, byte(elf.STB_LOCAL) << 4
	function, notype    = byte(elf.STT_FUNC), byte(elf.STT_NOTYPE)
)

// build writes: headers, one PT_LOAD of which nothing is in the file, the
// symbol table, its names, the sections' names.
func (e tiny) build() []byte {
	var names bytes.Buffer
	var syms bytes.Buffer
	names.WriteByte(0)
	put := func(b *bytes.Buffer, v any) { binary.Write(b, binary.LittleEndian, v) } //nolint:errcheck // to memory
	put(&syms, elf.Sym64{})
	for _, s := range e.syms {
		at := uint32(names.Len())
		if e.strings != "" {
			at = uint32(len(s.name))
		} else {
			names.WriteString(s.name + "\x00")
		}
		put(&syms, elf.Sym64{Name: at, Info: s.info, Shndx: s.section, Value: s.addr, Size: s.size})
	}
	if e.strings != "" {
		names.Reset()
		names.WriteString(e.strings)
	}
	if e.symtab == 0 {
		e.symtab = elf.SHT_SYMTAB
	}
	if e.link == 0 {
		e.link = 3
	}
	const shstr = "\x00.text\x00.symtab\x00.strtab\x00.shstrtab\x00"
	const headers = 64 + 56
	symOff, strOff := uint64(headers), uint64(headers+syms.Len())
	shstrOff := strOff + uint64(names.Len())
	shOff := shstrOff + uint64(len(shstr))
	sections := []elf.Section64{
		{},
		{Name: 1, Type: uint32(elf.SHT_NOBITS), Flags: uint64(elf.SHF_ALLOC | elf.SHF_EXECINSTR), Addr: textAddr, Size: textSize},
		{Name: 7, Type: uint32(e.symtab), Off: symOff, Size: uint64(syms.Len()), Link: e.link, Entsize: 24},
		{Name: 15, Type: uint32(elf.SHT_STRTAB), Off: strOff, Size: uint64(names.Len())},
		{Name: 23, Type: uint32(elf.SHT_STRTAB), Off: shstrOff, Size: uint64(len(shstr))},
	}
	h := elf.Header64{
		Ident: [16]byte{0x7f, 'E', 'L', 'F', 2, 1, 1}, Type: uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: 1,
		Phoff: 64, Shoff: shOff, Ehsize: 64, Phentsize: 56, Phnum: 1, Shentsize: 64, Shnum: uint16(len(sections)), Shstrndx: 4,
	}
	if e.header != nil {
		e.header(&h)
	}
	var b bytes.Buffer
	put(&b, h)
	put(&b, elf.Prog64{Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_X | elf.PF_R), Off: 0x1000, Vaddr: textAddr, Filesz: textSize, Memsz: textSize})
	b.Write(syms.Bytes())
	b.Write(names.Bytes())
	b.WriteString(shstr)
	for i := range sections {
		if e.section != nil {
			e.section(i, &sections[i])
		}
		put(&b, sections[i])
	}
	return b.Bytes()
}

func sound() tiny {
	return tiny{syms: []tinySym{
		{"__read", 0x401000, 0x20, global | function, 1},
		{"read", 0x401000, 0x20, weak | function, 1},
		{"versioned@@GLIBC_2.34", 0x401600, 0x10, global | function, 1},
		{"@odd", 0x401700, 0x10, global | function, 1},
		{"local_alias", 0x401000, 0x20, local | function, 1},
		{"data", 0x401010, 8, global | byte(elf.STT_OBJECT), 1},
		{"imported", 0x401012, 8, global | function, 0},
		{"outer", 0x401100, 0x100, global | function, 1},
		{"inside", 0x401140, 0x10, local | function, 1},
		{"entry_code", 0x401300, 0, global | notype, 1},
		{"label", 0x401304, 0, local | notype, 1},
		{"next", 0x401340, 0x10, global | function, 1},
		{"", 0x401400, 0x10, global | function, 1},
		{"huge_size", 0x401500, 1 << 60, global | function, 1},
		{"far", 0x401500 + 1<<33, 0x10, global | function, 1},
		{"the_end", textAddr + textSize, 0, global | notype, 1},
	}}
}

func TestTable(t *testing.T) {
	obj := loadObject(bytes.NewReader(sound().build()), 1<<20, nil)
	for addr, want := range map[uint64]string{
		0x400fff: "", 0x401000: "read", 0x40101f: "read", 0x401020: "",
		0x401100: "outer", 0x401145: "inside", 0x401150: "outer", 0x4011ff: "outer", 0x401200: "",
		0x401300: "entry_code", 0x40133f: "entry_code", 0x401340: "next", 0x401350: "",
		0x401600: "versioned", 0x401700: "@odd", 0x401400: "", 0x401505: "huge_size", textAddr + textSize: "huge_size", 0: "", ^uint64(0): "",
	} {
		name, _, _, ok := obj.find(addr)
		if name != want || ok != (want != "") {
			t.Errorf("find(%#x) = %q, want %q", addr, name, want)
		}
	}
	if obj.why != noSymbolHere {
		t.Errorf("why is %q", obj.why)
	}
	if v, ok := obj.vaddr(0x1234); !ok || v != 0x401234 {
		t.Errorf("vaddr(0x1234) = %#x, %v", v, ok)
	}
	if _, ok := obj.vaddr(0x1000 + textSize); ok {
		t.Error("an offset behind the segment has an address")
	}
}

// TestEverySymbol compares with what debug/elf reads of a static C library,
// which has aliases, weak names and assembly.
func TestEverySymbol(t *testing.T) {
	exe := compileTarget(t, "-static")
	e, err := elf.Open(exe)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	syms, err := e.Symbols()
	if err != nil {
		t.Fatal(err)
	}
	at := make(map[uint64][]string) // names by address
	for _, s := range syms {
		if typ := elf.ST_TYPE(s.Info); (typ == elf.STT_FUNC || typ == elf.STT_GNU_IFUNC) && s.Size > 0 {
			at[s.Value] = append(at[s.Value], s.Name)
		}
	}
	f, err := os.Open(exe)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	obj := loadObject(f, 16<<20, nil)
	for addr, names := range at {
		for i, n := range names {
			names[i], _, _ = strings.Cut(n, "@")
		}
		if got, _, _, _ := obj.find(addr); !slices.Contains(names, got) {
			t.Errorf("find(%#x) = %q, want one of %q", addr, got, names)
		}
	}
	if len(at) < 500 {
		t.Errorf("only %d functions", len(at))
	}
}

// TestLimit finds the limits between which .symtab is too large and .dynsym is not.
func TestLimit(t *testing.T) {
	f, err := os.Open(compileTarget(t, "-rdynamic"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	names := func(limit int64) (n int, why reason) {
		obj := loadObject(f, limit, nil)
		if obj.syms != nil {
			n = len(obj.syms.syms)
		}
		return n, obj.why
	}
	all, why := names(1 << 20)
	if why != noSymbolHere {
		t.Fatal(why)
	}
	partly := false
	for limit := int64(0); limit < 8<<10; limit += 64 {
		n, why := names(limit)
		if (n < all) != (why == tooLarge) {
			t.Fatalf("limit %d: %d of %d functions, %q", limit, n, all, why)
		}
		partly = partly || (n > 0 && n < all)
	}
	if !partly {
		t.Error("with .symtab too large, .dynsym was not read")
	}
}

func TestSegmentsShareAPage(t *testing.T) {
	o := object{segments: []segment{{0, 0x1800, 0x400000, false}, {0x1500, 0x1000, 0x402500, true}}}
	for off, want := range map[uint64]uint64{0x100: 0x400100, 0x1500: 0x402500, 0x1700: 0x402700, 0x2000: 0x403000} {
		if got, ok := o.vaddr(off); !ok || got != want {
			t.Errorf("vaddr(%#x) = %#x, %v; want %#x", off, got, ok, want)
		}
	}
}

// TestHostile reads files that were made to break, fill or stall the reader.
func TestHostile(t *testing.T) {
	many := make([]tinySym, 200_000)
	for i := range many {
		many[i] = tinySym{strings.Repeat("x", i%4000), textAddr + uint64(i), 1, global | function, 1}
	}
	resize := func(n int, size uint64) func(int, *elf.Section64) {
		return func(i int, s *elf.Section64) {
			if i == n {
				s.Size = size
			}
		}
	}
	with := func(change func(*tiny)) []byte {
		e := sound()
		change(&e)
		return e.build()
	}
	for _, tt := range []struct {
		name string
		file []byte
		want reason
	}{
		{"empty", nil, notELF},
		{"text", []byte("#!/bin/sh\nexit\n"), notELF},
		{"magic only", []byte(elf.ELFMAG), badELF},
		{"no symbol table", with(func(e *tiny) { e.symtab = elf.SHT_NOTE }), noSymbols},
		{"link out of range", with(func(e *tiny) { e.link = 77 }), badELF},
		{"link to itself", with(func(e *tiny) { e.link = 2 }), noSymbolHere},
		{"symbols behind the end", with(func(e *tiny) { e.section = resize(2, 1<<40) }), badELF},
		{"names behind the end", with(func(e *tiny) { e.section = resize(3, 1<<40) }), badELF},
		{"section names of a terabyte", with(func(e *tiny) { e.section = resize(4, 1<<40) }), tooLarge},
		{"names of long overlap", tiny{syms: many, strings: strings.Repeat("y", 1<<20)}.build(), tooLarge},
		{"a million sections", with(func(e *tiny) {
			e.header = func(h *elf.Header64) { h.Shnum = 0 }
			e.section = resize(0, 1<<20)
		}), tooLarge},
		{"offset overflow", with(func(e *tiny) {
			e.section = func(i int, s *elf.Section64) {
				if i >= 2 && i < 4 {
					s.Off = 1<<63 - 100
				}
			}
		}), badELF},
	} {
		t.Run(tt.name, func(t *testing.T) {
			hostile(t, bytes.NewReader(tt.file), tt.want)
			path := filepath.Join(t.TempDir(), "file")
			write(t, path, "%s", tt.file)
			if len(tt.file) > 64 { // a sparse terabyte behind it, so that nothing ends early
				os.Truncate(path, 1<<40) //nolint:errcheck // without it the test asks less
			}
			f, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			hostile(t, f, tt.want)
		})
	}
}

// hostile reads a file and checks what that costs.
func hostile(t *testing.T, r io.ReaderAt, want reason) {
	t.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	began := time.Now()
	got := loadObject(r, 4<<20, nil).why
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 64<<20 {
		t.Errorf("%d MB allocated", n>>20)
	}
	if d := time.Since(began); d > 30*time.Second {
		t.Errorf("took %v", d)
	}
	// A short file may show as malformed what a sparse one shows as too large.
	if got != want && !(want == tooLarge && got == badELF) && !(want == badELF && (got == tooLarge || got == noSymbolHere)) {
		t.Errorf("why is %q, want %q", got, want)
	}
}

// TestTruncated cuts a real program and a sound small file at every place
// where something begins.
func TestTruncated(t *testing.T) {
	b := sound().build()
	for n := range len(b) {
		if obj := loadObject(bytes.NewReader(b[:n]), 1<<20, nil); obj.why == noSymbolHere {
			t.Fatalf("%d of %d bytes are a whole file", n, len(b))
		}
	}
	real, err := os.ReadFile(compileTarget(t))
	if err != nil {
		t.Fatal(err)
	}
	for n := 0; n < len(real); n += 97 {
		loadObject(bytes.NewReader(real[:n]), 1<<20, nil)
	}
}

func TestLanguages(t *testing.T) {
	for _, tt := range []struct{ name, compiler, ext, source, want string }{
		{"C++", "g++", ".cc", `#include <cstdio>
#include <unistd.h>
namespace shop { template <class T> struct Cart { __attribute__((noinline)) void add(T, const char *) { asm volatile("nop;nop;nop"); } }; }
int main() { shop::Cart<int> c; c.add(1, "x"); auto p = &shop::Cart<int>::add; printf("f %lx\nready\n", *(unsigned long *)&p); fflush(stdout); char b; while (read(0, &b, 1) > 0); }`,
			"shop::Cart<int>::add"},
		{"Rust", "rustc", ".rs", `use std::io::Read;
mod shop { pub struct Cart(pub u32); impl Cart { #[inline(never)] pub fn add(&mut self, n: u32) { self.0 = std::hint::black_box(self.0 + n); } } }
fn main() { let mut c = shop::Cart(0); c.add(1); println!("f {:x}", shop::Cart::add as usize); println!("ready"); let mut v = vec![]; let _ = std::io::stdin().read_to_end(&mut v); }`,
			"shop::Cart::add"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			src := filepath.Join(t.TempDir(), "src"+tt.ext)
			write(t, src, "%s", tt.source)
			tg := start(t, exec.Command(compile(t, tt.compiler, src)))
			got := one(t, newResolver(), tg.pid, tg.addrs["f"])
			if !strings.HasSuffix(got.Function, tt.want) || strings.Contains(got.Function, "(") {
				t.Errorf("%+v, want %s", got, tt.want)
			}
		})
	}
}

func TestNames(t *testing.T) {
	n := newNames()
	for in, want := range map[string]string{
		"":                                      "",
		"main":                                  "main",
		"_Z3fooi":                               "foo",
		"_ZN4core3ptr4drop17h0123456789abcdefE": "core::ptr::drop",
		"_RNvC6_123foo3bar":                     "123foo::bar",
		"_Zbroken":                              "_Zbroken",
		"main.(*T).Run[...]":                    "main.(*T).Run[...]",
	} {
		if got := n.show(in); got != want {
			t.Errorf("show(%q) = %q, want %q", in, got, want)
		}
	}
	if got := n.plain("_Z3foov"); got != "_Z3foov" {
		t.Errorf("a name of another kind became %q", got)
	}
	// A pair of pairs of pairs…: 2^30 ints if it were written out.
	pairs := "S_IiiE"
	for i := range 30 {
		head := "S_I"
		if i == 29 {
			head = "1PI"
		}
		pairs = head + pairs + "S" + strings.ToUpper(strconv.FormatInt(int64(i), 36)) + "_E"
	}
	began := time.Now()
	if got := n.show("_Z1fI" + pairs + "Evv"); len(got) > 2*maxName || time.Since(began) > time.Second {
		t.Errorf("%d bytes in %v", len(got), time.Since(began))
	}
	for i := range 3 * maxNames {
		n.show(strings.Repeat("f", 1+i%1000) + string(rune('a'+i%26)))
	}
	if len(n.shown) > maxNames || n.bytes > 3<<20 {
		t.Errorf("%d names, %d bytes", len(n.shown), n.bytes)
	}
}

func FuzzLoadObject(f *testing.F) {
	f.Add(sound().build())
	f.Add(tiny{symtab: elf.SHT_DYNSYM, syms: sound().syms}.build())
	if b, err := ownVDSO(); err == nil {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		obj := loadObject(bytes.NewReader(b), 1<<20, nil)
		if obj.bytes() > 2<<20 {
			t.Fatalf("%d bytes", obj.bytes())
		}
		for _, addr := range []uint64{0, 0x401000, 0x401105, ^uint64(0)} {
			name, file, line, ok := obj.find(addr)
			if !ok && cmp.Diff([]any{"", "", 0}, []any{name, file, line}) != "" {
				t.Fatalf("not found, but %q %q %d", name, file, line)
			}
			obj.vaddr(addr)
		}
	})
}

func FuzzNames(f *testing.F) {
	f.Add("_Z3fooi")
	f.Add("_RNvC6_123foo3bar")
	f.Fuzz(func(t *testing.T, s string) {
		if got := newNames().show(s); len(got) > len(s)+2*maxName {
			t.Fatalf("%d bytes of %d", len(got), len(s))
		}
	})
}
