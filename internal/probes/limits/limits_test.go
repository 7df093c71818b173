package limits

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"huatuo/internal/kern/load"
	"huatuo/internal/probes/probetest"
	"huatuo/internal/signal"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// TestKnobs reads recorded files; of those that are not there come no values.
func TestKnobs(t *testing.T) {
	for root, golden := range map[string]string{"testdata": "knobs", "testdata/endless": "endless"} {
		b := new(signal.Batch)
		k := &knobs{dir: root + "/proc/sys"}
		if err := k.collect(b); err != nil {
			t.Error(err)
		}
		probetest.Golden(t, "testdata/"+golden+".golden", b.Samples, nil, *update)
	}
}

func TestKnobsBad(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(dir+"/fs", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/fs/inode-nr", []byte("7 x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	b := new(signal.Batch)
	if err := (&knobs{dir: dir}).collect(b); err == nil || !strings.Contains(err.Error(), "inode-nr") || len(b.Samples) != 0 {
		t.Errorf("a file with one number: %v, %d samples", err, len(b.Samples))
	}
}

// TestProc walks a /proc that was written down: sizes and names of fd are those of the directory it lies in.
func TestProc(t *testing.T) {
	s := &procSource{proc: "testdata/proc", buf: make([]byte, 4096)}
	all, states, err := s.walk()
	if err != nil {
		t.Fatal(err)
	}
	found := map[uint32]process{}
	for _, p := range all {
		found[p.tgid] = p
	}
	if states != nil || len(found) != 2 || found[7].limit != 16 || found[7].files == 0 || found[8].limit != 0 || found[8].ratio() != 0 {
		t.Errorf("%+v", all)
	}
	if _, _, err := (&procSource{proc: "testdata/none"}).walk(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no /proc: %v", err)
	}
}

// TestSum: of several groups of one workload the shares are not added, the files are.
func TestSum(t *testing.T) {
	w := &walker{}
	s := w.sum([]process{
		{cgroup: 5, tgid: 1, files: 80, limit: 100}, {cgroup: 5, tgid: 2, files: 10, limit: 1000}, {cgroup: 6, tgid: 3, files: 90, limit: 100},
		{tgid: 4, files: 95, limit: 100}, {cgroup: 7, tgid: 5, files: 3}, {cgroup: 7, tgid: 6, zombie: true},
	})
	s.states = []uint64{1, 2, 3, 4, 5, 6}
	w.last.Store(s)
	b := new(signal.Batch)
	w.collect(b)
	for _, x := range []struct {
		cgroup uint64
		files  float64
		ratio  float64
	}{{5, 90, 0.8}, {6, 90, 0.9}, {7, 3, 0}} {
		if v, _ := probetest.WorkloadValue(b.Samples, containerFiles.Name, x.cgroup); v != x.files {
			t.Errorf("group %d: %v files, want %v", x.cgroup, v, x.files)
		}
		if v, _ := probetest.WorkloadValue(b.Samples, containerRatio.Name, x.cgroup); v != x.ratio {
			t.Errorf("group %d: ratio %v, want %v", x.cgroup, v, x.ratio)
		}
	}
	if v, _ := probetest.Value(b.Samples, processRatio.Name); v != 0.95 || len(b.Samples) != 1+6+3*3 {
		t.Errorf("host's ratio %v, %d samples", v, len(b.Samples))
	}
	if v, _ := probetest.Value(b.Samples, tasksByState.Name, "zombie"); v != 6 {
		t.Errorf("%v zombies, want 6", v)
	}
	if v, _ := probetest.WorkloadValue(b.Samples, containerZombies.Name, 7); v != 1 {
		t.Errorf("%v zombies of the workload, want 1", v)
	}
}

func TestRefuses(t *testing.T) {
	if err := probetest.New(t).TryStart(Spec(), Config{}); err == nil || !strings.Contains(err.Error(), "probes.limits.interval") {
		t.Errorf("an interval of zero: %v", err)
	}
}

// holdFiles makes this binary the process that TestKernel looks at: it opens so
// many files, of so many that it may, and waits for the end of its input.
const holdFiles = "HUATUO_TEST_HOLD_FILES"

func TestMain(m *testing.M) {
	if s := os.Getenv(holdFiles); s != "" {
		if err := hold(s); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func hold(s string) error {
	var files int
	var limit uint64
	if _, err := fmt.Sscan(s, &files, &limit); err != nil {
		return err
	}
	more := max(limit, uint64(files+100))
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: more, Max: more}); err != nil {
		return fmt.Errorf("raise the limit: %w", err)
	}
	for range files {
		if _, err := unix.Open("/dev/null", unix.O_RDONLY, 0); err != nil {
			return err
		}
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: limit, Max: limit}); err != nil {
		return err
	}
	fmt.Println("ready")
	_, err := bufio.NewReader(os.Stdin).ReadString('\n')
	if err != nil {
		return nil // the end of the input is the signal
	}
	return errors.New("unexpected input")
}

