package console

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"

	"huatuo/internal/probe"
	"huatuo/internal/signal"
)

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

type fakeAgent struct {
	notReady error
	panics   bool
}

func (a *fakeAgent) Node() Node {
	if a.panics {
		panic("sensitive detail")
	}
	return Node{Hostname: "node1", Kernel: "6.18.0", Version: "1.0", Commit: "abc", CgroupMode: "hybrid", StoreInterval: 5}
}

func (a *fakeAgent) Catalog() []CatalogEntry {
	return []CatalogEntry{
		{signal.Schema{Name: "huatuo_cpu_seconds_total", Kind: signal.Metric, Type: signal.Counter, Unit: "seconds", Area: signal.AreaCPU, Help: "CPU time.", Fields: []signal.Field{{Name: "mode", Help: "Mode."}}}, "cpu"},
		{signal.Schema{Name: "huatuo_load", Kind: signal.Metric, Type: signal.Gauge, Unit: "1", Area: signal.AreaCPU, Help: "Load."}, "load"},
		{signal.Schema{Name: "huatuo_memory_bytes", Kind: signal.Metric, Type: signal.Gauge, Unit: "bytes", Area: signal.AreaMemory, Help: "Memory.", Fields: []signal.Field{{Name: "mode", Help: "Mode."}}}, "meminfo"},
		{signal.Schema{Name: "oom_kill", Kind: signal.Event, Area: signal.AreaMemory, Help: "A process was killed.", Severity: signal.Critical}, "oomkill"},
	}
}

func (a *fakeAgent) Probes() []probe.Status {
	return []probe.Status{
		{Name: "oomkill", State: probe.Running, Since: epoch, Signals: []string{"oom_kill"}},
		{Name: "cpu", State: probe.Unsupported, Reason: "no /proc", Since: epoch},
	}
}

func (a *fakeAgent) Probe(name string) (Manual, bool) {
	if name != "oomkill" {
		return Manual{}, false
	}
	return Manual{Status: a.Probes()[0], Readme: "# oomkill", Schemas: []*signal.Schema{{Name: "oom_kill", Kind: signal.Event}}, Config: map[string]any{"depth": 3}}, true
}

func (a *fakeAgent) Accounts() []signal.Account {
	return []signal.Account{{Probe: "oomkill", Observed: 3, Routed: 3, Sinks: []signal.SinkAccount{{Sink: "store", Delivered: 3}}}}
}
func (a *fakeAgent) StoreStatus() signal.StoreStatus {
	return signal.StoreStatus{Dir: "/data", Events: 3}
}
func (a *fakeAgent) Sinks() []Sink                    { return nil }
func (a *fakeAgent) Cost() Cost                       { return Cost{CPURatio: 0.001, RSSBytes: 1 << 20, Shed: []Shed{}} }
func (a *fakeAgent) EffectiveConfig() (string, error) { return "listen: localhost:19704\n", nil }
func (a *fakeAgent) Ready() error                     { return a.notReady }

// typedError is an error as package query makes them.
type typedError struct{ kind, text string }

func (e typedError) Error() string     { return e.text }
func (e typedError) ErrorType() string { return e.kind }

// fakeEvents keeps events in memory.
type fakeEvents struct {
	mu        sync.Mutex
	docs      []*signal.Document // oldest first
	last      signal.EventFilter
	grouping  signal.EventGrouping
	pages     int
	fail      error
	failAfter int // pages that are read before the store fails; 0: it does not
	hang      bool
	slow      time.Duration
}

func (e *fakeEvents) enter(ctx context.Context, f signal.EventFilter) error {
	e.mu.Lock()
	e.last = f
	e.mu.Unlock()
	time.Sleep(e.slow)
	if e.hang {
		<-ctx.Done()
		return fmt.Errorf("scan: %w", ctx.Err())
	}
	return e.fail
}

// keep adds documents while the server runs.
func (e *fakeEvents) keep(docs ...*signal.Document) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.docs = append(e.docs, docs...)
}

func (e *fakeEvents) kept() []*signal.Document {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.docs
}

