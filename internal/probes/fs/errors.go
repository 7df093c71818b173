package fs

import (
	"path/filepath"
	"strings"
	"sync/atomic"

	"huatuo/internal/kern/procfs"
	"huatuo/internal/kern/sysfs"
	"huatuo/internal/signal"
)

// errorKinds are what file systems count, for the label.
var errorKinds = []string{"error", "warning", "write", "read", "flush", "corruption", "generation"}

var errorsTotal = &signal.Schema{
	Name: "huatuo_filesystem_errors_total", Kind: signal.Metric, Type: signal.Counter, Unit: "1",
	Area: signal.AreaBlock, Scope: signal.Host,
	Help: "Errors that a file system counts of itself.",
	Read: "Any step is an incident. ext4 and btrfs keep the count on the disk: it is of the file system's life, until it is repaired, and not of this boot.",
	Fields: []signal.Field{
		{Name: "device", Help: "block device that the file system is on; the first of several"},
		{Name: "fstype", Help: "ext4 or btrfs", Values: []string{"ext4", "btrfs"}},
		{Name: "kind", Help: "error, warning: ext4; write, read, flush, corruption (a checksum), generation (an old copy): btrfs", Values: errorKinds},
	},
}

// errorCount is one number that a file system tells.
type errorCount struct {
	device, fstype, kind string
	n                    uint64
}

// errorCounts looks for them below /sys. The kernel answers from memory, but takes a reference
// to the file system, so that a look belongs beside a scrape and not into it.
type errorCounts struct {
	root string
	last atomic.Pointer[[]errorCount]
}

func (e *errorCounts) look() {
	all := append(e.ext4(), e.btrfs()...)
	e.last.Store(&all)
}

func (e *errorCounts) collect(b *signal.Batch) {
	if all := e.last.Load(); all != nil {
		for _, c := range *all {
			b.Value(errorsTotal, float64(c.n), c.device, c.fstype, c.kind)
		}
	}
}

func (e *errorCounts) ext4() (all []errorCount) {
	dir := filepath.Join(e.root, "sys/fs/ext4")
	for _, dev := range first(sysfs.List(dir, "")) {
		for file, kind := range map[string]string{"errors_count": "error", "warning_count": "warning"} {
			if n, ok := sysfs.Uint(dir, dev, file); ok {
				all = append(all, errorCount{dev, "ext4", kind, n})
			}
		}
	}
	return all
}

// btrfs adds up the devices of each file system (5.14).
func (e *errorCounts) btrfs() (all []errorCount) {
	dir := filepath.Join(e.root, "sys/fs/btrfs")
	for _, id := range first(sysfs.List(dir, "")) {
		devices := sysfs.List(filepath.Join(dir, id, "devices"), "")
		if len(devices) == 0 { // features
			continue
		}
		sums, found := map[string]uint64{}, false
		for _, dev := range sysfs.List(filepath.Join(dir, id, "devinfo"), "") {
			text, ok := sysfs.Text(dir, id, "devinfo", dev, "error_stats")
			if !ok {
				continue
			}
			found = true
			for kind, n := range parseErrorStats(text) {
				sums[kind] += n
			}
		}
		for _, kind := range errorKinds[2:] {
			if found {
				all = append(all, errorCount{devices[0], "btrfs", kind, sums[kind]})
			}
		}
	}
	return all
}

// parseErrorStats reads lines as "corruption_errs 0".
func parseErrorStats(text string) map[string]uint64 {
	counts := map[string]uint64{}
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		kind, ok := strings.CutSuffix(key, "_errs")
		if n, number := procfs.Uint([]byte(value)); ok && number {
			counts[kind] += n
		}
	}
	return counts
}

// first bounds how many file systems are looked at.
func first(names []string) []string { return names[:min(len(names), maxMounts)] }
