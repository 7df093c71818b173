package blockio

import (
	"fmt"
	"time"

	"huatuo/internal/kern/cgroup"
	"huatuo/internal/kern/ring"
	"huatuo/internal/probe"
	"huatuo/internal/signal"
)

// status is one class of outcome.
type status struct {
	name  string // label value
	errno string // what the caller gets
}

// statuses by the number the program gives them: enum ht_io_class of bpf/include/block.h.
var statuses = [...]status{
	{"ok", ""}, {"unsupported", "EOPNOTSUPP"}, {"timeout", "ETIMEDOUT"}, {"nospace", "ENOSPC"}, {"transport", "ENOLINK"},
	{"target", "EREMOTEIO"}, {"reservation", "EBADE"}, {"medium", "ENODATA"}, {"protection", "EILSEQ"}, {"resource", "ENOMEM"},
	{"io", "EIO"}, {"dm_requeue", "EREMCHG"}, {"again", "EAGAIN"}, {"other", ""},
}

func statusOf(class int) status { return statuses[min(max(class, 0), len(statuses)-1)] }

func statusNames() []string {
	var names []string
	for _, s := range statuses[1:] {
		names = append(names, s.name)
	}
	return names
}

// States of a stalled request.
const (
	queued    = "queued"
	onDevice  = "on_device"
	completed = "completed"
)

// IOStall is the body of an io_stall event. The record's process is the one
// that sent the request.
type IOStall struct {
	Device        string  `json:"device" help:"whole disk"`
	Op            string  `json:"op" help:"read, write, flush, discard or other"`
	Sector        uint64  `json:"sector" help:"first sector, of 512 bytes, on the whole disk"`
	Bytes         uint32  `json:"bytes" unit:"bytes" help:"size of the request"`
	State         string  `json:"state" help:"queued: it has not been issued to the device; on_device: the device has it and hangs; completed: it is over"`
	TotalSeconds  float64 `json:"total_seconds" unit:"seconds" help:"time since the request was made, until it was complete or until now"`
	QueueSeconds  float64 `json:"queue_seconds" unit:"seconds" help:"part of it before the request was issued the last time"`
	DeviceSeconds float64 `json:"device_seconds" unit:"seconds" help:"part of it since the request was issued the last time"`
	Requeues      uint32  `json:"requeues" help:"how often it went back to the queue"`
	Pending       int     `json:"pending" help:"requests of the device that were beyond the threshold and not complete, this one included; 0 in an event of a completed request"`
	Status        string  `json:"status" help:"ok, or the class of failure of a completed request; empty while it is under way"`
}

// IOError is the body of an io_error event. The record's process is the one
// that sent the request.
type IOError struct {
	Device       string  `json:"device" help:"whole disk"`
	Op           string  `json:"op" help:"read, write, flush, discard or other"`
	Sector       uint64  `json:"sector" help:"first sector, of 512 bytes, on the whole disk"`
	Bytes        uint32  `json:"bytes" unit:"bytes" help:"size of what failed"`
	Status       string  `json:"status" help:"class of the failure: timeout, nospace, transport, target, reservation, medium, protection, io or other"`
	Errno        string  `json:"errno" help:"what the caller gets; empty when the class does not tell"`
	TotalSeconds float64 `json:"total_seconds" unit:"seconds" help:"time since the request was made"`
	Requeues     uint32  `json:"requeues" help:"how often it went back to the queue before"`
}

var (
	stalled = signal.EventOf[IOStall]("io_stall", signal.AreaBlock, signal.Warning,
		"A block request took longer than the threshold, or hangs.").When(
		"A request that takes `stall` (1s) from when it was made, while it hangs and when it completes: beyond any healthy device and far below the kernel's own limit of 30 s.",
		"Disks that spin up, and cloud volumes that are throttled or being restored from a snapshot, take seconds now and then.")
	failed = signal.EventOf[IOError]("io_error", signal.AreaBlock, signal.Critical,
		"A device or its driver failed a block request.").When(
		"Any request that the device failed: there is no threshold, for data were not read or written.",
		"Errors that answer a question (an operation that the device lacks, no-wait I/O that would have to wait) are counted and make none. A removable drive without a medium fails each look at it.")
)