func (e *fakeEvents) Events(ctx context.Context, f signal.EventFilter) (signal.EventPage, error) {
	if err := e.enter(ctx, f); err != nil {
		return signal.EventPage{}, err
	}
	e.mu.Lock()
	pages := e.pages
	e.pages++
	e.mu.Unlock()
	if e.failAfter > 0 && pages >= e.failAfter {
		return signal.EventPage{}, errors.New("disk on fire")
	}
	var page signal.EventPage
	list := slices.Clone(e.kept())
	if !f.Oldest {
		slices.Reverse(list)
	}
	for _, d := range list {
		if (f.Before != "" && d.ID >= f.Before) || d.ID <= f.After || d.Time.Before(f.From) || !matches(&f, d) {
			continue
		}
		if len(page.Events) == f.Limit {
			page.Next = page.Events[f.Limit-1].ID
			break
		}
		page.Events = append(page.Events, d)
	}
	return page, nil
}

func (e *fakeEvents) Event(ctx context.Context, id string) (*signal.Document, error) {
	if err := e.enter(ctx, signal.EventFilter{}); err != nil {
		return nil, err
	}
	for _, d := range e.kept() {
		if d.ID == id {
			return d, nil
		}
	}
	return nil, typedError{"not_found", "no such event"}
}

func (e *fakeEvents) Timeline(ctx context.Context, f signal.EventFilter, _ int) ([]signal.EventBucket, error) {
	if err := e.enter(ctx, f); err != nil {
		return nil, err
	}
	n := 0
	for _, d := range e.kept() {
		if d.ID > f.After && (f.Before == "" || d.ID < f.Before) {
			n++
		}
	}
	return []signal.EventBucket{{Time: f.From, Count: map[string]int{"oom_kill": n}}}, nil
}

func (e *fakeEvents) CountEvents(ctx context.Context, f signal.EventFilter, g signal.EventGrouping) ([]signal.EventCount, error) {
	if err := e.enter(ctx, f); err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.grouping = g
	return []signal.EventCount{{Kind: "oom_kill", Container: "app", Count: len(e.docs)}}, nil
}

func (e *fakeEvents) EventValues(ctx context.Context, f signal.EventFilter, path, part string, limit int) ([]signal.ValueCount, error) {
	if err := e.enter(ctx, f); err != nil {
		return nil, err
	}
	return []signal.ValueCount{{Value: path + " " + part, Count: limit}}, nil
}

func (e *fakeEvents) filter() signal.EventFilter {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.last
}

// doc returns the i-th event: one each millisecond.
func doc(i int) *signal.Document {
	at := epoch.Add(time.Duration(i) * time.Millisecond)
	id := ulid.MustNew(ulid.Timestamp(at), strings.NewReader(strings.Repeat("\x00", 10)))
	return &signal.Document{
		ID: id.String(), Time: at, Kind: "oom_kill", Severity: signal.Critical, Title: fmt.Sprintf("event %d", i), Fields: json.RawMessage(`{"n":1}`),
		Process: &signal.Process{PID: uint32(i + 1), Comm: "hog"}, Container: &signal.Container{ID: "abcdef012345", Name: "app", Namespace: "shop", Pod: "web"},
	}
}

func docs(from, to int) []*signal.Document {
	var out []*signal.Document
	for i := from; i < to; i++ {
		out = append(out, doc(i))
	}
	return out
}

// fakeMetrics answers by expression.
type fakeMetrics struct {
	mu       sync.Mutex
	last     string
	culprits promql.Vector
	matrix   promql.Matrix // answer to range queries, when there is one
	names    []string      // of metrics that have samples
	fail     error
}

func (m *fakeMetrics) note(format string, args ...any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.last = fmt.Sprintf(format, args...)
}

func (m *fakeMetrics) answer(ctx context.Context, expr string) (Result, error) {
	if strings.Contains(expr, culpritMetric) {
		return Result{Value: m.culprits}, m.fail
	}
	switch expr {
	case "broken(":
		return Result{}, typedError{"bad_data", "1:8: parse error: unclosed left parenthesis"}
	case "huge":
		return Result{}, typedError{"execution", "query processing would load too many samples into memory"}
	case "bug":
		return Result{}, errors.New("disk on fire")
	case "slow":
		<-ctx.Done()
		return Result{}, ctx.Err()
	}
	return Result{
		Value:    promql.Vector{{T: 1500, F: 1, Metric: labels.FromStrings("a", "1")}, {T: 1500, F: 2, Metric: labels.FromStrings("a", "2")}},
		Warnings: []string{"careful"}, Infos: []string{"by the way"},
	}, nil
}

