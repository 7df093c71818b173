package nic

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"huatuo/internal/signal"
)

// stalls is what the kernel counts of a device's transmit queues whose packets the
// device was late to complete: byte queue limits, since 6.9 (6025b9135f7a, "net:
// dqs: add NIC stall detector based on BQL"). It is off until somebody sets a
// threshold.
type stalls struct {
	watched   bool
	threshold time.Duration // the least of its queues
	count     uint64
}

// maxQueues bounds what is read of a device: two files a queue, 10 µs each.
const maxQueues = 1024

var (
	stallsTotal = counter("netdev_transmit_stalls_total", "1", "How often the device was late to tell that it had sent what a transmit queue gave it.",
		"Any step is a device, a driver or a bus that hangs for a while, before the kernel's own timeout of 5 s; each is a nic event. Absent until somebody writes a threshold to queues/tx-*/byte_queue_limits/stall_thrs below /sys/class/net/DEVICE (Linux 6.9).")
	stallThreshold = gauge("netdev_transmit_stall_threshold_seconds", "seconds", "Time from which a late completion is a stall, the least of the device's queues.",
		"Absent where the kernel does not look for stalls.")
)

// readStalls reads the files of a device below dir, /sys/class/net. They take no
// lock of the kernel: unlike speed or carrier beside them they answer always.
func readStalls(dir, device string) (s stalls) {
	queues, err := filepath.Glob(filepath.Join(dir, device, "queues/tx-*/byte_queue_limits"))
	if err != nil {
		return s
	}
	for _, q := range queues[:min(len(queues), maxQueues)] {
		ms, ok := number(filepath.Join(q, "stall_thrs"))
		if !ok || ms == 0 {
			continue
		}
		n, ok := number(filepath.Join(q, "stall_cnt"))
		if !ok {
			continue
		}
		if t := time.Duration(ms) * time.Millisecond; !s.watched || t < s.threshold {
			s.threshold = t
		}
		s.watched = true
		s.count += n
	}
	return s
}

func number(file string) (uint64, bool) {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
	return n, err == nil
}

// compareStalls tells of stalls since the driver was last asked. Who sets a
// threshold begins to count, so that the first reading after it tells nothing.
func compareStalls(device, kind string, was, now *port) []report {
	if was == nil || now == nil || !was.stalls.watched || !now.stalls.watched || now.stalls.count <= was.stalls.count {
		return nil
	}
	n := now.stalls.count - was.stalls.count
	reason := fmt.Sprintf("%d completions came later than %v", n, now.stalls.threshold)
	return []report{{severity: signal.Warning, title: device + " was slow to send: " + reason,
		body: NIC{Device: device, Kind: kind, What: "transmit_stall", Reason: reason, Queue: -1}, port: now}}
}

func collectStalls(b *signal.Batch, device string, s *stalls) {
	if s.watched {
		b.Value(stallsTotal, float64(s.count), device)
		b.Value(stallThreshold, s.threshold.Seconds(), device)
	}
}
