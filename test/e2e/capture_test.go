package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"huatuo/internal/probes/probetest"
	"huatuo/internal/signal"
)

// post sends JSON and returns the status and what came back.
func (a *agent) post(path string, body any) (int, http.Header, []byte) {
	a.t.Helper()
	b, err := json.Marshal(body)
	if err != nil {
		a.t.Fatal(err)
	}
	r, err := http.Post(a.url+path, "application/json", bytes.NewReader(b))
	if err != nil {
		a.t.Fatal(err)
	}
	defer r.Body.Close()
	var out bytes.Buffer
	if _, err := out.ReadFrom(r.Body); err != nil {
		a.t.Fatal(err)
	}
	return r.StatusCode, r.Header, out.Bytes()
}

// burst runs a Python function of that name for some seconds of CPU time, and
// returns when it has ended.
func burst(t *testing.T, function string, seconds int) (pid int) {
	t.Helper()
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("needs python3")
	}
	c := exec.Command(python, "-c", fmt.Sprintf(
		"import time\ndef %[1]s(n):\n  s = 0\n  for i in range(n): s += i\n  return s\nwhile time.process_time() < %[2]d: %[1]s(100000)", function, seconds))
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return c.Process.Pid
}

// captured waits for the end of a capture.
func (a *agent) captured(id string) *signal.Capture {
	a.t.Helper()
	var c signal.Capture
	a.eventually(30*time.Second, "the end of the capture", func() error {
		a.json("/api/v1/profiles/captures/"+id, &c)
		if c.State == signal.CaptureRunning {
			return fmt.Errorf("%s", c.State)
		}
		return nil
	})
	return &c
}

// shareBelow is the share of a graph's value below a function.
func shareBelow(g *signal.FlameGraph, function string) float64 {
	var in int64
	for _, n := range g.Nodes {
		if g.Frames[n.Frame].Function == function {
			in += n.Total
		}
	}
	return float64(in) / float64(max(g.Total, 1))
}

