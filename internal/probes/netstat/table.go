package netstat

import (
	"bytes"
	"slices"

	"huatuo/internal/kern/procfs"
	"huatuo/internal/signal"
)

// table is what the files are read into: all fields, and where each number that
// they want goes.
type table struct {
	fields []field
	inner  []*signal.Schema // by index of fields: for workloads, nil for none
	slots  map[key]int      // index of reading.numbers
	at     [][]int          // by index of fields: its numbers
}

func newTable(fields ...[]field) *table {
	t := &table{fields: slices.Concat(fields...), slots: map[key]int{}}
	of := map[*signal.Schema]*signal.Schema{}
	for _, f := range t.fields {
		var in *signal.Schema
		if f.per {
			if in = of[f.schema]; in == nil {
				c := *f.schema
				c.Name, c.Scope = "huatuo_container_"+c.Name[len("huatuo_"):], signal.Workload
				c.Read = "As " + f.schema.Name + ", in the workload's own network namespace."
				in = &c
				of[f.schema] = in
			}
		}
		t.inner = append(t.inner, in)
		var at []int
		for _, k := range f.keys {
			if _, ok := t.slots[k]; !ok {
				t.slots[k] = len(t.slots)
			}
			at = append(at, t.slots[k])
		}
		t.at = append(t.at, at)
	}
	return t
}

// schemas lists every metric once, in order, those of workloads last.
func (t *table) schemas() []*signal.Schema {
	var host, inner []*signal.Schema
	for i, f := range t.fields {
		if !slices.Contains(host, f.schema) {
			host = append(host, f.schema)
		}
		if in := t.inner[i]; in != nil && !slices.Contains(inner, in) {
			inner = append(inner, in)
		}
	}
	return append(host, inner...)
}

// reading is what one network namespace's files say.
type reading struct {
	t       *table
	numbers []uint64
	known   []bool
}

func newReading(t *table) *reading {
	return &reading{t: t, numbers: make([]uint64, len(t.slots)), known: make([]bool, len(t.slots))}
}

func (r *reading) reset() { clear(r.known) }

// set keeps a number that somebody wants. One with a sign (Tcp's MaxConn) or that
// is none is not kept.
func (r *reading) set(section, name, number []byte) {
	i, ok := r.t.slots[key{string(section), string(name)}]
	if !ok {
		return
	}
	if n, ok := procfs.Uint(number); ok {
		r.numbers[i], r.known[i] = n, true
	}
}

// value returns that of a field, and false when this kernel does not have it.
func (r *reading) value(field int) (float64, bool) {
	var sum uint64
	for _, i := range r.t.at[field] {
		if !r.known[i] {
			return 0, false
		}
		sum += r.numbers[i]
	}
	return float64(sum) * r.t.fields[field].scale, true
}

// pairs parses /proc/net/snmp and netstat: a line of names and one of numbers,
// both with the section before them. It is length-safe.
func (r *reading) pairs(b []byte) {
	for len(b) > 0 {
		var names, numbers []byte
		names, b, _ = bytes.Cut(b, []byte{'\n'})
		numbers, b, _ = bytes.Cut(b, []byte{'\n'})
		section, names, ok := bytes.Cut(names, []byte{':'})
		same, numbers, ok2 := bytes.Cut(numbers, []byte{':'})
		if !ok || !ok2 || !bytes.Equal(section, same) {
			return // not the form: whatever follows would be misread
		}
		for {
			var name, number []byte
			name, names = word(names)
			number, numbers = word(numbers)
			if len(name) == 0 || len(number) == 0 {
				break
			}
			r.set(section, name, number)
		}
	}
}

// lines parses /proc/net/snmp6: a name and a number on each.
func (r *reading) lines(b []byte) {
	for line := range bytes.Lines(b) {
		name, rest := word(line)
		number, _ := word(rest)
		r.set(snmp6, name, number)
	}
}

var snmp6 = []byte("snmp6")

// sockets parses /proc/net/sockstat: "TCP: inuse 1 orphan 0".
func (r *reading) sockets(b []byte) {
	for line := range bytes.Lines(b) {
		section, rest, ok := bytes.Cut(line, []byte{':'})
		for ok {
			var name, number []byte
			name, rest = word(rest)
			number, rest = word(rest)
			if len(number) == 0 {
				break
			}
			r.set(section, name, number)
		}
	}
}

// word cuts the first word off.
func word(b []byte) (w, rest []byte) {
	i := 0
	for i < len(b) && isBlank(b[i]) {
		i++
	}
	j := i
	for j < len(b) && !isBlank(b[j]) {
		j++
	}
	return b[i:j], b[j:]
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' || c == '\n' }
