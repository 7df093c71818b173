package cpustat

import (
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"huatuo/internal/probes/probetest"
	"huatuo/internal/signal"
	"huatuo/test/faults/slowdisk"
)

// TestKernelCounts: what this test does a known number of times is counted that
// often, or more, because others do it too.
func TestKernelCounts(t *testing.T) {
	e := probetest.New(t)
	e.Start(Spec(), nil)
	before := e.Gather()
	const n = 50
	for range n {
		if err := exec.Command("true").Run(); err != nil {
			t.Fatal(err)
		}
	}
	for range n { // each sleep gives the CPU up, and the timer's interrupt ends it
		time.Sleep(2 * time.Millisecond)
	}
	after := e.Gather()
	for _, c := range []struct {
		name   string
		labels []string
		by     float64
	}{
		{"huatuo_forks_total", nil, n},
		{"huatuo_context_switches_total", nil, 2 * n},
		{"huatuo_interrupts_total", nil, n},
	} {
		was, _ := probetest.Value(before, c.name, c.labels...)
		if is, ok := probetest.Value(after, c.name, c.labels...); !ok || is-was < c.by {
			t.Errorf("%s moved by %g, want %g or more", c.name, is-was, c.by)
		}
	}
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		t.Fatal(err)
	}
	want := float64(time.Now().Unix()) - float64(now.Sec)
	if boot, ok := probetest.Value(after, "huatuo_boot_time_seconds"); !ok || boot < want-2 || boot > want+2 {
		t.Errorf("huatuo_boot_time_seconds = %.0f, want %.0f", boot, want)
	}
}

// TestKernelCore: a loop that stays on one CPU moves that CPU's time, and is a
// task that runs.
func TestKernelCore(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var old, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &old); err != nil {
		t.Fatal(err)
	}
	cpu := 0
	for !old.IsSet(cpu) {
		cpu++
	}
	one.Set(cpu)
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		t.Fatal(err)
	}
	defer unix.SchedSetaffinity(0, &old)

	e := probetest.New(t)
	e.Start(Spec(), nil)
	busy := func(s []signal.Sample) float64 {
		user, _ := probetest.Value(s, "huatuo_cpu_core_seconds_total", strconv.Itoa(cpu), "user")
		nice, _ := probetest.Value(s, "huatuo_cpu_core_seconds_total", strconv.Itoa(cpu), "nice")
		return user + nice
	}
	before := busy(e.Gather())
	burned := burn(t, time.Second)
	after := e.Gather()
	// The tick samples, and a virtual machine loses ticks: see TestKernel.
	if d := busy(after) - before; d < burned.Seconds()/4 {
		t.Errorf("burned %s on CPU %d, its time moved by %g s", burned, cpu, d)
	}
	if n, ok := probetest.Value(after, "huatuo_processes_running"); !ok || n < 1 {
		t.Errorf("huatuo_processes_running = %g, want this one at least", n)
	}
}

// TestKernelBlocked: a read of a disk that hangs is a task that waits for I/O.
func TestKernelBlocked(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	for _, dev := range []string{"/dev/fuse", "/dev/loop-control"} {
		if _, err := os.Stat(dev); err != nil {
			t.Skipf("needs %s: a kernel with CONFIG_FUSE_FS and CONFIG_BLK_DEV_LOOP", dev)
		}
	}
	d, err := slowdisk.Mount(t.TempDir(), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	l, err := slowdisk.Attach(d.Path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Release(); l.Detach() })
	e := probetest.New(t)
	e.Start(Spec(), nil)
	d.Hold()
	const n = 3
	done := make(chan error, n)
	for i := range int64(n) {
		go func() { done <- readBlock(l.Dev, i) }()
	}
	blocked := 0.0
	for end := time.Now().Add(10 * time.Second); blocked < n && time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		blocked, _ = probetest.Value(e.Gather(), "huatuo_processes_blocked")
	}
	d.Release()
	for range n {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if blocked < n {
		t.Errorf("huatuo_processes_blocked = %g with %d reads that hang", blocked, n)
	}
}

// readBlock reads a block of a device past the page cache.
func readBlock(dev string, block int64) error {
	fd, err := unix.Open(dev, unix.O_RDONLY|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	buf, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS) // aligned
	if err != nil {
		return err
	}
	defer unix.Munmap(buf)
	_, err = unix.Pread(fd, buf, block*4096)
	return err
}
