package procfs

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestSelf(t *testing.T) {
	f, self := New("/"), uint32(os.Getpid())

	st, err := f.Stat(self)
	if err != nil {
		t.Fatal(err)
	}
	comm, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	if st.PID != self || st.PPID != uint32(os.Getppid()) || st.Comm != strings.TrimSpace(string(comm)) ||
		st.StartTicks == 0 || st.KernelThread() || st.Zombie() {
		t.Errorf("stat of this test: %+v", st)
	}
	want, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if exe, err := f.Exe(self); err != nil || exe != want {
		t.Errorf("exe %q, %v, want %q", exe, err, want)
	}
	if args, err := f.Cmdline(self, 1<<20); err != nil || !slices.Equal(args, os.Args) {
		t.Errorf("cmdline %q, %v, want %q", args, err, os.Args)
	}
	if args, err := f.Cmdline(self, 5); err != nil || len(strings.Join(args, " ")) != 5 {
		t.Errorf("cmdline cut to 5 bytes: %q, %v", args, err)
	}
	if cs, err := f.Cgroup(self); err != nil || len(cs) == 0 {
		t.Errorf("cgroup %v, %v", cs, err)
	}
	if ns, err := f.NSPid(self); err != nil || len(ns) == 0 || ns[0] != self {
		t.Errorf("nspid %v, %v", ns, err)
	}
	if pids, err := f.Pids(); err != nil || !slices.Contains(pids, self) {
		t.Errorf("this process is not among %v, %v", pids, err)
	}
}

func TestVanished(t *testing.T) {
	cmd := exec.Command("true")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	f, pid := New("/"), uint32(cmd.Process.Pid)
	_, errStat := f.Stat(pid)
	_, errCgroup := f.Cgroup(pid)
	_, errExe := f.Exe(pid)
	_, errCmdline := f.Cmdline(pid, 100)
	_, errNS := f.NSPid(pid)
	for what, err := range map[string]error{
		"stat": errStat, "cgroup": errCgroup, "exe": errExe, "cmdline": errCmdline, "status": errNS,
	} {
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s of a process that ended: %v, want fs.ErrNotExist", what, err)
		}
	}
}

// TestVanishedAfterOpen holds the file open while the process ends: the read
// then fails with ESRCH.
func TestVanishedAfterOpen(t *testing.T) {
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	open, err := os.Open(filepath.Join("/proc", strconv.Itoa(cmd.Process.Pid), "stat"))
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // "signal: killed"
	_, err = open.Read(make([]byte, 100))
	if err == nil {
		t.Fatal("read of a process that ended gave no error: the premise of this test is gone")
	}
	if err := gone(1, "stat", errors.Unwrap(err)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v is not fs.ErrNotExist", err)
	}
}

func TestZombie(t *testing.T) {
	cmd := exec.Command("true")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Wait() })
	f, pid := New("/"), uint32(cmd.Process.Pid)
	deadline := time.Now().Add(5 * time.Second)
	for {
		st, err := f.Stat(pid)
		if err != nil {
			t.Fatal(err)
		}
		if st.Zombie() {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("still in state %c", st.State)
		}
		time.Sleep(time.Millisecond)
	}
	if args, err := f.Cmdline(pid, 100); err != nil || args != nil {
		t.Errorf("cmdline of a zombie: %q, %v", args, err)
	}
	if _, err := f.Exe(pid); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("exe of a zombie: %v, want fs.ErrNotExist", err)
	}
}

func TestRootPrefix(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "proc", "42")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"stat":    "42 (fake) R 1 42 42 0" + tail,
		"cmdline": "fake\x00arg\x00",
		"cgroup":  "0::/x\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	f := New(root)
	if st, err := f.Stat(42); err != nil || st.Comm != "fake" {
		t.Errorf("stat %+v, %v", st, err)
	}
	if args, err := f.Cmdline(42, 100); err != nil || !slices.Equal(args, []string{"fake", "arg"}) {
		t.Errorf("cmdline %q, %v", args, err)
	}
	if cs, err := f.Cgroup(42); err != nil || cs.Path("") != "/x" {
		t.Errorf("cgroup %v, %v", cs, err)
	}
	pids, err := f.Pids()
	if diff := cmp.Diff([]uint32{42}, pids); diff != "" || err != nil {
		t.Error(diff, err)
	}
	if _, err := New(filepath.Join(root, "none")).Pids(); err == nil {
		t.Error("no error for a root without proc")
	}
}

func BenchmarkStat(b *testing.B) {
	f, self := New("/"), uint32(os.Getpid())
	b.ReportAllocs()
	for b.Loop() {
		if _, err := f.Stat(self); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCgroup(b *testing.B) {
	f, self := New("/"), uint32(os.Getpid())
	b.ReportAllocs()
	for b.Loop() {
		if _, err := f.Cgroup(self); err != nil {
			b.Fatal(err)
		}
	}
}
