package runqueue

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"huatuo/internal/kern/load"
	"huatuo/internal/probes/probetest"
	"huatuo/internal/signal"
	"huatuo/test/faults/slowdisk"
)

// TestSleepWire holds the Go side to the program's kinds of sleep.
func TestSleepWire(t *testing.T) {
	var c bpfCpuState
	if got, want := len(c.Slept[0].Slots), signal.LatencySlots(0); got != want {
		t.Errorf("histograms have %d slots, signal says %d", got, want)
	}
	if len(c.Slept) != len(futexes)+len(faults) {
		t.Errorf("%d histograms for %d kinds", len(c.Slept), len(futexes)+len(faults))
	}
	var g bpfGroupSleeps
	if len(g.By) != sleepKinds || len(ops)+len(faults)+len(futexes)+1 != sleepKinds {
		t.Errorf("the program has %d kinds, user space %d: %q %q", len(g.By), sleepKinds, futexes, ops)
	}
}

const (
	// sleeper makes this binary a process that waits in a futex: so many times,
	// so long, with so much in the word.
	sleeper = "HUATUO_TEST_FUTEX"
	// toucher makes it a process that maps that file and reads a byte of each page.
	toucher = "HUATUO_TEST_TOUCH"
	// toucherOfOne makes it one that maps a file and, when it may go on, reads one byte at an offset.
	toucherOfOne = "HUATUO_TEST_TOUCH_ONE"
)

func TestMain(m *testing.M) {
	for name, f := range map[string]func(string) error{sleeper: waitInFutex, toucher: touch, toucherOfOne: touchByte} {
		if s := os.Getenv(name); s != "" {
			if err := f(s); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			os.Exit(0)
		}
	}
	os.Exit(m.Run())
}

// mapFile maps a file of which no page is read ahead.
func mapFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	mem, err := unix.Mmap(int(f.Fd()), 0, int(st.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	return mem, unix.Madvise(mem, unix.MADV_RANDOM)
}

// touchByte says when it has mapped the file and when it has touched it, and stays until its input ends.
func touchByte(s string) error {
	var offset int
	var file string
	if _, err := fmt.Sscan(s, &offset, &file); err != nil {
		return err
	}
	mem, err := mapFile(file)
	if err != nil {
		return err
	}
	var b [1]byte
	if _, err := os.Stdout.Write(b[:]); err != nil {
		return err
	}
	if _, err := os.Stdin.Read(b[:]); err != nil {
		return err
	}
	b[0] = mem[offset] // not the kernel, on behalf of a write
	if _, err := os.Stdout.Write(b[:]); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

func touch(file string) error {
	mem, err := mapFile(file)
	if err != nil {
		return err
	}
	var sum byte
	for i := 0; i < len(mem); i += os.Getpagesize() {
		sum |= mem[i]
	}
	if sum != 0 {
		return errors.New("the file is not what was written")
	}
	return nil
}

const futexWaitPrivate = 128 // FUTEX_WAIT | FUTEX_PRIVATE_FLAG

func waitInFutex(s string) error {
	var times int
	var each time.Duration
	var word uint32
	if _, err := fmt.Sscan(s, &times, (*int64)(&each), &word); err != nil {
		return err
	}
	var b [1]byte
	if _, err := os.Stdin.Read(b[:]); err != nil {
		return err
	}
	for range times {
		end := time.Now().Add(each)
		for left := each; left > 0; left = time.Until(end) { // the runtime's signals end a wait early
			ts := unix.NsecToTimespec(int64(left))
			_, _, errno := unix.RawSyscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(&word)), futexWaitPrivate, uintptr(word), uintptr(unsafe.Pointer(&ts)), 0, 0)
			if errno != unix.ETIMEDOUT && errno != unix.EINTR {
				return errno
			}
		}
	}
	return nil
}

// run lets a process of a new group wait in futexes, and returns the group.
func runSleeper(t *testing.T, times int, each time.Duration, word uint32) *probetest.Cgroup {
	t.Helper()
	cg := probetest.NewCgroup(t, fmt.Sprintf("huatuo-test-sleeps-%d", os.Getpid()))
	c := exec.Command(os.Args[0])
	// One thread that sleeps, and the runtime's own with nothing to do.
	c.Env = append(os.Environ(), sleeper+"="+strings.Join([]string{strconv.Itoa(times), strconv.FormatInt(int64(each), 10), strconv.Itoa(int(word))}, " "), "GOMAXPROCS=1", "GODEBUG=asyncpreemptoff=1")
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.Stderr = os.Stderr
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	cg.Add(t, c.Process.Pid)
	if _, err := in.Write([]byte{'\n'}); err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(); err != nil {
		t.Fatal(err)
	}
	return cg
}

