package kernlog

import (
	"testing"
	"time"

	"huatuo/internal/kern/kmsg"
	"huatuo/internal/probes/probetest"
	"huatuo/internal/signal"
)

// TestExamples keeps what no machine at hand can be made to report.
func TestExamples(t *testing.T) {
	const (
		guest  = "Recorded from /dev/kmsg of a virtual machine with Linux 6.1 (amd64), where a module provoked it."
		format = "Made of a report as the format strings of Linux 6.12 write it: the machines at hand have no watchdog for it that could be provoked."
	)
	for _, x := range []struct {
		schema  *signal.Schema
		records []kmsg.Record
		source  string
	}{
		{rcuStall, recorded(t, "testdata/6.1-amd64.kmsg"), guest},
		{kernelWarning, recorded(t, "testdata/6.1-amd64.kmsg"), guest},
		{kernelBug, recorded(t, "testdata/6.1-amd64.kmsg"), guest},
		{hardLockup, lines(textOf(t, hardLockup)), format},
	} {
		kept := false
		for _, r := range parse(x.records) {
			if rec := r.record(); rec.Schema == x.schema && !kept {
				kept = true
				rec.Time = time.Date(2026, 1, 2, 3, 4, 5, int(r.stamp%1e9), time.UTC)
				probetest.Example(t, rec, x.source)
			}
		}
		if !kept {
			t.Errorf("no %s among the reports", x.schema.Name)
		}
	}
}

// textOf is the first report of a kind among the formats.
func textOf(t *testing.T, s *signal.Schema) string {
	for _, f := range formats {
		if f.schema == s {
			return f.text
		}
	}
	t.Fatalf("no format of %s", s.Name)
	return ""
}
