package cpustat

import (
	"bytes"
	"errors"
	"fmt"

	"huatuo/internal/kern/procfs"
	"huatuo/internal/signal"
)

// userHZ is the unit of the times in /proc/stat: USER_HZ, part of the kernel's
// ABI and 100 on every architecture that huatuo runs on.
const userHZ = 100

// stat is the content of /proc/stat. What the file lacks is not in counters and
// softirq. One stat serves all rounds: its slices are used again.
type stat struct {
	all      [nModes]uint64
	columns  int // how many modes this kernel tells
	cores    []coreTicks
	counters []counter
	softirq  []uint64 // by vector
}

type coreTicks struct {
	id    int
	ticks [nModes]uint64
}

type counter struct {
	schema *signal.Schema
	value  uint64
}

// parse is length-safe: any input gives a stat or an error.
func (s *stat) parse(b []byte) error {
	s.cores, s.counters, s.softirq = s.cores[:0], s.counters[:0], s.softirq[:0]
	found := false
	for line := range bytes.Lines(b) {
		key, rest, _ := bytes.Cut(line, []byte(" "))
		switch {
		case bytes.HasPrefix(key, []byte("cpu")):
			ticks, n, err := parseTicks(rest)
			if err != nil {
				return fmt.Errorf("line %q: %w", key, err)
			}
			if len(key) == len("cpu") {
				s.all, s.columns, found = ticks, n, true
			} else if id, ok := procfs.Uint(key[len("cpu"):]); ok && id < 1<<20 {
				s.cores = append(s.cores, coreTicks{int(id), ticks})
			}
		case string(key) == "softirq":
			s.parseSoftirq(rest)
		default:
			if schema := schemaOf(key); schema != nil {
				first, _, _ := bytes.Cut(rest, []byte(" ")) // of intr: the sum
				if v, ok := procfs.Uint(bytes.TrimSpace(first)); ok {
					s.counters = append(s.counters, counter{schema, v})
				}
			}
		}
	}
	if !found {
		return errors.New(`no line "cpu"`)
	}
	return nil
}

func schemaOf(key []byte) *signal.Schema {
	switch string(key) {
	case "intr":
		return interrupts
	case "ctxt":
		return contextSwitches
	case "btime":
		return bootTime
	case "processes":
		return forks
	case "procs_running":
		return running
	case "procs_blocked":
		return blocked
	}
	return nil
}

// parseTicks reads the columns of a cpu line. user and nice include guest and
// guest_nice in the file and do not in the result, so that the modes add up.
func parseTicks(b []byte) (t [nModes]uint64, n int, err error) {
	for f := range bytes.FieldsSeq(b) {
		if n == nModes {
			break // a column of a future kernel
		}
		v, ok := procfs.Uint(f)
		if !ok {
			return t, 0, fmt.Errorf("bad number %q", f)
		}
		t[n] = v
		n++
	}
	if n < idle+1 {
		return t, 0, fmt.Errorf("%d columns, want at least %d", n, idle+1)
	}
	t[user] -= min(t[user], t[guest])
	t[nice] -= min(t[nice], t[guestNice])
	return t, n, nil
}

// parseSoftirq reads the sum, which it skips, and a count for each vector.
func (s *stat) parseSoftirq(b []byte) {
	n := -1
	for f := range bytes.FieldsSeq(b) {
		if n >= len(vectors) {
			return
		}
		v, ok := procfs.Uint(f)
		if !ok {
			return
		}
		if n >= 0 {
			s.softirq = append(s.softirq, v)
		}
		n++
	}
}