// decoder turns samples into records. It does no I/O but for the name of a
// device that it has not met before.
type decoder struct {
	clock  func(uint64) time.Time
	names  interface{ nameOr(uint32) string }
	groups *cgroup.Translator
}

func (d *decoder) decode(raw []byte) (*signal.Record, error) {
	w, err := ring.View[bpfIoWire](raw)
	if err != nil {
		return nil, fmt.Errorf("decode block I/O: %w", err)
	}
	r := &signal.Record{Time: d.clock(w.Ts), Suppressed: w.Suppressed, CgroupID: d.identity(w.Io.Cgroup)}
	if w.Known != 0 {
		r.Process = sender(&w.Io)
	}
	op, dev := opOf(w.Io.Flags), d.names.nameOr(w.Io.Dev)
	st := statusOf(int(w.Error))
	switch w.Kind {
	case 0:
		b := &IOStall{Device: dev, Op: op, Sector: w.Io.Sector, Bytes: w.Io.Bytes, State: completed, Requeues: w.Io.Requeues, Status: st.name}
		b.times(&w.Io, w.Ts)
		r.Schema, r.Body = stalled, b
		r.Title = fmt.Sprintf("%s of %d bytes on %s took %s%s", op, b.Bytes, dev, round(b.TotalSeconds), b.share())
	case 1:
		b := &IOError{Device: dev, Op: op, Sector: w.Io.Sector, Bytes: w.Done, Status: st.name, Errno: st.errno, Requeues: w.Io.Requeues}
		b.TotalSeconds = seconds(w.Io.Made, w.Ts)
		r.Schema, r.Body = failed, b
		r.Title = fmt.Sprintf("%s of %d bytes at sector %d of %s failed: %s", op, b.Bytes, b.Sector, dev, st.describe())
	default:
		return nil, fmt.Errorf("decode block I/O: unknown kind %d", w.Kind)
	}
	r.Keys, r.Lasted = []string{deviceKey(w.Io.Dev)}, time.Duration(w.Ts-min(w.Io.Made, w.Ts))
	return r, nil
}

// deviceKey is what other events know a device by: its number, as sysfs writes it.
func deviceKey(dev uint32) string { return fmt.Sprintf("dev:%d:%d", dev>>20, dev&(1<<20-1)) }

func (d *decoder) identity(group uint64) uint64 {
	if d.groups == nil {
		return 0
	}
	return d.groups.ID(group)
}

func sender(f *bpfFlight) signal.Process {
	return signal.Process{PID: f.Tgid, TID: f.Pid, Comm: probe.CString(f.Comm[:])}
}

func opOf(flags uint32) string { return ops[min(int(flags&0xff), len(ops)-1)] }

// times fills in where the request spent its time until now.
func (b *IOStall) times(f *bpfFlight, now uint64) {
	b.TotalSeconds = seconds(f.Made, now)
	if f.Issued == 0 { // never, or not known to have been
		b.QueueSeconds = b.TotalSeconds
		return
	}
	b.QueueSeconds, b.DeviceSeconds = seconds(f.Made, f.Issued), seconds(f.Issued, now)
}

func (b *IOStall) share() string {
	switch {
	case b.DeviceSeconds > 0.9*b.TotalSeconds:
		return ", all of it on the device"
	case b.DeviceSeconds > 0.1*b.TotalSeconds:
		return fmt.Sprintf(", %s of it on the device", round(b.DeviceSeconds))
	default:
		return ", nearly all of it in the queue"
	}
}

func (s status) describe() string {
	if s.errno == "" {
		return s.name
	}
	return fmt.Sprintf("%s (%s)", s.name, s.errno)
}

func seconds(from, to uint64) float64 {
	if from == 0 || to < from {
		return 0
	}
	return time.Duration(to - from).Seconds()
}

func round(secs float64) time.Duration {
	return time.Duration(secs * float64(time.Second)).Round(time.Millisecond)
}
