package cgroup

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// tree is a hierarchy of plain directories: ids are inode numbers, and nothing
// can be opened by handle.
type tree struct {
	t    *testing.T
	root string
}

func newTree(t *testing.T, paths ...string) *tree {
	tr := &tree{t, t.TempDir()}
	for _, p := range paths {
		tr.add(p)
	}
	return tr
}

func (tr *tree) add(path string) uint64 {
	tr.t.Helper()
	mkdir(tr.t, filepath.Join(tr.root, path))
	// A file and a link are no groups.
	if err := os.WriteFile(filepath.Join(tr.root, path, "cgroup.procs"), nil, 0o644); err != nil {
		tr.t.Fatal(err)
	}
	id, err := ID(filepath.Join(tr.root, path))
	if err != nil {
		tr.t.Fatal(err)
	}
	return id
}

func (tr *tree) remove(path string) {
	tr.t.Helper()
	if err := os.RemoveAll(filepath.Join(tr.root, path)); err != nil {
		tr.t.Fatal(err)
	}
}

func (tr *tree) index(o IndexOptions) *Index {
	tr.t.Helper()
	x, err := NewIndex(&Layout{IdentityRoot: tr.root}, o)
	if err != nil {
		tr.t.Fatal(err)
	}
	tr.t.Cleanup(x.Close)
	return x
}

func rescan(t *testing.T, x *Index) {
	t.Helper()
	if err := x.Rescan(); err != nil {
		t.Fatal(err)
	}
}

func livePaths(x *Index) []string {
	var ps []string
	for _, e := range x.Live() {
		ps = append(ps, e.Path)
	}
	return ps
}

func TestIndexLife(t *testing.T) {
	tr := newTree(t, "/a", "/a/b", "/docker/"+id1+"/init.scope", "/system.slice/x.service")
	now := time.Unix(1_800_000_000, 0)
	x := tr.index(IndexOptions{Now: func() time.Time { return now }})

	want := []string{"/", "/a", "/a/b", "/docker", "/docker/" + id1, "/docker/" + id1 + "/init.scope", "/system.slice", "/system.slice/x.service"}
	if got := livePaths(x); !slices.Equal(got, want) {
		t.Fatalf("living groups %q, want %q", got, want)
	}
	var workloads []string
	for _, e := range x.Live() {
		if id, err := ID(filepath.Join(tr.root, e.Path)); err != nil || id != e.ID {
			t.Errorf("%s has id %d, want %d (%v)", e.Path, e.ID, id, err)
		}
		if e.Workload() {
			workloads = append(workloads, e.Path)
		}
	}
	if want := []string{"/a", "/a/b", "/docker/" + id1, "/system.slice/x.service"}; !slices.Equal(workloads, want) {
		t.Errorf("workloads %q, want %q", workloads, want)
	}

	gen := x.Generation()
	rescan(t, x)
	if x.Generation() != gen {
		t.Error("a walk that found nothing new changed the generation")
	}
	id := tr.add("/new")
	if _, ok := x.Lookup(id); ok {
		t.Error("a group is known that no walk has met")
	}
	rescan(t, x)
	if p, ok := x.PathOf(id); !ok || p != "/new" || x.Generation() == gen {
		t.Errorf("new group: %q, %v, generation %d after %d", p, ok, x.Generation(), gen)
	}

	gen = x.Generation()
	tr.remove("/new")
	rescan(t, x)
	if e, ok := x.Lookup(id); !ok || !e.Gone || e.Path != "/new" {
		t.Errorf("removed group: %+v, %v", e, ok)
	}
	if slices.Contains(livePaths(x), "/new") || x.Generation() == gen {
		t.Error("a removed group is still living")
	}
	now = now.Add(remember)
	rescan(t, x)
	if _, ok := x.Lookup(id); !ok {
		t.Error("a removed group was forgotten before 10 minutes were over")
	}
	now = now.Add(time.Second)
	rescan(t, x)
	if _, ok := x.Lookup(id); ok {
		t.Error("a removed group is known after more than 10 minutes")
	}
}

func TestIndexRename(t *testing.T) {
	tr := newTree(t)
	id := tr.add("/before")
	x := tr.index(IndexOptions{})
	if err := os.Rename(filepath.Join(tr.root, "before"), filepath.Join(tr.root, "after")); err != nil {
		t.Fatal(err)
	}
	rescan(t, x)
	if e, ok := x.Lookup(id); !ok || e.Path != "/after" || e.Gone || e.Top != "/after" {
		t.Errorf("renamed group: %+v, %v", e, ok)
	}
}

// TestIndexMiss has Run find a group that was looked up in vain, by a walk.
func TestIndexMiss(t *testing.T) {
	tr := newTree(t)
	x := tr.index(IndexOptions{})
	run(t, x)
	for i := range 3 {
		path := fmt.Sprintf("/g%d", i)
		if p := wait(t, x, tr.add(path)); p != path {
			t.Errorf("found %q, want %q", p, path)
		}
	}
	// An id that does not exist must not make Run walk for ever.
	before := walks(x)
	deadline := time.Now().Add(3 * rescanGap)
	for time.Now().Before(deadline) {
		x.Lookup(1 << 60)
		time.Sleep(time.Millisecond)
	}
	if n := walks(x) - before; n > 2 {
		t.Errorf("%d walks for one id that does not exist", n)
	}
}

