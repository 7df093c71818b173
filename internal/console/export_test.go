package console

import (
	"encoding/json"
	"errors"
	"flag"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"

	"huatuo/internal/signal"
)

var update = flag.Bool("update", false, "write the golden files anew")

// full is an event with everything that a document can have.
func full() *signal.Document {
	d := doc(1)
	start := epoch.Add(-time.Hour)
	d.Title, d.Host, d.Verdict, d.Known = "app was killed", "node1", "The limit of its memory cgroup was reached.", []string{"leak-42"}
	d.Fields = json.RawMessage(`{"limit_bytes":1048576,"wait_seconds":0.0125,"trigger":{"process":{"comm":"init","pid":1},"kernel_stack":[{"function":"try_charge"}]},"log":["a","b"],"ok":true,"none":null}`)
	d.Links = []signal.Link{{ID: doc(0).ID, Kind: "oom_kill", Relation: signal.Cause, Title: "event 0"}}
	d.KernelStack = []signal.Frame{{Function: "out_of_memory", Offset: 16}}
	d.UserStack = []signal.Frame{{Function: "main", Module: "/bin/app", File: "main.c", Line: 7}, {Function: "[unknown]", Missing: "no symbols"}}
	d.Registers = map[string]string{"rip": "main", "rax": "0"}
	d.Process.StartTime = &start
	d.Resources = &signal.Resources{
		Host:     &signal.HostResources{Load1: 2.5, Runnable: 3, MemoryTotal: 1 << 30, MemoryAvailable: 1 << 28, Pressure: &signal.Pressure{CPUSome: 0.125}},
		Workload: &signal.WorkloadResources{MemoryUsed: 900 << 10, MemoryLimit: 1 << 20, CPULimit: 0.5, Throttled: 1.5, OOMKills: 2, Pids: 5},
	}
	d.Suppressed, d.Unresolved = 4, []string{"symbols"}
	return d
}

// exportWorld has that event between two others, and metrics with a hole.
func exportWorld(t *testing.T, d *signal.Document) *world {
	w := newWorld(t)
	w.events.docs = []*signal.Document{doc(0), d, doc(2)}
	w.metrics.matrix = promql.Matrix{{
		Metric: labels.FromStrings("mode", "user"),
		Floats: []promql.FPoint{{T: epoch.Add(-time.Minute).UnixMilli(), F: 0.5}, {T: epoch.UnixMilli(), F: 1}, {T: epoch.Add(time.Minute).UnixMilli(), F: 0}},
	}}
	w.metrics.names = []string{"huatuo_memory_bytes", "huatuo_cpu_seconds_total"}
	return w
}

// TestExportGolden compares the whole page; -update writes it anew, and then
// it wants to be looked at in a browser.
func TestExportGolden(t *testing.T) {
	w := exportWorld(t, full())
	rec := w.get("/api/v1/events/" + full().ID + "/export")
	if rec.Code != http.StatusOK {
		t.Fatalf("%d %s", rec.Code, rec.Body)
	}
	if got, want := rec.Header().Get("Content-Disposition"), `attachment; filename="oom_kill-`+full().ID+`.html"`; got != want {
		t.Errorf("Content-Disposition %s, want %s", got, want)
	}
	made := rec.Body.String()[strings.Index(rec.Body.String(), "exported "):]
	made = made[:strings.Index(made, "·")]
	got := strings.Replace(rec.Body.String(), made, "exported NOW ", 1)
	path := filepath.Join("testdata", "export.html")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("run with -update and look at it (-want +got):\n%s", d)
	}
}

