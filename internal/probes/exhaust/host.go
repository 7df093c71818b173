package exhaust

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"

	"huatuo/internal/kern/procfs"
)

// endless is a limit that is none: systemd sets fs.file-max to 2^63-1.
const endless = 1 << 62

// host reads what the host has once.
type host struct {
	proc  string
	who   *who
	buf   []byte
	fails error
}

func (h *host) read() ([]reading, error) {
	h.fails = nil
	var rs []reading
	if n := h.numbers("sys/fs/file-nr"); len(n) >= 3 && n[2] < endless {
		rs = append(rs, reading{resource: hostFiles, name: "Open files of the host", used: n[0], limit: n[2], users: h.who.byFiles})
	}
	threads, maxPid := h.numbers("sys/kernel/threads-max"), h.numbers("sys/kernel/pid_max")
	if n := h.tasks(); n > 0 && len(threads) > 0 && len(maxPid) > 0 {
		rs = append(rs, reading{resource: hostTasks, name: "Tasks of the host", used: n, limit: min(threads[0], maxPid[0]), users: h.who.byThreads})
	}
	mem := h.file("meminfo")
	if total, free := parseKB(mem, "SwapTotal:"), parseKB(mem, "SwapFree:"); total > 0 {
		rs = append(rs, reading{resource: swap, name: "Swap of the host", used: total - min(free, total), limit: total, bytes: true, users: h.who.bySwap})
	}
	count, limit := h.numbers("sys/net/netfilter/nf_conntrack_count"), h.numbers("sys/net/netfilter/nf_conntrack_max")
	if len(count) > 0 && len(limit) > 0 {
		rs = append(rs, reading{resource: conntrack, name: "Tracked connections of the host", used: count[0], limit: limit[0]})
	}
	return rs, h.fails
}

// file returns a file's content, nil when it is not there or cannot be read.
func (h *host) file(name string) []byte {
	b, err := procfs.ReadInto(h.proc+"/"+name, h.buf)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			h.fails = fmt.Errorf("read limits of the host: %w", err)
		}
		return nil
	}
	h.buf = b
	return b
}

func (h *host) numbers(name string) []uint64 { return procfs.Uints(h.file(name)) }

// tasks takes the number of threads out of "0.10 0.08 0.06 2/171 9120".
func (h *host) tasks() uint64 { return parseTasks(h.file("loadavg")) }

func parseTasks(b []byte) uint64 {
	_, rest, _ := bytes.Cut(b, []byte("/"))
	n, _, _ := bytes.Cut(rest, []byte(" "))
	v, _ := procfs.Uint(n)
	return v
}

// parseKB finds "Key:   123 kB" and returns bytes.
func parseKB(b []byte, key string) uint64 {
	for line := range bytes.Lines(b) {
		if rest, ok := bytes.CutPrefix(line, []byte(key)); ok {
			if n := procfs.Uints(rest); len(n) > 0 && n[0] < 1<<50 {
				return n[0] << 10
			}
		}
	}
	return 0
}
