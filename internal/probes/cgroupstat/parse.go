package cgroupstat

import (
	"bytes"
	"os"
	"path/filepath"

	"huatuo/internal/kern/procfs"
)

// All parsers are pure and length-safe: what they do not know gives no value.

// keyed tells what the lines "key value" of a file mean.
type keyed map[string]func(*entry, uint64)

func (k keyed) add(e *entry, b []byte) {
	for line := range bytes.Lines(b) {
		key, rest, ok := bytes.Cut(line, []byte(" "))
		if !ok {
			continue
		}
		f := k[string(key)]
		if f == nil {
			continue
		}
		if v, ok := procfs.Uint(bytes.TrimSpace(rest)); ok {
			f(e, v)
		}
	}
}

func parseValue(b []byte) (uint64, bool) { return procfs.Uint(bytes.TrimSpace(b)) }

// parseLimit returns 0 for none: "max", "-1", and the largest number of pages
// that v1 shows for memory without a limit.
func parseLimit(b []byte) uint64 {
	v, ok := parseValue(b)
	if !ok || v >= 1<<62 {
		return 0
	}
	return v
}

// parseCPUMax reads "$QUOTA $PERIOD"; the quota is 0 for "max".
func parseCPUMax(b []byte) (quota, period uint64) {
	q, p, _ := bytes.Cut(bytes.TrimSpace(b), []byte(" "))
	return parseLimit(q), parseLimit(p)
}

// ioSum is a number per operation, summed over devices.
type ioSum struct {
	value [len(ops)]uint64
	seen  [len(ops)]bool
}

func (s *ioSum) add(op int, v uint64) {
	s.value[op] += v
	s.seen[op] = true
}

// parseIOStat reads io.stat of v2: "8:0 rbytes=1 wbytes=2 rios=3 …". keys are
// the names of read, write and discard.
func parseIOStat(b []byte, d *devices, keys ...string) ioSum {
	var s ioSum
	for line := range bytes.Lines(b) {
		device, rest, _ := bytes.Cut(line, []byte(" "))
		if !isDevice(device) || d.stacked(device) {
			continue
		}
		for f := range bytes.FieldsSeq(rest) {
			key, value, _ := bytes.Cut(f, []byte("="))
			for op, name := range keys {
				if string(key) != name {
					continue
				}
				if v, ok := procfs.Uint(value); ok {
					s.add(op, v)
				}
			}
		}
	}
	return s
}

// parseBlkio reads blkio.*: "8:0 Read 1", and a last line "Total 1".
func parseBlkio(b []byte, d *devices) ioSum {
	var s ioSum
	for line := range bytes.Lines(b) {
		device, rest, _ := bytes.Cut(line, []byte(" "))
		if !isDevice(device) || d.stacked(device) {
			continue
		}
		key, value, _ := bytes.Cut(bytes.TrimSpace(rest), []byte(" "))
		op := -1
		switch string(key) {
		case "Read":
			op = 0
		case "Write":
			op = 1
		case "Discard":
			op = 2
		}
		if v, ok := procfs.Uint(value); ok && op >= 0 {
			s.add(op, v)
		}
	}
	return s
}

// isDevice tells major:minor.
func isDevice(b []byte) bool {
	major, minor, ok := bytes.Cut(b, []byte(":"))
	_, ok1 := procfs.Uint(major)
	_, ok2 := procfs.Uint(minor)
	return ok && ok1 && ok2
}

// devices knows which block devices lie on others (device mapper, md). I/O to
// them is counted a second time on the device below, which is the one to sum.
type devices struct {
	root  string
	known map[string]bool
}

func (d *devices) stacked(device []byte) bool {
	if stacked, ok := d.known[string(device)]; ok {
		return stacked
	}
	below, err := os.ReadDir(filepath.Join(d.root, "sys/dev/block", string(device), "slaves"))
	stacked := err == nil && len(below) > 0
	if d.known == nil {
		d.known = map[string]bool{}
	}
	d.known[string(device)] = stacked
	return stacked
}

// forget makes d look again: numbers are given out anew.
func (d *devices) forget() { clear(d.known) }
