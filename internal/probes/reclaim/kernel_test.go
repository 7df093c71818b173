package reclaim

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"huatuo/internal/kern/load"
	"huatuo/internal/probes/probetest"
	"huatuo/internal/signal"
)

const limit = 24 << 20 // of the cgroup: enough for a shell and cat, and a tenth of what they read

// inLimit runs a shell command in a new cgroup whose memory is limited.
func inLimit(t *testing.T, command string) *probetest.Cgroup {
	t.Helper()
	cg := probetest.NewCgroup(t, fmt.Sprintf("huatuo-test-reclaim-%d", os.Getpid()))
	file := filepath.Join(cg.Dir("memory"), "memory.max")
	if probetest.OnV1() {
		file = filepath.Join(cg.Dir("memory"), "memory.limit_in_bytes")
	}
	if err := os.WriteFile(file, []byte(strconv.Itoa(limit)), 0); err != nil {
		t.Skipf("needs the memory controller: %v", err)
	}
	c := exec.Command("sh", "-c", "read x; "+command)
	c.Stderr = os.Stderr
	stdin, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	cg.Add(t, c.Process.Pid)
	fmt.Fprintln(stdin)
	stdin.Close()
	if err := c.Wait(); err != nil {
		t.Errorf("%s: %v", command, err)
	}
	return cg
}

// hole makes a file without blocks: reading it fills the page cache and needs no disk.
func hole(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "hole")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(256 << 20); err != nil {
		t.Fatal(err)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); err != nil {
		t.Fatal(err)
	}
	if fs.Type == unix.TMPFS_MAGIC {
		t.Skip("needs a temporary directory that is not on tmpfs: set TMPDIR")
	}
	return path
}

// TestKernel reads more than a cgroup's limit holds and compacts memory, by
// each kind of hook and of ring.
func TestKernel(t *testing.T) {
	probetest.Rungs(t, testStalls)
}

