package oomkill

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"huatuo/internal/kern/load"
	"huatuo/internal/probes/probetest"
	"huatuo/internal/signal"
)

// TestMain lets the test binary be its own victim.
func TestMain(m *testing.M) {
	if os.Getenv("HUATUO_TEST_HOG") == "" {
		os.Exit(m.Run())
	}
	bufio.NewReader(os.Stdin).ReadString('\n') // it is in its cgroup now
	pause, _ := time.ParseDuration(os.Getenv("HUATUO_TEST_HOG"))
	var hog [][]byte
	for range 300 {
		time.Sleep(pause)
		b := make([]byte, 1<<20)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		hog = append(hog, b)
	}
	time.Sleep(time.Minute)
	fmt.Println(len(hog))
}

const limit = 48 << 20

// TestKernel runs a process into the memory limit of its cgroup, by each kind of hook and ring.
func TestKernel(t *testing.T) {
	probetest.Rungs(t, testKill)
}

// startHog starts a process that takes 1 MiB after the other, with a pause before each, once it gets a line.
func startHog(t *testing.T, cg *probetest.Cgroup, pause time.Duration) (*exec.Cmd, io.Writer) {
	t.Helper()
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), "HUATUO_TEST_HOG="+pause.String())
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Process.Kill(); c.Wait() })
	cg.Add(t, c.Process.Pid)
	return c, in
}

// limited is a cgroup that may have limit bytes.
func limited(t *testing.T) *probetest.Cgroup {
	t.Helper()
	cg := probetest.NewCgroup(t, fmt.Sprintf("huatuo-test-oomkill-%d", os.Getpid()))
	file := "memory.max"
	if probetest.OnV1() {
		file = "memory.limit_in_bytes"
	}
	if err := os.WriteFile(filepath.Join(cg.Dir("memory"), file), []byte(fmt.Sprint(limit)), 0); err != nil {
		t.Skipf("needs the memory controller: %v", err)
	}
	return cg
}

func testKill(t *testing.T, o load.Options) {
	env := probetest.NewKernel(t, o)
	cfg := Spec().Config.(Config)
	cfg.HistoryInterval = 0
	env.Start(Spec(), cfg)
	if h := env.Hooks(); len(h) != 1 || h[0].By != o.Kinds[0] {
		t.Fatalf("hooks %+v: want %s", h, o.Kinds[0])
	}
	cg := limited(t)

	// Killed, but not for memory: no event.
	other, _ := startHog(t, cg, 0)
	other.Process.Kill()
	other.Wait()

	c, in := startHog(t, cg, 0)
	start := time.Now()
	io.WriteString(in, "\n")
	r := env.WaitRecord(func(r *signal.Record) bool { return r.CgroupID == cg.ID })
	if d := time.Since(start); d > 10*time.Second {
		t.Errorf("the event came after %v", d)
	}
	checkKill(t, r, c.Process.Pid, cg)

	samples := env.Gather()
	if n, _ := probetest.WorkloadValue(samples, containerKills.Name, cg.ID); n != 1 {
		t.Errorf("%v kills of the cgroup, want 1", n)
	}
	if n, _ := probetest.Value(samples, kills.Name, "memcg"); n < 1 {
		t.Errorf("%v kills for a cgroup's limit", n)
	}
	if err := env.Stop(); err != nil {
		t.Fatal(err)
	}
	for _, x := range env.Records() {
		if x.CgroupID == cg.ID && x != r {
			t.Errorf("one more event: %s", x.Title)
		}
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

func checkKill(t *testing.T, r *signal.Record, pid int, cg *probetest.Cgroup) {
	t.Helper()
	b := r.Body.(*OOMKill)
	comm := filepath.Base(os.Args[0])
	comm = comm[:min(len(comm), 15)]
	if r.Process.PID != uint32(pid) || r.Process.Comm != comm {
		t.Errorf("victim %+v, want %s %d", r.Process, comm, pid)
	}
	if b.Constraint != "memcg" || b.AnonBytes < limit/2 || b.AnonBytes > limit+16<<20 || b.VirtualBytes < b.AnonBytes {
		t.Errorf("%+v", b)
	}
	if b.Trigger.Process.PID != uint32(pid) || b.Trigger.CgroupID != cg.ID || len(b.Trigger.KernelIPs) < 5 {
		t.Errorf("trigger %+v: want the victim itself", b.Trigger)
	}
	if m := b.Memcg; m == nil || m.Path != cg.Path || m.LimitBytes != limit || m.UsageBytes < limit-4<<20 || m.UsageBytes > limit+1<<20 || m.PeakBytes < m.UsageBytes || len(m.Stat) == 0 {
		t.Errorf("memcg %+v", b.Memcg)
	}
	if len(b.Processes) == 0 || !b.Processes[0].Victim || b.Processes[0].PID != uint32(pid) || b.Processes[0].RSSBytes < limit/2 {
		t.Errorf("processes %+v", b.Processes)
	}
	if b.Host["total"] < limit {
		t.Errorf("host %v", b.Host)
	}
	log := strings.Join(b.Log, "\n")
	if !strings.Contains(log, "invoked oom-killer") || !strings.Contains(log, fmt.Sprintf("Killed process %d", pid)) {
		t.Errorf("log %q", log)
	}
	if len(b.Missing) != 0 {
		t.Errorf("missing %q", b.Missing)
	}
	if !strings.Contains(r.Title, cg.Path+" is at its limit of 48 MiB") {
		t.Errorf("title %q", r.Title)
	}
	if age := time.Since(r.Time); age < 0 || age > 30*time.Second {
		t.Errorf("the event is %v old", age)
	}
}

// TestForms loads the program for kernels whose mark_victim tells the thread id
// only. Run on this kernel it would take an address for an id, so it is not attached.
func TestForms(t *testing.T) {
	env := probetest.NewKernel(t, load.Options{})
	spec, err := loadBpf()
	if err != nil {
		t.Fatal(err)
	}
	l, err := env.Kernel.New(spec)
	if err != nil {
		t.Fatal(err)
	}
	for name := range l.Spec.Programs {
		if name != "mark_victim_pid_raw" {
			delete(l.Spec.Programs, name)
		}
	}
	c, err := ebpf.NewCollection(l.Spec)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Programs) != 1 {
		t.Error("no program mark_victim_pid_raw")
	}
	c.Close()
}
