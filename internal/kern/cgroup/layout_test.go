package cgroup

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

const (
	mountsV2 = `22 28 0:5 / /proc rw - proc proc rw
30 28 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot
`
	mountsHybrid = `31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 master:1 - cgroup cgroup rw,cpu,cpuacct
34 31 0:31 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
`
	mountsV1 = `32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu
34 31 0:31 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
`
	// systemd with unified_cgroup_hierarchy, and a named v1 hierarchy for a tool.
	mountsV2Named = `30 28 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw
31 28 0:27 / /sys/fs/cgroup/elogind rw - cgroup cgroup rw,name=elogind
`
	// Hybrid with the cpu controller in the default hierarchy.
	mountsHybridCPU2 = `34 31 0:31 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
`
	// In a container that sees the host's tree as well, at a path with a blank.
	mountsTwice = `30 28 0:26 /docker/ab /sys/fs/cgroup ro - cgroup2 cgroup rw
31 28 0:26 / /host\040sys/fs/cgroup rw - cgroup2 cgroup2 rw
`
	mountsNoCPU = `34 31 0:31 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
`
	mountsOddLines = `
x
34 31 0:31 / /a rw
34 31 0:31 / /a rw - cgroup
`
)

// fakeRoot makes a root with that mountinfo and with the mount points.
func fakeRoot(t *testing.T, mountinfo string) string {
	t.Helper()
	root := t.TempDir()
	for _, m := range parseMountinfo(mountinfo) {
		mkdir(t, filepath.Join(root, m.point))
	}
	mkdir(t, filepath.Join(root, "proc/self"))
	if err := os.WriteFile(filepath.Join(root, "proc/self/mountinfo"), []byte(mountinfo), 0o644); err != nil {
		t.Fatal(err)
	}
	return root
}

func mkdir(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
}

func TestDetect(t *testing.T) {
	for _, tt := range []struct {
		name, mounts string
		mode         Mode
		unified      bool
		identity     string
		err          error
	}{
		{name: "v2", mounts: mountsV2, mode: V2, unified: true, identity: "/sys/fs/cgroup"},
		{name: "hybrid", mounts: mountsHybrid, mode: Hybrid, identity: "/sys/fs/cgroup/cpu,cpuacct"},
		{name: "v1", mounts: mountsV1, mode: V1, identity: "/sys/fs/cgroup/cpu"},
		{name: "v2 with a named hierarchy", mounts: mountsV2Named, mode: V2, unified: true, identity: "/sys/fs/cgroup"},
		{name: "hybrid with cpu in v2", mounts: mountsHybridCPU2, mode: Hybrid, unified: true, identity: "/sys/fs/cgroup/unified"},
		{name: "mounted twice", mounts: mountsTwice, mode: V2, unified: true, identity: "/host sys/fs/cgroup"},
		{name: "no cpu", mounts: mountsNoCPU, err: ErrNone},
		{name: "nothing", mounts: "", err: ErrNone},
		{name: "odd lines", mounts: mountsOddLines, err: ErrNone},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := fakeRoot(t, tt.mounts)
			l, err := Detect(root)
			if !errors.Is(err, tt.err) {
				t.Fatalf("error %v, want %v", err, tt.err)
			}
			if err != nil {
				return
			}
			if l.Mode != tt.mode || l.Unified != tt.unified || l.IdentityRoot != filepath.Join(root, tt.identity) {
				t.Errorf("got %s, unified %v, %s; want %s, %v, %s", l.Mode, l.Unified, l.IdentityRoot, tt.mode, tt.unified, tt.identity)
			}
		})
	}
	if _, err := Detect(t.TempDir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a root without proc: %v", err)
	}
}

// TestDetectForeignRoot has the host's own mounts win over those of this
// process' mount namespace, which the same proc shows as self.
func TestDetectForeignRoot(t *testing.T) {
	root := fakeRoot(t, mountsV1)
	mkdir(t, filepath.Join(root, "sys/fs/cgroup"))
	mkdir(t, filepath.Join(root, "proc/1"))
	if err := os.WriteFile(filepath.Join(root, "proc/1/mountinfo"), []byte(mountsV2), 0o644); err != nil {
		t.Fatal(err)
	}
	if l, err := Detect(root); err != nil || l.Mode != V2 {
		t.Errorf("%+v, %v", l, err)
	}
}

// TestDetectUnseenMount leaves out what is mounted but cannot be seen from here.
func TestDetectUnseenMount(t *testing.T) {
	root := fakeRoot(t, mountsHybrid)
	if err := os.Remove(filepath.Join(root, "sys/fs/cgroup/cpu,cpuacct")); err != nil {
		t.Fatal(err)
	}
	l, err := Detect(root)
	if err != nil || !l.Unified {
		t.Errorf("%+v, %v; want the unified hierarchy", l, err)
	}
}

func TestFileIn(t *testing.T) {
	hybrid, v2 := fakeRoot(t, mountsHybrid), fakeRoot(t, mountsV2)
	for _, tt := range []struct {
		root, controller, path, file, want string
	}{
		{hybrid, "memory", "/docker/ab", "memory.stat", "/sys/fs/cgroup/memory/docker/ab/memory.stat"},
		{hybrid, "cpuacct", "/x", "cpuacct.usage", "/sys/fs/cgroup/cpu,cpuacct/x/cpuacct.usage"},
		{hybrid, "memory", "/x", "memory.pressure", "/sys/fs/cgroup/unified/x/memory.pressure"},
		{hybrid, "pids", "/x", "pids.current", "/sys/fs/cgroup/unified/x/pids.current"},
		{hybrid, "", "/x", "cgroup.procs", "/sys/fs/cgroup/unified/x/cgroup.procs"},
		{hybrid, "name=systemd", "/", "cgroup.procs", "/sys/fs/cgroup/systemd/cgroup.procs"},
		{v2, "memory", "/x", "memory.stat", "/sys/fs/cgroup/x/memory.stat"},
		{v2, "cpu", "/", "cpu.stat", "/sys/fs/cgroup/cpu.stat"},
	} {
		l, err := Detect(tt.root)
		if err != nil {
			t.Fatal(err)
		}
		if got := l.FileIn(tt.controller, tt.path, tt.file); got != tt.root+tt.want {
			t.Errorf("FileIn(%q, %q, %q) = %q, want %q", tt.controller, tt.path, tt.file, got, tt.root+tt.want)
		}
	}
	v1, err := Detect(fakeRoot(t, mountsV1))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"pids.current", "memory.pressure"} {
		if got := v1.FileIn("pids", "/x", file); got != "" {
			t.Errorf("FileIn of what is not mounted: %q", got)
		}
	}
	if !v1.IsV1("memory") || v1.IsV1("pids") || v1.Mount("") != "" || v1.Mount("cpu") == "" {
		t.Error("IsV1 or Mount is wrong on v1")
	}
}

func TestProcPath(t *testing.T) {
	paths := map[string]string{"": "/two", "cpu": "/one"}
	of := func(controller string) string { return paths[controller] }
	if got := (&Layout{}).ProcPath(of); got != "/one" {
		t.Errorf("v1: %q", got)
	}
	if got := (&Layout{Unified: true}).ProcPath(of); got != "/two" {
		t.Errorf("v2: %q", got)
	}
}

func FuzzParseMountinfo(f *testing.F) {
	for _, s := range []string{mountsV2, mountsHybrid, mountsTwice, mountsOddLines, `1 2 3:4 \04 \999 rw - cgroup2`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, m := range parseMountinfo(s) {
			m.controllers()
		}
	})
}
