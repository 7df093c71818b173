package symbol

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"huatuo/internal/signal"
)

// compile builds a C or C++ source and returns the path of the program.
func compile(t testing.TB, compiler, source string, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath(compiler); err != nil {
		t.Skipf("install %s to run this test: %v", compiler, err)
	}
	out := filepath.Join(t.TempDir(), "target")
	args = append(args, "-o", out, source)
	if b, err := exec.Command(compiler, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", compiler, args, err, b)
	}
	return out
}

func compileTarget(t testing.TB, args ...string) string {
	args = append([]string{"-O1", "-falign-functions=1", "-fno-reorder-functions", "-fno-toplevel-reorder"}, args...)
	return compile(t, "gcc", "testdata/target.c", args...)
}

// target is a running program that has printed its addresses.
type target struct {
	pid   uint32
	addrs map[string]uint64
	stop  func() // returns when it has ended
}

func start(t testing.TB, cmd *exec.Cmd) *target {
	t.Helper()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(10*time.Second, func() { cmd.Process.Kill() }) //nolint:errcheck // it may have ended
	stopped := false
	tg := &target{pid: uint32(cmd.Process.Pid), addrs: make(map[string]uint64)}
	tg.stop = func() {
		if !stopped {
			stopped = true
			in.Close()
			io.Copy(io.Discard, out) //nolint:errcheck // to its end, good or bad
			cmd.Wait()               //nolint:errcheck // what it returns is not the matter
			timer.Stop()
		}
	}
	t.Cleanup(tg.stop)
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		name, hex, ok := strings.Cut(lines.Text(), " ")
		if !ok {
			if name == "ready" {
				return tg
			}
			continue
		}
		v, err := strconv.ParseUint(hex, 16, 64)
		if err != nil {
			t.Fatalf("target printed %q", lines.Text())
		}
		tg.addrs[name] = v
	}
	t.Fatalf("target ended before it was ready: %v", lines.Err())
	return nil
}

// startTarget compiles and starts testdata/target.c.
func startTarget(t testing.TB, args ...string) *target {
	t.Helper()
	return start(t, exec.Command(compileTarget(t, args...)))
}

// newResolver returns one that waits long: tests run on busy machines.
func newResolver() *Resolver { return New(Options{Wait: 10 * time.Second}) }

// one resolves a single address.
func one(t testing.TB, r *Resolver, pid uint32, addr uint64) signal.Frame {
	t.Helper()
	if addr == 0 {
		t.Fatal("the target did not print the address")
	}
	return r.User(pid, 0, []uint64{addr})[0]
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("run as root: it makes namespaces")
	}
}

func namespaces(cmd *exec.Cmd, flags uintptr) *exec.Cmd {
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags}
	return cmd
}

func write(t testing.TB, path, format string, args ...any) {
	t.Helper()
	if err := os.WriteFile(path, fmt.Appendf(nil, format, args...), 0o644); err != nil {
		t.Fatal(err)
	}
}

func itoa(n uint32) string { return strconv.FormatUint(uint64(n), 10) }
