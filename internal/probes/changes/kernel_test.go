package changes

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"huatuo/internal/kern/load"
	"huatuo/internal/probes/probetest"
	"huatuo/internal/signal"
)

// quick are the defaults with short intervals.
func quick() Config {
	cfg := Spec().Config.(Config)
	cfg.Interval, cfg.Settle = 30*time.Millisecond, 200*time.Millisecond
	return cfg
}

// rungs runs f for each way in which the probe gets its programs and events.
func rungs(t *testing.T, f func(t *testing.T, o load.Options)) {
	for _, kind := range []string{load.TPBTF, load.RawTP} {
		for _, ring := range []string{"ringbuf", "perf"} {
			t.Run(kind+"/"+ring, func(t *testing.T) { f(t, load.Options{Kinds: []string{kind, load.Sysctl}, Ring: ring}) })
		}
	}
	t.Run(load.Legacy, func(t *testing.T) { f(t, load.Options{Kinds: []string{load.RawTP}, Flavour: load.Legacy}) })
}

// keep restores a file at the test's end, and returns what is in it.
func keep(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Skipf("needs %s: %v", file, err)
	}
	t.Cleanup(func() {
		if err := os.WriteFile(file, b, 0); err != nil {
			t.Error(err)
		}
	})
	return strings.TrimSpace(string(b))
}

// echo has a shell write to a file, and returns its pid.
func echo(t *testing.T, file, text string, through ...string) uint32 {
	t.Helper()
	args := append(through, "sh", "-c", `echo "$1" > "$2"`, "sh", text, file)
	c := exec.Command(args[0], args[1:]...)
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("write %q to %s: %v %s", text, file, err, out)
	}
	return uint32(c.Process.Pid)
}

func sysctlOf(r *signal.Record) *Sysctl {
	b, _ := r.Body.(*Sysctl)
	if b == nil {
		b = &Sysctl{}
	}
	return b
}

const burst = "/proc/sys/kernel/printk_ratelimit_burst" // of messages that a user can cause: 10 by default

// TestKernelSysctl writes to sysctls, told by the kernel where it does and found
// by looking where not, and writes what is no change.
func TestKernelSysctl(t *testing.T) {
	rungs(t, testSysctl)
}

func testSysctl(t *testing.T, o load.Options) {
	probetest.NeedDefaultHierarchy(t)
	env := probetest.NewKernel(t, o)
	before := keep(t, burst)
	keep(t, "/proc/sys/vm/swappiness")
	cg := probetest.NewCgroup(t, fmt.Sprintf("huatuo-test-changes-%d", os.Getpid()))
	env.Start(Spec(), quick())
	hooked := byHook(env)
	if !hooked && o.Flavour != load.Legacy {
		if why := reason(env, sysctlHook); !strings.Contains(why, "helper") && !strings.Contains(why, "unknown func") {
			t.Errorf("the kernel does not tell of writes: %s", why)
		}
	}
	echo(t, burst, before) // no change
	pid := echo(t, burst, "17", "sh", "-c", `echo $$ > "$0/cgroup.procs"; exec "$@"`, dirOf(cg))
	r := env.WaitRecord(func(r *signal.Record) bool { return sysctlOf(r).New == "17" })
	b := sysctlOf(r)
	if b.Name != "kernel.printk_ratelimit_burst" || b.Old != before || b.Effect != applied {
		t.Errorf("%s: %+v", r.Title, b)
	}
	if hooked && (b.Source != "hook" || r.Process.PID != pid || r.Process.Comm != "sh" || int(r.Process.ParentPID) != os.Getpid() || r.CgroupID != cg.ID || r.Process.Parent == "") {
		t.Errorf("by %+v in %d; want %d in %d, of %d", r.Process, r.CgroupID, pid, cg.ID, os.Getpid())
	}
	if !hooked && (b.Source != "poll" || r.Process.PID != 0) {
		t.Errorf("%+v by %+v", b, r.Process)
	}
	if hooked {
		if err := os.WriteFile("/proc/sys/vm/swappiness", []byte("1000\n"), 0); !errors.Is(err, unix.EINVAL) {
			t.Errorf("a value that the kernel does not take: %v", err)
		}
		if r := env.WaitRecord(func(r *signal.Record) bool { return sysctlOf(r).New == "1000" }); sysctlOf(r).Effect != unchanged {
			t.Errorf("%s: %+v", r.Title, r.Body)
		}
		if now, _ := os.ReadFile(burst); strings.TrimSpace(string(now)) != "17" {
			t.Errorf("the write did not pass: %s", now)
		}
	}
	for _, r := range env.Records() {
		if b := sysctlOf(r); b.Name == "kernel.printk_ratelimit_burst" && b.New != "17" {
			t.Errorf("an event of what is no change: %s", r.Title)
		}
	}
	balance(t, env)
}