// TestCapture: a burst of work that has ended before the capture is asked for is
// in it, under the function's name; the capture outlives the agent; and two
// bursts compared name the function that came.
func TestCapture(t *testing.T) {
	needRoot(t)
	data := t.TempDir()
	args := []string{"--set", "profiles.enabled=true", "--set", "profiles.cpu_hertz=97", "--set", "profiles.max_memory=1GiB"}
	a := startIn(t, data, args...)
	a.eventually(60*time.Second, "stacks are taken", func() error {
		var types struct {
			Status struct{ State, Reason string }
		}
		if a.json("/api/v1/profiles/types", &types); types.Status.State != "running" {
			return fmt.Errorf("%s %s", types.Status.State, types.Status.Reason)
		}
		return nil
	})
	a.eventually(120*time.Second, "samples of a new process", func() error { // in the first seconds the unwinder reads the files of all that runs
		var g signal.FlameGraph
		q := "pid=" + fmt.Sprint(burst(t, "warm_up", 1))
		time.Sleep(6 * time.Second) // names, and the way to the disk
		if a.json("/api/v1/profiles/flame?"+q, &g); g.Samples < 50 {
			return fmt.Errorf("%d samples of a second", g.Samples)
		}
		return nil
	})
	before := burst(t, "burst_of_before", 3)
	pid := burst(t, "burst_that_ended", 3)

	code, header, body := a.post("/api/v1/profiles/capture", map[string]any{
		"target": map[string]any{"pid": pid}, "types": []string{"cpu"}, "before_seconds": 120, "why": "TestCapture",
	})
	var info signal.CaptureInfo
	if err := json.Unmarshal(body, &info); err != nil || code != http.StatusAccepted || header.Get("Location") != "/api/v1/profiles/captures/"+info.ID {
		t.Fatalf("%d %s %v", code, body, err)
	}
	c := a.captured(info.ID)
	if c.State != signal.CaptureDone || len(c.Graphs) != 1 || c.Graphs[0].Samples < 50 || shareBelow(c.Graphs[0], "burst_that_ended") < 0.5 {
		t.Errorf("capture %+v of %d graphs", c.CaptureInfo, len(c.Graphs))
		for _, g := range c.Graphs {
			t.Errorf("%s: %d samples, %.2f in the function", g.Type, g.Samples, shareBelow(g, "burst_that_ended"))
		}
	}

	// A container that runs, by its id and by its cgroup, at a higher rate, with the
	// seconds to come.
	id := strings.Repeat("f00d", 16)
	cg := probetest.NewCgroup(t, "docker-"+id+".scope")
	spins := spinner(t, "spins_in_container")
	cg.Add(t, spins)
	for _, target := range []map[string]any{{"container": id}, {"cgroup": cg.ID, "tid": spins}} {
		code, _, body = a.post("/api/v1/profiles/capture", map[string]any{
			"target": target, "before_seconds": 1, "after_seconds": 6, "hertz": 197, "types": []string{"cpu"},
		})
		if err := json.Unmarshal(body, &info); err != nil || code != http.StatusAccepted {
			t.Fatalf("%d %s %v", code, body, err)
		}
		if c := a.captured(info.ID); c.State != signal.CaptureDone || len(c.Graphs) != 1 || shareBelow(c.Graphs[0], "spins_in_container") < 0.5 {
			t.Errorf("capture %+v of %d graphs", c.CaptureInfo, len(c.Graphs))
		}
	}
	var list struct{ Captures []signal.CaptureInfo }
	if a.json("/api/v1/profiles/captures", &list); len(list.Captures) != 3 || list.Captures[0].ID != info.ID || list.Captures[2].Why != "TestCapture" {
		t.Errorf("list %+v", list)
	}

	q := url.Values{"pid": {fmt.Sprint(pid)}, "base_pid": {fmt.Sprint(before)}, "of": {"total"}}
	var d signal.ProfileDiff
	a.json("/api/v1/profiles/diff?"+q.Encode(), &d)
	verdicts := map[string]string{}
	for _, f := range d.Functions {
		verdicts[f.Function] = f.Verdict
	}
	if verdicts["burst_that_ended"] != "regressed" || verdicts["burst_of_before"] != "improved" || d.Before.Samples < 10 {
		t.Errorf("diff %+v, %v", d.Before, verdicts)
	}

	refused(t, a)
	a.stop()
	a = startIn(t, data, args...)
	if got := a.captured(list.Captures[2].ID); got.State != signal.CaptureDone || len(got.Graphs) != 1 || got.Samples != c.Samples {
		t.Errorf("after a restart: %+v", got.CaptureInfo)
	}
	if code, b := a.get("/api/v1/profiles/captures/" + list.Captures[2].ID + "/download?format=folded"); code != 200 || !strings.Contains(b, "burst_that_ended") {
		t.Errorf("folded: %d %.300s", code, b)
	}
}

// refused asks for captures that cannot be, and for more than may be.
func refused(t *testing.T, a *agent) {
	t.Helper()
	for want, body := range map[string]map[string]any{
		"must not both be 0":     {},
		"the types are cpu":      {"before_seconds": 1, "types": []string{"nonsense"}},
		"that is not known":      {"before_seconds": 1, "target": map[string]any{"cgroup": 1 << 50}},
		"expected number <= 600": {"after_seconds": 601},
	} {
		if code, _, b := a.post("/api/v1/profiles/capture", body); code != 422 || !bytes.Contains(b, []byte(want)) {
			t.Errorf("%v: %d %s", body, code, b)
		}
	}
	var codes []int
	for range 8 {
		code, _, _ := a.post("/api/v1/profiles/capture", map[string]any{"before_seconds": 1})
		codes = append(codes, code)
	}
	if !slices.Contains(codes, http.StatusTooManyRequests) {
		t.Errorf("eight at once: %v", codes)
	}
	if code, b := a.get("/api/v1/profiles/captures/01ARZ3NDEKTSV4RRFFQ69G5FAV"); code != 404 || !strings.Contains(b, "no such capture") {
		t.Errorf("%d %s", code, b)
	}
}
