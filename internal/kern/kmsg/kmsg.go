// Package kmsg reads the kernel's log from /dev/kmsg, record by record.
//
// Anybody with the right to write to /dev/kmsg can put lines into the log: a
// record's Facility is 0 for those of the kernel.
package kmsg

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Record is one entry of the log.
type Record struct {
	Level     int           // 0 emergency … 7 debug
	Facility  int           // 0: the kernel itself
	Seq       uint64        // grows by one with each record
	SinceBoot time.Duration // the kernel's local clock, near CLOCK_MONOTONIC
	Text      string        // valid UTF-8, without the newline at its end
	Caller    string        // who wrote it, "T12" task 12, "C3" CPU 3 in an interrupt; empty without CONFIG_PRINTK_CALLER
}

// maxRecord is the longest record the kernel gives: a shorter buffer is an error.
const maxRecord = 8192

// Reader reads the log. It is not safe for concurrent use.
type Reader struct {
	fd   int
	wake int // eventfd that ends a Wait, 0: none yet
	buf  []byte
	next uint64 // sequence number that is expected, 0: any
	lost uint64
}

// Open opens the log at path, "/dev/kmsg", for what is written from now on. It
// needs CAP_SYSLOG where kernel.dmesg_restrict is set.
func Open(path string) (*Reader, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	if _, err := unix.Seek(fd, 0, unix.SEEK_END); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("go to the end of %s: %w", path, err)
	}
	return &Reader{fd: fd, buf: make([]byte, maxRecord)}, nil
}

// Close ends reading. No Wait may be under way.
func (r *Reader) Close() error {
	if r.wake != 0 {
		unix.Close(r.wake)
	}
	return unix.Close(r.fd)
}

// Wait returns when there is a record to read, when d has passed, or when ctx
// is done. A negative d has no end. It can return early.
func (r *Reader) Wait(ctx context.Context, d time.Duration) error {
	if ctx.Err() != nil {
		return nil
	}
	if r.wake == 0 {
		fd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
		if err != nil {
			return fmt.Errorf("make an eventfd: %w", err)
		}
		r.wake = fd
	}
	woken := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(woken)
		one := [8]byte{1, 1, 1, 1, 1, 1, 1, 1} // not zero in either byte order
		unix.Write(r.wake, one[:])             // fails when it is at its limit, and then it is readable
	})
	defer func() {
		if !stop() {
			<-woken // it may not write to a descriptor that Close has closed
		}
	}()
	ms := -1
	if d >= 0 {
		ms = int(min((d+time.Millisecond-1)/time.Millisecond, 1<<30))
	}
	_, err := unix.Poll([]unix.PollFd{{Fd: int32(r.fd), Events: unix.POLLIN}, {Fd: int32(r.wake), Events: unix.POLLIN}}, ms)
	if err != nil && !errors.Is(err, unix.EINTR) {
		return fmt.Errorf("wait for the kernel log: %w", err)
	}
	return nil
}

// Lost returns how many records were overwritten before they were read, or
// could not be understood.
func (r *Reader) Lost() uint64 { return r.lost }

// Next returns the next record, and false when there is none now.
func (r *Reader) Next() (Record, bool, error) {
	for {
		n, err := unix.Read(r.fd, r.buf)
		switch {
		case err == nil && n > 0:
			if rec, ok := r.take(r.buf[:n]); ok {
				return rec, true, nil
			}
		case err == nil, errors.Is(err, unix.EAGAIN):
			return Record{}, false, nil
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EPIPE): // overwritten: the next record tells how many
		default:
			return Record{}, false, fmt.Errorf("read the kernel log: %w", err)
		}
	}
}

// take parses a record and counts those that are missing before it.
func (r *Reader) take(b []byte) (Record, bool) {
	rec, err := Parse(b)
	if err != nil {
		r.lost++
		r.next = 0
		return rec, false
	}
	if r.next != 0 && rec.Seq > r.next {
		r.lost += rec.Seq - r.next
	}
	r.next = rec.Seq + 1
	return rec, true
}

var errForm = errors.New("not the form of a record of /dev/kmsg")

// Parse parses "priority,sequence,microseconds,flags[,…];text\n[ KEY=value\n…]".
func Parse(b []byte) (Record, error) {
	var r Record
	head, text, ok := bytes.Cut(b, []byte{';'})
	if !ok {
		return r, errForm
	}
	fields := bytes.SplitN(head, []byte{','}, 4)
	if len(fields) < 3 {
		return r, errForm
	}
	prio, err := strconv.ParseUint(string(fields[0]), 10, 31)
	if err != nil {
		return r, errForm
	}
	if r.Seq, err = strconv.ParseUint(string(fields[1]), 10, 64); err != nil {
		return r, errForm
	}
	us, err := strconv.ParseUint(string(fields[2]), 10, 53) // 285 years
	if err != nil {
		return r, errForm
	}
	if len(fields) == 4 {
		_, caller, _ := bytes.Cut(fields[3], []byte(",caller="))
		caller, _, _ = bytes.Cut(caller, []byte{','})
		r.Caller = string(bytes.ToValidUTF8(caller, nil))
	}
	r.Level, r.Facility = int(prio&7), int(prio>>3)
	r.SinceBoot = time.Duration(us) * time.Microsecond
	line, _, _ := bytes.Cut(text, []byte{'\n'}) // dictionary lines follow
	r.Text = unescape(line)
	return r, nil
}

// unescape undoes \xNN, by which the kernel writes what cannot be printed and
// the backslash itself.
func unescape(b []byte) string {
	if bytes.IndexByte(b, '\\') >= 0 {
		out := make([]byte, 0, len(b))
		for i := 0; i < len(b); i++ {
			if b[i] == '\\' && i+3 < len(b) && b[i+1] == 'x' {
				if v, err := strconv.ParseUint(string(b[i+2:i+4]), 16, 8); err == nil {
					out = append(out, byte(v))
					i += 3
					continue
				}
			}
			out = append(out, b[i])
		}
		b = out
	}
	return string(bytes.ToValidUTF8(b, []byte("\uFFFD")))
}
