package cgroup

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// follower notes what an index tells.
type follower struct {
	mu   sync.Mutex
	told []string // "+/path" and "-/path"
}

func (f *follower) note(e Entry) {
	f.mu.Lock()
	defer f.mu.Unlock()
	sign := "+"
	if e.Gone {
		sign = "-"
	}
	f.told = append(f.told, sign+e.Path)
}

func (f *follower) count(what string) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.told {
		if s == what {
			n++
		}
	}
	return n
}

// want waits until each of what was told, and fails when one was told twice.
func (f *follower) want(t *testing.T, what ...string) {
	t.Helper()
	deadline := time.Now().Add(2 * time.Second) // less than reconcileEvery: no walk helps
	for {
		missing := slices.DeleteFunc(slices.Clone(what), func(s string) bool { return f.count(s) > 0 })
		if len(missing) == 0 {
			break
		}
		if time.Now().After(deadline) {
			f.mu.Lock()
			defer f.mu.Unlock()
			t.Fatalf("not told: %q; told: %q", missing, f.told)
		}
		time.Sleep(time.Millisecond)
	}
	for _, s := range what {
		if n := f.count(s); n != 1 {
			t.Errorf("%s was told %d times", s, n)
		}
	}
}

func TestFollow(t *testing.T) {
	tr := newTree(t)
	tr.add("/old/inner")
	x := tr.index(IndexOptions{})
	f := &follower{}
	x.Follow(f.note)
	run(t, x)
	id := tr.add("/probe")
	wait(t, x, id) // Run runs
	f.want(t, "+/probe")

	tr.add("/old/inner/new")
	f.want(t, "+/old/inner/new")
	tr.add("/a/b/c/d") // at once: the inner ones before anybody watches
	f.want(t, "+/a", "+/a/b", "+/a/b/c", "+/a/b/c/d")
	tr.remove("/a/b/c/d")
	f.want(t, "-/a/b/c/d")
	tr.add("/a/b/c/d")
	if deadline := time.Now().Add(2 * time.Second); true {
		for f.count("+/a/b/c/d") < 2 && time.Now().Before(deadline) {
			time.Sleep(time.Millisecond)
		}
	}
	if n := f.count("+/a/b/c/d"); n != 2 {
		t.Errorf("a path that was used before was told %d times, want 2", n)
	}
	if f.count("+/old") != 0 {
		t.Error("a group that was there before Run was told of")
	}
	if e, ok := x.Known(id); !ok || e.Gone {
		t.Errorf("%+v %v", e, ok)
	}
}

// TestFollowRename: what was renamed is found under its new name, and what is
// made below it afterwards too.
func TestFollowRename(t *testing.T) {
	tr := newTree(t)
	id := tr.add("/before")
	tr.add("/before/inner")
	x := tr.index(IndexOptions{})
	f := &follower{}
	x.Follow(f.note)
	run(t, x)
	wait(t, x, tr.add("/probe"))
	if err := os.Rename(filepath.Join(tr.root, "before"), filepath.Join(tr.root, "after")); err != nil {
		t.Fatal(err)
	}
	f.want(t, "+/after", "+/after/inner")
	if p, _ := x.PathOf(id); p != "/after" {
		t.Errorf("path %q", p)
	}
	tr.add("/after/inner/new")
	f.want(t, "+/after/inner/new")
}

// TestFollowBurst makes and removes more groups than the kernel's queue holds.
func TestFollowBurst(t *testing.T) {
	tr := newTree(t)
	x := tr.index(IndexOptions{})
	run(t, x)
	wait(t, x, tr.add("/probe"))
	for i := range 20_000 {
		p := filepath.Join(tr.root, fmt.Sprintf("g%d", i%50))
		if err := os.Mkdir(p, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(p); err != nil {
			t.Fatal(err)
		}
	}
	last := tr.add("/last")
	wait(t, x, last)
	deadline := time.Now().Add(5 * time.Second)
	want := []string{"/", "/last", "/probe"}
	for !slices.Equal(livePaths(x), want) {
		if time.Now().After(deadline) {
			t.Fatalf("living groups %q, want %q", livePaths(x), want)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// TestKernelWatch has real groups come and go: none of their watches stays,
// which the kernel itself would let happen.
func TestKernelWatch(t *testing.T) {
	l, err := Detect("/")
	if err != nil {
		t.Skipf("needs control groups: %v", err)
	}
	top := fmt.Sprintf("/huatuo-test-watch-%d", os.Getpid())
	if err := os.Mkdir(l.IdentityRoot+top, 0o755); err != nil {
		t.Skipf("needs root: %v", err)
	}
	t.Cleanup(func() { os.Remove(l.IdentityRoot + top) })
	x, err := NewIndex(l, IndexOptions{})
	if err != nil {
		t.Fatal(err)
	}
	f := &follower{}
	x.Follow(f.note)
	run(t, x)
	watches := func() (n int) {
		fds, _ := filepath.Glob("/proc/self/fdinfo/*")
		for _, fd := range fds {
			b, _ := os.ReadFile(fd)
			n += strings.Count(string(b), "inotify wd:")
		}
		return n
	}
	make := func(name string) {
		t.Helper()
		dir := l.IdentityRoot + top + "/" + name
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		f.want(t, "+"+top+"/"+name)
		if err := os.Remove(dir); err != nil {
			t.Fatal(err)
		}
		f.want(t, "-"+top+"/"+name)
	}
	make("first") // Run has begun
	before := watches()
	for i := range 100 {
		make(fmt.Sprint("g", i))
	}
	if after := watches(); after > before+20 { // other groups of this machine may have come
		t.Errorf("%d watches, were %d before 100 groups came and went", after, before)
	}
}

// TestWatcherFull: a watcher that can take no more says so once, and takes more
// when there is room.
func TestWatcherFull(t *testing.T) {
	tr := newTree(t)
	tr.add("/a")
	w, err := newWatcher(tr.root)
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	for i := range maxWatches {
		w.wds[fmt.Sprint(i)] = -i
	}
	if err := w.add("/a"); err == nil {
		t.Error("no error for more watches than there may be")
	}
	if err := w.add("/a"); err != nil {
		t.Errorf("told twice: %v", err)
	}
	w.paths[-7] = "7"
	w.drop(-7)
	if err := w.add("/a"); err != nil || len(w.wds) != maxWatches {
		t.Errorf("%v, %d watches", err, len(w.wds))
	}
}

func FuzzWatcherDecode(f *testing.F) {
	event := func(wd int32, mask uint32, name string) []byte {
		b := make([]byte, unix.SizeofInotifyEvent, unix.SizeofInotifyEvent+16)
		binary.NativeEndian.PutUint32(b, uint32(wd))
		binary.NativeEndian.PutUint32(b[4:], mask)
		if name != "" {
			binary.NativeEndian.PutUint32(b[12:], 16)
			b = append(b, append([]byte(name), make([]byte, 16-len(name))...)...)
		}
		return b
	}
	f.Add(event(1, unix.IN_CREATE|unix.IN_ISDIR, "new"))
	f.Add(append(event(1, unix.IN_DELETE|unix.IN_ISDIR, "old"), event(1, unix.IN_IGNORED, "")...))
	f.Add(event(-1, unix.IN_Q_OVERFLOW, ""))
	f.Fuzz(func(t *testing.T, b []byte) {
		w := &watcher{paths: map[int]string{1: "/a"}, wds: map[string]int{"/a": 1}}
		for _, c := range w.decode(b) {
			if !c.lost && !strings.HasPrefix(c.path, "/") {
				t.Errorf("%+v", c)
			}
		}
	})
}
