package enrich

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"huatuo/internal/kern/cgroup"
	"huatuo/internal/kern/procfs"
	"huatuo/internal/signal"
)

// fakeNames is a Names that a test fills.
type fakeNames struct {
	mu      sync.Mutex
	m, pods map[string]Name
	pending map[string]chan struct{}
	renames uint64
}

func (f *fakeNames) Container(id string) (Name, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, ok := f.m[id]
	return n, ok
}

func (f *fakeNames) Pod(uid string) (Name, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, ok := f.pods[uid]
	return n, ok
}

func (f *fakeNames) Pending(id string) <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	if ch := f.pending[id]; ch != nil {
		return ch
	}
	return nil
}

func (f *fakeNames) Renames() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.renames
}

func (f *fakeNames) set(id string, n Name) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.m[id] = n
}

type got struct {
	namespace, pod, container, unit string
	known                           bool
}

func labelsOf(e *Enricher, id uint64) (g got) {
	g.namespace, g.pod, g.container, g.unit, g.known = e.Labels(id)
	return g
}

func runEnricher(t *testing.T, e *Enricher) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- e.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestLabels(t *testing.T) {
	h := newHost(t)
	e := h.enricher(Options{})
	for _, tt := range []struct {
		path string
		want got
	}{
		{"/", got{unit: "/", known: true}},
		{"/docker/" + ctr1, got{container: ctr1[:12], known: true}},
		{"/docker/" + ctr1 + "/init.scope", got{container: ctr1[:12], known: true}},
		{"/kubepods/burstable/pod" + pod1 + "/" + ctr2, got{container: ctr2[:12], known: true}},
		{"/kubepods/burstable/pod" + pod1, got{pod: pod1, known: true}},
		{"/kubepods/burstable", got{unit: "/kubepods/burstable", known: true}},
		{"/system.slice/nginx.service", got{unit: "nginx.service", known: true}},
		{"/system.slice", got{unit: "system.slice", known: true}},
		{"/lxc.payload.web", got{container: "web", known: true}},
		{"/hand/made", got{unit: "/hand/made", known: true}},
	} {
		id := h.group(tt.path)
		if g := labelsOf(e, id); g != tt.want {
			t.Errorf("%s: %+v, want %+v", tt.path, g, tt.want)
		}
	}
	for _, id := range []uint64{0, 1 << 60} {
		if g := labelsOf(e, id); g != (got{}) {
			t.Errorf("unknown group: %+v", g)
		}
	}
	if g := labelsOf(New(Options{Clock: h.clock}), 1); g != (got{}) {
		t.Errorf("without an index: %+v", g)
	}
}