func testStalls(t *testing.T, o load.Options) {
	env := probetest.NewKernel(t, o)
	cfg := Spec().Config.(Config)
	cfg.Reclaim, cfg.Compaction = time.Microsecond, time.Microsecond
	env.Start(Spec(), cfg)
	for _, h := range env.Hooks() {
		if h.By != o.Kinds[0] && h.Hook != "mm_vmscan_throttled" {
			t.Fatalf("hook %+v: want it by %s", h, o.Kinds[0])
		}
	}
	cg := inLimit(t, "cat "+hole(t)+" > /dev/null; echo 1 > /proc/sys/vm/compact_memory")

	r := env.WaitRecord(func(r *signal.Record) bool { return r.CgroupID == cg.ID && r.Schema == reclaimStall })
	b := r.Body.(*ReclaimStall)
	if b.ReclaimKind != "memcg" || b.StallSeconds <= 0 || b.StallSeconds > 5 || b.GFP == "" || b.SumSeconds != 0 || r.Process.Comm != "cat" ||
		len(r.KernelIPs) < 3 || len(r.UserIPs) == 0 {
		t.Errorf("reclaim %+v of %+v with %d and %d frames", b, r.Process, len(r.KernelIPs), len(r.UserIPs))
	}
	if d := time.Since(r.Time); d < 0 || d > 30*time.Second {
		t.Errorf("the event is %v old", d)
	}
	probetest.Event{
		Title:    `cat \(pid \d+\) reclaimed memory for \S+s at the limit of its memory cgroup and got \d+ pages`,
		Severity: signal.Warning, Kernel: true, User: true, Cgroup: cg.ID,
	}.Check(t, r)
	r = env.WaitRecord(func(r *signal.Record) bool { return r.CgroupID == cg.ID && r.Schema == compactionStall })
	probetest.Event{Title: `sh \(pid \d+\) compacted memory for \S+s: \w+`, Severity: signal.Warning, Kernel: true, User: true, Cgroup: cg.ID}.Check(t, r)
	if b := r.Body.(*CompactionStall); b.Order != -1 || b.Status == "" || r.Process.Comm != "sh" || len(r.KernelIPs) < 3 {
		t.Errorf("compaction %+v of %+v", b, r.Process)
	}
	measured(t, env, cg)
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

// measured checks histograms and counters after reading 256 MiB through a limit of 24.
func measured(t *testing.T, env *probetest.Env, cg *probetest.Cgroup) {
	counts := map[string]uint64{}
	samples := env.Gather()
	for _, s := range samples {
		if s.Hist != nil && (s.Schema.Scope == signal.Host || s.CgroupID == cg.ID) {
			counts[s.Schema.Name+" "+s.Labels[0]] = s.Hist.Count
		}
	}
	for _, k := range []string{
		seconds.Name + " memcg", seconds.Name + " compaction", containerSeconds.Name + " memcg", containerSeconds.Name + " compaction",
	} {
		if counts[k] == 0 {
			t.Errorf("nothing counted in %s", k)
		}
	}
	const read = 256 << 20
	n, _ := probetest.WorkloadValue(samples, containerPages.Name, cg.ID)
	// With large folios the kernel reports some multiple of what it really frees.
	if got, want := n*float64(os.Getpagesize()), float64(read-2*limit); got < want || got > 32*read {
		t.Errorf("%v bytes reclaimed, want %v at least", got, want)
	}
}

// TestKernelSum has a threshold that no single reclaim passes.
func TestKernelSum(t *testing.T) {
	env := probetest.NewKernel(t, load.Options{})
	cfg := Spec().Config.(Config)
	cfg.Reclaim, cfg.ReclaimSum = time.Minute, 2*time.Millisecond
	env.Start(Spec(), cfg)
	cg := inLimit(t, "cat "+hole(t)+" > /dev/null")
	r := env.WaitRecord(func(r *signal.Record) bool { return r.CgroupID == cg.ID })
	probetest.Event{
		Title:    `cat \(pid \d+\) reclaimed memory \d+ times for \S+s in \S+s at the limit of its memory cgroup`,
		Severity: signal.Warning, Kernel: true, User: true, Cgroup: cg.ID,
	}.Check(t, r)
	b := r.Body.(*ReclaimStall)
	if b.SumSeconds < 0.002 || b.Calls < 1 || b.WindowSeconds < b.SumSeconds || b.WindowSeconds > 11 || b.StallSeconds > b.SumSeconds {
		t.Errorf("reclaim %+v", b)
	}
}

// TestKernelNode reclaims a NUMA node by request where the kernel lets one ask.
func TestKernelNode(t *testing.T) {
	const file = "/sys/devices/system/node/node0/reclaim"
	if _, err := os.Stat(file); err != nil {
		t.Skip("needs a kernel that reclaims a node by request (6.17)")
	}
	env := probetest.NewKernel(t, load.Options{})
	cfg := Spec().Config.(Config)
	cfg.Reclaim = time.Microsecond
	env.Start(Spec(), cfg)
	fd, err := syscall.Open(file, syscall.O_WRONLY, 0) // not by os, which waits for the end of an EAGAIN that has none
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	if _, err := syscall.Write(fd, []byte("4M")); err != nil {
		t.Logf("reclaim: %v", err) // not all that was asked for could be had
	}
	r := env.WaitRecord(func(r *signal.Record) bool { return int(r.Process.PID) == os.Getpid() })
	probetest.Event{
		Title:    `\S+ \(pid \d+\) reclaimed memory for \S+s of one NUMA node and got \d+ pages`,
		Severity: signal.Warning, Kernel: true, User: true, PID: os.Getpid(),
	}.Check(t, r)
	if b := r.Body.(*ReclaimStall); b.ReclaimKind != "node" {
		t.Errorf("reclaim %+v", b)
	}
}

// TestKernelQuiet reclaims as much as the others, below the thresholds.
func TestKernelQuiet(t *testing.T) {
	env := probetest.NewKernel(t, load.Options{})
	cfg := Spec().Config.(Config)
	cfg.Reclaim, cfg.ReclaimSum, cfg.Compaction = time.Minute, time.Minute, time.Minute
	env.Start(Spec(), cfg)
	cg := inLimit(t, "cat "+hole(t)+" > /dev/null; echo 1 > /proc/sys/vm/compact_memory")
	measured(t, env, cg)
	if err := env.Stop(); err != nil {
		t.Fatal(err)
	}
	if loss := env.Loss(); loss.Observed != 0 || len(env.Records()) != 0 {
		t.Errorf("%d events below the thresholds", loss.Observed)
	}
}

// TestKernelForms has the verifier look at the programs for other kernels. They
// cannot be attached where the tracepoint has fewer arguments than they read.
func TestKernelForms(t *testing.T) {
	probetest.NewKernel(t, load.Options{})
	for _, form := range []string{"mm_compaction_begin_5", "mm_compaction_end_6", "mm_vmscan_direct_reclaim_begin_3", "mm_vmscan_memcg_reclaim_begin_3"} {
		spec, err := loadBpf()
		if err != nil {
			t.Fatal(err)
		}
		name := form + "_raw"
		spec.Programs = map[string]*ebpf.ProgramSpec{name: spec.Programs[name]}
		c, err := ebpf.NewCollection(spec)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		c.Close()
	}
}
