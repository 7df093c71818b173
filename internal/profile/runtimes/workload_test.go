package runtimes

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"huatuo/internal/signal"
)

// start runs a program until the test ends, and returns its process id and the
// line that it prints when it is ready.
func start(t *testing.T, attr *syscall.SysProcAttr, args ...string) (uint32, string) {
	t.Helper()
	c := exec.Command(args[0], args[1:]...)
	c.SysProcAttr = attr
	c.Stderr = os.Stderr
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Process.Kill()
		c.Wait()
		os.Remove(fmt.Sprintf("/tmp/.java_pid%d", c.Process.Pid)) // which a JVM removes only when it ends by itself
	})
	r := bufio.NewReader(out)
	line, err := r.ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "ready") {
		t.Fatalf("%v: %q, %v", args, line, err)
	}
	go io.Copy(io.Discard, r) // it must not wait for a reader
	return uint32(c.Process.Pid), strings.TrimSpace(line)
}

// built compiles the Go program.
func built(t *testing.T) string {
	t.Helper()
	needs(t, "go")
	dir := t.TempDir()
	src, err := os.ReadFile("testdata/serve.go.txt")
	if err != nil {
		t.Fatal(err)
	}
	main, out := filepath.Join(dir, "main.go"), filepath.Join(dir, "serve")
	if err := os.WriteFile(main, src, 0o600); err != nil {
		t.Fatal(err)
	}
	if b, err := exec.Command("go", "build", "-o", out, main).CombinedOutput(); err != nil {
		t.Fatalf("go build: %v: %s", err, b)
	}
	return out
}

// compiled compiles the Java program and returns the folder that has it.
func compiled(t *testing.T) string {
	t.Helper()
	for _, c := range []string{"javac", "java"} {
		if _, err := exec.LookPath(c); err != nil {
			t.Skipf("needs %s: apt-get install default-jdk-headless", c)
		}
	}
	dir := t.TempDir()
	if b, err := exec.Command("javac", "-d", dir, "testdata/Kept.java").CombinedOutput(); err != nil {
		t.Fatalf("javac: %v: %s", err, b)
	}
	return dir
}

func needs(t *testing.T, program string) string {
	t.Helper()
	p, err := exec.LookPath(program)
	if err != nil {
		t.Skipf("needs %s", program)
	}
	return p
}

func timeout(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// fetch gets a profile as a tree.
func fetch(t *testing.T, r signal.RuntimeRequest) *signal.FlameGraph {
	t.Helper()
	p, err := New("/proc").Fetch(timeout(t), r)
	if err != nil {
		t.Fatalf("%s: %v", r.Profile, err)
	}
	g, err := Graph(p, r.Profile, r.Sample)
	if err != nil {
		t.Fatalf("%s: %v", r.Profile, err)
	}
	return g
}

// of sums what a tree has below a function, its own and that of all.
func of(g *signal.FlameGraph, function string) (self, total int64) {
	for _, n := range g.Nodes {
		if g.Frames[n.Frame].Function == function {
			self += n.Self
			total += n.Total
		}
	}
	return self, total
}
