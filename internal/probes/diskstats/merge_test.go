package diskstats

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"huatuo/internal/probes/probetest"
	"huatuo/test/faults/diskio"
	"huatuo/test/faults/slowdisk"
)

// TestKernelShapes reads and writes pieces that become one request, discards, and
// flushes, each in a known number.
func TestKernelShapes(t *testing.T) {
	if _, err := os.Stat("/dev/loop-control"); err != nil {
		t.Skip("needs /dev/loop-control: a kernel with CONFIG_BLK_DEV_LOOP")
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root: run `make ktest` as root")
	}
	file := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(file, make([]byte, 4<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := slowdisk.Attach(file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Detach() })
	e := probetest.New(t)
	e.Start(Spec(), nil)
	before := e.Gather()
	for range 3 {
		err = errors.Join(err, diskio.Together(l.Dev, true, 16, 100, 1), diskio.Together(l.Dev, false, 8, 200, -1),
			diskio.Discard(l.Dev, 512, 64), diskio.Flush(l.Dev))
	}
	if err != nil {
		t.Fatal(err)
	}
	after := e.Gather()
	for name, want := range map[string]float64{
		"writes_total": 3, "writes_merged_total": 3 * 15, "write_bytes_total": 3 * 16 * diskio.Block,
		"reads_total": 3, "reads_merged_total": 3 * 7, "read_bytes_total": 3 * 8 * diskio.Block,
		"discards_total": 3, "discard_bytes_total": 3 * 64 * diskio.Block, "flushes_total": 3,
	} {
		was, _ := probetest.Value(before, "huatuo_disk_"+name, l.Name)
		is, ok := probetest.Value(after, "huatuo_disk_"+name, l.Name)
		if !ok {
			t.Logf("this kernel does not tell %s: discards came with 4.18, flushes with 5.5", name)
			continue
		}
		// A scan for partitions may read beside it, and a flush is a write of nothing as well.
		if d := is - was; d < want || d > want*2 {
			t.Errorf("huatuo_disk_%s moved by %g, want %g", name, d, want)
		}
	}
	for _, name := range []string{"discard_seconds_total", "flush_seconds_total"} {
		was, _ := probetest.Value(before, "huatuo_disk_"+name, l.Name)
		if is, ok := probetest.Value(after, "huatuo_disk_"+name, l.Name); ok && (is < was || is > was+10) {
			t.Errorf("huatuo_disk_%s went from %g to %g", name, was, is)
		}
	}
}
