package runtimes

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"huatuo/internal/signal"
)

// TestJVM: a JVM that nobody has asked yet opens its socket, and counts its objects
// as the program made them.
func TestJVM(t *testing.T) {
	dir := compiled(t)
	pid, _ := start(t, nil, "java", "-cp", dir, "Kept")
	c := New("/proc")
	d, err := c.Ask(timeout(t), pid)
	if err != nil || d.Runtime != "jvm" || len(d.Profiles) != 1 || d.Profiles[0].At != fmt.Sprintf("/tmp/.java_pid%d", pid) {
		t.Fatalf("%+v, %v", d, err)
	}
	if _, err := os.Stat(d.Profiles[0].At); err == nil {
		t.Error("asking what there is has opened the socket")
	}
	counts := fetch(t, signal.RuntimeRequest{PID: pid, Profile: "classes", Sample: "instances"})
	for class, want := range map[string]int64{"Kept$Thing": 4321, "Kept$Thing[]": 12, "Kept$Thing[][]": 1} {
		if self, _ := of(counts, class); self != want || counts.Unit != "count" {
			t.Errorf("%s: %d objects, want %d", class, self, want)
		}
	}
	space := fetch(t, signal.RuntimeRequest{PID: pid, Profile: "classes", Collect: true})
	if self, _ := of(space, "Kept$Thing"); self != 4321*32 || space.Unit != "bytes" { // a header of 12 and two longs
		t.Errorf("Kept$Thing: %d %s", self, space.Unit)
	}
	if self, _ := of(space, "byte[]"); self < 1000 {
		t.Errorf("byte[]: %d", self)
	}
	if left, _ := filepath.Glob("/tmp/.attach_pid" + fmt.Sprint(pid)); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// TestJVMThatCannot: a JVM that SIGQUIT would end, or that does not want to be
// asked, lives on and is told about.
func TestJVMThatCannot(t *testing.T) {
	dir := compiled(t)
	for option, want := range map[string]string{"-Xrs": "does not take SIGQUIT", "-XX:+DisableAttachMechanism": "does not let itself be asked"} {
		pid, _ := start(t, nil, "java", option, "-cp", dir, "Kept")
		if option == "-Xrs" { // its socket is there from the start: it can be asked until somebody removes that
			if counts := fetch(t, signal.RuntimeRequest{PID: pid, Profile: "classes", Sample: "instances"}); counts.Total < 4321 {
				t.Errorf("%s: %d objects", option, counts.Total)
			}
			if err := os.Remove(fmt.Sprintf("/tmp/.java_pid%d", pid)); err != nil {
				t.Fatal(err)
			}
		}
		refused(t, pid, "classes", want)
	}
}

// refused fetches what cannot be had, and looks whether the process lives on.
func refused(t *testing.T, pid uint32, name, want string) {
	t.Helper()
	c := New("/proc")
	d, err := c.Ask(timeout(t), pid)
	if err != nil || len(d.Profiles) != 0 || !strings.Contains(d.Reason, want) {
		t.Errorf("%+v, %v", d, err)
	}
	_, err = c.Fetch(timeout(t), signal.RuntimeRequest{PID: pid, Profile: name})
	var e *Error
	if !errors.As(err, &e) || e.ErrorType() != notFound || !strings.Contains(err.Error(), want) {
		t.Errorf("%v: want %q", err, want)
	}
	time.Sleep(300 * time.Millisecond) // a signal would have ended it by now
	p, err := openProcess("/proc", pid)
	if err != nil {
		t.Fatalf("it has ended: %v", err)
	}
	p.close()
}

// TestNeither: a process that is neither never gets a signal, also when it has a
// file of that name mapped, and when it catches the signal.
func TestNeither(t *testing.T) {
	python := needs(t, "/usr/bin/python3")
	lib, got := filepath.Join(t.TempDir(), "libjvm.so"), filepath.Join(t.TempDir(), "got")
	if err := os.WriteFile(lib, make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	const program = `
import mmap, signal, sys, time
if len(sys.argv) > 1:
    f = open(sys.argv[1], "r+b")
    m = mmap.mmap(f.fileno(), 0)
if len(sys.argv) > 2:
    signal.signal(signal.SIGQUIT, lambda *_: open(sys.argv[2], "w"))
print("ready", flush=True)
while True: time.sleep(1)
`
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{python, "-c", program}, "neither a Go program nor a JVM"},
		{[]string{python, "-c", program, lib}, "does not take SIGQUIT"},
		{[]string{python, "-c", program, lib, got}, "does not take SIGQUIT"},
	} {
		pid, _ := start(t, nil, tt.args...)
		refused(t, pid, "classes", tt.want)
	}
	if _, err := os.Stat(got); err == nil {
		t.Error("the process got SIGQUIT")
	}
}

