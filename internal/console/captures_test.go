package console

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"huatuo/internal/signal"
)

// fakeProfiles answers a comparison with what it was asked for.
type fakeProfiles struct {
	before, after signal.ProfileQuery
	self          bool
}

func (p *fakeProfiles) Status() ProfilerStatus       { return ProfilerStatus{State: "running"} }
func (p *fakeProfiles) Types() []*signal.ProfileType { return nil }
func (p *fakeProfiles) Flame(context.Context, signal.ProfileQuery, float64) (*signal.FlameGraph, error) {
	return &signal.FlameGraph{}, nil
}
func (p *fakeProfiles) Heat(context.Context, signal.ProfileQuery, time.Duration) ([]int64, error) {
	return nil, nil
}
func (p *fakeProfiles) Series(context.Context, signal.ProfileQuery, []string) ([]signal.ProfileSeries, error) {
	return nil, nil
}
func (p *fakeProfiles) Diff(_ context.Context, before, after signal.ProfileQuery, self bool, _ float64) (*signal.ProfileDiff, error) {
	p.before, p.after, p.self = before, after, self
	return &signal.ProfileDiff{Functions: make([]signal.FunctionChange, 300)}, nil
}
func (p *fakeProfiles) Encode(w io.Writer, g *signal.FlameGraph, format string) error {
	_, err := fmt.Fprint(w, g.Type, " as ", format)
	return err
}

// badTarget is a request's fault as profile.RequestError is.
type badTarget struct{}

func (badTarget) Error() string      { return "target has no such process" }
func (badTarget) BadRequest() string { return "target" }

type fakeCaptures struct {
	asked []signal.CaptureRequest
	fail  error
}

func (c *fakeCaptures) Start(r signal.CaptureRequest) (signal.CaptureInfo, error) {
	c.asked = append(c.asked, r)
	return signal.CaptureInfo{ID: "01ARZ3NDEKTSV4RRFFQ69G5FAV", State: signal.CaptureRunning, Types: r.Types}, c.fail
}
func (c *fakeCaptures) List(most int) ([]signal.CaptureInfo, error) {
	return make([]signal.CaptureInfo, min(most, 3)), nil
}
func (c *fakeCaptures) Get(id string) (*signal.Capture, error) {
	if id != "01ARZ3NDEKTSV4RRFFQ69G5FAV" {
		return nil, ErrMissing
	}
	return &signal.Capture{CaptureInfo: signal.CaptureInfo{ID: id, State: signal.CaptureDone}, Graphs: []*signal.FlameGraph{{Type: "cpu"}}}, nil
}

func (c *fakeCaptures) Remove(id string) error {
	_, err := c.Get(id)
	return err
}

func (w *world) post(target, body string, header ...string) *httptest.ResponseRecorder {
	r := request(http.MethodPost, target, append(header, "Content-Type", "application/json")...)
	r.Body = io.NopCloser(strings.NewReader(body))
	return w.do(r)
}

