package console

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"huatuo/internal/signal"
)

// TestJSON compares whole answers: they are a contract with the console and
// with whoever else reads them.
func TestJSON(t *testing.T) {
	w := newWorld(t)
	id := doc(1).ID
	event := func(i int) string {
		b, err := json.Marshal(doc(i))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	account := `{"probe":"oomkill","observed":3,"dropped":{},"routed":3,"sinks":[{"sink":"store","delivered":3,"dropped":0,"failed":0,"queued":0}]}`
	oom := `{"name":"oomkill","help":"","source":"","state":"running","since":"2026-01-02T03:04:05Z","signals":["oom_kill"]`
	for path, want := range map[string]string{
		"/api/v1/metrics": `{"metrics":[
			{"name":"huatuo_cpu_seconds_total","kind":"metric","type":"counter","unit":"seconds","area":"cpu","help":"CPU time.","fields":[{"name":"mode","help":"Mode."}],"probe":"cpu"},
			{"name":"huatuo_load","kind":"metric","type":"gauge","unit":"1","area":"cpu","help":"Load.","fields":[],"probe":"load"},
			{"name":"huatuo_memory_bytes","kind":"metric","type":"gauge","unit":"bytes","area":"memory","help":"Memory.","fields":[{"name":"mode","help":"Mode."}],"probe":"meminfo"}]}`,
		"/api/v1/event-kinds":     `{"kinds":[{"name":"oom_kill","kind":"event","area":"memory","help":"A process was killed.","fields":[],"severity":"critical","probe":"oomkill"}]}`,
		"/api/v1/probes":          `{"probes":[` + oom + `,"account":` + account + `},{"name":"cpu","help":"","source":"","state":"unsupported","reason":"no /proc","since":"2026-01-02T03:04:05Z","signals":[],"account":null}]}`,
		"/api/v1/probes/oomkill":  `{"name":"oomkill","help":"","source":"","state":"running","since":"2026-01-02T03:04:05Z","readme":"# oomkill","signals":[{"name":"oom_kill","kind":"event","area":"","help":"","fields":[]}],"config":{"depth":3}}`,
		"/api/v1/system":          `{"accounts":[` + account + `],"store":{"dir":"/data","metric_bytes":0,"metric_series":0,"event_bytes":0,"events":3,"set_aside":0,"retention":{"metric_age":"","metric_bytes":0,"event_age":"","event_bytes":0}},"sinks":[],"cost":{"cpu_ratio":0.001,"rss_bytes":1048576,"bpf_seconds_per_second":null,"goroutines":0,"start_seconds":0,"limit_ratio":null,"used_ratio":null,"shed":[]},"config":"listen: localhost:19704\n"}`,
		"/api/v1/events?limit=2":  `{"events":[` + event(2) + "," + event(1) + `],"next":"` + id + `"}`,
		"/api/v1/events?comm=nix": `{"events":[]}`,
		"/api/v1/events/" + id:    event(1),
		"/api/v1/events/count?by=kind,workload&from=2026-01-02T03:04:05Z&to=2026-01-02T03:05:05Z": `{"from":"2026-01-02T03:04:05Z","to":"2026-01-02T03:05:05Z","groups":[{"kind":"oom_kill","container":"app","count":3}]}`,
		"/api/v1/events/values?name=field.reason&contains=x&limit=7":                              `{"values":[{"value":"field.reason x","count":7}]}`,
		"/api/v1/events/" + id + "/neighbours?window=5":                                           `{"window_seconds":5,"total":3,"neighbours":[{"relation":"workload","event":` + event(0) + `},{"relation":"workload","event":` + event(2) + `}]}`,
		"/api/v1/events/timeline?from=2026-01-02T03:04:05Z&to=2026-01-02T03:05:05Z&buckets=4":     `{"from":"2026-01-02T03:04:05Z","to":"2026-01-02T03:05:05Z","step_seconds":15,"buckets":[{"time":"2026-01-02T03:04:05Z","count":{"oom_kill":3}}]}`,
	} {
		t.Run(path, func(t *testing.T) {
			rec := w.get(path)
			if rec.Code != http.StatusOK || rec.Header().Get("Content-Type") != "application/json" {
				t.Fatalf("%d %s %s", rec.Code, rec.Header().Get("Content-Type"), rec.Body)
			}
			if d := cmp.Diff(decode(t, want), decode(t, rec.Body.String())); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

func decode(t *testing.T, text string) any {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return v
}

func TestNode(t *testing.T) {
	rec := newWorld(t).get("/api/v1/node")
	var n Node
	if err := json.Unmarshal(rec.Body.Bytes(), &n); err != nil {
		t.Fatal(err)
	}
	if n.Hostname != "node1" || time.Since(n.Now).Abs() > time.Minute {
		t.Errorf("%+v", n)
	}
}

func TestEventFilter(t *testing.T) {
	w := newWorld(t)
	before := doc(2).ID
	rec := w.get("/api/v1/events?kind=a,b&kind=c&severity=info,critical&from=1767323045.5&to=2026-01-02T03:05:05.000000001Z" +
		"&q=two+words&namespace=n&pod=p&container=c&unit=u&comm=m&pid=7&field.signal=9&field.x=&where=field.n+%3E%3D+5ms+and+verdict+contains+%22a+b%22&limit=5&before=" + before)
	if rec.Code != http.StatusOK {
		t.Fatal(rec.Body)
	}
	want := signal.EventFilter{
		From: time.Date(2026, 1, 2, 3, 4, 5, 5e8, time.UTC), To: time.Date(2026, 1, 2, 3, 5, 5, 1, time.UTC),
		Kinds: []string{"a", "b", "c"}, Severities: []signal.Severity{signal.Info, signal.Critical}, Text: "two words",
		Namespace: "n", Pod: "p", Container: "c", Unit: "u", Comm: "m", PID: 7,
		Where: []signal.Condition{{Path: "field.signal", Op: signal.Equal, Text: "9"}, {Path: "field.x", Op: signal.Equal},
			{Path: "field.n", Op: signal.GreaterEqual, Text: "5ms"}, {Path: "verdict", Op: signal.Contains, Text: "a b"}},
		Limit: 5, Before: before,
	}
	if d := cmp.Diff(want, w.events.filter()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	w.get("/api/v1/events")
	if d := cmp.Diff(signal.EventFilter{Limit: defaultPage}, w.events.filter()); d != "" {
		t.Errorf("no filter (-want +got):\n%s", d)
	}
	w.get("/api/v1/events/timeline")
	if f := w.events.filter(); f.To.Sub(f.From) != time.Hour || time.Since(f.To).Abs() > time.Minute {
		t.Errorf("timeline without a range looks at %s to %s", f.From, f.To)
	}
}

func TestErrors(t *testing.T) {
	for _, c := range []struct {
		path   string
		status int
		detail string
	}{
		{"/api/v1/nothing", 404, "/openapi.json"},
		{"/api/v1/events/xyz", 404, "xyz"},
		{"/api/v1/events/" + doc(99).ID, 404, doc(99).ID},
		{"/api/v1/probes/nothing", 404, "/api/v1/probes"},
		{"/api/v1/node?x=1", 422, "query.x: unknown"},
		{"/api/v1/events?colour=red", 422, "query.colour: unknown"},
		{"/api/v1/events?severity=fatal", 422, `"fatal" is none of info, warning, critical`},
		{"/api/v1/events?from=yesterday", 422, "query.from: \"yesterday\" is neither RFC 3339 nor Unix seconds"},
		{"/api/v1/events?from=NaN", 422, "query.from"},
		{"/api/v1/events?to=1e300", 422, "query.to"},
		{"/api/v1/events?from=2&to=1", 422, "must be before to"},
		{"/api/v1/events?limit=0", 422, "query.limit"},
		{"/api/v1/events?limit=1001", 422, "query.limit"},
		{"/api/v1/events?limit=x", 422, "query.limit"},
		{"/api/v1/events?before=x", 422, "query.before"},
		{"/api/v1/events?pid=-1", 422, "query.pid"},
		{"/api/v1/events?pid=1&pid=2", 422, "more than once"},
		{"/api/v1/events?field.=1", 422, "snake_case"},
		{"/api/v1/events?field.a%27b=1", 422, "snake_case"},
		{"/api/v1/events?q=%ff", 422, "UTF-8"},
		{"/api/v1/events?q=" + strings.Repeat("x", maxParam+1), 422, "at most"},
		{"/api/v1/events/timeline?buckets=0", 422, "query.buckets"},
		{"/api/v1/events/timeline?from=2100-01-01T00:00:00Z", 422, "must be before to"},
		{"/api/v1/events/stream?q=x", 422, "use /api/v1/events"},
		{"/api/v1/events?where=field.n+%3E+many", 422, "query.where: field.n > \"many\": what it is compared with must be a number"},
		{"/api/v1/events?where=a=1&where=b=2", 422, "more than once"},
		{"/api/v1/events?buckets=5", 422, "query.buckets: unknown"},
		{"/api/v1/events/stream?where=field.a", 422, "NAME OP VALUE"},
		{"/api/v1/events/count?by=colour", 422, "query.by"},
		{"/api/v1/events/count?buckets=1001", 422, "query.buckets"},
		{"/api/v1/events/count?from=2100-01-01T00:00:00Z", 422, "must be before to"},
		{"/api/v1/events/values", 422, "query.name"},
		{"/api/v1/events/values?name=a%27b", 422, "not the name of a member"},
		{"/api/v1/events/values?name=comm&limit=101", 422, "query.limit"},
		{"/api/v1/events/" + doc(99).ID + "/neighbours", 404, doc(99).ID},
		{"/api/v1/events/" + doc(1).ID + "/neighbours?window=0", 422, "query.window"},
		{"/api/v1/events/xyz/charts", 404, "xyz"},
		{"/api/v1/events/xyz/export", 404, "xyz"},
		{"/api/v1/events/" + doc(1).ID + "/export?format=pdf", 422, "\"pdf\" is none of [html json]"},
		{"/api/v1/events/" + doc(1).ID + "/export?colour=red", 422, "query.colour: unknown"},
		{"/api/v1/events/" + doc(1).ID + "/export?window=x", 422, "query.window"},
		{"/api/v1/events/export?format=csv", 422, "\"csv\" is neither ndjson nor json"},
		{"/api/v1/events/export?limit=10001", 422, "query.limit"},
		{"/api/v1/events/export?colour=red", 422, "query.colour: unknown"},
		{"/api/v1/events/stream?last_event_id=7", 422, "not the id of an event"},
		{"/api/v1/events/stream?pid=x", 422, "no process id"},
		{"/missing.js", 404, "no such file"},
	} {
		t.Run(c.path[:min(len(c.path), 60)], func(t *testing.T) { wantProblem(t, newWorld(t).get(c.path), c.status, c.detail) })
	}
	for _, c := range []struct{ method, path, allow string }{
		{"POST", "/api/v1/node", "GET"}, {"DELETE", "/api/v1/events", "GET"}, {"POST", "/metrics", "GET, HEAD"},
		{"POST", "/", "GET, HEAD"}, {"PUT", "/api/v1/query", "GET, POST"}, {"POST", "/api/v1/events/stream", "GET"},
	} {
		rec := newWorld(t).do(request(c.method, c.path))
		wantProblem(t, rec, http.StatusMethodNotAllowed, c.method)
		if got := rec.Header().Get("Allow"); got != c.allow {
			t.Errorf("%s %s: Allow %q, want %q", c.method, c.path, got, c.allow)
		}
	}
}

func TestStoreErrors(t *testing.T) {
	for _, c := range []struct {
		err    error
		status int
		detail string
	}{
		{typedError{"bad_data", "unbalanced quote"}, 422, "unbalanced quote"},
		{typedError{"timeout", "too slow"}, 504, "narrow"},
		{typedError{"internal", "disk on fire"}, 500, "disk on fire"},
		{errors.New("disk on fire"), 500, "disk on fire"},
	} {
		w := newWorld(t)
		w.events.fail = c.err
		for _, path := range []string{"/api/v1/events", "/api/v1/events/timeline", "/api/v1/events/count", "/api/v1/events/values?name=comm", "/api/v1/events/export", "/api/v1/events/" + doc(1).ID} {
			wantProblem(t, w.get(path), c.status, c.detail)
		}
	}
	w := newWorld(t, func(o *Options) { o.QueryTimeout = 10 * time.Millisecond })
	w.events.hang = true
	wantProblem(t, w.get("/api/v1/events"), http.StatusGatewayTimeout, "longer than 10ms")

	none := newWorld(t, func(o *Options) { o.Events, o.Metrics = nil, nil })
	wantProblem(t, none.get("/api/v1/events"), http.StatusServiceUnavailable, "--store none")
	if rec := none.get("/api/v1/query?query=1"); rec.Code != http.StatusServiceUnavailable || !strings.Contains(rec.Body.String(), `"unavailable"`) {
		t.Errorf("%d %s", rec.Code, rec.Body)
	}
}

func TestHealth(t *testing.T) {
	w := newWorld(t)
	for path, body := range map[string]string{"/healthz": "ok\n", "/readyz": "ready\n", "/metrics": "# EOF\n"} {
		if rec := w.get(path); rec.Code != http.StatusOK || rec.Body.String() != body {
			t.Errorf("%s: %d %q", path, rec.Code, rec.Body)
		}
	}
	w.agent.notReady = errors.New("probes are starting")
	if rec := w.get("/readyz"); rec.Code != http.StatusServiceUnavailable || rec.Body.String() != "not ready: probes are starting\n" {
		t.Errorf("%d %q", rec.Code, rec.Body)
	}
	if rec := w.get("/healthz"); rec.Code != http.StatusOK {
		t.Errorf("not ready is not unhealthy: %d", rec.Code)
	}
}

// TestOpenAPI asks each endpoint of the document: one that nobody serves is a lie.
func TestOpenAPI(t *testing.T) {
	w := newWorld(t)
	rec := w.get("/openapi.json")
	var d struct {
		OpenAPI    string
		Paths      map[string]map[string]struct{ OperationID string }
		Components struct {
			Schemas map[string]struct {
				Properties map[string]struct{ Type any }
				Required   []string
			}
		}
	}
	if err := json.Unmarshal(rec.Body.Bytes(), &d); err != nil {
		t.Fatal(err)
	}
	if d.OpenAPI != "3.1.0" || len(d.Paths) < 20 {
		t.Fatalf("version %q, %d paths", d.OpenAPI, len(d.Paths))
	}
	again, err := OpenAPI()
	if err != nil || string(again) != rec.Body.String() {
		t.Errorf("the document differs from one call to the next: %v", err)
	}
	ids := map[string]bool{}
	for path, methods := range d.Paths {
		for method, op := range methods {
			if ids[op.OperationID] || op.OperationID == "" {
				t.Errorf("operation id %q is not unique", op.OperationID)
			}
			ids[op.OperationID] = true
			if path == "/api/v1/events/stream" {
				continue // does not end; see stream_test.go
			}
			real := strings.NewReplacer("{id}", doc(1).ID, "{name}", "oomkill").Replace(path)
			rec := w.do(request(strings.ToUpper(method), real))
			if rec.Code == http.StatusNotFound || rec.Code == http.StatusMethodNotAllowed || strings.HasPrefix(rec.Header().Get("Content-Type"), "text/html") && rec.Header().Get("Content-Disposition") == "" {
				t.Errorf("%s %s is described, but answers %d", method, real, rec.Code)
			}
		}
	}
	for name, s := range d.Components.Schemas {
		for _, r := range s.Required {
			if _, ok := s.Properties[r]; !ok {
				t.Errorf("%s requires %s, which it does not have", name, r)
			}
		}
	}
	if p, ok := d.Components.Schemas["Node"].Properties["store_interval_seconds"]; !ok || p.Type != "number" {
		t.Errorf("Node is not derived from its type: %+v", d.Components.Schemas["Node"])
	}
}

func TestPanic(t *testing.T) {
	w := newWorld(t)
	w.agent.panics = true
	rec := w.get("/api/v1/node")
	wantProblem(t, rec, http.StatusInternalServerError, "bug of huatuo")
	if strings.Contains(rec.Body.String(), "sensitive") {
		t.Error("the panic's value reached the client")
	}
	var b signal.Batch
	if err := w.Collect(&b); err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, s := range b.Samples {
		got[strings.Join(append([]string{s.Schema.Name}, s.Labels...), " ")] = s.Value
	}
	if got["huatuo_console_panics_total"] != 1 || got["huatuo_console_requests_total 5xx"] != 1 || got["huatuo_console_requests_total 2xx"] != 0 {
		t.Errorf("counters: %v", got)
	}
	for _, s := range Schemas() {
		if s.Help == "" || s.Area != signal.AreaAgent {
			t.Errorf("%+v", s)
		}
	}
}

// TestPanicLate has a handler fail after it began to answer: the connection
// must break, or half an answer passes for a whole one.
func TestPanicLate(t *testing.T) {
	w := newWorld(t, func(o *Options) {
		o.Scrape = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Write([]byte("half"))
			w.(http.Flusher).Flush()
			panic("late")
		})
	})
	srv := httptest.NewServer(w)
	defer srv.Close()
	resp, err := http.Get(srv.URL + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, err := io.ReadAll(resp.Body); err == nil {
		t.Errorf("the answer %q looks complete", b)
	}
}

func TestGzip(t *testing.T) {
	w := newWorld(t)
	rec := w.get("/openapi.json", "Accept-Encoding", "gzip")
	if rec.Header().Get("Content-Encoding") != "gzip" || !strings.Contains(rec.Header().Get("Vary"), "Accept-Encoding") {
		t.Errorf("a long answer is not compressed: %v", rec.Header())
	}
	if rec := w.get("/api/v1/node", "Accept-Encoding", "gzip"); rec.Header().Get("Content-Encoding") != "" {
		t.Error("a short answer is compressed")
	}
	if rec := w.get("/openapi.json"); rec.Header().Get("Content-Encoding") != "" || !json.Valid(rec.Body.Bytes()) {
		t.Error("compressed for a client that did not ask")
	}
}

func FuzzQuery(f *testing.F) {
	for _, s := range []string{"kind=a,b&from=1.5&to=2026-01-02T03:04:05Z", "field.a=b&pid=3&q=x", "from=-1e9&from=2", "severity=%00", "from=9223372036.854775807", "limit=-0&buckets=1e3", "where=field.a>5&name=comm&by=kind"} {
		f.Add(s)
	}
	w := newWorld(f)
	f.Fuzz(func(t *testing.T, q string) {
		for _, path := range []string{"/api/v1/events", "/api/v1/events/timeline", "/api/v1/events/count", "/api/v1/events/values", "/api/v1/query", "/api/v1/query_range", "/api/v1/labels"} {
			r := request(http.MethodGet, path)
			r.URL.RawQuery = q
			rec := w.do(r)
			if !json.Valid(rec.Body.Bytes()) {
				t.Fatalf("%s?%s: %d %s", path, q, rec.Code, rec.Body)
			}
			if rec.Code >= 500 && rec.Code != http.StatusServiceUnavailable && rec.Code != http.StatusGatewayTimeout {
				if !strings.Contains(rec.Body.String(), "disk on fire") {
					t.Fatalf("%s?%s: %d %s", path, q, rec.Code, rec.Body)
				}
			}
		}
	})
}

// BenchmarkNew is part of the time from start to the first sample.
func BenchmarkNew(b *testing.B) {
	for b.Loop() {
		newWorld(b)
	}
}
