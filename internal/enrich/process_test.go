package enrich

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"huatuo/internal/signal"
)

// procOf checks what was filled, leaving out the start time.
func procOf(t *testing.T, r *signal.Record, want signal.Process) {
	t.Helper()
	got := r.Process
	if got.StartTime == nil {
		t.Error("no start time")
	}
	got.StartTime = nil
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestProcess(t *testing.T) {
	h := newHost(t)
	h.run(task{pid: 10, ppid: 1, comm: "bash"})
	h.run(task{pid: 42, ppid: 10, comm: "app", exe: "/usr/bin/app", args: []string{"app", "--password=x", "a b"}, cgroup: "/"})
	h.run(task{pid: 50, comm: "kworker/0:1", flags: 0x00200000, cgroup: "/"})
	h.run(task{pid: 60, ppid: 999, comm: "orphan", exe: "/x", cgroup: "/"})
	e := h.enricher(Options{})

	r := h.record(e, 42, 0)
	full := signal.Process{PID: 42, Comm: "app", Exe: "/usr/bin/app", Cmdline: "app --password=*** a b", ParentPID: 10, Parent: "bash"}
	procOf(t, r, full)
	if len(r.Unresolved) != 0 {
		t.Errorf("unresolved %q", r.Unresolved)
	}

	// What the kernel told stays: the comm of a thread.
	r = &signal.Record{Time: h.now, Process: signal.Process{PID: 42, TID: 43, Comm: "worker"}}
	e.Record(r)
	thread := full
	thread.TID, thread.Comm = 43, "worker"
	procOf(t, r, thread)

	r = h.record(e, 50, 0)
	procOf(t, r, signal.Process{PID: 50, Comm: "kworker/0:1"})
	if len(r.Unresolved) != 0 {
		t.Errorf("kernel thread: unresolved %q", r.Unresolved)
	}

	r = h.record(e, 60, 0)
	if want := []string{lackCmdline, lackParent}; !slices.Equal(r.Unresolved, want) {
		t.Errorf("unresolved %q, want %q", r.Unresolved, want)
	}
	r = h.record(e, 77, 0)
	if want := []string{lackProcess, lackContainer}; !slices.Equal(r.Unresolved, want) {
		t.Errorf("unresolved %q, want %q", r.Unresolved, want)
	}
	r = h.record(e, 0, 0) // about no process: nothing is lacking
	if r.Process != (signal.Process{}) || len(r.Unresolved) != 0 {
		t.Errorf("no process: %+v, unresolved %q", r.Process, r.Unresolved)
	}
	want := map[string]uint64{lackCmdline: 1, lackParent: 1, lackProcess: 1, lackContainer: 1}
	if diff := cmp.Diff(want, e.Unresolved()); diff != "" {
		t.Error(diff)
	}
}

func TestDeadAreRemembered(t *testing.T) {
	h := newHost(t)
	h.run(task{pid: 42, ppid: 1, comm: "app", exe: "/app", args: []string{"app"}, cgroup: "/docker/" + ctr1})
	e := h.enricher(Options{})
	e.scan()
	h.kill(42)
	for _, age := range []time.Duration{0, time.Minute, 9 * time.Minute} {
		h.now = h.now.Add(age)
		e.scan()
		if r := h.record(e, 42, 0); r.Process.Exe != "/app" || r.Process.Cmdline != "app" || r.Container.ID != ctr1 {
			t.Errorf("after %v: %+v in %+v", age, r.Process, r.Container)
		}
	}
	h.now = h.now.Add(2 * time.Minute)
	e.scan()
	if r := h.record(e, 42, 0); !slices.Contains(r.Unresolved, lackProcess) {
		t.Errorf("after 12 minutes: %+v", r.Process)
	}
}

func TestPidReuse(t *testing.T) {
	h := newHost(t)
	boot := h.clock.BootTime()
	h.now = boot.Add(time.Hour)
	h.run(task{pid: 42, comm: "old", exe: "/old", args: []string{"old"}, start: boot.Add(time.Minute)})
	e := h.enricher(Options{})
	before := h.now
	if r := h.record(e, 42, 0); r.Process.Comm != "old" {
		t.Fatalf("%+v", r.Process)
	}
	h.kill(42)
	h.now = h.now.Add(10 * time.Second)
	h.run(task{pid: 42, comm: "new", exe: "/new", args: []string{"new"}, start: h.now.Add(-time.Second)})

	r := h.record(e, 42, 0)
	if r.Process.Comm != "new" || r.Process.Exe != "/new" || !r.Process.StartTime.After(before) {
		t.Errorf("now: %+v", r.Process)
	}
	// An event that was on its way, of the process that has died.
	r = &signal.Record{Time: before, Process: signal.Process{PID: 42}}
	if e.Record(r); r.Process.Comm != "old" || r.Process.Cmdline != "old" || !r.Process.StartTime.Before(before) {
		t.Errorf("before: %+v", r.Process)
	}
	// The kernel told which one.
	old := boot.Add(time.Minute)
	r = &signal.Record{Time: h.now, Process: signal.Process{PID: 42, StartTime: &old}}
	if e.Record(r); r.Process.Comm != "old" {
		t.Errorf("with the start time of the old: %+v", r.Process)
	}
	// And one that was never seen.
	third := boot.Add(2 * time.Minute)
	r = &signal.Record{Time: h.now, Process: signal.Process{PID: 42, StartTime: &third}}
	if e.Record(r); r.Process.Comm != "" || !slices.Contains(r.Unresolved, lackProcess) {
		t.Errorf("with the start time of another: %+v, unresolved %q", r.Process, r.Unresolved)
	}
}

func TestExec(t *testing.T) {
	h := newHost(t)
	h.run(task{pid: 42, comm: "sh", exe: "/bin/sh", args: []string{"sh"}})
	e := h.enricher(Options{})
	h.record(e, 42, 0)
	h.run(task{pid: 42, comm: "app", exe: "/app", args: []string{"app", "-x"}})
	h.now = h.now.Add(checkEvery)
	if r := h.record(e, 42, 0); r.Process.Comm != "app" || r.Process.Exe != "/app" || r.Process.Cmdline != "app -x" {
		t.Errorf("after exec: %+v", r.Process)
	}
	// Of a program with the same name, or a new title: later.
	h.run(task{pid: 42, comm: "app", exe: "/app", args: []string{"app", "-y"}})
	h.now = h.now.Add(refresh)
	if r := h.record(e, 42, 0); r.Process.Cmdline != "app -y" {
		t.Errorf("after a minute: %+v", r.Process)
	}
}

// TestStuck has command lines that cannot be read.
func TestStuck(t *testing.T) {
	h := newHost(t)
	const n = 3 * helpers
	e := h.enricher(Options{})
	var release []func()
	for pid := uint32(100); pid < 100+n; pid++ {
		h.run(task{pid: pid, comm: "stuck", exe: "/stuck", cgroup: "/"})
		release = append(release, h.hang(pid, "stuck\x00-v\x00"))
	}
	start := time.Now()
	for pid := uint32(100); pid < 100+n; pid++ {
		r := h.record(e, pid, 0)
		if r.Process.Comm != "stuck" || !slices.Contains(r.Unresolved, lackCmdline) {
			t.Fatalf("%+v, unresolved %q", r.Process, r.Unresolved)
		}
		if pid == 100 && r.Process.Exe != "/stuck" {
			t.Errorf("exe was not read before cmdline: %+v", r.Process)
		}
	}
	// Without the cap on helpers this is n times patience at least.
	if d := time.Since(start); d > time.Second {
		t.Errorf("%d stuck processes held the records up for %v", n, d)
	}
	if got := len(e.slow.jobs); got > helpers {
		t.Errorf("%d reads hang, more than %d", got, helpers)
	}
	start = time.Now()
	for range 1000 {
		h.now = h.now.Add(time.Second) // read stat anew each time
		h.record(e, 100, 0)
	}
	if d := time.Since(start); d > 2*time.Second {
		t.Errorf("1000 records of a process known to be stuck took %v", d)
	}

	for _, f := range release {
		f()
	}
	deadline := time.Now().Add(5 * time.Second)
	for {
		r := h.record(e, 100, 0)
		if r.Process.Cmdline == "stuck -v" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the command line did not come when it could be read: %+v", r.Process)
		}
		time.Sleep(time.Millisecond)
	}
}