// TestCaptures: a capture is asked for with its window around now, and found by
// its id; what is wrong with a request is said.
func TestCaptures(t *testing.T) {
	const path = "/api/v1/profiles/capture"
	taken := &fakeCaptures{}
	w := newWorld(t, func(o *Options) { o.Captures, o.Profiles = taken, &fakeProfiles{} })
	rec := w.post(path, `{"target":{"pid":7,"labels":{"process":["p"]}},"types":["cpu"],"before_seconds":5,"after_seconds":2.5,"hertz":97,"why":"x"}`)
	var info signal.CaptureInfo
	if err := json.Unmarshal(rec.Body.Bytes(), &info); err != nil || rec.Code != http.StatusAccepted || info.State != signal.CaptureRunning {
		t.Fatalf("%d %s %v", rec.Code, rec.Body, err)
	}
	if l := rec.Header().Get("Location"); l != path+"s/"+info.ID {
		t.Errorf("location %q", l)
	}
	r := taken.asked[0]
	if r.To.Sub(r.From) != 7500*time.Millisecond || time.Since(r.From) < 5*time.Second || r.Target.PID != 7 || r.Target.Labels["process"][0] != "p" || r.Hertz != 97 || r.Why != "x" {
		t.Errorf("asked %+v", r)
	}
	if rec := w.get(path + "s/" + info.ID); rec.Code != 200 || !strings.Contains(rec.Body.String(), `"state":"done"`) || !strings.Contains(rec.Body.String(), `"graphs":[`) {
		t.Errorf("%d %s", rec.Code, rec.Body)
	}
	if rec := w.get(path + "s?limit=2"); rec.Code != 200 || strings.Count(rec.Body.String(), `"state"`) != 2 {
		t.Errorf("%d %s", rec.Code, rec.Body)
	}
	if rec := w.get(path + "s/" + info.ID + "/download?format=folded"); rec.Code != 200 || rec.Body.String() != "cpu as folded" || !strings.Contains(rec.Header().Get("Content-Disposition"), ".folded.txt") {
		t.Errorf("%d %s", rec.Code, rec.Body)
	}
	if rec := w.get(path + "s/" + info.ID + "/download?format=otlp"); rec.Header().Get("Content-Type") != "application/x-protobuf" || !strings.HasSuffix(rec.Header().Get("Content-Disposition"), `.otlp"`) {
		t.Errorf("OTLP: %d %v", rec.Code, rec.Header())
	}
	wantProblem(t, w.get(path+"s/"+info.ID+"/download?type=lock"), http.StatusNotFound, `type "lock"`)
	wantProblem(t, w.get(path+"s/01ARZ3NDEKTSV4RRFFQ69G5FAW"), http.StatusNotFound, "no such capture")
	if rec := w.do(request(http.MethodDelete, path+"s/"+info.ID)); rec.Code != http.StatusNoContent {
		t.Errorf("removed: %d %s", rec.Code, rec.Body)
	}
	wantProblem(t, w.do(request(http.MethodDelete, path+"s/01ARZ3NDEKTSV4RRFFQ69G5FAW")), http.StatusNotFound, "no such capture")
	wantProblem(t, w.do(request(http.MethodDelete, path+"s/"+info.ID, "Sec-Fetch-Site", "cross-site")), http.StatusForbidden, "another origin")
	wantProblem(t, w.post(path, `{}`), 422, "must not both be 0")
	wantProblem(t, w.post(path, `{"before_seconds":1}`, "Sec-Fetch-Site", "cross-site"), http.StatusForbidden, "another origin")
	taken.fail = badTarget{}
	wantProblem(t, w.post(path, `{"before_seconds":1}`), 422, "has no such process")
	taken.fail = ErrTooMany
	wantProblem(t, w.post(path, `{"before_seconds":1}`), http.StatusTooManyRequests, "too many captures")
	taken.fail = nil
	for range captureBurst {
		rec = w.post(path, `{"before_seconds":1}`)
	}
	wantProblem(t, rec, http.StatusTooManyRequests, "allowed")
	if rec.Header().Get("Retry-After") != "10" {
		t.Errorf("headers %v", rec.Header())
	}
	none := newWorld(t)
	wantProblem(t, none.post(path, `{"before_seconds":1}`), http.StatusServiceUnavailable, "profiles.enabled")
	wantProblem(t, none.get(path+"s"), http.StatusServiceUnavailable, "profiles.enabled")
}

// TestProfileDiff: what of the base is missing is that of the other side, and the
// window that of the same length before it.
func TestProfileDiff(t *testing.T) {
	p := &fakeProfiles{}
	w := newWorld(t, func(o *Options) { o.Profiles = p })
	ask := func(query string) {
		t.Helper()
		rec := w.get("/api/v1/profiles/diff?" + query)
		var d signal.ProfileDiff
		if err := json.Unmarshal(rec.Body.Bytes(), &d); err != nil || rec.Code != 200 {
			t.Fatalf("%s: %d %.300s %v", query, rec.Code, rec.Body, err)
		}
		if len(d.Functions) > 200 {
			t.Errorf("%d functions", len(d.Functions))
		}
	}
	window := func(q signal.ProfileQuery, from, to int64) {
		t.Helper()
		if q.From.Unix() != from || q.To.Unix() != to {
			t.Errorf("window %v to %v, want %d to %d", q.From.Unix(), q.To.Unix(), from, to)
		}
	}
	ask("from=1000&to=1060&process=a&pid=3&of=total")
	window(p.after, 1000, 1060)
	window(p.before, 940, 1000)
	if p.before.PID != 3 || p.before.Labels["process"][0] != "a" || p.self {
		t.Errorf("base %+v", p.before)
	}
	ask("from=1000&to=1060&process=a&pid=3&pod=x&base_process=b,c")
	window(p.before, 1000, 1060)
	if p.before.PID != 0 || len(p.before.Labels["process"]) != 2 || p.before.Labels["pod"][0] != "x" || p.after.Labels["process"][0] != "a" || !p.self {
		t.Errorf("base %+v, after %+v", p.before, p.after)
	}
	ask("from=1000&to=1060&base_from=100&base_to=130")
	window(p.before, 100, 130)
	ask("from=1000&to=1060&base_to=500")
	window(p.before, 440, 500)
	wantProblem(t, w.get("/api/v1/profiles/diff?from=1000&to=1060&base_from=9&base_to=8"), 422, "before base_to")
	wantProblem(t, w.get("/api/v1/profiles/diff?from=1000&to=1060&base_color=red"), 422, "base_color")
}
