package oomkill

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"huatuo/internal/kern/cgroup"
	"huatuo/internal/kern/load"
	"huatuo/internal/probe"
	"huatuo/internal/probes/probetest"
	"huatuo/internal/signal"
)

// TestKernelGrowth runs a process into its limit in some seconds: the event tells
// how it came to that.
func TestKernelGrowth(t *testing.T) {
	env := probetest.NewKernel(t, load.Options{})
	cfg := Spec().Config.(Config)
	cfg.HistoryInterval = minHistoryInterval
	env.Start(Spec(), cfg)
	cg := limited(t)
	c, in := startHog(t, cg, 80*time.Millisecond) // 48 MiB in 4 s
	time.Sleep(3 * minHistoryInterval)            // notes of before
	fmt.Fprintln(in)
	r := env.WaitRecord(func(r *signal.Record) bool { return r.CgroupID == cg.ID })
	b := r.Body.(*OOMKill)
	if len(b.Growth) < 4 {
		t.Fatalf("growth %+v of %+v, missing %q", b.Growth, b.Memcg, b.Missing)
	}
	first, last := b.Growth[0], b.Growth[len(b.Growth)-1]
	if first.SecondsAgo < 2 || first.SecondsAgo > 60 || first.Bytes > limit/2 || last.SecondsAgo != 0 || last.Bytes < limit-4<<20 {
		t.Errorf("growth %+v: want it from little to the limit", b.Growth)
	}
	for i := 1; i < len(b.Growth); i++ {
		if b.Growth[i].SecondsAgo >= b.Growth[i-1].SecondsAgo {
			t.Errorf("growth is not in order: %+v", b.Growth)
		}
	}
	bytes, ago, ok := rise(b.Growth)
	if !ok || bytes < limit/2 || ago < time.Second || !strings.Contains(r.Title, ", and its use grew "+size(bytes)+" in ") {
		t.Errorf("grew %d bytes in %v, title %q", bytes, ago, r.Title)
	}
	i := slices.IndexFunc(b.Processes, func(p Process) bool { return int(p.PID) == c.Process.Pid })
	if i < 0 {
		t.Fatalf("processes %+v", b.Processes)
	}
	// On a host with many processes it may not have been looked at before.
	if p := b.Processes[i]; p.GrewIn != 0 && (p.Grew < limit/4 || p.GrewIn > 60) {
		t.Errorf("the process grew %d bytes in %v s", p.Grew, p.GrewIn)
	}
	t.Log(r.Title, b.Growth)
}

func TestRise(t *testing.T) {
	const mb = 1 << 20
	for _, tt := range []struct {
		name   string
		points []Point
		bytes  uint64
		ago    time.Duration
		ok     bool
	}{
		{"steady", []Point{{120, 20 * mb}, {60, 260 * mb}, {0, 500 * mb}}, 480 * mb, 2 * time.Minute, true},
		{"late", []Point{{120, 20 * mb}, {60, 20 * mb}, {10, 20 * mb}, {0, 500 * mb}}, 480 * mb, 10 * time.Second, true},
		{"after it shrank", []Point{{120, 400 * mb}, {60, 100 * mb}, {0, 500 * mb}}, 400 * mb, time.Minute, true},
		{"at its limit all the time", []Point{{120, 499 * mb}, {60, 500 * mb}, {0, 500 * mb}}, 0, 0, false},
		{"it shrank", []Point{{120, 600 * mb}, {0, 500 * mb}}, 0, 0, false},
		{"one", []Point{{0, 500 * mb}}, 0, 0, false},
		{"none", nil, 0, 0, false},
	} {
		bytes, ago, ok := rise(tt.points)
		if bytes != tt.bytes || ago != tt.ago || ok != tt.ok {
			t.Errorf("%s: %d bytes in %v, %v; want %d in %v", tt.name, bytes, ago, ok, tt.bytes, tt.ago)
		}
	}
}

