package symbol

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
)

// seeds returns the small ELF files with debug information in testdata.
func seeds(t testing.TB) [][]byte {
	t.Helper()
	paths, err := filepath.Glob("testdata/*.elf")
	if err != nil || len(paths) == 0 {
		t.Fatal("no seeds", err)
	}
	var all [][]byte
	for _, p := range paths {
		b, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b)
	}
	return all
}

// readAll reads all lines of a file as readIndex and readUnit do, which stop a
// panic of the library; here a panic of our own would show.
func readAll(t testing.TB, file []byte) (units int) {
	d, err := openDWARF(bytes.NewReader(file), 1<<20)
	if err != nil {
		return 0
	}
	if d.bytes > 1<<20 {
		t.Fatalf("%d bytes of DWARF", d.bytes)
	}
	obj := loadObject(bytes.NewReader(file), 1<<20, nil)
	x, err := d.index(obj.isCode)
	if err != nil {
		return 0
	}
	for _, s := range x.spans {
		u, err := d.unit(s.root, obj.base())
		if err != nil {
			continue
		}
		units++
		for a := s.low; a < min(s.high, s.low+64); a++ {
			if len(u.find(a)) > maxInline+1 {
				t.Fatal("too many frames")
			}
		}
		u.find(0)
		u.find(^uint64(0))
	}
	return units
}

func FuzzDWARF(f *testing.F) {
	for _, b := range seeds(f) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 1<<20 {
			return
		}
		defer func() {
			if e := recover(); e != nil && !libraryPanic() {
				panic(e)
			}
		}()
		readAll(t, b)
	})
}

// libraryPanic says whether the panic that is being handled was raised in the
// standard library.
func libraryPanic() bool {
	pcs := make([]uintptr, 64)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(0, pcs)])
	for {
		f, more := frames.Next()
		if bytes.HasPrefix([]byte(f.Function), []byte("debug/")) {
			return true
		}
		if f.Function == "huatuo/internal/symbol.readAll" || !more {
			return false
		}
	}
}

// TestHostileDWARF changes every byte of the debug information in turn.
func TestHostileDWARF(t *testing.T) {
	for _, b := range seeds(t) {
		if readAll(t, b) == 0 {
			t.Fatal("a sound file has no lines")
		}
		step := max(len(b)/700, 1)
		for at := 64; at < len(b); at += step {
			for _, v := range []byte{0, 0xff, b[at] + 1} {
				bad := bytes.Clone(b)
				bad[at] = v
				r := New(Options{})
				obj := loadObject(bytes.NewReader(bad), 1<<20, nil)
				open := openerOf(bad)
				r.readIndex(obj, fileKey{}, open)
				x, _ := r.lines.index.get(fileKey{})
				for _, s := range x.spans[:min(len(x.spans), 4)] {
					r.readUnit(obj, lineKey{root: s.root}, open)
				}
			}
		}
	}
}

func TestUnitHeader(t *testing.T) {
	le := binary.LittleEndian
	v4 := []byte{20, 0, 0, 0, 4, 0, 0, 0, 0, 0, 8}
	v5 := []byte{20, 0, 0, 0, 5, 0, 1, 8, 0, 0, 0, 0}
	big := append(append([]byte{0xff, 0xff, 0xff, 0xff}, le.AppendUint64(nil, 40)...), 5, 0, 1, 8)
	pad := make([]byte, 64)
	for _, tt := range []struct {
		name       string
		info       []byte
		root, next uint64
		ok         bool
	}{
		{"DWARF 4", append(v4, pad...), 11, 24, true},
		{"DWARF 5", append(v5, pad...), 12, 24, true},
		{"DWARF 5, 64-bit", append(big, pad...), 24, 52, true},
		{"types", append(changed(v5, 6, 2), pad...), 12, 24, false},
		{"longer than there is", v4[:11], 0, 0, false},
		{"length of all", append([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, pad...), 0, 0, false},
		{"no length", pad, 0, 0, false},
	} {
		root, next, ok := unitHeader(tt.info, 0, le)
		if root != tt.root && ok || next != tt.next || ok != tt.ok {
			t.Errorf("%s: %d %d %v, want %d %d %v", tt.name, root, next, ok, tt.root, tt.next, tt.ok)
		}
	}
}

// TestUnitLines looks addresses up in a table made by hand.
func TestUnitLines(t *testing.T) {
	u := &unitLines{
		base: 0x1000, files: []string{"", "a.c", "b.h"}, names: []string{"one", "two"},
		rows:  []lineRow{{0x10, 1, 5}, {0x20, 2, 7}, {0x30, 0, 0}, {0x40, 1, 9}},
		funcs: []funcSpan{{0x10, 0x30, 0, 2}, {0x40, 0x50, 2, 2}},
		calls: []inlined{{0x18, 0x28, 0, 1, 6, 1}, {0x20, 0x24, 1, 2, 8, 2}},
	}
	for addr, want := range map[uint64][]call{
		0x1000: nil, 0x100f: nil, 0x1030: nil, 0x10: nil, 0: nil, ^uint64(0): nil, 0x100001010: nil,
		0x1010: {{"", "a.c", 5}},
		0x1018: {{"one", "a.c", 5}, {"", "a.c", 6}},
		0x1022: {{"two", "b.h", 7}, {"one", "b.h", 8}, {"", "a.c", 6}},
		0x1024: {{"one", "b.h", 7}, {"", "a.c", 6}},
		0x1028: {{"", "b.h", 7}},
		0x1044: {{"", "a.c", 9}},
	} {
		if got := u.find(addr); !slices.Equal(got, want) {
			t.Errorf("%#x: %v, want %v", addr, got, want)
		}
	}
	var none *unitLines
	if none.find(1) != nil {
		t.Error("nothing has lines")
	}
}

// TestSortRows: sequences come in any order, and where one ends another may begin.
func TestSortRows(t *testing.T) {
	u := &unitReader{out: &unitLines{rows: []lineRow{
		{0x40, 1, 9}, {0x50, 0, 0}, // behind the other in memory
		{0x10, 1, 5}, {0x10, 1, 6}, {0x20, 1, 6}, {0x30, 2, 7}, {0x40, 0, 0},
	}}}
	u.sortRows()
	want := []lineRow{{0x10, 1, 6}, {0x30, 2, 7}, {0x40, 1, 9}, {0x50, 0, 0}}
	if !slices.Equal(u.out.rows, want) {
		t.Errorf("%v, want %v", u.out.rows, want)
	}
}

func FuzzNotes(f *testing.F) {
	f.Add([]byte("\x04\x00\x00\x00\x14\x00\x00\x00\x03\x00\x00\x00GNU\x0001234567890123456789"))
	f.Add([]byte("\x04\x00\x00\x00\xff\xff\xff\xff\x03\x00\x00\x00GNU\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		l := &loader{r: &budgetReader{r: bytes.NewReader(b), left: 1 << 20}}
		l.f = &elf.File{FileHeader: elf.FileHeader{ByteOrder: binary.LittleEndian}}
		if id := l.noteID(0, uint64(len(b))); len(id) > 2*maxBuildID {
			t.Fatal(id)
		}
	})
}

// openerOf opens bytes.
func openerOf(b []byte) opener {
	return func() (io.ReaderAt, func(), fileKey, place, reason) {
		return bytes.NewReader(b), func() {}, fileKey{}, place{}, named
	}
}
