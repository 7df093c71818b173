package moment

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"huatuo/internal/kern/cgroup"
	"huatuo/internal/probes/probetest"
	"huatuo/internal/signal"
)

// newReader returns a Reader of the machine that a file of testdata describes,
// and its clock.
func newReader(t testing.TB, file string) (r *Reader, root string, clock *time.Time) {
	t.Helper()
	root = probetest.Unpack(t, filepath.Join("testdata", file+".txt"))
	layout, err := cgroup.Detect(root)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	return New(root, layout, func() time.Time { return now }), root, &now
}

func TestRead(t *testing.T) {
	psi := &signal.Pressure{CPUSome: 0.1234, MemorySome: 0.02, MemoryFull: 0.01, IOSome: 0.04, IOFull: 0.03}
	host := signal.HostResources{Load1: 2.51, Runnable: 3, MemoryTotal: 8140764 << 10, MemoryAvailable: 5215688 << 10, Swap: 48572 << 10, Dirty: 928 << 10}
	app := signal.WorkloadResources{
		MemoryUsed: 262144000, MemoryLimit: 536870912, Swap: 4096, CPULimit: 1.5, CPUSeconds: 50.5,
		Throttled: 2.5, ThrottledRuns: 50, Pids: 7, PidsLimit: 100, OOMKills: 1,
	}
	for _, tt := range []struct {
		mode string
		psi  bool
	}{{"v2", true}, {"v1", false}, {"hybrid", true}} {
		t.Run(tt.mode, func(t *testing.T) {
			r, _, _ := newReader(t, tt.mode)
			wantHost, wantApp := host, app
			if tt.psi {
				wantHost.Pressure = &signal.Pressure{CPUSome: 0.0163, MemorySome: 0.005, MemoryFull: 0.0025, IOSome: 1, IOFull: 0.3333}
				wantApp.Pressure = psi
			}
			if d := cmp.Diff(&wantHost, r.Host()); d != "" {
				t.Errorf("host:\n%s", d)
			}
			for path, want := range map[string]*signal.WorkloadResources{
				"/app": &wantApp, "/free": {MemoryUsed: 4096, Pids: 1}, "/": nil, "": nil,
			} {
				got, err := r.Workload(path)
				if d := cmp.Diff(want, got); d != "" || err != nil {
					t.Errorf("%q: %v\n%s", path, err, d)
				}
			}
			if got, err := r.Workload("/none"); got != nil || !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("a group that is not there: %+v, %v", got, err)
			}
		})
	}
}

