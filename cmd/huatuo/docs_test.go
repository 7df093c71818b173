package main

import (
	"io"
	"testing"
	"time"

	"huatuo/internal/docgen"
)

// TestReferenceIsFresh: docs/reference is what the code says.
func TestReferenceIsFresh(t *testing.T) {
	c := &cli{started: time.Now(), out: io.Discard, err: io.Discard}
	files, err := docs(c.root(), "../../docs/reference")
	if err != nil {
		t.Fatal(err)
	}
	diff, err := docgen.Compare("../../docs/reference", files)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range diff {
		t.Errorf("docs/reference is stale: %s: run `make gen`", d)
	}
	// The comparison itself must be able to fail.
	for name := range files {
		files[name] = append(files[name], 'x')
		if diff, err := docgen.Compare("../../docs/reference", files); err == nil && len(diff) == 0 {
			t.Error("a changed file goes unnoticed")
		}
		break
	}
}
