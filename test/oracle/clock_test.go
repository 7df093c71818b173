package oracle

import (
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// monotonic is the time of the trace ring's clock.
func monotonic(t *testing.T) uint64 {
	t.Helper()
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		t.Fatal(err)
	}
	return uint64(ts.Nano())
}

// groupName of this test run.
func groupName(what string) string { return fmt.Sprintf("huatuo-oracle-%s-%d", what, os.Getpid()) }