func walks(x *Index) uint64 {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.walks
}

func run(t *testing.T, x *Index) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- x.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func wait(t *testing.T, x *Index, id uint64) string {
	t.Helper()
	deadline := time.Now().Add(5 * time.Second)
	for time.Now().Before(deadline) {
		if p, ok := x.PathOf(id); ok {
			return p
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatalf("group %d was not found", id)
	return ""
}

func TestIndexCap(t *testing.T) {
	tr := newTree(t)
	var ids []uint64
	for i := range 10 {
		ids = append(ids, tr.add(fmt.Sprintf("/g%d", i)))
	}
	x := tr.index(IndexOptions{Max: 5})
	if n := len(x.Live()); n != 5 || x.Dropped() == 0 {
		t.Fatalf("%d groups, %d dropped", n, x.Dropped())
	}
	if e, ok := x.Lookup(x.Live()[0].ID); !ok || e.Path != "/" {
		t.Errorf("the root was dropped: %+v", e)
	}
	// What a cut walk did not meet is not gone.
	rescan(t, x)
	for _, id := range ids {
		if e, _ := x.Lookup(id); e.Gone {
			t.Errorf("%s counts as gone", e.Path)
		}
	}
}

// TestIndexCapEvictsGone makes room for living groups at the cost of gone ones.
func TestIndexCapEvictsGone(t *testing.T) {
	tr := newTree(t, "/a", "/b", "/c")
	x := tr.index(IndexOptions{Max: 5})
	tr.remove("/a")
	rescan(t, x) // 3 living and 1 gone
	tr.add("/d")
	rescan(t, x)
	// An inode number may be used again at once, so the gone one may already
	// have been replaced: only the living are asked for.
	if got := livePaths(x); !slices.Equal(got, []string{"/", "/b", "/c", "/d"}) {
		t.Errorf("living groups %q", got)
	}
	if len(x.nodes) > 5 {
		t.Errorf("%d groups are known with a cap of 5", len(x.nodes))
	}
}

func TestIndexNoRoot(t *testing.T) {
	if _, err := NewIndex(&Layout{IdentityRoot: filepath.Join(t.TempDir(), "none")}, IndexOptions{}); err == nil {
		t.Error("no error for a hierarchy that does not exist")
	}
	tr := newTree(t, "/a")
	x := tr.index(IndexOptions{})
	tr.remove("/")
	if err := x.Rescan(); err == nil {
		t.Error("no error when the hierarchy went away")
	}
	if !slices.Contains(livePaths(x), "/a") {
		t.Error("a walk that failed removed groups")
	}
}

// TestKernel uses the hierarchy of this machine.
func TestKernel(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to make a cgroup")
	}
	l, err := Detect("/")
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	x, err := NewIndex(l, IndexOptions{Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	run(t, x)
	t.Logf("%s, identity from %s, by handle: %v", l.Mode, l.IdentityRoot, x.h.fd >= 0)

	path := fmt.Sprintf("/huatuo-test-%d", os.Getpid())
	dir := l.IdentityRoot + path
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(dir) }) // has been removed when all went well
	id, err := ID(dir)
	if err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		t.Fatal(err)
	}
	// Before 5.5 the inode number is the lower half.
	if id != st.Ino && (x.h.form != handleIno || uint32(id) != uint32(st.Ino)) {
		t.Errorf("id %d, inode %d", id, st.Ino)
	}
	start := time.Now()
	if got := wait(t, x, id); got != path {
		t.Errorf("found %q, want %q", got, path)
	}
	t.Logf("found after %v", time.Since(start))
	rescan(t, x)
	if e, ok := x.Lookup(id); !ok || e.Path != path || e.Gone || !e.Workload() {
		t.Errorf("a walk has made it %+v, %v", e, ok)
	}

	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	rescan(t, x)
	if e, ok := x.Lookup(id); !ok || !e.Gone {
		t.Errorf("after removal: %+v, %v", e, ok)
	}
	now = now.Add(remember + time.Second)
	rescan(t, x)
	if _, ok := x.Lookup(id); ok {
		t.Error("known after more than 10 minutes")
	}
	if x.h.fd >= 0 {
		if _, err := x.h.path(id); err != errNoGroup {
			t.Errorf("by handle after removal: %v, want %v", err, errNoGroup)
		}
	}
}

func BenchmarkLookup(b *testing.B) {
	root := b.TempDir()
	x, err := NewIndex(&Layout{IdentityRoot: root}, IndexOptions{})
	if err != nil {
		b.Fatal(err)
	}
	id := x.Live()[0].ID
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := x.Lookup(id); !ok {
			b.Fatal("not found")
		}
	}
}

func BenchmarkRescan1000(b *testing.B) {
	root := b.TempDir()
	for i := range 1000 {
		if err := os.MkdirAll(fmt.Sprintf("%s/kubepods/burstable/pod%d/c%d", root, i/4, i), 0o755); err != nil {
			b.Fatal(err)
		}
	}
	x, err := NewIndex(&Layout{IdentityRoot: root}, IndexOptions{})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := x.Rescan(); err != nil {
			b.Fatal(err)
		}
	}
}
