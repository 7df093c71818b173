package exhaust

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"huatuo/internal/kern/procfs"
	"huatuo/internal/probes/probetest"
	"huatuo/internal/signal"
	"huatuo/test/faults/slowdisk"
)

// actor makes this binary one of the processes that use something up: it does
// what the variable says, prints "ready" and waits for the end of its input.
const actor = "HUATUO_TEST_EXHAUST"

func TestMain(m *testing.M) {
	if s := os.Getenv(actor); s != "" {
		if err := act(strings.Fields(s)); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("ready")
		io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func act(arg []string) error {
	n, err := strconv.Atoi(arg[1])
	if err != nil {
		return err
	}
	switch arg[0] {
	case "files": // so many in all, of so many
		limit, err := strconv.ParseUint(arg[2], 10, 64)
		if err != nil {
			return err
		}
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: limit, Max: limit}); err != nil {
			return err
		}
		for {
			fd, err := unix.Open("/dev/null", unix.O_RDONLY, 0)
			if err != nil {
				return err
			}
			if fds, err := os.ReadDir("/proc/self/fd"); err != nil || len(fds)-1 >= n { // one is the listing's own
				return err
			}
			_ = fd
		}
	case "memory":
		b, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
		if err != nil {
			return err
		}
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		return nil
	case "cache": // read more than once, so that it is on the list of active pages
		for range 3 {
			f, err := os.Open(arg[2])
			if err != nil {
				return err
			}
			defer f.Close()
			if got, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{f}, make([]byte, 64<<10)); err != nil || got < int64(n) {
				return errors.Join(err, fmt.Errorf("%d bytes", got))
			}
		}
		return nil
	case "connect":
		return connect(n)
	case "send":
		for port := 1; port <= n; port++ {
			c, err := net.DialUDP("udp4", nil, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 10000 + port})
			if err != nil {
				return err
			}
			c.Write([]byte("x"))
			c.Close()
		}
		return nil
	}
	return fmt.Errorf("unknown part %q", arg[0])
}

// held keeps connections from being collected.
type held struct{ conns []net.Conn }

func connect(n int) error {
	l, err := net.Listen("tcp4", "127.0.0.1:80")
	if err != nil {
		return err
	}
	h := &held{}
	for range n {
		c, err := net.Dial("tcp4", "127.0.0.1:80")
		if err != nil {
			return err
		}
		s, err := l.Accept()
		if err != nil {
			return err
		}
		h.conns = append(h.conns, c, s)
	}
	go func() { time.Sleep(time.Hour); fmt.Println(len(h.conns), l.Addr()) }()
	return nil
}

// startActor runs an actor, through further commands where given, and waits until it has done its part.
func startActor(t *testing.T, cg *probetest.Cgroup, part string, through ...string) *exec.Cmd {
	t.Helper()
	args := append(through, os.Args[0])
	if cg != nil { // it is in its group before it does anything
		args = append([]string{"sh", "-c", `read go; exec "$@"`, "sh"}, args...)
	}
	c := exec.Command(args[0], args[1:]...)
	c.Env = append(os.Environ(), actor+"="+part)
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); unix.Kill(-c.Process.Pid, unix.SIGKILL); c.Wait() })
	if cg != nil {
		cg.Add(t, c.Process.Pid)
		if _, err := io.WriteString(in, "go\n"); err != nil {
			t.Fatal(err)
		}
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "ready\n" {
		t.Fatalf("%s: %q, %v", part, line, err)
	}
	return c
}

// watch starts the probe with short intervals.
func watch(t *testing.T) *probetest.Env {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: run `make ktest` as root")
	}
	env := probetest.New(t)
	cfg := defaults()
	cfg.Interval = 40 * time.Millisecond
	cfg.Horizon = 0 // growth is at a test's pace here
	env.Start(Spec(), cfg)
	return env
}

func body(r *signal.Record) *ResourceExhausted { return r.Body.(*ResourceExhausted) }

// wait returns the event of an instance, and checks that there is one, and none of the other.
func wait(t *testing.T, env *probetest.Env, resource, instance, other string) *signal.Record {
	t.Helper()
	r := env.WaitRecord(func(r *signal.Record) bool {
		return body(r).Resource == resource && strings.Contains(body(r).Instance, instance)
	})
	time.Sleep(5 * slow * 40 * time.Millisecond) // some rounds: neither is told again
	n := 0
	for _, r := range env.Records() {
		b := body(r)
		switch {
		case b.Resource != resource:
		case strings.Contains(b.Instance, instance):
			n++
		case other != "" && strings.Contains(b.Instance, other):
			t.Errorf("an event of what is far from its limit: %s", r.Title)
		}
	}
	if n != 1 {
		t.Errorf("%d events of %s %s, want one", n, resource, instance)
	}
	if b := body(r); b.Since == "" || b.Ratio < 0.9 || b.Used > b.Limit || b.Predicted {
		t.Errorf("%s: %+v", r.Title, b)
	}
	return r
}

