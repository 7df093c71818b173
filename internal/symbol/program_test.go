package symbol

import (
	"debug/elf"
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"

	"huatuo/internal/signal"
)

// TestEndedProgram: a program whose process has ended before anybody read its
// symbols is found by its path, and another file of that name is not taken for it.
func TestEndedProgram(t *testing.T) {
	exe := compileTarget(t)
	var st unix.Stat_t
	if err := unix.Stat(exe, &st); err != nil {
		t.Fatal(err)
	}
	tg := start(t, exec.Command(exe))
	at, vaddr := mappingOf(t, tg, tg.addrs["exported_function"]), valueOf(t, exe, "exported_function")
	tg.stop()
	find := func(p *Program) signal.Frame {
		var got []signal.Frame
		waitFor(t, func() (ready bool) { got, ready = p.Find(vaddr); return ready })
		return got[0]
	}
	if f := find(newResolver().Program(st.Ino, at)); f.Function != "exported_function" {
		t.Errorf("of an ended process: %+v", f)
	}
	b, err := os.ReadFile(exe)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(exe, exe+".old"); err != nil { // keeps the inode in use
		t.Fatal(err)
	}
	if err := os.WriteFile(exe, b, 0o755); err != nil {
		t.Fatal(err)
	}
	if f := find(newResolver().Program(st.Ino, at)); f.Missing != "file gone" {
		t.Errorf("another file: %+v", f)
	}
}

// valueOf is the linked address of a function.
func valueOf(t *testing.T, exe, name string) uint64 {
	t.Helper()
	f, err := elf.Open(exe)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	syms, err := f.Symbols()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range syms {
		if s.Name == name {
			return s.Value
		}
	}
	t.Fatalf("no %s in %s", name, exe)
	return 0
}
