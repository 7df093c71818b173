package hungtask

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"huatuo/internal/kern/ksym"
	"huatuo/internal/kern/load"
	"huatuo/internal/probes/probetest"
	"huatuo/internal/signal"
	"huatuo/test/faults/frozenfs"
)

// frozen is a file system that lets nobody write, and a process in a cgroup
// that tries to: it waits and cannot be interrupted.
type frozen struct {
	cg  *probetest.Cgroup
	dir string // of the file system
	pid uint32
}

func freeze(t *testing.T) *frozen {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount a file system: run `make ktest` as root")
	}
	fs, err := frozenfs.New(t.TempDir())
	if err != nil {
		t.Skipf("needs a free loop device and ext4: %v", err)
	}
	t.Cleanup(func() {
		if err := fs.Close(); err != nil {
			t.Error(err)
		}
	})
	fr := &frozen{dir: fs.Dir, cg: probetest.NewCgroup(t, fmt.Sprintf("huatuo-test-hungtask-%d", os.Getpid()))}
	if err := fs.Freeze(); err != nil {
		t.Fatal(err)
	}
	c := exec.Command("sh", "-c", "read x; exec touch "+fs.Dir+"/file")
	stdin, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := fs.Thaw(); err != nil {
			t.Error(err)
		}
		c.Process.Kill()
		c.Wait()
	})
	fr.cg.Add(t, c.Process.Pid)
	fr.pid = uint32(c.Process.Pid)
	fmt.Fprintln(stdin)
	return fr
}

// sysctl sets a value and restores it at the test's end.
func sysctl(t *testing.T, name, value string) {
	t.Helper()
	path := filepath.Join("/proc/sys", name)
	old, err := os.ReadFile(path)
	if err != nil {
		t.Skipf("needs %s: a kernel that detects hung tasks (CONFIG_DETECT_HUNG_TASK)", name)
	}
	if err := os.WriteFile(path, []byte(value), 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.WriteFile(path, old, 0); err != nil {
			t.Error(err)
		}
	})
}

// TestKernel lets a process hang in a frozen file system: by the iterator of
// tasks and by /proc, by each kind of hook and of ring.
func TestKernel(t *testing.T) {
	if b, err := os.ReadFile("/proc/sys/kernel/hung_task_panic"); err == nil && strings.TrimSpace(string(b)) != "0" {
		t.Skip("needs kernel.hung_task_panic=0: this machine would restart")
	}
	fr := freeze(t)
	sysctl(t, "kernel/hung_task_warnings", "-1") // no limit
	sysctl(t, "kernel/hung_task_timeout_secs", "1")
	for _, kinds := range [][]string{{load.TPBTF, load.Iter}, {load.RawTP}} {
		for _, ring := range []string{"ringbuf", "perf"} {
			t.Run(kinds[0]+"/"+ring, func(t *testing.T) {
				testHang(t, fr, load.Options{Kinds: kinds, Ring: ring})
			})
		}
	}
	t.Run(load.Legacy, func(t *testing.T) {
		testHang(t, fr, load.Options{Kinds: []string{load.RawTP}, Flavour: load.Legacy})
	})
}

