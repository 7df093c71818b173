package oomkill

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"huatuo/internal/kern/cgroup"
	"huatuo/internal/signal"
)

var update = flag.Bool("update", false, "rewrite testdata")

func newDecoder() *decoder {
	return &decoder{clock: func(ns uint64) time.Time { return time.Unix(1700000000, int64(ns)) }}
}

// sample is a process whose container, the second level, is at its limit.
func sample() *bpfOomWire {
	w := &bpfOomWire{
		Ts: 5, Cgroup: 42, TriggerCgroup: 43, TotalVm: 100_000, Rss: [4]uint64{1000, 20_000, 3, 50}, Pid: 1234, Tgid: 1233,
		TriggerPid: 88, TriggerTgid: 87, ScoreAdj: 900, Uid: 1000, Frames: 16, Nlevels: 3,
	}
	copy(w.Comm[:], "java")
	copy(w.TriggerComm[:], "sidecar")
	w.Levels[0].Id, w.Levels[0].Usage, w.Levels[0].Limit = 7, 20_900, 1<<51-1
	w.Levels[1].Id, w.Levels[1].Usage, w.Levels[1].Limit = 6, 25_598, 25_600
	w.Levels[2].Id, w.Levels[2].Usage, w.Levels[2].Limit = 1, 900_000, 1<<51-1
	w.Stack[0], w.Stack[1] = 0x10, 0x20
	return w
}

func bytesOf(w *bpfOomWire) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(w)), unsafe.Sizeof(*w))
}

func TestDecode(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*bpfOomWire)
	}{
		{"task", func(*bpfOomWire) {}},
		{"pid_only", func(w *bpfOomWire) {
			*w = bpfOomWire{Ts: 5, Pid: 1234, TriggerPid: 88, TriggerTgid: 87, TriggerComm: w.TriggerComm, Suppressed: 2}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := sample()
			c.change(w)
			r, err := newDecoder().decode(bytesOf(w))
			if err != nil {
				t.Fatal(err)
			}
			golden(t, c.name, r)
		})
	}
	r, _ := newDecoder().decode(bytesOf(sample()))
	b := r.Body.(*OOMKill)
	if l, ok := b.guess(); !ok || l.id != 6 || l.LimitBytes != 25_600*uint64(os.Getpagesize()) {
		t.Errorf("at its limit: %+v", l)
	}
	if len(r.Parties) != 1 || r.Parties[0].CgroupID != 43 || len(r.Parties[0].KernelIPs) != 2 {
		t.Errorf("trigger %+v", r.Parties)
	}
	if _, err := newDecoder().decode(bytesOf(sample())[:99]); err == nil {
		t.Error("a short sample decodes")
	}
}

