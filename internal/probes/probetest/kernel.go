package probetest

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"huatuo/internal/kern/clock"
	"huatuo/internal/kern/load"
	"huatuo/internal/kern/ring"
)

// NewKernel returns an Env for a probe that loads BPF: kernel, rings and clock
// are real. It skips the test for an ordinary user, and at the test's end it
// fails the test when programs or maps of this process are left in the kernel.
func NewKernel(t testing.TB, o load.Options) *Env {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to load BPF: run `make ktest` as root")
	}
	if o.CgroupController == "" && OnV1() {
		o.CgroupController = "cpu"
	}
	before := bpfFDs(t)
	t.Cleanup(func() {
		for range 50 {
			if bpfFDs(t) <= before {
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
		t.Errorf("%d BPF file descriptors are left, %d before the test", bpfFDs(t), before)
	})
	k, err := load.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	c, err := clock.New()
	if err != nil {
		t.Fatal(err)
	}
	e := New(t)
	e.Kernel, e.Rings, e.Now, e.Clock = k, ring.NewDrainer(), time.Now, c.Mono
	t.Cleanup(e.Rings.Close)
	return e
}

// OnV1 tells whether this machine names workloads by the v1 cpu hierarchy.
func OnV1() bool {
	_, err := os.Stat("/sys/fs/cgroup/cpu/cgroup.procs")
	return err == nil
}

// NeedDefaultHierarchy mounts the cgroup2 hierarchy beside v1 ones until the
// test's end, where it is not: only there the kernel knows a socket's group.
func NeedDefaultHierarchy(t testing.TB) {
	t.Helper()
	const dir = "/sys/fs/cgroup/unified"
	if os.Geteuid() != 0 || !OnV1() {
		return
	}
	if _, err := os.Stat(dir + "/cgroup.procs"); err == nil {
		return
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("cgroup2", dir, "cgroup2", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
		os.Remove(dir)
	})
}

// bpfFDs counts this process's descriptors of BPF maps, programs and links.
func bpfFDs(t testing.TB) int {
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, fd := range fds {
		switch to, _ := os.Readlink("/proc/self/fd/" + fd.Name()); to {
		case "anon_inode:bpf-map", "anon_inode:bpf-prog", "anon_inode:bpf_link":
			n++
		}
	}
	return n
}

// Cgroup is a cgroup made for a test, in every hierarchy in which a container
// runtime would make it.
type Cgroup struct {
	ID   uint64 // in the hierarchy that names workloads
	Path string // below each hierarchy's root, with a leading slash
	dirs []string
}

// NewCgroup makes /<name> in all hierarchies and removes it at the test's end,
// after whatever still runs in it was killed.
func NewCgroup(t testing.TB, name string) *Cgroup {
	t.Helper()
	c := &Cgroup{Path: "/" + name}
	roots := []string{"/sys/fs/cgroup"}
	if OnV1() {
		roots = nil
		for _, h := range []string{"cpu", "cpuacct", "memory", "cpuset", "pids", "blkio", "unified"} {
			if _, err := os.Stat(filepath.Join("/sys/fs/cgroup", h, "cgroup.procs")); err == nil && h != "cpuset" {
				roots = append(roots, filepath.Join("/sys/fs/cgroup", h))
			}
		}
	}
	for _, r := range roots {
		dir := filepath.Join(r, name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		c.dirs = append(c.dirs, dir)
	}
	t.Cleanup(func() { c.remove(t) })
	st, err := os.Stat(c.dirs[0])
	if err != nil {
		t.Fatal(err)
	}
	c.ID = st.Sys().(*syscall.Stat_t).Ino
	return c
}

// Dir returns the cgroup's directory in a v1 controller's hierarchy, or its
// only one on v2.
func (c *Cgroup) Dir(controller string) string {
	if !OnV1() {
		return c.dirs[0]
	}
	return filepath.Join("/sys/fs/cgroup", controller, c.Path)
}

// Add moves a process into the cgroup, in all hierarchies.
func (c *Cgroup) Add(t testing.TB, pid int) {
	t.Helper()
	for _, d := range c.dirs {
		if err := os.WriteFile(filepath.Join(d, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0); err != nil {
			t.Fatal(err)
		}
	}
}

func (c *Cgroup) remove(t testing.TB) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	for ctx.Err() == nil {
		left := 0
		for _, d := range c.dirs {
			if err := os.Remove(d); err != nil && !os.IsNotExist(err) {
				left++
				killAll(filepath.Join(d, "cgroup.procs"))
			}
		}
		if left == 0 {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Errorf("cgroup %s cannot be removed", c.Path)
}

func killAll(procs string) {
	b, _ := os.ReadFile(procs)
	pid := 0
	for _, ch := range b {
		if ch == '\n' {
			syscall.Kill(pid, syscall.SIGKILL)
			pid = 0
			continue
		}
		pid = pid*10 + int(ch-'0')
	}
}

// Missed is how many of a few dozen calls of a hook a test must allow for. Some
// kernels run no BPF program while a task is current that they shield, such as
// the init of a sandbox, and a softirq may land on that one; no counter tells.
// They have no kprobes either, by which they are known here: elsewhere nothing
// may be missed.
func Missed() uint64 {
	if _, err := os.Stat("/sys/bus/event_source/devices/kprobe"); err != nil {
		return 1
	}
	return 0
}
