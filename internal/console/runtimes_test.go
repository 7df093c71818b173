package console

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"huatuo/internal/signal"
)

// fakeRuntimes has one process, 7, and notes what it is asked for.
type fakeRuntimes struct {
	asked []signal.RuntimeRequest
	fail  error
}

func (f *fakeRuntimes) List(context.Context) ([]signal.RuntimeProcess, error) {
	p, err := f.Look(7)
	return []signal.RuntimeProcess{p}, err
}

func (f *fakeRuntimes) Look(pid uint32) (signal.RuntimeProcess, error) {
	if pid != 7 && f.fail == nil {
		return signal.RuntimeProcess{}, typedError{notFoundError, "there is no process"}
	}
	return signal.RuntimeProcess{PID: pid, Process: "web", Runtime: "go", Listens: []string{"127.0.0.1:6060"}, Profiles: []signal.RuntimeProfile{}}, f.fail
}

func (f *fakeRuntimes) Ask(_ context.Context, pid uint32) (signal.RuntimeProcess, error) {
	f.asked = append(f.asked, signal.RuntimeRequest{PID: pid})
	return f.Look(pid)
}

func (f *fakeRuntimes) Fetch(_ context.Context, r signal.RuntimeRequest, format string) ([]byte, error) {
	f.asked = append(f.asked, r)
	_, err := f.Look(r.PID)
	return fmt.Appendf(nil, `"%s as %s"`, r.Profile, format), err
}

// TestRuntimes: processes are listed by GET and asked by POST alone, and what they
// answer is a file.
func TestRuntimes(t *testing.T) {
	fake := &fakeRuntimes{}
	w := newWorld(t, func(o *Options) { o.Runtimes = fake })
	for _, path := range []string{"/api/v1/profiles/runtimes", "/api/v1/profiles/runtimes?pid=7"} {
		var list struct{ Processes []signal.RuntimeProcess }
		r := w.get(path)
		if err := json.Unmarshal(r.Body.Bytes(), &list); err != nil || r.Code != 200 || len(list.Processes) != 1 || list.Processes[0].PID != 7 {
			t.Errorf("%s: %d %s", path, r.Code, r.Body)
		}
	}
	if len(fake.asked) != 0 {
		t.Error("listing asks processes")
	}
	for _, tt := range []struct {
		path   string
		status int
		want   string
		asked  signal.RuntimeRequest
	}{
		{"7", 200, `"process":"web"`, signal.RuntimeRequest{PID: 7}},
		{"7/heap", 200, `"heap as pprof"`, signal.RuntimeRequest{PID: 7, Profile: "heap"}},
		{"7/heap?format=svg&sample=alloc_space&seconds=30", 200, `"heap as svg"`, signal.RuntimeRequest{PID: 7, Profile: "heap", Sample: "alloc_space", For: 30 * time.Second}},
		{"7/classes?format=json&collect=true", 200, `"classes as json"`, signal.RuntimeRequest{PID: 7, Profile: "classes", Collect: true}},
		{"8/heap", 404, "there is no process", signal.RuntimeRequest{PID: 8, Profile: "heap"}},
		{"7/cpu", 422, "path.profile", signal.RuntimeRequest{}},
		{"7/heap?seconds=301", 422, "query.seconds", signal.RuntimeRequest{}},
		{"7/heap?gc=1", 422, "gc", signal.RuntimeRequest{}},
		{"0/heap", 422, "path.pid", signal.RuntimeRequest{}},
	} {
		fake.asked = nil
		w.runtimeLimit = newRuntimeLimit()
		r := w.post("/api/v1/profiles/runtimes/"+tt.path, "")
		if r.Code != tt.status || !strings.Contains(r.Body.String(), tt.want) {
			t.Errorf("%s: %d %s", tt.path, r.Code, r.Body)
		}
		if tt.asked.PID == 0 && len(fake.asked) != 0 || tt.asked.PID != 0 && (len(fake.asked) != 1 || fake.asked[0] != tt.asked) {
			t.Errorf("%s: asked for %+v", tt.path, fake.asked)
		}
	}
	r := w.post("/api/v1/profiles/runtimes/7/heap?format=folded", "")
	if h := r.Header(); !strings.HasPrefix(h.Get("Content-Disposition"), `attachment; filename="huatuo-heap-7-`) || h.Get("Content-Type") != "text/plain; charset=utf-8" {
		t.Errorf("%v", h)
	}
	fake.asked = nil
	for _, path := range []string{"7", "7/heap"} {
		if r := w.get("/api/v1/profiles/runtimes/" + path); r.Code != http.StatusMethodNotAllowed {
			t.Errorf("GET %s: %d", path, r.Code)
		}
		if r := w.post("/api/v1/profiles/runtimes/"+path, "", "Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site"); r.Code != http.StatusForbidden {
			t.Errorf("from another page, %s: %d", path, r.Code)
		}
	}
	if len(fake.asked) != 0 {
		t.Errorf("refused, and asked all the same: %+v", fake.asked)
	}
}

// TestRuntimeErrors: each has its status, and what is off says by which key.
func TestRuntimeErrors(t *testing.T) {
	fake := &fakeRuntimes{}
	w := newWorld(t, func(o *Options) { o.Runtimes = fake })
	for _, tt := range []struct {
		err    error
		status int
		want   string
	}{
		{ErrRuntimesOff, 403, "profiles.runtimes is false"},
		{typedError{badDataError, "are of a moment"}, 422, "are of a moment"},
		{typedError{unavailableError, "is being asked already"}, 429, "is being asked already"},
		{typedError{executionError, "does not answer in time"}, 502, "does not answer in time"},
		{context.DeadlineExceeded, 504, ""},
		{fmt.Errorf("disk on fire"), 500, ""},
	} {
		fake.fail = tt.err
		w.runtimeLimit = newRuntimeLimit()
		for _, r := range []int{0, 1} {
			path := "/api/v1/profiles/runtimes/7" + []string{"", "/heap"}[r]
			if got := w.post(path, ""); got.Code != tt.status || !strings.Contains(got.Body.String(), tt.want) || got.Header().Get("Content-Type") != "application/problem+json" {
				t.Errorf("%s, %v: %d %s", path, tt.err, got.Code, got.Body)
			}
		}
	}
	fake.fail = ErrRuntimesOff
	if r := w.get("/api/v1/profiles/runtimes"); r.Code != 403 {
		t.Errorf("the list: %d %s", r.Code, r.Body)
	}
	fake.fail = nil
	for range runtimeBurst {
		w.post("/api/v1/profiles/runtimes/7", "")
	}
	if r := w.post("/api/v1/profiles/runtimes/7/heap", ""); r.Code != 429 || r.Header().Get("Retry-After") == "" {
		t.Errorf("too often: %d %s", r.Code, r.Body)
	}
	if r := newWorld(t).post("/api/v1/profiles/runtimes/7/heap", ""); r.Code != 403 {
		t.Errorf("without: %d %s", r.Code, r.Body)
	}
}
