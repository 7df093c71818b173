package app

import (
	"bytes"
	"fmt"
	"os"
	"testing"
)

// filePages returns the resident memory that is backed by files, in KiB.
func filePages(t *testing.T) (n int) {
	t.Helper()
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := bytes.Cut(b, []byte("RssFile:"))
	if _, err := fmt.Sscan(string(rest), &n); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestForgetPages: the pages of the binary go, and the program goes on.
func TestForgetPages(t *testing.T) {
	exe, err := os.ReadFile("/proc/self/exe") // into the page cache
	if err != nil {
		t.Fatal(err)
	}
	before := filePages(t)
	if err := forgetPages(); err != nil {
		t.Fatal(err)
	}
	after := filePages(t)
	t.Logf("%d KiB of a binary of %d, then %d", before, len(exe)/1024, after)
	if after >= before*3/4 {
		t.Errorf("%d KiB before, %d after", before, after)
	}
}