// TestStopped: a JVM that is stopped is not waited for.
func TestStopped(t *testing.T) {
	pid, _ := start(t, nil, "java", "-cp", compiled(t), "Kept")
	if err := syscall.Kill(int(pid), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	waitState(t, pid, "T")
	refused(t, pid, "classes", "it is stopped")
}

func waitState(t *testing.T, pid uint32, want string) {
	t.Helper()
	p, err := openProcess("/proc", pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	deadline := time.Now().Add(10 * time.Second)
	for {
		st, err := p.status()
		if err != nil {
			t.Fatal(err)
		}
		if st.state == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("state %s", st.state)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// TestContainer: a JVM of another user, with pids and files of its own, is
// asked by the socket in its own /tmp.
func TestContainer(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root for namespaces")
	}
	dir := compiled(t)
	unshare, setpriv := needs(t, "unshare"), needs(t, "setpriv")
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	start(t, nil, unshare, "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c",
		fmt.Sprintf("mount --bind %s /tmp && exec %s --reuid 65534 --regid 65534 --clear-groups java -cp /tmp Kept", dir, setpriv))
	pid := jvmIn(t, dir)
	t.Cleanup(func() { syscall.Kill(int(pid), syscall.SIGKILL) }) // --kill-child is forgotten with the change of user
	if counts := fetch(t, signal.RuntimeRequest{PID: pid, Profile: "classes", Sample: "instances"}); counts.Total < 4321 {
		t.Errorf("%d objects", counts.Total)
	}
	if _, err := os.Stat(filepath.Join(dir, ".java_pid1")); err != nil {
		t.Errorf("it is not its own /tmp that was used: %v", err)
	}
	if _, err := os.Stat("/tmp/.java_pid1"); err == nil {
		t.Error("the host's /tmp was used")
	}
}

// jvmIn finds the JVM that has a folder as its /tmp.
func jvmIn(t *testing.T, dir string) uint32 {
	t.Helper()
	all, err := New("/proc").List(timeout(t))
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.Stat(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range all {
		if got, err := os.Stat(fmt.Sprintf("/proc/%d/root/tmp", d.PID)); err == nil && d.Runtime == "jvm" && os.SameFile(got, want) {
			return d.PID
		}
	}
	t.Fatalf("no JVM in %+v", all)
	return 0
}

// TestHostileTmp: a /tmp that leads out of the process' root is not followed.
func TestHostileTmp(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, for a root of its own")
	}
	root := t.TempDir()
	if err := os.Symlink("../../../../../../../../tmp", filepath.Join(root, "tmp")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc", filepath.Join(root, "etc")); err != nil {
		t.Fatal(err)
	}
	// A process whose root that is: the program is already running when it goes there.
	pid, _ := start(t, nil, needs(t, "/usr/bin/python3"), "-c",
		"import os,sys,time\nos.chroot(sys.argv[1])\nos.chdir('/')\nprint('ready',flush=True)\ntime.sleep(600)", root)
	p, err := openProcess("/proc", pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	if f, err := p.openTmp(); err == nil {
		f.Close()
		t.Error("a link out of the root was followed")
	}
}
