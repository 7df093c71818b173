package netdrop

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// TestGuide: the tables of the guide are those that the probe goes by. -update
// writes them.
func TestGuide(t *testing.T) {
	const path = "../../../docs/guide/noise.md"
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var reasons, places []string
	for _, n := range normal {
		reasons = append(reasons, fmt.Sprintf("| `%s` | %s |", n.name, n.why))
	}
	for place, why := range normalPlaces {
		places = append(places, fmt.Sprintf("| `%s` | %s |", place, why))
	}
	for place, why := range endedPlaces {
		places = append(places, fmt.Sprintf("| `%s` | %s |", place, why))
	}
	slices.Sort(places)
	text := table(t, string(b), "<!-- reasons:", "<!-- places:", reasons)
	text = table(t, text, "<!-- places:", "<!-- end -->", places)
	if text == string(b) {
		return
	}
	if !*update {
		t.Errorf("%s does not list what is normal: rewrite it with -update", path)
		return
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// table puts rows into the table between two marks of a text.
func table(t *testing.T, text, from, to string, rows []string) string {
	t.Helper()
	const ruler = "|---|---|\n"
	i, j := strings.Index(text, from), strings.Index(text, to)
	if i < 0 || j < i {
		t.Fatalf("the guide lacks %q or %q", from, to)
	}
	k := strings.Index(text[i:j], ruler)
	if k < 0 {
		t.Fatalf("the guide has no table after %q", from)
	}
	return text[:i+k] + ruler + strings.Join(rows, "\n") + "\n\n" + text[j:]
}
