package hungtask

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"huatuo/internal/kern/kmsg"
	"huatuo/internal/probe"
	"huatuo/internal/probes/probetest"
	"huatuo/internal/signal"
)

var update = flag.Bool("update", false, "rewrite testdata")

func at(ns uint64) time.Time { return time.Unix(0, int64(ns)).UTC() }

func symbol(ip uint64) string {
	return map[uint64]string{1: "__schedule", 2: "schedule", 3: "percpu_rwsem_wait", 4: "mnt_want_write", 5: "io_schedule", 6: "folio_wait_bit_common",
		7: "nfs_wait_bit_killable"}[ip]
}

func sampleWire() *bpfHungWire {
	w := &bpfHungWire{Ts: 1_000_000_000, Suppressed: 2}
	w.Task = bpfTaskRow{Cgroup: 42, Switches: 7, Start: 9, Pid: 11, Tgid: 10, Frames: 32}
	copy(w.Task.Comm[:], "touch")
	copy(w.Task.Stack[:], []uint64{1, 2, 3, 4})
	return w
}

func bytesOf[T any](w *T) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(w)), unsafe.Sizeof(*w))
}

func newDecoder() *decoder { return &decoder{clock: at, symbol: symbol} }

func TestDecode(t *testing.T) {
	r, err := newDecoder().decode(bytesOf(sampleWire()))
	if err != nil {
		t.Fatal(err)
	}
	b := r.Body.(*HungTask)
	if b.Source != byKernel || b.Wait != "percpu_rwsem_wait" || b.WaitClass != classLock || b.Killable || b.Tasks != 1 || b.BlockedSeconds != 0 {
		t.Errorf("event %+v", b)
	}
	if r.Title != "touch (pid 10) hangs in percpu_rwsem_wait" || r.Severity != signal.Critical || r.Process.TID != 11 || r.CgroupID != 42 ||
		len(r.KernelIPs) != 4 || r.Suppressed != 2 {
		t.Errorf("record %+v", r)
	}
	// Without a stack of its own it takes what the last walk saw.
	w := sampleWire()
	w.Task.Frames = -95
	d := newDecoder()
	d.stack = func(*task) ([]uint64, []signal.Frame) {
		return nil, []signal.Frame{{Function: "rpc_wait_bit_killable"}}
	}
	if r, _ := d.decode(bytesOf(w)); r.Body.(*HungTask).WaitClass != classNetworkFS || len(r.KernelStack) != 1 || len(r.KernelIPs) != 0 {
		t.Errorf("record %+v", r)
	}
	if _, err := newDecoder().decode(bytesOf(sampleWire())[:40]); err == nil {
		t.Error("a short sample decodes")
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(bytesOf(sampleWire()))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := newDecoder().decode(raw)
		if err == nil {
			if _, err := r.Document(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	raw, d := bytesOf(sampleWire()), newDecoder()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := d.decode(raw); err != nil {
			b.Fatal(err)
		}
	}
}

func TestClassify(t *testing.T) {
	for _, tt := range []struct {
		stack       string
		wait, class string
	}{
		{"percpu_rwsem_wait __percpu_down_read mnt_want_write open_last_lookups path_openat", "percpu_rwsem_wait", classLock},
		{"__schedule schedule io_schedule folio_wait_bit_common filemap_fault", "folio_wait_bit_common", classIO},
		{"schedule schedule_timeout io_schedule_timeout blk_io_schedule submit_bio_wait blkdev_direct_IO.part.0", "blk_io_schedule", classIO},
		{"__schedule schedule schedule_preempt_disabled __mutex_lock.constprop.0 nfs_file_write", "__mutex_lock.constprop.0", classNetworkFS},
		{"schedule wait_transaction_locked add_transaction_credits start_this_handle ext4_create", "wait_transaction_locked", classJournal},
		{"io_schedule folio_wait_bit_common folio_wait_writeback", "folio_wait_bit_common", classMemory},
		{"schedule request_wait_answer __fuse_simple_request", "request_wait_answer", classNetworkFS},
		{"schedule my_driver_ioctl", "my_driver_ioctl", classOther},
		{"schedule __refrigerator get_signal", "__refrigerator", classFrozen},
		{"schedule", "", classOther},
		{"", "", classOther},
	} {
		wait, class := classify(strings.Fields(tt.stack))
		if wait != tt.wait || class != tt.class {
			t.Errorf("%s: %q, %q; want %q, %q", tt.stack, wait, class, tt.wait, tt.class)
		}
		if class != classFrozen && !slices.Contains(classNames(), class) {
			t.Errorf("class %q has no label value", class)
		}
	}
}

// TestTracker follows tasks over several walks.
func TestTracker(t *testing.T) {
	start := time.Unix(1000, 0)
	hangs := task{pid: 1, start: 1, switches: 5, wait: "a"}
	second := task{pid: 2, start: 1, switches: 5, wait: "a"}
	elsewhere := task{pid: 3, start: 1, switches: 5, wait: "b"}
	runs := func(n int) task { return task{pid: 4, start: 1, switches: uint64(n), wait: "a"} }
	replaced := func(n int) task { return task{pid: 5, start: uint64(n), wait: "a"} }

	tr := &tracker{threshold: 10 * time.Second}
	reports := map[int]string{}
	for n := range 50 { // every 2.5 s
		tasks := []task{hangs, runs(n), replaced(n)}
		if n >= 2 {
			tasks = append(tasks, second)
		}
		if n >= 3 && n != 6 { // gone once: it begins anew
			tasks = append(tasks, elsewhere)
		}
		for _, g := range tr.observe(start.Add(time.Duration(n)*2500*time.Millisecond), tasks) {
			var pids []string
			for i := range g.tasks {
				pids = append(pids, fmt.Sprintf("%d after %v", g.tasks[i].pid, g.ages[i]))
			}
			reports[n] += strings.Join(pids, ", ") + ";"
		}
	}
	want := map[int]string{4: "1 after 10s;", 6: "2 after 10s;", 11: "3 after 10s;", 40: "1 after 1m40s;", 42: "2 after 1m40s;", 47: "3 after 1m40s;"}
	if fmt.Sprint(reports) != fmt.Sprint(want) {
		t.Errorf("reports %v, want %v", reports, want)
	}
	if tr.hung != 3 || len(tr.known) != 5 {
		t.Errorf("%d hang, %d are known", tr.hung, len(tr.known))
	}

	// A slow machine: two walks far apart prove nothing.
	tr = &tracker{threshold: 10 * time.Second}
	if g := append(tr.observe(start, []task{hangs}), tr.observe(start.Add(time.Minute), []task{hangs})...); len(g) != 0 {
		t.Errorf("%d reports after two walks", len(g))
	}
	if g := tr.observe(start.Add(2*time.Minute), []task{hangs}); len(g) != 1 || g[0].ages[0] != 2*time.Minute {
		t.Errorf("reports after three walks: %+v", g)
	}
}

// TestGolden compares the event of a group with what is kept in testdata.
func TestGolden(t *testing.T) {
	g := &group{}
	for i := range 11 {
		x := task{pid: uint32(20 + i), tgid: uint32(20 + i), comm: fmt.Sprintf("worker%d", i), cgroup: uint64(i), stack: []uint64{1, 2, 3}, wait: "percpu_rwsem_wait", class: classLock}
		if i == 4 {
			x.stack = []uint64{1, 2, 3, 4}
		}
		g.add(x, time.Duration(10+i)*time.Second)
	}
	r := g.record(at(5_000_000_000))
	if len(r.Parties) != maxOthers || r.Process.PID != 30 || r.CgroupID != 10 || len(r.KernelIPs) != 3 {
		t.Errorf("record %+v", r)
	}
	for i, p := range r.Parties {
		if p != &r.Body.(*HungTask).Others[i] || (len(p.KernelIPs) == 4) != (p.Process.PID == 24) || p.CgroupID != uint64(9-i) {
			t.Errorf("party %d: %+v", i, p)
		}
	}
	d, err := r.Document()
	if err != nil {
		t.Fatal(err)
	}
	got, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join("testdata", "group.json")
	if *update {
		if err := os.WriteFile(path, append(got, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(want) != string(got)+"\n" {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// logOf gives records one by one.
type logOf []kmsg.Record

func (l *logOf) Next() (kmsg.Record, bool, error) {
	if len(*l) == 0 {
		return kmsg.Record{}, false, nil
	}
	r := (*l)[0]
	*l = (*l)[1:]
	return r, true, nil
}

func TestReport(t *testing.T) {
	b, err := os.ReadFile("testdata/kmsg.txt")
	if err != nil {
		t.Fatal(err)
	}
	var records []kmsg.Record
	for line := range strings.Lines(string(b)) {
		r, err := kmsg.Parse([]byte(line))
		if err != nil {
			t.Fatal(err)
		}
		records = append(records, r)
	}
	for _, tt := range []struct {
		tid         uint32
		secs        float64
		first, last string
	}{
		{1234, 122, "INFO: task touch:1234 blocked for more than 122 seconds.", " </TASK>"},
		{77, 2, "INFO: task a b:12 blocked:77 blocked in I/O wait for more than 2 seconds.", " </TASK>"},
		{12, 0, "", ""}, // only looks like one
		{99, 0, "", ""}, // a process wrote it, not the kernel
	} {
		l := logOf(slices.Clone(records))
		rep := &reporter{log: &l, wait: 5 * time.Millisecond}
		r := &signal.Record{Process: signal.Process{TID: tt.tid, PID: tt.tid, Comm: "x"}, Body: &HungTask{}}
		rep.attach(r)
		got := r.Body.(*HungTask)
		lines := strings.Split(got.Log, "\n")
		if got.BlockedSeconds != tt.secs || lines[0] != tt.first || lines[len(lines)-1] != tt.last {
			t.Errorf("%d: %v s, %q … %q", tt.tid, got.BlockedSeconds, lines[0], lines[len(lines)-1])
		}
		if strings.Contains(got.Log, "ffff8") {
			t.Errorf("%d: an address of the kernel in %q", tt.tid, got.Log)
		}
	}
	rep := &reporter{}
	r := &signal.Record{Body: &HungTask{}}
	rep.attach(r) // no log, no report
}

// TestProc reads a fake /proc, as on a kernel without the iterator.
func TestProc(t *testing.T) {
	env := probetest.New(t)
	env.Root = probetest.Unpack(t, "testdata/proc.txt")
	tasks, err := newProcSource(env.Env).walk()
	if err != nil {
		t.Fatal(err)
	}
	if len(tasks) != 1 {
		t.Fatalf("tasks %+v, want one: the others run, sleep or are frozen", tasks)
	}
	x := tasks[0]
	if x.pid != 101 || x.tgid != 100 || x.comm != "a (b) c" || x.switches != 12 || x.start != 4242 || x.wait != "folio_wait_bit_common" || x.class != classIO ||
		len(x.frames) != 3 || x.frames[2].Function != "nfs3_do" {
		t.Errorf("task %+v", x)
	}
	env.Root = t.TempDir()
	if _, err := newProcSource(env.Env).walk(); err == nil {
		t.Error("no /proc, and no error")
	}
}

// TestGather tells nothing before the first walk.
func TestGather(t *testing.T) {
	w := &watch{env: &probe.Env{}}
	b := &signal.Batch{}
	if err := w.collect(b); err != nil || len(b.Samples) != 0 {
		t.Errorf("%v, %+v", err, b.Samples)
	}
	w.last.Store(&sample{tasks: []task{{class: classIO, cgroup: 5}, {class: classIO, cgroup: 5}, {class: classOther}, {class: classLock, cgroup: 5}}, hung: 1})
	if err := w.collect(b); err != nil {
		t.Fatal(err)
	}
	if n, _ := probetest.Value(b.Samples, waiting.Name, classIO); n != 2 {
		t.Errorf("%v wait for I/O", n)
	}
	if n, ok := probetest.Value(b.Samples, waiting.Name, classLock); n != 1 || !ok {
		t.Errorf("%v wait for a lock, %v", n, ok)
	}
	if n, _ := probetest.WorkloadValue(b.Samples, containerWaiting.Name, 5, classIO); n != 2 {
		t.Errorf("%v of the workload", n)
	}
	if n, _ := probetest.Value(b.Samples, hung.Name); n != 1 {
		t.Errorf("%v hang", n)
	}
}
