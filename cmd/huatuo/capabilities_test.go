package main

import (
	"os"
	"strings"
	"testing"
)

// TestGuideTellsCapabilities: the guide and the doctor say the same of each
// capability.
func TestGuideTellsCapabilities(t *testing.T) {
	b, err := os.ReadFile("../../docs/guide/privileges.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range allCapabilities() {
		row := ""
		for line := range strings.Lines(string(b)) {
			if strings.HasPrefix(line, "| `CAP_"+strings.ToUpper(c.name)+"` |") {
				row = line
			}
		}
		if !strings.HasSuffix(row, "| "+c.without+" |\n") {
			t.Errorf("docs/guide/privileges.md says of %s: %q, the doctor says %q", c.name, row, c.without)
		}
		named := strings.Contains(string(b), "+"+c.name+",") || strings.Contains(string(b), "+"+c.name+"\n")
		if named != c.needed {
			t.Errorf("%s is in the example: %v, needed: %v", c.name, named, c.needed)
		}
	}
}