func TestBudget(t *testing.T) {
	h := newHost(t)
	for pid := uint32(1000); pid < 1000+readBurst+50; pid++ {
		h.run(task{pid: pid, comm: "p", flags: 0x00200000})
	}
	e := h.enricher(Options{})
	count := func() (known int) {
		for pid := uint32(1000); pid < 1000+readBurst+50; pid++ {
			if r := h.record(e, pid, 0); r.Process.Comm != "" {
				known++
			}
		}
		return known
	}
	if n := count(); n != readBurst {
		t.Errorf("%d processes were read with a budget of %d", n, readBurst)
	}
	h.now = h.now.Add(time.Second)
	if n := count(); n != readBurst+50 {
		t.Errorf("%d processes are known after the budget was filled up, want %d", n, readBurst+50)
	}
}

func TestProcessCap(t *testing.T) {
	h := newHost(t)
	e := h.enricher(Options{MaxProcesses: 8})
	for pid := uint32(100); pid < 120; pid++ {
		h.run(task{pid: pid, comm: "p", flags: 0x00200000})
		h.record(e, pid, 0)
		h.record(e, 100, 0) // stays, because it is asked for
	}
	for pid := uint32(100); pid < 120; pid++ {
		h.kill(pid)
	}
	if n := e.procs.lru.Len(); n != 8 || len(e.procs.byPID) != 8 {
		t.Errorf("%d processes known, %d pids, want 8", n, len(e.procs.byPID))
	}
	for pid, known := range map[uint32]bool{100: true, 119: true, 101: false} {
		if got := h.record(e, pid, 0).Process.Comm != ""; got != known {
			t.Errorf("%d is known: %v, want %v", pid, got, known)
		}
	}
	// A scan leaves room for those that events ask for.
	for pid := uint32(200); pid < 220; pid++ {
		h.run(task{pid: pid, comm: "q", flags: 0x00200000})
	}
	e.scan()
	if h.record(e, 100, 0).Process.Comm == "" {
		t.Error("a scan pushed out a process that events had asked for")
	}
}