// start runs such a process in a group of its own and returns the group and how many files it has open.
func start(t *testing.T, files, limit int) (cg *probetest.Cgroup, open float64) {
	t.Helper()
	cg = probetest.NewCgroup(t, fmt.Sprintf("huatuo-test-limits-%d", os.Getpid()))
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), fmt.Sprintf("%s=%d %d", holdFiles, files, limit))
	stdin, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stdin.Close(); c.Wait() })
	if line, err := bufio.NewReader(stdout).ReadString('\n'); err != nil || line != "ready\n" {
		t.Skipf("needs %d open files, which `ulimit -n` must allow: %q, %v", files, line, err)
	}
	cg.Add(t, c.Process.Pid)
	fds, err := os.ReadDir("/proc/" + strconv.Itoa(c.Process.Pid) + "/fd")
	if err != nil {
		t.Fatal(err)
	}
	return cg, float64(len(fds))
}

// TestKernel counts the files of a process in a cgroup: by the iterator, when
// there are few and when there are more than it counts, and by /proc.
func TestKernel(t *testing.T) {
	for _, by := range []string{load.Iter, "procfs"} {
		for _, files := range []int{50, 6000} {
			t.Run(fmt.Sprintf("%s/%d", by, files), func(t *testing.T) { testCount(t, by, files) })
		}
	}
}

func testCount(t *testing.T, by string, files int) {
	o := load.Options{}
	if by != load.Iter {
		o.Kinds = []string{load.RawTP}
	}
	env := probetest.NewKernel(t, o)
	limit := files * 5 / 4
	cg, open := start(t, files, limit)
	hostFiles := func() float64 {
		v, _ := probetest.Value(env.Gather(), filesOpen.Name)
		return v
	}
	cfg := Spec().Config.(Config)
	cfg.Interval = 20 * time.Millisecond
	env.Start(Spec(), cfg)
	if hs := env.Hooks(); hs[len(hs)-1].By != by {
		if strings.Contains(hs[0].Reason, "load") {
			t.Fatalf("the kernel has iterators and does not take ours: %+v", hs)
		}
		t.Skipf("needs an iterator of tasks (Linux 5.8): %+v", hs)
	}
	if v := hostFiles(); v < open {
		t.Errorf("a process has %.0f files open, the host %.0f", open, v)
	}
	var got, ratio, highest float64
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		s := env.Gather()
		got, _ = probetest.WorkloadValue(s, containerFiles.Name, cg.ID)
		ratio, _ = probetest.WorkloadValue(s, containerRatio.Name, cg.ID)
		highest, _ = probetest.Value(s, processRatio.Name)
		if got == open && ratio == open/float64(limit) && highest >= ratio {
			return
		}
	}
	t.Errorf("%.0f files, ratio %v, highest %v; want %.0f of %d", got, ratio, highest, open, limit)
}

// TestKernelStates stops a process, and lets children of another end that does not wait for them.
func TestKernelStates(t *testing.T) {
	env := probetest.NewKernel(t, load.Options{})
	cfg := Spec().Config.(Config)
	cfg.Interval = 20 * time.Millisecond
	env.Start(Spec(), cfg)
	if hs := env.Hooks(); hs[0].By != load.Iter {
		t.Skipf("needs an iterator of tasks (Linux 5.8): %+v", hs)
	}
	cg := probetest.NewCgroup(t, fmt.Sprintf("huatuo-test-states-%d", os.Getpid()))
	// exec makes the shell a program that does not know of its children.
	c := exec.Command("sh", "-c", "read x; true & true & true & exec sleep 60")
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Process.Kill(); c.Wait() })
	cg.Add(t, c.Process.Pid)
	stopped := func() float64 {
		v, _ := probetest.Value(env.Gather(), tasksByState.Name, "stopped")
		return v
	}
	var before, zombies, all, running float64
	for end := time.Now().Add(10 * time.Second); running == 0 && time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		before = stopped()
		running, _ = probetest.Value(env.Gather(), tasksByState.Name, "running") // the test itself
	}
	fmt.Fprintln(in)
	for end := time.Now().Add(10 * time.Second); zombies != 3 && time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		s := env.Gather()
		zombies, _ = probetest.WorkloadValue(s, containerZombies.Name, cg.ID)
		all, _ = probetest.Value(s, tasksByState.Name, "zombie")
	}
	if zombies != 3 || all < zombies || running < 1 {
		t.Errorf("%g zombies of the workload, %g of the host, want 3; %g running", zombies, all, running)
	}
	if err := c.Process.Signal(unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); stopped() < before+1; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%g tasks are stopped, %g before one was", stopped(), before)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, p := range []string{"sys/fs/dentry-state", "7/limits", "8/limits"} {
		b, err := os.ReadFile("testdata/proc/" + p)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		numbers(b)
		openFilesLimit(b)
	})
}

func BenchmarkKernelWalk(b *testing.B) {
	env := probetest.NewKernel(b, load.Options{})
	proc := &procSource{proc: "/proc", buf: make([]byte, 4096)}
	b.Run("proc", func(b *testing.B) {
		for b.Loop() {
			if _, _, err := proc.walk(); err != nil {
				b.Fatal(err)
			}
		}
	})
	o, err := attach(env.Env)
	if err != nil {
		b.Skip(err)
	}
	defer o.Close()
	b.Run("iter", func(b *testing.B) {
		s := &iterSource{o: o, proc: proc}
		for b.Loop() {
			if _, _, err := s.walk(); err != nil {
				b.Fatal(err)
			}
		}
	})
}
