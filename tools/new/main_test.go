package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const empty = `// Package probes lists the probes.
package probes

import (
	"huatuo/internal/probe"
)

// All returns every probe.
func All() []probe.Spec {
	return []probe.Spec{}
}
`

func TestAddLine(t *testing.T) {
	src := []byte(empty)
	var err error
	for _, name := range []string{"second", "first"} {
		if src, err = addLine(src, name); err != nil {
			t.Fatal(err)
		}
	}
	want := `// Package probes lists the probes.
package probes

import (
	"huatuo/internal/probe"
	"huatuo/internal/probes/first"
	"huatuo/internal/probes/second"
)

// All returns every probe.
func All() []probe.Spec {
	return []probe.Spec{
		second.Spec(),
		first.Spec(),
	}
}
`
	if string(src) != want {
		t.Errorf("got\n%s\nwant\n%s", src, want)
	}
	if _, err := addLine([]byte("package probes\n"), "x"); err == nil {
		t.Error("a file without a list is accepted")
	}
}

func TestNames(t *testing.T) {
	root := t.TempDir()
	for _, name := range []string{"", "Upper", "with_underscore", "9lives", "range", "../etc", "averyverylongname"} {
		if err := scaffold(root, name); err == nil {
			t.Errorf("%q is accepted", name)
		}
	}
}

// TestScaffold makes a probe in a copy of the tree: it compiles, passes its
// tests, and stands in the list. As root its kernel test runs as well.
func TestScaffold(t *testing.T) {
	if _, err := exec.LookPath("clang-19"); err != nil {
		t.Skip("needs clang-19: run `make deps`")
	}
	root := t.TempDir()
	for _, name := range []string{"go.mod", "go.sum", "bpf", "internal/kern", "internal/probe", "internal/signal", "internal/symbol", "internal/probes/probetest"} {
		from := filepath.Join("../..", name)
		st, err := os.Stat(from)
		if err != nil {
			continue
		}
		to := filepath.Join(root, name)
		if st.IsDir() {
			err = os.CopyFS(to, os.DirFS(from))
		} else {
			var data []byte
			if data, err = os.ReadFile(from); err == nil {
				err = os.WriteFile(to, data, 0o644)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, list), []byte(empty), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Chdir(root)
	if err := scaffold(".", "newborn"); err != nil {
		t.Fatal(err)
	}
	if err := scaffold(".", "newborn"); err == nil || !strings.Contains(err.Error(), "exists") {
		t.Errorf("a second scaffold = %v", err)
	}
	if err := generate("internal/probes/newborn"); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"vet", "./internal/probes/..."}, {"test", "-count=1", "./internal/probes/..."}} {
		if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
			t.Errorf("go %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}
