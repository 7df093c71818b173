package fs

import (
	"bufio"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"huatuo/internal/kern/load"
	"huatuo/internal/signal"
)

type collector struct {
	o      *load.Object
	mounts *mounts
	hz     uint64 // 0: not known
}

func (c *collector) collect(b *signal.Batch) error {
	var key bpfFsKey
	var h bpfHtHist
	seen := map[string]bool{} // two devices of one name: the older is gone
	all := c.o.Map("latencies").Iterate()
	for all.Next(&key, &h) {
		s := fsync
		if key.Op == 1 {
			s = commit
		}
		name := c.mounts.device(key.Dev)
		if id := s.Name + name; !seen[id] {
			seen[id] = true
			b.Hist(s, signal.LatencyHist(0, h.Zero, h.Sum, h.Slots[:]), name)
		}
	}
	if err := all.Err(); err != nil {
		return fmt.Errorf("read histograms: %w", err)
	}
	var id uint64
	var p bpfPauses
	it := c.o.Map("cgroups").Iterate()
	for it.Next(&id, &p) {
		b.WorkloadValue(containerPauses, id, float64(p.Pauses))
		if c.hz > 0 {
			b.WorkloadValue(containerPauseSeconds, id, float64(p.Jiffies)/float64(c.hz))
		}
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("read pauses of cgroups: %w", err)
	}
	return nil
}

// tick returns the ticks per second of the kernel, 0 when its configuration is
// nowhere to be found.
func tick(root string) uint64 {
	if f, err := os.Open(filepath.Join(root, "proc/config.gz")); err == nil {
		defer f.Close()
		if z, err := gzip.NewReader(f); err == nil {
			return tickOf(z)
		}
	}
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return 0
	}
	f, err := os.Open(filepath.Join(root, "boot/config-"+unix.ByteSliceToString(u.Release[:])))
	if err != nil {
		return 0
	}
	defer f.Close()
	return tickOf(f)
}

func tickOf(r io.Reader) uint64 {
	for s := bufio.NewScanner(r); s.Scan(); {
		if v, ok := strings.CutPrefix(s.Text(), "CONFIG_HZ="); ok {
			hz, _ := strconv.ParseUint(v, 10, 32)
			return hz
		}
	}
	return 0
}

// collect gives what the last look at the mounts found.
func (m *mounts) collect(b *signal.Batch) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, x := range m.list {
		labels := []string{label(x.source), x.fstype, strings.ToValidUTF8(x.point, "\uFFFD")}
		b.Value(readOnly, number(x.readOnly), labels...)
		isHung := !x.asked.IsZero() && time.Since(x.asked) >= m.timeout
		b.Value(hung, number(isHung), labels...)
		if !x.known || isHung {
			continue
		}
		b.Value(size, float64(x.stat.Blocks)*float64(x.stat.Frsize), labels...)
		b.Value(free, float64(x.stat.Bavail)*float64(x.stat.Frsize), labels...)
		if x.stat.Files > 0 {
			b.Value(inodes, float64(x.stat.Files), labels...)
			b.Value(inodesFree, float64(x.stat.Ffree), labels...)
		}
	}
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
