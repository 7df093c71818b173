// Package clock turns the kernel's time stamps into wall time.
//
// BPF programs stamp with CLOCK_MONOTONIC (bpf_ktime_get_ns) or CLOCK_BOOTTIME
// (bpf_ktime_get_boot_ns), /proc with ticks since boot. The distance between
// those clocks and the wall changes when somebody sets the clock or NTP steps
// it, so no offset is kept: each conversion reads both clocks and subtracts the
// stamp's age. After a step all stamps, older ones too, are told in the new time.
package clock

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// TickHz is USER_HZ, the unit of the times in /proc/PID/stat. It is part of
// the kernel's ABI and 100 on every architecture that Go runs on.
const TickHz = 100

// Clock converts kernel time stamps. It is safe for concurrent use.
type Clock struct {
	// mono reads the wall clock and CLOCK_MONOTONIC at one instant.
	mono func() (wall time.Time, mono int64)
	// boot reads the wall clock and CLOCK_BOOTTIME at one instant.
	boot func() (wall time.Time, boot int64)
}

// New returns the clock of this machine.
func New() (*Clock, error) {
	// time.Now reads both clocks through the vDSO at 40 ns, but hides the
	// monotonic value; knowing one pair reveals all later ones. The syscall
	// costs some hundred nanoseconds, so the pair with the narrowest
	// bracket of several tries is taken.
	var base time.Time
	var baseMono int64
	best := time.Duration(1<<63 - 1)
	for range 5 {
		before := time.Now()
		m, err := read(unix.CLOCK_MONOTONIC)
		if err != nil {
			return nil, err
		}
		after := time.Now()
		if d := after.Sub(before); d < best {
			best, base, baseMono = d, before.Add(d/2), m
		}
	}
	if _, err := read(unix.CLOCK_BOOTTIME); err != nil {
		return nil, err
	}
	return &Clock{
		mono: func() (time.Time, int64) {
			now := time.Now()
			return now.Round(0), baseMono + int64(now.Sub(base))
		},
		boot: func() (time.Time, int64) {
			// Cannot fail: New has read this clock.
			b, _ := read(unix.CLOCK_BOOTTIME)
			return time.Now().Round(0), b
		},
	}, nil
}

func read(id int32) (int64, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(id, &ts); err != nil {
		return 0, fmt.Errorf("read clock %d: %w", id, err)
	}
	return ts.Nano(), nil
}

// Mono converts a CLOCK_MONOTONIC stamp in nanoseconds, as bpf_ktime_get_ns
// gives it. A stamp of 0 means unknown and gives the zero Time.
func (c *Clock) Mono(ns uint64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	wall, now := c.mono()
	return wall.Add(time.Duration(int64(ns) - now))
}

// Boot converts a CLOCK_BOOTTIME stamp in nanoseconds: bpf_ktime_get_boot_ns,
// task_struct's start_boottime. A stamp of 0 means unknown and gives the zero Time.
func (c *Clock) Boot(ns uint64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	return c.sinceBoot(int64(ns))
}

// Ticks converts a time in ticks since boot, like a process' start time in
// /proc/PID/stat. The answer is rounded to milliseconds: a tick is 10 ms, and
// the same process then has the same start time whenever it is asked for.
func (c *Clock) Ticks(t uint64) time.Time {
	const tick = int64(time.Second) / TickHz
	if t > uint64(1<<63-1)/uint64(tick) {
		return time.Time{} // beyond what a clock can hold: not a time
	}
	return c.sinceBoot(int64(t) * tick).Round(time.Millisecond)
}

// BootTime is when the machine started.
func (c *Clock) BootTime() time.Time { return c.sinceBoot(0).Round(time.Millisecond) }

func (c *Clock) sinceBoot(ns int64) time.Time {
	wall, now := c.boot()
	return wall.Add(time.Duration(ns - now))
}

// NowMono reads CLOCK_MONOTONIC in nanoseconds, comparable to what
// bpf_ktime_get_ns gives.
func (c *Clock) NowMono() uint64 {
	_, now := c.mono()
	return uint64(now)
}
