package containers

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// workPrefix begins the name of every directory that these tests work in.
// Sockets need short paths.
const workPrefix = "/tmp/huatuo-ctr-"

// binary is the agent under test, image a docker-archive of busybox.
var binary, image string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	if os.Geteuid() != 0 {
		return m.Run() // every test skips
	}
	sweep()
	before := snapshot()
	dir, err := os.MkdirTemp("", "huatuo-ctr-main-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary, image = filepath.Join(dir, "huatuo"), filepath.Join(dir, "image.tar")
	build := exec.Command("go", "build", "-o", binary, "huatuo/cmd/huatuo")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build the agent: %v\n%s", err, out)
		return 1
	}
	if err := writeImage(image); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := m.Run()
	sweep()
	for _, what := range before.restore() {
		fmt.Fprintln(os.Stderr, "left behind, and put back:", what)
		code = max(code, 1)
	}
	return code
}

// sweep ends what a run that was killed has left: daemons and shims, which have
// the directory in their command lines, their containers, and mounts.
func sweep() {
	orphans := map[string]bool{} // ids of containers
	procs, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, p := range procs {
		b, err := os.ReadFile(p)
		if err != nil || !strings.Contains(string(b), workPrefix) || strings.Contains(string(b), ".test\x00") {
			continue
		}
		args := strings.Split(string(b), "\x00")
		for i := 1; i < len(args); i++ {
			if args[i-1] == "-id" || args[i-1] == "-c" { // of a shim, of conmon
				orphans[args[i]] = true
			}
		}
		kill(strings.Split(p, "/")[2])
	}
	groups := workloadGroups()
	for i := len(groups) - 1; i >= 0; i-- {
		if name := filepath.Base(groups[i]); orphans[strings.TrimPrefix(name, "libpod-")] {
			pids, _ := os.ReadFile(groups[i] + "/cgroup.procs")
			for _, pid := range strings.Fields(string(pids)) {
				kill(pid)
			}
			time.Sleep(10 * time.Millisecond)
			os.Remove(groups[i])
		}
	}
	mounts, _ := os.ReadFile("/proc/self/mounts")
	for _, line := range strings.Split(string(mounts), "\n") {
		if f := strings.Fields(line); len(f) > 1 && strings.HasPrefix(f[1], workPrefix) {
			exec.Command("umount", "-l", f[1]).Run()
		}
	}
	old, _ := filepath.Glob(workPrefix + "*")
	for _, d := range old {
		os.RemoveAll(d)
	}
}

func kill(pid string) {
	if n, err := strconv.Atoi(pid); err == nil && n != os.Getpid() {
		syscall.Kill(n, syscall.SIGKILL)
	}
}

// host is what daemons may change of the host.
type host struct {
	sysctls map[string]string
	forward string // policy of the FORWARD chain
	rules   string // of the filter and nat tables
	links   string
	groups  map[string]bool
	paths   map[string]bool
}

// sysctls that the kubelet, dockerd and podman set.
func sysctls() []string {
	return []string{
		"net/ipv4/ip_forward", "net/ipv4/conf/all/route_localnet", "net/ipv6/conf/all/forwarding", "vm/overcommit_memory", "vm/panic_on_oom",
		"kernel/panic", "kernel/panic_on_oops", "kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes", "net/bridge/bridge-nf-call-iptables",
	}
}

// leftovers are paths outside of the work directories that daemons make, inner
// ones first. What is in them may be somebody else's: only what is empty goes.
func leftovers() []string {
	return []string{
		"/etc/docker/key.json", "/etc/docker", "/run/docker/plugins", "/run/docker",
		"/run/containerd/s", "/run/containerd/fifo", "/run/containerd/runc/k8s.io", "/run/containerd/runc/moby", "/run/containerd/runc", "/run/containerd", "/run/runc",
		"/run/containers/networks", "/run/containers/storage", "/run/containers", "/run/libpod", "/run/crun", "/run/netns",
		"/var/lib/containers/cache/blob-info-cache-v1.sqlite", "/var/lib/containers/cache/blob-info-cache-v1.boltdb", "/var/lib/containers/cache",
		"/var/lib/containers/storage", "/var/lib/containers", "/var/lib/cni/networks", "/var/lib/cni", "/var/lib/docker", "/var/lib/containerd",
	}
}