// TestExportSelfContained: the page asks for nothing and runs nothing, whatever
// the event says.
func TestExportSelfContained(t *testing.T) {
	evil := `"><img src=x onerror=alert(1)><script>alert(1)</script></style>'` + "`" + `javascript:alert(1) {{.}} ]]>`
	d := full()
	d.Title, d.Verdict, d.Known, d.Host = evil, evil, []string{evil}, evil
	d.Process = &signal.Process{PID: 1, Comm: evil, Exe: evil, Cmdline: evil}
	d.Container = &signal.Container{ID: "abcdef", Name: evil, Labels: map[string]string{evil: evil}}
	d.KernelStack = []signal.Frame{{Function: evil, Module: evil, File: evil, Missing: evil}}
	d.Registers = map[string]string{evil: evil}
	d.Links = []signal.Link{{ID: evil, Kind: evil, Relation: evil, Title: evil}}
	d.Unresolved = []string{evil}
	body, err := json.Marshal(map[string]any{evil: evil, "nested": map[string]any{evil: []any{evil}}})
	if err != nil {
		t.Fatal(err)
	}
	d.Fields = body
	near := doc(2)
	near.Title, near.Kind, near.Process.Comm = evil, evil, evil
	w := exportWorld(t, d)
	w.events.docs[2] = near
	w.metrics.matrix[0].Metric = labels.FromStrings("mode", evil)
	for _, lang := range []string{"en", "zh"} {
		rec := w.get("/api/v1/events/" + d.ID + "/export?lang=" + lang)
		page := rec.Body.String()
		if rec.Code != http.StatusOK || strings.Count(page, "&lt;script&gt;") < 10 {
			t.Fatalf("%s: %d, the page does not quote the event:\n%s", lang, rec.Code, page)
		}
		for _, bad := range []string{"<script", "<img", "<link", "<iframe", "src=", "url(", "@import", "http://", "https://", "ZgotmplZ"} {
			text := strings.NewReplacer("src=x onerror", "").Replace(page)
			if strings.Contains(text, bad) {
				t.Errorf("%s: the page has %q", lang, bad)
			}
		}
	}
}

func TestExportJSON(t *testing.T) {
	w := exportWorld(t, full())
	rec := w.get("/api/v1/events/" + full().ID + "/export?format=json")
	var got signal.Document
	if err := json.Unmarshal(rec.Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if got.ID != full().ID || got.Verdict != full().Verdict || !strings.Contains(rec.Header().Get("Content-Disposition"), ".json") {
		t.Errorf("%v %+v", rec.Header(), got)
	}
}

func TestExportEvents(t *testing.T) {
	w := newWorld(t)
	w.events.docs = docs(0, 1200) // more than two pages
	lines := strings.Split(strings.TrimSpace(w.get("/api/v1/events/export").Body.String()), "\n")
	if len(lines) != 1200 {
		t.Fatalf("%d lines", len(lines))
	}
	var first signal.Document
	if err := json.Unmarshal([]byte(lines[0]), &first); err != nil || first.ID != doc(1199).ID {
		t.Errorf("first line %s, %v", lines[0], err)
	}
	for query, want := range map[string]int{"&limit=501": 501, "": 1200, "&comm=nobody": 0, "&pid=7": 1} {
		rec := w.get("/api/v1/events/export?format=json" + query)
		var list []signal.Document
		if err := json.Unmarshal(rec.Body.Bytes(), &list); err != nil || len(list) != want {
			t.Errorf("%q: %d events, %v; want %d", query, len(list), err, want)
		}
		if ct := rec.Header().Get("Content-Type"); ct != "application/json" || !strings.HasPrefix(rec.Header().Get("Content-Disposition"), "attachment;") {
			t.Errorf("%q: %v", query, rec.Header())
		}
	}
}

// TestExportBreaks: a store that fails in the middle breaks the download.
func TestExportBreaks(t *testing.T) {
	w := newWorld(t)
	w.events.docs = docs(0, 1200)
	w.events.failAfter = 1
	srv := httptest.NewServer(w)
	defer srv.Close()
	resp, err := http.Get(srv.URL + "/api/v1/events/export")
	if err != nil {
		return // cut off before the first byte was sent
	}
	defer resp.Body.Close()
	b := make([]byte, 4<<20)
	n := 0
	for err == nil {
		var k int
		k, err = resp.Body.Read(b[n:])
		n += k
	}
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("the download of %d bytes ends with %v: it looks complete", n, err)
	}
}
