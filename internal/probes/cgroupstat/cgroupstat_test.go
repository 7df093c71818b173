package cgroupstat

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"huatuo/internal/kern/cgroup"
	"huatuo/internal/probe"
	"huatuo/internal/probes/probetest"
	"huatuo/internal/signal"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// TestRun reads whole trees. The golden files also show which groups are left
// out: the pod's, those inside a container or a unit, and inner groups.
func TestRun(t *testing.T) {
	for _, name := range []string{"v1", "v2", "hybrid"} {
		t.Run(name, func(t *testing.T) {
			root := probetest.Unpack(t, "testdata/"+name+".txt")
			golden := "testdata/" + name + ".golden"
			e := probetest.New(t)
			e.Root = root
			e.Start(Spec(), nil)
			first := e.Gather()
			names := groupNames(t, root)
			probetest.Golden(t, golden, first, names, *update)
			probetest.Golden(t, golden, e.Gather(), names, false) // from files that are open

			closedFiles := probetest.New(t)
			closedFiles.Root = root
			closedFiles.Start(Spec(), Config{MaxGroups: 1000})
			closedFiles.Gather()
			probetest.Golden(t, golden, closedFiles.Gather(), names, false) // no file is kept open
		})
	}
}

// groupNames maps ids to the end of the group's path.
func groupNames(t testing.TB, root string) map[uint64]string {
	t.Helper()
	l, err := cgroup.Detect(root)
	if err != nil {
		t.Fatal(err)
	}
	x, err := cgroup.NewIndex(l, cgroup.IndexOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	names := map[uint64]string{}
	for _, e := range x.Live() {
		names[e.ID] = filepath.Base(e.Path)
	}
	return names
}

func TestNoCgroups(t *testing.T) {
	root := t.TempDir()
	if err := os.MkdirAll(root+"/proc/self", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(root+"/proc/self/mountinfo", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	e := probetest.New(t)
	e.Root = root
	if err := e.TryStart(Spec(), nil); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("run without control groups = %v; want unsupported", err)
	}
}

func TestHooks(t *testing.T) {
	f := func(root, want string) {
		t.Helper()
		l, err := cgroup.Detect(probetest.Unpack(t, "testdata/"+root+".txt"))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, h := range hooks(l) {
			by := h.By
			if by == "" {
				by = "-"
			}
			got = append(got, h.Hook+":"+by)
		}
		if s := strings.Join(got, " "); s != want {
			t.Errorf("%s: hooks are %s, want %s", root, s, want)
		}
	}
	f("v1", "cpu:cgroup memory:cgroup pids:cgroup blkio:cgroup pressure:-")
	f("v2", "cpu:cgroup2 memory:cgroup2 pids:cgroup2 blkio:cgroup2 pressure:cgroup2")
	f("hybrid", "cpu:cgroup memory:cgroup pids:cgroup blkio:cgroup pressure:cgroup2")
}

func TestWorkloads(t *testing.T) {
	f := func(paths, want []string) {
		t.Helper()
		var live []cgroup.Entry
		for i, p := range paths {
			live = append(live, cgroup.Entry{ID: uint64(i), Path: p, Identity: cgroup.Identify(p)})
		}
		var got []string
		for _, e := range workloads(live) {
			got = append(got, e.Path)
		}
		if !slices.Equal(got, want) {
			t.Errorf("workloads(%q) = %q, want %q", paths, got, want)
		}
	}
	id := strings.Repeat("0f", 32)
	f([]string{"/"}, nil)
	f([]string{"/", "/docker", "/docker/" + id, "/docker/" + id + "/init.scope"}, []string{"/docker/" + id})
	f([]string{"/", "/system.slice", "/system.slice/a.service", "/system.slice/a.service/b"}, []string{"/system.slice/a.service"})
	f([]string{"/", "/a", "/a-b", "/a/b", "/a/b/c"}, []string{"/a-b", "/a/b/c"})
}

// TestLimitsOfProbe checks max_groups, and that files of groups that are gone are closed.
func TestLimitsOfProbe(t *testing.T) {
	p := newTestPoller(t, probetest.Unpack(t, "testdata/v2.txt"), Config{MaxGroups: 2, MaxOpenFiles: 1000})
	if err := p.collect(new(signal.Batch)); err != nil {
		t.Fatal(err)
	}
	if len(p.groups) != 2 || p.left != 3 {
		t.Errorf("%d groups are read and %d left out, want 2 and 3", len(p.groups), p.left)
	}
	if p.open == 0 {
		t.Error("no file is kept open")
	}
	p.cfg.MaxGroups, p.chosen = 0, false // all are gone
	if err := p.collect(new(signal.Batch)); err != nil {
		t.Fatal(err)
	}
	if p.open != 0 || len(p.groups) != 0 {
		t.Errorf("%d groups and %d open files are left", len(p.groups), p.open)
	}
	p.cfg.MaxGroups, p.cfg.MaxOpenFiles, p.chosen = 1000, 3, false
	if err := p.collect(new(signal.Batch)); err != nil || p.open != 3 {
		t.Errorf("%d files are kept open, %v; want 3", p.open, err)
	}
	p.close()
	b := new(signal.Batch)
	if err := p.collect(b); err != nil || len(b.Samples) != 0 || p.open != 0 {
		t.Errorf("after close: %v, %d samples, %d open files", err, len(b.Samples), p.open)
	}
}

func newTestPoller(t testing.TB, root string, cfg Config) *poller {
	t.Helper()
	l, err := cgroup.Detect(root)
	if err != nil {
		t.Fatal(err)
	}
	x, err := cgroup.NewIndex(l, cgroup.IndexOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(x.Close)
	env := probetest.New(t)
	p := newPoller(l, x, cfg, &probe.Env{Root: root, Log: env.Log})
	t.Cleanup(p.close)
	return p
}