// TestKernelFiles: 91 of 100 files are an event, 60 of 100 are none.
func TestKernelFiles(t *testing.T) {
	env := watch(t)
	cg := probetest.NewCgroup(t, fmt.Sprintf("huatuo-test-exhaust-%d", os.Getpid()))
	far := startActor(t, nil, "files 60 100")
	near := startActor(t, cg, "files 91 100")
	r := wait(t, env, processFiles, fmt.Sprintf("(pid %d)", near.Process.Pid), fmt.Sprintf("(pid %d)", far.Process.Pid))
	b := body(r)
	if b.Used < 90 || b.Used > 92 || b.Limit != 100 || b.Unit != "1" || int(r.Process.PID) != near.Process.Pid || r.CgroupID != cg.ID || r.Severity != "" {
		t.Errorf("%s: %+v %+v, want cgroup %d", r.Title, b, r, cg.ID)
	}
	if len(b.Files) == 0 || b.Files[0].What != "/dev/null" || b.Files[0].Count < 60 {
		t.Errorf("files %+v", b.Files)
	}
	probetest.Example(t, r, probetest.Captured("by "+t.Name()+", without an agent")) // whose rounds are longer than the process lives
	if l := env.Loss(); l.Observed != uint64(len(env.Records()))+l.Dropped["rate_limited"] {
		t.Errorf("%+v, %d records", l, len(env.Records()))
	}
}

// TestKernelTasks: 99 of 100 tasks are critical, 85 of 100 are no event.
func TestKernelTasks(t *testing.T) {
	env := watch(t)
	tasks := func(name string, n int) *probetest.Cgroup {
		cg := probetest.NewCgroup(t, fmt.Sprintf("huatuo-test-%s-%d", name, os.Getpid()))
		limit(t, cg, "pids", "pids.max", "pids.max", "100")
		c := exec.Command("sh", "-c", fmt.Sprintf("read go; i=1; while [ $i -lt %d ]; do sleep 1000 & i=$((i+1)); done; exec sleep 1000", n))
		c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		in, err := c.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Kill(-c.Process.Pid, unix.SIGKILL); c.Wait() })
		cg.Add(t, c.Process.Pid)
		io.WriteString(in, "go\n")
		return cg
	}
	far, near := tasks("far", 85), tasks("near", 99)
	r := env.WaitRecord(func(r *signal.Record) bool {
		return body(r).Resource == workloadTasks && body(r).Instance == near.Path && r.Severity == signal.Critical
	})
	b := body(r)
	if b.Limit != 100 || b.Used < 98 || r.CgroupID != near.ID || len(b.Users) != maxUsers || b.Users[0].Process.PID == 0 || b.Users[0].CgroupID != near.ID || len(r.Parties) != maxUsers {
		t.Errorf("%s: %+v %+v", r.Title, b, r)
	}
	for _, r := range env.Records() {
		if body(r).Instance == far.Path {
			t.Errorf("an event of 85 tasks of 100: %s", r.Title)
		}
	}
}

// limit sets a limit of a group, by the file of v1 or of v2.
func limit(t *testing.T, cg *probetest.Cgroup, controller, v1, v2, value string) {
	t.Helper()
	file := v2
	if probetest.OnV1() {
		file = v1
	} else {
		os.WriteFile("/sys/fs/cgroup/cgroup.subtree_control", []byte("+"+controller), 0) // told by what follows
	}
	if err := os.WriteFile(filepath.Join(cg.Dir(controller), file), []byte(value), 0); err != nil {
		t.Skipf("needs the %s controller: %v", controller, err)
	}
}

// memory returns a directory in memory, where there is one: a guest's disk is small.
func memory(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "huatuo-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// disk makes a file system on a loop device.
func disk(t *testing.T, megabytes int64) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: run `make ktest` as root")
	}
	if _, err := os.Stat("/dev/loop-control"); err != nil {
		t.Skip("needs /dev/loop-control: a kernel with CONFIG_BLK_DEV_LOOP")
	}
	if _, err := exec.LookPath("mke2fs"); err != nil {
		t.Skip("needs mke2fs: apt-get install e2fsprogs")
	}
	image := filepath.Join(memory(t), "image")
	if err := errors.Join(os.WriteFile(image, nil, 0o600), os.Truncate(image, megabytes<<20)); err != nil {
		t.Fatal(err)
	}
	l, err := slowdisk.Attach(image)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	t.Cleanup(func() {
		unix.Unmount(dir, unix.MNT_DETACH)
		l.Detach()
	})
	if out, err := exec.Command("mke2fs", l.Dev).CombinedOutput(); err != nil { // ext4 mounts it without a journal
		t.Fatalf("mke2fs: %v: %s", err, out)
	}
	if err := unix.Mount(l.Dev, dir, "ext4", 0, ""); err != nil {
		t.Skipf("needs a kernel with ext4: %v", err)
	}
	return dir
}

