package exhaust

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// space makes a network namespace.
func space(t *testing.T, name string) []string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: run `make ktest` as root")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("needs ip: apt-get install iproute2")
	}
	sh(t, "ip", "netns", "add", name)
	t.Cleanup(func() { exec.Command("ip", "netns", "del", name).Run() })
	sh(t, "ip", "-n", name, "link", "set", "lo", "up")
	return []string{"ip", "netns", "exec", name}
}

func sh(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %v: %s", args, err, out)
	}
}

// TestKernelPorts: 185 of 200 ports to one destination are an event; as many connections in a namespace with more ports are none.
func TestKernelPorts(t *testing.T) {
	near, far := space(t, "huatuo-ports"), space(t, "huatuo-more")
	sh(t, append(near, "sh", "-c", "echo 40000 40199 > /proc/sys/net/ipv4/ip_local_port_range")...)
	env := watch(t)
	other := startActor(t, nil, "connect 185", far...)
	c := startActor(t, nil, "connect 185", near...)
	r := wait(t, env, ports, fmt.Sprintf("(pid %d)", c.Process.Pid), fmt.Sprintf("(pid %d)", other.Process.Pid))
	b := body(r)
	if b.Used < 180 || b.Used > 185 || b.Limit != 200 || !strings.HasPrefix(b.Instance, "tcp to 127.0.0.1:80, ") || len(b.Users) != 1 || b.Users[0].Amount < 180 {
		t.Errorf("%s: %+v %+v", r.Title, b, b.Users)
	}
}

// TestKernelConntrack fills a table whose size it lowers for a moment.
func TestKernelConntrack(t *testing.T) {
	const most = "/proc/sys/net/netfilter/nf_conntrack_max"
	before, err := os.ReadFile(most)
	if err != nil {
		t.Skip("needs connection tracking: modprobe nf_conntrack")
	}
	if _, err := exec.LookPath("iptables"); err != nil {
		t.Skip("needs iptables: apt-get install iptables")
	}
	in := space(t, "huatuo-track")
	sh(t, append(in, "iptables", "-A", "OUTPUT", "-m", "conntrack", "--ctstate", "NEW", "-j", "ACCEPT")...)
	t.Cleanup(func() { os.WriteFile(most, before, 0) })
	if err := os.WriteFile(most, []byte("2000"), 0); err != nil {
		t.Fatal(err)
	}
	env := watch(t)
	c := startActor(t, nil, "send 1850", in...)
	r := wait(t, env, conntrack, fmt.Sprintf("(pid %d)", c.Process.Pid), "")
	if b := body(r); b.Used < 1800 || b.Limit != 2000 {
		t.Errorf("%s: %+v", r.Title, b)
	}
}

// TestKernelAside: the process itself stays in its network namespace.
func TestKernelAside(t *testing.T) {
	before, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root: run `make ktest` as root")
	}
	for range 100 {
		aside(func() {
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				t.Error(err)
			}
		})
	}
	if after, err := os.Readlink("/proc/self/ns/net"); err != nil || after != before {
		t.Errorf("it is in %s, was in %s: %v", after, before, err)
	}
}
