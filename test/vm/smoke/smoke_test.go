package smoke

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"huatuo/internal/kern/load"
	"huatuo/internal/probe"
	"huatuo/internal/probes/probetest"
	"huatuo/internal/signal"
)

// stall is the threshold of the run-queue probe: twelve busy loops on a CPU
// wait longer on every scheduler since 5.10, and leave the agent a share.
const stall = "20ms"

// TestAgent: every probe runs; what is done to the guest comes out as events and
// metrics; the books balance; SIGTERM ends it. By which hooks they run goes to
// the runner, which holds it to docs/reference/kernels.md.
func TestAgent(t *testing.T) {
	a := start(t, "--set", "probes.runqueue.stall="+stall)
	if n := a.node(); n.BTF != "kernel" || !cmdlineHas("cg="+n.Cgroup) {
		t.Errorf("node %+v: want the kernel's BTF, and control groups as they are mounted", n)
	}
	for _, p := range a.probes() {
		wantRunning(t, p)
	}
	result(t, a)
	provoke(t, a)
	exposition(t, a)
	a.balanced()
	a.stop()
}

// TestFallback: the same where the kernel had neither tp_btf nor ring buffers.
func TestFallback(t *testing.T) {
	a := start(t, "--set", "probes.runqueue.stall="+stall, "--set", "kernel.hooks=raw_tp", "--set", "kernel.ring=perf")
	wantHooks(t, a, load.RawTP)
	provoke(t, a)
	a.balanced()
	a.stop()
}

// TestBTFFile: a kernel that does not show its BTF, and a directory of files in
// which there is the one of this kernel.
func TestBTFFile(t *testing.T) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "debian", unix.ByteSliceToString(u.Release[:])+".btf")
	b, err := os.ReadFile("/sys/kernel/btf/vmlinux")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, b, 0o644); err != nil {
		t.Fatal(err)
	}
	hideBTF(t)
	a := start(t, "--set", "probes.runqueue.stall="+stall, "--btf", filepath.Dir(filepath.Dir(file)))
	if n := a.node(); n.BTF != file {
		t.Errorf("BTF from %q, want %s", n.BTF, file)
	}
	wantHooks(t, a, load.RawTP) // tp_btf looks its target up in the kernel's own
	provoke(t, a)
	a.balanced()
	a.stop()
}

// TestNoBTF: without BTF no program can find its way through the kernel's
// structs. Those probes say so, the others run.
func TestNoBTF(t *testing.T) {
	has := hideBTF(t)
	a := start(t)
	if n := a.node(); n.BTF != "none" {
		t.Errorf("BTF from %q, want none", n.BTF)
	}
	running := 0
	for _, p := range a.probes() {
		wantRunning(t, p)
		switch {
		case p.State == probe.Running, p.State == probe.Degraded:
			running++
		case p.State == probe.Absent:
		case !strings.Contains(p.Reason, "BTF"):
			t.Errorf("probe %s is %s: %q: want it to run, or to be unsupported for want of BTF", p.Name, p.State, p.Reason)
		}
	}
	if running < 8 {
		t.Errorf("%d probes run, want those that read /proc and control groups", running)
	}
	if !has {
		result(t, a) // a kernel without, not one that hides it
	}
	a.metric("huatuo_memory_total_bytes")
	a.stop()
}

// cmdlineHas tells whether the runner started this kernel with a word.
func cmdlineHas(word string) bool {
	b, err := os.ReadFile("/proc/cmdline")
	return err == nil && slices.Contains(strings.Fields(string(b)), word)
}

// wantRunning: a probe may lack a hook, or not run at all, only because this
// kernel has not what it needs; docs/reference/kernels.md tells where. A program
// that the verifier refuses is our mistake.
func wantRunning(t *testing.T, p probe.Status) {
	t.Helper()
	const refused = "load program:"
	switch p.State {
	case probe.Running, probe.Degraded:
	case probe.Absent: // hardware that a guest has not
	case probe.Unsupported:
		if p.Reason == "" || strings.Contains(p.Reason, refused) {
			t.Errorf("probe %s is unsupported: %q", p.Name, p.Reason)
		}
	default:
		t.Errorf("probe %s is %s: %s", p.Name, p.State, p.Reason)
	}
	for _, h := range p.Hooks {
		if h.By == "" && (h.Reason == "" || strings.Contains(h.Reason, refused)) {
			t.Errorf("probe %s runs without %s: %q", p.Name, h.Hook, h.Reason)
		}
	}
}

