package stress

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"huatuo/internal/app"
	"huatuo/internal/config"
	"huatuo/internal/probe"
	"huatuo/internal/probes"
)

// kernelObjects lists the BPF programs, maps and links that there are.
func kernelObjects(t testing.TB) map[string]bool {
	t.Helper()
	all := map[string]bool{}
	for id := ebpf.ProgramID(0); ; {
		next, err := ebpf.ProgramGetNextID(id)
		if err != nil {
			break
		}
		id = next
		all[fmt.Sprintf("prog_id %d", id)] = true
	}
	for id := ebpf.MapID(0); ; {
		next, err := ebpf.MapGetNextID(id)
		if err != nil {
			break
		}
		id = next
		all[fmt.Sprintf("map_id %d", id)] = true
	}
	it := new(link.Iterator)
	defer it.Close()
	for it.Next() {
		all[fmt.Sprintf("link_id %d", it.ID)] = true
	}
	return all
}

// held lists the BPF objects that processes other than this one hold open.
func held(t testing.TB) map[string]bool {
	t.Helper()
	infos, err := filepath.Glob("/proc/[0-9]*/fdinfo/*")
	if err != nil {
		t.Fatal(err)
	}
	self := fmt.Sprintf("/proc/%d/", os.Getpid())
	all := map[string]bool{}
	for _, path := range infos {
		if strings.HasPrefix(path, self) {
			continue
		}
		b, err := os.ReadFile(path)
		if err != nil {
			continue // it was closed meanwhile
		}
		for line := range strings.Lines(string(b)) {
			what, id, _ := strings.Cut(line, ":")
			if what == "prog_id" || what == "map_id" || what == "link_id" {
				all[what+" "+strings.TrimSpace(id)] = true
			}
		}
	}
	return all
}

// strays are the objects that were not there before and that no other process
// holds: this process has them, or nobody.
func strays(t testing.TB, before map[string]bool) (list []string) {
	t.Helper()
	now := kernelObjects(t)
	others := held(t)
	again := kernelObjects(t) // those of a process that ended meanwhile are gone
	for o := range now {
		if !before[o] && !others[o] && again[o] {
			list = append(list, o)
		}
	}
	slices.Sort(list)
	return list
}

// holdings is what this process has open.
type holdings struct{ fds, bpf, routines int }

func ours(t testing.TB) (h holdings) {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		to, _ := os.Readlink("/proc/self/fd/" + fd.Name())
		h.fds++
		if strings.Contains(to, "bpf") || strings.Contains(to, "perf_event") {
			h.bpf++
		}
	}
	h.routines = runtime.NumGoroutine()
	return h
}

// TestRestarts starts and stops every probe again and again, a BPF probe a
// thousand times. What that opens it must close: descriptors, goroutines, and
// programs, maps and links in the kernel.
func TestRestarts(t *testing.T) {
	needRoot(t)
	before, base := kernelObjects(t), ours(t)
	cfg := config.Default(probes.All())
	e, err := app.NewEngine(cfg, probes.All(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); e.Run(ctx, func(string) bool { return true }) }()
	settle(t, e)
	warmUp(t, e, cfg)

	running := ours(t)
	began := time.Now()
	many, some := pick(30, 1000), pick(2, 50)
	restart(t, e, cfg, "runqueue", many)
	each := time.Since(began) / time.Duration(many)
	for _, s := range probes.All() {
		restart(t, e, cfg, s.Name, some)
	}
	settle(t, e)
	time.Sleep(300 * time.Millisecond)
	now := ours(t)
	if now.bpf != running.bpf || now.routines > running.routines+3 || now.fds > running.fds+3 {
		t.Errorf("running: %+v after the restarts, %+v before", now, running)
		pprof.Lookup("goroutine").WriteTo(os.Stderr, 1)
	}
	for _, st := range e.Statuses() {
		if !fine(st) && st.State != probe.Degraded {
			t.Errorf("%s is %s: %s", st.Name, st.State, st.Reason)
		}
	}
	cancel()
	<-ended
	eventually(t, 5*time.Second, "all is closed", func() error {
		if now := ours(t); now.bpf != base.bpf || now.routines > base.routines+2 || now.fds > base.fds+2 {
			return fmt.Errorf("%+v is left, %+v was before", now, base)
		}
		if s := strays(t, before); len(s) > 0 {
			return fmt.Errorf("left in the kernel: %v", s)
		}
		return nil
	})
	t.Logf("runqueue stopped and started %d times, %v each; all others %d times; running %+v, then %+v; at the end %+v", many, each.Round(time.Millisecond), some, running, now, ours(t))
}

// warmUp restarts each probe once: some things are made only then, and stay.
func warmUp(t *testing.T, e *app.Engine, cfg *config.Config) {
	t.Helper()
	for _, s := range probes.All() {
		restart(t, e, cfg, s.Name, 1)
	}
	settle(t, e)
	time.Sleep(500 * time.Millisecond)
}

func restart(t *testing.T, e *app.Engine, cfg *config.Config, name string, times int) {
	t.Helper()
	c, _ := cfg.Probe(name)
	for range times {
		e.Restart(name, c, true)
		if times > 1 {
			settle(t, e)
		}
	}
}

func settle(t *testing.T, e *app.Engine) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	e.Settle(ctx)
	if ctx.Err() != nil {
		t.Fatalf("probes do not settle: %+v", e.Statuses())
	}
}
