package frames

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

const cSource = `
#include <unistd.h>
volatile unsigned long sink;
__attribute__((noinline)) void spin(long n) { for (long i = 0; i < n; i++) sink += i * 3; }
__attribute__((noinline)) void heavy(void) { spin(3000000); sink++; }
__attribute__((noinline)) void light(void) { spin(1000000); sink++; }
__attribute__((noinline)) void work(void) { for (;;) { heavy(); light(); } }
static char buf[1 << 16];
__attribute__((noinline)) void once(void) { sink += read(0, buf, sizeof buf); sink++; } /* libc keeps no frame pointer */
__attribute__((noinline)) void zeros(void) { for (;;) { once(); sink++; } }
__attribute__((noinline)) void deep(int n) { if (n) deep(n - 1); else for (;;) spin(1000000); sink++; }
int main(int argc, char **argv) { if (argc > 2) deep(200); else if (argc > 1) zeros(); else work(); return 0; }
`

func start(t *testing.T, name string, args ...string) int {
	t.Helper()
	c := exec.Command(name, args...)
	c.Stderr = os.Stderr
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Process.Kill(); c.Wait() })
	return c.Process.Pid
}

func compile(t *testing.T, source string, flags ...string) string {
	t.Helper()
	cc, err := exec.LookPath("cc")
	if err != nil {
		cc, err = exec.LookPath("clang-19")
	}
	if err != nil {
		t.Skip("needs a C compiler")
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "p.c"), []byte(source), 0o600); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "p")
	flags = append(flags, "-O2", "-fno-inline", "-fno-optimize-sibling-calls", "-o", out, filepath.Join(dir, "p.c"))
	if b, err := exec.Command(cc, flags...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, b)
	}
	return out
}

// writeLoop makes a loop device in memory and writes to it until stop is called.
func writeLoop(t *testing.T) (stop func()) {
	t.Helper()
	fd, err := unix.MemfdCreate("huatuo-test-loop", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Ftruncate(fd, 32<<20); err != nil {
		t.Fatal(err)
	}
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("needs loop devices: %v", err)
	}
	defer control.Close()
	n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
	if err != nil {
		t.Skipf("needs loop devices: %v", err)
	}
	dev, err := os.OpenFile(fmt.Sprintf("/dev/loop%d", n), os.O_RDWR, 0)
	if err != nil {
		t.Skipf("needs loop devices: %v", err)
	}
	if err := unix.IoctlSetInt(int(dev.Fd()), unix.LOOP_SET_FD, fd); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var over atomic.Bool
	wg.Go(func() {
		block := bytes.Repeat([]byte{1}, 1<<20)
		for i := int64(0); !over.Load(); i = (i + 1) % 32 {
			if _, err := dev.WriteAt(block, i<<20); err != nil {
				t.Errorf("write to the loop device: %v", err)
				return
			}
			if i == 31 {
				if err := dev.Sync(); err != nil {
					t.Errorf("sync the loop device: %v", err)
					return
				}
			}
		}
	})
	return func() {
		over.Store(true)
		wg.Wait()
		if err := unix.IoctlSetInt(int(dev.Fd()), unix.LOOP_CLR_FD, 0); err != nil {
			t.Errorf("free the loop device: %v", err)
		}
		dev.Close()
	}
}
