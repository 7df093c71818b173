package probetest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Unpack makes the files that the text file at path describes, each below a
// line "-- its/path --", and returns the directory: a whole fake /proc and
// /sys in one file that can be read at a glance.
func Unpack(t testing.TB, path string) (root string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	root = t.TempDir()
	name, content := "", strings.Builder{}
	flush := func() {
		if name == "" {
			return
		}
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for line := range strings.Lines(string(b)) {
		if head, ok := strings.CutPrefix(line, "-- "); ok && strings.HasSuffix(head, " --\n") {
			flush()
			name = strings.TrimSuffix(head, " --\n")
			content.Reset()
			continue
		}
		content.WriteString(line)
	}
	flush()
	return root
}
