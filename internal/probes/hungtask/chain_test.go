package hungtask

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"huatuo/internal/kern/ksym"
	"huatuo/internal/kern/load"
	"huatuo/internal/probes/probetest"
	"huatuo/internal/signal"
	"huatuo/test/faults/slowdisk"
)

// observe runs the probe with a short threshold.
func observe(t *testing.T) *probetest.Env {
	env := probetest.NewKernel(t, load.Options{})
	syms := ksym.New("")
	env.Symbol = func(ip uint64) string { s, _ := syms.Lookup(ip); return s.Name }
	cfg := Spec().Config.(Config)
	cfg.Threshold = 600 * time.Millisecond
	env.Start(Spec(), cfg)
	return env
}

// held is a disk whose every request hangs until the test's end. It is told by
// release what to end before.
func held(t *testing.T) (d *slowdisk.Disk, release func(func())) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount a file system: run `make ktest` as root")
	}
	d, err := slowdisk.Mount(t.TempDir(), 1<<20)
	if err != nil {
		t.Skipf("needs /dev/fuse: %v", err)
	}
	var last []func()
	t.Cleanup(func() {
		d.Release()
		for i := len(last) - 1; i >= 0; i-- {
			last[i]()
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d, func(f func()) { last = append(last, f) }
}

// child runs a command that is going to hang, and ends it when it can be.
func child(t *testing.T, release func(func()), name string, args ...string) uint32 {
	t.Helper()
	c := exec.Command(name, args...)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	release(func() { c.Process.Kill(); c.Wait() })
	return uint32(c.Process.Pid)
}

func hangs(pid uint32) func(*signal.Record) bool {
	return func(r *signal.Record) bool { return r.Process.PID == pid && r.Body.(*HungTask).Source == bySampling }
}

// TestKernelOwner has two processes write to one file of a FUSE file system that does not answer: the
// first holds the inode's lock while it waits for the server, the second waits for
// the lock.
func TestKernelOwner(t *testing.T) {
	d, release := held(t)
	env := observe(t)
	d.Hold()
	write := []string{"if=/dev/zero", "of=" + d.Path, "bs=4096", "count=1", "conv=notrunc"}
	holder := child(t, release, "dd", write...)
	waitFor(t, holder, "request_wait_answer", "vfs_write") // it opens the file before
	waiter := child(t, release, "dd", write...)

	r := env.WaitRecord(hangs(waiter))
	b := r.Body.(*HungTask)
	if b.Lock == "" {
		t.Skipf("needs a kernel that tells who holds a lock (Linux 6.17, CONFIG_DETECT_HUNG_TASK_BLOCKER): %v", b.Missing)
	}
	if b.Lock != "rwsem" || b.Owner == nil || b.Owner.Process.PID != holder || b.Owner.Process.Comm != "dd" || b.LastReader || b.OwnerWait != "request_wait_answer" ||
		b.OwnerState != "S" && b.OwnerState != "D" || len(b.Owner.KernelIPs)+len(b.Owner.KernelStack) < 4 {
		t.Errorf("lock %q, owner %+v, last reader %v, state %q, waits in %q; want the rwsem of %d", b.Lock, b.Owner, b.LastReader, b.OwnerState, b.OwnerWait, holder)
	}
	w := b.WaitsFor
	if w == nil || w.Kind != onFUSE || w.Mount != filepath.Dir(d.Path) || w.Source != "slowdisk" || !strings.HasPrefix(w.FSType, "fuse") || w.Path != d.Path || w.Syscall != "write" {
		t.Errorf("waits for %+v", w)
	}
	if s := b.Server; s != nil && s.Process.PID != uint32(os.Getpid()) {
		t.Errorf("served by %+v, want this process", s.Process)
	} else if s == nil {
		t.Logf("this kernel does not tell who serves a FUSE file system")
	}
	for _, want := range []string{"it waits for a rwsem that dd (pid ", "holds, which waits in request_wait_answer", filepath.Dir(d.Path)} {
		if !strings.Contains(r.Verdict, want) {
			t.Errorf("verdict %q lacks %q", r.Verdict, want)
		}
	}
	t.Log(r.Title, "|", r.Verdict)
}

// waitFor waits until all functions are on the stack of a process.
func waitFor(t *testing.T, pid uint32, functions ...string) {
	t.Helper()
	dir := filepath.Join("/proc", strconv.Itoa(int(pid)))
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		stack, err := os.ReadFile(dir + "/stack")
		if !slices.ContainsFunc(functions, func(f string) bool { return !strings.Contains(string(stack), f) }) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d does not wait in %s: %v\n%s", pid, functions, err, stack)
		}
	}
}

// TestKernelDevice has a process read a block device that does not answer.
func TestKernelDevice(t *testing.T) {
	d, release := held(t)
	loop, err := slowdisk.Attach(d.Path)
	if err != nil {
		t.Skipf("needs a free loop device: %v", err)
	}
	release(func() {
		if err := loop.Detach(); err != nil {
			t.Error(err)
		}
	})
	env := observe(t)
	d.Hold()
	reader := child(t, release, "dd", "if="+loop.Dev, "of=/dev/null", "bs=4096", "count=1", "iflag=direct")
	r := env.WaitRecord(hangs(reader))
	b := r.Body.(*HungTask)
	name := filepath.Base(loop.Dev)
	number, err := os.ReadFile("/sys/class/block/" + name + "/dev")
	if err != nil {
		t.Fatal(err)
	}
	if w := b.WaitsFor; w == nil || w.Kind != onDevice || w.Device != name || w.Path != loop.Dev || w.Syscall != "read" {
		t.Errorf("waits for %+v, want %s", w, name)
	}
	if want := "dev:" + strings.TrimSpace(string(number)); len(r.Keys) != 1 || r.Keys[0] != want {
		t.Errorf("keys %q, want %s", r.Keys, want)
	}
	if b.Owner != nil || b.Lock != "" {
		t.Errorf("lock %q of %+v: it waits for none", b.Lock, b.Owner)
	}
	t.Log(r.Title, "|", r.Verdict, b.Missing)
}
