package fs

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"huatuo/internal/kern/ring"
	"huatuo/internal/probe"
	"huatuo/internal/signal"
)

// FSError is the body of an fs_error event. The record has a process and a
// stack where the file system found itself damaged: who asked for it then.
type FSError struct {
	Device   string `json:"device" help:"block device, as the file system names it"`
	FSType   string `json:"fstype" help:"type of the file system; bdev for pages of the device itself"`
	Kind     string `json:"kind" help:"damage (the file system found itself inconsistent) or write (data that was handed over could not be written, and is lost)"`
	Error    string `json:"error" help:"error number of a write, as ENOSPC or EIO"`
	Inode    uint64 `json:"inode,omitempty" help:"number of the file whose data is lost; find DIR -xdev -inum N names it"`
	Function string `json:"function" help:"where the damage was found"`
	Line     uint32 `json:"line,omitempty" help:"line in that function's file"`
}

// ReadonlyRemount is the body of a readonly_remount event.
type ReadonlyRemount struct {
	Device     string `json:"device" help:"what is mounted"`
	FSType     string `json:"fstype" help:"type of the file system"`
	Mountpoint string `json:"mountpoint" help:"where it is mounted"`
}

// decoder turns samples into records.
type decoder struct {
	clock func(uint64) time.Time
}

func (d *decoder) decode(raw []byte) (*signal.Record, error) {
	w, err := ring.View[bpfFsErrorWire](raw)
	if err != nil {
		return nil, fmt.Errorf("decode fs_error: %w", err)
	}
	if w.Kind > 1 {
		return nil, fmt.Errorf("decode fs_error: kind %d", w.Kind)
	}
	b := &FSError{Device: probe.CString(w.Device[:]), FSType: probe.CString(w.Fstype[:]), Inode: w.Inode}
	if b.FSType == "bdev" || b.Device == "" { // s_id is the word bdev there
		b.Device, b.Inode = fmt.Sprintf("%d:%d", w.Dev>>20, w.Dev&(1<<20-1)), 0
	}
	r := &signal.Record{Schema: failed, Time: d.clock(w.Ts), Suppressed: w.Suppressed, Body: b}
	if w.Kind == 1 {
		b.Kind, b.Error = "write", unix.ErrnoName(unix.Errno(w.Error))
		if b.Error == "" {
			b.Error = fmt.Sprintf("error %d", w.Error)
		}
		r.Title = fmt.Sprintf("%s on %s lost data that could not be written: %s", b.FSType, b.Device, b.Error)
		return r, nil
	}
	b.Kind, b.Function, b.Line = "damage", probe.CString(w.Function[:]), w.Line
	r.Title = fmt.Sprintf("%s on %s is damaged: found in %s", b.FSType, b.Device, b.Function)
	r.CgroupID, r.KernelIPs = w.Cgroup, probe.Stack(w.Frames, w.Stack[:])
	r.Process = signal.Process{PID: w.Tgid, TID: w.Pid, Comm: probe.CString(w.Comm[:])}
	return r, nil
}