func dirOf(cg *probetest.Cgroup) string { return cg.Dir("cpu") }

func byHook(env *probetest.Env) bool {
	for _, h := range env.Hooks() {
		if h.Hook == sysctlHook {
			return h.By != ""
		}
	}
	return false
}

func reason(env *probetest.Env, hook string) string {
	for _, h := range env.Hooks() {
		if h.Hook == hook {
			return h.Reason
		}
	}
	return "it is not tried"
}

// balance ends the probe and compares what it saw with what it told.
func balance(t *testing.T, env *probetest.Env) {
	t.Helper()
	if err := env.Stop(); err != nil {
		t.Fatal(err)
	}
	loss := env.Loss()
	got := uint64(len(env.Records()))
	for _, n := range loss.Dropped {
		got += n
	}
	if loss.Observed != got {
		t.Errorf("observed %d; %d records and %v lost", loss.Observed, len(env.Records()), loss.Dropped)
	}
}

// TestKernelSysctlNamespace: net.* of a container's network namespace, and of single devices, are events only when they are asked for.
func TestKernelSysctlNamespace(t *testing.T) {
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("needs ip: apt-get install iproute2")
	}
	probetest.NeedDefaultHierarchy(t)
	for _, all := range []bool{false, true} {
		t.Run(fmt.Sprint(all), func(t *testing.T) {
			env := probetest.NewKernel(t, load.Options{})
			name := fmt.Sprintf("huatuo-changes-%d", os.Getpid())
			if out, err := exec.Command("ip", "netns", "add", name).CombinedOutput(); err != nil {
				t.Skipf("needs network namespaces: %s", out)
			}
			t.Cleanup(func() { exec.Command("ip", "netns", "del", name).Run() })
			before := keep(t, burst)
			cfg := quick()
			cfg.Namespaces, cfg.Devices = all, all
			env.Start(Spec(), cfg)
			if !byHook(env) {
				t.Skipf("needs a kernel that tells of writes (5.11): %s", reason(env, sysctlHook))
			}
			in := []string{"ip", "netns", "exec", name}
			echo(t, "/proc/sys/net/ipv4/ip_default_ttl", "65", in...)
			echo(t, "/proc/sys/net/ipv4/conf/lo/log_martians", "1", in...)
			echo(t, "/proc/sys/net/ipv4/conf/all/log_martians", "1", in...)
			echo(t, burst, before+"1") // comes after those
			env.WaitRecord(func(r *signal.Record) bool { return sysctlOf(r).New == before+"1" })
			var names []string
			for _, r := range env.Records() {
				if b := sysctlOf(r); strings.HasPrefix(b.Name, "net.") {
					names = append(names, b.Name)
					if b.Effect != unknown || b.NetNamespace == 0 {
						t.Errorf("%s: %+v", r.Title, b)
					}
				}
			}
			want := ""
			if all {
				want = "net.ipv4.ip_default_ttl net.ipv4.conf.lo.log_martians net.ipv4.conf.all.log_martians"
			}
			if got := strings.Join(names, " "); got != want {
				t.Errorf("events of %q, want %q", got, want)
			}
		})
	}
}

