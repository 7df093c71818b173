package nvme

import (
	"testing"

	"huatuo/internal/probes/probetest"
)

// TestExample keeps the event of a log page that a device begins to warn in.
func TestExample(t *testing.T) {
	page := newLog(nil)
	e, p := start(t, map[string]func() ([]byte, error){
		"nvme0": func() ([]byte, error) { return page, nil },
		"nvme1": func() ([]byte, error) { return newLog(nil), nil },
	})
	look := func() { p.asker.Ask(t.Context(), p.names()); p.judge() }
	look()
	page = newLog(func(b []byte) { b[0], b[160] = 1<<2, 3 })
	look()
	if n := len(e.Records()); n != 1 {
		t.Fatalf("%d events, want 1", n)
	}
	probetest.Example(t, e.Records()[0], "Made of a health log page as the NVMe specification lays it out: no device at hand fails.")
}
