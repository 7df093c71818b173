// Package probetest runs one probe in a test: it plays the agent's part, keeps
// what the probe emits and holds it to the probe's own schemas.
package probetest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"huatuo/internal/kern/cgroup"
	"huatuo/internal/kern/load"
	"huatuo/internal/probe"
	"huatuo/internal/signal"
)

// patience is how long Start and WaitRecord wait: loading BPF takes up to
// 1 s on an idle machine, and test machines are not idle.
const patience = 20 * time.Second

// Env is a fake world for one probe. Fill what the probe needs of the embedded
// probe.Env (Root, Kernel) between New and Start.
type Env struct {
	*probe.Env
	t testing.TB

	mu         sync.Mutex
	records    []*signal.Record
	collectors []func(*signal.Batch) error
	hooks      []load.HookState
	loss       func() probe.Loss
	isReady    bool

	spec   probe.Spec
	ready  chan struct{}
	done   chan error
	cancel context.CancelFunc
}

// New returns an Env whose log goes to the test's output and whose root is "/".
func New(t testing.TB) *Env {
	e := &Env{t: t, ready: make(chan struct{}), done: make(chan error, 1)}
	e.Env = &probe.Env{
		Log:  newLog(t),
		Root: "/",
		Now:  time.Now,
		Emit: func(r *signal.Record) {
			e.mu.Lock()
			defer e.mu.Unlock()
			e.records = append(e.records, r)
		},
		Collect: func(f func(*signal.Batch) error) {
			e.mu.Lock()
			defer e.mu.Unlock()
			e.collectors = append(e.collectors, f)
		},
		Ready: func(hooks ...load.HookState) {
			e.mu.Lock()
			defer e.mu.Unlock()
			e.hooks = slices.Clone(hooks)
			if !e.isReady {
				e.isReady = true
				close(e.ready)
			}
		},
		Lost: func(f func() probe.Loss) {
			e.mu.Lock()
			defer e.mu.Unlock()
			e.loss = f
		},
	}
	return e
}

// Start runs the probe with cfg (nil: its defaults) until Stop or the test's
// end, and returns once it is ready. A probe that ends before fails the test.
func (e *Env) Start(s probe.Spec, cfg any) {
	e.t.Helper()
	if err := e.TryStart(s, cfg); err != nil {
		e.t.Fatalf("probe %s ended before it was ready: %v", s.Name, err)
	}
}

// TryStart is Start for a probe that may refuse to run: it returns the error
// with which the probe ended, and nil once it is ready.
func (e *Env) TryStart(s probe.Spec, cfg any) error {
	e.t.Helper()
	if cfg == nil {
		cfg = s.Config
	}
	ctx, cancel := context.WithCancel(context.Background())
	e.spec, e.cancel = s, cancel
	e.followCgroups()
	go func() { e.done <- s.Run(ctx, e.Env, cfg) }()
	e.t.Cleanup(func() {
		if err := e.Stop(); err != nil {
			e.t.Errorf("probe %s: %v", s.Name, err)
		}
	})
	select {
	case <-e.ready:
		return nil
	case err := <-e.done:
		e.cancel = nil
		cancel()
		if err == nil {
			e.t.Fatalf("probe %s returned nil with its context open and without being ready", s.Name)
		}
		return err
	case <-time.After(patience):
		e.t.Fatalf("probe %s is not ready after %s", s.Name, patience)
		return nil
	}
}

// Stop ends the probe and returns what its run returned. A second call does nothing.
func (e *Env) Stop() error {
	if e.cancel == nil {
		return nil
	}
	e.tellSkipped()
	e.cancel()
	e.cancel = nil
	select {
	case err := <-e.done:
		return err
	case <-time.After(patience):
		return fmt.Errorf("it still runs %s after its context ended", patience)
	}
}

// tellSkipped writes into the log which programs the kernel has not called
// because they were running on that CPU already: what a test misses then is not
// the probe's fault.
func (e *Env) tellSkipped() {
	for _, h := range e.Hooks() {
		p, err := ebpf.NewProgramFromID(ebpf.ProgramID(h.ID))
		if err != nil {
			continue
		}
		if s, err := p.Stats(); err == nil && s.RecursionMisses > 0 {
			e.t.Logf("the kernel left out %d calls of %s (%s)", s.RecursionMisses, h.Hook, h.By)
		}
		p.Close()
	}
}

// Gather does one gathering round. An error of a collector, and a sample that
// breaks the probe's schemas, fails the test.
func (e *Env) Gather() []signal.Sample {
	e.t.Helper()
	samples, err := e.TryGather()
	if err != nil {
		e.t.Fatalf("gather %s: %v", e.spec.Name, err)
	}
	return samples
}

// TryGather is Gather that returns the first collector's error.
func (e *Env) TryGather() ([]signal.Sample, error) {
	e.t.Helper()
	e.mu.Lock()
	fs := slices.Clone(e.collectors)
	e.mu.Unlock()
	b := &signal.Batch{Time: time.Now()}
	for _, f := range fs {
		if err := f(b); err != nil {
			return nil, err
		}
	}
	e.check(b.Samples)
	return b.Samples, nil
}

// Records returns the events so far.
func (e *Env) Records() []*signal.Record {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.records)
}

