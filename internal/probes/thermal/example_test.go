package thermal

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"huatuo/internal/probes/probetest"
)

// TestExample keeps the event of counters that begin to move.
func TestExample(t *testing.T) {
	e := probetest.New(t)
	e.Root = probetest.Unpack(t, "testdata/sys.txt")
	p := newPoller(e.Env, Config{Interval: 15 * time.Second, Timeout: 10 * time.Second})
	look := func() { p.asker.Ask(t.Context(), p.names()); p.judge() }
	look()
	for file, text := range map[string]string{"core_throttle_count": "20\n", "package_throttle_count": "9\n", "package_throttle_total_time_ms": "3500\n"} {
		if err := os.WriteFile(filepath.Join(e.Root, "sys/devices/system/cpu/cpu0/thermal_throttle", file), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	look()
	if n := len(e.Records()); n != 1 {
		t.Fatalf("%d events, want 1", n)
	}
	probetest.Example(t, e.Records()[0], "Made of sysfs files of two packages of which one begins to be slowed down: virtual machines have no sensors.")
}