func TestRecordContainer(t *testing.T) {
	h := newHost(t)
	e := h.enricher(Options{})
	path := "/kubepods/burstable/pod" + pod1 + "/" + ctr1
	id := h.group(path)
	h.run(task{pid: 42, comm: "app", exe: "/a", args: []string{"a"}, cgroup: path + "/sub"})
	labelsOf(e, id)

	want := signal.Container{ID: ctr1, Name: ctr1[:12], PodUID: pod1, QoS: "burstable", Runtime: "containerd", Cgroup: path}
	r := h.record(e, 0, id)
	if diff := cmp.Diff(want, r.Container); diff != "" {
		t.Errorf("by id: %s", diff)
	}
	byProc := want
	byProc.Cgroup += "/sub"
	for name, id := range map[string]uint64{"no id": 0, "unknown id": 1 << 60} {
		r := h.record(e, 42, id)
		if diff := cmp.Diff(byProc, r.Container); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	r = h.record(e, 0, 1<<60)
	if !slices.Equal(r.Unresolved, []string{lackContainer}) {
		t.Errorf("unresolved %q", r.Unresolved)
	}
	r = &signal.Record{CgroupID: id, Container: signal.Container{ID: "mine"}}
	if e.Record(r); r.Container.ID != "mine" {
		t.Errorf("what the probe had filled was lost: %+v", r.Container)
	}

	for group, want := range map[string]signal.Container{
		"/":                      {Unit: "/", Cgroup: "/"},
		"/hand":                  {Unit: "/hand", Cgroup: "/hand"},
		"/system.slice/x.socket": {Unit: "x.socket", Cgroup: "/system.slice/x.socket"},
	} {
		r := h.record(e, 0, h.group(group))
		if diff := cmp.Diff(want, r.Container); diff != "" {
			t.Errorf("%s: %s", group, diff)
		}
	}

	// The group goes: its last identity stays for 10 minutes.
	h.removeGroup(path)
	e.work.tidy()
	want.Gone = true
	r = h.record(e, 0, id)
	if diff := cmp.Diff(want, r.Container); diff != "" {
		t.Errorf("gone: %s", diff)
	}
	if g := labelsOf(e, id); g.container != ctr1[:12] {
		t.Errorf("labels of a gone container: %+v", g)
	}
	h.now = h.now.Add(remember + time.Second)
	h.rescan()
	e.work.tidy()
	if r := h.record(e, 0, id); r.Container.ID != "" || len(e.work.byID) == 0 {
		t.Errorf("after more than 10 minutes: %+v", r.Container)
	}
}

func TestWorkloadCap(t *testing.T) {
	h := newHost(t)
	e := h.enricher(Options{MaxWorkloads: 2})
	a, sub := h.group("/docker/"+ctr1), h.group("/docker/"+ctr1+"/sub")
	b := h.group("/b.service")
	c := h.group("/c.service")
	// Made now, because the inode number of a directory that was removed may
	// come again at once; ids of real groups do not.
	d, last := h.group("/d.service"), h.group("/e.service")
	all := func() (names []string) {
		for _, id := range []uint64{a, sub, b, c} {
			g := labelsOf(e, id)
			names = append(names, g.container+g.unit)
		}
		return names
	}
	want := []string{ctr1[:12], ctr1[:12], "b.service", other}
	if got := all(); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if g := labelsOf(e, h.group("/")); g.unit != "/" {
		t.Errorf("the host itself fell to the cap: %+v", g)
	}
	if r := h.record(e, 0, c); r.Container.Unit != "c.service" {
		t.Errorf("the cap on labels hit a record: %+v", r.Container)
	}
	// A workload goes: its place is free for a new one, and the others stay
	// what they are.
	h.removeGroup("/b.service")
	e.work.tidy()
	if g := labelsOf(e, d); g.unit != "d.service" {
		t.Errorf("no place for a new workload after one had gone: %+v", g)
	}
	if got := all(); got[3] != other {
		t.Errorf("a workload changed its labels: %q", got)
	}
	// One of a container's groups goes: the container keeps its place.
	h.removeGroup("/docker/" + ctr1 + "/sub")
	e.work.tidy()
	if g := labelsOf(e, last); g.container != other {
		t.Errorf("more workloads than the cap: %+v", g)
	}
}

func TestNames(t *testing.T) {
	h := newHost(t)
	names := &fakeNames{m: map[string]Name{}}
	e := h.enricher(Options{Names: names, MaxWorkloads: 2})
	a, b := h.group("/docker/"+ctr1), h.group("/docker/"+ctr2)
	labelsOf(e, b)
	if g := labelsOf(e, a); g.container != ctr1[:12] {
		t.Errorf("before its name is known: %+v", g)
	}
	names.set(ctr1, Name{Namespace: "shop", Pod: "web-1", Name: "app", Labels: map[string]string{"app": "web"}})
	e.work.tidy()
	if g, want := labelsOf(e, a), (got{"shop", "web-1", "app", "", true}); g != want {
		t.Errorf("labels %+v, want %+v", g, want)
	}
	want := signal.Container{ID: ctr1, Name: "app", Pod: "web-1", Namespace: "shop", Runtime: "docker",
		Cgroup: "/docker/" + ctr1, Labels: map[string]string{"app": "web"}}
	if diff := cmp.Diff(want, h.record(e, 0, a).Container); diff != "" {
		t.Error(diff)
	}
	if g := labelsOf(e, b); g.container != ctr2[:12] {
		t.Errorf("the other container: %+v", g)
	}
	if n := len(e.work.admitted); n != 2 {
		t.Errorf("%d label sets hold a place, want 2", n)
	}
	// A name does not lift the cap.
	c := h.group("/docker/" + ctr1[:63] + "f")
	if g := labelsOf(e, c); g.container != other {
		t.Errorf("over the cap: %+v", g)
	}
	names.set(ctr1[:63]+"f", Name{Namespace: "n", Pod: "p", Name: "c"})
	e.work.tidy()
	if g := labelsOf(e, c); g != (got{container: other, known: true}) {
		t.Errorf("over the cap, named: %+v", g)
	}
	if r := h.record(e, 0, c); r.Container.Pod != "p" {
		t.Errorf("over the cap, its record: %+v", r.Container)
	}
}

func TestContainerPath(t *testing.T) {
	cs := procfs.Cgroups{
		{Hierarchy: 4, Controllers: "memory", Path: "/docker/" + ctr1},
		{Hierarchy: 1, Controllers: "cpu", Path: "/"},
	}
	if got := containerPath(cs, "/"); got != "/docker/"+ctr1 {
		t.Errorf("%q", got)
	}
	if got := containerPath(cs[1:], "/"); got != "/" {
		t.Errorf("%q", got)
	}
}

// TestKernel has a real process in a real group.
func TestKernel(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to make a cgroup")
	}
	layout, err := cgroup.Detect("/")
	if err != nil {
		t.Fatal(err)
	}
	index, err := cgroup.NewIndex(layout, cgroup.IndexOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(index.Close)
	path := fmt.Sprintf("/huatuo-enrich-%d", os.Getpid())
	dir := layout.IdentityRoot + path + "/docker-" + ctr1 + ".scope"
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(dir); err != nil {
			t.Error(err)
		}
		if err := os.Remove(layout.IdentityRoot + path); err != nil {
			t.Error(err)
		}
	})
	cmd := exec.Command("sleep", "600")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // "signal: killed"
	})
	pid := cmd.Process.Pid
	if err := os.WriteFile(dir+"/cgroup.procs", []byte(strconv.Itoa(pid)), 0o644); err != nil {
		t.Fatal(err)
	}
	id, err := cgroup.ID(dir)
	if err != nil {
		t.Fatal(err)
	}

	e := New(Options{Clock: newHost(t).clock, Layout: layout, Index: index})
	r := &signal.Record{Time: time.Now(), Process: signal.Process{PID: uint32(pid)}}
	e.Record(r) // the index has not seen the group: from /proc
	if r.Container.ID != ctr1 || r.Process.Comm != "sleep" {
		t.Errorf("by process: %+v, %+v", r.Container, r.Process)
	}
	if err := index.Rescan(); err != nil {
		t.Fatal(err)
	}
	r = &signal.Record{CgroupID: id}
	if e.Record(r); r.Container.ID != ctr1 || r.Container.Runtime != "docker" {
		t.Errorf("by id: %+v", r.Container)
	}
	if g := labelsOf(e, id); g.container != ctr1[:12] {
		t.Errorf("labels: %+v", g)
	}
}

func BenchmarkLabels(b *testing.B) {
	h := newHost(b)
	e := h.enricher(Options{})
	id := h.group("/docker/" + ctr1)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, container, _, _ := e.Labels(id); container == "" {
			b.Fatal("no container")
		}
	}
}
