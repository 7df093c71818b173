package kernlog

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"huatuo/internal/kern/kmsg"
	"huatuo/internal/kern/load"
	"huatuo/internal/probe"
	"huatuo/internal/probes/probetest"
	"huatuo/internal/signal"
)

// fakeLog is a log that ends the context once it was read to its end.
type fakeLog struct {
	records []kmsg.Record
	waits   []time.Duration
	end     func()
}

func (l *fakeLog) Next() (kmsg.Record, bool, error) {
	if len(l.records) == 0 {
		return kmsg.Record{}, false, nil
	}
	r := l.records[0]
	l.records = l.records[1:]
	return r, true, nil
}

func (l *fakeLog) Wait(_ context.Context, d time.Duration) error {
	if l.waits = append(l.waits, d); d < 0 {
		l.end()
		return nil
	}
	time.Sleep(d)
	return nil
}

func (l *fakeLog) Lost() uint64 { return 3 }

const warn = cutHere + "\nbad %s\nWARNING: CPU: 0 PID: 4711 at a.c:1 f+0x1/0x2\nCall Trace:\n f+0x1/0x2\n---[ end trace 0000000000000000 ]---\n"

// fakeRoot has a thread 4711 of process 4700, and a kernel tainted by warn and soft_lockup.
func fakeRoot(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	for path, text := range map[string]string{"proc/4711/status": "Name:\tx\nTgid:\t4700\nPid:\t4711\n", "proc/sys/kernel/tainted": "16896\n"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, path)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, path), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// TestWatch: what is emitted, counted, limited and ignored.
func TestWatch(t *testing.T) {
	var got []*signal.Record
	now := time.Unix(1000, 0)
	env := &probe.Env{Root: fakeRoot(t), Now: func() time.Time { return now }, Clock: func(ns uint64) time.Time { return time.Unix(500, int64(ns)) },
		Emit: func(r *signal.Record) { got = append(got, r) }}
	w, err := newWatch(env, Config{Rate: 6, Burst: 2, Ignore: []string{"bad idea$"}})
	if err != nil {
		t.Fatal(err)
	}
	read := func(text string) *fakeLog {
		ctx, cancel := context.WithCancel(t.Context())
		l := &fakeLog{records: lines(text), end: cancel}
		if err := w.follow(ctx, l); err != nil {
			t.Fatal(err)
		}
		return l
	}
	read(strings.ReplaceAll(warn, "%s", "idea") + strings.Repeat(strings.ReplaceAll(warn, "%s", "luck"), 5))
	if len(got) != 2 || got[0].Title != "kernel warning at a.c:1 in f: bad luck" || got[0].Process.PID != 4700 || got[0].Process.TID != 4711 {
		t.Fatalf("%d events, the first %+v", len(got), got[0])
	}
	if got[0].Time.Unix() != 500 {
		t.Errorf("time %v", got[0].Time)
	}
	now = now.Add(20 * time.Second)
	read(warn)
	if len(got) != 3 || got[2].Suppressed != 3 {
		t.Errorf("%d events, %d suppressed before the last", len(got), got[len(got)-1].Suppressed)
	}
	// Another kind has a bucket of its own; it is over by a quiet time.
	l := read("watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [a:1]\nCall Trace:\n f+0x1/0x2")
	if len(got) != 4 || got[3].Schema != softLockup || len(l.waits) < 2 || l.waits[0] > quiet || l.waits[0] < quiet/10 {
		t.Errorf("%d events, waited %v", len(got), l.waits)
	}
	if l := w.loss(); l.Observed != 8 || l.Dropped["rate_limited"] != 3 || l.Dropped["ignored"] != 1 {
		t.Errorf("loss %+v", l)
	}
	b := new(signal.Batch)
	if err := errors.Join(w.collect(b), w.collectTaint(b)); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, label string
		want        float64
	}{
		{reports.Name, "kernel_warning", 7}, {reports.Name, "soft_lockup", 1}, {reports.Name, "kernel_bug", 0}, {tainted.Name, "warn", 1}, {tainted.Name, "soft_lockup", 1}, {tainted.Name, "die", 0},
	} {
		if v, ok := probetest.Value(b.Samples, tt.name, tt.label); !ok || v != tt.want {
			t.Errorf("%s{%s} is %v, %v", tt.name, tt.label, v, ok)
		}
	}
	if v, ok := probetest.Value(b.Samples, lostRecords.Name); !ok || v != 3 {
		t.Errorf("lost %v", v)
	}
}

func TestConfig(t *testing.T) {
	for want, cfg := range map[string]Config{
		"burst of at least 1":    {Rate: 1},
		"rate of at least 0":     {Rate: -1, Burst: 1},
		"probes.kernlog.ignore:": {Burst: 1, Ignore: []string{"("}},
	} {
		if _, err := newWatch(&probe.Env{}, cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

// TestNoLog: taints are told without a log, and what is missing is.
func TestNoLog(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var collectors int
	env := &probe.Env{Root: t.TempDir(), Collect: func(f func(*signal.Batch) error) {
		collectors++
		if b := new(signal.Batch); f(b) != nil || len(b.Samples) != 0 {
			t.Error("there is no /proc, and samples")
		}
	}, Ready: func(hooks ...load.HookState) {
		if len(hooks) != 1 || hooks[0].By != "" || hooks[0].Reason == "" {
			t.Errorf("hooks %+v", hooks)
		}
		cancel()
	}}
	if err := runOn(ctx, env, Spec().Config.(Config), t.TempDir()+"/kmsg"); err != nil || ctx.Err() == nil || collectors != 1 {
		t.Errorf("%v, %d collectors", err, collectors)
	}
}

func TestTaint(t *testing.T) {
	if got := strings.Join(decodeTaint("G      D W  OEL"), " "); got != "die warn out_of_tree_module unsigned_module soft_lockup" {
		t.Errorf("taint %q", got)
	}
	if v, err := readTaint(filepath.Join(t.TempDir(), "x")); err == nil {
		t.Errorf("no file: %d", v)
	}
	path := filepath.Join(t.TempDir(), "tainted")
	if err := os.WriteFile(path, []byte("x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if v, err := readTaint(path); err == nil {
		t.Errorf("no number: %d", v)
	}
}
