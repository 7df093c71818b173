package gpu

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"huatuo/internal/kern/kmsg"
	"huatuo/internal/signal"
)

// XidError is the body of a gpu_error event. The record's process is the one
// that the driver names.
type XidError struct {
	GPU     string `json:"gpu" help:"PCI address of the GPU, as 0000:3b:00.0"`
	Xid     uint32 `json:"xid" help:"number of the error, as in NVIDIA's catalogue"`
	Meaning string `json:"meaning,omitempty" help:"what the number stands for, of those that matter most"`
	Message string `json:"message" help:"the driver's message"`
}

// meanings of the numbers that matter most; application: mostly the mistake of a program.
var meanings = map[uint32]struct {
	text        string
	application bool
}{
	13:  {"exception of the graphics engine", true},
	31:  {"access to memory that is not mapped", true},
	32:  {"commands that make no sense", false},
	43:  {"the GPU stopped a program's work", true},
	45:  {"work was taken off the GPU, after another error or because its program ended", true},
	48:  {"memory error that ECC could not correct", false},
	61:  {"internal controller: breakpoint or warning", false},
	62:  {"internal controller stopped", false},
	63:  {"a page or row of memory is to be retired", false},
	64:  {"a page or row of memory could not be retired", false},
	69:  {"exception of the graphics engine's class", true},
	74:  {"NVLink error", false},
	79:  {"the GPU has fallen off the bus", false},
	92:  {"many memory errors that ECC corrected", false},
	94:  {"memory error that could not be corrected, contained to one program", false},
	95:  {"memory error that could not be corrected, not contained: reset the GPU", false},
	119: {"the GPU's system processor does not answer", false},
	120: {"error of the GPU's system processor", false},
	154: {"the driver tells what is needed to recover", false},
}

type xidKey struct {
	gpu string
	xid uint32
}

const (
	// maxXids bounds the series: NVIDIA's catalogue has some 170 numbers, a GPU that fails shows a few.
	maxXids = 256
	// eventsPerLook bounds the events of one look at the log: a GPU that dies
	// reports an error for each channel.
	eventsPerLook = 10
)

// xids watches the kernel log.
type xids struct {
	emit    func(*signal.Record)
	clock   func(mono uint64) time.Time
	emitted atomic.Uint64
	limited atomic.Uint64

	suppressed uint64

	mu     sync.Mutex
	counts map[xidKey]float64
}

// read takes what is new in the log.
func (x *xids) read(log *kmsg.Reader) error {
	left := eventsPerLook
	for {
		rec, ok, err := log.Next()
		if err != nil || !ok {
			return err
		}
		left = x.take(&rec, left)
	}
}

// take looks at one record and returns how many events may still be sent.
func (x *xids) take(rec *kmsg.Record, left int) int {
	if rec.Facility != 0 {
		return left // a process wrote it
	}
	r := parseXid(rec.Text)
	if r == nil {
		return left
	}
	b := r.Body.(*XidError)
	x.mu.Lock()
	if k := (xidKey{b.GPU, b.Xid}); x.counts[k] > 0 || len(x.counts) < maxXids {
		x.counts[k]++
	}
	x.mu.Unlock()
	if left == 0 {
		x.suppressed++
		x.limited.Add(1)
		return 0
	}
	r.Time, r.Suppressed = x.clock(uint64(rec.SinceBoot)), x.suppressed
	x.suppressed = 0
	x.emitted.Add(1)
	x.emit(r)
	return left - 1
}

func (x *xids) collect(b *signal.Batch) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	for k, n := range x.counts {
		b.Value(xidErrors, n, k.gpu, strconv.FormatUint(uint64(k.xid), 10))
	}
	return nil
}

// xidLine is what the driver writes:
//
//	NVRM: Xid (PCI:0000:3b:00): 79, pid=1234, name=python3, GPU has fallen off the bus.
//
// with a function number, without PCI:, with quotes around the pid, or without process in some versions.
var (
	xidLine = regexp.MustCompile(`^NVRM: Xid \((?:PCI:)?([0-9a-fA-F]{4,8}:[0-9a-fA-F]{2}:[0-9a-fA-F]{2})(?:\.[0-7])?\): ([0-9]{1,4}), ?(.*)$`)
	xidPID  = regexp.MustCompile(`pid='?([0-9]{1,7})'?`)
	xidName = regexp.MustCompile(`name='?([^,']{1,64})'?,`)
)

// parseXid returns the record of a line of the log, nil when it is another.
func parseXid(text string) *signal.Record {
	m := xidLine.FindStringSubmatch(text)
	if m == nil {
		return nil
	}
	n, err := strconv.ParseUint(m[2], 10, 32)
	gpu := address(m[1] + ".0")
	if err != nil || gpu == "" {
		return nil
	}
	b := &XidError{GPU: gpu, Xid: uint32(n), Meaning: meanings[uint32(n)].text, Message: m[3]}
	r := &signal.Record{Schema: failed, Body: b, Title: fmt.Sprintf("GPU %s reports Xid %d", gpu, n)}
	if b.Meaning != "" {
		r.Title += ": " + b.Meaning
	}
	if meanings[uint32(n)].application {
		r.Severity = signal.Warning
	}
	if p := xidPID.FindStringSubmatch(m[3]); p != nil {
		pid, _ := strconv.ParseUint(p[1], 10, 32)
		r.Process.PID = uint32(pid)
	}
	if p := xidName.FindStringSubmatch(m[3]); p != nil && !strings.HasPrefix(p[1], "<") {
		r.Process.Comm = p[1]
	}
	return r
}