func testHang(t *testing.T, fr *frozen, o load.Options) {
	env := probetest.NewKernel(t, o)
	syms := ksym.New("")
	env.Symbol = func(ip uint64) string { s, _ := syms.Lookup(ip); return s.Name }
	cfg := Spec().Config.(Config)
	cfg.Threshold = 600 * time.Millisecond
	env.Start(Spec(), cfg)
	byIter := o.Kinds[0] == load.TPBTF
	if hs := env.Hooks(); len(hs) != 2 || hs[0].By != o.Kinds[0] || (hs[1].By == load.Iter) != byIter {
		t.Fatalf("hooks %+v", hs)
	}
	for _, source := range []string{bySampling, byKernel} {
		r := env.WaitRecord(func(r *signal.Record) bool { return r.Process.PID == fr.pid && r.Body.(*HungTask).Source == source })
		b := r.Body.(*HungTask)
		if b.Wait != "percpu_rwsem_wait" || b.WaitClass != classLock || b.Killable || b.Tasks != 1 || r.Process.Comm != "touch" || r.CgroupID != fr.cg.ID ||
			len(r.KernelIPs)+len(r.KernelStack) < 4 {
			t.Errorf("%s: %+v of %+v in %d with %d and %d frames", source, b, r.Process, r.CgroupID, len(r.KernelIPs), len(r.KernelStack))
		}
		checkFrozen(t, fr, r)
		if d := time.Since(r.Time); d < 0 || d > 30*time.Second {
			t.Errorf("%s: the event is %v old", source, d)
		}
		if source == bySampling && (b.BlockedSeconds < 0.6 || b.BlockedSeconds > 10) {
			t.Errorf("hangs for %v s", b.BlockedSeconds)
		}
		if source == byKernel && (b.BlockedSeconds < 1 || !strings.HasPrefix(b.Log, "INFO: task touch:") || !strings.Contains(b.Log, "percpu_rwsem_wait")) {
			t.Errorf("the kernel's report: %v s, %q", b.BlockedSeconds, b.Log)
		}
	}
	samples := env.Gather()
	if n, _ := probetest.WorkloadValue(samples, containerWaiting.Name, fr.cg.ID, classLock); n != 1 {
		t.Errorf("%v tasks of the workload wait, want 1", n)
	}
	for _, want := range []struct{ name, label string }{{waiting.Name, classLock}, {hung.Name, ""}} {
		var labels []string
		if want.label != "" {
			labels = []string{want.label}
		}
		if n, _ := probetest.Value(samples, want.name, labels...); n < 1 {
			t.Errorf("%s is %v", want.name, n)
		}
	}
	if err := env.Stop(); err != nil {
		t.Fatal(err)
	}
	loss := env.Loss()
	var dropped uint64
	for _, n := range loss.Dropped {
		dropped += n
	}
	if got := uint64(len(env.Records())); loss.Observed != got+dropped {
		t.Errorf("observed %d, but %d records and %v lost", loss.Observed, got, loss.Dropped)
	}
}

// checkFrozen: the event tells which file system it is, and that it is frozen.
func checkFrozen(t *testing.T, fr *frozen, r *signal.Record) {
	t.Helper()
	b := r.Body.(*HungTask)
	w := b.WaitsFor
	if w == nil || w.Kind != onFrozen || w.Mount != fr.dir || w.FSType != "ext4" || !strings.HasPrefix(w.Source, "/dev/loop") || "/dev/"+w.Device != w.Source ||
		w.Path != fr.dir+"/file" || w.Syscall == "" || len(r.Keys) != 1 {
		t.Errorf("%s: waits for %+v with keys %q (missing %q)", b.Source, w, r.Keys, b.Missing)
	}
	if !strings.Contains(r.Verdict, "is frozen") || b.Owner != nil || len(b.Missing) != 1 || !strings.HasPrefix(b.Missing[0], "owner: ") {
		t.Errorf("%s: verdict %q, owner %+v, missing %q", b.Source, r.Verdict, b.Owner, b.Missing)
	}
}

// TestKernelQuiet counts a task that waits, which is no event before its time.
func TestKernelQuiet(t *testing.T) {
	fr := freeze(t)
	for _, kinds := range [][]string{nil, {load.RawTP}} { // the iterator, then /proc
		env := probetest.NewKernel(t, load.Options{Kinds: kinds})
		cfg := Spec().Config.(Config)
		cfg.Threshold = 4 * time.Second
		env.Start(Spec(), cfg)
		var n float64
		for end := time.Now().Add(5 * time.Second); n != 1 && time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
			n = 0 // without symbols the iterator cannot tell what it waits for
			for _, class := range classNames() {
				v, _ := probetest.WorkloadValue(env.Gather(), containerWaiting.Name, fr.cg.ID, class)
				n += v
			}
		}
		if n != 1 {
			t.Errorf("%v tasks of the workload wait, want 1", n)
		}
		time.Sleep(1200 * time.Millisecond) // one more walk
		for _, r := range env.Records() {
			if r.Process.PID == fr.pid {
				t.Errorf("event before its time: %s", r.Title)
			}
		}
		if err := env.Stop(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestKernelRefuses(t *testing.T) {
	err := probetest.NewKernel(t, load.Options{}).TryStart(Spec(), Config{Threshold: time.Millisecond})
	if err == nil || !strings.Contains(err.Error(), "probes.hungtask.threshold") {
		t.Errorf("a threshold that is too short: %v", err)
	}
}
