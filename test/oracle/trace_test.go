package oracle

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// trace is an instance of the kernel's trace ring, which is nobody else's.
type trace struct {
	t      *testing.T
	dir    string
	events map[uint16]*format // by id
}

// format is where an event has its fields.
type format struct {
	name   string
	fields map[string]field
}

type field struct{ offset, size int }

// record is one event of the ring.
type record struct {
	ts   uint64 // CLOCK_MONOTONIC, ns: the clock of bpf_ktime_get_ns
	cpu  int
	ev   *format
	data []byte
}

// num reads an unsigned field of up to eight bytes.
func (r record) num(name string) uint64 {
	f, ok := r.ev.fields[name]
	if !ok || f.offset+f.size > len(r.data) {
		panic(fmt.Sprintf("BUG: %s has no field %s", r.ev.name, name))
	}
	var b [8]byte
	copy(b[:], r.data[f.offset:f.offset+f.size])
	return binary.LittleEndian.Uint64(b[:])
}

// newTrace makes an instance with kb KiB for each CPU, tracing off, and removes
// it when the test ends.
func newTrace(t *testing.T, kb int, events ...string) *trace {
	t.Helper()
	root := ""
	for _, d := range []string{"/sys/kernel/tracing", "/sys/kernel/debug/tracing"} {
		if _, err := os.Stat(d + "/instances"); err == nil {
			root = d
			break
		}
	}
	if root == "" {
		t.Skip("needs tracefs: mount -t tracefs none /sys/kernel/tracing")
	}
	tr := &trace{t: t, dir: filepath.Join(root, "instances", fmt.Sprintf("huatuo-oracle-%d", os.Getpid())), events: map[uint16]*format{}}
	if err := os.Mkdir(tr.dir, 0o755); err != nil {
		t.Skipf("needs an instance of the trace ring: %v", err)
	}
	t.Cleanup(func() {
		if err := os.Remove(tr.dir); err != nil {
			t.Error(err)
		}
	})
	tr.write("tracing_on", "0")
	tr.write("trace_clock", "mono")
	tr.write("buffer_size_kb", strconv.Itoa(kb))
	for _, e := range events {
		id, f := tr.readFormat(e)
		tr.events[id] = f
		tr.write("events/"+e+"/enable", "1")
	}
	return tr
}

func (tr *trace) write(file, text string) {
	tr.t.Helper()
	if err := os.WriteFile(filepath.Join(tr.dir, file), []byte(text), 0); err != nil {
		tr.t.Fatal(err)
	}
}

var (
	idLine    = regexp.MustCompile(`(?m)^ID: (\d+)$`)
	fieldLine = regexp.MustCompile(`(?m)^\tfield:[^;]*?(\w+)(?:\[\w*\])?;\toffset:(\d+);\tsize:(\d+);`)
)

func (tr *trace) readFormat(event string) (uint16, *format) {
	tr.t.Helper()
	b, err := os.ReadFile(filepath.Join(tr.dir, "events", event, "format"))
	if err != nil {
		tr.t.Fatal(err)
	}
	id, f, err := parseFormat(filepath.Base(event), string(b))
	if err != nil {
		tr.t.Fatal(err)
	}
	return id, f
}

func parseFormat(name, text string) (uint16, *format, error) {
	m := idLine.FindStringSubmatch(text)
	if m == nil {
		return 0, nil, fmt.Errorf("format of %s without an id", name)
	}
	id, err := strconv.ParseUint(m[1], 10, 16)
	if err != nil {
		return 0, nil, fmt.Errorf("parse id of %s: %w", name, err)
	}
	f := &format{name: name, fields: map[string]field{}}
	for _, m := range fieldLine.FindAllStringSubmatch(text, -1) {
		offset, err1 := strconv.Atoi(m[2])
		size, err2 := strconv.Atoi(m[3])
		if err := errors.Join(err1, err2); err != nil {
			return 0, nil, fmt.Errorf("parse field of %s: %w", name, err)
		}
		f.fields[m[1]] = field{offset, size}
	}
	return uint16(id), f, nil
}

