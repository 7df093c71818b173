package procfs

import "bytes"

// Pressure is the time that tasks stood still for want of one resource, of
// the host or of one cgroup, since it exists. A kind that the file lacks has
// no value.
type Pressure struct {
	Some, Full       uint64 // microseconds: at least one task, all non-idle tasks
	HasSome, HasFull bool
}

// ParsePressure reads a pressure file (/proc/pressure/*, *.pressure). Only the
// totals are taken: the averages are rates of them over windows chosen in advance.
func ParsePressure(b []byte) Pressure {
	var p Pressure
	for line := range bytes.Lines(b) {
		kind, rest, _ := bytes.Cut(line, []byte(" "))
		_, total, ok := bytes.Cut(rest, []byte("total="))
		if !ok {
			continue
		}
		v, ok := Uint(bytes.TrimSpace(total))
		if !ok {
			continue
		}
		switch string(kind) {
		case "some":
			p.Some, p.HasSome = v, true
		case "full":
			p.Full, p.HasFull = v, true
		}
	}
	return p
}