// TestKernelSysctlFlood: what is more than the rate lets through is counted.
func TestKernelSysctlFlood(t *testing.T) {
	probetest.NeedDefaultHierarchy(t)
	env := probetest.NewKernel(t, load.Options{})
	keep(t, burst)
	cfg := quick()
	cfg.Burst = 3
	env.Start(Spec(), cfg)
	if !byHook(env) {
		t.Skipf("needs a kernel that tells of writes (5.11): %s", reason(env, sysctlHook))
	}
	for i := range 40 {
		if err := os.WriteFile(burst, fmt.Appendf(nil, "%d\n", 100+i), 0); err != nil {
			t.Fatal(err)
		}
	}
	for end := time.Now().Add(10 * time.Second); env.Loss().Dropped["rate_limited"] == 0; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%+v", env.Loss())
		}
	}
	balance(t, env)
}

// TestKernelModule loads a module, where there are any.
func TestKernelModule(t *testing.T) {
	probetest.Rungs(t, testModule)
}

func exists(file string) bool {
	_, err := os.Stat(file)
	return err == nil
}

func testModule(t *testing.T, o load.Options) {
	if !exists("/proc/modules") {
		t.Skip("needs a kernel with modules: make vmtest P=changes")
	}
	const name = "dummy"
	load := []string{"modprobe", name}
	if file := "/t/mod/" + name; exists(file) { // in the guests of test/vm
		load = []string{"insmod", file}
	} else if out, err := exec.Command("modprobe", "-n", name).CombinedOutput(); err != nil {
		t.Skipf("needs the module %s: %v %s", name, err, out)
	}
	exec.Command("rmmod", name).Run() // fails when it is not there
	env := probetest.NewKernel(t, o)
	env.Start(Spec(), quick())
	for _, action := range []string{"loaded", "unloaded"} {
		args := load
		if action == "unloaded" {
			args = []string{"rmmod", name}
		}
		c := exec.Command(args[0], args[1:]...)
		if out, err := c.CombinedOutput(); err != nil {
			t.Skipf("needs to be able to load and remove modules: %v: %v %s", args, err, out)
		}
		r := env.WaitRecord(func(r *signal.Record) bool {
			b, ok := r.Body.(*KernelModule)
			return ok && b.Module == name && b.Action == action
		})
		if int(r.Process.PID) != c.Process.Pid || int(r.Process.ParentPID) != os.Getpid() || r.CgroupID == 0 {
			t.Errorf("%s: by %+v, want %d", r.Title, r.Process, c.Process.Pid)
		}
	}
	balance(t, env)
}

func changeOf(r *signal.Record) *ConfigChange {
	b, _ := r.Body.(*ConfigChange)
	if b == nil {
		b = &ConfigChange{}
	}
	return b
}