func (m *fakeMetrics) Instant(ctx context.Context, expr string, at time.Time) (Result, error) {
	m.note("%s @%s", expr, at.UTC().Format(time.RFC3339Nano))
	return m.answer(ctx, expr)
}

func (m *fakeMetrics) Range(ctx context.Context, expr string, from, to time.Time, step time.Duration) (Result, error) {
	if m.matrix != nil {
		return Result{Value: m.matrix}, m.fail
	}
	m.note("%s [%s,%s]/%s", expr, from.UTC().Format(time.RFC3339Nano), to.UTC().Format(time.RFC3339Nano), step)
	return m.answer(ctx, expr)
}

func (m *fakeMetrics) Series(_ context.Context, q Selection) ([]labels.Labels, bool, error) {
	m.note("%v", q.Match)
	return []labels.Labels{labels.FromStrings("__name__", "up", "a", "<1>")}, q.Limit == 1, nil
}

func (m *fakeMetrics) LabelNames(_ context.Context, q Selection) ([]string, bool, error) {
	m.note("%v", q.Match)
	return []string{"__name__", "a"}, false, nil
}

func (m *fakeMetrics) LabelValues(_ context.Context, label string, q Selection) ([]string, bool, error) {
	m.note("%s %v", label, q.Match)
	if label == "bad label" {
		return nil, false, typedError{"bad_data", "invalid label name"}
	}
	if label == "__name__" {
		return m.names, false, nil
	}
	return nil, false, nil
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// world is a server with fakes behind it.
type world struct {
	*Server
	agent   *fakeAgent
	events  *fakeEvents
	metrics *fakeMetrics
	hub     *Hub
}

func newWorld(t testing.TB, change ...func(*Options)) *world {
	t.Helper()
	w := &world{agent: &fakeAgent{}, events: &fakeEvents{docs: docs(0, 3)}, metrics: &fakeMetrics{}, hub: NewHub()}
	opt := Options{
		Agent: w.agent, Events: w.events, Metrics: w.metrics, Hub: w.hub, Log: quiet(),
		Scrape: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("# EOF\n")) }),
	}
	for _, c := range change {
		c(&opt)
	}
	var err error
	if w.Server, err = New(opt); err != nil {
		t.Fatal(err)
	}
	return w
}

// request makes a request as a client on the same machine sends it.
func request(method, target string, header ...string) *http.Request {
	r := httptest.NewRequest(method, "http://localhost:19704"+target, nil)
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Host" {
			r.Host = header[i+1]
			continue
		}
		r.Header.Set(header[i], header[i+1])
	}
	return r
}

func (w *world) do(r *http.Request) *httptest.ResponseRecorder {
	rec := httptest.NewRecorder()
	w.ServeHTTP(rec, r)
	return rec
}

func (w *world) get(target string, header ...string) *httptest.ResponseRecorder {
	return w.do(request(http.MethodGet, target, header...))
}

// wantProblem checks the form of an error.
func wantProblem(t *testing.T, rec *httptest.ResponseRecorder, status int, detail string) {
	t.Helper()
	var p struct {
		Title, Detail string
		Status        int
	}
	if err := json.Unmarshal(rec.Body.Bytes(), &p); err != nil {
		t.Fatalf("%d %s: no problem: %v", rec.Code, rec.Body, err)
	}
	if ct := rec.Header().Get("Content-Type"); ct != "application/problem+json" {
		t.Errorf("Content-Type %q", ct)
	}
	if rec.Code != status || p.Status != status {
		t.Errorf("status %d, in the body %d, want %d (%s)", rec.Code, p.Status, status, p.Detail)
	}
	if p.Title == "" || !strings.Contains(p.Detail, detail) {
		t.Errorf("title %q, detail %q; want %q in it", p.Title, p.Detail, detail)
	}
}

func (m *fakeMetrics) asked() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.last
}