// TestFresh: a second is one moment, and the next is another.
func TestFresh(t *testing.T) {
	r, root, now := newReader(t, "v2")
	read := func() (uint64, float64) {
		t.Helper()
		w, err := r.Workload("/app")
		if err != nil {
			t.Fatal(err)
		}
		return w.Pids, r.Host().Load1
	}
	read()
	for file, text := range map[string]string{"sys/fs/cgroup/app/pids.current": "8\n", "proc/loadavg": "9.00 1.58 0.59 3/467 12345\n"} {
		if err := os.WriteFile(filepath.Join(root, file), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	*now = now.Add(900 * time.Millisecond)
	if pids, load := read(); pids != 7 || load != 2.51 {
		t.Errorf("after 0.9 s: %d, %v: read anew", pids, load)
	}
	*now = now.Add(200 * time.Millisecond)
	if pids, load := read(); pids != 8 || load != 9 {
		t.Errorf("after 1.1 s: %d, %v: not read anew", pids, load)
	}
	*now = now.Add(-time.Hour) // the wall clock was set
	if err := os.WriteFile(filepath.Join(root, "sys/fs/cgroup/app/pids.current"), []byte("9\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if pids, _ := read(); pids != 9 {
		t.Errorf("with the clock set back: %d: not read anew", pids)
	}
}

// TestGone: a group that has gone has for a minute what it had last.
func TestGone(t *testing.T) {
	r, root, now := newReader(t, "v2")
	if _, err := r.Workload("/app"); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(root, "sys/fs/cgroup/app")); err != nil {
		t.Fatal(err)
	}
	*now = now.Add(30 * time.Second)
	if w, err := r.Workload("/app"); err != nil || w == nil || w.Pids != 7 {
		t.Errorf("soon after its end: %+v, %v", w, err)
	}
	*now = now.Add(31 * time.Second)
	if w, err := r.Workload("/app"); err == nil || w != nil {
		t.Errorf("long after its end: %+v, %v", w, err)
	}
}

// TestBudget: not more groups are read than that, and what is known costs nothing.
func TestBudget(t *testing.T) {
	r, _, now := newReader(t, "v2")
	if _, err := r.Workload("/app"); err != nil {
		t.Fatal(err)
	}
	refused := 0
	for i := range 40 {
		if _, err := r.Workload(fmt.Sprintf("/g%d", i)); errors.Is(err, ErrBudget) {
			refused++
		}
	}
	if refused != 40-(burst-1) {
		t.Errorf("%d of 40 refused, want all but %d", refused, burst-1)
	}
	if _, err := r.Workload("/app"); err != nil {
		t.Errorf("what was just read: %v", err)
	}
	*now = now.Add(100 * time.Millisecond)
	got := 0
	for range 10 {
		if _, err := r.Workload("/none"); !errors.Is(err, ErrBudget) {
			got++
		}
	}
	if got != 2 {
		t.Errorf("%d reads in a tenth of a second, want 2", got)
	}
}

// TestBound: readings of groups that come and go are forgotten.
func TestBound(t *testing.T) {
	r, root, now := newReader(t, "v2")
	for i := range maxGroups + 50 {
		name := fmt.Sprintf("g%d", i)
		dir := filepath.Join(root, "sys/fs/cgroup", name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "pids.current"), []byte("1\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		*now = now.Add(50 * time.Millisecond)
		if _, err := r.Workload("/" + name); err != nil {
			t.Fatal(err)
		}
		if len(r.groups) > maxGroups {
			t.Fatalf("%d groups are remembered", len(r.groups))
		}
	}
}

// TestOdd: a file that says something else than expected makes a member absent,
// never a wrong number.
func TestOdd(t *testing.T) {
	r, root, _ := newReader(t, "v2")
	for file, text := range map[string]string{
		"app/cpu.max": "lots 100000\n", "app/memory.current": "-1\n", "app/pids.max": "", "app/cpu.stat": "usage_usec\nnr_throttled x\n",
		"app/memory.pressure": "none\n", "app/memory.max": "99999999999999999999999\n",
	} {
		if err := os.WriteFile(filepath.Join(root, "sys/fs/cgroup", file), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	w, err := r.Workload("/app")
	want := &signal.WorkloadResources{Swap: 4096, Pids: 7, OOMKills: 1, Pressure: &signal.Pressure{CPUSome: 0.1234, IOSome: 0.04, IOFull: 0.03}}
	if d := cmp.Diff(want, w); d != "" || err != nil {
		t.Errorf("%v\n%s", err, d)
	}
	for _, file := range []string{"proc/loadavg", "proc/meminfo"} {
		if err := os.Remove(filepath.Join(root, file)); err != nil {
			t.Fatal(err)
		}
	}
	if h := r.Host(); h != nil {
		t.Errorf("no files: %+v", h)
	}
}

// TestKernel reads a real group with limits, and the real host.
func TestKernel(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: run `make ktest` as root")
	}
	layout, err := cgroup.Detect("/")
	if err != nil {
		t.Skipf("needs control groups: %v", err)
	}
	g := probetest.NewCgroup(t, fmt.Sprintf("huatuo-moment-%d", os.Getpid()))
	limit := func(controller, v1, v1Text, v2, v2Text string) bool {
		t.Helper()
		name, text := v2, v2Text
		if layout.IsV1(controller) {
			name, text = v1, v1Text
		}
		return os.WriteFile(layout.FileIn(controller, g.Path, name), []byte(text), 0) == nil
	}
	hasMemory := limit("memory", "memory.limit_in_bytes", "67108864", "memory.max", "67108864")
	hasCPU := limit("cpu", "cpu.cfs_quota_us", "50000", "cpu.max", "50000 100000")
	hasPids := limit("pids", "pids.max", "42", "pids.max", "42")
	if !hasMemory && !hasCPU && !hasPids {
		t.Skip("needs a controller that can be limited: memory, cpu or pids")
	}
	w, err := New("/", layout, time.Now).Workload(g.Path)
	if err != nil {
		t.Fatal(err)
	}
	if hasMemory && w.MemoryLimit != 64<<20 || hasCPU && w.CPULimit != 0.5 || hasPids && w.PidsLimit != 42 {
		t.Errorf("limits %+v", w)
	}
	h := New("/", layout, time.Now).Host()
	if h == nil || h.MemoryTotal < 16<<20 || h.MemoryAvailable == 0 || h.MemoryAvailable > h.MemoryTotal || h.Runnable < 1 {
		t.Errorf("host %+v", h)
	}
	if b, err := os.ReadFile("/proc/pressure/memory"); err == nil && strings.HasPrefix(string(b), "some") != (h.Pressure != nil) {
		t.Errorf("pressure %+v", h.Pressure)
	}
}

// BenchmarkHost reads the real host.
func BenchmarkHost(b *testing.B) {
	r := New("/", nil, time.Now)
	for b.Loop() {
		r.hostAt = time.Time{}
		r.Host()
	}
}

// BenchmarkWorkload reads a real group, that of this process.
func BenchmarkWorkload(b *testing.B) {
	layout, err := cgroup.Detect("/")
	if err != nil {
		b.Skipf("needs control groups: %v", err)
	}
	g := probetest.NewCgroup(b, fmt.Sprintf("huatuo-moment-%d", os.Getpid()))
	r := New("/", layout, time.Now)
	for b.Loop() {
		clear(r.groups)
		r.tokens = burst
		if _, err := r.Workload(g.Path); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkWarm is what an event costs whose group and host were just read.
func BenchmarkWarm(b *testing.B) {
	layout, err := cgroup.Detect("/")
	if err != nil {
		b.Skipf("needs control groups: %v", err)
	}
	g := probetest.NewCgroup(b, fmt.Sprintf("huatuo-moment-%d", os.Getpid()))
	now := time.Now()
	r := New("/", layout, func() time.Time { return now })
	for b.Loop() {
		r.Host()
		if _, err := r.Workload(g.Path); err != nil {
			b.Fatal(err)
		}
	}
}
