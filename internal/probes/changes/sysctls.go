package changes

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"huatuo/internal/kern/procfs"
	"huatuo/internal/signal"
)

// polled are the folders whose sysctls are compared where the kernel does not
// tell of writes, and how their names begin.
var polled = []struct{ dir, prefix string }{
	{"vm", ""}, {"kernel", ""}, {"net/core", ""}, {"net/ipv4", "tcp_"}, {"net/ipv4", "ip_"}, {"net/ipv4", "udp_"}, {"net/netfilter", "nf_conntrack_"}, {"fs", "file-max"}, {"fs", "aio-max-nr"},
}

// notPolled change by themselves, do something when they are read, or are keys.
var notPolled = []string{
	"kernel/ns_last_pid", "kernel/tainted", "kernel/hung_task_detect_count", "kernel/hung_task_warnings", "kernel/hostname", "kernel/domainname", "kernel/perf_event_max_sample_rate",
	"kernel/modprobe", "vm/stat_refresh", "vm/drop_caches", "vm/compact_memory", "net/netfilter/nf_conntrack_count", "net/core/flow_limit_cpu_bitmap",
}

const (
	// maxSysctls bounds a look to some 3 ms; a kernel has about 350 in these folders.
	maxSysctls = 600
	// maxValue bounds what is kept of one.
	maxValue = 127
)

// sysctls compares the values of a bounded list of sysctls.
type sysctls struct {
	dir    string
	names  []string
	values []string
	looked bool
	buf    []byte
}

func newSysctls(root string) *sysctls {
	s := &sysctls{dir: filepath.Join(root, "proc/sys")}
	for _, p := range polled {
		entries, err := os.ReadDir(filepath.Join(s.dir, p.dir))
		if err != nil {
			continue // net/netfilter without connection tracking
		}
		for _, e := range entries {
			name := p.dir + "/" + e.Name()
			if e.Type().IsRegular() && strings.HasPrefix(e.Name(), p.prefix) && !slices.Contains(notPolled, name) && !secret(e.Name()) && len(s.names) < maxSysctls {
				s.names = append(s.names, name)
			}
		}
	}
	s.values = make([]string, len(s.names))
	return s
}

// look returns an event for each value that is another one. Who wrote it is not known.
func (s *sysctls) look(now time.Time) (out []*signal.Record) {
	for i, name := range s.names {
		b, err := procfs.ReadInto(s.dir+"/"+name, s.buf)
		if err != nil {
			continue // it can be written only
		}
		s.buf = b
		is, was := short127(spaced(strings.ToValidUTF8(string(b), "\uFFFD"))), s.values[i]
		if is == was {
			continue
		}
		s.values[i] = is
		if !s.looked {
			continue
		}
		c := &Sysctl{Name: dotted(name), Old: was, New: is, Effect: applied, Source: "poll"}
		out = append(out, &signal.Record{
			Schema: sysctlWritten, Time: now, Body: c, Title: fmt.Sprintf("Somebody wrote %s = %s, was %s", c.Name, c.New, c.Old),
		})
	}
	s.looked = true
	return out
}

func short127(s string) string {
	if len(s) <= maxValue {
		return s
	}
	return s[:maxValue] + "…"
}