// TestHistory follows the processes and the memory of a host that is made up.
func TestHistory(t *testing.T) {
	root := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		p := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	process := func(pid, start, pages int) {
		write(fmt.Sprintf("proc/%d/stat", pid), fmt.Sprintf("%d (a) b) S 1 1 1 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 %d 100 %d 18446744073709551615\n", pid, start, pages))
	}
	meminfo := func(available int) {
		write("proc/meminfo", fmt.Sprintf("MemTotal: 1000 kB\nMemAvailable: %d kB\n", available))
	}
	page := int64(os.Getpagesize())
	h := &history{root: root, groups: map[string]*series{}, processes: map[uint32]*series{}}
	at := time.Unix(1000, 0)
	for i := range 40 {
		process(5, 7, 100+i)
		process(6, 7+i, 1000) // another each time
		process(7, 7, 0)      // of the kernel
		meminfo(900 - 10*i)
		h.round(at.Add(time.Duration(i) * time.Second))
	}
	now := at.Add(40 * time.Second)
	if bytes, secs := h.grew(5, now, uint64(200*page)); bytes != 90*page || secs != 30 {
		t.Errorf("grew %d bytes in %v s, want 90 pages in 30 s: no more is kept", bytes, secs)
	}
	if bytes, secs := h.grew(6, now, uint64(2000*page)); bytes != 1000*page || secs != 1 {
		t.Errorf("a process with the pid of an earlier one grew %d bytes in %v s", bytes, secs)
	}
	for _, pid := range []uint32{7, 99} {
		if bytes, secs := h.grew(pid, now, 1); bytes != 0 || secs != 0 {
			t.Errorf("%d, which is not followed, grew %d bytes in %v s", pid, bytes, secs)
		}
	}
	ps, err := h.growth("", now, 999<<10)
	if err != nil || len(ps) != maxPoints+1 || ps[0] != (Point{30, 200 << 10}) || ps[maxPoints] != (Point{0, 999 << 10}) {
		t.Errorf("the host: %+v, %v", ps, err)
	}
	if ps, err := h.growth("/not/there", now, 1); err == nil || ps != nil {
		t.Errorf("a group that is not followed: %+v", ps)
	}
	h.left = 3
	if _, err := h.growth("/not/there", now, 1); err == nil || !strings.Contains(err.Error(), "503 groups are more than 500") {
		t.Errorf("one of too many: %v", err)
	}
}

// TestChosen: workloads first, and no more than is cheap.
func TestChosen(t *testing.T) {
	var live []cgroup.Entry
	for i := range 600 {
		live = append(live, cgroup.Entry{Path: fmt.Sprintf("/g%d", i)})
	}
	live = append(live, cgroup.Entry{Path: "/"})
	paths, left := chosen(live)
	if len(paths) != maxGroups || left != 100 {
		t.Errorf("%d groups and %d left", len(paths), left)
	}
	if paths, left = chosen(nil); len(paths) != 0 || left != 0 {
		t.Errorf("no groups: %d and %d left", len(paths), left)
	}
}

func TestRefusesInterval(t *testing.T) {
	cfg := Spec().Config.(Config)
	cfg.HistoryInterval = time.Millisecond
	if err := run(context.Background(), nil, cfg); err == nil || !strings.Contains(err.Error(), "history_interval") {
		t.Errorf("an interval that is too short: %v", err)
	}
}

// BenchmarkRound is what a look at this machine costs.
func BenchmarkRound(b *testing.B) {
	l, err := cgroup.Detect("/")
	if err != nil {
		b.Skipf("needs control groups: %v", err)
	}
	x, err := cgroup.NewIndex(l, cgroup.IndexOptions{})
	if err != nil {
		b.Skipf("needs control groups: %v", err)
	}
	defer x.Close()
	h := newHistory(&probe.Env{Root: "/", Cgroups: x}, l)
	b.ReportAllocs()
	for b.Loop() {
		h.round(time.Now())
	}
	b.ReportMetric(float64(len(h.groups)), "groups")
	b.ReportMetric(float64(len(h.processes)), "processes")
}
