package e2e

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"huatuo/internal/signal"
	"huatuo/test/faults/slowdisk"
)

// TestShortWaits: a thread that waits for its disk in state D again and again,
// each time below the thresholds, is no hung task and no stall; that it waits is
// in the metrics.
func TestShortWaits(t *testing.T) {
	needRoot(t)
	for _, dev := range []string{"/dev/fuse", "/dev/loop-control"} {
		if _, err := os.Stat(dev); err != nil {
			t.Skipf("needs %s: a kernel with CONFIG_FUSE_FS and CONFIG_BLK_DEV_LOOP", dev)
		}
	}
	// All waits together are longer than the threshold, each is far shorter.
	a := start(t, "--set", "probes.hungtask.threshold=3s")
	d, err := slowdisk.Mount(t.TempDir(), 4<<20)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	l, err := slowdisk.Attach(d.Path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		d.SetDelay(0)
		l.Detach()
	})
	d.SetDelay(300 * time.Millisecond)
	const reads = 16
	began := time.Now()
	for i := range int64(reads) {
		if err := directRead(l.Dev, i); err != nil {
			t.Fatal(err)
		}
	}
	name := filepath.Base(l.Dev)
	a.eventually(20*time.Second, "waits in the metrics", func() error {
		n, ok := a.query(fmt.Sprintf(`histogram_count(sum(huatuo_block_io_total_seconds{device=%q,op="read"}))`, name))
		if !ok || n < reads/2 { // a program may not be called for one or two
			return fmt.Errorf("%v reads counted, %v, of %d", n, ok, reads)
		}
		return nil
	})
	var page signal.EventPage
	a.json(fmt.Sprintf("/api/v1/events?limit=500&kind=hung_task,io_stall&from=%s", url.QueryEscape(began.UTC().Format(time.RFC3339Nano))), &page)
	for _, doc := range page.Events {
		if doc.Kind == "hung_task" && doc.Process != nil && int(doc.Process.PID) == os.Getpid() || doc.Kind == "io_stall" && deviceOf(t, doc) == name {
			t.Errorf("an event of short waits: %s", doc.Title)
		}
	}
}

func deviceOf(t *testing.T, d *signal.Document) string {
	t.Helper()
	var f struct{ Device string }
	if err := json.Unmarshal(d.Fields, &f); err != nil {
		t.Fatal(err)
	}
	return f.Device
}
