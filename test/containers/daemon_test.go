package containers

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// need skips a test that lacks root or a program.
func need(t testing.TB, programs ...string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("needs %s: run `make deps`", p)
		}
	}
}

// workDir makes a directory with a short path.
func workDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", filepath.Base(workPrefix))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// podman cleans up behind a container in the background.
		deadline := time.Now().Add(5 * time.Second)
		for {
			unmount(dir)
			err := os.RemoveAll(dir)
			if err == nil {
				return
			}
			if time.Now().After(deadline) {
				t.Error(err)
				return
			}
			time.Sleep(100 * time.Millisecond)
		}
	})
	return dir
}

// unmount takes away what is mounted below dir, the inner ones first.
func unmount(dir string) {
	mounts, _ := os.ReadFile("/proc/self/mounts")
	lines := strings.Split(string(mounts), "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		if f := strings.Fields(lines[i]); len(f) > 1 && strings.HasPrefix(f[1], dir+"/") {
			exec.Command("umount", "-l", f[1]).Run()
		}
	}
}

// startChild starts cmd so that it ends with this process, also when that is
// killed. done gets what Wait returns.
func startChild(cmd *exec.Cmd, done chan<- error) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	started := make(chan error)
	go func() {
		// The signal comes when the thread ends that has started the child.
		runtime.LockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			done <- cmd.Wait()
		}
	}()
	return <-started
}

// daemon runs a daemon until the test ends and waits until probe succeeds.
func daemon(t testing.TB, cmd *exec.Cmd, probe func() error) {
	t.Helper()
	log := &syncBuffer{}
	cmd.Stdout, cmd.Stderr = log, log
	done := make(chan error, 1)
	if err := startChild(cmd, done); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
			t.Errorf("%s did not end within 10 s of SIGTERM", cmd.Path)
		}
		if t.Failed() {
			t.Logf("log of %s:\n%.20000s", cmd.Path, log)
		}
	})
	deadline := time.Now().Add(20 * time.Second)
	for {
		err := probe()
		if err == nil {
			return
		}
		select {
		case <-done:
			done <- nil
			t.Fatalf("%s has ended: %s", cmd.Path, log)
		case <-time.After(50 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is not ready: %v\n%s", cmd.Path, err, log)
		}
	}
}

// command runs a program and returns its output, without the line's end.
func command(t testing.TB, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	out, err := cmd.Output()
	if err != nil {
		why := ""
		if e, ok := err.(*exec.ExitError); ok {
			why = string(e.Stderr)
		}
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, out, why)
	}
	return strings.TrimSpace(string(out))
}

// cli is a runtime's command line.
type cli struct {
	t    testing.TB
	name string
	args []string // of every call
	run  []string // of every `run`
}

func (c *cli) do(args ...string) string {
	c.t.Helper()
	return command(c.t, c.name, append(append([]string(nil), c.args...), args...)...)
}

// start runs a container in the background and returns its id.
func (c *cli) start(args ...string) string {
	c.t.Helper()
	id := c.do(append(append([]string{"run", "-d"}, c.run...), args...)...)
	if i := strings.LastIndexByte(id, '\n'); i >= 0 {
		id = id[i+1:] // after warnings
	}
	if len(id) != 64 {
		c.t.Fatalf("%s gave the id %q", c.name, id)
	}
	return id
}

// eat is a command that lives for some time and then takes more memory than its
// container has (memory, for --memory).
func eat(after float64) []string {
	return []string{imageName, "sh", "-c", fmt.Sprintf("sleep %g; tail /dev/zero", after)}
}

const memory = "8m"

// startDocker runs dockerd without a network and without touching the host's
// firewall, and loads the image.
func startDocker(t testing.TB) (c *cli, address string) {
	t.Helper()
	need(t, "dockerd", "runc", "containerd")
	client := "/usr/bin/docker" // the distribution's; another one may be first in PATH
	if _, err := os.Stat(client); err != nil {
		client = "docker"
	}
	dir := workDir(t)
	address = "unix://" + dir + "/d.sock"
	c = &cli{t: t, name: client, args: []string{"-H", address}, run: []string{"--network", "host"}}
	daemon(t, exec.Command("dockerd", "--data-root", dir+"/data", "--exec-root", dir+"/exec", "-p", dir+"/pid", "-H", address,
		"--bridge=none", "--iptables=false", "--ip-forward=false", "--ip-masq=false"), func() error {
		return exec.Command(client, "-H", address, "version").Run()
	})
	c.do("load", "-q", "-i", image)
	t.Cleanup(func() {
		if ids := c.do("ps", "-aq"); ids != "" {
			c.do(append([]string{"rm", "-f"}, strings.Fields(ids)...)...)
		}
	})
	return c, address
}

// podmanCLI is podman with a storage of its own. The ulimits are what it may
// set without CAP_SYS_RESOURCE.
func podmanCLI(t testing.TB) (c *cli, dir string) {
	t.Helper()
	need(t, "podman", "runc", "conmon")
	dir = workDir(t)
	c = &cli{t: t, name: "podman", args: []string{
		"--root", dir + "/root", "--runroot", dir + "/run", "--tmpdir", dir + "/tmp", "--storage-driver", "vfs",
		"--cgroup-manager", "cgroupfs", "--runtime", "runc", "--events-backend", "file",
	}, run: []string{"--network", "host", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"}}
	c.do("load", "-q", "-i", image)
	t.Cleanup(func() {
		c.do("rm", "-f", "-a", "-t", "0")
		c.do("pod", "rm", "-f", "-a", "-t", "0")
	})
	return c, dir
}
