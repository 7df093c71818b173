package oracle

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
)

// reading is what files of /proc say: "file key" → value, as it is there.
type reading map[string]float64

// read reads them all.
func read(t *testing.T) reading {
	t.Helper()
	r := reading{}
	r.keyed(t, "vmstat", "/proc/vmstat")
	r.keyed(t, "meminfo", "/proc/meminfo")
	r.paired(t, "/proc/net/netstat")
	r.paired(t, "/proc/net/snmp")
	r.table(t, "dev", "/proc/net/dev", 0, ":")
	r.table(t, "disk", "/proc/diskstats", 2, " ")
	r.table(t, "stat", "/proc/stat", 0, " ")
	r.table(t, "load", "/proc/loadavg", -1, " ")
	for _, res := range []string{"cpu", "memory", "io"} {
		if b, err := os.ReadFile("/proc/pressure/" + res); err == nil {
			for line := range strings.Lines(string(b)) {
				f := strings.Fields(line)
				r.put("pressure "+res+" "+f[0], strings.TrimPrefix(f[len(f)-1], "total="))
			}
		}
	}
	return r
}

func (r reading) put(key, value string) {
	if v, err := strconv.ParseFloat(value, 64); err == nil {
		r[key] = v
	}
}

func content(t *testing.T, file string) []string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
}

// keyed is a file of lines "key value", with or without a colon and a unit.
func (r reading) keyed(t *testing.T, name, file string) {
	t.Helper()
	for _, line := range content(t, file) {
		if f := strings.Fields(line); len(f) >= 2 {
			r.put(name+" "+strings.TrimSuffix(f[0], ":"), f[1])
		}
	}
}

// paired is a file of pairs of lines: a heading, and the values below it.
func (r reading) paired(t *testing.T, file string) {
	t.Helper()
	lines := content(t, file)
	for i := 0; i+1 < len(lines); i += 2 {
		head, values := strings.Fields(lines[i]), strings.Fields(lines[i+1])
		for j := 1; j < len(head) && j < len(values); j++ {
			r.put(head[0]+head[j], values[j])
		}
	}
}

// table is a file of lines that begin with their name, at that field: its
// columns after it are numbered from 0.
func (r reading) table(t *testing.T, name, file string, at int, separator string) {
	t.Helper()
	for _, line := range content(t, file) {
		f := strings.Fields(strings.Replace(line, separator, " ", 1))
		row := ""
		if at >= 0 && at < len(f) {
			row = strings.TrimSuffix(f[at], ":") + " "
		}
		for i := at + 1; i < len(f); i++ {
			r.put(fmt.Sprintf("%s %s%d", name, row, i-at-1), f[i])
		}
	}
}

// source is where a metric's value comes from.
type source struct {
	key   string
	scale float64
}

// TestFiles holds every counter and gauge that is read from /proc to an own
// reading: the agent's value is not below that before the scrape and not above
// that after it.
func TestFiles(t *testing.T) {
	url := start(t, "vmstat", "meminfo", "netdev", "netstat", "diskstats", "cpustat", "loadavg", "pressure")
	checked := 0
	eventually(t, "the files' values", func() error {
		time.Sleep(1500 * time.Millisecond) // no earlier scrape is fresh enough to be given again
		before := read(t)
		m := scrape(t, url)
		after := read(t)
		n, err := between(m, before, after)
		checked = n
		return err
	})
	t.Logf("%d series", checked)
	if checked < 250 {
		t.Errorf("%d series checked, want all of eight probes", checked)
	}
}

// between compares all series of which the source is known, and counts them.
func between(m map[string]*dto.MetricFamily, before, after reading) (int, error) {
	n := 0
	for name, f := range m {
		for _, s := range f.GetMetric() {
			src, ok := sourceOf(name, s)
			if !ok {
				continue
			}
			lo, had := before[src.key]
			hi, has := after[src.key]
			if !had || !has {
				return n, fmt.Errorf("%s%v: /proc has no %s", name, s.GetLabel(), src.key)
			}
			lo, hi = min(lo, hi)*src.scale, max(lo, hi)*src.scale
			// A gauge may have gone up and down in between; a counter of ticks is rounded.
			slack := 1e-6 * hi
			if f.GetType() == dto.MetricType_GAUGE {
				slack = (hi-lo)*2 + 0.001*hi + 4<<20*float64(strings.Count(name, "_bytes"))
			}
			got := s.GetCounter().GetValue() + s.GetGauge().GetValue()
			if got < lo-slack || got > hi+slack {
				return n, fmt.Errorf("%s%v is %v, %s is %v to %v", name, s.GetLabel(), got, src.key, lo, hi)
			}
			n++
		}
	}
	return n, nil
}

// sourceOf names the field of a series: by rule where the name is the kernel's,
// else by table.
func sourceOf(name string, s *dto.Metric) (source, bool) {
	label := map[string]string{}
	for _, l := range s.GetLabel() {
		label[l.GetName()] = l.GetValue()
	}
	if what, ok := strings.CutPrefix(name, "huatuo_vmstat_"); ok {
		what = strings.TrimSuffix(what, "_total")
		if what == "allocstall" {
			return source{}, false // a sum
		}
		if kib, ok := strings.CutSuffix(what, "_bytes"); ok {
			return source{"vmstat " + kib, 1024}, true
		}
		return source{"vmstat " + what, 1}, true
	}
	if key, ok := meminfo[strings.TrimSuffix(strings.TrimPrefix(name, "huatuo_memory_"), "_bytes")]; ok && strings.HasPrefix(name, "huatuo_memory_") {
		return source{"meminfo " + key, 1024}, true
	}
	if col, ok := devColumns[strings.TrimSuffix(strings.TrimPrefix(name, "huatuo_netdev_"), "_total")]; ok && strings.HasPrefix(name, "huatuo_netdev_") {
		return source{fmt.Sprintf("dev %s %d", label["device"], col), 1}, true
	}
	if c, ok := diskColumns[strings.TrimPrefix(name, "huatuo_disk_")]; ok && strings.HasPrefix(name, "huatuo_disk_") {
		return source{fmt.Sprintf("disk %s %d", label["device"], c.column), c.scale}, true
	}
	if kind, ok := byLabels[name]; ok {
		for _, c := range kind {
			var values []string
			for _, l := range strings.Split(c.label, " ") {
				values = append(values, label[l])
			}
			if strings.Join(values, " ") == c.value {
				return source{c.key, c.scale}, true
			}
		}
	}
	if name == "huatuo_pressure_stall_seconds_total" && label["resource"] != "irq" {
		return source{"pressure " + label["resource"] + " " + label["kind"], 1e-6}, true
	}
	return source{}, false
}
