package stress

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"huatuo/internal/probe"
	"huatuo/internal/probes/probetest"
)

// bundle makes an OCI bundle with the agent alone in it: a read-only root, the
// host's processes, network and control groups, and these capabilities.
func bundle(t testing.TB, uid int, data string, args ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{"rootfs/proc", "rootfs/sys", "rootfs/dev", "rootfs/data"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	copyFile(t, filepath.Join(dir, "rootfs/huatuo"), binary)
	caps := []string{}
	for _, c := range needed {
		caps = append(caps, "CAP_"+strings.ToUpper(c))
	}
	ambient := caps
	if uid == 0 {
		ambient = []string{} // as Docker does: root needs none
	}
	type m = map[string]any
	config := m{
		"ociVersion": "1.0.2",
		"hostname":   "",
		"process": m{
			"user": m{"uid": uid, "gid": uid}, "cwd": "/", "args": append([]string{"/huatuo"}, args...), "noNewPrivileges": true,
			"capabilities": m{"bounding": caps, "effective": caps, "inheritable": ambient, "permitted": caps, "ambient": ambient},
		},
		"root": m{"path": "rootfs", "readonly": true},
		"mounts": []m{
			{"destination": "/proc", "type": "proc", "source": "proc", "options": []string{"nosuid", "noexec", "nodev"}},
			{"destination": "/sys", "type": "bind", "source": "/sys", "options": []string{"rbind", "rro", "nosuid", "noexec", "nodev"}},
			{"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": []string{"nosuid", "mode=755", "size=64k"}},
			{"destination": "/data", "type": "bind", "source": data, "options": []string{"bind", "rw"}},
		},
		"linux": m{
			"namespaces":  []m{{"type": "mount"}, {"type": "ipc"}}, // not pid, network, cgroup: the host's
			"cgroupsPath": fmt.Sprintf("/huatuo-stress-runc-%d", os.Getpid()),
			"devices":     []m{{"path": "/dev/kmsg", "type": "c", "major": 1, "minor": 11, "fileMode": 0o644}},
			"resources": m{"devices": []m{
				{"allow": false, "access": "rwm"},
				{"allow": true, "type": "c", "major": 1, "minor": 11, "access": "r"},
			}},
		},
	}
	b, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), b, 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

func copyFile(t testing.TB, to, from string) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
}

// contain runs the agent in a container of runc and waits until it is ready.
func contain(t testing.TB, uid int, args ...string) *agent {
	t.Helper()
	runc, err := exec.LookPath("runc")
	if err != nil {
		t.Skip("needs runc: apt-get install runc")
	}
	addr, data := freePort(t), homeOf(t, uid)
	a := &agent{t: t, url: "http://" + addr, data: data, log: &syncBuffer{}, exited: make(chan struct{})}
	dir := bundle(t, uid, data, append([]string{"--set", "profiles.enabled=false", "--listen", addr, "--data", "/data"}, args...)...)
	state, id := t.TempDir(), fmt.Sprintf("huatuo-stress-%d-%d", os.Getpid(), uid)
	a.cmd = exec.Command(runc, "--root", state, "run", "--bundle", dir, id)
	a.cmd.Stdout, a.cmd.Stderr = a.log, a.log
	a.began = time.Now()
	if err := a.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { a.err = a.cmd.Wait(); close(a.exited) }()
	t.Cleanup(func() {
		exec.Command(runc, "--root", state, "kill", id, "KILL").Run()
		<-a.exited
		exec.Command(runc, "--root", state, "delete", "--force", id).Run()
		if t.Failed() {
			t.Logf("the agent's log:\n%.4000s", a.log)
		}
	})
	a.ready(30 * time.Second)
	out, err := exec.Command(runc, "--root", state, "state", id).Output()
	var st struct{ PID int }
	if err != nil || json.Unmarshal(out, &st) != nil {
		t.Fatalf("runc state: %v %s", err, out)
	}
	a.pid = st.PID
	return a
}

// TestContainer runs the agent in a container that has the capabilities of the
// guide and no other right: it must see the processes and control groups of
// the host, and run every probe.
func TestContainer(t *testing.T) {
	needRoot(t)
	for _, uid := range []int{nobody, 0} {
		t.Run(fmt.Sprint("uid ", uid), func(t *testing.T) {
			a := contain(t, uid, "--set", "probes.runqueue.stall=5ms", "--set", "store.interval=1s")
			checkConfined(t, a, uid)
			eventually(t, 20*time.Second, "every probe runs", func() error {
				var list struct{ Probes []probe.Status }
				a.json("/api/v1/probes", &list)
				for _, p := range list.Probes {
					if !fine(p) {
						return fmt.Errorf("%s is %s: %s", p.Name, p.State, p.Reason)
					}
				}
				return nil
			})
			d := a.stalled()
			if d.Process.Exe == "" || d.Process.Cmdline == "" || !named(d.KernelStack) {
				t.Errorf("of a process of the host it tells %+v, %+v", d.Process, d.KernelStack)
			}
			cg := probetest.NewCgroup(t, fmt.Sprintf("huatuo-stress-host-%d-%d", os.Getpid(), uid))
			c := exec.Command(loader(t), "tick", "10")
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Process.Kill(); c.Wait() })
			cg.Add(t, c.Process.Pid)
			took := eventually(t, 25*time.Second, "the host's control groups", func() error {
				_, body := a.get("/metrics")
				for _, m := range []string{"huatuo_container_memory_usage_bytes{", "huatuo_container_runqueue_wait_seconds_count{"} {
					if !has(body, m, fmt.Sprintf("unit=%q", cg.Path)) {
						return fmt.Errorf("no %s of %s", m, cg.Path)
					}
				}
				return nil
			})
			if strings.Contains(a.log.String(), "level=ERROR") || strings.Contains(a.log.String(), "not told by workload") {
				t.Errorf("log:\n%s", a.log)
			}
			t.Logf("ready; a new control group of the host has metrics after %v; %v", took.Round(time.Millisecond), usageOf(t, a.pid))
		})
	}
}

// has tells whether a line begins with prefix and contains part.
func has(text, prefix, part string) bool {
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, prefix) && strings.Contains(line, part) {
			return true
		}
	}
	return false
}

// checkConfined: the process has the rights that it should have, and no other.
func checkConfined(t *testing.T, a *agent, uid int) {
	t.Helper()
	if got := uidOf(t, a.pid); got != uid {
		t.Errorf("uid %d", got)
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", a.pid))
	if err != nil {
		t.Fatal(err)
	}
	const want = "000000c400080004" // dac_read_search 2, sys_ptrace 19, syslog 34, perfmon 38, bpf 39
	for _, set := range []string{"CapPrm", "CapEff", "CapBnd"} {
		if !strings.Contains(string(status), set+":\t"+want+"\n") {
			t.Errorf("%s is not %s:\n%s", set, want, status)
		}
	}
	if !strings.Contains(string(status), "NoNewPrivs:\t1\n") {
		t.Error("it may gain privileges")
	}
	mounts, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", a.pid))
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for line := range strings.Lines(string(mounts)) {
		f := strings.Fields(line)
		if len(f) > 5 && (f[4] == "/" || f[4] == "/sys" || strings.HasPrefix(f[4], "/sys/")) {
			seen++
			if !strings.HasPrefix(f[5], "ro,") {
				t.Errorf("%s can be written to", f[4])
			}
		}
	}
	if seen < 3 {
		t.Errorf("only %d mounts of /sys", seen)
	}
}