func snapshot() *host {
	h := &host{sysctls: map[string]string{}, groups: map[string]bool{}, paths: map[string]bool{}}
	for _, s := range sysctls() {
		if b, err := os.ReadFile("/proc/sys/" + s); err == nil {
			h.sysctls[s] = strings.TrimSpace(string(b))
		}
	}
	h.forward = forwardPolicy()
	h.rules = output("iptables", "-S") + output("iptables", "-t", "nat", "-S")
	h.links = links()
	for _, g := range workloadGroups() {
		h.groups[g] = true
	}
	for _, p := range leftovers() {
		if _, err := os.Lstat(p); err == nil {
			h.paths[p] = true
		}
	}
	return h
}

func output(name string, args ...string) string {
	b, _ := exec.Command(name, args...).Output() // absent: nothing to compare
	return string(b)
}

func forwardPolicy() string {
	first, _, _ := strings.Cut(output("iptables", "-S", "FORWARD"), "\n")
	return strings.TrimPrefix(first, "-P FORWARD ")
}

// links lists bridges that daemons make.
func links() string {
	var found []string
	for _, l := range []string{"docker0", "cni0", "cni-podman0", "podman0"} {
		if _, err := os.Stat("/sys/class/net/" + l); err == nil {
			found = append(found, l)
		}
	}
	return strings.Join(found, " ")
}

// workloadGroups lists the groups that runtimes make, the outer ones first.
func workloadGroups() (dirs []string) {
	for _, name := range []string{"docker", "kubepods", "libpod_parent", "machine.slice", "k8s.io"} {
		roots, _ := filepath.Glob("/sys/fs/cgroup/*/" + name)
		if _, err := os.Stat("/sys/fs/cgroup/" + name); err == nil {
			roots = append(roots, "/sys/fs/cgroup/"+name)
		}
		for _, r := range roots {
			filepath.WalkDir(r, func(p string, d os.DirEntry, err error) error {
				if err == nil && d.IsDir() {
					dirs = append(dirs, p)
				}
				return nil
			})
		}
	}
	return dirs
}

// restore puts back what differs, and returns what should not have differed:
// the tests themselves undo what they know of.
func (h *host) restore() (wrong []string) {
	groups := workloadGroups()
	for i := len(groups) - 1; i >= 0; i-- { // runtimes keep the parents of their groups
		if !h.groups[groups[i]] {
			os.Remove(groups[i])
		}
	}
	for _, p := range leftovers() {
		if !h.paths[p] {
			os.Remove(p)
		}
	}
	for s, old := range h.sysctls {
		b, err := os.ReadFile("/proc/sys/" + s)
		if now := strings.TrimSpace(string(b)); err == nil && now != old {
			wrong = append(wrong, fmt.Sprintf("sysctl %s is %s, was %s", s, now, old))
			os.WriteFile("/proc/sys/"+s, []byte(old), 0)
		}
	}
	if now := forwardPolicy(); now != h.forward {
		wrong = append(wrong, fmt.Sprintf("policy of FORWARD is %s, was %s", now, h.forward))
		exec.Command("iptables", "-P", "FORWARD", h.forward).Run()
	}
	if now := links(); now != h.links {
		wrong = append(wrong, fmt.Sprintf("bridges %q, were %q", now, h.links))
	}
	for _, chain := range []string{"DOCKER", "KUBE-", "CNI-", "NETAVARK"} {
		rules := output("iptables", "-S") + output("iptables", "-t", "nat", "-S")
		if strings.Contains(rules, chain) && !strings.Contains(h.rules, chain) {
			wrong = append(wrong, "iptables has chains "+chain+"…")
		}
	}
	return wrong
}