func startSleeps(t testing.TB, o load.Options) *probetest.Env {
	t.Helper()
	env := probetest.NewKernel(t, o)
	env.Start(Spec(), nil)
	if hs := env.Hooks(); len(o.Kinds) > 0 && hs[0].By != o.Kinds[0] {
		t.Fatalf("hooks %+v: want %s", hs, o.Kinds[0])
	}
	return env
}

// hookKinds runs f by each kind of hook; there is no ring in it.
func hookKinds(t *testing.T, f func(*testing.T, load.Options)) {
	t.Run(load.TPBTF, func(t *testing.T) { f(t, load.Options{Kinds: []string{load.TPBTF}}) })
	t.Run(load.RawTP, func(t *testing.T) { f(t, load.Options{Kinds: []string{load.RawTP}}) })
	t.Run(load.Legacy, func(t *testing.T) { f(t, load.Options{Kinds: []string{load.RawTP}, Flavour: load.Legacy}) })
}

// TestKernelFutex lets a process wait 20 times for 20 ms: for a word with the value
// of a mutex that is taken, and for one with another.
func TestKernelFutex(t *testing.T) {
	hookKinds(t, func(t *testing.T, o load.Options) {
		env := startSleeps(t, o)
		for word, kind := range map[uint32]string{2: "lock", 7: "other"} {
			testKind(t, env, word, kind)
		}
	})
}

func testKind(t *testing.T, env *probetest.Env, word uint32, kind string) {
	t.Helper()
	const times, each = 20, 20 * time.Millisecond
	before := histogram(env.Gather(), kind)
	cg := runSleeper(t, times, each, word)
	s := env.Gather()
	waits, _ := probetest.WorkloadValue(s, containerFutexes.Name, cg.ID, kind)
	seconds, _ := probetest.WorkloadValue(s, containerFutexSeconds.Name, cg.ID, kind)
	// Threads of the runtime wait as well, with a zero in the word: kind other.
	high := float64(times + 2)
	if kind == "other" {
		high = 40 * times
	}
	// When the thread got no CPU for so long between the system call and the sleep, there was none.
	if waits < times*9/10 || waits > high || seconds < 0.9*(times*each).Seconds() || seconds > 60 {
		t.Errorf("%s: %g waits of %g s; want %d of %v", kind, waits, seconds, times, times*each)
	}
	after := histogram(s, kind)
	// 20 ms lie in (2^-6, 2^-5] s; on a busy machine the thread gets its CPU later.
	n := uint64(0)
	for i := range after.Counts {
		if index := after.First + i; index >= -5 && index <= 0 {
			n += after.Counts[i] - before.Counts[i]
		}
	}
	if n < times*9/10 {
		t.Errorf("%s: %d of %d waits lie between 16 ms and 1 s", kind, n, times)
	}
}

func histogram(samples []signal.Sample, kind string) *signal.Hist {
	for _, s := range samples {
		if s.Schema == futexWait && s.Labels[0] == kind {
			return s.Hist
		}
	}
	return nil
}

// TestKernelSleepOther: sleeping in another system call is neither.
func TestKernelSleepOther(t *testing.T) {
	env := startSleeps(t, load.Options{})
	cg := inGroup(t, "for i in 1 2 3 4 5; do sleep 0.01; done | cat")
	for _, s := range env.Gather() {
		if s.CgroupID == cg.ID && slices.Contains([]*signal.Schema{containerFutexes, containerFutexSeconds}, s.Schema) {
			t.Errorf("%g %s%q of a shell that has no threads", s.Value, s.Schema.Name, s.Labels)
		}
		if s.CgroupID == cg.ID && s.Schema == containerFiles && s.Value > 2 { // a page of a program may have to be read
			t.Errorf("%g %s%q of a shell that reads a pipe", s.Value, s.Schema.Name, s.Labels)
		}
	}
}

// inGroup runs a shell script in a group of its own, to its end.
func inGroup(t *testing.T, script string) *probetest.Cgroup {
	t.Helper()
	cg := probetest.NewCgroup(t, fmt.Sprintf("huatuo-test-sleeps-%d", os.Getpid()))
	c := exec.Command("sh", "-c", "read x; "+script)
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	cg.Add(t, c.Process.Pid)
	if _, err := fmt.Fprintln(in); err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(); err != nil {
		t.Fatalf("%s: %v", script, err)
	}
	return cg
}

