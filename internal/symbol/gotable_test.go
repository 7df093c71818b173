package symbol

import (
	"debug/elf"
	"encoding/binary"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"
)

// TestUserGo resolves this test's own stack and compares with what the runtime
// says of it.
func TestUserGo(t *testing.T) {
	pcs := callers()
	ips := make([]uint64, len(pcs))
	for i, pc := range pcs {
		ips[i] = uint64(pc)
	}
	// The first of a stack is exact, Callers has return addresses only.
	got := newResolver().User(uint32(os.Getpid()), 0, append([]uint64{0}, ips...))[1:]
	for i, pc := range pcs {
		fn := runtime.FuncForPC(pc - 1)
		file, line := fn.FileLine(pc - 1)
		if got[i].Function != fn.Name() || got[i].File != file || got[i].Line != line {
			t.Errorf("frame %d is %+v, want %s %s:%d", i, got[i], fn.Name(), file, line)
		}
	}
	if len(pcs) < 3 || !strings.HasSuffix(got[0].Function, "symbol.callers") {
		t.Errorf("stack: %+v", got)
	}
}

//go:noinline
func callers() []uintptr {
	pcs := make([]uintptr, 16)
	return pcs[:runtime.Callers(1, pcs)]
}

// outer has code of its own and code that it inlines.
func inlinee(b []byte) (n int) {
	for _, c := range b {
		n = n*31 + int(c)
	}
	return n
}

//go:noinline
func outer(b []byte) int {
	n := inlinee(b)
	runtime.KeepAlive(b)
	return n + len(b)
}

func TestInlined(t *testing.T) {
	outer(nil)
	r := newResolver()
	entry := uint64(reflect.ValueOf(outer).Pointer())
	own, inlined := 0, 0
	for pc := entry; runtime.FuncForPC(uintptr(pc)).Entry() == uintptr(entry); pc++ {
		f := r.User(uint32(os.Getpid()), 0, []uint64{pc})[0]
		if !strings.HasSuffix(f.Function, "symbol.outer") {
			break // alignment behind it
		}
		if f.Line == 0 {
			inlined++
			continue
		}
		own++
		if _, line := runtime.FuncForPC(uintptr(entry)).FileLine(uintptr(entry)); f.Line < line || f.Line > line+5 {
			t.Fatalf("pc %#x is on line %d, outer begins on %d", pc, f.Line, line)
		}
	}
	if own == 0 || inlined == 0 {
		t.Errorf("%d addresses with a line, %d inlined", own, inlined)
	}
}

const goProgram = `package main

import (
	"fmt"
	"io"
	"os"
	"reflect"
	_ %q
)

//go:noinline
func known() { fmt.Print() }

func main() {
	known()
	fmt.Printf("known %%x\n", reflect.ValueOf(known).Pointer())
	fmt.Printf("runtime %%x\n", reflect.ValueOf(reflect.DeepEqual).Pointer())
	fmt.Println("ready")
	io.Copy(io.Discard, os.Stdin)
}
`

func TestUserStrippedGo(t *testing.T) {
	if _, err := exec.LookPath("go"); err != nil {
		t.Skipf("install Go to run this test: %v", err)
	}
	for _, tt := range []struct {
		name, with string
		flags      []string
		cgo        bool
	}{
		{"plain", "os", []string{"-ldflags=-s -w"}, false},
		{"position independent", "os", []string{"-ldflags=-s -w", "-buildmode=pie"}, false},
		{"C linked in front", "runtime/cgo", []string{"-ldflags=-s -w -linkmode=external"}, true},
		{"C, position independent", "runtime/cgo", []string{"-ldflags=-s -w -linkmode=external", "-buildmode=pie"}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := exec.LookPath("gcc"); tt.cgo && err != nil {
				t.Skipf("install gcc to run this test: %v", err)
			}
			dir := t.TempDir()
			write(t, filepath.Join(dir, "main.go"), goProgram, tt.with)
			write(t, filepath.Join(dir, "go.mod"), "module target\n\ngo 1.24\n")
			cmd := exec.Command("go", append([]string{"build", "-o", "target"}, append(tt.flags, ".")...)...)
			cmd.Dir = dir
			cmd.Env = append(os.Environ(), "GOFLAGS=", "GOWORK=off", "CGO_ENABLED=0")
			if tt.cgo {
				cmd.Env = append(cmd.Env, "CGO_ENABLED=1")
			}
			if b, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("go build: %v\n%s", err, b)
			}
			exe := filepath.Join(dir, "target")
			tg := start(t, exec.Command(exe))
			r := newResolver()
			got := one(t, r, tg.pid, tg.addrs["known"])
			if got.Function != "main.known" || filepath.Base(got.File) != "main.go" || got.Line != 12 {
				t.Errorf("known is %+v", got)
			}
			if got := one(t, r, tg.pid, tg.addrs["runtime"]+1); got.Function != "reflect.DeepEqual" {
				t.Errorf("reflect.DeepEqual is %+v", got)
			}
			everyFunction(t, exe)
		})
	}
}

// everyFunction checks the table's order, which a wrong reading would break.
func everyFunction(t *testing.T, exe string) {
	t.Helper()
	f, err := os.Open(exe)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	obj := loadObject(f, 16<<20, nil)
	g := obj.golang
	if g == nil || g.count < 1000 {
		t.Fatalf("no function table: %+v", obj)
	}
	lines := 0
	for i := range g.count {
		entry := g.entry(i)
		if g.entry(i+1) <= entry {
			continue // empty
		}
		name, file, line, ok := g.find(entry)
		if !ok || name == "" || (file == "") != (line == 0) {
			t.Fatalf("function %d at %#x: %q %q:%d", i, entry, name, file, line)
		}
		if line > 0 {
			lines++
		}
	}
	if lines < g.count*8/10 {
		t.Errorf("%d of %d functions have a line", lines, g.count)
	}
	if small := loadObject(f, g.bytes()*3/4, nil); small.golang == nil || small.golang.pcs != nil {
		t.Errorf("with less room the lines should go, not the names: %+v", small.why)
	}
	if none := loadObject(f, 4096, nil); none.golang != nil || none.why != tooLarge {
		t.Errorf("with no room: %v, %+v", none.why, none.golang)
	}
}

func FuzzGoTable(f *testing.F) {
	if exe, err := os.Executable(); err == nil {
		if e, err := elf.Open(exe); err == nil {
			if s := e.Section(".gopclntab"); s != nil {
				b := make([]byte, 4096)
				s.ReadAt(b, 0) //nolint:errcheck // a seed
				f.Add(b, uint32(100), uint64(0x401000), true)
			}
			e.Close()
		}
	}
	f.Add([]byte("\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00"), uint32(1), uint64(0), false)
	f.Fuzz(func(t *testing.T, b []byte, count uint32, pc uint64, short bool) {
		g := &goTable{order: binary.LittleEndian, quantum: 1, text: 0x400000, short: short, functions: b, names: b, units: b, files: b, pcs: b}
		g.count = int(min(count, uint32(len(b)/8)))
		for _, at := range []uint64{pc, g.text, g.entry(g.count / 2), math.MaxUint64} {
			name, file, line, ok := g.find(at)
			if !ok && (name != "" || file != "" || line != 0) {
				t.Fatalf("find(%#x) = %q %q %d, not found", at, name, file, line)
			}
		}
	})
}
