package main

import (
	"bytes"
	"testing"
	"time"

	sig "huatuo/internal/signal"
)

// TestPrintable: what an event holds cannot steer the terminal, and its verdict
// and what is known of it are told.
func TestPrintable(t *testing.T) {
	var out bytes.Buffer
	w := &watcher{out: &out, stacks: true}
	err := w.print(&sig.Document{
		Time: time.Unix(0, 0), Kind: "k", Title: "ev\x1b[31mil \u009b ends", Verdict: "dropped\rhere", Known: []string{"nfs_server"},
		UserStack: []sig.Frame{{Function: "f\x07"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := time.Unix(0, 0).Local().Format("15:04:05.000") + "  k            ev.[31mil . ends  [known: nfs_server]\n    cause  dropped.here\n    user   f.\n"
	if got := out.String(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
