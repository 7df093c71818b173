package enrich

import (
	"testing"

	"huatuo/internal/signal"
)

// TestArgs takes the command line from the kernel, and never a secret with it.
func TestArgs(t *testing.T) {
	h := newHost(t)
	redact, err := NewRedactor(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		redact *Redactor
		has    string // what the record has already
		want   string
	}{
		{redact, "", "psql --password=*** -h db"},
		{redact, "psql", "psql"},
		{nil, "", ""}, // command lines are not wanted
	} {
		e := New(Options{Clock: h.clock, Redact: tt.redact})
		r := &signal.Record{Args: []string{"psql", "--password=hunter2", "-h", "db"}, Process: signal.Process{PID: 1 << 30, Cmdline: tt.has}}
		e.Record(r)
		if r.Process.Cmdline != tt.want || r.Args != nil {
			t.Errorf("command line %q, want %q; arguments left: %q", r.Process.Cmdline, tt.want, r.Args)
		}
	}
}