// TestKernelCgroup changes limits of a group: of one that is new, of one that is
// not, and to what they are.
func TestKernelCgroup(t *testing.T) {
	env := probetest.NewKernel(t, load.Options{})
	controller, file, first, second := "cpu", "cpu.max", "50000 100000", "20000 100000"
	if probetest.OnV1() {
		file, first, second = "cpu.cfs_quota_us", "50000", "20000"
	} else {
		os.WriteFile("/sys/fs/cgroup/cgroup.subtree_control", []byte("+cpu +pids"), 0) // told by what follows
	}
	group := func(name string) *probetest.Cgroup {
		return probetest.NewCgroup(t, fmt.Sprintf("huatuo-test-%s-%d", name, os.Getpid()))
	}
	set := func(cg *probetest.Cgroup, controller, file, value string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(cg.Dir(controller), file), []byte(value), 0); err != nil {
			t.Skipf("needs the %s controller: %v", controller, err)
		}
	}
	old := group("old")
	set(old, controller, file, first)
	cfg := quick()
	cfg.Settle = time.Hour
	env.Start(Spec(), cfg)
	young := group("young")
	time.Sleep(10 * cfg.Interval) // it has been seen
	set(young, controller, file, first)
	set(old, controller, file, first) // as systemd does at each reload
	time.Sleep(3 * cfg.Interval)
	set(old, controller, file, second)
	r := env.WaitRecord(func(r *signal.Record) bool { return changeOf(r).Setting == file })
	if b := changeOf(r); b.What != "cgroup" || b.Target != old.Path || b.Old != first || b.New != second || r.CgroupID != old.ID {
		t.Errorf("%s: %+v in %d, want %d", r.Title, b, r.CgroupID, old.ID)
	}
	set(old, "pids", "pids.max", "123")
	r = env.WaitRecord(func(r *signal.Record) bool { return changeOf(r).Setting == "pids.max" })
	if b := changeOf(r); b.Target != old.Path || b.Old != "max" || b.New != "123" {
		t.Errorf("%s: %+v", r.Title, b)
	}
	n := 0
	for _, r := range env.Records() {
		switch changeOf(r).Target {
		case old.Path:
			n++
		case young.Path:
			t.Errorf("an event of a group that is being made: %s", r.Title)
		}
	}
	if n != 2 {
		t.Errorf("%d events of two changes", n)
	}
	balance(t, env)
}

// TestKernelMount changes options of mounts.
func TestKernelMount(t *testing.T) {
	env := probetest.NewKernel(t, load.Options{})
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	env.Start(Spec(), quick())
	remount := func(flags uintptr, options string) {
		t.Helper()
		if err := unix.Mount("tmpfs", dir, "", unix.MS_REMOUNT|flags, options); err != nil {
			t.Fatal(err)
		}
	}
	of := func(match func(*ConfigChange) bool) *ConfigChange {
		return changeOf(env.WaitRecord(func(r *signal.Record) bool { return changeOf(r).Target == dir && match(changeOf(r)) }))
	}
	remount(unix.MS_NOEXEC, "size=1m")
	if b := of(func(b *ConfigChange) bool { return strings.Contains(b.New, "noexec") }); b.What != "mount" || b.Setting != "options" {
		t.Errorf("%+v", b)
	}
	remount(unix.MS_NOEXEC, "size=2m")
	if b := of(func(b *ConfigChange) bool { return b.New == "size=2048k" }); b.Old != "size=1024k" {
		t.Errorf("%+v", b)
	}
	remount(unix.MS_NOEXEC|unix.MS_RDONLY, "size=2m") // told by the probe fs
	time.Sleep(10 * quick().Interval)
	remount(unix.MS_NOEXEC, "size=2m")
	of(func(b *ConfigChange) bool { return b.New == "rw" && b.Old == "ro" })
	for _, r := range env.Records() {
		if b := changeOf(r); b.Target == dir && b.New == "ro" {
			t.Errorf("an event of what readonly_remount tells: %s", r.Title)
		}
	}
	balance(t, env)
}

// TestKernelHost changes a setting below /sys.
func TestKernelHost(t *testing.T) {
	env := probetest.NewKernel(t, load.Options{})
	const file = "/sys/kernel/mm/transparent_hugepage/defrag"
	before, err := os.ReadFile(file)
	if err != nil {
		t.Skip("needs transparent huge pages")
	}
	was := chosen(strings.TrimSpace(string(before)))
	t.Cleanup(func() { os.WriteFile(file, []byte(was), 0) })
	other := "madvise"
	if was == other {
		other = "defer"
	}
	env.Start(Spec(), quick())
	if err := os.WriteFile(file, []byte(other), 0); err != nil {
		t.Skipf("needs to be able to write %s: %v", file, err)
	}
	r := env.WaitRecord(func(r *signal.Record) bool { return changeOf(r).Setting == "transparent_hugepage/defrag" })
	if b := changeOf(r); b.What != "host" || b.Old != was || b.New != other {
		t.Errorf("%s: %+v", r.Title, b)
	}
	balance(t, env)
}
