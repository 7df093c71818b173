package hungtask

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"huatuo/internal/signal"
)

const mountinfo = `21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
24 21 0:5 / /dev rw - devtmpfs udev rw
40 21 0:51 / /mnt/with\040blank rw - fuse.sshfs user@host:/home rw
41 21 0:52 / /srv/data rw,relatime - nfs4 10.0.0.1:/export rw,vers=4.2
42 21 253:0 / /srv rw shared:9 - xfs /dev/mapper/vg-srv rw
43 42 0:60 / /srv/sub rw - btrfs /dev/sdb rw
44 21 0:61 / /run rw - tmpfs tmpfs rw
garbage
45 21 x:y / /bad rw - ext4 /dev/bad rw
`

// machine makes a /proc with a process 7 that is in a system call, and a /sys.
func machine(t *testing.T, syscall string) *finder {
	t.Helper()
	root := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		p := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	link := func(name, to string) {
		t.Helper()
		p := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(to, p); err != nil {
			t.Fatal(err)
		}
	}
	write("proc/7/mountinfo", mountinfo)
	write("proc/7/task/7/syscall", syscall)
	// Paths that system calls have in memory.
	write("proc/7/mem", strings.Repeat("\x00", 16)+"/srv/data/x\x00"+strings.Repeat("\x00", 4)+"rel/../f\x00")
	link("proc/7/cwd", "/mnt/with blank")
	for fd, f := range []struct {
		path string
		id   int
	}{{"/dev/sda", 24}, {"/mnt/with blank/f", 40}, {"/srv/data/x", 41}, {"/srv/sub/y", 43}, {"/run/z", 44}, {"/home/a", 21}, {"pipe:[1]", 9}} {
		link(fmt.Sprintf("proc/7/fd/%d", fd), f.path)
		write(fmt.Sprintf("proc/7/fdinfo/%d", fd), fmt.Sprintf("pos:\t0\nflags:\t0100000\nmnt_id:\t%d\nino:\t1\n", f.id))
	}
	link("proc/9/fd/3", "/dev/fuse")
	write("proc/9/fdinfo/3", "pos:\t0\nfuse_connection:\t51\n")
	write("proc/9/comm", "sshfs\n")
	for name, number := range map[string]string{"sda": "8:0", "sda1": "8:1", "sdb": "8:16", "dm-0": "253:0", "loop0": "7:0"} {
		dir := "sys/devices/" + name
		if name == "sda1" {
			dir = "sys/devices/sda/sda1"
			write(dir+"/partition", "1\n")
		}
		write(dir+"/dev", number+"\n")
		link("sys/class/block/"+name, filepath.Join(root, dir))
		link("sys/dev/block/"+number, filepath.Join(root, dir))
	}
	write("sys/devices/dm-0/slaves/sdb", "")
	return newFinder(root)
}

