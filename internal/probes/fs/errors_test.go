package fs

import (
	"maps"
	"os"
	"path/filepath"
	"testing"

	"huatuo/internal/probes/probetest"
	"huatuo/internal/signal"
)

// TestErrorCounts reads what ext4 and a btrfs of two devices tell.
func TestErrorCounts(t *testing.T) {
	root := t.TempDir()
	for name, text := range map[string]string{
		"ext4/features/batched_discard":      "supported\n",
		"ext4/sda1/errors_count":             "3\n",
		"ext4/sda1/warning_count":            "0\n",
		"ext4/sdb1/errors_count":             "x\n",
		"btrfs/features/raid56":              "0\n",
		"btrfs/1-2/devices/sdc":              "",
		"btrfs/1-2/devices/sdd":              "",
		"btrfs/1-2/devinfo/1/error_stats":    "write_errs 1\nread_errs 0\nflush_errs 0\ncorruption_errs 7\ngeneration_errs 0\n",
		"btrfs/1-2/devinfo/2/error_stats":    "write_errs 2\nodd\ncorruption_errs -1\n",
		"btrfs/3-4/devices/sde":              "", // before 5.14
		"btrfs/3-4/devinfo/1/in_fs_metadata": "1\n",
	} {
		file := filepath.Join(root, "sys/fs", name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	e := &errorCounts{root: root}
	b := new(signal.Batch)
	if e.collect(b); len(b.Samples) != 0 {
		t.Errorf("%+v before the first look", b.Samples)
	}
	e.look()
	e.collect(b)
	for _, want := range []struct {
		labels []string
		n      float64
	}{
		{[]string{"sda1", "ext4", "error"}, 3}, {[]string{"sda1", "ext4", "warning"}, 0},
		{[]string{"sdc", "btrfs", "write"}, 3}, {[]string{"sdc", "btrfs", "corruption"}, 7}, {[]string{"sdc", "btrfs", "read"}, 0},
		{[]string{"sdc", "btrfs", "flush"}, 0}, {[]string{"sdc", "btrfs", "generation"}, 0},
	} {
		if n, ok := probetest.Value(b.Samples, errorsTotal.Name, want.labels...); !ok || n != want.n {
			t.Errorf("%q: %g, %v; want %g", want.labels, n, ok, want.n)
		}
	}
	if len(b.Samples) != 7 {
		t.Errorf("%d samples, want 7", len(b.Samples))
	}
}

func TestParseErrorStats(t *testing.T) {
	for text, want := range map[string]map[string]uint64{
		"":                                {},
		"write_errs 4\n":                  {"write": 4},
		"write_errs\nread_errs x\nerrs 1": {},
		"flush_errs 1\nflush_errs 2":      {"flush": 3},
	} {
		if got := parseErrorStats(text); !maps.Equal(got, want) {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}