// wantHooks: every BPF program runs by that kind, but for those that are at no
// tracepoint and know one way only.
func wantHooks(t *testing.T, a *agent, by string) {
	t.Helper()
	n := 0
	for _, p := range a.probes() {
		wantRunning(t, p)
		for _, h := range p.Hooks {
			if h.ID == 0 || h.By == load.PerfEvent || h.By == load.Sysctl {
				continue
			}
			n++
			if h.By != by || h.Reason == "" {
				t.Errorf("probe %s: %+v: want it by %s, and why not better", p.Name, h, by)
			}
		}
	}
	if n == 0 {
		t.Error("no probe has a BPF program")
	}
}

// hideBTF makes the kernel look like one without BTF, until the test ends, and
// tells whether it has any.
func hideBTF(t *testing.T) (has bool) {
	t.Helper()
	if os.Getenv("HUATUO_AGENT") == "" {
		t.Skip("runs in the guests of `make vmtest`; HUATUO_AGENT names the agent's binary")
	}
	const dir = "/sys/kernel/btf"
	if _, err := os.Stat(dir + "/vmlinux"); err != nil {
		return false
	}
	if err := unix.Mount("none", dir, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	return true
}

// provoke does to the guest what the event probes are for.
func provoke(t *testing.T, a *agent) {
	t.Helper()
	kinds := a.kinds()
	for _, step := range []struct {
		kind string
		do   func(*testing.T, *agent)
	}{{"sched_stall", stalls}, {"oom_kill", oom}, {"packet_drop", refused}, {"io_stall", blockIO}, {"process_crash", crash}} {
		if kinds[step.kind] {
			t.Run(step.kind, func(t *testing.T) {
				b := *a
				b.t = t
				step.do(t, &b)
			})
		}
	}
	for _, m := range []string{"huatuo_cpu_seconds_total", "huatuo_load_average", "huatuo_memory_total_bytes", "huatuo_sched_switches_total", "huatuo_runqueue_wait_seconds_count"} {
		a.metric(m)
	}
}

// run starts a shell command in cg.
func run(t *testing.T, cg *probetest.Cgroup, command string) *exec.Cmd {
	t.Helper()
	c := exec.Command("sh", "-c", "read _; "+command)
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	cg.Add(t, c.Process.Pid)
	in.Write([]byte("\n"))
	return c
}

// stalls lets busy loops share a CPU for a while.
func stalls(t *testing.T, a *agent) {
	cg := probetest.NewCgroup(t, "huatuo-smoke-hogs")
	time.Sleep(time.Second) // the agent gets to know the group
	for range 12 {
		c := run(t, cg, "exec taskset 1 sh -c 'while :; do :; done'")
		defer c.Wait()
		defer c.Process.Kill()
	}
	d := a.event("sched_stall", func(d *signal.Document) bool {
		return d.Process != nil && d.Process.Comm == "sh" && d.Container != nil && d.Container.Cgroup == cg.Path
	})
	var f struct {
		WaitSeconds float64      `json:"wait_seconds"`
		Culprit     signal.Party `json:"culprit"`
	}
	if err := json.Unmarshal(d.Fields, &f); err != nil {
		t.Fatal(err)
	}
	if f.WaitSeconds < 0.02 || f.WaitSeconds > 20 || f.Culprit.Process.PID == 0 {
		t.Errorf("fields %s", d.Fields)
	}
	a.metric("huatuo_container_runqueue_wait_seconds_count{", fmt.Sprintf("unit=%q", cg.Path))
}

// oom lets a process outgrow the limit of its group.
func oom(t *testing.T, a *agent) {
	cg := probetest.NewCgroup(t, "huatuo-smoke-oom")
	file := "memory.max"
	if probetest.OnV1() {
		file = "memory.limit_in_bytes"
	}
	if err := os.WriteFile(filepath.Join(cg.Dir("memory"), file), []byte("20971520"), 0); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Second)
	c := run(t, cg, "exec dd if=/dev/zero of=/dev/null bs=60M count=1")
	if err := c.Wait(); err == nil {
		t.Fatal("a process of 60 MB lives in a group of 20 MB")
	}
	a.event("oom_kill", func(d *signal.Document) bool {
		return d.Process != nil && d.Process.Comm == "dd" && d.Container != nil && d.Container.Cgroup == cg.Path
	})
	a.metric("huatuo_oom_kills_total")
}

