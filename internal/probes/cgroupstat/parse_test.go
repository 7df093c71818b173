package cgroupstat

import (
	"os"
	"path/filepath"
	"testing"

	"huatuo/internal/kern/procfs"
	"huatuo/internal/probes/probetest"
	"huatuo/internal/signal"
)

func TestParseLimit(t *testing.T) {
	f := func(in string, want uint64) {
		t.Helper()
		if got := parseLimit([]byte(in)); got != want {
			t.Errorf("parseLimit(%q) = %d, want %d", in, got, want)
		}
	}
	f("536870912\n", 536870912)
	f("max\n", 0)
	f("-1\n", 0)
	f("9223372036854771712\n", 0) // v1, 4 KiB pages
	f("9223372036854710272\n", 0) // v1, 64 KiB pages
	f("", 0)
}

func TestParseCPUMax(t *testing.T) {
	f := func(in string, quota, period uint64) {
		t.Helper()
		if q, p := parseCPUMax([]byte(in)); q != quota || p != period {
			t.Errorf("parseCPUMax(%q) = %d, %d; want %d, %d", in, q, p, quota, period)
		}
	}
	f("150000 100000\n", 150000, 100000)
	f("max 100000\n", 0, 100000)
	f("max", 0, 0)
	f("", 0, 0)
}

// TestStacked sums the disk below and leaves out the device mapper above it.
func TestStacked(t *testing.T) {
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "sys/dev/block/253:0/slaves/sda"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(root, "sys/dev/block/8:0/slaves"), 0o755); err != nil {
		t.Fatal(err)
	}
	d := &devices{root: root}
	want := ioSum{value: [len(ops)]uint64{10, 20, 0}, seen: [len(ops)]bool{true, true, false}}
	if got := parseIOStat([]byte("8:0 rbytes=10 wbytes=20\n253:0 rbytes=10 wbytes=20\nx:0 rbytes=1\nrbytes=1\n"), d, "rbytes", "wbytes", "dbytes"); got != want {
		t.Errorf("parseIOStat = %+v, want %+v", got, want)
	}
	if got := parseBlkio([]byte("8:0 Read 10\n8:0 Write 20\n8:0 Total 30\n253:0 Read 10\nTotal 40\n8:0 Read\n"), d); got != want {
		t.Errorf("parseBlkio = %+v, want %+v", got, want)
	}
	d.forget()
	if len(d.known) != 0 {
		t.Error("forget keeps devices")
	}
}

func FuzzParse(f *testing.F) {
	for _, name := range []string{"v1", "v2", "hybrid"} {
		err := filepath.WalkDir(probetest.Unpack(f, "testdata/"+name+".txt"), func(p string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			b, err := os.ReadFile(p)
			f.Add(b)
			return err
		})
		if err != nil {
			f.Fatal(err)
		}
	}
	d := &devices{root: f.TempDir()}
	tables := []keyed{cpuStat, cpuacctStat, memoryStatV1, memoryStatV2, memoryEvents, memoryOOMV1}
	f.Fuzz(func(t *testing.T, b []byte) {
		e := &entry{b: new(signal.Batch), group: newGroup(1, "/x", 0, 0), devices: d}
		for _, k := range tables {
			k.add(e, b)
		}
		addIOStat(e, b)
		addIOBytesV1(e, b)
		addIOOperationsV1(e, b)
		addMemoryUsage(e, b)
		e.group.limits.memory = parseLimit(b)
		e.group.limits.quota, e.group.limits.period = parseCPUMax(b)
		e.pressure(0, procfs.ParsePressure(b))
		e.finish()
		for _, s := range e.b.Samples {
			if s.Value < 0 || len(s.Labels) != len(s.Schema.Fields) {
				t.Errorf("bad sample %+v", s)
			}
		}
		d.forget()
	})
}
