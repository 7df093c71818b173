package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestCheck(t *testing.T) {
	for _, tt := range []struct {
		name, script string
		want         []string
	}{
		{"nothing", "true", nil},
		{"same bytes again", "printf a > a", nil},
		{"all three", "printf x > a; rm dir/b; mkdir new; printf c > new/c; mkdir bin; printf d > bin/d", []string{"a: stale", "dir/b: no longer made", "new/c: missing"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := t.TempDir()
			for name, text := range map[string]string{"a": "a", "dir/b": "b", ".git/HEAD": "x"} {
				p := filepath.Join(root, name)
				if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			got, err := check(root, []string{"sh", "-ec", tt.script})
			if err != nil || !slices.Equal(got, tt.want) {
				t.Errorf("check = %q, %v; want %q", got, err, tt.want)
			}
			if b, err := os.ReadFile(filepath.Join(root, "a")); err != nil || string(b) != "a" {
				t.Errorf("the tree was touched: %q, %v", b, err)
			}
		})
	}
}

func TestCheckFails(t *testing.T) {
	_, err := check(t.TempDir(), []string{"sh", "-c", "echo broken; exit 3"})
	if err == nil || !strings.Contains(err.Error(), "broken") {
		t.Errorf("check = %v, want the output of the command", err)
	}
}