// TestFind: from a system call to a file, its mount and its device.
func TestFind(t *testing.T) {
	const write, read, openat, futex = 1, 0, 257, 202
	if runtime.GOARCH != "amd64" {
		t.Skip("needs amd64: the system calls in the table have its numbers")
	}
	call := func(n int, args ...int) string {
		s := fmt.Sprint(n)
		for len(args) < 6 {
			args = append(args, 0)
		}
		for _, a := range args {
			s += fmt.Sprintf(" %#x", uint32(a))
		}
		return s + " 0x7ffe0000 0x7f0000\n"
	}
	frozen := "percpu_rwsem_wait __percpu_down_read vfs_write"
	for _, tt := range []struct {
		name, syscall, comm, stack string
		want                       *WaitsFor
	}{
		{"device", call(read, 0), "dd", "", &WaitsFor{Kind: onDevice, Device: "sda", Path: "/dev/sda", Syscall: "read", numbers: []string{"8:0"}}},
		{"fuse", call(write, 1), "cp", "", &WaitsFor{Kind: onFUSE, Mount: "/mnt/with blank", FSType: "fuse.sshfs", Source: "user@host:/home", Path: "/mnt/with blank/f", Syscall: "write", fuse: 51}},
		{"server", call(write, 2), "cp", "", &WaitsFor{Kind: onServer, Mount: "/srv/data", FSType: "nfs4", Source: "10.0.0.1:/export", Path: "/srv/data/x", Syscall: "write"}},
		{"btrfs", call(write, 3), "cp", "", &WaitsFor{Kind: onDevice, Device: "sdb", Mount: "/srv/sub", FSType: "btrfs", Source: "/dev/sdb", Path: "/srv/sub/y", Syscall: "write", numbers: []string{"8:16"}}},
		{"in memory", call(write, 4), "cp", "", &WaitsFor{Kind: onMemory, Mount: "/run", FSType: "tmpfs", Source: "tmpfs", Path: "/run/z", Syscall: "write"}},
		{"partition", call(write, 5), "cp", "", &WaitsFor{Kind: onDevice, Device: "sda1", Mount: "/", FSType: "ext4", Source: "/dev/sda1", Path: "/home/a", Syscall: "write", numbers: []string{"8:1", "8:0"}}},
		{"frozen", call(write, 5), "cp", frozen, &WaitsFor{Kind: onFrozen, Device: "sda1", Mount: "/", FSType: "ext4", Source: "/dev/sda1", Path: "/home/a", Syscall: "write", numbers: []string{"8:1", "8:0"}}},
		{"path", call(openat, -100, 16), "cat", "", &WaitsFor{Kind: onServer, Mount: "/srv/data", FSType: "nfs4", Source: "10.0.0.1:/export", Path: "/srv/data/x", Syscall: "openat"}},
		{"relative", call(openat, -100, 32), "cat", "", &WaitsFor{Kind: onFUSE, Mount: "/mnt/with blank", FSType: "fuse.sshfs", Source: "user@host:/home", Path: "/mnt/with blank/f", Syscall: "openat", fuse: 51}},
		{"relative to a directory", call(openat, 3, 32), "cat", "", &WaitsFor{Kind: onDevice, Device: "sdb", Mount: "/srv/sub", FSType: "btrfs", Source: "/dev/sdb", Path: "/srv/sub/y/f", Syscall: "openat", numbers: []string{"8:16"}}},
		{"worker", "running\n", "kworker/u8:3+flush-253:0", "", &WaitsFor{Kind: onDevice, Device: "dm-0", numbers: []string{"253:0", "8:16"}}},
		{"journal", "running\n", "jbd2/sda1-8", "", &WaitsFor{Kind: onDevice, Device: "sda1", numbers: []string{"8:1", "8:0"}}},

		{"another call", call(futex, 1), "x", "", nil},
		{"a pipe", call(read, 6), "x", "", nil},
		{"a descriptor that is not there", call(read, 99), "x", "", nil},
		{"page fault", "-1 0x7ffe0000 0x7f0000\n", "x", "", nil},
		{"it runs", "running\n", "loopy", "", nil},
		{"garbage", "0 zz\n", "jbd2/", "", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := machine(t, tt.syscall).find(7, 7, tt.comm, strings.Fields(tt.stack))
			if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", tt.want) {
				t.Errorf("got  %+v\nwant %+v", got, tt.want)
			}
		})
	}
}

func TestServer(t *testing.T) {
	f := machine(t, "")
	if s := f.server(51); s == nil || s.Process.PID != 9 || s.Process.Comm != "sshfs" {
		t.Errorf("connection 51 is served by %+v", s)
	}
	if s := f.server(5); s != nil {
		t.Errorf("connection 5 is served by %+v, want none", s)
	}
}

func TestMounts(t *testing.T) {
	ms := parseMounts([]byte(mountinfo))
	if len(ms) != 7 || ms[2].dir != "/mnt/with blank" || ms[2].minor != 51 {
		t.Fatalf("mounts %+v", ms)
	}
	for path, want := range map[string]string{"/srv": "/srv", "/srv/sub": "/srv/sub", "/srv/subway": "/srv", "/srvx": "/", "/": "/"} {
		if m, ok := mountOf(ms, path); !ok || m.dir != want {
			t.Errorf("%s is on %s, want %s", path, m.dir, want)
		}
	}
	if m, ok := mountOf(nil, "/x"); ok {
		t.Errorf("no mounts, and %+v", m)
	}
}

// TestFrozen: other locks of the kernel are of the same kind.
func TestFrozen(t *testing.T) {
	if !isFrozen([]string{"percpu_rwsem_wait", "vfs_write"}) {
		t.Error("a writer that waits for a thaw is not told")
	}
	for _, stack := range []string{"percpu_rwsem_wait cgroup_threadgroup_change_begin copy_process", "percpu_rwsem_wait cpus_read_lock", "io_schedule vfs_write"} {
		if isFrozen(strings.Fields(stack)) {
			t.Errorf("%s is taken for a frozen file system", stack)
		}
	}
}