// lost counts the events that were overwritten because the ring was too small.
func (tr *trace) lost() int {
	tr.t.Helper()
	files, err := filepath.Glob(filepath.Join(tr.dir, "per_cpu/cpu*/stats"))
	if err != nil || len(files) == 0 {
		tr.t.Fatalf("statistics of the trace ring: %v, %v", files, err)
	}
	n := 0
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			tr.t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			k, v, _ := strings.Cut(strings.TrimSpace(line), ": ")
			if k == "overrun" || k == "commit overrun" || k == "dropped events" {
				c, err := strconv.Atoi(v)
				if err != nil {
					tr.t.Fatalf("%s: %v", f, err)
				}
				n += c
			}
		}
	}
	return n
}

// records reads and consumes all that is in the ring, in the order of time.
func (tr *trace) records() []record {
	tr.t.Helper()
	files, err := filepath.Glob(filepath.Join(tr.dir, "per_cpu/cpu*/trace_pipe_raw"))
	if err != nil {
		tr.t.Fatal(err)
	}
	var out []record
	for _, f := range files {
		cpu, err := strconv.Atoi(strings.TrimPrefix(filepath.Base(filepath.Dir(f)), "cpu"))
		if err != nil {
			tr.t.Fatal(err)
		}
		fd, err := syscall.Open(f, syscall.O_RDONLY|syscall.O_NONBLOCK, 0)
		if err != nil {
			tr.t.Fatal(err)
		}
		page := make([]byte, os.Getpagesize())
		for {
			n, err := syscall.Read(fd, page)
			if n <= 0 || err != nil {
				break // EAGAIN: nothing is left
			}
			rs, err := tr.parsePage(cpu, page[:n])
			if err != nil {
				syscall.Close(fd)
				tr.t.Fatal(err)
			}
			out = append(out, rs...)
		}
		syscall.Close(fd)
	}
	slices.SortStableFunc(out, func(a, b record) int {
		switch {
		case a.ts < b.ts:
			return -1
		case a.ts > b.ts:
			return 1
		}
		return 0
	})
	return out
}

// Types of entries of a page (include/linux/ring_buffer.h).
const (
	typePadding    = 29
	typeTimeExtend = 30
	typeTimeStamp  = 31
)

// parsePage reads one page: its first time stamp, how many bytes follow, and
// entries whose headers have type or length in 5 bits, and in 27 the time since
// the entry before.
func (tr *trace) parsePage(cpu int, p []byte) ([]record, error) {
	if len(p) < 16 {
		return nil, fmt.Errorf("page of %d bytes", len(p))
	}
	ts := binary.LittleEndian.Uint64(p)
	size := int(binary.LittleEndian.Uint32(p[8:]) & 0xfffff) // flags are above
	if size > len(p)-16 {
		size = len(p) - 16
	}
	var out []record
	for b := p[16 : 16+size]; len(b) >= 4; {
		head := binary.LittleEndian.Uint32(b)
		kind, delta := head&31, uint64(head>>5)
		var more uint32
		if kind == 0 || kind >= typePadding {
			if kind == typePadding && delta == 0 {
				return out, nil // nothing follows on this page
			}
			if len(b) < 8 {
				return nil, fmt.Errorf("entry of type %d is cut short", kind)
			}
			more = binary.LittleEndian.Uint32(b[4:])
		}
		body, length := 4, int(kind)*4
		switch kind {
		case typeTimeExtend:
			ts += delta | uint64(more)<<27
			b = b[8:]
			continue
		case typeTimeStamp:
			ts = ts&^(1<<59-1) | delta | uint64(more)<<27
			b = b[8:]
			continue
		case typePadding:
			ts += delta
			if length = int(more); length+4 > len(b) {
				return nil, fmt.Errorf("padding of %d bytes, %d are left", length, len(b))
			}
			b = b[length+4:]
			continue
		case 0:
			body, length = 8, int(more)-4
		}
		ts += delta
		if length < 8 || body+length > len(b) {
			return nil, fmt.Errorf("entry of %d bytes, %d are left", length, len(b))
		}
		data := b[body : body+length]
		if ev := tr.events[binary.LittleEndian.Uint16(data)]; ev != nil {
			out = append(out, record{ts: ts, cpu: cpu, ev: ev, data: slices.Clone(data)})
		}
		b = b[body+length:]
	}
	return out, nil
}