func TestRemoveFromChain(t *testing.T) {
	ps := newProcesses(10)
	now := time.Unix(1_800_000_000, 0)
	var chain []*proc
	for start := range uint64(3) {
		p := &proc{key: key{7, start}}
		ps.insert(p, now)
		chain = append(chain, p)
	}
	starts := func() (got []uint64) {
		for p := ps.byPID[7]; p != nil; p = p.older {
			got = append(got, p.start)
		}
		return got
	}
	ps.remove(chain[1])
	if got := starts(); !slices.Equal(got, []uint64{2, 0}) {
		t.Errorf("middle removed: %v", got)
	}
	ps.remove(chain[2])
	if got := starts(); !slices.Equal(got, []uint64{0}) {
		t.Errorf("first removed: %v", got)
	}
	ps.remove(chain[0])
	if len(ps.byPID) != 0 || ps.lru.Len() != 0 {
		t.Error("not empty")
	}
}

func TestClean(t *testing.T) {
	for _, tt := range []struct {
		in    string
		limit int
		want  string
	}{
		{"abc", 10, "abc"},
		{"a\xffb", 10, "a\uFFFDb"},
		{"abcdefgh", 6, "abc…"},
		{"äöüäöü", 8, "äö…"},
	} {
		got := clean(tt.in, tt.limit)
		if got != tt.want || len(got) > tt.limit || !utf8.ValidString(got) {
			t.Errorf("clean(%q, %d) = %q, want %q", tt.in, tt.limit, got, tt.want)
		}
	}
}

func TestNoRedaction(t *testing.T) {
	if got := NoRedaction().Cmdline([]string{"a", "--password=x"}); got != "a --password=x" {
		t.Errorf("%q", got)
	}
}