// TestLock: what the program tells of locks.
func TestLock(t *testing.T) {
	for _, tt := range []struct {
		task    task
		lock    string
		owner   uint32
		missing string
	}{
		{task{lock: 2, owner: 5, ownerTGID: 5, ownerComm: "holder"}, "mutex", 5, ""},
		{task{lock: 4, owner: 5, readers: true}, "rwsem", 5, ""},
		{task{lock: 2}, "mutex", 0, "owner: the lock has none"},
		{task{lock: lockNone}, "", 0, "owner: the kernel keeps none"},
		{task{lock: lockUntold}, "", 0, "owner: not known on this kernel"},
		{task{lock: 77}, "", 0, "owner: not known on this kernel"},
	} {
		b, r := &HungTask{WaitClass: classLock}, &signal.Record{}
		b.lock(&tt.task, r)
		got, missing := uint32(0), strings.Join(b.Missing, ", ")
		if b.Owner != nil {
			got = b.Owner.Process.TID
		}
		if b.Lock != tt.lock || got != tt.owner || !strings.HasPrefix(missing, tt.missing) || (missing == "") != (tt.missing == "") || b.LastReader != tt.task.readers ||
			len(r.Parties) != min(int(tt.owner), 1) {
			t.Errorf("%+v: lock %q, owner %d, missing %q", tt.task, b.Lock, got, missing)
		}
	}
	// Who waits for the disk needs no owner.
	b := &HungTask{WaitClass: classIO}
	b.lock(&task{lock: lockNone}, &signal.Record{})
	if len(b.Missing) != 0 || b.verdict() != "" {
		t.Errorf("missing %q, verdict %q", b.Missing, b.verdict())
	}
}

// TestExplainHangs: an event does not wait for a /proc that hangs, nor does the next.
func TestExplainHangs(t *testing.T) {
	e := &explainer{find: machine(t, ""), wait: 10 * time.Millisecond, slot: make(chan struct{}, 1)}
	e.slot <- struct{}{} // somebody looks and does not come back
	r := &signal.Record{Process: signal.Process{PID: 7, TID: 7}, Body: &HungTask{}}
	e.explain(r, nil)
	if m := r.Body.(*HungTask).Missing; len(m) != 1 || !strings.Contains(m[0], "does not answer") {
		t.Errorf("missing %q", m)
	}
	<-e.slot
	r = &signal.Record{Process: signal.Process{PID: 7, TID: 7}, Body: &HungTask{}}
	e.wait = 10 * time.Second
	e.explain(r, nil)
	if m := r.Body.(*HungTask).Missing; !slices.Equal(m, []string{"waits_for: not in a system call on a file"}) {
		t.Errorf("missing %q", m)
	}
}

// TestSplit: tasks that hang in one function for two file systems are two events.
func TestSplit(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("needs amd64: the system calls in the table have its numbers")
	}
	f := machine(t, "1 0x2 0x0 0x0 0x0 0x0 0x0 0x7ffe 0x7f00\n")
	for tid, text := range map[int]string{8: "1 0x3", 9: "1 0x2"} {
		dir := filepath.Join(f.proc, "7/task", fmt.Sprint(tid))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(dir+"/syscall", []byte(text+" 0x0 0x0 0x0 0x0 0x0 0x7ffe 0x7f00\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	e := &explainer{find: f, wait: 10 * time.Second, slot: make(chan struct{}, 1)}
	groups := func() []*group {
		g, alone := &group{}, &group{}
		for i, tid := range []uint32{7, 8, 9, 10} { // the last has ended
			g.add(task{pid: tid, tgid: 7}, time.Duration(10-i)*time.Second)
		}
		alone.add(task{pid: 7, tgid: 7}, time.Second)
		return []*group{g, alone}
	}
	show := func(gs []*group) string {
		var out []string
		for _, g := range gs {
			s := ""
			for i := range g.tasks {
				s += fmt.Sprintf("%d after %v ", g.tasks[i].pid, g.ages[i])
			}
			out = append(out, strings.TrimSpace(s))
		}
		return strings.Join(out, "; ")
	}
	if got, want := show(e.split(groups())), "7 after 10s 9 after 8s; 8 after 9s; 10 after 7s; 7 after 1s"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	e.wait = 0 // no time to look
	if got, want := show(e.split(groups())), "7 after 10s 8 after 9s 9 after 8s 10 after 7s; 7 after 1s"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
