package load

import (
	"os"
	"path/filepath"
	"testing"
)

func TestWithheld(t *testing.T) {
	for _, c := range []struct {
		lacks []string
		want  string
	}{
		{nil, "the kernel, a security module or a seccomp filter refuses it (before Linux 5.8 CAP_SYS_ADMIN is needed)"},
		{[]string{"CAP_PERFMON"}, "this process lacks CAP_PERFMON"},
		{[]string{"CAP_BPF", "CAP_PERFMON"}, "this process lacks CAP_BPF and CAP_PERFMON"},
	} {
		if got := withheld(c.lacks); got != c.want {
			t.Errorf("%v: %q", c.lacks, got)
		}
	}
}

func TestEffective(t *testing.T) {
	for _, c := range []struct {
		text string
		want uint64
		ok   bool
	}{
		{"Name:\tx\nCapPrm:\t0000000000000001\nCapEff:\t000000c000080000\n", 1<<39 | 1<<38 | 1<<19, true},
		{"CapEff:\tnonsense\n", 0, false},
		{"Name:\tx\n", 0, false},
	} {
		path := filepath.Join(t.TempDir(), "status")
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := effective(path); got != c.want || (err == nil) != c.ok {
			t.Errorf("%q: %#x, %v", c.text, got, err)
		}
	}
	if _, err := effective("/nonexistent"); err == nil {
		t.Error("a missing file has capabilities")
	}
}