// WaitRecord waits for the first event that match accepts; none in time fails the
// test. It may become the example of its kind (ExamplesURL).
func (e *Env) WaitRecord(match func(*signal.Record) bool) *signal.Record {
	e.t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		rs := e.Records()
		if i := slices.IndexFunc(rs, match); i >= 0 {
			keep(e.t, rs[i])
			return rs[i]
		}
	}
	e.t.Fatalf("probe %s: none of %d events is the expected one after %s", e.spec.Name, len(e.Records()), patience)
	return nil
}

// Hooks returns what the probe told with Ready.
func (e *Env) Hooks() []load.HookState {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.hooks)
}

// Loss returns what the probe counts; a probe without events has none.
func (e *Env) Loss() probe.Loss {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.loss == nil {
		return probe.Loss{}
	}
	return e.loss()
}

// Value returns the value of the one sample of a Host metric with these labels.
func Value(samples []signal.Sample, name string, labels ...string) (float64, bool) {
	for _, s := range samples {
		if s.Schema.Name == name && slices.Equal(s.Labels, labels) {
			return s.Value, true
		}
	}
	return 0, false
}

// WorkloadValue is Value for a Workload metric.
func WorkloadValue(samples []signal.Sample, name string, cgroup uint64, labels ...string) (float64, bool) {
	for _, s := range samples {
		if s.Schema.Name == name && s.CgroupID == cgroup && slices.Equal(s.Labels, labels) {
			return s.Value, true
		}
	}
	return 0, false
}

// check reports samples that the probe's Meta does not announce.
func (e *Env) check(samples []signal.Sample) {
	e.t.Helper()
	seen := map[string]bool{}
	for _, s := range samples {
		key := format(s, nil)
		key = key[:strings.LastIndexByte(key, ' ')]
		if s.Peer != 0 {
			key += fmt.Sprintf(" with %d", s.Peer)
		}
		if seen[key] {
			e.t.Errorf("%s is given twice in one round", key)
		}
		seen[key] = true
		if !slices.Contains(e.spec.Emits, s.Schema) {
			e.t.Errorf("%s is not in Meta.Emits", s.Schema.Name)
		}
		if s.Peer != 0 && s.Labels == nil { // as the gatherer would give them
			s.Labels = signal.NoPeer(signal.PeerWorkload)
		}
		if s.Schema.Kind != signal.Metric || len(s.Labels) != len(s.Schema.Fields) {
			e.t.Errorf("%s: not a metric, or %d label values for %d labels", s.Schema.Name, len(s.Labels), len(s.Schema.Fields))
			continue
		}
		for i, f := range s.Schema.Fields {
			if f.Values != nil && !slices.Contains(f.Values, s.Labels[i]) {
				e.t.Errorf("%s: %s=%q is not among the values of the schema", s.Schema.Name, f.Name, s.Labels[i])
			}
		}
	}
}

// Golden compares the samples, one sorted line each, with the file at path, or
// rewrites the file when update is set. names gives readable names to cgroup
// ids, which differ from run to run.
func Golden(t testing.TB, path string, samples []signal.Sample, names map[uint64]string, update bool) {
	t.Helper()
	lines := make([]string, len(samples))
	for i, s := range samples {
		lines[i] = format(s, names)
	}
	slices.Sort(lines)
	got := strings.Join(lines, "\n") + "\n"
	if update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v (make it with -update)", err)
	}
	want := strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
	for _, l := range want {
		if !slices.Contains(lines, l) {
			t.Errorf("%s: lacks %s", path, l)
		}
	}
	for _, l := range lines {
		if !slices.Contains(want, l) {
			t.Errorf("%s: has in addition %s", path, l)
		}
	}
}

func format(s signal.Sample, names map[uint64]string) string {
	var b strings.Builder
	b.WriteString(s.Schema.Name)
	sep := byte('{')
	label := func(name, value string) {
		b.WriteByte(sep)
		fmt.Fprintf(&b, "%s=%q", name, value)
		sep = ','
	}
	if s.Schema.Scope == signal.Workload {
		name, ok := names[s.CgroupID]
		if !ok {
			name = strconv.FormatUint(s.CgroupID, 10)
		}
		label("cgroup", name)
	}
	for i, v := range s.Labels {
		name := strconv.Itoa(i)
		if i < len(s.Schema.Fields) {
			name = s.Schema.Fields[i].Name
		}
		label(name, v)
	}
	if sep == ',' {
		b.WriteByte('}')
	}
	if s.Hist != nil {
		fmt.Fprintf(&b, " count=%d,sum=%g", s.Hist.Count, s.Hist.Sum)
		return b.String()
	}
	b.WriteByte(' ')
	b.WriteString(strconv.FormatFloat(s.Value, 'f', -1, 64))
	return b.String()
}

// followCgroups gives the Env the control groups below its root, as the agent
// does, unless the test has; a root without any leaves them nil.
func (e *Env) followCgroups() {
	if e.Layout != nil {
		return
	}
	l, err := cgroup.Detect(e.Root)
	if err != nil {
		return
	}
	x, err := cgroup.NewIndex(l, cgroup.IndexOptions{Log: e.Log})
	if err != nil {
		return
	}
	e.Layout, e.Cgroups = l, x
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := x.Run(ctx); err != nil {
			e.Log.Error("control groups are not followed", "err", err)
		}
	}()
	e.t.Cleanup(func() { cancel(); <-done })
}