// TestKernelMemory: anonymous memory at 91 % of the limit is an event, page cache that fills it is none.
func TestKernelMemory(t *testing.T) {
	const most = 64 << 20
	dir := disk(t, 128)
	file := filepath.Join(dir, "data")
	if err := os.WriteFile(file, make([]byte, most*95/100), 0o600); err != nil {
		t.Fatal(err)
	}
	dropCache(t, file)
	env := watch(t)
	group := func(name string) *probetest.Cgroup {
		cg := probetest.NewCgroup(t, fmt.Sprintf("huatuo-test-%s-%d", name, os.Getpid()))
		limit(t, cg, "memory", "memory.limit_in_bytes", "memory.max", strconv.Itoa(most))
		return cg
	}
	cache, anon := group("cache"), group("anon")
	startActor(t, cache, "cache 1 "+file)
	current := "memory.current"
	if probetest.OnV1() {
		current = "memory.usage_in_bytes"
	}
	b, err := os.ReadFile(filepath.Join(cache.Dir("memory"), current))
	if err != nil {
		t.Fatal(err)
	}
	if n := procfs.Uints(b); len(n) == 0 || n[0] < most*9/10 {
		t.Fatalf("the page cache does not fill the limit: %s of %d", b, most)
	}
	startActor(t, anon, fmt.Sprintf("memory %d", most*89/100)) // the program itself takes some MB more
	r := wait(t, env, workloadMemory, anon.Path, cache.Path)
	if b := body(r); b.Limit != most || b.Unit != "bytes" || r.CgroupID != anon.ID || len(b.Users) == 0 || b.Users[0].Amount < most*8/10 || b.Users[0].CgroupID != anon.ID {
		t.Errorf("%s: %+v", r.Title, b)
	}
}

// dropCache makes who reads a file next the one that its pages are charged to.
func dropCache(t *testing.T, file string) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := errors.Join(f.Sync(), unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)); err != nil {
		t.Fatal(err)
	}
}

// TestKernelSpace fills file systems: ext4 and tmpfs to 92 % are events, and who has
// the file open is told; tmpfs to 80 % is none.
func TestKernelSpace(t *testing.T) {
	ext4, tmpfs, far := disk(t, 32), mountTmpfs(t, "size=16m"), mountTmpfs(t, "size=16m")
	env := watch(t)
	for dir, share := range map[string]float64{ext4: 0.92, tmpfs: 0.92, far: 0.8} {
		fill(t, dir, share)
	}
	wait(t, env, diskSpace, tmpfs, far)
	r := wait(t, env, diskSpace, ext4, far)
	b := body(r)
	if b.Limit < 20<<20 || b.Limit > 32<<20 || len(b.Users) != 1 || int(b.Users[0].Process.PID) != os.Getpid() || !strings.HasSuffix(b.Users[0].What, "/fill (deleted)") {
		t.Errorf("%s: %+v %+v", r.Title, b, b.Users)
	}
}

// fill writes a file that takes that share of a file system, and keeps it open.
func fill(t *testing.T, dir string, share float64) {
	t.Helper()
	name := filepath.Join(dir, "fill")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	used := st.Blocks - st.Bfree
	want := int64(share*float64(used+st.Bavail)-float64(used)) * st.Frsize
	if _, err := f.Write(make([]byte, want)); err != nil { // fallocate needs extents, which not every mke2fs makes
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
}

func mountTmpfs(t *testing.T, options string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: run `make ktest` as root")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}

// TestKernelInodes: 92 of 100 inodes are an event, 80 of 100 are none.
func TestKernelInodes(t *testing.T) {
	near, far := mountTmpfs(t, "nr_inodes=100,size=4m"), mountTmpfs(t, "nr_inodes=100,size=4m")
	env := watch(t)
	for dir, n := range map[string]int{near: 91, far: 79} { // the root is one as well
		for i := range n {
			if err := os.WriteFile(filepath.Join(dir, strconv.Itoa(i)), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	if b := body(wait(t, env, inodes, near, far)); b.Used != 92 || b.Limit != 100 {
		t.Errorf("%+v", b)
	}
}

// TestKernelRearm empties a file system that was full, and fills it again.
func TestKernelRearm(t *testing.T) {
	dir := mountTmpfs(t, "nr_inodes=100,size=4m")
	env := watch(t)
	count := func() (n int) {
		for _, r := range env.Records() {
			if body(r).Instance == dir {
				n++
			}
		}
		return n
	}
	link := func(n int) {
		names, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for i := len(names); i > n; i-- {
			os.Remove(filepath.Join(dir, strconv.Itoa(i-1)))
		}
		for i := len(names); i < n; i++ {
			if err := os.WriteFile(filepath.Join(dir, strconv.Itoa(i)), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	link(91)
	env.WaitRecord(func(r *signal.Record) bool { return body(r).Instance == dir })
	link(50)
	time.Sleep(400 * time.Millisecond)
	link(91) // within the quiet time: counted, not told
	for end := time.Now().Add(10 * time.Second); env.Loss().Dropped["rate_limited"] == 0; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the second time is not counted: %+v", env.Loss())
		}
	}
	if count() != 1 {
		t.Errorf("%d events", count())
	}
	link(99) // now calls fail
	r := env.WaitRecord(func(r *signal.Record) bool { return body(r).Instance == dir && r.Severity == signal.Critical })
	if r.Suppressed != 1 {
		t.Errorf("%d suppressed before %q", r.Suppressed, r.Title)
	}
}