func golden(t *testing.T, name string, r *signal.Record) {
	t.Helper()
	d, err := r.Document()
	if err != nil {
		t.Fatal(err)
	}
	got, err := json.MarshalIndent(d, "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join("testdata", name+".json")
	if *update {
		if err := os.WriteFile(path, append(got, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(bytes.TrimSpace(want), got) {
		t.Errorf("%s differs (rewrite with -update):\n%s", path, got)
	}
}

func readLog(t testing.TB, name string) []string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
}

func TestReport(t *testing.T) {
	for _, c := range []struct {
		file              string
		pid               uint32
		constraint, memcg string
		anon              uint64
		adj               int32
		first, last       string // of the report
	}{
		{"memcg.log", 24101, "MEMCG", "/kubepods/a,task_memcg=b", 39_568 << 10, 0, "python3 invoked oom-killer", "Killed process 24101"},
		{"host.log", 812, "NONE", "", 15_204_312 << 10, 500, "kswapd-user invoked oom-killer", "Killed process 812"},
		{"group.log", 301, "MEMCG", "/pod", 1 << 20, 0, "worker invoked oom-killer", "Killed process 301"},
		{"group.log", 302, "MEMCG", "/pod", 2 << 20, 0, "worker invoked oom-killer", "Killed process 302"},
		{"memcg.log", 4, "", "", 0, 0, "", ""}, // of whom nothing is said
	} {
		r := findReport(readLog(t, c.file), c.pid)
		if r.constraint != c.constraint || r.memcg != c.memcg || r.anon != c.anon || r.scoreAdj != c.adj || r.killed != (c.anon != 0) {
			t.Errorf("%s, %d: %+v", c.file, c.pid, r)
		}
		if len(r.lines) == 0 {
			if c.first != "" {
				t.Errorf("%s, %d: no lines", c.file, c.pid)
			}
			continue
		}
		if !strings.Contains(r.lines[0], c.first) || !strings.Contains(r.lines[len(r.lines)-1], c.last) {
			t.Errorf("%s, %d: from %q to %q", c.file, c.pid, r.lines[0], r.lines[len(r.lines)-1])
		}
	}
}

func TestShorten(t *testing.T) {
	lines := findReport(readLog(t, "memcg.log"), 24101).lines
	all := shorten(lines, 1000)
	for _, l := range all {
		if strings.Contains(l, "RIP:") || strings.Contains(l, "RAX:") || strings.Contains(l, "Code:") {
			t.Errorf("registers: %q", l)
		}
	}
	short := shorten(lines, 12)
	if len(short) != 12 || short[0] != all[0] || short[11] != all[len(all)-1] || !strings.Contains(short[7], "left out") {
		t.Errorf("%d lines: %q", len(short), short)
	}
	if shorten(lines, 0) != nil {
		t.Error("lines although none are wanted")
	}
	if !slices.Equal(shorten([]string{"x1app invoked oom-killer: gfp_mask=0x0", "x29: ffff800080003b70 x28: 0"}, 9), []string{"x1app invoked oom-killer: gfp_mask=0x0"}) {
		t.Error("a comm is taken for a register, or a register for text")
	}
}

func FuzzReport(f *testing.F) {
	for _, name := range []string{"memcg.log", "host.log", "group.log"} {
		f.Add(strings.Join(readLog(f, name), "\n"), uint32(301))
	}
	f.Add("oom-kill:constraint=CONSTRAINT_MEMCG,oom_memcg=/,task_memcg=,task=,pid=301,uid=0\nKilled process 301 (((", uint32(301))
	f.Fuzz(func(t *testing.T, text string, pid uint32) {
		r := findReport(strings.Split(text, "\n"), pid)
		if n := len(shorten(r.lines, 10)); n > 10 {
			t.Errorf("%d lines", n)
		}
	})
}

func FuzzDecode(f *testing.F) {
	f.Add(bytesOf(sample()))
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
	raw, d := bytesOf(sample()), newDecoder()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := d.decode(raw); err != nil {
			b.Fatal(err)
		}
	}
}

// TestLate asks /proc for a victim of which the kernel told a thread only.
func TestLate(t *testing.T) {
	root := fakeHost(t, false)
	for name, text := range map[string]string{
		"proc/1234/stat":   "1234 (java) S 1 1 1 0 -1 4194304 0 0 0 0 0 0 0 0 20 0 1 0 100 0 0",
		"proc/1234/status": "Name:\tjava\nTgid:\t1233\nPid:\t1234\n",
		"proc/1234/cgroup": "0::/pod/inner\n",
		"proc/1233/cgroup": "0::/pod/inner\n",
	} {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	layout, err := cgroup.Detect(root)
	if err != nil {
		t.Fatal(err)
	}
	r, err := newDecoder().decode(bytesOf(&bpfOomWire{Pid: 1234}))
	if err != nil {
		t.Fatal(err)
	}
	s := &snapshotter{root: root, layout: layout, cfg: Spec().Config.(Config)}
	s.late(r)
	want, err := cgroup.ID(filepath.Join(root, "sys/fs/cgroup/pod/inner"))
	if err != nil {
		t.Fatal(err)
	}
	if r.Process.PID != 1233 || r.Process.Comm != "java" || r.CgroupID != want {
		t.Errorf("%+v in %d, want java 1233 in %d", r.Process, r.CgroupID, want)
	}
}

// fakeHost makes a root with control groups of one version and two processes.
func fakeHost(t *testing.T, v1 bool) string {
	t.Helper()
	root := t.TempDir()
	files := map[string]string{
		"proc/1/mountinfo": "30 1 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
		"proc/meminfo":     "MemTotal:       16000000 kB\nMemAvailable:     100 kB\nHugePages_Total:       0\n",
		"proc/500/statm":   "9 70 1 1 0 1 0\n", "proc/500/comm": "nginx\n",
		"proc/501/statm": "9 20 1 1 0 1 0\n", "proc/501/comm": "sh\n",
	}
	dir := "sys/fs/cgroup/pod"
	if v1 {
		files["proc/1/mountinfo"] = "30 1 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n31 1 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
		files["sys/fs/cgroup/cpu/cgroup.procs"] = ""
		dir = "sys/fs/cgroup/memory/pod"
		files[dir+"/memory.limit_in_bytes"], files[dir+"/memory.usage_in_bytes"] = "41943040\n", "41000000\n"
		files[dir+"/memory.max_usage_in_bytes"], files[dir+"/memory.failcnt"] = "41943040\n", "77\n"
		files[dir+"/memory.kmem.usage_in_bytes"], files[dir+"/memory.stat"] = "4096\n", "rss 1\ntotal_rss 40000000\ntotal_cache 8192\nhierarchical_memory_limit 41943040\n"
	} else {
		files[dir+"/memory.max"], files[dir+"/memory.current"] = "41943040\n", "41000000\n"
		files[dir+"/memory.peak"], files[dir+"/memory.events"] = "41943040\n", "low 0\nhigh 0\nmax 77\noom 1\noom_kill 1\n"
		files[dir+"/memory.stat"] = "anon 40000000\nfile 8192\nkernel 4096\nnot_ours 5\n"
	}
	files[dir+"/cgroup.procs"], files[dir+"/inner/cgroup.procs"] = "501\n", "500\n"
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestSnapshot(t *testing.T) {
	for _, v1 := range []bool{true, false} {
		root := fakeHost(t, v1)
		layout, err := cgroup.Detect(root)
		if err != nil {
			t.Fatal(err)
		}
		log := &kmsg{fd: -1}
		s := &snapshotter{root: root, layout: layout, log: log, cfg: Spec().Config.(Config)}
		r, err := newDecoder().decode(bytesOf(sample()))
		if err != nil {
			t.Fatal(err)
		}
		b := r.Body.(*OOMKill)
		rep := findReport(readLog(t, "group.log"), 301)
		s.explain(r, b, &rep)
		s.memcg(b, rep.memcg)
		s.members(r, b)
		s.host(b)
		m := b.Memcg
		if m == nil || m.Path != "/pod" || m.LimitBytes != 40<<20 || m.UsageBytes != 41_000_000 || m.PeakBytes != 40<<20 || m.Failures != 77 ||
			m.Stat["anon"] != 40_000_000 || m.Stat["file"] != 8192 || m.Stat["kernel"] != 4096 || len(m.Stat) != 3 {
			t.Errorf("v1 %v: memcg %+v", v1, m)
		}
		if b.Host["total"] != 16_000_000<<10 || b.Host["available"] != 100<<10 || len(b.Host) != 2 {
			t.Errorf("host %v", b.Host)
		}
		if len(b.Processes) != 3 || !b.Processes[0].Victim || b.Processes[0].PID != 1233 || b.Processes[1].Comm != "nginx" || b.Processes[1].RSSBytes != 70*uint64(os.Getpagesize()) {
			t.Errorf("processes %+v", b.Processes)
		}
		if b.Constraint != "memcg" || b.AnonBytes != 1<<20 || len(b.Missing) != 0 {
			t.Errorf("%+v", b)
		}
		if want := "java (pid 1233, 1 MiB) was chosen by the OOM killer: cgroup /pod is at its limit of 40 MiB"; b.title(r.Process) != want {
			t.Errorf("title %q, want %q", b.title(r.Process), want)
		}
	}
}