// refused sends datagrams to a port that nobody has.
func refused(t *testing.T, a *agent) {
	for range 20 {
		c, err := net.Dial("udp", "127.0.0.1:9")
		if err != nil {
			t.Fatal(err)
		}
		c.Write([]byte("x"))
		c.Close()
	}
	d := a.event("packet_drop", func(d *signal.Document) bool {
		return strings.Contains(string(d.Fields), `"destination_port":9`)
	})
	var f struct {
		Protocol string `json:"protocol"`
		Location string `json:"location"`
	}
	if err := json.Unmarshal(d.Fields, &f); err != nil || f.Protocol != "udp" || f.Location == "" {
		t.Errorf("fields %s (%v)", d.Fields, err)
	}
	a.metric("huatuo_network_drops_total", `protocol="udp"`)
}

// crash lets a shell die of a signal that means a bug.
func crash(t *testing.T, a *agent) {
	cg := probetest.NewCgroup(t, "huatuo-smoke-crash")
	time.Sleep(time.Second)
	run(t, cg, "kill -SEGV $$").Wait()
	d := a.event("process_crash", func(d *signal.Document) bool {
		return d.Process != nil && d.Process.Comm == "sh" && d.Container != nil && d.Container.Cgroup == cg.Path
	})
	if !strings.Contains(string(d.Fields), "SIGSEGV") {
		t.Errorf("fields %s", d.Fields)
	}
}

// blockIO reads a file's blocks through a loop device.
func blockIO(t *testing.T, a *agent) {
	file := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(file, make([]byte, 4<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	const dev = "/dev/loop7"
	for _, c := range []string{"losetup " + dev + " " + file, "dd if=" + dev + " of=/dev/null bs=4096 count=100"} {
		if out, err := exec.Command("sh", "-c", c).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", c, err, out)
		}
	}
	defer exec.Command("losetup", "-d", dev).Run()
	a.metric("huatuo_block_io_total_seconds_count", `device="loop7"`, `op="read"`)
}

// result tells the runner, on one line, how the probes run and what the
// verifier thought of their programs.
func result(t *testing.T, a *agent) {
	t.Helper()
	r := struct {
		Probes   []probe.Status    `json:"probes"`
		Verified map[uint32]uint32 `json:"verified"` // program id → instructions that the verifier processed
	}{a.probes(), map[uint32]uint32{}}
	for i := range r.Probes {
		r.Probes[i].Help, r.Probes[i].Source, r.Probes[i].Signals = "", "", nil
		for _, h := range r.Probes[i].Hooks {
			if h.ID == 0 {
				continue
			}
			if n := verified(t, h.ID); n > 0 {
				r.Verified[h.ID] = n
			}
		}
	}
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	os.Stdout.Write([]byte("\n@@RESULT " + string(b) + "\n"))
}

// verified is 0 on a kernel that does not tell it (before 5.16).
func verified(t *testing.T, id uint32) uint32 {
	t.Helper()
	p, err := ebpf.NewProgramFromID(ebpf.ProgramID(id))
	if err != nil {
		t.Errorf("program %d: %v", id, err)
		return 0
	}
	defer p.Close()
	info, err := p.Info()
	if err != nil {
		t.Errorf("program %d: %v", id, err)
		return 0
	}
	n, _ := info.VerifiedInstructions()
	return n
}