// TestRealProcess learns a process of this machine and tells of it once it is dead.
func TestRealProcess(t *testing.T) {
	h := newHost(t)
	redact, err := NewRedactor(nil)
	if err != nil {
		t.Fatal(err)
	}
	e := New(Options{Clock: h.clock, Redact: redact})
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(sleep, "600.25")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := uint32(cmd.Process.Pid)
	e.wait(e.check(pid))
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // "signal: killed"

	r := &signal.Record{Time: time.Now(), Process: signal.Process{PID: pid}}
	e.Record(r)
	comm, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	if r.Process.Comm != "sleep" || r.Process.Cmdline != sleep+" 600.25" || !strings.HasSuffix(r.Process.Exe, "/"+baseOf(t, sleep)) ||
		r.Process.ParentPID != uint32(os.Getpid()) || r.Process.Parent != strings.TrimSpace(string(comm)) {
		t.Errorf("%+v", r.Process)
	}
	if age := time.Since(*r.Process.StartTime); age < 0 || age > time.Minute {
		t.Errorf("started %v ago", age)
	}
}

// baseOf follows links: sleep may be busybox.
func baseOf(t *testing.T, path string) string {
	t.Helper()
	fi, err := os.Readlink(path)
	if err != nil {
		fi = path
	}
	return fi[strings.LastIndexByte(fi, '/')+1:]
}

func TestSeen(t *testing.T) {
	h := newHost(t)
	e := h.enricher(Options{})
	runEnricher(t, e)
	// After Run's first scan only Seen can tell before 10 s are over.
	deadline := time.Now().Add(5 * time.Second)
	for pid := uint32(100); ; pid++ {
		h.run(task{pid: pid, comm: "short", flags: 0x00200000})
		e.Seen(pid)
		time.Sleep(20 * time.Millisecond)
		h.kill(pid)
		if r := h.record(e, pid, 0); r.Process.Comm == "short" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("a process that was seen is not known")
		}
	}
	e.Seen(make([]uint32, 5000)...) // more than the queue holds: must not block
}

// TestConcurrent is for the race detector.
func TestConcurrent(t *testing.T) {
	h := newHost(t)
	var ids []uint64
	for i := range 8 {
		path := fmt.Sprintf("/g%d", i)
		ids = append(ids, h.group(path))
		h.run(task{pid: uint32(100 + i), ppid: 100, comm: "p", exe: "/p", args: []string{"p"}, cgroup: path})
	}
	e := h.enricher(Options{MaxProcesses: 6, MaxWorkloads: 4})
	runEnricher(t, e)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range 500 {
				n := i % len(ids)
				if r := h.record(e, uint32(100+n), ids[n]); r.Container.Unit != fmt.Sprintf("/g%d", n) {
					t.Errorf("%+v", r.Container)
				}
				e.Labels(ids[n])
				e.Seen(uint32(100 + n))
				if i%100 == 0 {
					e.work.tidy()
					e.scan()
					e.Unresolved()
				}
			}
		})
	}
	wg.Wait()
}

func BenchmarkRecordCached(b *testing.B) {
	h := newHost(b)
	id := h.group("/docker/" + ctr1)
	h.run(task{pid: 42, comm: "app", exe: "/app", args: []string{"app"}, cgroup: "/docker/" + ctr1})
	e := h.enricher(Options{})
	b.ReportAllocs()
	var r signal.Record
	for b.Loop() {
		r = signal.Record{Time: h.now, Process: signal.Process{PID: 42}, CgroupID: id}
		e.Record(&r)
	}
	if r.Container.ID != ctr1 {
		b.Fatal("no container")
	}
}

func BenchmarkRecordMiss(b *testing.B) {
	h := newHost(b)
	redact, err := NewRedactor(nil)
	if err != nil {
		b.Fatal(err)
	}
	e := New(Options{Clock: h.clock, Redact: redact, Layout: h.layout})
	self := uint32(os.Getpid())
	b.ReportAllocs()
	for b.Loop() {
		e.procs = newProcesses(10)
		e.wait(e.check(self))
	}
	if r := h.record(e, self, 0); r.Process.Cmdline == "" {
		b.Fatal(fmt.Sprint("no command line: ", r.Unresolved))
	}
}
