//go:build !noprofiler

package engine

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"huatuo/internal/signal"
)

// becoming works until there is a file, and then becomes the program that it is told. Go
// links to a fixed address, as what starts containers does.
const becoming = `package main

import (
	"os"
	"syscall"
)

var sink int

//go:noinline
func step(i int) { sink += i * 3 }

//go:noinline
func firstProgram() {
	for i := range 3000000 {
		step(i)
	}
}

func main() {
	for {
		if _, err := os.Stat(os.Args[2]); err == nil {
			syscall.Exec(os.Args[1], os.Args[1:2], nil)
		}
		firstProgram()
	}
}
`

const become = `
volatile unsigned long sink;
__attribute__((noinline)) void second_program(void) { for (long i = 0; i < 3000000; i++) sink += i * 3; }
int main(void) { for (;;) second_program(); }
`

// TestKernelExec: a process that becomes another program, which lies where the one
// before it lay, is unwound and named as that other program: interpreters are at
// a fixed address, too.
func TestKernelExec(t *testing.T) {
	for _, tool := range []string{"go", "cc"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s", tool)
		}
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "main.go"), []byte(becoming), 0o600); err != nil {
		t.Fatal(err)
	}
	first := made(t, filepath.Join(dir, "first"), "go", "build", "-o", filepath.Join(dir, "first"), filepath.Join(dir, "main.go"))
	known := filepath.Join(dir, "known") // the first program, well enough
	pid := start(t, first, compile(t, become, "-no-pie"), known)
	before := 0
	take(t, Options{Hertz: 97}, 100, func(s *signal.StackSample) bool {
		one := []*signal.StackSample{s}
		if s.PID == uint32(pid) && shareOf(one, "main.firstProgram") > 0 {
			if before++; before == 50 {
				if err := os.WriteFile(known, nil, 0o600); err != nil {
					t.Error(err)
				}
			}
		}
		return s.PID == uint32(pid) && shareOf(one, "second_program") > 0
	})
	if before < 50 {
		t.Errorf("%d samples of the first program: it was hardly known when it ended", before)
	}
}
