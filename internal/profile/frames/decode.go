package frames

import (
	"encoding/binary"
	"fmt"
	"sync/atomic"
	"unsafe"

	"huatuo/internal/probe"
)

// header is what comes before the addresses in struct stack_wire.
const header = int(unsafe.Offsetof(bpfStackWire{}.Ips))

// most is how many frames of one stack the program takes.
const most = len(bpfStackWire{}.Ips) / 2

// sample is what the program sent.
type sample struct {
	mono         uint64 // CLOCK_MONOTONIC
	pid, tid     uint32
	cpu          uint32
	comm         string
	kernel, user []uint64 // innermost first
}

// decode reads a sample, which a perf buffer may have padded. What it returns
// does not refer to raw.
func decode(raw []byte) (sample, error) {
	if len(raw) < header {
		return sample{}, fmt.Errorf("%d bytes, want at least %d", len(raw), header)
	}
	e := binary.LittleEndian // the object is compiled for these alone
	u32 := func(at uintptr) uint32 { return e.Uint32(raw[at:]) }
	u16 := func(at uintptr) int { return int(e.Uint16(raw[at:])) }
	var w bpfStackWire
	kernel, user := u16(unsafe.Offsetof(w.Kernel)), u16(unsafe.Offsetof(w.User))
	if kernel > most || user > most || len(raw) < header+8*(kernel+user) {
		return sample{}, fmt.Errorf("%d bytes for %d and %d frames", len(raw), kernel, user)
	}
	ips := make([]uint64, kernel+user)
	for i := range ips {
		ips[i] = e.Uint64(raw[header+8*i:])
	}
	comm := unsafe.Offsetof(w.Comm)
	return sample{
		mono: e.Uint64(raw[unsafe.Offsetof(w.Ts):]),
		pid:  u32(unsafe.Offsetof(w.Tgid)), tid: u32(unsafe.Offsetof(w.Pid)), cpu: u32(unsafe.Offsetof(w.Cpu)),
		comm:   probe.CString(raw[comm : comm+uintptr(len(w.Comm))]),
		kernel: ips[:kernel:kernel], user: ips[kernel:],
	}, nil
}

// loss counts samples that were taken and not handed over.
type loss struct {
	queue     atomic.Uint64 // names came too slowly
	undecoded atomic.Uint64
	told      uint64 // of all kinds, so far
}

// since adds up what is known and returns what has come since the last call.
func (l *loss) since(ringFull, missed uint64) uint64 {
	sum := ringFull + missed + l.queue.Load() + l.undecoded.Load()
	if sum < l.told { // the kernel's counters could not be read
		return 0
	}
	n := sum - l.told
	l.told = sum
	return n
}