// disk is ext4 on a loop device on a file whose speed the test sets.
func disk(t *testing.T) (d *slowdisk.Disk, dir string) {
	t.Helper()
	for _, dev := range []string{"/dev/fuse", "/dev/loop-control"} {
		if _, err := os.Stat(dev); err != nil {
			t.Skipf("needs %s: a kernel with CONFIG_FUSE_FS and CONFIG_BLK_DEV_LOOP", dev)
		}
	}
	if _, err := exec.LookPath("mkfs.ext4"); err != nil {
		t.Skip("needs mkfs.ext4: apt-get install e2fsprogs")
	}
	d, err := slowdisk.Mount(t.TempDir(), 32<<20)
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
	dir = t.TempDir()
	t.Cleanup(func() {
		d.SetDelay(0)
		unix.Unmount(dir, unix.MNT_DETACH)
		l.Detach()
	})
	if out, err := exec.Command("mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", l.Dev).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.ext4: %v: %s", err, out)
	}
	if err := unix.Mount(l.Dev, dir, "ext4", 0, ""); err != nil {
		t.Skipf("needs a kernel with ext4: %v", err)
	}
	return d, dir
}

// TestKernelFile reads ten times, and writes and syncs once, on a device that takes 40 ms each time.
func TestKernelFile(t *testing.T) {
	d, dir := disk(t)
	hookKinds(t, func(t *testing.T, o load.Options) { testFile(t, o, d, dir) })
}

func testFile(t *testing.T, o load.Options, d *slowdisk.Disk, dir string) {
	env := startSleeps(t, o)
	file := dir + "/f"
	if err := os.WriteFile(file, make([]byte, 40960), 0o600); err != nil {
		t.Fatal(err)
	}
	unix.Sync()
	const delay = 40 * time.Millisecond
	d.SetDelay(delay)
	begin := time.Now()
	cg := inGroup(t, fmt.Sprintf("dd if=%s of=/dev/null bs=4096 iflag=direct 2>/dev/null; dd if=/dev/zero of=%s bs=4096 count=1 conv=notrunc,fsync 2>/dev/null", file, file))
	took := time.Since(begin).Seconds()
	d.SetDelay(0)
	s := env.Gather()
	for op, least := range map[string]float64{"read": 10, "fsync": 1} {
		n, _ := probetest.WorkloadValue(s, containerFiles.Name, cg.ID, op)
		secs, _ := probetest.WorkloadValue(s, containerFileSeconds.Name, cg.ID, op)
		if n < least || n > 4*least+2 || secs < least*delay.Seconds() || secs > took {
			t.Errorf("%s: %g waits of %g s; want at least %g of %v in %g s", op, n, secs, least, delay, took)
		}
		var h *signal.Hist
		for _, x := range s {
			if x.Schema == fileWait && x.Labels[0] == "ext4" && x.Labels[1] == op {
				h = x.Hist
			}
		}
		if h == nil || h.Sum < secs*0.99 {
			t.Fatalf("%s: the host's histogram is %+v, the workload waited %g s", op, h, secs)
		}
		// 40 ms lie in (2^-5, 2^-4] s; on a busy machine a wait takes longer.
		var long uint64
		for i, c := range h.Counts {
			if h.First+i >= -4 {
				long += c
			}
		}
		if long < uint64(least) {
			t.Errorf("%s: %d waits were longer than 31 ms, want %g", op, long, least)
		}
	}
}

// TestKernelFault maps a file, and touches 20 pages of it that have to be read from a device that takes 20 ms.
func TestKernelFault(t *testing.T) {
	d, dir := disk(t)
	hookKinds(t, func(t *testing.T, o load.Options) { testFault(t, o, d, dir) })
}

func testFault(t *testing.T, o load.Options, d *slowdisk.Disk, dir string) {
	env := startSleeps(t, o)
	const pages, delay = 20, 20 * time.Millisecond
	page := os.Getpagesize()
	coldFile(t, dir+"/f", pages*page)
	before := faultHistogram(env.Gather())
	d.SetDelay(delay)
	// Not this process, which serves the device: a fault keeps others from changing its memory.
	cg := inGroup(t, fmt.Sprintf("%s=%s/f %s", toucher, dir, os.Args[0]))
	d.SetDelay(0)
	s := env.Gather()
	n, _ := probetest.WorkloadValue(s, containerFaults.Name, cg.ID, "io")
	secs, _ := probetest.WorkloadValue(s, containerFaultSeconds.Name, cg.ID, "io")
	if n < pages || n > 4*pages || secs < (pages*delay).Seconds() {
		t.Errorf("%g waits of %g s, want %d of %v", n, secs, pages, pages*delay)
	}
	after := faultHistogram(s)
	var long uint64
	for i, c := range after.Counts {
		if after.First+i >= -5 { // above 2^-6 s, 16 ms
			long += c - before.Counts[i]
		}
	}
	if long < pages*9/10 { // one may be two waits
		t.Errorf("%d waits were longer than 16 ms, want %d", long, pages)
	}
}

func faultHistogram(samples []signal.Sample) *signal.Hist {
	for _, s := range samples {
		if s.Schema == faultWait && s.Labels[0] == "io" {
			return s.Hist
		}
	}
	return nil
}
