package enrich

import (
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"huatuo/internal/kern/cgroup"
	"huatuo/internal/kern/clock"
	"huatuo/internal/probes/probetest"
	"huatuo/internal/signal"
)

// TestMoment: which events tell what there was, and what is said when it is not
// known.
func TestMoment(t *testing.T) {
	h := newHost(t)
	h.write("proc/loadavg", "2.51 1.58 0.59 3/467 12345\n")
	id := h.group("/app")
	h.write("sys/fs/cgroup/app/pids.current", "7\n")
	warning := &signal.Schema{Name: "w", Kind: signal.Event, Severity: signal.Warning}
	info := &signal.Schema{Name: "i", Kind: signal.Event, Severity: signal.Info}
	e := h.enricher(Options{})
	for _, tt := range []struct {
		name           string
		rec            signal.Record
		host, workload bool
	}{
		{"of a group", signal.Record{Schema: warning, CgroupID: id}, true, true},
		{"of a process that is gone", signal.Record{Schema: warning, Process: signal.Process{PID: 1 << 30}}, true, false},
		{"of the root group", signal.Record{Schema: warning, Container: signal.Container{Cgroup: "/", Unit: "/"}}, true, false},
		{"of nobody", signal.Record{Schema: warning}, false, false},
		{"a marker", signal.Record{Schema: info, CgroupID: id}, false, false},
		{"a marker that became serious", signal.Record{Schema: info, Severity: signal.Warning, CgroupID: id}, true, true},
		{"one that became a marker", signal.Record{Schema: warning, Severity: signal.Info, CgroupID: id}, false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := tt.rec
			e.Record(&r)
			e.Moment(&r)
			got := r.Resources
			if (got != nil) != (tt.host || tt.workload) {
				t.Fatalf("resources %+v", got)
			}
			if got != nil && ((got.Host != nil) != tt.host || (got.Workload != nil) != tt.workload) {
				t.Errorf("host %+v, workload %+v", got.Host, got.Workload)
			}
			if slices.Contains(r.Unresolved, lackResources) {
				t.Errorf("unresolved %q", r.Unresolved)
			}
		})
	}
	if n := e.Unresolved()[lackResources]; n != 0 {
		t.Errorf("%d resources unresolved", n)
	}
	gone := signal.Record{Schema: warning, Container: signal.Container{Cgroup: "/gone"}}
	e.Moment(&gone)
	if !slices.Equal(gone.Unresolved, []string{lackResources}) || gone.Resources == nil || gone.Resources.Workload != nil {
		t.Errorf("a group that is not there: %q, %+v", gone.Unresolved, gone.Resources)
	}
	for range 100 { // more groups than are read in a second
		e.Moment(&signal.Record{Schema: warning, Container: signal.Container{Cgroup: "/gone"}})
	}
	if n := e.Unresolved()[lackResources]; n != 101 {
		t.Errorf("%d counted, want 101", n)
	}
}

// BenchmarkMoment is what an event costs of a group that was just read, and of one
// that was not: the real host, and this machine's first group.
func BenchmarkMoment(b *testing.B) {
	layout, err := cgroup.Detect("/")
	if err != nil {
		b.Skipf("needs control groups: %v", err)
	}
	g := probetest.NewCgroup(b, fmt.Sprintf("huatuo-enrich-%d", os.Getpid()))
	clk, err := clock.New()
	if err != nil {
		b.Fatal(err)
	}
	warning := &signal.Schema{Name: "w", Kind: signal.Event, Severity: signal.Warning}
	for name, step := range map[string]time.Duration{"warm": 0, "cold": 2 * time.Second} {
		b.Run(name, func(b *testing.B) {
			now := time.Now()
			e := New(Options{Layout: layout, Clock: clk, Now: func() time.Time { return now }})
			for b.Loop() {
				now = now.Add(step)
				r := signal.Record{Schema: warning, Container: signal.Container{Cgroup: g.Path}}
				if e.Moment(&r); r.Resources == nil || r.Resources.Workload == nil {
					b.Fatal("no resources")
				}
			}
		})
	}
}
