package cgroup

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// TestTranslate makes one group in two hierarchies of this host and asks for the one by the other.
func TestTranslate(t *testing.T) {
	l, err := Detect("/")
	if err != nil {
		t.Skipf("needs control groups: %v", err)
	}
	if l.Unified {
		tr, err := l.Translator("blkio")
		if err != nil {
			t.Fatal(err)
		}
		if got := tr.ID(42); got != 42 {
			t.Errorf("one hierarchy: ID(42) = %d", got)
		}
		return
	}
	name := fmt.Sprintf("huatuo-test-translate-%d", os.Getpid())
	from, to := filepath.Join(l.Mount("blkio"), name), filepath.Join(l.IdentityRoot, name)
	for _, d := range []string{from, to} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Skipf("needs root and the v1 hierarchies cpu and blkio: %v", err)
		}
		t.Cleanup(func() { os.Remove(d) })
	}
	tr, err := l.Translator("blkio")
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	id, err := ID(from)
	if err != nil {
		t.Fatal(err)
	}
	want, err := ID(to)
	if err != nil {
		t.Fatal(err)
	}
	if got := tr.ID(id); got != want || want == id {
		t.Errorf("ID(%d) = %d, want %d", id, got, want)
	}
	if err := os.Remove(from); err != nil {
		t.Fatal(err)
	}
	if got := tr.ID(id); got != want {
		t.Errorf("after its end ID(%d) = %d, want %d from memory", id, got, want)
	}
	if got := tr.ID(id + 1<<40); got != 0 {
		t.Errorf("an unknown group gives %d", got)
	}
}
