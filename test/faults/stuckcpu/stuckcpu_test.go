package stuckcpu

import (
	"errors"
	"os"
	"testing"
	"time"
)

// TestKernelHold: short of what any watchdog reports.
func TestKernelHold(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to load BPF: run `make ktest` as root")
	}
	start := time.Now()
	err := Hold(50 * time.Millisecond)
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip(err)
	}
	if took := time.Since(start); err != nil || took < 50*time.Millisecond {
		t.Errorf("%v after %v, want 50 ms", err, took)
	}
}
