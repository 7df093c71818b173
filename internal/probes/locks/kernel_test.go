package locks

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"huatuo/internal/kern/ksym"
	"huatuo/internal/kern/load"
	"huatuo/internal/probes/probetest"
	"huatuo/internal/signal"
	"huatuo/test/faults/slowdisk"
)

// newSlow returns a file whose every write takes delay.
func newSlow(t *testing.T, delay time.Duration) string {
	t.Helper()
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skip("needs /dev/fuse: a kernel with CONFIG_FUSE_FS")
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
	d.SetDelay(delay)
	return d.Path
}

// both opens path n times, and writes to each at once with another thread on the same one.
func both(t *testing.T, path string, files int, write func(fd int) error) {
	t.Helper()
	var fds []int
	for range files {
		fd, err := unix.Open(path, unix.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		fds = append(fds, fd)
	}
	var wg sync.WaitGroup
	for i := range 2 {
		wg.Go(func() {
			if err := write(fds[i%files]); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func newEnv(t *testing.T, o load.Options) *probetest.Env {
	env := probetest.NewKernel(t, o)
	if env.Kernel.TracepointArgs("contention_begin") == 0 {
		t.Skip("needs lock:contention_begin, which came with 5.19")
	}
	syms := ksym.New("")
	env.Symbol = func(ip uint64) string { s, _ := syms.Lookup(ip); return s.Name }
	return env
}

// TestKernel makes threads wait for a mutex (of a file's position) and for a
// rwsem (of an inode) while the writer that has it waits for a slow file, by
// each kind of hook and of ring.
func TestKernel(t *testing.T) {
	for _, kind := range []string{load.TPBTF, load.RawTP} {
		for _, ring := range []string{"ringbuf", "perf"} {
			t.Run(kind+"/"+ring, func(t *testing.T) {
				testStall(t, load.Options{Kinds: []string{kind}, Ring: ring})
			})
		}
	}
}

func testStall(t *testing.T, o load.Options) {
	const delay = 60 * time.Millisecond
	path := newSlow(t, delay)
	env := newEnv(t, o)
	env.Start(Spec(), nil)
	for _, h := range env.Hooks() {
		if h.By != o.Kinds[0] {
			t.Fatalf("hook %+v: want it by %s", h, o.Kinds[0])
		}
	}
	both(t, path, 1, func(fd int) error { _, err := unix.Write(fd, []byte("x")); return err })
	both(t, path, 2, func(fd int) error { _, err := unix.Pwrite(fd, []byte("x"), 0); return err })
	for _, typ := range []string{"mutex", "rwsem_write"} {
		r := env.WaitRecord(func(r *signal.Record) bool {
			return r.Body.(*LockContention).Type == typ && int(r.Process.PID) == os.Getpid()
		})
		b := r.Body.(*LockContention)
		if b.WaitSeconds < 0.02 || b.WaitSeconds > 5 || !b.Acquired || b.Lock == unknown || len(r.KernelIPs) == 0 || len(r.UserIPs) == 0 || r.CgroupID == 0 {
			t.Errorf("%+v, %d and %d frames, cgroup %d", b, len(r.KernelIPs), len(r.UserIPs), r.CgroupID)
		}
		if b.Owner == nil || int(b.Owner.Process.PID) != os.Getpid() || b.Owner.Process.TID == r.Process.TID || b.Owner.Process.Comm == "" || b.Owner.CgroupID != r.CgroupID {
			t.Errorf("owner %+v of %+v", b.Owner, b)
		}
		if d := time.Since(r.Time); d < 0 || d > 30*time.Second {
			t.Errorf("the event is %v old", d)
		}
		probetest.Event{
			Title:    `\S+ \(pid \d+\) waited [0-9.]+m?s for ` + typ + ` \S+ while \S+ \(pid \d+\) had it`,
			Severity: signal.Warning, Kernel: true, User: true, PID: os.Getpid(),
		}.Check(t, r)
		samples := env.Gather()
		if v, ok := probetest.Value(samples, longSeconds.Name, typ, b.Lock); !ok || v < 0.02 {
			t.Errorf("%s of %s %s: %g, %v", longSeconds.Name, typ, b.Lock, v, ok)
		}
		if v, ok := probetest.WorkloadValue(samples, containerWaits.Name, r.CgroupID, typ); !ok || v < 1 {
			t.Errorf("%s of %s: %g, %v", containerWaits.Name, typ, v, ok)
		}
		if v, ok := probetest.WorkloadValue(samples, containerSeconds.Name, r.CgroupID, typ); !ok || v < 0.02 {
			t.Errorf("%s of %s: %g, %v", containerSeconds.Name, typ, v, ok)
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

// histCount returns the number of waits of a type so far.
func histCount(env *probetest.Env, typ string) uint64 {
	for _, s := range env.Gather() {
		if s.Schema == wait && s.Labels[0] == typ {
			return s.Hist.Count
		}
	}
	return 0
}

// TestKernelNearMiss: waits below the threshold are counted, and make no event;
// who does not wait is not counted.
func TestKernelNearMiss(t *testing.T) {
	path := newSlow(t, 30*time.Millisecond)
	env := newEnv(t, load.Options{})
	cfg := Spec().Config.(Config)
	cfg.Stall = 20 * time.Second
	env.Start(Spec(), cfg)
	cg := probetest.NewCgroup(t, fmt.Sprintf("huatuo-test-locks-%d", os.Getpid()))
	alone := exec.Command("sh", "-c", "read go; echo x >"+path)
	in, err := alone.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := alone.Start(); err != nil {
		t.Fatal(err)
	}
	cg.Add(t, alone.Process.Pid)
	in.Close()
	alone.Wait() // read fails, the write goes on
	if v, ok := probetest.WorkloadValue(env.Gather(), containerSeconds.Name, cg.ID, "rwsem_write"); ok && v > 0.02 {
		t.Errorf("a writer that is alone waited %g s", v)
	}
	before := histCount(env, "rwsem_write")
	both(t, path, 2, func(fd int) error { _, err := unix.Pwrite(fd, []byte("x"), 0); return err })
	if after := histCount(env, "rwsem_write"); after <= before {
		t.Errorf("%d waits for rwsems, then %d", before, after)
	}
	if err := env.Stop(); err != nil {
		t.Fatal(err)
	}
	if rs := env.Records(); len(rs) != 0 || env.Loss().Observed != 0 {
		t.Errorf("%d events below the threshold", len(rs))
	}
}

// TestKernelSpin: threads that wake each other on one futex contend for the
// spin lock of its bucket.
func TestKernelSpin(t *testing.T) {
	if runtime.NumCPU() < 2 {
		t.Skip("needs two CPUs")
	}
	env := newEnv(t, load.Options{})
	cfg := Spec().Config.(Config)
	cfg.Long = time.Nanosecond // every wait has its place
	cfg.Stall = 20 * time.Second
	env.Start(Spec(), cfg)
	hammer(t)
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		for _, s := range env.Gather() {
			if s.Schema == longWaits && s.Labels[0] == "spinlock" && s.Labels[1] != other && s.Labels[1] != unknown {
				t.Logf("%s: %g waits of %d", s.Labels[1], s.Value, histCount(env, "spinlock"))
				return
			}
		}
		if time.Now().After(end) {
			t.Fatalf("no spin lock with a name in 20 s, %d waits", histCount(env, "spinlock"))
		}
	}
}

// hammer wakes a futex that nobody waits for, from four threads, until the test ends.
func hammer(t *testing.T) {
	var word uint32
	done := make(chan struct{})
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				op, val := uintptr(1), uintptr(1) // FUTEX_WAKE
				var timeout unsafe.Pointer
				if i%2 == 0 {
					op, val = 0, 0 // FUTEX_WAIT while the word is 0, for 1 µs
					timeout = unsafe.Pointer(&unix.Timespec{Nsec: 1000})
				}
				unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(&word)), op, val, uintptr(timeout), 0, 0)
			}
		})
	}
	t.Cleanup(func() { close(done); wg.Wait() })
}
